"""Episodes as pictures: every environment that can be drawn, and what is said where it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, envs
from purejaxrl_sac.experiment import render
from tests.conftest import small

CONTINUOUS = {
    "Pendulum-v1", "MountainCarContinuous-v0", "Reacher-misc", "PointRobot-misc", "Swimmer-misc",
    "multi_goal",
}  # fmt: skip
TABULAR = {"FrozenLake-misc", "frozen_lake", "cliff_walking", "taxi"}
GAMES = {"Breakout-MinAtar"}  # the others are drawn by the same lines
OTHERS = {
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Catch-bsuite", "DeepSea-bsuite",
    "FourRooms-misc",
}  # fmt: skip


def untrained(env):
    """A configuration and a state of which only the key and the clock are ever read."""
    algorithm = "td3" if env in CONTINUOUS else "q_learning" if env in TABULAR else "dqn"
    return small(algorithm).replace(env=env), prl.TrainState(None, jnp.int32(0), None, None, None)


def at_random(config, state):
    env = envs.bind(config.env)
    return lambda key, obs: env.to_env(env.random_action(key, 1))


def replay(key, config, steps):
    """The same episode, by hand: rewards, and whether it ended."""
    env = envs.bind(config.env)
    key_reset, key_steps = jax.random.split(key)
    state, rewards = env.reset(key_reset, 1), []
    choose, step = at_random(config, None), jax.jit(env.step)
    for key_step in jax.random.split(key_steps, steps):
        key_act, key_env = jax.random.split(key_step)
        state, transition, _ = step(key_env[None], state, choose(key_act, state.obs))
        rewards.append(float(transition.reward[0]))
        if transition.last[0]:
            return rewards, True
    return rewards, False


@pytest.mark.parametrize("env", sorted(CONTINUOUS | TABULAR | GAMES | OTHERS))
def test_every_environment_is_drawn(env, tmp_path, key):
    config, state = untrained(env)
    path = tmp_path / "episode.gif"
    played = render.episode(key, config, state, path, policy=at_random, max_steps=12)
    rewards, ended = replay(key, config, 12)
    np.testing.assert_allclose(played.rewards, rewards, rtol=1e-5)
    assert (played.ending != "cut here") == ended
    gif = Image.open(path)
    assert gif.n_frames == len(rewards) + 1
    frames = []
    for i in range(gif.n_frames):
        gif.seek(i)
        frames.append(np.asarray(gif.convert("RGB"))[:-24])  # without the caption
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 1
    assert any((frame != frames[0]).any() for frame in frames)


def test_states_are_the_environments_own_up_to_the_last(key, tmp_path):
    config, state = untrained("CartPole-v1")
    played = render.play(key, config, state, at_random)
    assert played.ending == "terminated" and len(played.states.x) == len(played.rewards) + 1
    names = ("x", "x_dot", "theta", "theta_dot")
    drawn = np.stack([getattr(played.states, name) for name in names], axis=-1)
    np.testing.assert_allclose(drawn, played.obs, rtol=1e-6)
    assert abs(played.states.theta[-1]) > 0.2  # it fell: the last state is no fresh start


def test_long_episodes_skip_frames(key, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "MOST_FRAMES", 10)
    config, state = untrained("Pendulum-v1")
    render.episode(key, config, state, tmp_path / "a.gif", policy=at_random, max_steps=45)
    assert Image.open(tmp_path / "a.gif").n_frames == 10  # 0, 5, ... 40, and 45


def test_mp4(key, tmp_path, monkeypatch):
    config, state = untrained("multi_goal")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs ffmpeg"):
        render.episode(key, config, state, tmp_path / "a.mp4", policy=at_random)
    fake = tmp_path / "ffmpeg"  # keeps what it was asked for
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    render.episode(key, config, state, tmp_path / "a.mp4", policy=at_random)
    assert "-framerate 5 " in (tmp_path / "a.mp4").read_text()


def test_what_cannot_be_drawn_or_written_is_said_in_a_line(key, tmp_path):
    config, state = untrained("multi_goal")
    with pytest.raises(ConfigError, match=r"must end in \.gif or \.mp4"):
        render.episode(key, config, state, tmp_path / "a.png")
    (tmp_path / "a.gif").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        render.episode(key, config, state, tmp_path / "a.gif")
    missing = tmp_path / "no" / "b.gif"
    with pytest.raises(ConfigError, match="cannot write"):
        render.episode(key, config, state, missing, policy=at_random, max_steps=3)
    with pytest.raises(ConfigError, match="nobody can draw"):
        render.episode(key, small("dqn").replace(env="MetaMaze-misc"), state, tmp_path / "c.gif")
    assert (tmp_path / "a.gif").read_text() == "mine"
