"""Bellman operators, exact values, and the lemmas of the post, on random MDPs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purejaxrl_sac import ConfigError, exploration, losses, mdp
from purejaxrl_sac.mdp import dynamic_programming as dp

SEEDS = st.integers(0, 2**31 - 1)
GAMMAS = st.floats(0, 1)
ALPHAS = st.floats(0.01, 5)
SIZES = st.sampled_from([(3, 2, 1), (6, 3, 2), (12, 4, 5)])  # few: each is compiled separately


@partial(jax.jit, static_argnums=1)
def random_case(seed, size):
    """A random MDP with a terminal state, a policy and two tables."""
    keys = jax.random.split(jax.random.key(seed), 4)
    found = mdp.garnet(keys[0], *size, terminal=1)
    states, actions, _ = size
    pi = jax.random.dirichlet(keys[1], jnp.ones(actions), (states,))
    q1, q2 = 5 * jax.random.normal(keys[2], (2, states, actions))
    return found, pi, q1, q2


def sup(x):
    return jnp.abs(x).max()


@jax.jit
def expansions(found, gamma, alpha, pi, q1, q2):
    """How far two tables are apart after each operator; and how far a shift is moved."""
    operators = (
        lambda q: dp.optimality(found, gamma, q),
        lambda q: dp.expectation(found, gamma, pi, q),
        lambda q: dp.soft_optimality(found, gamma, alpha, q),
        lambda q: dp.soft_expectation(found, gamma, alpha, pi, q),
    )
    gaps = jnp.stack([sup(operator(q1) - operator(q2)) for operator in operators])
    endless = found.replace(terminal=jnp.zeros_like(found.terminal))
    shift = dp.optimality(endless, gamma, q1 + 1) - dp.optimality(endless, gamma, q1)
    return gaps, sup(q1 - q2), shift


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIZES, GAMMAS, ALPHAS)
def test_operators_are_gamma_contractions(seed, size, gamma, alpha):
    found, pi, q1, q2 = random_case(seed, size)
    gaps, before, shift = map(np.asarray, expansions(found, gamma, alpha, pi, q1, q2))
    assert (gaps <= gamma * before + 2e-5).all()
    # the constant is tight: without terminal states, shifted tables attain it
    np.testing.assert_allclose(shift, gamma, atol=1e-4)


@jax.jit
def soft_and_hard(found, alpha, q):
    """The soft and the hard maximum of a table, and the tables after both operators."""
    backups = dp.soft_optimality(found, 0.9, alpha, q), dp.optimality(found, 0.9, q)
    return losses.log_sum_exp(q, alpha), q.max(-1), *backups


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIZES, st.floats(0.001, 5))
def test_bounds_of_the_soft_maximum(seed, size, alpha):
    found, _, q, _ = random_case(seed, size)
    v, hard, soft, optimal = map(np.asarray, soft_and_hard(found, alpha, q))
    slack = 1e-5 * (1 + np.abs(q).max())
    assert (v >= hard - slack).all()
    assert (v <= hard + alpha * np.log(size[1]) + slack).all()
    assert np.abs(soft - optimal).max() <= 0.9 * alpha * np.log(size[1]) + slack


@jax.jit
def soft_values(alpha, q, other):
    """alpha log sum exp(Q / alpha); and E_pi[Q - alpha log pi], of the best and another policy."""

    def value(pi):
        return losses.expected_value(q, pi) + alpha * dp.policy_entropy(pi)

    return losses.log_sum_exp(q, alpha), value(dp.soft_policy_improvement(q, alpha)), value(other)


@settings(max_examples=50, deadline=None)
@given(SEEDS, SIZES, ALPHAS)
def test_the_soft_value_is_the_soft_expectation_of_its_policy(seed, size, alpha):
    """alpha log sum exp(Q / alpha) = E_pi[Q - alpha log pi] for pi = softmax(Q / alpha)."""
    _, other, q, _ = random_case(seed, size)
    maximum, best, worse = map(np.asarray, soft_values(alpha, q, other))
    np.testing.assert_allclose(maximum, best, rtol=1e-4, atol=1e-4)
    # no policy has a larger value: softmax(Q / alpha) minimises the divergence of Lemma 2
    assert (worse <= best + 1e-3).all()


def test_soft_values_converge_to_hard_ones():
    lake = mdp.frozen_lake()
    hard = dp.value_iteration(lake, 0.9)
    alphas = jnp.array([1.0, 0.1, 0.01, 0.001, 0.0001])
    soft = jax.vmap(lambda alpha: dp.soft_value_iteration(lake, 0.9, alpha))(alphas)
    gaps = np.abs(soft - hard).max((1, 2))
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] < 1e-3
    assert (gaps <= alphas * np.log(4) / (1 - 0.9) + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "gamma", "value"),
    [
        ("frozen_lake", 0.99, 0.5420259),
        ("frozen_lake", 0.95, 0.180472),
        ("frozen_lake", 0.9, 0.068891),
        ("cliff_walking", 1.0, -13.0),
        ("cliff_walking", 0.99, -12.2479),
    ],
)
def test_known_values(name, gamma, value):
    found = mdp.NAMED[name][0]()
    start = int(np.argmax(found.start))
    tolerance = 1e-5 if name == "frozen_lake" else 1e-4
    assert dp.value_iteration(found, gamma)[start].max() == pytest.approx(value, abs=tolerance)
    if gamma < 1:
        q, _ = dp.policy_iteration(found, gamma)
        assert q[start].max() == pytest.approx(value, abs=tolerance)


def test_known_action_values_of_frozen_lake():
    q = dp.value_iteration(mdp.frozen_lake(), 0.99)
    np.testing.assert_allclose(q[0], [0.542026, 0.527762, 0.527762, 0.522342], atol=1e-5)


def test_known_soft_value_of_frozen_lake():
    q = dp.soft_value_iteration(mdp.frozen_lake(), 0.99, 0.1)
    assert losses.log_sum_exp(q, 0.1)[0] == pytest.approx(2.471032, abs=1e-5)


def test_values_under_a_time_limit():
    lake = mdp.frozen_lake()
    _, pi = dp.policy_iteration(lake, 0.99)
    assert dp.policy_evaluation(lake, 1.0, pi)[0] == pytest.approx(14 / 17, abs=1e-5)
    assert dp.finite_horizon_evaluation(lake, 1.0, pi, 100)[0] == pytest.approx(0.740, abs=5e-4)
    assert dp.finite_horizon_evaluation(lake, 1.0, pi, 5)[0] == 0  # the goal is six moves away
    long_horizon = dp.finite_horizon_evaluation(lake, 0.9, pi, 500)
    np.testing.assert_allclose(long_horizon, dp.policy_evaluation(lake, 0.9, pi), atol=1e-6)


def hundred_mdps():
    many = jax.vmap(mdp.garnet)(jax.random.split(jax.random.key(0), 100))
    return jax.tree.map(lambda x: np.asarray(x, float) if x.dtype.kind == "f" else x, many)


def test_three_solvers_agree_on_a_hundred_random_mdps():
    with jax.enable_x64(True):
        many = hundred_mdps()
        by_values = jax.vmap(lambda m: dp.value_iteration(m, 0.99))(many)
        by_policy, pi = jax.vmap(lambda m: dp.policy_iteration(m, 0.99))(many)
        solved = jax.vmap(lambda m, p: dp.policy_evaluation(m, 0.99, p))(many, pi)
        assert by_values.dtype == jnp.float64
        np.testing.assert_allclose(by_values, by_policy, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(solved, by_values.max(-1), rtol=1e-9, atol=1e-9)
    single = jax.vmap(lambda m: dp.value_iteration(m, 0.99))(many)
    np.testing.assert_allclose(single, by_values, rtol=1e-4, atol=1e-3)


def test_lemma_1_repeated_backups_converge_to_the_soft_value():
    found, pi, q, _ = random_case(3, (12, 4, 5))
    exact = dp.backup(found, 0.9, dp.soft_policy_evaluation(found, 0.9, 0.3, pi))
    gaps, evaluate = [], jax.jit(partial(dp.soft_expectation, found, 0.9, 0.3, pi))
    for _ in range(200):
        gaps.append(np.abs(q - exact).max())
        q = evaluate(q)
    assert gaps[-1] < 1e-4
    assert all(after <= 0.9 * before + 1e-4 for before, after in itertools.pairwise(gaps))


@jax.jit
def improvement(found, gamma, alpha, pi):
    """Soft values of a policy and of the one that improves it."""
    before = dp.backup(found, gamma, dp.soft_policy_evaluation(found, gamma, alpha, pi))
    better = dp.soft_policy_improvement(before, alpha)
    return before, dp.backup(found, gamma, dp.soft_policy_evaluation(found, gamma, alpha, better))


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIZES, st.floats(0, 0.98), ALPHAS)
def test_lemma_2_improvement_never_decreases_a_value(seed, size, gamma, alpha):
    found, pi, *_ = random_case(seed, size)
    before, after = map(np.asarray, improvement(found, gamma, alpha, pi))
    assert (after >= before - 1e-5 * (1 + np.abs(before).max())).all()


def test_theorem_1_soft_policy_iteration_is_optimal():
    with jax.enable_x64(True):
        many = hundred_mdps()
        exact = jax.vmap(lambda m: dp.soft_value_iteration(m, 0.95, 0.2))(many)
        pis, qs = jax.vmap(lambda m: dp.soft_policy_iteration(m, 0.95, 0.2, rounds=30))(many)
        np.testing.assert_allclose(qs[:, -1], exact, rtol=1e-9, atol=1e-9)
        assert (np.diff(qs, axis=1) >= -1e-9).all()
        assert np.abs(qs[:, 0] - exact).max() > 1
        np.testing.assert_allclose(pis[:, 0], 0.25)
        np.testing.assert_allclose(pis[:, -1], jax.nn.softmax(exact / 0.2, -1), atol=1e-9)


def test_solvers_can_be_vmapped_over_gamma_and_alpha():
    lake = mdp.frozen_lake()
    gammas = jnp.array([0.9, 0.95, 0.99])
    swept = jax.vmap(lambda gamma: dp.value_iteration(lake, gamma))(gammas)
    for lane, gamma in enumerate((0.9, 0.95, 0.99)):
        np.testing.assert_allclose(swept[lane], dp.value_iteration(lake, gamma), atol=1e-6)
    solved = jax.vmap(lambda g, a: dp.soft_policy_iteration(lake, g, a, rounds=20)[1][-1])(
        gammas, jnp.array([0.1, 0.2, 0.3])
    )
    np.testing.assert_allclose(solved[2], dp.soft_value_iteration(lake, 0.99, 0.3), atol=1e-4)


def test_illegal_actions_are_never_optimal():
    bias = mdp.maximization_bias()
    for q in (dp.value_iteration(bias, 1.0), dp.soft_value_iteration(bias, 1.0, 0.1)):
        assert (q[0, 2:] == -jnp.inf).all() and jnp.isfinite(q[0, :2]).all()
    soft = dp.soft_value_iteration(bias, 1.0, 0.1)
    assert soft[0, 0] == pytest.approx(-0.1 + 0.1 * np.log(10), abs=1e-6)
    _, pi = dp.policy_iteration(bias, 0.9)
    np.testing.assert_allclose(pi[0], np.eye(10)[1])
    assert exploration.boltzmann(soft, 0.1)[0, 2:].sum() == 0


@pytest.mark.parametrize("name", [name for name in mdp.NAMED if name != "taxi"])
def test_two_solvers_agree_on_every_named_mdp(name):
    found = mdp.NAMED[name][0]()
    q, pi = dp.policy_iteration(found, 0.95)
    np.testing.assert_allclose(q, dp.value_iteration(found, 0.95), rtol=1e-4, atol=1e-4)
    legal = np.asarray(found.legal)
    assert (np.asarray(pi)[~legal] == 0).all()
    v = dp.policy_evaluation(found, 0.95, pi)
    inner = ~np.asarray(found.terminal)
    np.testing.assert_allclose(v[inner], q.max(-1)[inner], rtol=1e-4, atol=1e-4)


def test_the_entropy_bonus_by_hand():
    """A single step: the soft value is alpha times the entropy of a fair coin."""
    found = mdp.make(np.tile([0.0, 1.0], (2, 2, 1)), np.zeros((2, 2)), terminal=[1])
    v = dp.soft_policy_evaluation(found, 0.9, 2.0, jnp.full((2, 2), 0.5))
    np.testing.assert_allclose(v, [2 * np.log(2), 0], rtol=1e-6)


def test_policy_iteration_finds_small_improvements_beside_large_values():
    """An improvement is one of a state: the sum over states rounds it away."""
    steps, other, end = 12, 13, 12
    P, R = np.zeros((14, 2, 14)), np.zeros((14, 2))
    for state in range(steps):  # stop with reward 1 / 2, or go on to a reward of 1 at the end
        P[state, 0, end] = P[state, 1, state + 1] = 1
        R[state, 0] = 0.5
    R[steps - 1, 1] = 1
    P[end, :, end] = P[other, :, other] = 1
    R[other] = 1e5
    found = mdp.make(P, R, terminal=[end])
    q, _ = dp.policy_iteration(found, 0.99)
    np.testing.assert_allclose(q.max(-1)[:steps], 0.99 ** np.arange(steps)[::-1], rtol=1e-5)


def test_values_are_those_of_normalised_probabilities():
    """Sums that differ from 1 by rounding would be errors times 1 / (1 - gamma)."""
    thirds = mdp.make(np.full((3, 1, 3), 0.33333), np.ones((3, 1)))
    values = dp.policy_evaluation(thirds, 0.99, np.ones((3, 1)))
    np.testing.assert_allclose(values, 100, rtol=1e-5)
    chain, pi = mdp.chain(), np.full((5, 2), 0.49996)
    for value in (
        partial(dp.policy_evaluation, chain, 0.999),
        partial(dp.finite_horizon_evaluation, chain, 0.999, horizon=1000),
    ):
        np.testing.assert_allclose(value(pi=pi), value(pi=np.full((5, 2), 0.5)), rtol=1e-5)


def test_values_have_gradients_at_probabilities_of_zero():
    lake = mdp.frozen_lake()

    def value(theta):
        return dp.policy_evaluation(lake, 0.9, jax.nn.softmax(theta))[0]

    def entropy(theta):
        return losses.entropy(jax.nn.softmax(theta))

    certain = jnp.eye(4)[jnp.zeros(16, int)]
    for f, x in ((value, 120 * certain), (entropy, jnp.array([0.0, 200.0]))):
        np.testing.assert_allclose(jax.grad(f)(x), 0, atol=1e-6)


def test_a_remedy_is_named_where_values_do_not_converge():
    endless = mdp.make(np.ones((1, 1, 1)), np.ones((1, 1)))
    with jax.enable_x64(True):
        with pytest.raises(ConfigError, match="lower gamma, or use policy iteration"):
            dp.value_iteration(endless, 0.9999)
        np.testing.assert_allclose(dp.policy_iteration(endless, 0.9999)[0], 1e4)
