"""Painters, which draw a time step of an episode with Pillow, in world coordinates.

Everything that moves is read from the observations, of which the last is the true final one: the
state of a gymnax environment is that of the next episode as soon as one ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.mdp import Grid
from purejaxrl_sac.types import PyTree

SIZE = 360  # pixels of the longer side
SUPERSAMPLING = 2  # painters draw this many times larger; `render.captioned` scales down
INK, GREY, BLUE, RED, GREEN, SAND = "#222222", "#999999", "#0072B2", "#D55E00", "#009E73", "#E8D8B0"
LIGHT_BLUE, LIGHT_GREEN, ORANGE = "#56B4E9", "#BFE3D5", "#E69F00"
DARK_GREY, LIGHT_GREY = "#555555", "#DDDDDD"
BACKGROUND = "#1C1C1C"  # of an image observation, where all channels are 0
PALETTE = (
    BLUE, RED, ORANGE, GREEN, "#CC79A7", LIGHT_BLUE, "#F0E442", "#BBBBBB", "#999933", "#B0457B",
)  # fmt: skip
CELLS = {"#": DARK_GREY, "H": LIGHT_BLUE, "C": INK, "G": LIGHT_GREEN}  # of text maps
COLORS = ("white", INK, GREY, SAND, LIGHT_GREEN, DARK_GREY, LIGHT_GREY, BACKGROUND, *PALETTE)

Point = Sequence[float] | np.ndarray  # (x, y)


class Episode(NamedTuple):
    """One episode of L steps."""

    states: PyTree  # the environment's own, leading axis [L]: before each step
    obs: np.ndarray  # [L + 1, *obs_shape], the last one before any reset
    actions: np.ndarray  # [L, ...], in the environment's own units
    rewards: np.ndarray  # [L]
    ending: str  # "terminated", "time limit", or "unfinished" where max_steps came first


class Scene(NamedTuple):
    """What a painter draws from."""

    env: Any  # the gymnax environment
    params: Any
    episode: Episode


Painter = Callable[[Scene, int], Image.Image]  # (scene, t) -> image after t steps


class Canvas:
    """An image addressed in world coordinates, y upwards."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.scale = SUPERSAMPLING * SIZE / max(right - left, top - bottom)
        self.left, self.top = left, top
        size = (round(self.scale * (right - left)), round(self.scale * (top - bottom)))
        self.image = Image.new("RGB", size, "white")
        self.draw = ImageDraw.Draw(self.image)

    def pixel(self, point: Point) -> tuple[float, float]:
        """World to pixel coordinates."""
        x, y = point
        return (float(x) - self.left) * self.scale, (self.top - float(y)) * self.scale

    def line(
        self, points: Sequence[Point] | np.ndarray, color: str = INK, width: float = 2
    ) -> None:
        """A polyline; `width` is in pixels of the final image."""
        pixels = round(SUPERSAMPLING * width)
        self.draw.line([self.pixel(p) for p in points], fill=color, width=pixels, joint="curve")

    def polygon(self, points: Sequence[Point], color: str) -> None:
        self.draw.polygon([self.pixel(p) for p in points], fill=color)

    def box(self, left: float, right: float, bottom: float, top: float, color: str) -> None:
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], color)

    def disc(self, center: Point, radius: float, color: str, filled: bool = True) -> None:
        x, y = self.pixel(center)
        r = float(radius) * self.scale
        box = (x - r, y - r, x + r, y + r)
        if filled:
            self.draw.ellipse(box, fill=color)
        else:
            self.draw.ellipse(box, outline=color, width=2 * SUPERSAMPLING)

    def text(self, center: Point, text: str, color: str = INK) -> None:
        size = 13 * SUPERSAMPLING
        self.draw.text(self.pixel(center), text, fill=color, font=font(size), anchor="mm")

    def rod(self, start: Point, end: Point, width: float, color: str) -> None:
        """A line with round ends; `width` is in world units."""
        self.line([start, end], color, width * self.scale / SUPERSAMPLING)
        for point in (start, end):
            self.disc(point, width / 2, color)


def cartpole(scene: Scene, t: int) -> Image.Image:
    obs = scene.episode.obs[t]
    x, theta = obs[::2] if len(obs) == 4 else obs  # with or without velocities
    limit = float(scene.params.x_threshold)
    length = 2 * float(scene.params.length)  # the parameter is half of it
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
    # theta1 from hanging down; theta2 between links
    cos1, sin1, cos2, sin2, *_ = scene.episode.obs[t]
    canvas = Canvas(-2.3, 2.3, -2.3, 2.3)
    canvas.line([(-2.3, 1), (2.3, 1)], GREEN)  # the goal test takes both links as 1 long
    elbow = np.array([sin1, -cos1])
    tip = elbow + np.array([sin1 * cos2 + cos1 * sin2, sin1 * sin2 - cos1 * cos2])
    canvas.rod((0, 0), elbow, 0.14, BLUE)
    canvas.rod(elbow, tip, 0.14, LIGHT_BLUE)
    for joint in ((0, 0), elbow):
        canvas.disc(joint, 0.09, INK)
    return canvas.image


