"""Finite POMDPs: beliefs by hand, exact values by independent methods, and as environments."""

import itertools
from functools import partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import envs, mdp
from purejaxrl_sac.envs.partially_observed import PartiallyObserved, tables
from purejaxrl_sac.envs.tabular import Tabular, exact
from purejaxrl_sac.mdp import alpha_vectors, beliefs, controllers, pomdp
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.mdp.controllers import Controller

TIGER = mdp.tiger()
COIN = mdp.make(np.full((2, 2, 2), 0.5), np.zeros((2, 2)))  # 2 states, 2 actions
LISTEN, LEFT, RIGHT = range(3)


def random_pomdp(seed, states=4, observations=2, terminal=1):
    """Two actions, each with two successors; observations depend on them, with any probability."""
    rng = np.random.default_rng(seed)
    P = np.zeros((states, 2, states))
    for s, a in itertools.product(range(states), range(2)):
        P[s, a, rng.choice(states, 2, replace=False)] = rng.dirichlet((1, 1))
    ends = np.arange(states - terminal, states)
    start = np.isin(np.arange(states), ends, invert=True) / (states - terminal)
    hidden = mdp.make(P, rng.normal(size=P.shape), start=start, terminal=ends)
    kernels = rng.dirichlet(np.ones(observations), (3, states))
    return pomdp.make(hidden, kernels[:2], kernels[2])


def random_controller(seed, found, memories=3):
    rng = np.random.default_rng(seed)
    actions, _, observations = found.O.shape
    return Controller(
        rng.dirichlet(np.ones(actions), memories),
        rng.dirichlet(np.ones(memories), (memories, actions, observations)),
        rng.dirichlet(np.ones(memories), observations),
    )


# beliefs


def test_beliefs_of_the_tiger_by_hand():
    belief, probability = beliefs.initial_belief(TIGER, 1)
    np.testing.assert_allclose([*belief, probability], [0.5, 0.5, 0.5])
    belief, probability = beliefs.belief_update(TIGER, belief, LISTEN, 0)
    np.testing.assert_allclose([*belief, probability], [0.85, 0.15, 0.5])
    belief, probability = beliefs.belief_update(TIGER, belief, LISTEN, 0)
    same = 0.85**2 + 0.15**2
    np.testing.assert_allclose([*belief, probability], [0.85**2 / same, 0.15**2 / same, same])
    back, probability = beliefs.belief_update(TIGER, belief, LISTEN, 1)
    np.testing.assert_allclose(back, [0.85, 0.15])
    after, probability = beliefs.belief_update(TIGER, belief, RIGHT, 0)
    np.testing.assert_allclose([*after, probability], [0.5, 0.5, 0.5])


def test_beliefs_are_of_episodes_that_continue():
    """From state 0 to 1 or to the end, each with 1/2; the end looks like state 1."""
    chain = mdp.make([[[0, 0.5, 0.5]], [[1, 0, 0]], [[0, 0, 1]]], np.zeros((3, 1)), terminal=[2])
    found = pomdp.make(chain, [[1, 0], [0.2, 0.8], [0.2, 0.8]])
    belief, probability = beliefs.belief_update(found, [1, 0, 0], 0, 1)
    np.testing.assert_allclose([*belief, probability], [0, 1, 0, 0.4])
    mixed, probability = beliefs.belief_update(found, [0.25, 0.75, 0], 0, 0)
    total = 0.75 + 0.25 * 0.5 * 0.2
    np.testing.assert_allclose([*mixed, probability], [0.75 / total, 0.025 / total, 0, total])


@pytest.mark.parametrize("seed", range(3))
def test_beliefs_are_conditional_distributions(seed):
    """The belief after two steps, against the sum over all paths of states."""
    found = random_pomdp(seed)
    P = found.mdp.P
    first, a, second, b, third = 1, 0, 0, 1, 1
    belief, p = beliefs.initial_belief(found, first)
    belief, q = beliefs.belief_update(found, belief, a, second)
    belief, r = beliefs.belief_update(found, belief, b, third)
    joint = np.zeros(4)
    for s, t, u in itertools.product(range(3), repeat=3):  # the last state is the end
        path = found.mdp.start[s] * found.initial[s, first] * P[s, a, t] * found.O[a, t, second]
        joint[u] += path * P[t, b, u] * found.O[b, u, third]
    np.testing.assert_allclose(p * q * r, joint.sum(), atol=1e-12)
    np.testing.assert_allclose(belief, joint / joint.sum(), atol=1e-12)


