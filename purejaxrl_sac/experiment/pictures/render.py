"""Episodes as moving pictures: one scan plays, Pillow draws each moment in world coordinates.

Everything that moves is read from the observations, of which the last is the true one: a state of
gymnax is that of the next episode as soon as one ends.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import Policy
from purejaxrl_sac.evaluate import policy as deployed
from purejaxrl_sac.types import EnvState, TrainState

SIZE = 360  # pixels of the longer side
MOST_FRAMES = 250  # longer episodes skip steps
SMOOTH = 2  # drawn so much larger, then scaled down
INK, GREY, BLUE, RED, GREEN, SAND = "#222222", "#999999", "#0072B2", "#D55E00", "#009E73", "#E8D8B0"
ICE, MINT, ORANGE, ROCK, THREAD = "#56B4E9", "#BFE3D5", "#E69F00", "#555555", "#DDDDDD"
NIGHT = "#1C1C1C"  # behind an image, where all channels are 0
PALETTE = (BLUE, RED, ORANGE, GREEN, "#CC79A7", ICE, "#F0E442", "#BBBBBB", "#999933", "#B0457B")
COLORS = ("white", INK, GREY, SAND, MINT, ROCK, THREAD, NIGHT, *PALETTE)  # all there are

Point = Sequence[float]


class Episode(NamedTuple):
    """An episode as it was played, of L steps."""

    states: Any  # the environment's own, leading axis [L]: before each step
    obs: np.ndarray  # [L + 1, *obs_shape], the last one before any reset
    actions: np.ndarray  # [L, ...], in the environment's own units
    rewards: np.ndarray  # [L]
    ending: str  # "over", "time limit", or "cut here"


class Scene(NamedTuple):
    """What there is to draw from."""

    game: Any  # the gymnax environment
    params: Any
    played: Episode


Painter = Callable[[Scene, int], Image.Image]  # (scene, t) -> the moment after t steps


class Canvas:
    """A picture in world coordinates, y upwards."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.scale = SMOOTH * SIZE / max(right - left, top - bottom)
        self.left, self.top = left, top
        size = (round(self.scale * (right - left)), round(self.scale * (top - bottom)))
        self.image = Image.new("RGB", size, "white")
        self.pen = ImageDraw.Draw(self.image)

    def at(self, point: Point) -> tuple[float, float]:
        x, y = point
        return (float(x) - self.left) * self.scale, (self.top - float(y)) * self.scale

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
        r = float(radius) * self.scale
        box = (x - r, y - r, x + r, y + r)
        if filled:
            self.pen.ellipse(box, fill=color)
        else:
            self.pen.ellipse(box, outline=color, width=2 * SMOOTH)

    def text(self, center: Point, words: str, color: str = INK) -> None:
        self.pen.text(self.at(center), words, fill=color, font=_font(13 * SMOOTH), anchor="mm")

    def rod(self, start: Point, end: Point, width: float, color: str) -> None:
        """A rod with round ends; `width` is in world units."""
        self.line([start, end], color, width * self.scale / SMOOTH)
        for point in (start, end):
            self.disc(point, width / 2, color)


def cartpole(scene: Scene, t: int) -> Image.Image:
    x, _, theta, _ = scene.played.obs[t]
    limit, length = float(scene.params.x_threshold), 2 * float(scene.params.length)  # of its half
    canvas = Canvas(-limit - 0.6, limit + 0.6, -0.5, length + 0.5)
    canvas.line([(-limit - 0.6, -0.15), (limit + 0.6, -0.15)], GREY)
    for end in (-limit, limit):
        canvas.line([(end, -0.3), (end, 0)], RED)
    canvas.box(x - 0.25, x + 0.25, -0.15, 0.12, INK)
    hinge = (x, 0.12)
    canvas.rod(hinge, (x + length * np.sin(theta), 0.12 + length * np.cos(theta)), 0.08, BLUE)
    canvas.disc(hinge, 0.06, GREY)
    return canvas.image


def acrobot(scene: Scene, t: int) -> Image.Image:
    cos1, sin1, cos2, sin2, *_ = scene.played.obs[t]  # of the angles from hanging, and between
    canvas = Canvas(-2.3, 2.3, -2.3, 2.3)
    canvas.line([(-2.3, 1), (2.3, 1)], GREEN)  # links count as 1 long where the goal is tested
    elbow = np.array([sin1, -cos1])
    tip = elbow + np.array([sin1 * cos2 + cos1 * sin2, sin1 * sin2 - cos1 * cos2])
    canvas.rod((0, 0), elbow, 0.14, BLUE)
    canvas.rod(elbow, tip, 0.14, ICE)
    for joint in ((0, 0), elbow):
        canvas.disc(joint, 0.09, INK)
    return canvas.image


