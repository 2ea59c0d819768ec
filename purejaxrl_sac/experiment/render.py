"""Episodes as moving pictures: one scan plays, Pillow draws each state in world coordinates."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import Policy
from purejaxrl_sac.evaluate import policy as deployed
from purejaxrl_sac.types import EnvState, TrainState

SIZE = 360  # pixels of the longer side
MOST_FRAMES = 250  # longer episodes skip steps
SMOOTH = 2  # drawn so much larger, then scaled down
INK, GREY, BLUE, RED, GREEN, SAND = "#222222", "#999999", "#0072B2", "#D55E00", "#009E73", "#E8D8B0"
PALETTE = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#FFFFFF",
           "#999933", "#882255")  # fmt: skip

Point = tuple[float, float]


class Episode(NamedTuple):
    """An episode as it was played; L steps."""

    states: Any  # the environment's own, leading axis [L + 1]
    obs: np.ndarray  # [L + 1, *obs_shape]
    rewards: np.ndarray  # [L]
    ending: str  # "terminated", "time limit", or "cut here"


class Canvas:
    """A picture in world coordinates, y upwards."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.scale = SMOOTH * SIZE / max(right - left, top - bottom)
        self.left, self.top = left, top
        size = (round(self.scale * (right - left)), round(self.scale * (top - bottom)))
        self.image = Image.new("RGB", size, "white")
        self.pen = ImageDraw.Draw(self.image)

    def at(self, point: Point) -> Point:
        x, y = np.asarray(point, float)
        return (x - self.left) * self.scale, (self.top - y) * self.scale

    def line(self, points: Sequence[Point], color: str = INK, width: float = 2) -> None:
        """`width` is in pixels."""
        width = round(SMOOTH * width)
        self.pen.line([self.at(p) for p in points], fill=color, width=width, joint="curve")

    def polygon(self, points: Sequence[Point], color: str) -> None:
        self.pen.polygon([self.at(p) for p in points], fill=color)

    def box(self, left: float, right: float, bottom: float, top: float, color: str) -> None:
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], color)

    def disc(self, center: Point, radius: float, color: str, filled: bool = True) -> None:
        x, y = self.at(center)
        r = radius * self.scale
        box = (x - r, y - r, x + r, y + r)
        if filled:
            self.pen.ellipse(box, fill=color)
        else:
            self.pen.ellipse(box, outline=color, width=2 * SMOOTH)

    def text(self, center: Point, words: str, color: str = INK) -> None:
        self.pen.text(self.at(center), words, fill=color, font=font(13 * SMOOTH), anchor="mm")

    def rod(self, start: Point, end: Point, width: float, color: str) -> None:
        """A rod with round ends; `width` is in world units."""
        self.line([start, end], color, width * self.scale / SMOOTH)
        for point in (start, end):
            self.disc(point, width / 2, color)


def font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def cartpole(state: Any) -> Image.Image:
    canvas = Canvas(-2.9, 2.9, -0.6, 1.4)
    canvas.line([(-2.9, -0.15), (2.9, -0.15)], GREY)
    for limit in (-2.4, 2.4):
        canvas.line([(limit, -0.3), (limit, 0)], RED)
    canvas.box(state.x - 0.25, state.x + 0.25, -0.15, 0.12, INK)
    hinge = (state.x, 0.12)
    tip = (state.x + np.sin(state.theta), 0.12 + np.cos(state.theta))  # twice the half length 0.5
    canvas.rod(hinge, tip, 0.08, BLUE)
    canvas.disc(hinge, 0.06, GREY)
    return canvas.image


def acrobot(state: Any) -> Image.Image:
    canvas = Canvas(-2.3, 2.3, -2.3, 2.3)
    canvas.line([(-2.3, 1), (2.3, 1)], GREEN)
    first, second = state.joint_angle1, state.joint_angle1 + state.joint_angle2
    elbow = np.array([np.sin(first), -np.cos(first)])
    tip = elbow + np.array([np.sin(second), -np.cos(second)])
    canvas.rod((0, 0), elbow, 0.14, BLUE)
    canvas.rod(elbow, tip, 0.14, "#56B4E9")
    for joint in ((0, 0), elbow):
        canvas.disc(joint, 0.09, INK)
    return canvas.image