# optimal values


def test_the_optimal_value_of_the_tiger():
    """19.3711 in pomdp-solve and SARSOP, whose errors are up to 1e-3; 10 + 0.95 x that if known."""
    value = beliefs.optimal_value(TIGER, 0.95, 500)
    assert value == pytest.approx(19.37137, abs=1e-5)
    known = beliefs.optimal_value(TIGER, 0.95, 500, belief=[1, 0])
    assert known == pytest.approx(10 + 0.95 * value, abs=1e-5) == pytest.approx(28.4028, abs=1e-4)
    assert len(beliefs.reachable_beliefs(TIGER, 500).beliefs) < 100


def test_the_tiger_by_alpha_vectors_equals_its_belief_tree():
    rng = np.random.default_rng(0)
    alphas = np.zeros((1, 2))
    for horizon in range(1, 6):
        alphas = alpha_vectors.backup(TIGER, 0.95, alphas)
        same = alpha_vectors.optimal_vectors(TIGER, 0.95, horizon)
        np.testing.assert_allclose(np.sort(same, 0), np.sort(alphas, 0))
        value = beliefs.optimal_value(TIGER, 0.95, horizon)
        assert alpha_vectors.start_value(TIGER, alphas) == pytest.approx(value, abs=1e-9)
        for belief in rng.dirichlet((1, 1), 5):
            value = beliefs.optimal_value(TIGER, 0.95, horizon, belief)
            assert alpha_vectors.value(alphas, belief) == pytest.approx(value, abs=1e-9)
    # by hand: listen once, or at each of two steps
    assert beliefs.optimal_value(TIGER, 0.95, 1) == -1
    assert beliefs.optimal_value(TIGER, 0.95, 2) == pytest.approx(-1.95)


def test_alpha_vectors_converge_to_their_tolerance():
    limit = beliefs.optimal_value(TIGER, 0.75, 300)
    for tolerance in (1.0, 1e-6):
        alphas = alpha_vectors.optimal_vectors(TIGER, 0.75, tolerance=tolerance)
        error = abs(alpha_vectors.start_value(TIGER, alphas) - limit)
        assert error <= tolerance and (error > 0 or tolerance < 1e-5)
    following = alpha_vectors.backup(TIGER, 0.75, alphas)
    for p in np.linspace(0, 1, 50):
        change = alpha_vectors.value(following, [p, 1 - p]) - alpha_vectors.value(
            alphas, [p, 1 - p]
        )
        assert abs(change) < 1e-6


@pytest.mark.slow
def test_the_tiger_has_nine_alpha_vectors():
    alphas = alpha_vectors.optimal_vectors(TIGER, 0.95)
    assert len(alphas) == 9  # after having been 200
    value = beliefs.optimal_value(TIGER, 0.95, 500)
    assert alpha_vectors.start_value(TIGER, alphas) == pytest.approx(value, abs=1e-6)


def test_no_vector_can_be_removed_and_none_is_missing():
    """Lines by the envelope and by linear programs, against the maximum on a grid."""
    rng = np.random.default_rng(1)
    angle = np.sort(rng.uniform(0, np.pi / 2, 12))
    round_ = np.stack([np.cos(angle), np.sin(angle)], 1)  # each is largest somewhere
    vectors = np.concatenate([round_, 0.9 * round_, round_[:1], (round_[:-1] + round_[1:]) / 2])
    expected = set(map(tuple, round_))
    grid = np.linspace(0, 1, 5_001)
    points = np.stack([1 - grid, grid], 1)
    for kept in (
        alpha_vectors.prune(vectors),
        vectors[alpha_vectors._prune_by_programs(vectors)],
        alpha_vectors.prune(np.insert(vectors, 1, 0.0, axis=1))[:, [0, 2]],  # a terminal state
    ):
        assert set(map(tuple, kept)) <= expected
        np.testing.assert_allclose(
            (points @ kept.T).max(1), (points @ vectors.T).max(1), atol=1e-12
        )
        assert len(kept) == len(np.unique((points @ round_.T).argmax(1)))
    ties = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # each equals the best one somewhere
    for prune in (alpha_vectors._prune_lines, alpha_vectors._prune_by_programs):
        np.testing.assert_array_equal(ties[prune(ties)], [[1, 1]])