def pendulum(scene: Scene, t: int) -> Image.Image:
    cos, sin, _ = scene.played.obs[t]  # theta = 0 is upright, and grows to the left
    canvas = Canvas(-1.4, 1.4, -1.4, 1.4)
    canvas.rod((0, 0), (-sin, cos), 0.18, BLUE)
    canvas.disc((0, 0), 0.06, INK)
    if t == 0:
        return canvas.image
    torque = float(np.ravel(scene.played.actions[t - 1])[0]) / float(scene.params.max_torque)
    turned = np.pi / 2 + np.linspace(0, 1.6 * np.clip(torque, -1, 1), 30)
    canvas.line(0.4 * np.stack([np.cos(turned), np.sin(turned)], axis=-1), RED, 3)
    end, ahead = turned[-1], 0.3 * np.sign(torque) * min(1, 4 * abs(torque))
    head = [(0.3, end), (0.5, end), (0.4, end + ahead)]  # polar
    canvas.polygon([(r * np.cos(angle), r * np.sin(angle)) for r, angle in head], RED)
    return canvas.image


def mountain_car(scene: Scene, t: int) -> Image.Image:
    def hill(x: float) -> float:
        return 0.45 * np.sin(3 * x) + 0.55

    params = scene.params
    left, right = float(params.min_position) - 0.08, float(params.max_position) + 0.05
    goal = float(params.goal_position)
    canvas = Canvas(left, right, -0.1, 1.3)
    x = np.linspace(left, right, 120)
    ground = np.stack([x, hill(x)], axis=-1)
    canvas.polygon([*ground, (right, -0.2), (left, -0.2)], SAND)
    canvas.line(ground, INK)
    top = hill(goal) + 0.22
    canvas.line([(goal, hill(goal)), (goal, top)], INK)
    canvas.polygon([(goal, top), (goal, top - 0.08), (goal + 0.09, top - 0.04)], RED)
    place = float(scene.played.obs[t][0])
    slope = np.arctan(0.45 * 3 * np.cos(3 * place))
    turn = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])
    below = np.array([place, hill(place)])
    body = [(-0.07, 0.03), (0.07, 0.03), (0.07, 0.08), (-0.07, 0.08)]
    canvas.polygon([below + turn @ p for p in body], BLUE)
    for wheel in ((-0.04, 0.03), (0.04, 0.03)):
        canvas.disc(below + turn @ wheel, 0.03, INK)
    return canvas.image


def reacher(scene: Scene, t: int) -> Image.Image:
    angles, goal = np.split(scene.played.obs[t], [-2])
    cos, sin, _ = angles.reshape(3, -1)  # every angle is against the x-axis
    reach = len(cos) + 0.3
    canvas = Canvas(-reach, reach, -reach, reach)
    canvas.disc(goal, 0.15, GREEN)
    joints = np.concatenate([np.zeros((1, 2)), np.stack([cos, sin], axis=-1).cumsum(0)])
    for start, end in pairwise(joints):
        canvas.rod(start, end, 0.12, BLUE)
        canvas.disc(start, 0.09, INK)
    canvas.disc(joints[-1], 0.1, RED)
    return canvas.image


def point_robot(scene: Scene, t: int) -> Image.Image:
    places = scene.played.obs[:, :2]
    radius, reach = float(scene.params.circle_radius), float(scene.params.goal_radius)
    margin = reach + 0.05
    canvas = Canvas(
        min(-radius, places[:, 0].min()) - margin,
        max(radius, places[:, 0].max()) + margin,
        min(0, places[:, 1].min()) - margin,
        max(radius, places[:, 1].max()) + margin,
    )
    arc = np.linspace(0, np.pi, 60)
    canvas.line(radius * np.stack([np.cos(arc), np.sin(arc)], axis=-1), GREY, 1)
    canvas.disc(scene.played.states.goal[0], reach, GREEN, filled=False)
    canvas.disc(places[t], 0.05, RED)
    return canvas.image


def swimmer(scene: Scene, t: int) -> Image.Image:
    obs = scene.played.obs.reshape(len(scene.played.obs), -1, 2)
    reach = max(1.0, np.abs(obs[:, -3]).max()) + 0.2
    canvas = Canvas(-reach, reach, -reach, reach)
    *urchins, place, _, goal = obs[t]
    canvas.disc(goal, 0.12, GREEN)
    for urchin in urchins:
        canvas.disc(urchin, 0.15, INK)
    _trail(canvas, obs[: t + 1, -3])
    canvas.disc(place, 0.08, RED)
    return canvas.image


