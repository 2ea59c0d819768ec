"""Losses against hand-computed values, rlax, and closed forms."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from scipy import special, stats

from purejaxrl_sac import losses, optimize
from purejaxrl_sac.agents import default_config, dqn
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.exploration import annealed_epsilon, linear_schedule
from purejaxrl_sac.kernels import quantile_regression
from purejaxrl_sac.optimize import adam, apply_gradients, delayed_update, is_due, update_target
from purejaxrl_sac.types import NextQ

Q_ONLINE = jnp.array([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
Q_TARGET = jnp.array([[7.0, 4.0, 9.0], [1.0, 8.0, 2.0]])


@pytest.fixture(params=("eager", "jit"))
def transform(request):
    return jax.jit if request.param == "jit" else (lambda f: f)


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def value(bootstrap, q, target, pi=None, **fields):
    """V(s') of a bootstrap."""
    next_q = NextQ(q, target, q if pi is None else pi)
    pi, bonus = bootstrap(SimpleNamespace(**fields), next_q)
    return losses.expected_value(target + bonus, pi)


def test_bootstraps_by_hand(transform):
    pi = jnp.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]])

    def all_of_them(q, target, pi):
        return [
            value(bootstrap, q, target, pi, alpha=2.0)
            for bootstrap in (dqn.maximum, dqn.double, dqn.expected, dqn.soft)
        ]

    log_sum_exp = [2 * np.log(np.exp(row).sum()) for row in ([3.5, 2, 4.5], [0.5, 4, 1])]
    expected = [[9, 8], [4, 2], [5.5, 3.25], log_sum_exp]
    values = transform(all_of_them)(Q_ONLINE, Q_TARGET, pi)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_tied_greedy_actions_are_averaged():
    q, target = jnp.array([[2.0, 2.0, 1.0]]), jnp.array([[10.0, 20.0, 90.0]])
    np.testing.assert_allclose(value(dqn.double, q, target), [15])
    np.testing.assert_allclose(value(dqn.maximum, target, q), [2])


@pytest.mark.parametrize("alpha", (1e-3, 0.1, 1.0, 50.0))
def test_the_soft_bootstrap_is_log_sum_exp(alpha):
    q, target = random((32, 5)), 3 * random((32, 5), 1)
    ours = value(dqn.soft, q, target, alpha=alpha)
    np.testing.assert_allclose(ours, losses.log_sum_exp(target, alpha), rtol=1e-5, atol=1e-5)
    float64 = alpha * special.logsumexp(np.asarray(target, np.float64) / alpha, axis=-1)
    np.testing.assert_allclose(ours, float64, rtol=1e-5, atol=1e-5)
    assert (ours >= target.max(-1) - 1e-5).all()
    assert (ours <= target.max(-1) + alpha * np.log(5) + 1e-4).all()


def test_td_target_by_hand(transform):
    y = transform(losses.td_target)(
        jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), 0.5, jnp.array([10.0, 10.0])
    )
    np.testing.assert_allclose(y, [6, 2])


