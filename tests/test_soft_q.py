"""Soft Q-learning for continuous actions: SVGD, the soft value, and learned policies."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import purejaxrl_sac as prl
from purejaxrl_sac import envs, losses
from purejaxrl_sac.agents import continuous_soft_q
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import multigoal
from purejaxrl_sac.losses import soft
from purejaxrl_sac.types import Transition
from tests.probes import CONTINUOUS, GAMMA, Params, Probe, learned, trained


def descend(key, log_density, shape, steps=1_000, step_size=0.5):
    """Particles drawn from N(0, 3^2) and moved by SVGD."""
    score = jax.vmap(jax.grad(log_density))

    def move(particles, _):
        return particles + step_size * losses.svgd_direction(particles, score(particles)), None

    start = 3 * jax.random.normal(key, shape)
    return jax.jit(lambda start: jax.lax.scan(move, start, length=steps)[0])(start)


def test_particles_converge_to_a_gaussian():
    mean, deviation = jnp.array([2.0, -1.0]), jnp.array([0.5, 2.0])

    def log_density(x):
        return norm.logpdf(x, mean, deviation).sum()

    found = descend(jax.random.key(0), log_density, (100, 2))
    np.testing.assert_allclose(found.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.15)


def test_particles_converge_to_a_mixture_of_two_gaussians():
    """1/3 N(-2, 0.5^2) + 2/3 N(1, 0.8^2): mass, mean and standard deviation of each mode."""

    def log_density(x):
        parts = jnp.array([norm.logpdf(x[0], -2, 0.5), norm.logpdf(x[0], 1, 0.8)])
        return jax.nn.logsumexp(parts + jnp.log(jnp.array([1 / 3, 2 / 3])))

    found = np.asarray(descend(jax.random.key(1), log_density, (120, 1))).ravel()
    left, right = found[found < -0.8], found[found >= -0.8]
    np.testing.assert_allclose(len(left) / 120, 1 / 3, atol=0.06)
    np.testing.assert_allclose([left.mean(), right.mean()], [-2, 1], atol=0.15)
    np.testing.assert_allclose([left.std(), right.std()], [0.5, 0.8], rtol=0.25)


def test_one_particle_follows_the_score_and_two_repel_each_other():
    np.testing.assert_allclose(losses.svgd_direction(jnp.ones((1, 2)), jnp.full((1, 2), 3.0)), 3.0)
    apart = losses.svgd_direction(jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1)))
    # the median of {0, 0, 1, 1} is 1/2, so h = 1/2 / log 3
    h = 0.5 / np.log(3)
    push = 2 / h * np.exp(-1 / h) / 2
    np.testing.assert_allclose(apart, [[-push], [push]], rtol=1e-5)


@pytest.mark.parametrize("size", (1, 2, 3, 4, 5, 16))
@pytest.mark.parametrize("digits", (0, 6))
def test_the_median_of_distances_is_that_of_the_whole_matrix(size, digits):
    x = jnp.round(jax.random.normal(jax.random.key(size), (size, 2)), digits)  # 0: with ties
    distance = jnp.square(x[:, None] - x[None]).sum(-1)
    assert soft.median_distance(distance) == np.median(distance)


@pytest.mark.parametrize("alpha", (0.3, 1.0, 4.0))
def test_the_soft_value_is_an_integral(alpha):
    """Q = -a^2 on [-1, 1], against quadrature."""
    grid = jnp.linspace(-1, 1, 20_001)
    exact = alpha * jnp.log(jnp.trapezoid(jnp.exp(-(grid**2) / alpha), grid))
    actions = jax.random.uniform(jax.random.key(0), (1, 200_000), minval=-1, maxval=1)
    found = losses.importance_soft_value(-(actions**2), -jnp.log(2.0), alpha)
    np.testing.assert_allclose(found, exact, atol=0.01 * alpha)


@pytest.mark.parametrize("dimensions", (1, 3))
def test_the_soft_value_of_equal_actions_is_the_logarithm_of_their_volume(dimensions):
    batch = Transition(
        obs=jnp.zeros((4, 2)),
        action=jnp.zeros((4, dimensions)),
        reward=jnp.zeros(4),
        discount=jnp.ones(4),
        next_obs=jnp.zeros((4, 2)),
        last=jnp.zeros(4, bool),
    )
    critic = SimpleNamespace(apply=lambda params, obs, action: jnp.zeros((1, len(action))))
    config = prl.default_config("continuous_soft_q").replace(alpha=0.7)
    state = continuous_soft_q.ContinuousSoftQState(None, None, None)
    inputs = (config, None, critic, state, batch, jnp.float32(1), jax.random.key(0))
    _, (_, metrics) = continuous_soft_q.critic_loss({}, continuous_soft_q.LossInputs(*inputs))
    np.testing.assert_allclose(metrics["soft_value"], 0.7 * dimensions * np.log(2), rtol=1e-5)


ALPHA = 0.1
SMALL = {
    "batch_size": 32, "num_particles": 16, "num_actions": 32, "hidden_sizes": (32, 32),
    "alpha": ALPHA, "learning_rate": 3e-3,
}  # fmt: skip


def drawn(config, state, obs, size=2_000):
    key, many = jax.random.key(3), jnp.broadcast_to(jnp.array(obs, jnp.float32), (size, 2))
    return np.asarray(prl.policy(config, state)(key, many)).ravel()


def test_the_sampler_approximates_the_energy_based_policy():
    """One step of reward -(|a| - 1/2)^2: exp(r / alpha) has two modes and is known."""
    env = Probe(
        lambda sign, time, action: -jnp.square(jnp.abs(action) - 0.5), action_space=CONTINUOUS
    )
    config, state = trained("continuous_soft_q", env, 1_000, **SMALL)
    found = drawn(config, state, [1, 0])
    grid = np.linspace(-1, 1, 2_001)
    density = np.exp(-np.square(np.abs(grid) - 0.5) / ALPHA)
    density /= density.sum()
    assert abs((found > 0).mean() - 0.5) < 0.15
    np.testing.assert_allclose(np.abs(found).mean(), (np.abs(grid) * density).sum(), atol=0.08)
    np.testing.assert_allclose(found.std(), np.sqrt((grid**2 * density).sum()), rtol=0.15)


def test_values_bootstrap_at_time_limits_with_the_entropy():
    """Constant reward 1: Q = (1 + alpha log 2) / (1 - gamma) minus the bonus of the first step."""
    env = Probe(lambda sign, time, action: 1.0, horizon=0, action_space=CONTINUOUS)
    changes = {**SMALL, "tau": 0.2, "env_params": Params(max_steps_in_episode=3)}
    _, _, metrics = learned("continuous_soft_q", env, 600, **changes)
    q = (1 + GAMMA * ALPHA * np.log(2)) / (1 - GAMMA)
    np.testing.assert_allclose(metrics["q"][-50:].mean(), q, rtol=0.07)


def test_multi_goal_is_that_of_its_paper():
    env = envs.bind("multi_goal")
    state = env.reset(jax.random.key(0), 4_096)
    np.testing.assert_allclose(state.obs.std(0), 0.1, rtol=0.1)
    action = jnp.broadcast_to(jnp.array([1.0, 0.5]), (4_096, 2))
    keys = jax.random.split(jax.random.key(1), 4_096)
    _, step, _ = env.step(keys, state, env.to_env(action))
    moved = state.obs + action
    nearest = jnp.square(moved[:, None] - multigoal.GOALS).sum(-1).min(-1)
    np.testing.assert_allclose(step.next_obs, moved, rtol=1e-5)
    np.testing.assert_allclose(step.reward, -30 * 1.25 - nearest, rtol=1e-4)
    assert not step.last.any()


def test_multi_goal_ends_at_a_goal_with_its_bonus():
    env = multigoal.MultiGoal()
    params = env.default_params
    state = multigoal.State(jnp.array([3.6, 0.0]), jnp.int32(0))
    obs, _, reward, reached, _ = env.step_env(
        jax.random.key(0), state, jnp.array([0.5, 0.0]), params
    )
    np.testing.assert_allclose(obs, [4.1, 0])
    np.testing.assert_allclose(reward, -30 * 0.25 - 0.9**2 + 10, rtol=1e-5)
    assert reached
    state = multigoal.State(jnp.array([6.8, 6.9]), jnp.int32(0))
    obs, *_ = env.step_env(jax.random.key(0), state, jnp.ones(2), params)
    np.testing.assert_array_equal(obs, 7)
    places = jnp.array([[5.0, 0.5], [-5, 0], [0, 4.1], [0, -5.9], [0, 0]])
    np.testing.assert_array_equal(multigoal.goal_reached(places), [0, 1, 2, 3, -1])


def test_continuous_soft_q_needs_continuous_actions():
    with pytest.raises(ConfigError, match="use soft_dqn"):
        prl.make_train(prl.default_config("continuous_soft_q").replace(env="CartPole-v1"))