def multi_goal(scene: Scene, t: int) -> Image.Image:
    from purejaxrl_sac.envs.multigoal import GOALS

    size = scene.game.size
    canvas = Canvas(-size, size, -size, size)
    for goal in GOALS:
        canvas.disc(goal, scene.params.reach, GREEN, filled=False)
    _trail(canvas, scene.played.obs[: t + 1])
    canvas.disc(scene.played.obs[t], 0.25, RED)
    return canvas.image


def _trail(canvas: Canvas, places: np.ndarray) -> None:
    if len(places) > 1:
        canvas.line(places, GREY, 1)


def catch(scene: Scene, t: int) -> Image.Image:
    obs = scene.played.obs[t]
    rows, columns = obs.shape
    ball = int(scene.played.states.ball_x[0])  # it falls straight
    height = int(obs[:, ball].argmax()) if obs[:-1].any() else rows - 1
    floor = np.flatnonzero(obs[-1])
    paddle = next((int(j) for j in floor if height < rows - 1 or j != ball), ball)
    canvas = grid_paper(["." * columns] * rows)
    canvas.box(paddle - 0.48, paddle + 0.48, -rows + 0.55, -rows + 0.85, BLUE)
    canvas.disc((ball, -height), 0.32, RED)
    return canvas.image


def deep_sea(scene: Scene, t: int) -> Image.Image:
    obs = scene.played.obs
    size = obs.shape[-1]
    canvas = grid_paper(["." * size] * (size - 1) + ["." * (size - 1) + "G"])
    row, column = np.argwhere(obs[t if obs[t].any() else t - 1])[0]  # at the end it is nowhere
    _mark(canvas, (row, column), RED)
    return canvas.image


def rooms(scene: Scene, t: int) -> Image.Image:
    place, goal = scene.played.obs[t].reshape(2, 2)
    canvas = grid_paper(np.where(np.asarray(scene.game.env_map, bool), ".", "#").tolist())
    _mark(canvas, goal, GREEN)
    canvas.text((goal[1], -goal[0]), "G", "white")
    _mark(canvas, place, RED)
    return canvas.image


def taxi(scene: Scene, t: int) -> Image.Image:
    mdp = scene.game.mdp
    row, column, rider, target = np.unravel_index(int(scene.played.obs[t]), (5, 5, 5, 4))
    stands = {"R": (0, 0), "G": (0, 4), "Y": (4, 0), "B": (4, 3)}
    canvas = grid_paper(["....."] * 5)
    i, j = list(stands.values())[target]
    canvas.box(j - 0.48, j + 0.48, -i - 0.48, -i + 0.48, MINT)
    for letter, (i, j) in stands.items():
        canvas.text((j - 0.36, -i + 0.36), letter)
    east = mdp.grid.moves.index((0, 1))
    for i, j in np.ndindex(5, 4):
        state = np.ravel_multi_index((i, j, 4, 0), (5, 5, 5, 4))
        if mdp.P[state, east, state] == 1:
            canvas.line([(j + 0.5, -i - 0.5), (j + 0.5, -i + 0.5)], INK, 4)
    _mark(canvas, (row, column), ORANGE)
    i, j = (row, column) if rider == 4 else list(stands.values())[rider]
    canvas.disc((j, -i), 0.15, BLUE)
    return canvas.image


def on_map(scene: Scene, t: int, grid: Any) -> Image.Image:
    canvas = grid_paper(grid.rows)
    place = grid.position[int(scene.played.obs[t])]
    if place[0] < 0 and t > 0:  # some episodes end nowhere
        place = grid.position[int(scene.played.obs[t - 1])]
    _mark(canvas, place, RED)
    return canvas.image


def grid_paper(rows: Sequence[Sequence[str]]) -> Canvas:
    """Walls, letters and lines of a text map; row i is at y = -i."""
    height, width = len(rows), len(rows[0])
    canvas = Canvas(-0.53, width - 0.47, 0.47 - height, 0.53)  # the frame is seen
    for i, row in enumerate(rows):
        for j, letter in enumerate(row):
            color = {"#": ROCK, "H": ICE, "C": INK, "G": MINT}.get(letter, "white")
            canvas.box(j - 0.5, j + 0.5, -i - 0.5, -i + 0.5, color)
            if letter not in "#.F":
                canvas.text((j, -i), letter)
    for i in range(height + 1):
        canvas.line([(-0.5, 0.5 - i), (width - 0.5, 0.5 - i)], THREAD, 1)
    for j in range(width + 1):
        canvas.line([(j - 0.5, 0.5), (j - 0.5, 0.5 - height)], THREAD, 1)
    return canvas


