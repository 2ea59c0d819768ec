"""SAC and its variants against closed forms: a bandit's optimum, gradients, targets, sweeps.

The bandit has one step, Q(a) = -(a - mu)^2. Without the squash its soft optimal policy is
N(mu, alpha / 2), of value alpha / 2 log(pi alpha); with it, exp(Q / alpha) / Z on (-1, 1).
"""

from functools import cache, partial
from typing import NamedTuple

import chex
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import purejaxrl_sac as prl
from purejaxrl_sac import envs, networks
from purejaxrl_sac.agents import discrete_sac
from purejaxrl_sac.agents import sac as sac_module
from purejaxrl_sac.agents import sac_v1 as sac_v1_module
from purejaxrl_sac.agents.sac import gaussian_actor, sac
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import small
from tests.probes import CONTINUOUS, Probe, adam_gradient, trained

MU = 0.3
BANDIT = Probe(lambda sign, time, action: -((action - MU) ** 2), action_space=CONTINUOUS)


class Given(NamedTuple):
    """Exact twin critics: Q_i(s, a) = -(a - mu)^2 + i, of which the first is the minimum."""

    def init(self, key, obs, action):
        return {"unused": jnp.zeros(1)}

    def apply(self, params, obs, action, rngs=None):
        return -jnp.square(action - MU).sum(-1) + jnp.arange(2.0)[:, None]


def given(config, space):
    return Given()


def gaussian(mean, log_std):
    """The policy's Gaussian without the squash."""
    return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))


def bandit_batch(size):
    """A batch of the bandit's one state; every transition terminates."""
    obs = jnp.zeros((size, 2))
    zeros = jnp.zeros(size)
    return Sample(Transition(obs, zeros[:, None], zeros, zeros, obs, zeros == 0), jnp.float32(1))


def of_bandit(algorithm, **changes):
    """A configuration whose networks reduce to their biases: observations are zero."""
    return prl.default_config(algorithm).replace(
        env=BANDIT, hidden_sizes=(), learning_rate=2e-3, alpha=0.2, **changes
    )


def actor_outputs(config, params):
    """Mean and standard deviation of the policy in the bandit's state."""
    space = envs.bind(config.env).observation_space
    mean, log_std = gaussian_actor(config, space, 1).apply(params, jnp.zeros((1, 2)))
    return mean.squeeze(), jnp.exp(log_std).squeeze()


