"""Environments: rollouts of every gymnax environment, actions, names and carries."""

import sys
from functools import partial
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import envs, networks
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import core
from purejaxrl_sac.envs.brax import Brax
from tests.conftest import quick
from tests.probes import Counter, Probe, replayed

NAMES = [name for name in gymnax.registered_envs if not name.startswith("MNIST")]  # downloads


def play(env, length=12, num_envs=3, seed=0):
    def actor(key, obs, step, carry):
        return env.random_action(key, num_envs), (), carry

    key_reset, key_roll = jax.random.split(jax.random.key(seed))
    state = env.reset(key_reset, num_envs)
    keys = jax.random.split(key_roll, (length, 1 + num_envs))
    return state, *envs.rollout(env, keys, state, jnp.int32(0), actor)


SEVERAL_KINDS = (  # of observations, actions, time limits and parameters
    "CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Breakout-MinAtar", "DeepSea-bsuite",
    "MemoryChain-bsuite", "FourRooms-misc", "BernoulliBandit-misc", "Reacher-misc",
)  # fmt: skip


@pytest.mark.parametrize("name", quick(NAMES, *SEVERAL_KINDS))
def test_every_gymnax_environment_can_be_rolled_out(name):
    env = envs.bind(name)
    start, state, (rollout, episodes) = jax.jit(partial(play, env))()
    types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert types(start) == types(state)
    assert rollout.obs.shape == rollout.next_obs.shape == (12, *start.obs.shape)
    assert rollout.obs.dtype == rollout.next_obs.dtype == start.obs.dtype
    assert rollout.reward.dtype == rollout.discount.dtype == jnp.float32
    assert rollout.last.dtype == bool and rollout.last.shape == (12, 3)
    assert ((rollout.discount == 1) | rollout.last).all()
    assert int(episodes["episodes"].sum()) == int(rollout.last.sum())
    assert networks.features(env.observation_space)(start.obs).dtype == jnp.float32
    running = np.asarray(~rollout.last[:-1])
    before, after = np.asarray(rollout.next_obs[:-1]), np.asarray(rollout.obs[1:])
    # the compiler may compute one observation twice, an ulp apart
    np.testing.assert_allclose(before[running], after[running], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["FrozenLake-misc", "Catch-bsuite", "Breakout-MinAtar"])
def test_dqn_trains_on_discrete_vector_and_image_observations(name, key):
    config = prl.preset("dqn", name).replace(
        total_steps=120, warmup_steps=40, num_envs=4, capacity=80, batch_size=8
    )
    state, metrics = jax.jit(prl.train)(key, config)
    assert jnp.isfinite(metrics["loss"]).all()
    env = envs.bind(name)
    assert replayed(config, state).obs.dtype == state.env.obs.dtype
    q = prl.q_values(config, state, state.env.obs)
    assert q.shape == (4, env.num_actions)


def bounded(low, high, shape):
    return Probe(lambda *_: 0.0, action_space=spaces.Box(low, high, shape))


def test_actions_are_rescaled_per_dimension():
    env = envs.bind(bounded(jnp.array([-1.0, 0.0]), jnp.array([3.0, 10.0]), (2,)))
    action = jnp.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]])
    np.testing.assert_allclose(env.to_env(action), [[-1, 0], [3, 10], [1, 7.5]])
    env = envs.bind(bounded(-2.0, 6.0, (3,)))
    np.testing.assert_allclose(env.to_env(jnp.full((1, 3), 0.5)), np.full((1, 3), 4))
    bytes_ = np.array([-128, 127], np.int8)  # whose difference is no int8
    env = envs.bind(bounded(*bytes_[:, None], (1,)))
    np.testing.assert_allclose(env.to_env(jnp.array([[-1.0], [0.0], [1.0]])).T, [[-128, -0.5, 127]])
    random = envs.bind("Pendulum-v1").random_action(jax.random.key(0), 1_000)
    assert random.shape == (1_000, 1) and -1 <= random.min() < -0.9 and 0.9 < random.max() <= 1


def test_bounds_may_depend_on_traced_parameters():
    env = envs.make("Pendulum-v1")
    limits = jnp.array([1.0, 5.0])

    def torque(limit):
        params = env.default_params.replace(max_torque=limit)
        return envs.bind(env, params).to_env(jnp.ones((1, 1)))

    np.testing.assert_allclose(jax.vmap(torque)(limits).ravel(), limits)