def _mark(canvas: Canvas, place: Any, color: str) -> None:
    row, column = place
    if row >= 0:
        canvas.disc((column, -row), 0.32, color)


def pixels(scene: Scene, t: int) -> Image.Image:
    """[H, W] in [0, 1], or [H, W, C] with a color for each channel, the later ones above."""
    obs = scene.played.obs[t].astype(float)
    obs = obs[..., None] if obs.ndim == 2 else obs
    image = np.full((*obs.shape[:2], 3), ImageColor.getrgb(NIGHT), float)
    for channel in range(obs.shape[-1]):
        color = np.array(ImageColor.getrgb(PALETTE[channel % len(PALETTE)]))
        shade = np.clip(obs[..., channel, None], 0, 1)
        image = (1 - shade) * image + shade * color
    cell = max(1, SMOOTH * SIZE // max(obs.shape[:2]))
    large = image.astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    if cell >= 10 * SMOOTH:  # what touches can be told apart
        for gap in range(SMOOTH):
            large[gap::cell] = large[:, gap::cell] = ImageColor.getrgb(NIGHT)
    return Image.fromarray(large)


PAINTERS: dict[str, tuple[Painter, int]] = {  # and frames per second
    "CartPole-v1": (cartpole, 25),
    "Acrobot-v1": (acrobot, 20),
    "Pendulum-v1": (pendulum, 20),
    "MountainCar-v0": (mountain_car, 25),
    "MountainCarContinuous-v0": (mountain_car, 25),
    "Reacher-misc": (reacher, 20),
    "PointRobot-misc": (point_robot, 20),
    "Swimmer-misc": (swimmer, 20),
    "MultiGoal": (multi_goal, 5),
    "Catch-bsuite": (catch, 5),
    "DeepSea-bsuite": (deep_sea, 5),
    "FourRooms-misc": (rooms, 5),
    "taxi": (taxi, 5),
}


def painter(config: Config) -> tuple[Painter, int]:
    """How moments of an environment are drawn, and at how many frames per second.

    Raises:
        ConfigError: nobody has said how, and its observations are no images.
    """
    from purejaxrl_sac.envs.tabular import exact

    env = envs.make(config.env)
    shape = envs.bind(config.env, config.env_params).observation_space.shape
    mdp = exact(env)
    if len(shape) == 3:
        return pixels, 10
    if env.name in PAINTERS:
        return PAINTERS[env.name]
    if mdp is not None and mdp.grid is not None:
        return partial(on_map, grid=mdp.grid), 5
    if len(shape) == 2:
        return pixels, 10
    known = ", ".join(PAINTERS)
    raise ConfigError(
        f"nobody can draw {env.name}: drawn are {known}, maps, and whatever observes an image"
    )


def episode(
    key: jax.Array,
    config: Config,
    state: TrainState,
    path: Path,
    *,
    max_steps: int | None = None,
    fps: float | None = None,
    policy: Callable[[Config, TrainState], Policy] = deployed,
) -> Episode:
    """Plays an episode and writes it as a GIF, or as MP4 where ffmpeg is installed.

    Args:
        key: decides the start and all noise.
        state: of one seed.
        path: a .gif or .mp4 that does not exist.
        max_steps: cut there; None for the environment's time limit, or 500.
        fps: frames per second, at most 50; None for the environment's usual. An episode of more
            than `MOST_FRAMES` steps shows every second, or third, and so on.
        policy: `evaluate.policy` (the default), `exploring_policy`, or your own.

    Returns:
        what was played.

    Raises:
        ConfigError: nobody can draw this environment, or the file cannot be written.
    """
    path = Path(path)
    _check(path, state, max_steps, fps)
    paint, usual = painter(config)
    played = play(key, config, state, max_steps=max_steps, policy=policy)
    game = envs.make(config.env)
    params = game.default_params if config.env_params is None else config.env_params
    scene, length = Scene(game, params, played), len(played.rewards)
    returns = np.concatenate([[0], played.rewards.cumsum(dtype=float)])
    frames = []
    for t in [*range(0, length, -(-length // MOST_FRAMES)), length]:
        words = f"step {t}, return {returns[t]:.5g}" + f", {played.ending}" * (t == length)
        frames.append(captioned(paint(scene, t), words))
    encode = mp4 if path.suffix == ".mp4" else gif
    encoded = encode(frames, usual if fps is None else fps)
    try:
        with path.open("xb") as file:  # never over another, however long the drawing took
            file.write(encoded)
    except OSError as error:
        raise _unwritable(path, error) from None
    return played


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error.strerror or error}")


def _check(path: Path, state: TrainState, max_steps: int | None, fps: float | None) -> None:
    """Whatever can be said before an episode is played."""
    if path.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"{path} must end in .gif or .mp4")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(f"{path} needs ffmpeg, which is not installed: write a .gif")
    try:
        if path.exists():
            raise ConfigError(f"{path} exists already: give another name")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    except OSError as error:
        raise _unwritable(path, error) from None
    if max_steps is not None and max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}, but must be at least 1")
    if fps is not None and not 1 <= fps <= 50:  # the clock of a GIF goes by 1/100 s
        raise ConfigError(f"fps is {fps}, but must be from 1 to 50")
    if jnp.ndim(state.key):
        raise ConfigError(
            f"state holds {len(state.key)} seeds: seed_state(state, 0) is one of them"
        )


def play(
    key: jax.Array,
    config: Config,
    state: TrainState,
    *,
    max_steps: int | None = None,
    policy: Callable[[Config, TrainState], Policy] = deployed,
) -> Episode:
    """One episode, in one compiled scan; arguments as for `episode`."""
    env = envs.bind(config.env, config.env_params)
    limit = env.max_steps if max_steps is None else max_steps
    limit = 500 if limit is None else int(limit)

    @jax.jit
    def run(key: jax.Array, state: TrainState) -> tuple:
        choose = policy(config, state)
        key_reset, key_steps = jax.random.split(key)

        def step(env_state: EnvState, key: jax.Array) -> tuple[EnvState, tuple]:
            key_act, key_step = jax.random.split(key)
            action = choose(key_act, env_state.obs)
            after, transition, _ = env.step(key_step[None], env_state, action)
            return after, (env_state.state, transition)

        return jax.lax.scan(step, env.reset(key_reset, 1), jax.random.split(key_steps, limit))[1]

    states, moves = jax.tree.map(lambda x: np.asarray(x)[:, 0], run(key, state))
    length = int(moves.last.argmax()) + 1 if moves.last.any() else limit
    states, moves = jax.tree.map(lambda x: x[:length], (states, moves))
    over = moves.discount[-1] == 0
    return Episode(
        states=states,
        obs=np.concatenate([moves.obs[:1], moves.next_obs]),
        actions=moves.action,
        rewards=moves.reward,
        ending="over" if over else "time limit" if moves.last[-1] else "cut here",
    )


def captioned(image: Image.Image, words: str) -> Image.Image:
    """The picture at its final size, with a line of text underneath."""
    width, height = (side // SMOOTH for side in image.size)
    frame = Image.new("RGB", (max(width, SIZE * 3 // 4), height + 24), "white")
    frame.paste(
        image.resize((width, height), Image.Resampling.BOX), ((frame.width - width) // 2, 0)
    )
    ImageDraw.Draw(frame).text((6, height + 4), words, fill=INK, font=_font(13))
    return frame


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def gif(frames: Sequence[Image.Image], fps: float) -> bytes:
    """Frames as a GIF that repeats; the last one is held for a second."""
    sample = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for i, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sample.paste(frame, (0, i * frame.height))
    shades = sample.quantize(64).getpalette()  # between them, at edges
    colors = Image.new("P", (1, 1))  # one palette for all: what stays is not stored again
    colors.putpalette([*np.ravel([ImageColor.getrgb(name) for name in COLORS]), *shades])
    indexed = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    durations = [10 * round(100 / fps)] * (len(frames) - 1) + [1000]
    file = io.BytesIO()
    options = {"save_all": True, "append_images": indexed[1:], "duration": durations, "loop": 0}
    indexed[0].save(file, format="GIF", **options)
    return file.getvalue()


def mp4(frames: Sequence[Image.Image], fps: float) -> bytes:
    """Frames as MP4, by ffmpeg; the last one is held for a second.

    Raises:
        ConfigError: ffmpeg fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        for i, frame in enumerate([*frames, *[frames[-1]] * round(fps)]):
            even = tuple(side // 2 * 2 for side in frame.size)  # as its pixel format needs
            frame.crop((0, 0, *even)).save(Path(folder) / f"{i:05}.png")
        film = Path(folder) / "film.mp4"
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-framerate", f"{fps:g}"]
        command += ["-i", f"{folder}/%05d.png", "-pix_fmt", "yuv420p", str(film)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[0]
            raise ConfigError(f"ffmpeg cannot make an MP4 ({said}): write a .gif")
        return film.read_bytes()