@pytest.mark.parametrize("seed", range(3))
def test_alpha_vectors_of_random_problems_equal_the_belief_tree(seed):
    """Three states and the end, so that vectors are pruned by linear programs."""
    found = random_pomdp(seed)
    alphas = alpha_vectors.optimal_vectors(found, 0.9, 3)
    value = beliefs.optimal_value(found, 0.9, 3)
    assert alpha_vectors.start_value(found, alphas) == pytest.approx(value, abs=1e-9)
    for belief in np.random.default_rng(seed).dirichlet(np.ones(4), 5):
        value = beliefs.optimal_value(found, 0.9, 3, belief)
        assert alpha_vectors.value(alphas, belief) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_optimal_values_are_convex_in_the_belief(seed):
    found = random_pomdp(seed, terminal=0)
    rng = np.random.default_rng(seed)
    value = partial(beliefs.optimal_value, found, 0.9, 4)
    gaps = []
    for x, y in rng.dirichlet(np.full(4, 0.3), (10, 2)):
        weight = rng.uniform()
        middle = value(weight * x + (1 - weight) * y)
        gaps.append(weight * value(x) + (1 - weight) * value(y) - middle)
    assert min(gaps) > -1e-12 and max(gaps) > 1e-3


@pytest.mark.parametrize("length", (1, 4, 10))
def test_the_t_maze_in_closed_form(length):
    found = mdp.t_maze(length)
    for gamma in (0.98, 1.0):
        optimal = 4 * gamma**length
        assert beliefs.optimal_value(found, gamma, 50) == pytest.approx(optimal, abs=1e-9)
        assert beliefs.optimal_value(found, gamma, length + 1) == pytest.approx(optimal, abs=1e-9)
        assert beliefs.optimal_value(found, gamma, length) == 0  # too few steps
    assert len(beliefs.reachable_beliefs(found, 50).beliefs) == 2 * (length + 1)
    pi, value = controllers.best_memoryless(found, 0.98)
    assert value == pytest.approx(0.98**length * (4 - 0.1) / 2, abs=1e-9)
    right, corridor = 1, range(2 if length == 1 else 3)  # of length 1, 2 does not occur
    assert (pi[corridor].argmax(1) == right).all() and pi[3].argmax() in (0, 2)


def test_observed_actions_change_no_value():
    plain, shown = mdp.tiger(), mdp.pomdp.observe_actions(mdp.tiger())
    assert shown.O.shape == (3, 2, 8)
    for horizon in (1, 2, 5):
        values = [
            alpha_vectors.start_value(x, alpha_vectors.optimal_vectors(x, 0.95, horizon))
            for x in (plain, shown)
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-12)
    np.testing.assert_array_equal(shown.O.sum((1, 2)), 2)


def test_the_environment_shows_the_action_that_was_taken():
    env = envs.bind("tiger_with_actions")
    state = env.reset(jax.random.key(0), 64)
    assert set(np.unique(state.obs)) == {6, 7}  # no action yet
    for action in range(3):
        keys = jax.random.split(jax.random.key(action), 64)
        state, _, _ = env.step(keys, state, jnp.full(64, action, jnp.int32))
        assert set(np.unique(state.obs)) == {2 * action, 2 * action + 1}


def t_maze_controller():
    """Memory 0 and 1: the cue, in the corridor; 2 and 3: the cue, at the junction."""
    pi = np.eye(4)[[1, 1, 0, 2]]
    transition = np.zeros((4, 4, 4, 4))
    for m, z in itertools.product(range(4), repeat=2):
        transition[m, :, z, m % 2 + 2 * (z == 3)] = 1
    start = np.eye(4)
    return Controller(pi, transition, start)


def test_a_controller_with_one_bit_is_optimal_in_the_t_maze():
    for length, gamma in ((1, 0.9), (10, 0.98), (10, 1.0)):
        value = controllers.evaluate_controller(mdp.t_maze(length), gamma, t_maze_controller())
        assert value == pytest.approx(4 * gamma**length, abs=1e-9)
    confused = t_maze_controller()._replace(pi=np.eye(4)[[1, 1, 2, 0]])
    assert controllers.evaluate_controller(mdp.t_maze(3), 1.0, confused) == pytest.approx(-0.1)
    within = partial(controllers.evaluate_controller, mdp.t_maze(3), 1.0, t_maze_controller())
    assert within(horizon=3) == 0 and within(horizon=4) == pytest.approx(4)


