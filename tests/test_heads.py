"""Heads: expectations and losses of network outputs, against rlax and hand-computed values."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

import purejaxrl_sac as prl
from purejaxrl_sac import exploration, heads, losses
from purejaxrl_sac.agents import distributional, dqn
from purejaxrl_sac.networks import Quantiles, midpoints
from purejaxrl_sac.types import NextQ, NextReturn

B, A, GAMMA = 16, 3, 0.9
CONFIG = SimpleNamespace(
    huber_delta=1.0, num_atoms=11, v_min=-2.0, v_max=3.0, num_quantiles=8, munchausen=0.9
)
HEADS = ("scalar", "categorical", "quantile", "implicit_quantile")
ATOMS = jnp.linspace(-2.0, 3.0, 11)

REWARD = np.random.default_rng(0).standard_normal(B, np.float32)
DISCOUNT = np.float32(np.arange(B) % 4 > 0)
ACTION = np.arange(B, dtype=np.int32) % A


def backup(value, discount=DISCOUNT):
    return jax.vmap(partial(losses.td_target, REWARD, discount, GAMMA), 1, 1)(value)


def random(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def made(name):
    """A head, and random outputs of its network at s and s'."""
    head = getattr(heads, name)(CONFIG)
    head = head._replace(
        loss=jax.jit(head.loss, static_argnums=3), expectation=jax.jit(head.expectation)
    )
    if name != "implicit_quantile":
        shape = (B, A, head.num_outputs)
        return head, random(shape, 1), random(shape, 2)
    fraction = np.random.default_rng(3).random((B, 8), np.float32)
    return (
        head,
        Quantiles(random((B, A, 8), 1), fraction),
        Quantiles(random((B, A, 5), 2), fraction[:, :5]),
    )


def after(outputs, pi, bonus=0.0, seed=9):
    return NextReturn(outputs, pi, jnp.full((1, 1), bonus), jax.random.key(seed))


def one_hot(action):
    return jax.nn.one_hot(action, A)


def test_number_of_outputs_per_action():
    assert [made(name)[0].num_outputs for name in HEADS] == [1, 11, 8, 1]


def test_expectations_by_hand():
    scalar = heads.scalar(CONFIG).expectation(jnp.array([[[2.0], [-1.0]]]))
    np.testing.assert_array_equal(scalar, [[2, -1]])
    config = SimpleNamespace(v_min=0.0, v_max=4.0, num_atoms=3, num_quantiles=4, huber_delta=1.0)
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])) + 7
    categorical = heads.categorical(config).expectation(logits)
    np.testing.assert_allclose(categorical, [[1.5, 3.4]], rtol=1e-6)
    quantiles = jnp.array([[[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, -1.0]]])
    np.testing.assert_array_equal(heads.quantile(config).expectation(quantiles), [[2, 0.5]])
    implicit = heads.implicit_quantile(config).expectation(Quantiles(quantiles, midpoints(4)))
    np.testing.assert_array_equal(implicit, [[2, 0.5]])


def test_mix_and_chosen_by_hand():
    outputs = jnp.arange(12.0).reshape(2, 3, 2)
    pi = jnp.array([[0, 1.0, 0], [0.5, 0.25, 0.25]])
    np.testing.assert_array_equal(heads.mix(pi, outputs), [[2, 3], [7.5, 8.5]])
    np.testing.assert_array_equal(heads.chosen(outputs, jnp.array([2, 0])), [[4, 5], [6, 7]])