def test_environment_parameters_can_be_swept():
    env = envs.make("Pendulum-v1")
    config = prl.preset("sac").replace(
        total_steps=60, warmup_steps=40, capacity=60, batch_size=4, hidden_sizes=(4,)
    )
    lanes = config.replace(
        env_params=jax.tree.map(jnp.asarray, env.default_params).replace(g=jnp.array([1.0, 10.0]))
    )
    axes = jax.tree.map(lambda _: None, lanes)
    axes = axes.replace(env_params=axes.env_params.replace(g=0))
    train = jax.jit(jax.vmap(prl.train, in_axes=(None, axes)))
    state, _ = train(jax.random.key(0), lanes)
    next_obs = [replayed(config, prl.seed_state(state, lane)).next_obs[0, 0] for lane in range(2)]
    assert not np.allclose(*next_obs)


def test_memory_stores_canonical_actions():
    env = Probe(lambda sign, time, action: action, action_space=spaces.Box(2.0, 4.0, (1,)))
    _, _, (rollout, _) = jax.jit(partial(play, envs.bind(env)))()
    np.testing.assert_allclose(rollout.reward, 3 + rollout.action[..., 0], rtol=1e-6)


def test_infinite_bounds_raise():
    with pytest.raises(prl.ConfigError, match="unbounded actions"):
        envs.bind(bounded(-jnp.inf, jnp.inf, (1,)))
    for limit in (2e38, 1e39):  # the range, or a bound, exceeds float32
        with pytest.raises(prl.ConfigError, match="range exceeds that of float32"):
            envs.bind(bounded(-limit, limit, (1,)))


class Tensor(Probe):
    """Actions of any shape; the reward is nan if they have another one."""

    def step_env(self, key, state, action, params):
        reward = action.sum() if action.shape == self._space.shape else jnp.nan
        return self.get_obs(state), state, reward, jnp.array(False), {}


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_actions_may_have_any_shape(shape, key):
    env = Tensor(None, action_space=spaces.Box(-2.0, 2.0, shape))
    config = prl.preset("sac", env).replace(
        total_steps=30, warmup_steps=20, capacity=30, batch_size=4, hidden_sizes=(4,)
    )
    state, metrics = jax.jit(prl.train)(key, config)
    assert jnp.isfinite(metrics["critic_loss"]).all()
    assert prl.policy(config, state)(key, state.env.obs).shape == (1, *shape)


@pytest.mark.parametrize("name", ["FourRooms-misc", "MetaMaze-misc"])
def test_environments_can_be_constructed_inside_a_trace(name):
    envs.core._make.cache_clear()
    jax.eval_shape(lambda key: envs.bind(name).reset(key, 2), jax.random.key(0))
    jax.jit(lambda key: envs.bind(name).reset(key, 2))(jax.random.key(0))


def test_other_objects_than_environments_raise():
    with pytest.raises(prl.ConfigError, match=r"env is a tuple.*the first"):
        envs.make(gymnax.make("CartPole-v1"))


def test_unknown_names_raise_with_the_nearest_name():
    with pytest.raises(prl.ConfigError, match=r"did you mean CartPole-v1\?"):
        envs.make("cartpole-v1")
    with pytest.raises(prl.ConfigError, match="purejaxrl-sac list"):
        envs.make("zzzzzz")


def test_make_caches_names_and_returns_objects_unchanged():
    assert envs.make("CartPole-v1") is envs.make("CartPole-v1")
    env = Counter()
    assert envs.make(env) is env


def test_episode_returns_and_lengths():
    _, state, (rollout, episodes) = jax.jit(partial(play, envs.bind(Counter()), length=40))()
    ends = np.asarray(rollout.last)
    assert ends.any()
    np.testing.assert_array_equal(episodes["returns"], 3 * np.asarray(episodes["lengths"]))
    np.testing.assert_array_equal(
        np.unique(np.asarray(episodes["lengths"])[ends]), [5, 7]
    )  # fmt: skip
    assert int(episodes["lengths"].sum() + state.episode_length.sum()) == 40 * 3


def test_carries_are_passed_on_and_reset_with_the_episode():
    env, num_envs = envs.bind(Counter()), 3
    initial = {"steps": jnp.zeros(num_envs, jnp.int32), "sum": jnp.array([[1.0, 0]] * num_envs)}

    def actor(key, obs, step, carry):
        new = {"steps": carry["steps"] + 1, "sum": carry["sum"] + 2}
        return jnp.zeros(num_envs, jnp.int32), carry, new

    reset = jax.jit(env.reset, static_argnums=1)
    state = reset(jax.random.key(0), num_envs)._replace(carry=initial)
    keys = jax.random.split(jax.random.key(1), (40, 1 + num_envs))
    play = jax.jit(partial(envs.rollout, env, actor=actor, initial_carry=initial))
    state, (rollout, _) = play(keys, state, jnp.int32(0))
    assert rollout.last.any(0).all()
    steps = np.zeros(num_envs, int)
    for carried, last in zip(rollout.extras["steps"], np.asarray(rollout.last), strict=True):
        np.testing.assert_array_equal(carried, steps)
        steps = np.where(last, 0, steps + 1)
    np.testing.assert_array_equal(state.carry["steps"], steps)
    expected = np.asarray(initial["sum"]) + 2 * np.asarray(rollout.extras["steps"])[..., None]
    np.testing.assert_array_equal(rollout.extras["sum"], expected)


