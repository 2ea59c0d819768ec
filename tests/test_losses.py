"""Equations against hand-computed values, rlax, and closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy import stats

from purejaxrl_sac import losses
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.exploration import linear_schedule
from purejaxrl_sac.optimize import adam, track

Q_ONLINE = jnp.array([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
Q_TARGET = jnp.array([[7.0, 4.0, 9.0], [1.0, 8.0, 2.0]])


@pytest.fixture(params=("eager", "jit"))
def transform(request):
    return jax.jit if request.param == "jit" else (lambda f: f)


def random(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_bootstraps_by_hand(transform):
    np.testing.assert_allclose(transform(losses.max_bootstrap)(Q_ONLINE, Q_TARGET), [9, 8])
    np.testing.assert_allclose(transform(losses.double_bootstrap)(Q_ONLINE, Q_TARGET), [4, 2])


def test_td_target_by_hand(transform):
    y = transform(losses.td_target)(
        jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), 0.5, jnp.array([10.0, 10.0])
    )
    np.testing.assert_allclose(y, [6, 2])


@pytest.mark.parametrize("double", (False, True))
def test_td_errors_agree_with_rlax(double):
    q, q_online, q_target = random((32, 4)), random((32, 4), 1), random((32, 4), 2)
    action = jax.random.randint(jax.random.key(3), (32,), 0, 4)
    reward, discount = random((32,), 4), jnp.arange(32) % 3 / 2.0
    if double:
        theirs = jax.vmap(rlax.double_q_learning)(
            q, action, reward, 0.9 * discount, q_target, q_online
        )
        bootstrap = losses.double_bootstrap
    else:
        theirs = jax.vmap(rlax.q_learning)(q, action, reward, 0.9 * discount, q_target)
        bootstrap = losses.max_bootstrap
    target = losses.td_target(reward, discount, 0.9, bootstrap(q_online, q_target))
    ours = target - losses.select_action(q, action)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("delta", (0.1, 1.0, 5.0))
def test_huber_agrees_with_rlax(delta):
    x = jnp.linspace(-4, 4, 41)
    np.testing.assert_allclose(losses.huber(x, delta), rlax.huber_loss(x, delta), rtol=1e-5)
    gradient = jax.vmap(jax.grad(lambda x: losses.huber(x, delta)))(x)
    np.testing.assert_allclose(gradient, jnp.clip(x, -delta, delta), atol=1e-5)


def test_huber_without_limit_is_the_squared_loss():
    x = jnp.array([-300.0, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(losses.huber(x, jnp.inf), 0.5 * x**2)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: losses.huber(x, jnp.inf)))(x), x)


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


def test_temperature_rises_while_entropy_is_below_its_target():
    gradient = jax.grad(lambda a, h: losses.temperature(a, jnp.array([-h]), 1.0).mean())
    assert gradient(0.5, 0.3) < 0 < gradient(0.5, 2.0)


def test_ranks_are_checked():
    with pytest.raises(AssertionError):
        losses.max_bootstrap(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(AssertionError):
        losses.td_target(jnp.zeros(2), jnp.zeros((2, 1)), 0.9, jnp.zeros(2))


@pytest.mark.parametrize("mean", (0.0, 0.5, -3.0, 8.0, 20.0, -50.0, 50.0))
@pytest.mark.parametrize("log_std", (-5.0, 0.0, 1.5))
def test_squashed_gaussian_log_prob_against_float64(mean, log_std):
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
        grads = jax.grad(loss, (0, 1))(jnp.full((8, 2), mean), jnp.zeros((8, 2)))
        chex.assert_tree_all_finite(grads)
        assert jnp.abs(grads[1]).sum() > 0


def test_linear_schedule():
    at = jnp.array([0.0, 0.25, 1.0, 9.0])
    np.testing.assert_allclose(linear_schedule(1.0, 0.2, at), [1, 0.8, 0.2, 0.2], rtol=1e-6)


def test_targets_follow_the_closed_form():
    params, target = {"w": jnp.array([4.0])}, {"w": jnp.array([0.0])}
    tau, k = 0.1, 20
    for count in range(k):
        target = track(params, target, tau, 1, count)
    np.testing.assert_allclose(target["w"], 4 * (1 - (1 - tau) ** k), rtol=1e-5)


def test_targets_are_copied_every_period():
    target = {"w": jnp.array([0.0])}
    seen = []
    for count in range(6):
        target = track({"w": jnp.array([count + 1.0])}, target, 1.0, 3, jnp.int32(count))
        seen.append(float(target["w"][0]))
    assert seen == [0, 0, 3, 3, 3, 6]


def test_clipping_bounds_the_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full((2, 2), 40.0)}
    # the first moment after one step is (1 - b1) x the clipped gradient
    for limit in (0.5, 1e6):
        optimizer = adam(1e-3, limit)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        moment = next(x for x in jax.tree.leaves(state) if x.shape == (7,))
        expected = min(limit, float(norm))
        np.testing.assert_allclose(jnp.linalg.norm(moment) / 0.1, expected, rtol=1e-4)


def test_flat_adam_is_adam():
    import optax

    params = {"a": random((3,)), "b": random((2, 2), 1)}
    grads = {"a": random((3,), 2), "b": random((2, 2), 3)}
    flat, plain = adam(1e-2, jnp.inf), optax.adam(1e-2)
    ours, _ = flat.update(grads, flat.init(params), params)
    theirs, _ = plain.update(grads, plain.init(params), params)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5)