def test_scalar_loss_is_the_huber_loss_of_rlax_s_td_error():
    head, outputs, following = made("scalar")
    pi = exploration.greedy(head.expectation(following))
    loss, priority, metrics = head.loss(outputs, ACTION, after(following, pi), backup)
    error = jax.jit(jax.vmap(rlax.q_learning))(
        outputs[..., 0], ACTION, REWARD, GAMMA * DISCOUNT, following[..., 0]
    )
    assert (jnp.abs(error) > 1).any() and (jnp.abs(error) < 1).any()
    np.testing.assert_allclose(loss, rlax.huber_loss(error, 1.0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(priority, jnp.abs(error), rtol=1e-5, atol=1e-6)
    assert metrics == {}


@pytest.mark.parametrize("double", (False, True))
def test_categorical_loss_agrees_with_rlax(double):
    head, outputs, following = made("categorical")
    selector = random((B, A), 4) if double else head.expectation(following)
    loss, _, _ = head.loss(outputs, ACTION, after(following, exploration.greedy(selector)), backup)
    learning = rlax.categorical_double_q_learning if double else rlax.categorical_q_learning
    more = (selector,) if double else ()
    theirs = jax.jit(jax.vmap(learning, (None, 0, 0, 0, 0, None, 0, *(0 for _ in more))))(
        ATOMS, outputs, ACTION, REWARD, GAMMA * DISCOUNT, ATOMS, following, *more
    )
    np.testing.assert_allclose(loss, theirs, rtol=1e-4)


@pytest.mark.parametrize("name", ("quantile", "implicit_quantile"))
@pytest.mark.parametrize("kappa", (0.5, 2.0))
def test_quantile_loss_agrees_with_rlax(name, kappa):
    """In rlax the quantile axis precedes the action axis, and kappa does not divide the loss."""
    _, outputs, following = made(name)
    head = getattr(heads, name)(SimpleNamespace(num_quantiles=8, huber_delta=kappa))
    selector = random((B, A), 4)
    loss, _, _ = head.loss(outputs, ACTION, after(following, exploration.greedy(selector)), backup)
    if name == "quantile":
        outputs = Quantiles(outputs, jnp.broadcast_to((jnp.arange(8) + 0.5) / 8, (B, 8)))
        following = Quantiles(following, outputs.fraction)
    theirs = jax.jit(jax.vmap(partial(rlax.quantile_q_learning, huber_param=kappa)))(
        outputs.value.swapaxes(1, 2),
        outputs.fraction,
        ACTION,
        REWARD,
        GAMMA * DISCOUNT,
        selector[:, None],
        following.value.swapaxes(1, 2),
    )
    np.testing.assert_allclose(loss, theirs / kappa, rtol=1e-4)


def test_categorical_loss_and_its_metrics_by_hand():
    config = SimpleNamespace(v_min=0.0, v_max=2.0, num_atoms=3)
    head = heads.categorical(config)
    outputs = jnp.log(jnp.array([[[0.5, 0.25, 0.25]], [[0.5, 0.25, 0.25]]]))
    following = jnp.log(jnp.array([[[0.25, 0.5, 0.25]], [[0.25, 0.5, 0.25]]]))

    def halve(value):  # 0, 1/2, 1 and -6, -5, -4
        return jnp.stack([value[0] / 2, value[1] - 6])

    loss, priority, metrics = head.loss(
        outputs, jnp.array([0, 0]), after(following, jnp.ones((2, 1))), halve
    )
    target = np.array([[0.5, 0.5, 0], [1, 0, 0]])  # 1/2 is split evenly; all is below 0
    log_p = np.log([0.5, 0.25, 0.25])
    np.testing.assert_allclose(loss, -(target @ log_p), rtol=1e-5)
    np.testing.assert_allclose(priority, -(target @ log_p) - [np.log(2), 0], rtol=1e-5)
    np.testing.assert_allclose(metrics["target_min"], -5)
    np.testing.assert_allclose(metrics["target_max"], 0.5)


def test_metrics_show_targets_outside_the_categorical_support():
    head, outputs, following = made("categorical")
    pi = exploration.greedy(head.expectation(following))

    def inflated(value):
        return 100 * backup(value)

    expected = 100 * (REWARD + GAMMA * DISCOUNT * head.expectation(following).max(-1))
    *_, metrics = head.loss(outputs, ACTION, after(following, pi), inflated)
    np.testing.assert_allclose(metrics["target_min"], expected.min(), rtol=1e-4)
    np.testing.assert_allclose(metrics["target_max"], expected.max(), rtol=1e-4)


def test_categorical_priority_is_the_kl_divergence():
    head, outputs, following = made("categorical")
    pi = one_hot(ACTION)

    def still(value):
        return value

    _, priority, _ = head.loss(outputs, ACTION, after(following, pi), still)
    p, q = (np.asarray(jax.nn.softmax(heads.chosen(x, ACTION))) for x in (following, outputs))
    np.testing.assert_allclose(priority, (p * np.log(p / q)).sum(-1), rtol=1e-3, atol=1e-5)
    assert (priority > 0.01).all()
    perfect, priority, _ = head.loss(following, ACTION, after(following, pi), still)
    np.testing.assert_allclose(priority, 0, atol=1e-5)
    assert (perfect > 0.5).all()  # the cross-entropy itself is at least the entropy


@pytest.mark.parametrize("name", ("quantile", "implicit_quantile"))
def test_quantile_priorities_are_errors_of_the_mean(name):
    head, outputs, following = made(name)
    pi = exploration.greedy(random((B, A), 4))
    _, priority, metrics = head.loss(outputs, ACTION, after(following, pi), backup)
    value = losses.expected_value(head.expectation(following), pi)
    q = losses.select_action(head.expectation(outputs), ACTION)
    expected = jnp.abs(REWARD + GAMMA * DISCOUNT * value - q)
    np.testing.assert_allclose(priority, expected, rtol=1e-4, atol=1e-5)
    assert metrics == {}


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_the_outputs_of_chosen_actions_alone(name):
    head, outputs, following = made(name)
    pi = jax.nn.softmax(random((B, A), 4))

    def loss(outputs, following, pi):
        return head.loss(outputs, ACTION, after(following, pi), backup)[0].sum()

    chosen, target, policy = jax.jit(jax.grad(loss, (0, 1, 2)))(outputs, following, pi)
    if name == "implicit_quantile":
        chosen, target = chosen.value, target.value
    flows = np.abs(chosen).max(-1) > 0
    np.testing.assert_array_equal(flows, np.asarray(one_hot(ACTION), bool))
    assert not target.any() and not policy.any()


@pytest.mark.parametrize("name", HEADS)
def test_the_next_state_matters_only_without_termination(name):
    head, outputs, following = made(name)
    other = jax.tree.map(lambda x: x[::-1], following)
    pi = one_hot(ACTION)
    ours, theirs = (head.loss(outputs, ACTION, after(x, pi), backup) for x in (following, other))
    for index in range(2):
        same = np.isclose(ours[index], theirs[index], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(same, DISCOUNT == 0)


@pytest.mark.parametrize("name", HEADS)
def test_gradient_descent_finds_the_mean_return(name):
    """Rewards 0 and 1 evenly, terminal: Q = 1/2 for every head."""
    head, outputs, following = made(name)
    reward = (jnp.arange(B) % 2).astype(jnp.float32)
    first = jax.tree.map(lambda x: x[:1], outputs)

    def loss(value):
        everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape[1:])), value)
        zero = jnp.zeros(B, jnp.int32)

        def ended(value):
            return jnp.broadcast_to(reward[:, None], value.shape)

        return head.loss(everywhere, zero, after(following, one_hot(zero)), ended)[0].mean()

    def descend(value, _):
        gradient = jax.grad(loss)(value)
        if name == "implicit_quantile":
            gradient = gradient._replace(fraction=jnp.zeros_like(gradient.fraction))
        return jax.tree.map(lambda x, g: x - 0.3 * g, value, gradient), None

    if name == "implicit_quantile":
        first = first._replace(fraction=midpoints(8)[None])
    learned, _ = jax.lax.scan(descend, first, length=2_000)
    np.testing.assert_allclose(head.expectation(learned)[0, 0], 0.5, atol=0.01)
    untouched = head.expectation(first)[0, 1:]
    np.testing.assert_array_equal(head.expectation(learned)[0, 1:], untouched)