class Lander(NamedTuple):
    """An environment with Brax's interface: falls by 1 + action, and terminates at 0."""

    class State(NamedTuple):
        obs: jax.Array
        reward: jax.Array
        done: jax.Array

    action_size: int = 1
    observation_size: int = 2

    def reset(self, key):
        height = jax.random.uniform(key, minval=3, maxval=4)
        return self.State(jnp.stack([height, 0.0]), jnp.float32(0), jnp.float32(0))

    def step(self, state, action):
        height = state.obs[0] - 1 - action[0]
        obs = jnp.stack([height, state.obs[1] + 1])
        return self.State(obs, -height, (height <= 0).astype(jnp.float32))


@pytest.mark.parametrize(("limit", "terminates"), ((10, True), (3, False)))
def test_environments_with_the_interface_of_brax(limit, terminates):
    wrapped = Brax(Lander(), "lander")
    env = envs.bind(wrapped, wrapped.default_params.replace(max_steps_in_episode=limit))
    assert (env.name, env.action_dim, env.max_steps) == ("lander", 1, limit)

    def hover(key, obs, step, carry):
        return jnp.full((2, 1), -5.0), (), carry  # clipped: it hovers until the time limit

    state = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 2)
    keys = jax.random.split(jax.random.key(1), (12, 3))

    def moves(actor):
        _, (moved, _) = jax.jit(partial(envs.rollout, env, actor=actor))(keys, state, jnp.int32(0))
        return jax.tree.map(np.asarray, moved)

    moved = moves(hover)
    np.testing.assert_allclose(moved.next_obs[..., 0], moved.obs[..., 0], rtol=1e-6)
    np.testing.assert_array_equal(moved.discount, 1)
    np.testing.assert_array_equal(moved.last[:, 0], (np.arange(12) + 1) % limit == 0)

    def fall(key, obs, step, carry):
        return jnp.zeros((2, 1)), (), carry

    moved = moves(fall)
    ends = moved.last[:, 0]
    assert ends.argmax() == (3 if terminates else 2)
    np.testing.assert_array_equal(moved.discount[:, 0] == 0, ends if terminates else False)
    np.testing.assert_array_equal(moved.next_obs[:, 0, 1], moved.obs[:, 0, 1] + 1)  # before resets
    first = moved.obs[:, 0, 0][moved.obs[:, 0, 1] == 0]  # every episode starts in a different state
    assert len(set(first.tolist())) == len(first) > 2


def test_dictionaries_of_observations_get_one_line():
    several = Lander(observation_size={"state": (2,), "privileged_state": (9,)})
    with pytest.raises(ConfigError, match="of lander are a dictionary of state, privileged_state:"):
        envs.bind(Brax(several, "lander"))


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("brax/hoper", "no Brax environment is called hoper: did you mean hopper?"),
        ("brax/hopper/sprin", "no Brax backend is called sprin: did you mean spring?"),
        ("brax/hopper", r"pip install 'purejaxrl_sac\[brax\]'"),
    ),
)
def test_brax_names_raise_clear_errors(name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(ConfigError, match=message):
        envs.make(name)


def test_environments_made_in_another_precision_are_others():
    with jax.enable_x64(True):
        wide = envs.make("Breakout-MinAtar")
    plain = envs.make("Breakout-MinAtar")
    assert plain is not wide and plain is envs.make("Breakout-MinAtar")
    assert plain.action_set.dtype == jnp.int32 != wide.action_set.dtype


@pytest.mark.parametrize("during", (True, False))
def test_a_postponed_module_is_imported_at_its_first_use(during, tmp_path, monkeypatch):
    (tmp_path / "drawing.py").write_text("color = 'red'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with core._imported_later("drawing"):
        import drawing

        if during:
            assert drawing.color == "red"
    assert ("drawing" in sys.modules) == during
    assert drawing.color == "red" and sys.modules["drawing"].__file__ == str(
        tmp_path / "drawing.py"
    )
    with core._imported_later("drawing"), core._imported_later("absent"):
        import absent
        import drawing
    assert drawing is sys.modules.pop("drawing")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        _ = absent.color