@pytest.mark.parametrize("bootstrap", (dqn.maximum, dqn.double, dqn.expected))
def test_td_errors_agree_with_rlax(bootstrap):
    q, q_online, q_target = random((32, 4)), random((32, 4), 1), random((32, 4), 2)
    action = jax.random.randint(jax.random.key(3), (32,), 0, 4)
    reward, discount = random((32,), 4), jnp.arange(32) % 3 / 2.0
    pi = jax.nn.softmax(random((32, 4), 5))
    theirs, more = {
        dqn.maximum: (rlax.q_learning, ()),
        dqn.double: (rlax.double_q_learning, (q_online,)),
        dqn.expected: (rlax.expected_sarsa, (pi,)),
    }[bootstrap]
    theirs = jax.jit(jax.vmap(theirs))(q, action, reward, 0.9 * discount, q_target, *more)
    target = losses.td_target(reward, discount, 0.9, value(bootstrap, q_online, q_target, pi))
    ours = target - losses.select_action(q, action)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_least_value_of_an_ensemble_has_the_gradient_of_its_first_least_member(transform):
    q = jnp.array([[1.0, 5.0, -2.0, 0.0], [3.0, 2.0, -2.0, -1.0], [2.0, 4.0, 7.0, -1.0]])
    least, pullback = jax.vjp(transform(losses.least_value), q)
    np.testing.assert_array_equal(least, q.min(0))
    (gradient,) = pullback(jnp.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(gradient, [[1, 0, 3, 0], [0, 2, 0, 4], [0, 0, 0, 0]])


@pytest.mark.parametrize("delta", (0.1, 1.0, 5.0))
def test_huber_agrees_with_rlax(delta):
    x = jnp.linspace(-4, 4, 41)
    np.testing.assert_allclose(losses.huber(x, delta), rlax.huber_loss(x, delta), rtol=1e-5)
    gradient = jax.vmap(jax.grad(lambda x: losses.huber(x, delta)))(x)
    np.testing.assert_allclose(gradient, jnp.clip(x, -delta, delta), atol=1e-5)


def test_huber_with_an_infinite_delta_is_the_squared_loss():
    x = jnp.array([-300.0, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(losses.huber(x, jnp.inf), 0.5 * x**2)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: losses.huber(x, jnp.inf)))(x), x)


def test_munchausen_by_hand(transform):
    q = jnp.array([[np.log(3.0), 0.0], [0.0, 2 * np.log(3.0)], [0.0, 9.0]], jnp.float32)
    action = jnp.array([0, 0, 0])
    # alpha log pi: log 3/4, log 1/10, and about -9, which is clipped
    expected = [np.log(0.75), np.log(0.1), -4]
    ours = transform(losses.munchausen)(q, action, 1.0, -4.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_allclose(transform(losses.munchausen)(q, action, 1.0, -0.2), [-0.2] * 3)


def test_munchausen_scales_with_the_temperature():
    q, action = random((16, 4)), jnp.arange(16) % 4
    one = losses.munchausen(q, action, 1.0, -jnp.inf)
    np.testing.assert_allclose(losses.munchausen(7 * q, action, 7.0, -jnp.inf), 7 * one, rtol=1e-5)


@pytest.mark.parametrize("alpha", (1e-30, 1e-3, 0.03))
def test_munchausen_is_finite_where_probabilities_underflow(alpha):
    q = jnp.array([[0.0, 1e4], [-jnp.inf, 1.0], [5.0, 5.0]])
    for least in (-1.0, -1e6):
        bonus = losses.munchausen(q, jnp.array([0, 0, 1]), alpha, least)
        expected = [max(least, -1e4), least, -alpha * np.log(2)]
        np.testing.assert_allclose(bonus, expected, rtol=1e-5)


def test_munchausen_reward_by_hand():
    config = SimpleNamespace(alpha=1.0, munchausen=0.9, munchausen_min=-1.0)
    batch = SimpleNamespace(reward=jnp.array([2.0, 2.0]), action=jnp.array([0, 1]))
    q = jnp.array([[np.log(3.0), 0.0], [9.0, 0.0]], jnp.float32)
    expected = [2 + 0.9 * np.log(0.75), 2 - 0.9]
    np.testing.assert_allclose(dqn.munchausen_reward(config, batch, q), expected, rtol=1e-5)
    np.testing.assert_array_equal(dqn.plain_reward(config, batch, q), [2, 2])


def test_categorical_projection_by_hand(transform):
    atoms = jnp.array([0.0, 1.0, 2.0])
    rows = [  # values, probabilities, projection
        ([0.25, 1.0, 1.5], [0.4, 0.2, 0.4], [0.3, 0.1 + 0.2 + 0.2, 0.2]),
        ([-5.0, 2.0, 9.0], [0.5, 0.25, 0.25], [0.5, 0, 0.5]),
        ([0.0, 0.0, 1.0], [0.25, 0.25, 0.5], [0.5, 0.5, 0]),
    ]
    value, probability, expected = (jnp.array(column) for column in zip(*rows, strict=True))
    ours = transform(losses.categorical_projection)(value, probability, atoms)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


SUPPORTS = ((-1.0, 1.0, 2), (0.0, 200.0, 51), (-10.0, 10.0, 51), (-100.0, 100.0, 601))


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("count", (1, 8, 51))
def test_categorical_projection_agrees_with_rlax(support, count):
    atoms = np.linspace(*support, dtype=np.float32)
    probability = special.softmax(random((16, count)), -1)
    value = atoms[0] + (atoms[-1] - atoms[0]) * (0.5 + 0.7 * random((16, count), 1))
    theirs = jax.vmap(rlax.categorical_l2_project, (0, 0, None))
    ours, theirs = (
        jax.jit(f)(value, probability, atoms) for f in (losses.categorical_projection, theirs)
    )
    assert ours.shape == (16, support[2])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("support", SUPPORTS)
def test_the_projection_preserves_mass_and_mean_in_its_support(support):
    project = jax.jit(losses.categorical_projection)
    atoms = np.linspace(*support, dtype=np.float32)
    low, high = support[:2]
    probability = special.softmax(random((16, 20)), -1)
    value = np.float32(np.random.default_rng(1).uniform(low, high, (16, 20)))
    ours = np.asarray(project(value, probability, atoms))
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-5)
    mean = (probability * value).sum(-1)
    np.testing.assert_allclose(ours @ atoms, mean, atol=1e-5 * (high - low))
    beyond = np.asarray(project(3 * value - low - high, probability, atoms))
    np.testing.assert_allclose(beyond.sum(-1), 1, rtol=1e-5)
    clipped = (probability * np.clip(3 * value - low - high, low, high)).sum(-1)
    np.testing.assert_allclose(beyond @ atoms, clipped, atol=1e-5 * (high - low))