def quantiles_of_return(name, value):
    """Outputs at s' [B, A, K] whose returns after each action are certain."""
    if name == "quantile":
        return value
    return Quantiles(value, jnp.broadcast_to(midpoints(value.shape[-1]), value[:, 0].shape))


@pytest.mark.parametrize("name", ("quantile", "implicit_quantile"))
def test_the_expected_quantile_loss_is_that_against_the_mixture(name):
    """Returns of 0 and 10 at pi = (1/4, 3/4), and with the bonuses of both actions."""
    config = SimpleNamespace(num_quantiles=4, huber_delta=1.0)
    head, rows = getattr(heads, name)(config), 20_000
    outputs = jnp.broadcast_to(jnp.array([[0.0, 1.0, 4.0, 12.0], [0] * 4]), (rows, 2, 4))
    returns = jnp.broadcast_to(jnp.array([[0.0] * 4, [10.0] * 4]), (rows, 2, 4))
    pi = jnp.broadcast_to(jnp.array([0.25, 0.75]), (rows, 2))
    bonus = jnp.array([[2.0, -3.0]])
    following = after(quantiles_of_return(name, returns), pi)._replace(bonus=bonus)
    zero = jnp.zeros(rows, jnp.int32)

    def loss(value):
        outputs = quantiles_of_return(name, value)
        return head.loss(outputs, zero, following, lambda value: value)[0].mean()

    def against_the_mixture(theta):  # by hand: targets 2, 7, 7, 7
        u = np.array([2, 7, 7, 7]) - theta[:, None]
        huber = np.where(np.abs(u) <= 1, u**2 / 2, np.abs(u) - 0.5)
        return (np.abs(np.array([1, 3, 5, 7])[:, None] / 8 - (u < 0)) * huber).sum() / 4

    expected = against_the_mixture(np.array([0.0, 1, 4, 12]))
    np.testing.assert_allclose(loss(outputs), expected, rtol=0.02)
    single = head.loss(quantiles_of_return(name, outputs), zero, following, lambda value: value)[0]
    assert len(np.unique(single.round(3))) == 2  # each row is against one action