def pendulum(scene: Scene, t: int) -> Image.Image:
    cos, sin, *_ = scene.episode.obs[t]  # theta = 0 is upright, counterclockwise
    canvas = Canvas(-1.4, 1.4, -1.4, 1.4)
    canvas.rod((0, 0), (-sin, cos), 0.18, BLUE)
    canvas.disc((0, 0), 0.06, INK)
    if t == 0:
        return canvas.image
    torque = float(np.ravel(scene.episode.actions[t - 1])[0]) / float(scene.params.max_torque)
    arc = np.pi / 2 + np.linspace(0, 1.6 * np.clip(torque, -1, 1), 30)
    canvas.line(0.4 * np.stack([np.cos(arc), np.sin(arc)], axis=-1), RED, 3)
    end, length = arc[-1], 0.3 * np.sign(torque) * min(1, 4 * abs(torque))
    head = [(0.3, end), (0.5, end), (0.4, end + length)]  # radius and angle
    canvas.polygon([(r * np.cos(angle), r * np.sin(angle)) for r, angle in head], RED)
    return canvas.image


def mountain_car(scene: Scene, t: int) -> Image.Image:
    params = scene.params
    left, right = float(params.min_position) - 0.08, float(params.max_position) + 0.05
    goal = float(params.goal_position)
    canvas = Canvas(left, right, -0.1, 1.3)
    x = np.linspace(left, right, 120)
    ground = np.stack([x, _hill(x)], axis=-1)
    canvas.polygon([*ground, (right, -0.2), (left, -0.2)], SAND)
    canvas.line(ground, INK)
    foot = float(_hill(goal))
    top = foot + 0.22
    canvas.line([(goal, foot), (goal, top)], INK)
    canvas.polygon([(goal, top), (goal, top - 0.08), (goal + 0.09, top - 0.04)], RED)
    position = float(scene.episode.obs[t][0])
    slope = np.arctan(0.45 * 3 * np.cos(3 * position))
    rotation = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])
    contact = np.array([position, _hill(position)])
    body = [(-0.07, 0.03), (0.07, 0.03), (0.07, 0.08), (-0.07, 0.08)]
    canvas.polygon([contact + rotation @ p for p in body], BLUE)
    for wheel in ((-0.04, 0.03), (0.04, 0.03)):
        canvas.disc(contact + rotation @ wheel, 0.03, INK)
    return canvas.image


def _hill(x: float | np.ndarray) -> np.ndarray:
    return np.asarray(0.45 * np.sin(3 * x) + 0.55)


def reacher(scene: Scene, t: int) -> Image.Image:
    angles, goal = np.split(scene.episode.obs[t], [-2])
    cos, sin, _ = angles.reshape(3, -1)  # angles are relative to the x-axis
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
    positions = scene.episode.obs[:, :2]
    radius, reach = float(scene.params.circle_radius), float(scene.params.goal_radius)
    margin = reach + 0.05
    canvas = Canvas(
        min(-radius, positions[:, 0].min()) - margin,
        max(radius, positions[:, 0].max()) + margin,
        min(0, positions[:, 1].min()) - margin,
        max(radius, positions[:, 1].max()) + margin,
    )
    arc = np.linspace(0, np.pi, 60)
    canvas.line(radius * np.stack([np.cos(arc), np.sin(arc)], axis=-1), GREY, 1)
    canvas.disc(scene.episode.states.goal[0], reach, GREEN, filled=False)
    canvas.disc(positions[t], 0.05, RED)
    return canvas.image


def swimmer(scene: Scene, t: int) -> Image.Image:
    obs = scene.episode.obs.reshape(len(scene.episode.obs), -1, 2)
    reach = max(1.0, np.abs(obs[:, -3]).max()) + 0.2
    canvas = Canvas(-reach, reach, -reach, reach)
    *urchins, position, _, goal = obs[t]
    canvas.disc(goal, 0.12, GREEN)
    for urchin in urchins:
        canvas.disc(urchin, 0.15, INK)
    _trail(canvas, obs[: t + 1, -3])
    canvas.disc(position, 0.08, RED)
    return canvas.image


def multi_goal(scene: Scene, t: int) -> Image.Image:
    from purejaxrl_sac.envs.multigoal import GOALS

    size = scene.env.size
    canvas = Canvas(-size, size, -size, size)
    for goal in GOALS:
        canvas.disc(goal, scene.params.reach, GREEN, filled=False)
    _trail(canvas, scene.episode.obs[: t + 1])
    canvas.disc(scene.episode.obs[t], 0.25, RED)
    return canvas.image