def pendulum(state: Any) -> Image.Image:
    canvas = Canvas(-1.4, 1.4, -1.4, 1.4)
    tip = (-np.sin(state.theta), np.cos(state.theta))  # theta = 0 is upright
    canvas.rod((0, 0), tip, 0.18, BLUE)
    canvas.disc((0, 0), 0.06, INK)
    torque = float(np.ravel(state.last_u)[0])
    turned = np.linspace(np.pi / 2, np.pi / 2 + torque * 0.7, 30)
    canvas.line([(0.4 * np.cos(a), 0.4 * np.sin(a)) for a in turned], RED, 3)
    canvas.disc((0.4 * np.cos(turned[-1]), 0.4 * np.sin(turned[-1])), 0.05, RED)
    return canvas.image


def mountain_car(state: Any, goal: float) -> Image.Image:
    def hill(x: float) -> float:
        return 0.45 * np.sin(3 * x) + 0.55

    canvas = Canvas(-1.25, 0.65, -0.1, 1.25)
    x = np.linspace(-1.25, 0.65, 120)
    ground = np.stack([x, hill(x)], axis=-1)
    canvas.polygon([*ground, (0.65, -0.2), (-1.25, -0.2)], SAND)
    canvas.line(ground, INK)
    canvas.line([(goal, hill(goal)), (goal, hill(goal) + 0.22)], INK)
    top = hill(goal) + 0.22
    canvas.polygon([(goal, top), (goal, top - 0.08), (goal + 0.09, top - 0.04)], RED)
    place = float(np.ravel(state.position)[0])
    slope = np.arctan(0.45 * 3 * np.cos(3 * place))
    turn = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])
    below = np.array([place, hill(place)])
    body = [(-0.07, 0.03), (0.07, 0.03), (0.07, 0.08), (-0.07, 0.08)]
    canvas.polygon([below + turn @ p for p in body], BLUE)
    for wheel in ((-0.04, 0.03), (0.04, 0.03)):
        canvas.disc(below + turn @ wheel, 0.03, INK)
    return canvas.image


def reacher(state: Any) -> Image.Image:
    canvas = Canvas(-2.3, 2.3, -2.3, 2.3)
    canvas.disc(state.goal_xy, 0.15, GREEN)
    links = np.stack([np.cos(state.angles), np.sin(state.angles)], axis=-1)
    joints = np.concatenate([np.zeros((1, 2)), links.cumsum(0)])
    for start, end in pairwise(joints):
        canvas.rod(start, end, 0.12, BLUE)
        canvas.disc(start, 0.09, INK)
    canvas.disc(joints[-1], 0.1, RED)
    return canvas.image


def point_robot(state: Any) -> Image.Image:
    canvas = Canvas(-1.6, 1.6, -0.9, 1.6)
    arc = np.linspace(0, np.pi, 60)
    canvas.line(np.stack([np.cos(arc), np.sin(arc)], axis=-1), GREY, 1)
    canvas.disc(state.goal, 0.2, GREEN, filled=False)
    canvas.disc(state.pos, 0.05, RED)
    return canvas.image


def swimmer(state: Any) -> Image.Image:
    reach = max(1.3, *np.abs([*state.xy, *state.goal_xy]), np.abs(state.urchin_xys).max()) + 0.2
    canvas = Canvas(-reach, reach, -reach, reach)
    canvas.disc(state.goal_xy, 0.12, GREEN)
    for urchin in state.urchin_xys:
        canvas.disc(urchin, 0.15, INK)
    canvas.disc(state.xy, 0.08, RED)
    return canvas.image


def multi_goal(state: Any) -> Image.Image:
    canvas = Canvas(-7, 7, -7, 7)
    for goal in ((5, 0), (-5, 0), (0, 5), (0, -5)):
        canvas.disc(goal, 1.0, GREEN, filled=False)
    canvas.disc(state.position, 0.25, RED)
    return canvas.image


def rooms(state: Any, open_places: np.ndarray) -> Image.Image:
    walls = np.where(open_places, ".", "#")
    canvas = grid_paper(walls)
    _mark(canvas, state.goal, "G", GREEN)
    _mark(canvas, state.pos, "", RED)
    return canvas.image