@pytest.mark.parametrize("support", SUPPORTS)
def test_the_projection_of_atoms_is_the_identity(support):
    atoms = np.linspace(*support, dtype=np.float32)
    identity = np.eye(len(atoms), dtype=np.float32)
    value = np.broadcast_to(atoms, identity.shape)
    ours = jax.jit(losses.categorical_projection)(value, identity, atoms)
    np.testing.assert_allclose(ours, identity, atol=1e-4)


def test_cross_entropy_and_entropy_by_hand(transform):
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 3
    target = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    expected = [np.log(4), -0.5 * (np.log(0.1) + np.log(0.8))]
    np.testing.assert_allclose(transform(losses.cross_entropy)(logits, target), expected, rtol=1e-5)
    np.testing.assert_allclose(transform(losses.entropy)(target), [0, np.log(2)], atol=1e-6)


def test_cross_entropy_and_entropy_agree_with_scipy_and_rlax():
    logits, target = 3 * random((16, 5)), jax.nn.softmax(random((16, 5), 1))
    prediction = special.softmax(np.asarray(logits, np.float64), axis=-1)
    ours = losses.cross_entropy(logits, target) - losses.entropy(target)
    np.testing.assert_allclose(ours, stats.entropy(target, prediction, axis=-1), rtol=1e-4)
    theirs = jax.vmap(rlax.categorical_cross_entropy)(target, logits)
    np.testing.assert_allclose(losses.cross_entropy(logits, target), theirs, rtol=1e-5)


def test_quantile_huber_by_hand(transform):
    quantiles, fraction = jnp.array([[0.0, 2.0]]), jnp.array([0.25, 0.75])
    target = jnp.array([[1.0, -1.0, 4.0]])
    # u_0 = 1, -1, 4 and u_1 = -1, -3, 2; huber with kappa 2 gives 1/2, 1/2, 6 and 1/2, 4, 2
    first = (0.25 * 0.5 + 0.75 * 0.5 + 0.25 * 6) / 2
    second = (0.25 * 0.5 + 0.25 * 4 + 0.75 * 2) / 2
    ours = transform(losses.quantile_huber)(quantiles, fraction, target, 2.0)
    np.testing.assert_allclose(ours, [(first + second) / 3], rtol=1e-6)


