"""Tabular agents: hand-computed updates, then exact fixed points."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import envs, exploration, mdp
from purejaxrl_sac.agents.q_learning import QTable, q_learning
from purejaxrl_sac.experiment.pictures import exact
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.memory import latest_with_next_action
from purejaxrl_sac.returns import lambda_returns
from scripts import maximization_bias, overestimation, tabular_convergence
from tests.conftest import FULL_COMPILATION, built, quick

GAMMA, BETA = 0.9, 0.1
Q = np.array([[1.0, 2.0], [3.0, 0.5], [4.0, 7.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
OTHER = np.array([[5.0, -2.0], [0.7, 1.0], [2.0, 9.0], [0.0, 0.0], [0.0, 0.0]], np.float32)


@cache
def agent_of(algorithm, **changes):
    changes = {"env": "chain", "gamma": GAMMA, "learning_rate": BETA, **changes}
    config = prl.default_config(algorithm).replace(total_steps=100, **changes)
    return built(config)[1], config


def rows(*transitions, extras=()):
    """[T, 1] transitions of (obs, action, reward, discount, next_obs, last)."""
    obs, action, reward, discount, next_obs, last = (np.array(x) for x in zip(*transitions))  # noqa: B905
    column = lambda x, kind: np.asarray(x, kind)[:, None]  # noqa: E731
    return prl.Sample(
        prl.Transition(
            column(obs, np.int32),
            column(action, np.int32),
            column(reward, np.float32),
            column(discount, np.float32),
            column(next_obs, np.int32),
            column(last, bool),
            column(extras, np.int32) if len(extras) else (),
        ),
        jnp.float32(1),
    )


def updated(algorithm, sample, tables=(Q,), visits=0, key=0, **changes):
    agent, _ = agent_of(algorithm, **changes)
    state = QTable(np.stack(tables), np.full((len(tables), *Q.shape), visits, np.int32))
    after, _, metrics = agent.update(jax.random.key(key), state, sample, jnp.int32(0))
    return np.asarray(after.q), np.asarray(after.visits), metrics


ONE = (0, 1, 2.0, 1.0, 1, False)  # from state 0 by action 1 to state 1 for a reward of 2


@pytest.mark.parametrize(
    ("algorithm", "changes", "value"),
    [
        ("q_learning", {}, 3.0),
        ("q_lambda", {}, 3.0),
        ("expected_sarsa", {"epsilon_start": 0.4, "epsilon_end": 0.4}, 0.8 * 3.0 + 0.2 * 0.5),
        ("soft_q_learning", {"alpha": 2.0}, 2 * np.log(np.exp(1.5) + np.exp(0.25))),
    ],
)
def test_one_update_by_hand(algorithm, changes, value):
    q, visits, metrics = updated(algorithm, rows(ONE), **changes)
    target = 2 + GAMMA * value
    assert q[0, 0, 1] == pytest.approx(2 + BETA * (target - 2), rel=1e-5)
    assert metrics["td_error"] == pytest.approx(target - 2, rel=1e-5)
    assert metrics["q"] == pytest.approx(2)
    assert (q[0] != Q).sum() == 1
    assert visits.sum() == visits[0, 0, 1] == 1


def test_one_update_of_sarsa_by_hand():
    q, *_ = updated("sarsa", rows(ONE, extras=[1]))
    assert q[0, 0, 1] == pytest.approx(2 + BETA * (2 + GAMMA * 0.5 - 2))
    # the next action at a time limit belongs to another episode: the expectation replaces it
    cut = (*ONE[:5], True)
    q, *_ = updated("sarsa", rows(cut, extras=[1]), epsilon_start=0.4, epsilon_end=0.4)
    assert q[0, 0, 1] == pytest.approx(2 + BETA * (GAMMA * (0.8 * 3 + 0.2 * 0.5)), rel=1e-5)


def test_double_q_learning_evaluates_with_the_other_table():
    changed = set()
    for key in range(8):
        q, visits, _ = updated("double_q_learning", rows(ONE), tables=(Q, OTHER), key=key)
        table = int(visits[1].sum())
        changed.add(table)
        # in state 1 the tables have different greedy actions, which the other one values lower
        own, other = ((Q, OTHER), (OTHER, Q))[table]
        target = 2 + GAMMA * other[1, own[1].argmax()]
        assert q[table, 0, 1] == pytest.approx(own[0, 1] + BETA * (target - own[0, 1]), rel=1e-5)
        np.testing.assert_array_equal(q[1 - table], other)
    assert changed == {0, 1}


@pytest.mark.parametrize("algorithm", ("q_learning", "expected_sarsa", "soft_q_learning", "sarsa"))
def test_values_bootstrap_at_time_limits_and_not_at_terminations(algorithm):
    extras = [0] if algorithm == "sarsa" else ()
    ended, *_ = updated(algorithm, rows((0, 1, 2.0, 0.0, 1, True), extras=extras))
    assert ended[0, 0, 1] == pytest.approx(2 + BETA * (2 - 2))
    cut, *_ = updated(algorithm, rows((0, 1, 2.0, 1.0, 1, True), extras=extras))
    assert cut[0, 0, 1] > 2.1


def test_transitions_of_one_cell_are_averaged():
    """k rows with equal targets equal k sequential updates; different targets are averaged."""
    same = [(0, 1, 2.0, 0.0, 3, True)] * 5
    q, visits, _ = updated(
        "q_learning", rows((0, 1, 7.0, 0.0, 3, True), *same[:4], (1, 0, *ONE[2:]))
    )
    mean = (7 + 4 * 2) / 5
    assert q[0, 0, 1] == pytest.approx(2 + (1 - (1 - BETA) ** 5) * (mean - 2), rel=1e-5)
    assert q[0, 1, 0] == pytest.approx(3 + BETA * (2 + GAMMA * 3 - 3), rel=1e-5)
    assert visits[0, 0, 1] == 5 and visits[0, 1, 0] == 1 and visits.sum() == 6

    ten = rows(*[(0, 1, 10.0, 0.0, 3, True)] * 10)
    at_once, *_ = updated("q_learning", ten)
    in_turn = 2.0
    for _ in range(10):
        in_turn += BETA * (10 - in_turn)
    assert at_once[0, 0, 1] == pytest.approx(in_turn, rel=1e-5)
    thousand, *_ = updated("q_learning", rows(*[(0, 1, 10.0, 0.0, 3, True)] * 1_000))
    assert thousand[0, 0, 1] == pytest.approx(10, rel=1e-5)  # without overshooting


def test_learning_rates_decay_with_visits():
    end = (0, 1, 10.0, 0.0, 3, True)
    q, *_ = updated("q_learning", rows(end), visits=15, learning_rate=0.8, omega=0.5)
    assert q[0, 0, 1] == pytest.approx(2 + 0.8 / 4 * (10 - 2), rel=1e-5)
    # beta = 1 / n averages all targets of a cell
    q = Q[None]
    for n, reward in enumerate((4.0, 8.0, 3.0)):
        sample = rows((0, 1, reward, 0.0, 3, True))
        q, *_ = updated("q_learning", sample, (q[0],), n, learning_rate=1.0, omega=1.0)
    assert q[0, 0, 1] == pytest.approx(5.0)


def test_decaying_rates_of_k_rows_approximate_sequential_updates():
    """beta = 1 / n averages: k targets after n others have the weight k / (n + k)."""
    for n, k in ((8, 8), (100, 8), (50, 3), (20, 1)):
        ten = rows(*[(0, 1, 10.0, 0.0, 3, True)] * k)
        zero = (np.zeros_like(Q),)
        for one in (1, 1.0):  # integers and floats
            q, *_ = updated("q_learning", ten, zero, n, learning_rate=1.0, omega=one)
            assert q[0, 0, 1] == pytest.approx(10 * k / (n + k), rel=0.03)


def test_rows_of_weight_zero_change_nothing():
    sample = rows(ONE, (1, 0, 1.0, 1.0, 2, False))._replace(weight=jnp.array([[0.0], [1.0]]))
    q, visits, _ = updated("q_learning", sample)
    assert q[0, 0, 1] == 2 and q[0, 1, 0] != 3
    assert visits.sum() == 1
    alone = rows(ONE)._replace(weight=jnp.zeros((1, 1)))
    q, visits, _ = updated("q_learning", alone, omega=0.7)
    np.testing.assert_array_equal(q[0], Q)
    assert visits.sum() == 0


def test_lambda_returns_by_hand():
    reward = jnp.array([1.0, 2.0, 3.0, 4.0])
    discount = jnp.array([1.0, 1.0, 0.0, 1.0])
    value = jnp.array([10.0, 20.0, 30.0, 40.0])
    trace = jnp.array([0.5, 0.5, 0.0, 0.5])  # an episode ends after the third step
    found = lambda_returns(reward, discount, value, trace, 0.9)
    last = 4 + 0.9 * 40
    second = 2 + 0.9 * (0.5 * 20 + 0.5 * 3)
    first = 1 + 0.9 * (0.5 * 10 + 0.5 * second)
    np.testing.assert_allclose(found, [first, second, 3, last], rtol=1e-6)
    one_step = lambda_returns(reward, discount, value, jnp.zeros(4), 0.9)
    np.testing.assert_allclose(one_step, reward + 0.9 * discount * value, rtol=1e-6)


def test_lambda_returns_of_numpy_arrays():
    rows = [np.random.default_rng(i).random((5, 2), np.float32) for i in range(4)]
    expected = lambda_returns(*map(jnp.asarray, rows), 0.9)
    np.testing.assert_array_equal(lambda_returns(*rows, 0.9), expected)
    assert rows[3][-1].all()


def test_lambda_returns_agree_with_rlax():
    rlax = pytest.importorskip("rlax")
    reward, value = jax.random.normal(jax.random.key(0), (2, 9))
    discount = jnp.array([1, 1, 1, 0, 1, 1, 0, 1, 1.0])
    trace = 0.7 * discount
    ours = lambda_returns(reward, discount, value, trace, 0.9)
    theirs = rlax.lambda_returns(reward, 0.9 * discount, value, 0.7)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_traces_of_q_lambda_end_at_non_greedy_actions():
    """0 to 1 by action 1; then action 0 (greedy) or 1 (not) to 2, whose maximum value is 7."""
    first = (0, 1, 2.0, 1.0, 1, False)
    for action, reaches in ((0, True), (1, False)):
        sample = rows(first, (1, action, 1.0, 1.0, 2, False))
        q, *_ = updated("q_lambda", sample, trace_decay=0.5)
        ahead = 1 + GAMMA * 7
        value = 0.5 * 3 + 0.5 * ahead if reaches else 3.0
        assert q[0, 0, 1] == pytest.approx(2 + BETA * (2 + GAMMA * value - 2), rel=1e-5)
    over = rows((*first[:3], 1.0, 1, True), (1, 0, 1.0, 1.0, 2, False))
    q, *_ = updated("q_lambda", over, trace_decay=0.5)
    assert q[0, 0, 1] == pytest.approx(2 + BETA * (GAMMA * 3), rel=1e-5)


def test_sarsa_uses_every_transition_once_with_its_next_action():
    memory = latest_with_next_action()
    T, N, state, seen = 3, 2, None, []
    for block in range(4):
        count = block * T + jnp.arange(T)[:, None] + jnp.zeros((1, N), int)
        rollout = prl.Transition(count, 100 + count, 1.0 * count, 1.0 * count, count + 1, count < 0)
        if state is None:
            state = memory.init(jax.eval_shape(lambda r=rollout: r))
        state = memory.add(state, jnp.int32(block * T), rollout)
        draw = memory.draw(jax.random.key(0), state, jnp.int32((block + 1) * T), 1)
        sample = memory.sample(state, draw[0])
        weight = np.broadcast_to(sample.weight, (T, N))
        rows_seen = np.asarray(sample.transition.obs)[weight > 0]
        np.testing.assert_array_equal(
            np.asarray(sample.transition.extras)[weight > 0], 100 + rows_seen + 1
        )
        seen += rows_seen.tolist()
    assert sorted(seen) == sorted(2 * list(range(4 * T - 1)))  # all but the most recent


def test_exploration_policies():
    q = jnp.array([[1.0, 3.0, 3.0, -jnp.inf], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        exploration.epsilon_greedy(q, 0.3), [[0.1, 0.45, 0.45, 0], [0.25] * 4], rtol=1e-6
    )
    np.testing.assert_allclose(exploration.greedy(q), [[0, 0.5, 0.5, 0], [0.25] * 4])
    z = np.exp(0.5) + 2 * np.exp(1.5)
    expected = [np.exp(0.5) / z, np.exp(1.5) / z, np.exp(1.5) / z, 0]
    np.testing.assert_allclose(exploration.boltzmann(q, 2.0)[0], expected, rtol=1e-5)

    visits = jnp.array([[10, 5, 100, 0], [1, 1, 0, 1]])
    width = 2 * np.sqrt(np.log(115) / np.array([10, 5, 100]))
    best = (np.array([1, 3, 3]) + width).argmax()
    found = exploration.upper_confidence(q, visits, 2.0)
    np.testing.assert_allclose(found, [np.eye(4)[best], [0, 0, 1, 0]])


def test_actions_are_independent_and_have_their_probabilities():
    pi = jnp.tile(jnp.array([0.0, 0.7, 0.3, 0.0]), (40_000, 1))
    action = exploration.sample(jax.random.key(0), pi)
    assert action.dtype == jnp.int32
    share = np.bincount(action, minlength=4) / 40_000
    np.testing.assert_allclose(share, [0, 0.7, 0.3, 0], atol=4 * np.sqrt(0.21 / 40_000))
    assert (share[[0, 3]] == 0).all()
    agreement = (action[1:] == action[:-1]).mean()
    assert agreement == pytest.approx(0.49 + 0.09, abs=0.015)


@pytest.mark.parametrize("name", ("epsilon_greedy", "boltzmann", "ucb", "greedy"))
def test_every_exploration_strategy_solves_a_small_lake(name, key):
    """The greedy policy needs optimistic initial values, above every attainable return."""
    changes = {"initial_value": 1.0} if name == "greedy" else {}
    config = prl.default_config("q_learning").replace(
        env="frozen_lake_not_slippery",
        exploration=name,
        total_steps=20_000,
        gamma=0.9,
        **{"alpha": 0.02, "initial_value": 0.5, **changes},
    )
    state, _ = jax.jit(prl.train)(key, config)
    v = prl.q_values(config, state, jnp.arange(16))[0].max()
    assert v == pytest.approx(0.9**5, rel=0.02)
    assert prl.evaluate(jax.random.key(1), config, state, 16).mean() == 1


@pytest.mark.parametrize("algorithm", ("double_q_learning", "sarsa", "soft_q_learning"))
@pytest.mark.parametrize("seed", range(3))
def test_illegal_actions_are_never_taken_and_cause_no_nan(algorithm, seed):
    """Including the last transition of the random warm-up, which SARSA learns from."""
    key = jax.random.key(seed)
    config = prl.default_config(algorithm).replace(
        env="maximization_bias", total_steps=3_000, num_envs=3, warmup_steps=30, gamma=1.0
    )
    state, metrics = jax.jit(prl.train)(key, config)
    legal = mdp.maximization_bias().legal
    assert (state.agent.q[:, ~legal] == -jnp.inf).all()
    assert jnp.isfinite(state.agent.q[:, legal]).all()
    assert (state.agent.visits[:, ~legal] == 0).all()
    assert all(jnp.isfinite(value).all() for value in metrics.values())


def test_visits_count_every_transition(key):
    config = prl.default_config("q_learning").replace(
        env="frozen_lake", total_steps=4_000, num_envs=8, rollout_length=5
    )
    state, _ = jax.jit(prl.train)(key, config)
    assert state.agent.visits.sum() == 4_000


def test_custom_exploration(key):
    def always_right(config, q, visits, step):
        return jnp.zeros_like(q).at[..., 2].set(1.0)

    config = prl.default_config("q_learning").replace(
        algorithm=partial(q_learning, explore=always_right), env="frozen_lake", total_steps=200
    )
    state, _ = jax.jit(prl.train)(key, config)
    assert state.agent.visits[..., 2].sum() == 200


@pytest.mark.parametrize("variant", tabular_convergence.VARIANTS)
@pytest.mark.parametrize("env", quick(tabular_convergence.ENVIRONMENTS, "garnet"))
def test_tables_converge_to_the_exact_fixed_point(variant, env):
    """Between checks the error decreases by more than its uncertainty; it ends near zero."""
    _, found = tabular_convergence.errors(
        variant, env, steps=200_000, seeds=16, points=20, compiler_options=FULL_COMPILATION
    )
    looks = found[[0, 2, 8, 20]]
    mean, standard_error = looks.mean(1), looks.std(1, ddof=1) / 4
    uncertain = np.sqrt(standard_error[1:] ** 2 + standard_error[:-1] ** 2)
    assert (np.diff(mean) < -2 * uncertain).all(), mean
    assert mean[-1] < LAST_ERROR.get(variant, 0.1) * mean[0] + 3 * standard_error[-1], mean


LAST_ERROR = {"SARSA, epsilon to 0": 0.3, "Double Q-learning": 0.15}


@pytest.mark.parametrize("seeds", quick((2_000, 10_000), 2_000))
def test_the_maximisation_bias_is_that_of_sutton_and_barto(seeds):
    for algorithm, reference in maximization_bias.REFERENCE.items():
        left, *_ = maximization_bias.share_of_left(
            algorithm, jax.random.key(1), seeds, FULL_COMPILATION
        )
        for episode, expected in zip((100, 200, 300), reference, strict=True):
            share = left[episode - 1]
            error = 100 * np.sqrt(share * (1 - share) * (1 / seeds + 1 / 20_000))
            assert abs(100 * share - expected) < 4 * error, (algorithm, episode, share)
        if algorithm == "q_learning":
            error = 5 / np.sqrt(seeds)
            assert abs(left.max() - 0.94) < error / 4 and 15 <= left.argmax() + 1 <= 30
        else:
            assert left.max() < 0.5 + error


@pytest.mark.parametrize("kind", overestimation.ERRORS)
def test_overestimation_agrees_with_its_closed_form(kind):
    known = {
        ("uniform", 2): 1 / 3,
        ("uniform", 5): 4 / 6,
        ("uniform", 10): 9 / 11,
        ("normal", 2): 0.5642,
        ("normal", 5): 1.1630,
    }
    known[("normal", 10)] = 1.5388
    for m in (2, 5, 10):
        exact = overestimation.expected_maximum(kind, m)
        assert exact == pytest.approx(known[kind, m], abs=1e-4)
        found = overestimation.estimate(jax.random.key(m), kind, m, 100_000)
        (single, error), (double, double_error) = found["single"], found["double"]
        assert abs(single - exact) < 4.5 * error
        assert abs(double) < 4.5 * double_error
        least, tight = overestimation.smallest_overestimation(jax.random.key(m), m, 10_000)
        assert least >= 1 - 5e-3 and tight == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "env", "share"),
    [
        pytest.param("q_learning", "FrozenLake-misc", 0.99, marks=pytest.mark.slow),
        pytest.param("soft_q_learning", "FrozenLake-misc", 0.99, marks=pytest.mark.slow),
        pytest.param("q_lambda", "FrozenLake-misc", 0.99, marks=pytest.mark.slow),
        ("q_learning", "cliff_walking", 1.01),  # of -13: larger is worse
        ("q_learning", "taxi", 0.99),
    ],
)
def test_presets_find_optimal_policies(algorithm, env, share):
    config = prl.preset(algorithm, env)
    found = exact.finite_mdp(config)
    keys = jax.random.split(jax.random.key(20), 4)
    train = jax.vmap(prl.make_train(config))
    learn = jax.jit(lambda x: train(x)[0].agent.q.mean(1), compiler_options=FULL_COMPILATION)
    q = np.asarray(learn(keys))
    earned = iqm(exact.greedy_returns(config, found, q))
    assert earned >= share * exact.optimal_return(config, found)


def test_dqn_converges_to_the_exact_values_too(key):
    """DQN on one-hot states of a small MDP, against dynamic programming."""
    config = prl.default_config("dqn").replace(
        env="frozen_lake_not_slippery",
        total_steps=3_000,
        num_envs=4,
        num_updates=4,
        hidden_sizes=(64,),
        gamma=0.9,
        learning_rate=3e-3,
        epsilon_end=1.0,
    )
    state, _ = jax.jit(prl.train)(key, config)
    exact = dp.value_iteration(mdp.frozen_lake(slippery=False), 0.9)
    inner = ~np.asarray(envs.make(config.env).mdp.terminal)
    learned = prl.q_values(config, state, jnp.arange(16))
    np.testing.assert_allclose(learned[inner], exact[inner], atol=0.05)