@pytest.mark.parametrize(("length", "memoryless"), [(1, 0.9), (2, 0), (5, 0)])
def test_the_memory_chain_in_closed_form(length, memoryless):
    found = mdp.memory_chain(length)
    assert beliefs.optimal_value(found, 0.9, 50) == pytest.approx(0.9**length, abs=1e-12)
    assert beliefs.optimal_value(found, 0.9, length) == 0
    assert controllers.best_memoryless(found, 0.9)[1] == pytest.approx(memoryless, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_with_states_observed_values_are_those_of_the_mdp(seed):
    """O is the identity: beliefs are certain, and the best memoryless policy is optimal."""
    hidden = random_pomdp(seed, states=5).mdp
    found = pomdp.make(hidden, np.eye(5))
    with jax.enable_x64(True):
        q = np.asarray(dp.value_iteration(hidden, 0.8))
    v = np.where(hidden.terminal, 0, q.max(-1))
    tree = beliefs.optimal_value(found, 0.8, 150)
    assert tree == pytest.approx(hidden.start @ v, abs=1e-9)
    alphas = alpha_vectors.optimal_vectors(found, 0.8, tolerance=1e-3)
    np.testing.assert_allclose(alphas.max(0), v, atol=1e-3)
    pi, value = controllers.best_memoryless(found, 0.8)
    assert value == pytest.approx(tree, abs=1e-9)
    np.testing.assert_array_equal(pi.argmax(1)[:4], q.argmax(1)[:4])


# policies


@pytest.mark.parametrize("seed", range(3))
def test_memoryless_policies_are_controllers_of_observations(seed):
    found = random_pomdp(seed, observations=3)
    pi = np.random.default_rng(seed).dirichlet(np.ones(2), 3)
    both = controllers.memoryless(pi)
    for gamma, horizon in ((0.9, None), (1.0, None), (0.9, 7), (1.0, 1)):
        value = controllers.evaluate_memoryless(found, gamma, pi, horizon)
        same = controllers.evaluate_controller(found, gamma, both, horizon)
        assert value == pytest.approx(same, abs=1e-9) and abs(value) > 1e-3
    one_step = np.einsum("s,sz,za,sa->", found.mdp.start, found.initial, pi, found.mdp.r)
    assert value == pytest.approx(one_step, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_is_better_than_the_optimal_one(seed):
    found = random_pomdp(seed, terminal=0)
    optimal = beliefs.optimal_value(found, 0.9, 6)
    pi, best = controllers.best_memoryless(found, 0.9, horizon=6)
    assert best == pytest.approx(controllers.evaluate_memoryless(found, 0.9, pi, 6), abs=1e-12)
    worse = -beliefs.optimal_value(found.replace(mdp=negated(found.mdp)), 0.9, 6)
    assert worse < best <= optimal + 1e-12
    for actions in itertools.product(range(2), repeat=2):
        value = controllers.evaluate_memoryless(found, 0.9, np.eye(2)[list(actions)], 6)
        assert value <= best + 1e-12
    for policy in range(5):
        controller = random_controller(policy, found)
        value = controllers.evaluate_controller(found, 0.9, controller, horizon=6)
        assert worse - 1e-12 <= value <= optimal + 1e-12


def negated(hidden):
    return hidden.replace(R=-hidden.R)


def test_values_of_an_infinite_horizon_are_limits():
    found = random_pomdp(0, terminal=0)
    controller = random_controller(0, found)
    value = controllers.evaluate_controller(found, 0.9, controller)
    assert value == pytest.approx(
        controllers.evaluate_controller(found, 0.9, controller, 400), abs=1e-9
    )


def test_a_finite_state_controller_of_the_tiger_by_hand():
    """Opens the door after listening once: 0.85 x 10 - 0.15 x 100, discounted by one step."""
    hear_left, hear_right, start = range(3)
    pi = np.eye(3)[[RIGHT, LEFT, LISTEN]]
    transition = np.zeros((3, 3, 2, 3))
    transition[:2, :, :, start] = 1
    transition[start, :, 0, hear_left] = transition[start, :, 1, hear_right] = 1
    first = np.eye(3)[[start, start]]
    once = -1 + 0.95 * (0.85 * 10 - 0.15 * 100)
    value = controllers.evaluate_controller(TIGER, 0.95, Controller(pi, transition, first))
    assert value == pytest.approx(once / (1 - 0.95**2))


# named problems


@pytest.mark.parametrize("name", mdp.NAMED_POMDPS)
def test_named_pomdps_are_environments(name):
    env = envs.make(name)
    build, max_steps = mdp.NAMED_POMDPS[name]
    assert name in envs.names() and env.name == name
    pomdp.validate(env.pomdp)
    np.testing.assert_array_equal(env.pomdp.O, build().O)
    bound = envs.bind(name)
    assert bound.max_steps == max_steps and bound.observation_space.n == env.pomdp.O.shape[2]
    assert bound.num_actions == env.pomdp.O.shape[0]
    assert exact(env) is None  # tables of values are not of its states


CHAIN, PARAMS = gymnax.make("MemoryChain-bsuite")
STEP, OBSERVE = jax.jit(CHAIN.step_env), jax.jit(CHAIN.get_obs)


@pytest.mark.parametrize("length", (1, 2, 5))
@pytest.mark.parametrize("bit", (0, 1))
def test_the_memory_chain_equals_gymnax(length, bit):
    """Observations, rewards and terminations of a whole episode, for both last actions."""
    found = mdp.memory_chain(length)
    params = PARAMS.replace(memory_length=length)
    key = jax.random.key(0)
    state = CHAIN.reset_env(key, params)[1].replace(context=jnp.array([bit], jnp.int32))
    s = int(np.flatnonzero(found.mdp.start)[bit])
    seen, numbers = [OBSERVE(state, params)], [int(found.initial[s].argmax())]
    for _ in range(length + 1):
        for action in (1, 0):
            obs, after, reward, _, _ = STEP(key, state, action, params)
            successor = int(found.mdp.P[s, action].argmax())
            assert float(reward) == found.mdp.R[s, action, successor]
            assert bool(CHAIN.is_terminated(after, params)) == found.mdp.terminal[successor]
        state, s = after, successor
        seen, numbers = [*seen, obs], [*numbers, int(found.O[0, s].argmax())]
    assert found.mdp.terminal[s]
    for (x, i), (y, j) in itertools.combinations(zip(seen, numbers, strict=True), 2):
        assert bool((x == y).all()) == (i == j)  # equal observations have equal numbers
    assert numbers[0] == bit


def test_windows_of_a_grid_by_hand():
    found = mdp.windowed_grid(mdp.from_map(["S..", ".#G"]))
    cells = found.mdp.grid.position
    assert cells == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    np.testing.assert_array_equal(found.O[0], np.eye(5))  # five cells that look different
    corridor = mdp.windowed_grid(mdp.from_map("S.....G"))
    np.testing.assert_array_equal(corridor.O[0].argmax(1), [0, 1, 1, 1, 1, 2, 3])
    np.testing.assert_array_equal(corridor.initial, corridor.O[0])
    noisy = mdp.windowed_grid(mdp.from_map("S.....G"), epsilon=0.2)
    np.testing.assert_allclose(noisy.O, 0.8 * corridor.O + 0.05)
    hole = mdp.windowed_grid(mdp.from_map(["S...G", "..H..", "....."]))
    assert hole.O[0, 0].argmax() != hole.O[0, 1].argmax()  # the hole is seen from (0, 1)


def test_the_tiger_by_hand():
    np.testing.assert_allclose(TIGER.O[LISTEN], [[0.85, 0.15], [0.15, 0.85]])
    np.testing.assert_allclose(TIGER.O[1:], 0.5)
    np.testing.assert_allclose(TIGER.mdp.P[:, LISTEN], np.eye(2))
    np.testing.assert_allclose(TIGER.mdp.P[:, 1:], 0.5)
    np.testing.assert_allclose(TIGER.mdp.r, [[-1, -100, 10], [-1, 10, -100]])
    assert not TIGER.mdp.terminal.any()


# environments


def play(env, steps, num_envs, pi):
    """Transitions [T, N] of a policy [Z, A]."""
    bound = envs.bind(env)

    def actor(key, obs, step, carry):
        return jax.random.categorical(key, jnp.log(jnp.asarray(pi))[obs]), (), carry

    keys = jax.random.split(jax.random.key(1), (steps, 1 + num_envs))
    start = bound.reset(jax.random.key(0), num_envs)
    rows = jax.jit(partial(envs.rollout, bound, actor=actor))(keys, start, 0)[1][0]
    return jax.tree.map(np.asarray, rows)


def expect_frequencies(position, z, expected):
    """States and observations of joint probabilities [S, Z], by z-scores."""
    counts = np.zeros(expected.shape)
    np.add.at(counts, (position, z), 1)
    assert (counts[expected == 0] == 0).all()
    error = np.sqrt(len(z) * expected * (1 - expected))
    assert (np.abs(counts - len(z) * expected) <= 5 * error).all()


def test_frequencies_of_transitions_and_observations():
    """Of (s', z), for every state and action, and of (s, z) at the start."""
    found = random_pomdp(5, states=3, observations=3)
    kernels = np.stack([*found.O, found.initial]) * (1 - np.eye(3))  # z is never s'
    kernels /= kernels.sum(-1, keepdims=True)
    found = pomdp.make(found.mdp, kernels[:2], kernels[2])
    params = PartiallyObserved(found).default_params
    env, n = PartiallyObserved(found), 20_000
    s, a = np.indices((2, 2)).reshape(2, 4)

    def step(key, s, a):
        begun = env.reset_env(key, params)[1].replace(position=s)
        return env.step_env(key, begun, a, params)

    keys = jax.random.split(jax.random.key(7), n)
    every = jax.vmap(jax.vmap(step, (0, None, None)), (None, 0, 0))
    z, after, reward, terminated, _ = jax.jit(every)(keys, jnp.asarray(s), jnp.asarray(a))
    np.testing.assert_array_equal(z, after.observation)
    np.testing.assert_array_equal(terminated, found.mdp.terminal[after.position])
    for i in range(4):
        expected = found.mdp.P[s[i], a[i]][:, None] * found.O[a[i]]
        expect_frequencies(np.asarray(after.position[i]), np.asarray(z[i]), expected)
        exact_reward = found.mdp.R[s[i], a[i], after.position[i]]
        np.testing.assert_allclose(reward[i], exact_reward, rtol=1e-5)
    z, start = jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, params)
    expected = found.mdp.start[:, None] * found.initial
    expect_frequencies(np.asarray(start.position), np.asarray(z), expected)


def test_time_limits_keep_the_final_observation():
    """Every roar is right, and nothing terminates: z is the state, in episodes of 3 steps."""
    found = mdp.tiger(accuracy=1.0)
    listening = np.eye(3)[[LISTEN] * 2]
    rows = play(PartiallyObserved(found, "mine", max_steps=3), 12, 64, listening)
    last = np.arange(12) % 3 == 2
    np.testing.assert_array_equal(rows.last, np.broadcast_to(last[:, None], (12, 64)))
    assert (rows.discount == 1).all() and (rows.reward == -1).all()
    inside = ~last[:-1]
    np.testing.assert_array_equal(rows.next_obs[:-1][inside], rows.obs[1:][inside])
    np.testing.assert_array_equal(rows.next_obs[1::3], rows.next_obs[::3])  # the tiger stays
    np.testing.assert_array_equal(rows.next_obs[2::3], rows.next_obs[::3])
    assert (rows.next_obs[2:-1:3] != rows.obs[3::3]).any()  # of the next episode


def test_values_of_policies_equal_mean_returns():
    """Exact values under a time limit, some episodes reaching it and others the end."""
    found, limit = random_pomdp(4), 5
    pi = np.array([[0.2, 0.8], [0.9, 0.1]])
    rows = play(PartiallyObserved(found, max_steps=limit), limit, 20_000, pi)
    inside = np.cumsum(rows.last, 0) - rows.last == 0  # the first episode
    returns = (rows.reward * inside).sum(0)
    truncated = ((rows.discount == 1) & rows.last & inside).sum(0)
    assert 0.1 < truncated.mean() < 0.9
    value = controllers.evaluate_memoryless(found, 1.0, pi, limit)
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - value) < 4.5 * error < 0.1
    without_limit = controllers.evaluate_memoryless(found, 1.0, pi)
    assert abs(returns.mean() - without_limit) > 10 * error