quantile_huber = jax.jit(losses.quantile_huber)
OF_RLAX = {  # by the axis of fractions
    axis: jax.jit(jax.vmap(rlax.quantile_regression_loss, (0, axis, 0, None)), static_argnums=3)
    for axis in (None, 0)
}


@pytest.mark.parametrize("kappa", (0.3, 1.0, 4.0))
@pytest.mark.parametrize("shapes", ((8, 8), (5, 16), (1, 3)))
def test_quantile_huber_agrees_with_rlax(kappa, shapes):
    """rlax does not divide the loss by kappa."""
    quantiles, target = random((16, shapes[0])), 2 * random((16, shapes[1]), 1)
    shared = np.linspace(0.05, 0.95, shapes[0], dtype=np.float32)
    own = np.random.default_rng(2).random((16, shapes[0]), np.float32)
    for fraction, axis in ((shared, None), (own, 0)):
        theirs = np.asarray(OF_RLAX[axis](quantiles, fraction, target, kappa))
        ours = quantile_huber(quantiles, fraction, target, kappa)
        np.testing.assert_allclose(ours, theirs / kappa, rtol=1e-5)


@pytest.mark.parametrize("method", ("_sequential", "_parallel"))
def test_quantile_huber_gradient_is_exact_without_storing_pairs(method, monkeypatch):
    """By the method for CPUs and by that for accelerators."""
    monkeypatch.setattr(quantile_regression, "_sequential", getattr(quantile_regression, method))
    quantiles, target = random((64, 30)), 2 * random((64, 50), 1)
    fraction = jnp.linspace(0.05, 0.95, 30)

    @jax.jit
    def plain(theta):
        u = target[:, None, :] - theta[:, :, None]
        weight = jnp.abs(fraction[:, None] - (u < 0))
        return (weight * losses.huber(u, 0.7) / 0.7).mean(-1).sum()

    def ours(theta):
        return losses.quantile_huber(theta, fraction, target, 0.7).sum()

    for transform in (lambda f: f, jax.jit):
        value, gradient = transform(jax.value_and_grad(ours))(quantiles)
        np.testing.assert_allclose(value, plain(quantiles), rtol=1e-5)
        np.testing.assert_allclose(gradient, jax.grad(plain)(quantiles), rtol=1e-4, atol=1e-6)
    compiled = jax.jit(jax.value_and_grad(ours)).lower(quantiles).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 30 * 50 * 4


