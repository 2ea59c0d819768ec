"""Policies, values and returns of a training state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import normalize
from purejaxrl_sac.agents.sac_family import residual_critics
from tests.conftest import init, small
from tests.probes import Params, Probe


def test_returns_are_undiscounted_sums_of_first_episodes(key):
    env = Probe(lambda sign, time, action: sign + time, horizon=3, signs=(-1.0, 2.0))
    config = small("dqn").replace(env=env, total_steps=48)
    state = init(key, config)
    returns = prl.evaluate(key, config, state, episodes=64, max_steps=10)
    assert returns.shape == (64,) and returns.dtype == jnp.float32
    assert set(np.asarray(returns).tolist()) == {0.0, 9.0}


def test_the_time_limit_bounds_an_episode(key):
    env = Probe(lambda *_: 1.0, horizon=0)
    config = small("dqn").replace(env=env, env_params=Params(max_steps_in_episode=9))
    state = init(key, config)
    assert (prl.evaluate(key, config, state, 4) == 9).all()


def test_evaluation_needs_a_known_time_limit(key):
    config = small("dqn")
    state = init(key, config)

    class Endless(Probe):
        @property
        def default_params(self):
            return ()

        def is_truncated(self, state, params):
            return jnp.array(False)

    with pytest.raises(prl.ConfigError, match="pass max_steps"):
        prl.evaluate(key, config.replace(env=Endless(lambda *_: 1.0)), state, 4)


def test_policies_return_actions_in_environment_units(key):
    env = Probe(lambda *_: 0.0, action_space=spaces.Box(10.0, 20.0, (1,)))
    config = small("sac").replace(env=env)
    state = init(key, config)
    obs = jax.random.normal(key, (50, 2))
    for make in (prl.policy, prl.exploring_policy):
        action = jax.jit(make(config, state))(key, obs)
        assert action.shape == (50, 1)
        assert (action > 10).all() and (action < 20).all()


def test_only_the_greedy_policy_is_deterministic(key):
    config = small("sac")
    state = init(key, config)
    keys, obs = jax.random.split(key), jnp.zeros((3, 3))
    greedy, exploring = prl.policy(config, state), prl.exploring_policy(config, state)
    np.testing.assert_array_equal(greedy(keys[0], obs), greedy(keys[1], obs))
    assert not np.allclose(exploring(keys[0], obs), exploring(keys[1], obs))
    same = prl.evaluate(key, config, state, 3, policy=prl.exploring_policy)
    assert not np.allclose(same, prl.evaluate(key, config, state, 3))
    np.testing.assert_array_equal(
        prl.evaluate(key, config, state, 3), prl.evaluate(key, config, state, 3)
    )


def test_q_values_and_policy_agree(key):
    config = small("double_dqn")
    state = init(key, config)
    obs = jax.random.normal(key, (20, 4))
    q = prl.q_values(config, state, obs)
    assert q.shape == (20, 2)
    np.testing.assert_array_equal(prl.policy(config, state)(key, obs), q.argmax(-1))
    action = jnp.arange(20) % 2
    chosen = prl.q_values(config, state, obs, action)
    np.testing.assert_array_equal(chosen, q[jnp.arange(20), action])


@pytest.mark.parametrize("algorithm", ("continuous_soft_q", "sac", "td3", "sac_v1", "crossq"))
def test_q_values_of_continuous_actions(key, algorithm):
    config = small(algorithm, env="multi_goal")
    state = init(key, config)
    obs, action = jax.random.normal(key, (2, 20, 2))
    q = prl.q_values(config, state, obs, action)
    assert q.shape == (20,) and not np.allclose(q, prl.q_values(config, state, obs, -action))
    with pytest.raises(prl.ConfigError, match="pass an action to q_values"):
        prl.q_values(config, state, obs)


def test_q_values_of_sac_are_normalised_minima(key):
    config = small("simba")
    state = init(key, config)
    obs = 5 * jax.random.normal(key, (20, 3)) + 1
    action = jnp.linspace(-1, 1, 20)[:, None]
    seen = normalize.include(state.agent.used, 3 * obs)
    state = state._replace(agent=state.agent._replace(used=seen))
    normal = jnp.clip((obs - seen.mean.value) / normalize.deviation(seen), -10, 10)
    q = residual_critics(config, None).apply(state.agent.agent.critic.params, normal, action)
    np.testing.assert_allclose(prl.q_values(config, state, obs, action), q.min(0), rtol=1e-5)


def test_q_values_of_ppo_are_an_error(key):
    with pytest.raises(prl.ConfigError, match="q_values"):
        prl.q_values(small("ppo"), init(key, small("ppo")), jnp.zeros((1, 4)))


def test_evaluation_can_be_vmapped_over_seeds(key):
    config = small("dqn")
    state, _ = jax.jit(jax.vmap(prl.make_train(config)))(jax.random.split(key, 3))

    def play(state):
        return prl.evaluate(key, config, state, 5)

    returns = jax.jit(jax.vmap(play, in_axes=(prl.seed_axes(state),)))(state)
    assert returns.shape == (3, 5)
    one = jax.tree.map(lambda x: x[1], state)
    np.testing.assert_allclose(jax.jit(play)(one), returns[1])


def test_rollout_episodes_agrees_with_evaluate(key):
    config = small("sac")
    state = init(key, config)
    play, evaluate = (
        jax.jit(lambda s, f=f: f(key, config, s, 4, max_steps=250))
        for f in (prl.rollout_episodes, prl.evaluate)
    )
    played, running = play(state)
    assert played.obs.shape == (250, 4, 3) and running.shape == (250, 4)
    np.testing.assert_allclose((played.reward * running).sum(0), evaluate(state), rtol=1e-5)
    np.testing.assert_array_equal(running.sum(0), 200)  # the time limit of Pendulum
    assert played.last[199].all() and (played.discount == 1).all()
    np.testing.assert_array_equal(played.next_obs[:199], played.obs[1:200])
    assert float(jnp.abs(played.action).max()) <= 2