def on_map(state: Any, rows: Sequence[str], position: Sequence[tuple[int, int]]) -> Image.Image:
    canvas = grid_paper(rows)
    _mark(canvas, position[int(state.position)], "", RED)
    return canvas.image


def grid_paper(rows: Sequence[str]) -> Canvas:
    """Walls, letters and lines of a text map; row 0 is above."""
    height, width = len(rows), len(rows[0])
    canvas = Canvas(-0.5, width - 0.5, 0.5 - height, 0.5)
    for i, row in enumerate(rows):
        for j, letter in enumerate(row):
            color = {"#": "#555555", "H": "#56B4E9", "C": INK, "G": "#BFE3D5"}.get(letter, "white")
            canvas.box(j - 0.5, j + 0.5, -i - 0.5, -i + 0.5, color)
            if letter not in "#.F":
                canvas.text((j, -i), letter)
    for i in range(height + 1):
        canvas.line([(-0.5, 0.5 - i), (width - 0.5, 0.5 - i)], "#DDDDDD", 1)
    for j in range(width + 1):
        canvas.line([(j - 0.5, 0.5), (j - 0.5, 0.5 - height)], "#DDDDDD", 1)
    return canvas


def _mark(canvas: Canvas, place: Any, letter: str, color: str) -> None:
    i, j = np.asarray(place)
    if i >= 0:
        canvas.disc((j, -i), 0.32, color)
        canvas.text((j, -i), letter, "white")


def pixels(obs: np.ndarray) -> Image.Image:
    """[H, W] in [0, 1], or [H, W, C] with a color for each channel, the later ones above."""
    obs = np.asarray(obs, float)
    if obs.ndim == 2:
        obs = obs[..., None]
    image = np.full((*obs.shape[:2], 3), 28.0)
    for channel in range(obs.shape[-1]):
        color = np.array(Image.new("RGB", (1, 1), PALETTE[channel % len(PALETTE)]))[0, 0]
        shade = np.clip(obs[..., channel, None], 0, 1)
        image = (1 - shade) * image + shade * color
    cell = SMOOTH * SIZE // max(obs.shape[:2])
    return Image.fromarray(image.astype(np.uint8).repeat(cell, 0).repeat(cell, 1))


STATES: dict[str, Callable[[Any], Image.Image]] = {
    "CartPole-v1": cartpole,
    "Acrobot-v1": acrobot,
    "Pendulum-v1": pendulum,
    "MountainCar-v0": partial(mountain_car, goal=0.5),
    "MountainCarContinuous-v0": partial(mountain_car, goal=0.45),
    "Reacher-misc": reacher,
    "PointRobot-misc": point_robot,
    "Swimmer-misc": swimmer,
    "MultiGoal": multi_goal,
}


def painter(config: Config) -> Callable[[Any, np.ndarray], Image.Image]:
    """How an environment's (state, obs) is drawn.

    Raises:
        ConfigError: nobody has said how, and its observations are no images.
    """
    from gymnax.environments.misc.rooms import FourRooms

    from purejaxrl_sac.envs.tabular import exact

    env = envs.make(config.env)
    mdp = exact(env)
    if env.name in STATES:
        draw = STATES[env.name]
    elif isinstance(env, FourRooms):
        draw = partial(rooms, open_places=np.asarray(env.env_map, bool))
    elif mdp is not None and mdp.grid is not None:
        draw = partial(on_map, rows=mdp.grid.rows, position=mdp.grid.position)
    elif len(envs.bind(config.env, config.env_params).observation_space.shape) in (2, 3):
        return lambda state, obs: pixels(obs)
    else:
        known = ", ".join(STATES)
        raise ConfigError(
            f"nobody can draw {env.name}: drawn are {known}, maps, and whatever observes an image"
        )
    return lambda state, obs: draw(state)


