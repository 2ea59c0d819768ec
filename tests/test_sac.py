"""SAC on environments of known values, and its gradients against the equations."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import envs, losses
from purejaxrl_sac.agents.sac import sac
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.networks import Critics, GaussianActor, torso
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import compiled
from tests.probes import CONTINUOUS, GAMMA, Params, Probe, adam_gradient, trained


def cold(**changes):
    """SAC with a temperature near zero, where soft values equal values."""
    return {"alpha": 1e-6, "alpha_learning_rate": 0.0, **changes}


def obs(*rows):
    return jnp.array(rows, jnp.float32)


def critic_values(config, state, obs, action):
    """Values of SAC's twin critics for actions [N, 1]: [2, N]."""
    network = Critics(torso(envs.bind(config.env).observation_space, (32, 32), "relu"), 2)
    return jax.jit(network.apply)(state.agent.critic.params, obs, action)


def test_values_bootstrap_at_time_limits():
    env = Probe(lambda sign, time, action: 1, horizon=0, action_space=CONTINUOUS)
    params = Params(max_steps_in_episode=3)
    config, state = trained("sac", env, 800, env_params=params, **cold(tau=0.2))
    q = critic_values(config, state, obs([1, 0]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(q, jnp.full((2, 1), 1 / (1 - GAMMA)), rtol=0.05)


def test_values_are_discounted_and_the_best_actions_found():
    """The second step is rewarded: by 2 + sign for the best action, which is half the sign."""
    env = Probe(
        lambda sign, time, action: (time == 1) * (2 + sign - (action - 0.5 * sign) ** 2),
        horizon=2,
        signs=(-1.0, 1.0),
        action_space=CONTINUOUS,
    )
    config, state = trained("sac", env, 1_000, **cold(tau=0.1))
    last = obs([-1, 0.5], [1, 0.5])
    action = prl.policy(config, state)(jax.random.key(0), last)
    np.testing.assert_allclose(action, [[-0.5], [0.5]], atol=0.1)
    q = critic_values(config, state, last, action)
    np.testing.assert_allclose(q, [[1, 3]] * 2, atol=0.05)
    q = critic_values(config, state, obs([-1, 0], [1, 0]), jnp.zeros((2, 1)))
    np.testing.assert_allclose(q, [[GAMMA, 3 * GAMMA]] * 2, atol=0.1)
    # a fixed temperature does not change
    assert state.agent.log_alpha.params == jnp.log(jnp.float32(config.alpha))


@pytest.mark.slow  # test_sac_exact.py has a similar test
def test_the_learned_temperature_keeps_the_target_entropy():
    env = Probe(lambda sign, time, action: -10 * action**2, action_space=CONTINUOUS)
    config, state = trained(
        "sac", env, 3_000, alpha=1.0, alpha_learning_rate=1e-2, target_entropy_per_dim=-0.5
    )
    network = GaussianActor(torso(envs.bind(env).observation_space, (32, 32), "relu"), 1)
    params = network.apply(state.agent.actor.params, jnp.tile(obs([1, 0]), (4_096, 1)))
    _, log_prob = squashed_gaussian(*params).sample_and_log_prob(seed=jax.random.key(5))
    np.testing.assert_allclose(-log_prob.mean(), -0.5, atol=0.1)
    # before squashing, pi = N(0, alpha / 20) has entropy 1/2 log(pi e alpha / 10)
    np.testing.assert_allclose(
        jnp.exp(state.agent.log_alpha.params), 10 * np.exp(2 * -0.5) / (np.pi * np.e), rtol=0.25
    )


def test_log_probabilities_in_environment_units():
    """The density of b = to_env(a), a squashed Gaussian, integrates to one over the bounds of b."""
    low, high = jnp.array([-1.0, 0.0]), jnp.array([3.0, 0.5])
    env = envs.bind(Probe(lambda *_: 0.0, action_space=spaces.Box(low, high, (2,))))
    x, w = np.polynomial.legendre.leggauss(200)
    grid = jnp.stack(jnp.meshgrid(x, x), -1).reshape(-1, 2)
    weights = np.outer(w, w).reshape(-1) * np.prod((high - low) / 2)  # of b = to_env(a)
    pi = squashed_gaussian(jnp.array([0.3, -0.2]), jnp.log(jnp.array([0.5, 0.8])))
    log_pi_b = pi.log_prob(grid) - jnp.log((high - low) / 2).sum()
    np.testing.assert_allclose(weights @ np.exp(log_pi_b), 1, rtol=1e-3)
    slope = jax.jacobian(lambda a: env.to_env(a[None])[0])(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(jnp.linalg.slogdet(slope)[1], jnp.log((high - low) / 2).sum())


WEIGHT = jnp.linspace(0.5, 2, 32)


@cache
def one_update():
    """SAC's states before and after one update on a random batch, with its key and networks."""
    env = Probe(lambda *_: 0.0, action_space=spaces.Box(-1.0, 1.0, (2,)))
    config = prl.default_config("sac").replace(
        env=env, hidden_sizes=(16, 16), alpha=0.4, target_entropy_per_dim=-0.7
    )
    agent = compiled(sac(config, envs.bind(config.env))[0])
    keys = jax.random.split(jax.random.key(3), 5)
    states = jax.random.normal(keys[0], (2, 32, 2))
    batch = Transition(
        obs=states[0],
        action=jax.random.uniform(keys[1], (32, 2), minval=-1),
        reward=jax.random.normal(keys[2], (32,)),
        discount=(jnp.arange(32) % 4 > 0).astype(jnp.float32),
        next_obs=states[1],
        last=jnp.zeros(32, bool),
    )
    before = agent.init(keys[3], states[0])
    # targets differ from the critics, so that confusing the two fails the test
    before = before._replace(target_params=agent.init(keys[4], states[0]).critic.params)
    key = jax.random.key(9)
    after, priority, metrics = agent.update(key, before, Sample(batch, WEIGHT), 0)
    features = torso(envs.bind(env).observation_space, (16, 16), "relu")
    return before, after, batch, key, GaussianActor(features, 2), Critics(features, 2), metrics


def flat(tree):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def test_sac_critic_gradient_is_equation_4_20():
    before, after, batch, key, actor, critics, _ = one_update()

    @jax.jit
    def gradient(before):  # grad Q (Q - y), averaged over the batch
        key_next, _ = jax.random.split(key)
        distribution = squashed_gaussian(*actor.apply(before.actor.params, batch.next_obs))
        action, log_prob = distribution.sample_and_log_prob(seed=key_next)
        next_q = critics.apply(before.target_params, batch.next_obs, action).min(0)
        y = batch.reward + 0.99 * batch.discount * (next_q - 0.4 * log_prob)
        q, pullback = jax.vjp(
            lambda params: critics.apply(params, batch.obs, batch.action), before.critic.params
        )
        return pullback(WEIGHT * (q - y) / 32)[0]

    expected = gradient(before)
    np.testing.assert_allclose(
        adam_gradient(after.critic.opt_state), flat(expected), rtol=1e-3, atol=1e-6
    )


def test_sac_actor_gradient_is_equation_4_24():
    alpha = 0.4
    before, after, batch, key, actor, critics, _ = one_update()
    _, key_actor = jax.random.split(key)

    @jax.jit
    def noise(params):
        mean, log_std = actor.apply(params, batch.obs)
        u = squashed_gaussian(mean, log_std).distribution.sample(seed=key_actor)
        return (u - mean) / jnp.exp(log_std)

    epsilon = noise(before.actor.params)

    def f(params):  # a = f_phi(epsilon; s)
        mean, log_std = actor.apply(params, batch.obs)
        return jnp.tanh(mean + jnp.exp(log_std) * epsilon)

    def log_pi(params, action):  # log pi_phi(a|s), written out for a given action
        mean, log_std = actor.apply(params, batch.obs)
        z = (jnp.arctanh(action) - mean) / jnp.exp(log_std)
        log_normal = -0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
        return (log_normal - jnp.log1p(-(action**2))).sum(-1)

    def q(action):
        return critics.apply(after.critic.params, batch.obs, action).min(0)

    @jax.jit
    def gradient(params):
        action, push = jax.vjp(f, params)
        direct = jax.grad(lambda params: log_pi(params, action).mean())(params)
        da_log_pi = jax.grad(lambda a: log_pi(params, a).mean())(action)
        da_q = jax.grad(lambda a: q(a).mean())(action)
        (through_action,) = push(alpha * da_log_pi - da_q)
        return alpha * flat(direct) + flat(through_action)

    expected = gradient(before.actor.params)
    np.testing.assert_allclose(adam_gradient(after.actor.opt_state), expected, rtol=2e-2, atol=2e-5)


def test_sac_actor_gradient_agrees_with_finite_differences():
    before, after, batch, key, actor, critics, _ = one_update()
    _, key_actor = jax.random.split(key)

    @jax.jit
    def objective(params):
        distribution = squashed_gaussian(*actor.apply(params, batch.obs))
        action, log_prob = distribution.sample_and_log_prob(seed=key_actor)
        q = critics.apply(after.critic.params, batch.obs, action)
        return losses.soft_actor(q, log_prob, 0.4).mean()

    leaves, tree = jax.tree.flatten(before.actor.params)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    direction = jax.tree.unflatten(
        tree, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )
    step = 3e-4

    def at(t):
        return objective(jax.tree.map(lambda x, d: x + t * d, before.actor.params, direction))

    slope = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose(
        jnp.vdot(adam_gradient(after.actor.opt_state), flat(direction)), slope, rtol=2e-2
    )


def test_sac_temperature_gradient_by_hand():
    _, after, *_, metrics = one_update()
    # d/d log alpha of -alpha (log pi + H) is -alpha (log pi + H)
    expected = -0.4 * (-metrics["entropy"] - 2 * 0.7)  # for two dimensions
    moment = next(x for x in jax.tree.leaves(after.log_alpha.opt_state) if x.dtype == jnp.float32)
    np.testing.assert_allclose(moment / 0.1, expected, rtol=1e-4)


def test_twin_critics_are_independent():
    before, *_ = one_update()
    for leaf in jax.tree.leaves(before.critic.params):
        assert leaf.shape[0] == 2
        if leaf.ndim > 2:
            assert not np.allclose(leaf[0], leaf[1])