def test_quantile_huber_of_small_kappa_is_quantile_regression():
    quantiles, target = random((16, 4)), random((16, 7), 1)
    fraction = jnp.array([0.1, 0.4, 0.6, 0.9])
    theirs = jax.vmap(rlax.quantile_regression_loss, (0, None, 0))(quantiles, fraction, target)
    ours = losses.quantile_huber(quantiles, fraction, target, 1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_the_minimiser_of_quantile_huber_is_the_quantile():
    """Its gradient in theta is the empirical distribution function at theta minus tau."""
    target = np.sort(np.asarray(random((1, 99))))
    fraction = jnp.array([0.105, 0.505, 0.905])

    def loss(theta):
        return losses.quantile_huber(theta, fraction, target, 1e-6).sum()

    between = (target[:, [9, 49, 89]] + target[:, [10, 50, 90]]) / 2
    shares = np.array([10, 50, 90]) / 99
    np.testing.assert_allclose(jax.grad(loss)(between)[0], shares - fraction, atol=1e-4)
    below, above = target[:, [9, 49, 89]] - 0.01, target[:, [10, 50, 90]] + 0.01
    assert (jax.grad(loss)(below) < 0).all() and (jax.grad(loss)(above) > 0).all()
    np.testing.assert_allclose(loss(target[:, [10, 49, 89]]), loss(between), rtol=0.02)


def test_no_gradient_flows_through_targets():
    probability = jax.nn.softmax(random((4, 5)))
    gradients = (
        jax.grad(lambda y: losses.quantile_huber(random((4, 3)), jnp.ones(3) / 2, y, 1.0).sum()),
        jax.grad(lambda y: losses.td_target(y, y, 0.9, y).sum()),
        jax.grad(
            lambda y: (losses.categorical_projection(y, probability, jnp.arange(3.0))[:, 1]).sum()
        ),
    )
    for gradient in gradients:
        shape = (4, 5)
        np.testing.assert_array_equal(gradient(random(shape, 1)), jnp.zeros(shape))


def test_soft_losses_by_hand(transform):
    q = jnp.array([[1.0, 5.0], [2.0, 3.0]])
    log_prob = jnp.array([-1.0, 2.0])
    np.testing.assert_allclose(transform(losses.soft_value)(q, log_prob, 0.5), [1.5, 2.0])
    np.testing.assert_allclose(transform(losses.soft_actor)(q, log_prob, 0.5), [-1.5, -2.0])
    target = jnp.array([0.0, 4.0])
    np.testing.assert_allclose(transform(losses.soft_critic)(q, target), [2.5, 1.0])
    np.testing.assert_allclose(
        transform(losses.temperature)(jnp.float32(0.2), log_prob, -3.0), [0.8, 0.2]
    )


def test_the_temperature_rises_while_entropy_is_below_target():
    gradient = jax.grad(lambda a, h: losses.temperature(a, jnp.array([-h]), 1.0).mean())
    assert gradient(0.5, 0.3) < 0 < gradient(0.5, 2.0)


def test_ranks_are_checked():
    with pytest.raises(AssertionError):
        losses.expected_value(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(AssertionError):
        losses.td_target(jnp.zeros(2), jnp.zeros((2, 1)), 0.9, jnp.zeros(2))


@pytest.mark.parametrize("mean", (0.0, 0.5, -3.0, 8.0, 20.0, -50.0, 50.0))
@pytest.mark.parametrize("log_std", (-5.0, 0.0, 1.5))
def test_squashed_gaussian_log_prob_agrees_with_float64(mean, log_std):
    distribution = squashed_gaussian(jnp.full((64, 1), mean), jnp.full((64, 1), log_std))
    key = jax.random.key(1)
    action, log_prob = distribution.sample_and_log_prob(seed=key)
    gaussian = distribution.distribution.sample(seed=key)[:, 0]
    np.testing.assert_allclose(action[:, 0], jnp.tanh(gaussian), atol=1e-6)
    u = np.asarray(gaussian, np.float64)
    std = np.exp(np.float64(np.float32(log_std)))
    # log(1 - tanh(u)^2) = 2 (log 2 - u - log(1 + exp(-2u))), exact at any u
    jacobian = 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    expected = stats.norm.logpdf(u, mean, std) - jacobian
    tolerance = 1e-4 + 1e-5 * abs(mean) / std * 10  # float32 (u - mean) / std
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=tolerance)


def test_squashed_gaussian_integrates_to_one():
    mean, log_std = 0.3, -0.4
    action = np.linspace(-1, 1, 200_001)[1:-1]
    distribution = squashed_gaussian(jnp.full((1, 1), mean), jnp.full((1, 1), log_std))
    density = np.exp(np.asarray(distribution.log_prob(jnp.asarray(action)[:, None]), np.float64))
    np.testing.assert_allclose(np.trapezoid(density, action), 1, atol=1e-3)


def test_gradients_are_finite_at_saturation():
    def loss(mean, log_std):
        action, log_prob = squashed_gaussian(mean, log_std).sample_and_log_prob(
            seed=jax.random.key(0)
        )
        return (action + log_prob[:, None]).sum()

    for mean in (-50.0, -10.0, 0.0, 10.0, 50.0):
        grads = jax.jit(jax.grad(loss, (0, 1)))(jnp.full((8, 2), mean), jnp.zeros((8, 2)))
        chex.assert_tree_all_finite(grads)
        assert jnp.abs(grads[1]).sum() > 0


def test_linear_schedule():
    at = jnp.array([0.0, 0.25, 1.0, 9.0])
    np.testing.assert_allclose(linear_schedule(1.0, 0.2, at), [1, 0.8, 0.2, 0.2], rtol=1e-6)


def test_epsilon_decays_over_the_steps_of_each_environment():
    config = default_config("dqn").replace(total_steps=1_000, num_envs=4, epsilon_fraction=0.4)
    at = jnp.array([0, 50, 100, 250])  # a quarter of the 400 steps is 100
    found = annealed_epsilon(config.replace(epsilon_start=1.0, epsilon_end=0.2), at)
    np.testing.assert_allclose(found, [1, 0.6, 0.2, 0.2], rtol=1e-6)


def test_soft_target_updates_have_their_closed_form():
    params, target = {"w": jnp.array([4.0])}, {"w": jnp.array([0.0])}
    tau, k = 0.1, 20
    for count in range(k):
        target = update_target(params, target, tau, 1, count)
    np.testing.assert_allclose(target["w"], 4 * (1 - (1 - tau) ** k), rtol=1e-5)


def test_targets_are_copied_every_period():
    target = {"w": jnp.array([0.0])}
    seen = []
    for count in range(6):
        target = update_target({"w": jnp.array([count + 1.0])}, target, 1.0, 3, jnp.int32(count))
        seen.append(float(target["w"][0]))
    assert seen == [0, 0, 3, 3, 3, 6]


def test_targets_keep_the_type_of_their_parameters():
    """Also where tau is an array, as in a sweep."""
    params, target = jnp.ones(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)
    update = jax.vmap(lambda tau: update_target(params, target, tau, 1, jnp.int32(0)))
    found = update(jnp.array([0.25, 1.0]))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[:, 0], [0.25, 1])


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full((2, 2), 40.0)}
    # the first moment after one step is (1 - b1) x the clipped gradient
    for limit in (0.5, 1e6):
        optimizer = adam(1e-3, limit)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        moment = optax.tree_utils.tree_get(state, "mu")
        expected = min(limit, float(norm))
        np.testing.assert_allclose(optax.tree.norm(moment) / 0.1, expected, rtol=1e-4)