def test_quantiles_of_a_mixture_by_gradient_descent():
    """Returns 0 and 10, evenly: quantiles 0, 0, 10, 10, not 5."""
    head = heads.quantile(SimpleNamespace(num_quantiles=4, huber_delta=0.1))
    rows = 256
    returns = jnp.broadcast_to(jnp.array([[0.0] * 4, [10.0] * 4]), (rows, 2, 4))
    pi, zero = jnp.full((rows, 2), 0.5), jnp.zeros(rows, jnp.int32)

    def descend(theta, key):
        following = NextReturn(returns, pi, jnp.zeros((1, 1)), key)

        def loss(theta):
            outputs = jnp.broadcast_to(theta, (rows, 1, 4))
            return head.loss(outputs, zero, following, lambda value: value)[0].mean()

        return theta - 0.3 * jax.grad(loss)(theta), None

    keys = jax.random.split(jax.random.key(0), 300)
    theta, _ = jax.lax.scan(descend, jnp.array([4.0, 4.5, 5.5, 6.0]), keys)
    np.testing.assert_allclose(theta, [0, 0, 10, 10], atol=0.1)


@pytest.mark.parametrize("name", ("quantile", "implicit_quantile"))
def test_tied_actions_are_not_averaged(name):
    """Both actions are worth 5: a certain 5, and 0 or 10; a target is one or the other."""
    config = SimpleNamespace(num_quantiles=2, huber_delta=1.0)
    head = getattr(heads, name)(config)
    returns = jnp.broadcast_to(jnp.array([[5.0, 5.0], [0.0, 10.0]]), (64, 2, 2))
    following = quantiles_of_return(name, returns)
    pi = exploration.greedy(head.expectation(following))
    seen = []
    head.loss(
        following, jnp.zeros(64, jnp.int32), after(following, pi), lambda x: seen.append(x) or x
    )
    assert {tuple(row) for row in seen[0].tolist()} == {(5.0, 5.0), (0.0, 10.0)}


def test_categorical_soft_returns_have_the_bonus_of_their_action():
    """Certain returns log 9 and 0, alpha 1: both are log 10 with -log pi, without any spread."""
    config = SimpleNamespace(v_min=0.0, v_max=np.log(9.0), num_atoms=2, alpha=1.0)
    head = heads.categorical(config)
    outputs = jnp.array([[[-50.0, 50.0], [50.0, -50.0]]])
    q = head.expectation(outputs)
    pi, bonus = dqn.soft(config, NextQ(q, q, q))
    np.testing.assert_allclose(pi, [[0.9, 0.1]], rtol=1e-5)
    np.testing.assert_allclose(q + bonus, np.full((1, 2), np.log(10)), rtol=1e-5)
    wide = SimpleNamespace(v_min=0.0, v_max=4.0, num_atoms=401)
    certain = jnp.where(jnp.arange(401) == jnp.array([[220], [0]]), 100.0, 0.0)[None]
    following = NextReturn(certain, pi, bonus, jax.random.key(0))
    seen = []

    def backup(value):
        seen.append(value)
        return value

    head = heads.categorical(wide)
    *_, metrics = head.loss(certain, jnp.zeros(1, jnp.int32), following, backup)
    value, probability = np.asarray(seen[0][0], float), np.repeat([0.9, 0.1], 401)
    probability *= np.concatenate([np.arange(401) == 220, np.arange(401) == 0])
    mean = (probability * value).sum()
    assert np.sqrt((probability * (value - mean) ** 2).sum()) < 0.01  # atoms are 0.01 apart
    np.testing.assert_allclose(metrics["target_min"], mean, rtol=1e-5)
    np.testing.assert_allclose(mean, np.log(10), atol=5e-3)


def test_quantiles_need_a_finite_threshold_of_their_loss():
    """With an infinite one, it would be 0."""

    class Mine(dqn.DQNConfig, distributional.Quantile):
        """A configuration, whose threshold is that of the second base."""

    for head in (heads.quantile, heads.implicit_quantile):
        config = Mine(algorithm=partial(dqn.dqn, head=head), env="CartPole-v1")
        prl.build(config)
        config = config.replace(huber_delta=np.inf)
        with pytest.raises(prl.ConfigError, match="huber_delta is inf, but must be finite"):
            prl.build(config)
