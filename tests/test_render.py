"""Rendered episodes: every environment with a renderer, and the errors of those without."""

import io
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, envs, mdp
from purejaxrl_sac.envs.partially_observed import State
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.experiment.pictures import painters, render
from purejaxrl_sac.train import build
from tests.conftest import quick, small

DEEP = {
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "MountainCarContinuous-v0",
    "Reacher-misc", "PointRobot-misc", "Swimmer-misc", "multi_goal", "Catch-bsuite",
    "DeepSea-bsuite", "FourRooms-misc", "MetaMaze-misc", "CartPole-positions", "Pendulum-positions",
    "Breakout-MinAtar", "Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
}  # fmt: skip
TABULAR = {"FrozenLake-misc", "frozen_lake", "cliff_walking", "taxi", "four_rooms", "deep_sea"}
COSTLY = {"Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar"}


@pytest.fixture(autouse=True, scope="module")
def fast_compilation():
    """Programs run for a few steps only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def untrained(env):
    """A configuration, and the state of an untrained agent."""
    algorithm = "a2c" if env in DEEP else "q_learning"
    config, key = small(algorithm).replace(env=env), jax.random.key(1)
    bound, agent, _ = build(config)

    @jax.jit
    def start():
        env_state = bound.reset(key, 1)
        return env_state, agent.init(key, env_state.obs)

    return config, prl.TrainState(key, jnp.int32(0), *start(), None)


def rollout_episode(key, config, state, **options):
    return render.played_episode(*render.rollout_program(config, **options)(key, state))


def acting_randomly(config, state):
    """A policy without a network, which would have to be compiled."""
    env = envs.bind(config.env)
    return lambda key, obs: env.random_action(key, len(obs))


def replay(key, config, steps):
    """The same episode step by step: rewards, and whether it ended."""
    env = envs.bind(config.env)
    choose = acting_randomly(config, None)

    def step(env_state, key):
        key_act, key_env = jax.random.split(key)
        action = choose(key_act, env_state.obs)
        env_state, transition, _ = env.step(key_env[None], env_state, action)
        return env_state, (transition.reward[0], transition.last[0])

    @jax.jit
    def play(key):
        key_reset, key_steps = jax.random.split(key)
        return jax.lax.scan(step, env.reset(key_reset, 1), jax.random.split(key_steps, steps))[1]

    rewards, last = map(np.asarray, play(key))
    return (rewards[: last.argmax() + 1], True) if last.any() else (rewards, False)


def frames_of(path):
    """The frames of a file without their captions, and their durations."""
    file = Image.open(path)
    frames, milliseconds = [], []
    for i in range(file.n_frames):
        file.seek(i)
        frames.append(np.asarray(file.convert("RGB"))[:-24])
        milliseconds.append(file.info["duration"])
    return frames, milliseconds


def colors(frame):
    return {color for _, color in Image.fromarray(frame).getcolors(frame.size)}


DRAWN_ALIKE = {name for name in DEEP if name.endswith(("MinAtar", "positions"))}
DRAWN_ALIKE |= {"MountainCarContinuous-v0", "cliff_walking", "four_rooms", "deep_sea"}
DRAWN_ALIKE -= {"Breakout-MinAtar"}


@pytest.mark.parametrize("env", quick(sorted(DEEP | TABULAR), *(DEEP | TABULAR) - DRAWN_ALIKE))
def test_every_environment_is_rendered(env, tmp_path, key):
    config = small("a2c" if env in DEEP else "q_learning").replace(env=env)
    state = prl.TrainState(key, jnp.int32(0), None, None, None)
    path = tmp_path / "episode.gif"
    slow = {"Seaquest-MinAtar": 24, "Swimmer-misc": 80}  # steps until something visible changes
    steps = slow.get(env, 12)
    played = render.episode(key, config, state, path, max_steps=steps, policy=acting_randomly)
    if env not in COSTLY:  # to compile; they are rendered as Breakout is
        rewards, ended = replay(key, config, steps)
        np.testing.assert_allclose(played.rewards, rewards, rtol=1e-4, atol=1e-6)
        assert (played.ending != "unfinished") == ended
    frames, milliseconds = frames_of(path)
    assert len(frames) == len(played.rewards) + 1
    assert milliseconds[-1] == 1000 > milliseconds[0]
    assert all(len(colors(frame)) > 1 for frame in frames)
    assert any((frame != frames[0]).any() for frame in frames)


@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_without_velocities_the_same_is_drawn(name, key):
    config, state = untrained(f"{name}-v1")
    env, seen = envs.make(f"{name}-v1"), envs.make(f"{name}-positions").components
    played = rollout_episode(key, config, state, max_steps=3)
    scene = painters.Scene(env, env.default_params, played)
    hidden = scene._replace(episode=played._replace(obs=played.obs[:, seen]))
    paint, paint_hidden = (painters.PAINTERS[f"{name}-{kind}"][0] for kind in ("v1", "positions"))
    for t in range(4):
        np.testing.assert_array_equal(paint(scene, t), paint_hidden(hidden, t))


def test_the_goal_and_the_position_of_a_meta_maze_are_drawn(key):
    config, state = untrained("MetaMaze-misc")
    env = envs.make("MetaMaze-misc")
    played = rollout_episode(key, config, state, max_steps=9)
    for t, color in ((8, painters.RED), (9, painters.RED), (4, painters.GREEN)):
        image = painters.meta_maze(painters.Scene(env, env.default_params, played), t)
        states = jax.tree.map(lambda x, t=t: x[min(t, 8)], played.states)
        row, column = states.pos if color == painters.RED else states.goal
        cell = image.height / len(env.env_map)
        above = np.array([column + 0.5, row + 0.27]) * cell  # of the letter of the goal
        assert image.getpixel(tuple(above.astype(int).tolist())) == ImageColor.getrgb(color)


@pytest.mark.parametrize("turn", [0, 2, 3])
def test_the_cell_and_the_goal_of_a_t_maze_are_drawn(turn):
    """After the turn, too, which ends the episode in a state that is not on the map."""
    env, right = envs.make("t_maze_5"), 1
    draw, _ = painters.painter(small("recurrent_ppo", env="t_maze_5"))
    for goal, middle in ((0, 1), (1, 5)):  # the rows of the corridors of the two mazes
        positions = goal * 6 + np.arange(6)
        actions = np.array([right] * 5 + [turn])
        played = painters.Episode(State(positions, None, None), None, actions, None, "terminated")
        cells = [(middle, i) for i in range(6)]
        cells.append({0: (middle - 1, 5), 2: (middle + 1, 5), 3: (middle, 4)}[turn])
        for t, (row, column) in enumerate(cells):
            image = draw(painters.Scene(env, env.default_params, played), t)
            cell = image.height / 7
            center = (np.array([column + 0.5, row + 0.5]) * cell).astype(int)
            assert image.getpixel(tuple(center.tolist())) == rgb(painters.RED)
    goals = [np.asarray(image)[int((row + 0.2) * cell), int(5.2 * cell)] for row in (0, 2, 4, 6)]
    light = [tuple(color) == rgb(painters.LIGHT_GREEN) for color in goals]
    assert light == [True, False, False, True]


@pytest.mark.parametrize(
    ("env", "action"),
    [("windowed_rooms", 1), ("t_maze_5", 0)],  # the free cell to the right is not certain; a wall
)
def test_the_mark_does_not_move_to_a_cell_that_may_not_be_reached(env, action):
    draw, _ = painters.painter(small("recurrent_ppo", env=env))
    found = envs.make(env)
    grid, position = found.mdp.grid, 2
    (row, column), (down, right) = grid.position[position], grid.moves[action]
    assert (grid.rows[row + down][column + right] == "#") == (env == "t_maze_5")
    played = painters.Episode(
        State(np.array([position]), None, None), None, np.array([action]), None, "time limit"
    )
    before, after = (draw(painters.Scene(found, None, played), t) for t in (0, 1))
    np.testing.assert_array_equal(before, after)
    center = (np.array([column + 0.5, row + 0.5]) * after.height / len(grid.rows)).astype(int)
    assert after.getpixel(tuple(center.tolist())) == rgb(painters.RED)


def test_the_caption_shows_the_return_and_how_the_episode_ended(tmp_path, key, monkeypatch):
    captions, captioned = [], render.captioned
    monkeypatch.setattr(
        render, "captioned", lambda image, text: captions.append(text) or captioned(image, text)
    )
    config, state = untrained("CartPole-v1")
    played = render.episode(key, config, state, tmp_path / "a.gif")
    assert captions[0] == "step 0, return 0"
    assert (
        captions[-1] == f"step {len(played.rewards)}, return {played.rewards.sum():g}, terminated"
    )
    x, _, theta, _ = played.obs[-1]
    assert abs(x) > 2.4 or abs(theta) > 0.2  # the final state, not the next start
    render.episode(key, config, state, tmp_path / "b.gif", max_steps=3)
    assert captions[-1] == "step 3, return 3, unfinished"
    config, state = untrained("cliff_walking")
    render.episode(key, config, state, tmp_path / "c.gif")
    assert captions[-1].startswith("step 200, return -") and captions[-1].endswith("time limit")


def test_positions_on_a_map_are_those_of_the_environment(tmp_path, key):
    """Also with stochastic transitions: each one has positive probability."""
    config, state = untrained("frozen_lake_8x8")
    played = rollout_episode(key, config, state)
    lake = mdp.frozen_lake(8)
    possible = np.asarray(lake.P)[played.obs[:-1], played.actions, played.obs[1:]]
    assert (possible > 0).all()
    np.testing.assert_array_equal(played.obs[:-1], played.states.position)
    found = Tabular(mdp.from_map("S.#. ...G"), "mine")
    config, state = untrained(found)
    draw, _ = painters.painter(config)
    for place, (row, column) in enumerate(found.mdp.grid.position):
        scene = scene_of(np.array([place]))
        cell = np.asarray(draw(scene, 0))[180 * row :, 180 * column :][90, 90]
        assert tuple(cell) == rgb(painters.RED)


def rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def scene_of(obs, env="multi_goal", **others):
    """A scene with given observations."""
    game = envs.make(env)
    played = painters.Episode(**{"states": None, "actions": None, "rewards": None, "ending": "",
                               "obs": obs, **others})  # fmt: skip
    return painters.Scene(game, game.default_params, played)


def where(image, color):
    """The mean position of all pixels of a color, relative to width and height."""
    rows, columns = np.nonzero((np.asarray(image) == rgb(color)).all(-1))
    return columns.mean() / image.width, 1 - rows.mean() / image.height


def test_angles_and_lengths_are_to_scale():
    upright = np.array([[0.0, 0, 0, 0], [1.2, 0, np.pi / 2, 0]])
    scene = scene_of(upright, "CartPole-v1")
    scale = 1 / 6  # the width is 2 x (2.4 + 0.6)
    first, second = (painters.cartpole(scene, t) for t in range(2))
    assert where(first, painters.BLUE)[0] == pytest.approx(0.5, abs=0.01)
    assert where(second, painters.BLUE)[0] == pytest.approx(0.5 + (1.2 + 0.5) * scale, abs=0.02)
    blue = np.nonzero((np.asarray(first) == rgb(painters.BLUE)).all(-1))[0]
    height = (blue.max() - blue.min()) / first.width / scale
    assert height == pytest.approx(1.0, abs=0.08)  # twice the half length 0.5, with round ends

    hanging, up = np.array([1.0, 0, 1, 0, 0, 0]), np.array([-1.0, 0, 1, 0, 0, 0])
    bent = np.array([0.0, 1, 0, 1, 0, 0])  # to the right, then up
    scene = scene_of(np.stack([hanging, up, bent]), "Acrobot-v1")
    tips = [where(painters.acrobot(scene, t), painters.LIGHT_BLUE) for t in range(3)]
    expected = [(0, -1.5), (0, 1.5), (1, 0.5)]  # the second link's middle
    np.testing.assert_allclose((np.array(tips) - 0.5) * 4.6, expected, atol=0.1)

    turned = np.array([[1.0, 0, 0], [0.0, 1, 0], [-1.0, 0, 0]])  # up, to the left, down
    scene = scene_of(turned, "Pendulum-v1", actions=np.array([[-2.0], [0.0]]))
    rods = [where(painters.pendulum(scene, t), painters.BLUE) for t in range(3)]
    expected = [(0, 0.5), (-0.5, 0), (0, -0.5)]
    np.testing.assert_allclose((np.array(rods) - 0.5) * 2.8, expected, atol=0.1)
    assert where(painters.pendulum(scene, 1), painters.RED)[0] > 0.5  # clockwise, at the right

    ends = np.array([[-1.2, 0], [0.5, 0]])
    scene = scene_of(ends, "MountainCar-v0")
    (x, _), (goal, height) = (
        where(painters.mountain_car(scene, t), painters.BLUE) for t in range(2)
    )
    assert (goal - x) * (1.8 + 0.13) == pytest.approx(1.7, abs=0.06)
    assert height * 1.4 - 0.1 == pytest.approx(0.45 * np.sin(1.5) + 0.55 + 0.055, abs=0.05)

    bent = np.array([[np.cos(0.0), np.cos(np.pi / 2), 0, 1, 0, 0, -1, -1]])
    drawn = painters.reacher(scene_of(bent, "Reacher-misc"), 0)
    assert (where(drawn, painters.RED)[0] - 0.5) * 4.6 == pytest.approx(1, abs=0.05)
    assert (where(drawn, painters.RED)[1] - 0.5) * 4.6 == pytest.approx(1, abs=0.05)
    assert (where(drawn, painters.GREEN)[0] - 0.5) * 4.6 == pytest.approx(-1, abs=0.05)


def test_the_contents_of_cells_are_distinguishable():
    """Channels have distinct colors; ball and paddle may be in the same cell or not."""
    obs = np.zeros((1, 10, 10, 10))
    for channel in range(10):
        obs[0, channel, channel, channel] = 1
    assert len(colors(np.asarray(painters.pixels(scene_of(obs), 0)))) == 11
    catch = np.zeros((3, 10, 5))
    catch[0, 4, 1] = catch[0, 9, 3] = 1
    catch[1, 9, 1] = catch[1, 9, 3] = 1
    catch[2, 9, 1] = 1
    scene = scene_of(catch, "Catch-bsuite", states=SimpleNamespace(ball_x=np.array([1])))
    drawn = [painters.catch(scene, t) for t in range(3)]
    balls = [where(image, painters.RED) for image in drawn]
    np.testing.assert_allclose(balls, [(0.3, 0.55), (0.3, 0.05), (0.3, 0.05)], atol=0.01)
    paddles = [where(image, painters.BLUE)[0] for image in drawn]
    np.testing.assert_allclose(paddles, [0.7, 0.7, 0.3], atol=0.02)
    state = np.ravel_multi_index((2, 1, 0, 3), (5, 5, 5, 4))  # the passenger waits at (0, 0)
    drawn = painters.taxi(scene_of(np.array([state]), "taxi"), 0)
    np.testing.assert_allclose(where(drawn, painters.ORANGE), (0.3, 0.5), atol=0.01)
    np.testing.assert_allclose(where(drawn, painters.BLUE), (0.1, 0.9), atol=0.01)
    np.testing.assert_allclose(where(drawn, painters.LIGHT_GREEN), (0.7, 0.1), atol=0.03)


def test_parameters_of_the_environment_are_used(tmp_path, key):
    config, state = untrained("CartPole-v1")
    params = envs.make("CartPole-v1").default_params.replace(x_threshold=1.2)
    played = render.episode(
        key, config.replace(env_params=params), state, tmp_path / "a.gif", max_steps=2
    )
    assert len(played.rewards) == 2
    narrow, wide = tmp_path / "a.gif", tmp_path / "b.gif"
    render.episode(key, config, state, wide, max_steps=2)
    assert frames_of(narrow)[0][0].shape != frames_of(wide)[0][0].shape


def test_long_episodes_skip_frames(key, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "MAX_FRAMES", 10)
    config, state = untrained("Pendulum-v1")
    render.episode(key, config, state, tmp_path / "a.gif", max_steps=45, fps=40)
    frames, milliseconds = frames_of(tmp_path / "a.gif")
    assert len(frames) == 10  # 0, 5, ... 40, and 45
    assert milliseconds[0] == 20  # whole hundredths of a second


def test_mp4(key, tmp_path, monkeypatch):
    config, state = untrained("multi_goal")
    out = tmp_path / "a.mp4"
    monkeypatch.setenv("PATH", str(tmp_path))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "imageio_ffmpeg", None)
        with pytest.raises(ConfigError) as error:
            render.episode(key, config, state, out)
    command = "pip install 'purejaxrl_sac[video]'"
    assert str(error.value) == f"{out} needs ffmpeg: {command}, or write a .gif"
    fake = tmp_path / "ffmpeg"  # writes its arguments to the output file
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    render.episode(key, config, state, out, max_steps=3)
    assert "-framerate 5 " in out.read_text()
    fake.write_text('#!/bin/sh\necho "no such codec" >&2\nexit 1\n')
    with pytest.raises(ConfigError, match=r"ffmpeg cannot make an MP4 \(no such codec\)"):
        render.episode(key, config, state, tmp_path / "b.mp4", max_steps=3)
    assert not (tmp_path / "b.mp4").exists()


def test_mp4_of_the_extra_has_every_frame(key, tmp_path, monkeypatch):
    encoder = pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    monkeypatch.setenv("PATH", str(tmp_path))
    config, state = untrained("multi_goal")
    render.episode(key, config, state, tmp_path / "a.mp4", max_steps=3, fps=5)
    frames, seconds = encoder.count_frames_and_secs(tmp_path / "a.mp4")
    assert frames == 4 + 5 and seconds == pytest.approx(9 / 5, abs=0.1)


def test_errors_of_rendering_and_writing_are_one_line(key, tmp_path):
    config, state = untrained("multi_goal")
    seeds = state._replace(key=jax.random.split(key))
    (tmp_path / "a.gif").write_text("mine")
    umbrella = small("dqn").replace(env="UmbrellaChain-bsuite")
    for match, out, *others in (
        (r"must end in \.gif or \.mp4", "a.png"),
        ("exists already", "a.gif"),
        ("there is no folder", "no/b.gif"),
        ("max_steps is 0", "b.gif", {"max_steps": 0}),
        ("fps is 100", "b.gif", {"fps": 100}),
        ("fps is '3', but must be a number", "b.gif", {"fps": "3"}),
        ("state is a tuple of 0, but must be a TrainState", "b.gif", {"state": ()}),
        ("holds 2 seeds", "b.gif", {"state": seeds}),
        (
            "no renderer for UmbrellaChain-bsuite: there are renderers for CartPole-v1",
            "b.gif",
            {"config": umbrella},
        ),
    ):
        options = {"config": config, "state": state, **dict(*others)}
        with pytest.raises(ConfigError, match=match) as error:
            render.episode(key, path=tmp_path / out, **options)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "b.gif").exists()
    assert (tmp_path / "a.gif").read_text() == "mine"


def test_files_that_cannot_be_created_or_appear_meanwhile(key, tmp_path, monkeypatch):
    config, state = untrained("multi_goal")
    with pytest.raises(ConfigError, match=r"cannot write .*: File name too long"):
        render.episode(key, config, state, tmp_path / f"{'a' * 300}.gif", max_steps=2)
    out, encode = tmp_path / "a.gif", render.gif
    monkeypatch.setattr(render, "gif", lambda *args: out.write_text("mine") and encode(*args))
    with pytest.raises(ConfigError, match=r"cannot write .*: File exists"):
        render.episode(key, config, state, out, max_steps=2)
    assert out.read_text() == "mine"


def test_a_picture_that_could_not_be_written_whole_is_removed(key, tmp_path, monkeypatch):
    config, state = untrained("multi_goal")

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:10])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", lambda path, mode: Full(str(path), mode))
    with pytest.raises(ConfigError, match=r"cannot write .*: No space left on device"):
        render.episode(key, config, state, tmp_path / "a.gif", max_steps=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", (1, 3))
def test_bytes_are_drawn_in_their_own_colors(channels):
    obs = np.zeros((1, 4, 5, channels), np.uint8)
    obs[0, 0, 1], obs[0, 2, 3] = 255, 40
    played = painters.Episode(None, obs, np.zeros(0), np.zeros(0), "")
    image = painters.pixels(painters.Scene(None, None, played), 0)
    cell = image.width // 5
    centers = np.asarray(image)[cell // 2 :: cell, cell // 2 :: cell]
    np.testing.assert_array_equal(centers, np.broadcast_to(obs[0], (4, 5, 3)))


def test_the_painter_in_the_documentation(tmp_path):
    text = (Path(painters.__file__).parents[1] / "README.md").read_text()
    code = re.search(r"    def paint\(self.*?return image\n", text, re.DOTALL)[0]
    defined = {"Image": Image, "ImageDraw": ImageDraw}
    exec(textwrap.dedent(code), defined)
    obs = np.array([[0.5, 0.5], [0.25, 0.75]])
    played = painters.Episode(None, obs, np.zeros((1, 2)), np.zeros(1), "")
    image = defined["paint"](None, painters.Scene(None, None, played), 1)
    shown = np.asarray(render.captioned(image, ""))
    assert shown[270, 90].tolist() == [0, 0x72, 0xB2] and shown[180, 180].tolist() == [255] * 3


def test_a_painter_is_for_the_observations_that_it_reads():
    kind = type(envs.make("CartPole-v1"))

    class Masked(kind):
        def get_obs(self, state, params=None, key=None):
            return super().get_obs(state, params, key)[jnp.array([0, 2])]

        def observation_space(self, params):
            space = super().observation_space(params)
            return type(space)(space.low[::2], space.high[::2], (2,), space.dtype)

    config = small("a2c").replace(env=Masked())
    with pytest.raises(ConfigError, match="no renderer for CartPole-v1"):
        painters.painter(config)
    assert painters.painter(config.replace(env=kind()))[0] is painters.cartpole