def _trail(canvas: Canvas, positions: np.ndarray) -> None:
    if len(positions) > 1:
        canvas.line(positions, GREY, 1)


def catch(scene: Scene, t: int) -> Image.Image:
    obs = scene.episode.obs[t]
    rows, columns = obs.shape
    ball = int(scene.episode.states.ball_x[0])  # the ball falls vertically
    height = int(obs[:, ball].argmax()) if obs[:-1].any() else rows - 1
    floor = np.flatnonzero(obs[-1])
    paddle = next((int(j) for j in floor if height < rows - 1 or j != ball), ball)
    canvas = grid_paper(["." * columns] * rows)
    canvas.box(paddle - 0.48, paddle + 0.48, -rows + 0.55, -rows + 0.85, BLUE)
    canvas.disc((ball, -height), 0.32, RED)
    return canvas.image


def deep_sea(scene: Scene, t: int) -> Image.Image:
    obs = scene.episode.obs
    size = obs.shape[-1]
    canvas = grid_paper(["." * size] * (size - 1) + ["." * (size - 1) + "G"])
    seen = obs[t if obs[t].any() else t - 1]  # the final observation is empty
    _mark(canvas, np.argwhere(seen)[0], RED)
    return canvas.image


def rooms(scene: Scene, t: int) -> Image.Image:
    position, goal = scene.episode.obs[t].reshape(2, 2)
    canvas = grid_paper(np.where(np.asarray(scene.env.env_map, bool), ".", "#").tolist())
    _mark(canvas, goal, GREEN)
    canvas.text((goal[1], -goal[0]), "G", "white")
    _mark(canvas, position, RED)
    return canvas.image


def meta_maze(scene: Scene, t: int) -> Image.Image:
    states = scene.episode.states  # observations do not tell where: the last state is shown twice
    now = min(t, len(states.pos) - 1)
    canvas = grid_paper(np.where(np.asarray(scene.env.env_map, bool), ".", "#").tolist())
    row, column = states.goal[now]
    _mark(canvas, (row, column), GREEN)
    canvas.text((column, -row), "G", "white")
    _mark(canvas, states.pos[now], RED)
    return canvas.image


def taxi(scene: Scene, t: int) -> Image.Image:
    mdp = scene.env.mdp
    place = np.unravel_index(int(scene.episode.obs[t]), (5, 5, 5, 4))
    row, column, passenger, destination = map(int, place)
    stands = {"R": (0, 0), "G": (0, 4), "Y": (4, 0), "B": (4, 3)}
    canvas = grid_paper(["....."] * 5)
    i, j = list(stands.values())[destination]
    canvas.box(j - 0.48, j + 0.48, -i - 0.48, -i + 0.48, LIGHT_GREEN)
    for letter, (i, j) in stands.items():
        canvas.text((j - 0.36, -i + 0.36), letter)
    east = mdp.grid.moves.index((0, 1))
    for i, j in np.ndindex(5, 4):
        state = np.ravel_multi_index((i, j, 4, 0), (5, 5, 5, 4))
        if mdp.P[state, east, state] == 1:
            canvas.line([(j + 0.5, -i - 0.5), (j + 0.5, -i + 0.5)], INK, 4)
    _mark(canvas, (row, column), ORANGE)
    i, j = (row, column) if passenger == 4 else list(stands.values())[passenger]
    canvas.disc((j, -i), 0.15, BLUE)
    return canvas.image


def grid_map(scene: Scene, t: int, grid: Grid) -> Image.Image:
    canvas = grid_paper(grid.rows)
    cell = grid.position[int(scene.episode.obs[t])]
    if cell[0] < 0 and t > 0:  # some episodes end in a state that is not on the map
        cell = grid.position[int(scene.episode.obs[t - 1])]
    _mark(canvas, cell, RED)
    return canvas.image


def hidden_map(scene: Scene, t: int, grid: Grid) -> Image.Image:
    """A grid whose cells are hidden states: that after the last step is known if it is certain."""
    states, actions = scene.episode.states.position, scene.episode.actions
    now = min(t, len(states) - 1)
    cell = grid.position[int(states[now])]
    if t > now and scene.env.mdp.P[states[now], actions[now]].max() == 1:
        row, column = np.add(cell, grid.moves[int(actions[now])])
        on_map = 0 <= row < len(grid.rows) and 0 <= column < len(grid.rows[0])
        if on_map and grid.rows[row][column] != "#":
            cell = (row, column)
    canvas = grid_paper(grid.rows)
    _mark(canvas, cell, RED)
    return canvas.image