def episode(
    key: jax.Array,
    config: Config,
    state: TrainState,
    path: Path,
    *,
    policy: Callable[[Config, TrainState], Policy] = deployed,
    max_steps: int | None = None,
) -> Episode:
    """Plays an episode and writes it as a GIF, or as MP4 where ffmpeg is installed.

    Args:
        key: decides the start and all noise.
        state: of one seed.
        path: a .gif or .mp4 that does not exist.
        policy: `evaluate.policy` (the default), `exploring_policy`, or your own.
        max_steps: cut there; None for the environment's time limit, or 500.

    Raises:
        ConfigError: nobody can draw this environment, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"{path} must end in .gif or .mp4")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(f"{path} needs ffmpeg, which is not installed: write a .gif")
    if path.exists():
        raise ConfigError(f"{path} exists already: give --out another name")
    paint = painter(config)
    played = play(key, config, state, policy, max_steps)
    frames, length = [], len(played.rewards)
    returns = np.concatenate([[0], played.rewards.cumsum()])
    every = -(-length // MOST_FRAMES)
    for t in [*range(0, length, every), length]:
        moment = jax.tree.map(lambda x: x[t], played.states)  # noqa: B023
        words = f"step {t}, return {returns[t]:.4g}" + f", {played.ending}" * (t == length)
        frames.append(captioned(paint(moment, played.obs[t]), words))
    milliseconds = 40 if length > 40 else 200
    try:
        _write(frames, path, milliseconds)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    return played


def play(
    key: jax.Array,
    config: Config,
    state: TrainState,
    policy: Callable[[Config, TrainState], Policy] = deployed,
    max_steps: int | None = None,
) -> Episode:
    """One episode in one scan.

    An environment resets itself in the step that ends an episode: its last state is had from the
    same step without reset.
    """
    env, game = envs.bind(config.env, config.env_params), envs.make(config.env)
    params = game.default_params if config.env_params is None else config.env_params
    limit = env.max_steps if max_steps is None else max_steps
    limit = 500 if limit is None else int(limit)
    choose = policy(config, state)
    key_reset, key_steps = jax.random.split(key)

    def step(env_state: EnvState, key: jax.Array) -> tuple[EnvState, tuple]:
        key_act, key_step = jax.random.split(key)
        action = choose(key_act, env_state.obs)
        after, transition, _ = env.step(key_step[None], env_state, action)
        first = jax.tree.map(lambda x: x[0], (env_state.state, action))
        _, state, *_ = game.step_env(jax.random.split(key_step)[0], *first, params)
        return after, (state, transition)

    @jax.jit
    def run() -> tuple:
        start = env.reset(key_reset, 1)
        return start, jax.lax.scan(step, start, jax.random.split(key_steps, limit))[1]

    start, (after, moves) = jax.tree.map(np.asarray, run())
    last = moves.last[:, 0]
    length = int(last.argmax()) + 1 if last.any() else limit
    states = jax.tree.map(lambda x, y: np.concatenate([x, y[:length]]), start.state, after)
    terminated = moves.discount[length - 1, 0] == 0
    obs = np.concatenate([start.obs, moves.next_obs[:length, 0]])
    if not obs[-1].any():  # some games end on an empty picture
        obs[-1] = obs[-2]
    return Episode(
        states=states,
        obs=obs,
        rewards=moves.reward[:length, 0],
        ending="terminated" if terminated else "time limit" if last.any() else "cut here",
    )


def captioned(image: Image.Image, words: str) -> Image.Image:
    """The picture at its final size, with a line of text underneath."""
    width, height = image.size[0] // SMOOTH, image.size[1] // SMOOTH
    frame = Image.new("RGB", (width, height + 24), "white")
    frame.paste(image.resize((width, height), Image.Resampling.LANCZOS))
    ImageDraw.Draw(frame).text((6, height + 4), words, fill=INK, font=font(13))
    return frame


def _write(frames: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    """The last frame is held for a second."""
    if path.suffix == ".mp4":
        with tempfile.TemporaryDirectory() as folder:
            for i, frame in enumerate([*frames, *[frames[-1]] * (1000 // milliseconds)]):
                even = tuple(side // 2 * 2 for side in frame.size)  # as its pixel format needs
                frame.crop((0, 0, *even)).save(Path(folder) / f"{i:05}.png")
            command = ["ffmpeg", "-loglevel", "error", "-framerate", str(1000 // milliseconds)]
            command += ["-i", f"{folder}/%05d.png", "-pix_fmt", "yuv420p", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip().split("\n", 1)[0])
        return
    durations = [milliseconds] * (len(frames) - 1) + [1000]
    small = [frame.quantize(64) for frame in frames]
    small[0].save(path, save_all=True, append_images=small[1:], duration=durations, loop=0)