def test_tables_have_a_row_for_each_observation():
    env = PartiallyObserved(mdp.memory_chain(1))
    config = prl.preset("q_learning", env).replace(total_steps=2_000, gamma=0.9)
    state, _ = jax.jit(prl.make_train(config))(jax.random.key(0))
    q = np.asarray(state.agent.q[0])
    assert q.shape == (3, 2)
    value = controllers.evaluate_memoryless(env.pomdp, 0.9, np.eye(2)[q.argmax(1)])
    assert value == pytest.approx(0.9)


def test_environments_can_be_vmapped_over_stacked_pomdps():
    """Parameters take precedence over the POMDP of the environment."""
    corridor = mdp.from_map("S.....G")
    both = [mdp.windowed_grid(corridor, epsilon) for epsilon in (0.0, 0.2)]
    params = [tables(found, 7, observations=4) for found in both]
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *params)
    env, n = PartiallyObserved(both[1]), 4_000

    def step(key, params):
        obs, state = env.reset_env(key, params)
        return obs, env.step(key, state, jnp.int32(1), params)[0]

    keys = jax.random.split(jax.random.key(1), n)
    first, second = jax.jit(jax.vmap(jax.vmap(step, (0, None)), (None, 0)))(keys, stacked)
    assert (first[0] == 0).all() and (second[0] == 1).all()
    for seen in (np.asarray(first[1] == 0), np.asarray(second[1] == 1)):
        assert seen.mean() == pytest.approx(0.85, abs=5 * np.sqrt(0.13 / n))