def test_no_norm_is_computed_without_clipping():
    params = {"a": random((3,)), "b": random((2, 2), 1)}

    def primitives(limit):
        optimizer = adam(1e-2, limit)
        state = optimizer.init(params)
        jaxpr = jax.make_jaxpr(optimizer.update)(params, state, params)
        return {str(equation.primitive) for equation in jaxpr.eqns}

    assert "reduce_sum" in primitives(1.0)
    assert "reduce_sum" not in primitives(None)
    assert "reduce_sum" not in primitives(float("inf"))


def test_updates_that_are_not_due_change_nothing():
    params, grads = {"w": random((3,))}, {"w": random((3,), 1)}
    optimizer = optax.adam(0.1)
    learned, seen = optimize.start(optimizer, params), []

    def compute():
        return grads, {"loss": jnp.float32(2)}

    for count in range(5):
        due = is_due(2, jnp.int32(count))
        found, metrics = delayed_update(2, due, compute)
        learned = apply_gradients(optimizer, learned, found, due=due)
        seen.append(float(metrics["loss"]))
    assert seen == [0, 4, 0, 4, 0]
    assert optax.tree_utils.tree_get(learned.opt_state, "count") == 2
    alone = optimize.start(optimizer, params)
    for _ in range(2):
        alone = apply_gradients(optimizer, alone, grads)
    chex.assert_trees_all_equal(learned, alone)


def test_a_metric_of_a_delayed_update_may_be_a_number_of_python():
    numbers = {"loss": 0.5, "count": 1}
    _, metrics = delayed_update(2, jnp.bool_(True), lambda: (jnp.ones(2), numbers))
    assert metrics == {"loss": 1.0, "count": 2}


def test_a_delayed_update_is_a_cond_of_one_output():
    params = {"w": random((3,)), "b": random((2,))}
    due = is_due(2, jnp.int32(1))
    jaxpr = jax.make_jaxpr(
        lambda due: delayed_update(2, due, lambda: (params, {"loss": jnp.float32(2)}))
    )
    (cond,) = [e for e in jaxpr(due).eqns if str(e.primitive) == "cond"]
    assert len(cond.outvars) == 1
