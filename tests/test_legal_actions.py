"""Environments that declare illegal actions: no deep agent takes them or values them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import envs, exploration
from purejaxrl_sac.agents import conservative, discrete_sac, dqn
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import compiled, quick, small
from tests.probes import CONTINUOUS, Probe, replayed


class Game(Probe):
    """Action 0 alone is legal where the sign is negative, action 1 alone where it is positive."""

    def legal_actions(self, obs, params):
        return jnp.where(
            obs[0] == 0, jnp.array([False, False]), jnp.stack([obs[0] < 0, obs[0] > 0])
        )


GAME = Game(lambda sign, time, action: 1.0, horizon=3, signs=(-1.0, 1.0))


def test_values_of_illegal_actions_are_minus_infinity():
    env = envs.bind(GAME)
    obs = jnp.array([[-1.0, 0], [1, 0], [0, 0]])  # in the last state, all are illegal: terminal
    values = exploration.legal_values(env, obs, jnp.ones((3, 2)))
    np.testing.assert_array_equal(values, [[1, -np.inf], [-np.inf, 1], [1, 1]])
    action = exploration.random_action(env, jax.random.key(0), obs[:2].repeat(50, 0))
    np.testing.assert_array_equal(action, np.repeat([0, 1], 50))


def test_legal_actions_are_one_for_each_of_discrete_actions():
    class Four(Game):
        def legal_actions(self, obs, params):
            return jnp.ones(4, bool)

    env = Four(lambda sign, time, action: 1.0, horizon=3, signs=(-1.0, 1.0))
    with pytest.raises(ConfigError, match=r"legal_actions of .* shape \[4\], but .* shape \[2\]"):
        exploration.random_action(envs.bind(env), jax.random.key(0), jnp.zeros((1, 2)))
    continuous = Game(lambda *_: 1.0, horizon=3, action_space=CONTINUOUS)
    with pytest.raises(ConfigError, match="has a method legal_actions, but continuous actions"):
        envs.bind(continuous)


def test_environments_without_illegal_actions_have_no_mask():
    env = envs.bind("CartPole-v1")
    values = jnp.ones((2, 2))
    assert env.legal_actions is None
    assert exploration.legal_values(env, jnp.ones((2, 4)), values) is values


@pytest.mark.parametrize("name", ("maximum", "double", "expected", "soft"))
def test_targets_ignore_illegal_actions(name):
    """With one legal action in s', y = r + gamma Q-(s', that action), whatever the bootstrap."""
    config = prl.default_config("munchausen_dqn").replace(env=GAME, hidden_sizes=(), gamma=0.5)
    agent = compiled(dqn.dqn(config, envs.bind(GAME), bootstrap=getattr(dqn, name))[0])
    sign = jnp.where(jnp.arange(8) % 2 == 0, -1.0, 1.0)
    obs = jnp.stack([sign, jnp.zeros(8)], -1)
    action, zero = (sign > 0).astype(jnp.int32), jnp.zeros(8)
    batch = Transition(obs, action, jnp.arange(8.0), zero + 1, obs, zero > 0)
    state = agent.init(jax.random.key(0), obs)
    q = agent.q_values(state, obs)
    _, priority, metrics = agent.update(
        jax.random.key(1), state, Sample(batch, jnp.float32(1)), jnp.int32(0)
    )
    legal = jnp.take_along_axis(q, action[:, None], -1)[:, 0]
    assert (q.min(-1) == -jnp.inf).all()
    np.testing.assert_allclose(priority, abs(jnp.arange(8.0) - 0.5 * legal), rtol=1e-5)
    assert jnp.isfinite(metrics["loss"])


def test_discrete_sac_ignores_illegal_actions():
    """With one legal action in s', y = r + gamma Q-(s', that action); its entropy is its target."""
    config = prl.default_config("discrete_sac").replace(env=GAME, hidden_sizes=(), gamma=0.5)
    agent = compiled(discrete_sac.discrete_sac(config, envs.bind(GAME))[0])
    sign = jnp.where(jnp.arange(8) % 2 == 0, -1.0, 1.0)
    obs = jnp.stack([sign, jnp.zeros(8)], -1)
    action, zero = (sign > 0).astype(jnp.int32), jnp.zeros(8)
    batch = Transition(obs, action, jnp.arange(8.0), zero + 1, obs, zero > 0)
    state = agent.init(jax.random.key(0), obs)
    twins = jnp.einsum("bf,efa->eba", obs, _kernel(state.critic.params))
    q = jnp.take_along_axis(twins, action[None, :, None], -1)[..., 0]  # the biases are 0
    after, priority, metrics = agent.update(
        jax.random.key(1), state, Sample(batch, jnp.float32(1)), jnp.int32(0)
    )
    expected = abs(jnp.arange(8.0) + 0.5 * q.min(0) - q).mean(0)
    np.testing.assert_allclose(priority, expected, rtol=1e-5)
    assert (agent.q_values(state, obs).min(-1) == -jnp.inf).all()
    assert metrics["entropy"] == 0
    assert after.log_alpha.params == state.log_alpha.params  # log 1 = 0: no gradient
    np.testing.assert_array_equal(agent.policy(jax.random.key(2), after, obs, ())[0], action)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(after))
    target = partial(discrete_sac.target_entropy, config, count=jnp.int32(0))
    found = target(jnp.array([1.0, 2, 3]))
    np.testing.assert_allclose(found, target(2.0) * np.log2([1, 2, 3]), rtol=1e-6)


def _kernel(params):
    """The only matrix among the parameters of twin networks, [2, F, A]."""
    (kernel,) = (x for x in jax.tree.leaves(params) if x.ndim == 3)
    return kernel


@pytest.mark.parametrize(
    "algorithm",
    quick(
        ("iqn", "pqn", "ppo", "discrete_sac", "recurrent_ppo", "recurrent_pqn"),
        *("iqn", "ppo", "discrete_sac", "recurrent_pqn"),
    ),
)
def test_training_takes_legal_actions_only(algorithm, key):
    """Returns are 3 unless an illegal action was taken."""
    penalty = Game(lambda sign, time, action: 1.0 - 9 * (action != (sign > 0)), 3, (-1.0, 1.0))
    config = small(algorithm, env=penalty)
    state, metrics = jax.jit(prl.train)(key, config)
    assert metrics["episodes"].sum() > 20
    np.testing.assert_allclose(metrics["returns"], 3 * metrics["episodes"])
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(metrics))
    if algorithm == "iqn":
        stored = replayed(config, state)
        assert (stored.reward == 1).all()  # of the warm-up, too


def test_normalised_observations_are_refused_where_actions_may_be_illegal():
    with pytest.raises(ConfigError, match=r"which normalize\.observations scales"):
        prl.make_train(small("dqn", env=GAME, wrappers=(prl.normalize.observations,)))


def test_parameters_of_an_environment_keep_what_it_declares():
    """Legal actions, and bits as observations: in a run, parameters are a part of it."""
    params = GAME.default_params.replace(max_steps_in_episode=9)
    env = envs.bind(parameters.fixed(small("dqn", env=GAME, env_params=params)).env)
    assert env.max_steps == 9
    np.testing.assert_array_equal(env.legal_actions(jnp.array([[-1.0, 0]])), [[True, False]])
    config = small("dqn", env="Breakout-MinAtar")
    config = config.replace(env_params=envs.make(config.env).default_params)
    assert envs.bind(parameters.fixed(config).env).binary_observations


def test_conservative_values_are_over_legal_actions():
    """With one legal action in every state, the gap is 0."""
    config = conservative.ConservativeDQNConfig(env=GAME, hidden_sizes=())
    agent, _ = prl.build(config)[1:]
    obs = jnp.array([[-1.0, 0], [1, 0]])
    zero = jnp.zeros(2)
    batch = Transition(obs, jnp.array([0, 1]), zero, zero, obs, zero > 0)
    state = agent.init(jax.random.key(0), obs)
    *_, metrics = agent.update(
        jax.random.key(1), state, Sample(batch, jnp.float32(1)), jnp.int32(0)
    )
    assert metrics["conservative_gap"] == pytest.approx(0, abs=1e-6)


def test_components_of_observations_are_not_hidden_where_actions_may_be_illegal():
    with pytest.raises(ConfigError, match="Probe has legal_actions, which need all of an observ"):
        prl.visible.visible(GAME, (0,))