CONTROLLER = random_controller(0, TIGER)
ROUNDED = np.broadcast_to(np.array([0.7, 0.2, 0.1], np.float32), (3, 2, 3))  # their sum is not 1
ENDLESS = pomdp.make(mdp.make(ROUNDED, np.ones((3, 2))), np.eye(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pomdp.make("tiger", np.eye(2)), "needs an MDP, not 'tiger': see mdp.make"),
        (lambda: pomdp.make(COIN, "eye"), "O and initial must be arrays of numbers"),
        (lambda: pomdp.make(COIN, np.ones(2)), r"O has shape \(2,\), but must be \[A, S, Z\]"),
        (lambda: pomdp.make(COIN, np.eye(3)), r"O has shape \(2, 3, 3\)"),
        (lambda: pomdp.make(COIN, np.ones((2, 0))), r"O has shape \(2, 2, 0\)"),
        (
            lambda: pomdp.make(COIN, np.stack([np.eye(2)] * 2)),
            r"O depends on the action: give initial \[S, Z\]",
        ),
        (
            lambda: pomdp.make(COIN, np.eye(2), np.eye(3)),
            r"initial has shape \(3, 3\), but must be \(2, 2\)",
        ),
        (
            lambda: pomdp.make(COIN, 0.9 * np.eye(2)),
            r"O\[0, 0\] sums to 0.9 .* must be probabilities",
        ),
        (lambda: pomdp.make(COIN, np.eye(2), [[1, 0], [2, -1]]), r"initial\[1\] .*entry -1"),
        (
            lambda: pomdp.make(mdp.maximization_bias(), np.eye(3)),
            "action 2 is illegal in state 0.* make all actions legal",
        ),
        (
            lambda: pomdp.make(COIN.replace(P=0.5 * COIN.P), np.eye(2)),
            r"P\[0, 0\] sums to 0.5",
        ),
        (lambda: mdp.t_maze(0), "length is 0, but must be at least 1"),
        (lambda: mdp.memory_chain(0), "length is 0, but must be at least 1"),
        (lambda: mdp.t_maze(2.5), "length is 2.5, but must be a whole number"),
        (lambda: mdp.memory_chain("3"), "length is '3', but must be a whole number"),
        (lambda: mdp.tiger("high"), "accuracy is 'high', but must be a number"),
        (lambda: mdp.tiger(eaten=None), "eaten is None, but must be a number"),
        (lambda: mdp.windowed_grid(mdp.frozen_lake(), "a"), "epsilon is 'a', but must be a number"),
        (lambda: beliefs.optimal_value(TIGER, "a", 3), "gamma is 'a', but must be a number"),
        (lambda: beliefs.optimal_value(TIGER, 0.9, 2.5), "horizon is 2.5, but must be a whole"),
        (lambda: beliefs.reachable_beliefs(TIGER, 2, max_beliefs=2.5), "max_beliefs is 2.5, but"),
        (lambda: beliefs.initial_belief(TIGER, 0.5), "observation is 0.5, but must be a whole"),
        (lambda: beliefs.belief_update(TIGER, [1, 0], "a", 0), "action is 'a', but must be"),
        (lambda: alpha_vectors.optimal_vectors(TIGER, 0.9, tolerance="a"), "tolerance is 'a', but"),
        (lambda: controllers.best_memoryless(TIGER, 0.9, 3, "a"), "max_policies is 'a', but must"),
        (lambda: mdp.tiger(1.2), "accuracy is 1.2, but must be between 0 and 1"),
        (lambda: mdp.windowed_grid(mdp.chain()), "needs an MDP with a map: see mdp.from_map"),
        (lambda: mdp.windowed_grid(mdp.frozen_lake(), -1), "epsilon is -1, but must be between"),
        (lambda: PartiallyObserved(COIN), "needs a POMDP, not an MDP: see mdp.pomdp.make"),
        (lambda: PartiallyObserved(TIGER, max_steps=0), "max_steps is 0"),
        (lambda: Tabular(TIGER), "Tabular needs an MDP, not a POMDP"),
        (lambda: envs.make("t_mase"), "did you mean t_maze"),
        (lambda: beliefs.initial_belief(mdp.t_maze(), 3), "no episode starts with observation 3"),
        (lambda: beliefs.initial_belief(TIGER, 2), "there is no observation 2: use 0 to 1"),
        (
            lambda: beliefs.belief_update(mdp.tiger(1.0), [1, 0], LISTEN, 1),
            "after action 0, observation 1 has probability 0",
        ),
        (lambda: beliefs.belief_update(TIGER, [1, 0], 3, 1), "there is no action 3: use 0 to 2"),
        (lambda: beliefs.belief_update(TIGER, [1, 0, 0], 0, 1), r"belief has shape \(3,\)"),
        (lambda: beliefs.belief_update(TIGER, [1, 1], 0, 1), "belief sums to 2 "),
        (
            lambda: beliefs.optimal_value(random_pomdp(0), 0.9, 9, max_beliefs=100),
            "more than 100 beliefs can occur in 9 steps: lower the horizon",
        ),
        (lambda: beliefs.optimal_value(TIGER, 1.1, 3), "gamma is 1.1, but must be between 0 and 1"),
        (lambda: beliefs.optimal_value(TIGER, 1.0, 0), "horizon is 0, but must be at least 1"),
        (lambda: alpha_vectors.optimal_vectors(TIGER, 1.0), "gamma is 1: lower it, or give a hori"),
        (lambda: alpha_vectors.optimal_vectors(TIGER, 0.9, 0), "horizon is 0"),
        (lambda: alpha_vectors.optimal_vectors(TIGER, 0.9, tolerance=0), "tolerance is 0, but"),
        (
            lambda: controllers.best_memoryless(mdp.windowed_grid(mdp.four_rooms()), 0.9),
            r"there are 4\^32 = 1.84e\+19 deterministic memoryless policies.*max_policies is 10000",
        ),
        (
            lambda: controllers.evaluate_memoryless(TIGER, 0.9, np.eye(3)),
            r"pi has shape \(3, 3\), but must be \(2, 3\)",
        ),
        (
            lambda: controllers.evaluate_memoryless(TIGER, 0.9, np.ones((2, 3))),
            "every row of pi must be probabilities",
        ),
        (
            lambda: controllers.evaluate_memoryless(TIGER, 1.0, np.eye(3)[:2]),
            "gamma is 1, but the policy does not always terminate: lower gamma, or give a horizon",
        ),
        (
            lambda: controllers.evaluate_memoryless(TIGER, 1, ROUNDED[0]),
            "gamma is 1, but the policy does not always terminate",
        ),
        (
            lambda: controllers.evaluate_memoryless(ENDLESS, 1, np.full((3, 2), 0.5)),
            "gamma is 1, but the policy does not always terminate",
        ),
        (
            lambda: controllers.evaluate_controller(
                TIGER, 0.9, CONTROLLER._replace(start=np.ones((3, 2)))
            ),
            r"start has shape \(3, 2\), but must be \(2, 3\)",
        ),
        (
            lambda: controllers.evaluate_controller(
                TIGER, 0.9, CONTROLLER._replace(transition=np.ones((3, 3, 2, 3)))
            ),
            "every row of transition must be probabilities",
        ),
        (lambda: controllers.evaluate_controller(TIGER, 2, CONTROLLER), "gamma is 2, but must be"),
        (
            lambda: controllers.evaluate_controller(TIGER, 0.9, np.eye(2)),
            r"controller is an array of shape \[2, 2\], but must be a Controller: use memoryless",
        ),
        (lambda: controllers.memoryless([0.5, 0.5]), r"pi has shape \(2,\), but must be \[Z, A\]"),
        (lambda: beliefs.optimal_value(TIGER.mdp, 0.9, 2), "pomdp is an MDP, but must be a POMDP"),
        (lambda: controllers.evaluate_controller(TIGER, 1, CONTROLLER, -1), "horizon is -1, but"),
    ],
)
def test_invalid_arguments_raise_one_clear_line(build, message):
    with pytest.raises(prl.ConfigError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