def grid_paper(rows: Sequence[Sequence[str]]) -> Canvas:
    """A canvas with the walls, letters and grid lines of a text map; row i is at y = -i."""
    height, width = len(rows), len(rows[0])
    canvas = Canvas(-0.53, width - 0.47, 0.47 - height, 0.53)  # with room for the outer lines
    for i, row in enumerate(rows):
        for j, letter in enumerate(row):
            canvas.box(j - 0.5, j + 0.5, -i - 0.5, -i + 0.5, CELLS.get(letter, "white"))
            if letter not in "#.F":
                canvas.text((j, -i), letter)
    for i in range(height + 1):
        canvas.line([(-0.5, 0.5 - i), (width - 0.5, 0.5 - i)], LIGHT_GREY, 1)
    for j in range(width + 1):
        canvas.line([(j - 0.5, 0.5), (j - 0.5, 0.5 - height)], LIGHT_GREY, 1)
    return canvas


def _mark(canvas: Canvas, cell: Sequence[int] | np.ndarray, color: str) -> None:
    row, column = cell
    if row >= 0:
        canvas.disc((column, -row), 0.32, color)


def pixels(scene: Scene, t: int) -> Image.Image:
    """An image observation: RGB or grey bytes as they are, and numbers in [0, 1], [H, W] or
    [H, W, C], with one color per channel, the last channel on top."""
    obs = scene.episode.obs[t]
    obs = obs[..., None] if obs.ndim == 2 else obs
    if obs.dtype == np.uint8 and obs.shape[-1] in (1, 3) and scene.episode.obs.max() > 1:
        image = np.broadcast_to(obs, (*obs.shape[:2], 3))
    else:
        image = np.full((*obs.shape[:2], 3), ImageColor.getrgb(BACKGROUND), float)
        for channel in range(obs.shape[-1]):
            color = np.array(ImageColor.getrgb(PALETTE[channel % len(PALETTE)]))
            shade = np.clip(obs[..., channel, None].astype(float), 0, 1)
            image = (1 - shade) * image + shade * color
    cell = max(1, SUPERSAMPLING * SIZE // max(obs.shape[:2]))
    large = image.astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    if cell >= 10 * SUPERSAMPLING:  # a gap between large cells
        for gap in range(SUPERSAMPLING):
            large[gap::cell] = large[:, gap::cell] = ImageColor.getrgb(BACKGROUND)
    return Image.fromarray(large)


PAINTERS: dict[str, tuple[Painter, int]] = {  # environment -> painter, frames per second
    "CartPole-v1": (cartpole, 25),
    "CartPole-positions": (cartpole, 25),
    "Acrobot-v1": (acrobot, 20),
    "Pendulum-v1": (pendulum, 20),
    "Pendulum-positions": (pendulum, 20),
    "MountainCar-v0": (mountain_car, 25),
    "MountainCarContinuous-v0": (mountain_car, 25),
    "Reacher-misc": (reacher, 20),
    "PointRobot-misc": (point_robot, 20),
    "Swimmer-misc": (swimmer, 20),
    "MultiGoal": (multi_goal, 5),
    "Catch-bsuite": (catch, 5),
    "DeepSea-bsuite": (deep_sea, 5),
    "FourRooms-misc": (rooms, 5),
    "MetaMaze-misc": (meta_maze, 10),
    "taxi": (taxi, 5),
}


def painter(config: Config) -> tuple[Painter, int]:
    """The painter of an environment, and its frames per second.

    An environment of one's own may have a method `paint`, which is a `Painter`.

    Raises:
        ConfigError: there is none, and observations are not images.
    """
    from purejaxrl_sac.envs.partially_observed import PartiallyObserved
    from purejaxrl_sac.envs.tabular import exact

    env = envs.make(config.env)
    shape = envs.bind(config.env, config.env_params).observation_space.shape
    mdp = exact(env)
    if hasattr(env, "paint"):
        return env.paint, 15
    if len(shape) == 3:
        return pixels, 10
    if env.name in PAINTERS and _observes_as_named(env.name, shape):
        return PAINTERS[env.name]
    if mdp is not None and mdp.grid is not None:
        return partial(grid_map, grid=mdp.grid), 5
    if isinstance(env, PartiallyObserved) and env.mdp.grid is not None:
        return partial(hidden_map, grid=env.mdp.grid), 5
    if len(shape) == 2:
        return pixels, 10
    known = ", ".join(PAINTERS)
    raise ConfigError(
        f"no renderer for {env.name}: there are renderers for {known}, grid maps, image"
        " observations, and environments with a method paint(scene, t)"
    )


def _observes_as_named(name: str, shape: Sequence[int]) -> bool:
    """Whether observations have the shape of those of the named environment, if there is one.

    Painters read positions from observations, which subclasses and wrappers may change.
    """
    return name not in envs.names() or envs.bind(name).observation_space.shape == shape


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