def improved(config, make, updates, size=256):
    """The last state, and averages of metrics, mean and std over the last quarter of updates."""
    agent, _ = make(config, envs.bind(config.env))
    sample = bandit_batch(size)

    def learn(state, xs):
        key, count = xs
        state, _, metrics = agent.update(key, state, sample, count)
        mean, std = actor_outputs(config, state.actor.params)
        return state, {**metrics, "mean": mean, "std": std}

    keys = jax.random.split(jax.random.key(0), updates)
    start = agent.init(jax.random.key(1), sample.transition.obs)
    state, history = jax.lax.scan(learn, start, (keys, jnp.arange(updates)))
    return state, jax.tree.map(lambda x: x[-updates // 4 :].mean(), history)


# (1) the bandit without the squash


def test_a_fixed_temperature_reaches_the_gaussian_optimum(monkeypatch):
    monkeypatch.setattr(sac_module, "squashed_gaussian", gaussian)
    alpha = jnp.array([0.05, 0.5, 2.0])

    def learn(alpha):
        config = of_bandit("sac", alpha_learning_rate=0.0).replace(alpha=alpha)
        return improved(config, partial(sac, critics=given), 6_000)[1]

    found = jax.jit(jax.vmap(learn))(alpha)
    np.testing.assert_allclose(found["mean"], MU, atol=0.02)
    np.testing.assert_allclose(found["std"] ** 2, alpha / 2, rtol=0.02)
    value = alpha / 2 * jnp.log(jnp.pi * alpha)
    np.testing.assert_allclose(-found["actor_loss"], value, rtol=0.02, atol=0.003)
    np.testing.assert_allclose(found["entropy"], 0.5 * jnp.log(jnp.pi * jnp.e * alpha), atol=0.02)


def test_the_learned_temperature_gives_the_target_entropy(monkeypatch):
    monkeypatch.setattr(sac_module, "squashed_gaussian", gaussian)
    target = jnp.array([-0.5, 0.0, 0.7])

    def learn(target):
        config = of_bandit("sac", alpha_learning_rate=2e-3).replace(target_entropy_per_dim=target)
        return improved(config, partial(sac, critics=given), 10_000)[1]

    found = jax.jit(jax.vmap(learn))(target)
    np.testing.assert_allclose(found["entropy"], target, atol=0.005)
    alpha = jnp.exp(2 * target) / (jnp.pi * jnp.e)
    np.testing.assert_allclose(found["alpha"], alpha, rtol=0.01)
    np.testing.assert_allclose(found["std"] ** 2, alpha / 2, rtol=0.01)


def test_the_value_network_of_sac_v1_learns_the_soft_value(monkeypatch):
    monkeypatch.setattr(sac_v1_module, "squashed_gaussian", gaussian)
    config = of_bandit("sac_v1").replace(alpha=0.5)
    make = partial(sac_v1_module.sac_v1, critics=given)
    run = jax.jit(lambda: improved(config, make, 4_000))
    state, found = run()
    np.testing.assert_allclose(found["std"] ** 2, 0.25, rtol=0.02)
    space = envs.bind(config.env).observation_space
    network = networks.Head(networks.torso(space, (), "relu"), 1)
    value = network.apply(state.value.params, jnp.zeros((1, 2))).squeeze()
    np.testing.assert_allclose(value, 0.25 * np.log(np.pi * 0.5), atol=0.005)


# (2) gradients


ALPHA, SIZE = 0.3, 1 << 17


@cache
def one_update():
    """(mean, log std) -> the actor's gradient of one update in them, and eps of its samples."""
    config = of_bandit("sac").replace(alpha=ALPHA)
    agent, _ = sac(config, envs.bind(config.env), critics=given)
    sample, key = bandit_batch(SIZE), jax.random.key(2)
    _, key_actor, *_ = jax.random.split(key, 6)

    def gradient(outputs):
        state = agent.init(jax.random.key(1), sample.transition.obs)
        params = jax.tree.map(lambda x: outputs if x.ndim == 1 else x, state.actor.params)
        after, *_ = agent.update(
            key, state._replace(actor=state.actor._replace(params=params)), sample, 0
        )
        mean, log_std = jnp.tile(outputs, (SIZE, 1)).T[:, :, None]
        u = squashed_gaussian(mean, log_std).distribution.sample(seed=key_actor)
        return adam_gradient(after.actor.opt_state)[:2], (u - mean) / jnp.exp(log_std)

    return jax.jit(gradient)


def test_the_actor_s_gradient_is_equation_4_24():
    """a = tanh(u), u = m + s eps; log pi = -eps^2 / 2 - log s - log(1 - a^2) - const.

    d log pi / du (at fixed eps) is 2 a, dQ / du is -2 (a - mu)(1 - a^2), du / d(m, log s) is
    (1, s eps), and d log pi / d log s has the additional term -1.
    """
    mean, log_std = -0.4, -0.2
    found, eps = one_update()(jnp.array([mean, log_std]))
    eps = np.asarray(eps, np.float64)[:, 0]
    a = np.tanh(mean + np.exp(log_std) * eps)
    slope = ALPHA * 2 * a + 2 * (a - MU) * (1 - a**2)
    expected = [slope.mean(), (-ALPHA + slope * np.exp(log_std) * eps).mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def objective(mean, log_std):
    """J_pi (4.21) of a squashed Gaussian on the bandit, by Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    a = np.tanh(mean + np.exp(log_std) * x)
    log_pi = -0.5 * x**2 - 0.5 * np.log(2 * np.pi) - log_std - np.log1p(-(a**2))
    return (w / np.sqrt(2 * np.pi)) @ (ALPHA * log_pi + (a - MU) ** 2)


@pytest.mark.parametrize("mean", (-0.4, 0.8))
def test_the_actor_s_gradient_estimates_that_of_the_expectation(mean):
    log_std, h = -0.5, 1e-4
    found, _ = one_update()(jnp.array([mean, log_std]))
    slopes = [
        objective(mean + h, log_std) - objective(mean - h, log_std),
        objective(mean, log_std + h) - objective(mean, log_std - h),
    ]
    np.testing.assert_allclose(found, np.divide(slopes, 2 * h), atol=0.006)


def test_gradients_of_discrete_sac_by_hand():
    """With z the logits and f_a = alpha log pi_a - Q_a, d J_pi / d z_a = pi_a (f_a - E_pi f)."""
    alpha, share = 0.3, 0.6
    env = Probe(lambda *_: 0.0)
    config = prl.default_config("discrete_sac").replace(
        env=env, hidden_sizes=(), alpha=alpha, target_entropy_ratio=share,
        target_entropy_ratio_end=share, tau=0.0,
    )  # fmt: skip
    _, agent, _ = prl.build(config)
    obs, zeros = jnp.zeros((5, 2)), jnp.zeros(5)
    action, reward = jnp.array([0, 1, 1, 0, 1]), jnp.arange(5.0)
    batch = Transition(obs, action, reward, jnp.array([0.0, 1, 1, 1, 0]), obs, zeros == 1)
    state = jax.jit(agent.init)(jax.random.key(0), obs)

    def biases(params, value):
        return jax.tree.map(lambda x: value if x.shape == value.shape else x, params)

    logits, q, target_q = np.array([0.3, -0.5]), np.array([[1.0, 2], [1.5, 0]]), np.eye(2)
    state = state._replace(
        actor=state.actor._replace(params=biases(state.actor.params, jnp.float32(logits))),
        critic=state.critic._replace(params=biases(state.critic.params, jnp.float32(q))),
        target_params=biases(state.target_params, jnp.asarray(target_q, jnp.float32)),
    )
    weight = np.array([0.5, 1, 2, 1, 3])
    sample = Sample(batch, jnp.float32(weight))
    after, *_ = jax.jit(agent.update)(jax.random.key(1), state, sample, 0)

    pi = np.exp(logits) / np.exp(logits).sum()
    value = pi @ (target_q.min(0) - alpha * np.log(pi))
    y = np.asarray(reward) + config.gamma * np.asarray(batch.discount) * value
    errors = [[(weight * (q[i, a] - y))[action == a].sum() / 5 for a in (0, 1)] for i in (0, 1)]
    moved = np.ravel(errors)
    found = adam_gradient(after.critic.opt_state)
    np.testing.assert_allclose(found[np.abs(found) > 0], moved, rtol=1e-4)

    least = np.min([jax.tree.leaves(after.critic.params)[0][i] for i in (0, 1)], axis=0)
    f = alpha * np.log(pi) - least
    found = adam_gradient(after.actor.opt_state)
    np.testing.assert_allclose(found[np.abs(found) > 0], pi * (f - pi @ f), rtol=1e-4)

    surplus = -pi @ np.log(pi) - share * np.log(2)  # d / d log alpha of alpha (H(pi) - H)
    moment = next(x for x in jax.tree.leaves(after.log_alpha.opt_state) if x.dtype == jnp.float32)
    np.testing.assert_allclose(moment / 0.1, alpha * surplus, rtol=1e-4)


def test_the_target_entropy_of_discrete_sac_changes_linearly_over_the_run():
    """20 rows of 4 environments, 4 of them warm-up; two updates after every second row."""
    config = prl.default_config("discrete_sac").replace(
        num_envs=4, rollout_length=2, num_updates=2, warmup_steps=16, total_steps=80,
        target_entropy_ratio=0.9, target_entropy_ratio_end=0.1,
    )  # fmt: skip
    count = jnp.array([0, 1, 2, 7, 15])
    rows = np.array([6, 6, 8, 12, 20])
    np.testing.assert_array_equal(config.step_at(count), rows)
    found = discrete_sac.target_entropy(config, 3, count)
    np.testing.assert_allclose(found, (0.9 - 0.8 * rows / 20) * np.log(3), rtol=1e-6)


# (3) targets

TRACKED = {
    "sac": [("critic", "target_params")],
    "sac_v1": [("value", "target_params")],
    "discrete_sac": [("critic", "target_params")],
    "td3": [("critic", "target_critic_params"), ("actor", "target_actor_params")],
}


@pytest.mark.parametrize("algorithm", TRACKED)
def test_target_parameters_have_their_closed_form(algorithm):
    """theta- = (1 - tau)^k theta-_0 + tau sum_i (1 - tau)^(k - i) theta_i after k updates."""
    updates, config = 12, small(algorithm, learning_rate=1e-2, hidden_sizes=())
    obs = jax.random.normal(jax.random.key(0), (8, *envs.bind(config.env).observation_space.shape))
    discrete = envs.bind(config.env).num_actions
    action = jnp.arange(8) % 2 if discrete else jnp.linspace(-1, 1, 8)[:, None]
    batch = Transition(obs, action, jnp.arange(8.0), jnp.ones(8), -obs, jnp.zeros(8, bool))

    def learn(tau, period):
        changed = config.replace(tau=tau)
        if algorithm != "td3":
            changed = changed.replace(target_period=period)
        _, agent, _ = prl.build(changed)
        start = agent.init(jax.random.key(1), obs)
        targets = {ours: jax.tree.map(lambda x: x + 1, getattr(start, ours)) for _, ours in pairs}
        start = start._replace(**targets)  # differ from online parameters

        def step(state, xs):
            state, *_ = agent.update(xs[0], state, Sample(batch, jnp.float32(1)), xs[1])
            return state, [getattr(state, name).params for name, _ in pairs]

        keys = jax.random.split(jax.random.key(2), updates)
        last, history = jax.lax.scan(step, start, (keys, jnp.arange(updates)))
        first = [getattr(start, name) for _, name in pairs]
        return first, [getattr(last, name) for _, name in pairs], history

    pairs = TRACKED[algorithm]
    lanes = [(0.1, 1), (0.3, 1), (0.3, 5), (1.0, 4)]
    if algorithm == "td3":
        lanes = [(0.1, 1), (1.0, 1)]
    tau, period = (jnp.array(x) for x in zip(*lanes, strict=True))
    found = jax.jit(jax.vmap(learn))(tau, period)
    for lane, (tau, period) in enumerate(lanes):
        moves = [i for i in range(updates) if (i + 1) % period == 0]
        if algorithm == "td3":  # updated with the actor
            moves = list(range(config.policy_delay - 1, updates, config.policy_delay))
        k = len(moves)
        weights = [tau * (1 - tau) ** (k - i) for i in range(1, k + 1)]

        def closed_form(start, history):
            sums = sum(w * history[i] for w, i in zip(weights, moves, strict=True))  # noqa: B023
            return (1 - tau) ** k * start + sums  # noqa: B023

        first, last, history = jax.tree.map(lambda x: np.asarray(x[lane], np.float64), found)  # noqa: B023
        chex.assert_trees_all_close(
            last, jax.tree.map(closed_form, first, history), rtol=1e-4, atol=1e-5
        )


# (4) resuming, and sweeps; test_train.py covers sac, simba, td3 and part of discrete_sac

N = 4
LANES = ("sac_v1", "discrete_sac", "redq", "droq", "tqc", "crossq", "simba", "fast_sac")


@pytest.mark.slow  # compilation
@pytest.mark.parametrize("algorithm", LANES)
def test_a_batched_run_resumes_exactly_and_equals_single_runs(algorithm):
    """Two seeds in one batch, with different learning rates."""
    actions = None if algorithm == "discrete_sac" else CONTINUOUS
    env = Probe(lambda sign, time, a: sign * a, 3, (-1.0, 2.0), action_space=actions)
    sizes = {"hidden_sizes": (8,), "critic_hidden_sizes": (8,), "critic_blocks": 1}
    known = prl.default_config(algorithm).__dict__
    config = small(algorithm, env=env, **{k: v for k, v in sizes.items() if k in known})
    config = config.replace(total_steps=config.warmup_steps + 2 * N * config.steps_per_iteration)
    assert config.iterations == 2 * N
    rates = jnp.array([1e-3, 1e-2])
    axes = jax.tree.map(lambda _: None, config).replace(learning_rate=0)
    keys = jax.random.split(jax.random.key(0))
    lanes = config.replace(learning_rate=rates)
    start = jax.jit(jax.vmap(prl.init, (0, axes)))(keys, lanes)

    @partial(jax.jit, static_argnums=1)
    def run(state, iterations):
        return jax.vmap(lambda state, config: prl.run(state, config, iterations), (0, axes))(
            state, lanes
        )

    (middle, first), (once, metrics) = run(start, N), run(start, 2 * N)
    twice, second = run(middle, N)
    chex.assert_trees_all_equal(jax.random.key_data(once.key), jax.random.key_data(twice.key))
    chex.assert_trees_all_equal(once._replace(key=()), twice._replace(key=()))
    both = jax.tree.map(lambda *x: jnp.concatenate(x, 1), first, second)
    chex.assert_trees_all_equal(metrics, both)

    second_start, lane = (jax.tree.map(lambda x: x[1], state) for state in (start, once))
    solo = config.replace(learning_rate=rates[1])
    alone, _ = jax.jit(prl.run, static_argnums=2)(second_start, solo, 2 * N)
    chex.assert_trees_all_close(lane.agent, alone.agent, rtol=1e-3, atol=1e-4)


# (5) the squashed bandit, learned from samples


def boltzmann(alpha, scale):
    """Mean and entropy of exp(Q / alpha) / Z on (-1, 1), Q = -scale (a - mu)^2."""
    x, w = np.polynomial.legendre.leggauss(400)
    q = -scale * (x - MU) ** 2 / alpha
    p = np.exp(q - q.max())
    p /= w @ p
    return w @ (p * x), -(w @ (p * np.log(p)))


def squashed_moments(mean, std):
    """Mean and entropy of tanh(N(mean, std^2))."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / np.sqrt(2 * np.pi)
    a = np.tanh(mean + std * x)
    return w @ a, 0.5 * np.log(2 * np.pi * np.e * std**2) + w @ np.log1p(-(a**2))


def test_sac_learns_the_soft_optimal_policy_of_a_bandit():
    target, scale = -0.5, 4.0
    env = Probe(lambda sign, time, action: -scale * (action - MU) ** 2, action_space=CONTINUOUS)
    config, state = trained(
        "sac", env, 2_000, alpha_learning_rate=1e-2, target_entropy_per_dim=target,
        learning_rate=3e-3, learning_rate_end=0.1,
    )  # fmt: skip
    alpha = brentq(lambda alpha: boltzmann(alpha, scale)[1] - target, 0.05, 20)
    space = envs.bind(env).observation_space
    outputs = gaussian_actor(config, space, 1).apply(
        state.agent.actor.params, jnp.array([[1.0, 0]])
    )
    mean, log_std = (float(x.squeeze()) for x in outputs)
    found_mean, found_entropy = squashed_moments(mean, np.exp(log_std))
    np.testing.assert_allclose(found_entropy, target, atol=0.05)
    np.testing.assert_allclose(found_mean, boltzmann(alpha, scale)[0], atol=0.05)
    np.testing.assert_allclose(jnp.exp(state.agent.log_alpha.params), alpha, rtol=0.1)
