"""Prioritised replay: the sums of its tree, and draws, weights and indices by definition."""

from functools import cache, partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from purejaxrl_sac.memory.replay import SMALLEST, prioritized
from purejaxrl_sac.memory.storage import deduplicated, n_step, ring
from purejaxrl_sac.memory.sum_tree import (
    FAN_OUT,
    choose_by_comparisons,
    choose_by_reductions,
    descend,
    draw_leaves,
    empty_tree,
    write_block,
    write_tree,
)
from purejaxrl_sac.types import Transition
from tests.conftest import FULL_COMPILATION

TREES = pytest.mark.parametrize(
    ("capacity", "fan_out"),
    ((1, 64), (63, 64), (64, 64), (65, 64), (5_000, 64), (65, 2), (100, 4), (5_000, 16)),
)
CHOICES = pytest.mark.parametrize("choose", (choose_by_reductions, choose_by_comparisons))
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


write_leaves = jax.jit(write_tree, static_argnums=3)


def tree_of(values, fan_out=FAN_OUT):
    values = np.asarray(values, np.float32)
    return write_leaves(empty_tree(len(values), fan_out), np.arange(len(values)), values, fan_out)


def expect_sums(tree, fan_out):
    for below, above in pairwise(tree):
        sums = np.asarray(below, np.float64).reshape(-1, fan_out).sum(-1)
        np.testing.assert_allclose(above[: len(sums)], sums, rtol=1e-6)
        assert not np.asarray(above)[len(sums) :].any()
    assert len(tree[-1]) == fan_out


@TREES
def test_sums_are_exact_after_random_writes(capacity, fan_out):
    rng = np.random.default_rng(0)
    tree, expected = empty_tree(capacity, fan_out), np.zeros(capacity, np.float32)
    write = jax.jit(partial(write_tree, fan_out=fan_out))
    for _ in range(20):
        leaf = rng.integers(0, capacity, 50)
        value = rng.uniform(0, 3, 50).astype(np.float32) * (rng.random(50) < 0.8)
        tree = write(tree, leaf, value)
        expected[leaf] = 0
        np.maximum.at(expected, leaf, value)
        np.testing.assert_array_equal(tree[0][:capacity], expected)
        expect_sums(tree, fan_out)
    assert not tree[0][capacity:].any()


@TREES
def test_writing_a_block_equals_writing_its_leaves(capacity, fan_out):
    rng = np.random.default_rng(6)
    tree = tree_of(rng.random(capacity), fan_out)
    write = jax.jit(jax.vmap(partial(write_block, fan_out=fan_out), (0, None, 0)))
    for count in {1, min(capacity, 2), min(capacity, 70), capacity}:
        value = np.float32(rng.random(count))
        for start in rng.integers(0, capacity - count + 1, 5):
            expected = write_leaves(tree, start + np.arange(count), value, fan_out)
            block = jax.tree.map(lambda x: np.asarray(x)[None], (tree, value))
            found = jax.tree.map(lambda x: np.asarray(x)[0], write(block[0], start, block[1]))
            np.testing.assert_array_equal(found[0], expected[0])
            chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_both_choices_among_siblings_agree():
    tree = tree_of(np.random.default_rng(7).random(5_000))
    numbers = uniform(tree, 10_000)
    one, other = (
        jax.jit(partial(descend, fan_out=FAN_OUT, choose=choose))(tree, numbers)
        for choose in (choose_by_reductions, choose_by_comparisons)
    )
    one, other = jax.device_get((one, other))
    same = one[0] == other[0]
    assert same.mean() > 0.999  # another order of summation rounds differently
    np.testing.assert_allclose(one[1][same], other[1][same], rtol=1e-5)


def test_trees_have_the_minimum_height():
    heights = [len(empty_tree(capacity)) for capacity in (1, 8, 9, 64, 65, 10**6)]
    assert heights == [1, 1, 2, 2, 3, 7]
    assert [len(level) for level in empty_tree(70, 4)] == [72, 20, 8, 4]


def uniform(tree, count, seed=0):
    return np.random.default_rng(seed).random((count, len(tree)), np.float32)


BLOCK = 5_000  # twice the corners of the highest tree


@cache
def descending(fan_out, choose):
    return jax.jit(partial(descend, fan_out=fan_out, choose=choose))


@CHOICES
@TREES
def test_leaves_are_drawn_in_proportion_to_their_values(capacity, fan_out, choose):
    rng = np.random.default_rng(1)
    values = rng.exponential(size=capacity) * (rng.random(capacity) < 0.7)
    values[0] = 1
    tree = tree_of(values, fan_out)
    count = 50_000
    draw = descending(fan_out, choose)
    blocks = uniform(tree, count).reshape(-1, BLOCK, len(tree))
    drawn = [jax.device_get(draw(tree, block)) for block in blocks]
    leaf, probability = (np.concatenate(x) for x in zip(*drawn, strict=True))
    assert leaf.dtype == jnp.int32
    np.testing.assert_allclose(probability, values[leaf] / values.sum(), rtol=1e-4)
    counts = np.bincount(leaf, minlength=capacity)
    assert len(counts) == capacity and not counts[values == 0].any()
    expected = count * values / values.sum()
    often = expected > 5
    counts = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    if (capacity > 1) and expected[-1] == 0:
        counts, expected = counts[:-1], expected[:-1]
    deviation = ((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert deviation <= stats.chi2.ppf(0.9999, max(len(counts) - 1, 1))


@CHOICES
@pytest.mark.parametrize("fan_out", (2, 8))
def test_draws_are_stratified(fan_out, choose):
    """One draw from each of B equal ranges (Schaul et al. 2016, appendix B.2.1)."""
    batch, repetitions = 32, 2_000
    values = np.random.default_rng(8).exponential(size=100) ** 3
    tree = tree_of(values, fan_out)
    numbers = uniform(tree, repetitions * batch).reshape(repetitions, batch, -1)
    draw = jax.jit(jax.vmap(partial(descend, fan_out=fan_out, choose=choose), (None, 0)))
    leaf = np.asarray(draw(tree, numbers)[0])
    # the probability that draw i, from [i, i + 1], is leaf j, from [edge_j, edge_{j + 1}]
    edges = np.append(0, values.cumsum()) / values.sum() * batch
    i = np.arange(batch)[:, None]
    overlap = np.minimum(edges[1:], i + 1) - np.maximum(edges[:-1], i)
    expected = np.maximum(overlap, 0)
    found = (leaf[..., None] == np.arange(100)).mean(0)
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / repetitions**0.5)
    assert not found[expected == 0].any()
    counts = (leaf == values.argmax()).sum(-1)
    variance = (expected * (1 - expected)).sum(0)[values.argmax()]
    assert (
        edges[values.argmax() + 1] - edges[values.argmax()] > 2
    )  # of independent draws: 2 or more
    np.testing.assert_allclose(counts.var(), variance, atol=0.05)
    assert variance <= 0.5


def corners(tree):
    """Numbers that combine, for every level, 0, the largest number below 1 and a random one."""
    choices = np.meshgrid(*[range(3)] * len(tree), indexing="ij")
    choices = np.stack([c.ravel() for c in choices], -1)
    choices = np.resize(choices, (BLOCK, len(tree)))
    anywhere = np.random.default_rng(2).random(choices.shape, np.float32)
    return np.choose(choices, (np.float32(0), BELOW_ONE, anywhere))


@CHOICES
@TREES
def test_leaves_of_value_zero_are_never_drawn(capacity, fan_out, choose):
    rng = np.random.default_rng(3)
    draw = descending(fan_out, choose)
    for attempt in range(10):
        values = (10 ** rng.uniform(-6, 6, capacity)).astype(np.float32)
        values[rng.random(capacity) < 0.2 * (attempt % 5)] = 0
        values[rng.integers(capacity)] = 1e-6
        tree = tree_of(values, fan_out)
        leaf, probability = jax.device_get(draw(tree, corners(tree)))
        assert (leaf < capacity).all() and (values[leaf] > 0).all()
        assert (probability > 0).all()


@CHOICES
@pytest.mark.parametrize("count", (8, 37, 64))
def test_rounding_never_draws_leaves_of_value_zero(count, choose):
    """Uniform numbers within a few ulps of every cumulative sum."""
    rng = np.random.default_rng(4)
    one = partial(descend, fan_out=64, choose=choose)  # draws from the whole range
    draw = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, 0)))
    values = (10 ** rng.uniform(-1, 1, (200, 64))).astype(np.float32)
    values[rng.random(values.shape) < 0.5] = 0
    values[:, count:] = 0
    values[:, 0] += 1e-3
    trees = (jnp.asarray(values),)
    edges = np.cumsum(values, -1, dtype=np.float64)
    edges = (edges / edges[:, -1:]).astype(np.float32)
    near = [np.minimum(edges * np.float32(1 + k * 2**-23), BELOW_ONE) for k in range(-3, 4)]
    numbers = jnp.asarray(np.concatenate(near, -1)[..., None, None])
    leaf = draw(trees, numbers)[0][..., 0]
    assert (np.take_along_axis(values, np.asarray(leaf), -1) > 0).all()
    assert len(np.unique(leaf)) == count


def test_the_extreme_numbers_draw_the_first_and_the_last_leaf():
    values = np.zeros(200, np.float32)
    values[[70, 71, 150]] = 1e-6, 5, 1e-3
    tree = tree_of(values)
    leaf, _ = draw_leaves(tree, jnp.array([[0] * len(tree), [BELOW_ONE] * len(tree)]))
    np.testing.assert_array_equal(leaf, [70, 150])


def test_rounding_errors_do_not_accumulate_over_many_writes():
    """Ten million priorities from 1e-6 to 1e6, which sums updated by differences would corrupt."""
    capacity, batch = 5_000, 100
    rng = np.random.default_rng(5)
    leaves = jnp.asarray(rng.integers(0, capacity, (997, batch), np.int32))
    values = 10 ** rng.uniform(-6, 6, leaves.shape) * (rng.random(leaves.shape) < 0.9)
    values = jnp.asarray(values, jnp.float32)

    def write(tree, count):
        leaf = (leaves[count % 997] + count) % capacity
        return write_tree(tree, leaf, values[count % 997]), None

    fill = jax.jit(
        lambda tree: jax.lax.scan(write, tree, jnp.arange(100_000))[0],
        compiler_options=FULL_COMPILATION,
    )
    tree = fill(empty_tree(capacity))
    written = np.asarray(tree[0], np.float64)
    np.testing.assert_allclose(np.asarray(tree[-1], np.float64).sum(), written.sum(), rtol=1e-5)
    expect_sums(tree, FAN_OUT)
    assert 0.05 < (written[:capacity] == 0).mean() < 0.15
    for numbers in (uniform(tree, 100_000), corners(tree)):
        leaf, _ = jax.jit(draw_leaves)(tree, numbers)
        assert (written[np.asarray(leaf)] > 0).all()


LENGTH, NUM_ENVS, ROWS = 2, 3, 8
CAPACITY = ROWS * NUM_ENVS


def rollout(start, length=LENGTH):
    """A rollout whose entries identify their time and environment."""
    time, env = np.indices((length, NUM_ENVS), np.int32)
    time += start
    obs, ones = np.stack([time, env], -1), np.ones((length, NUM_ENVS), np.float32)
    reward = np.float32(time * 10.0 + env)
    return Transition(obs, env, reward, ones, obs + np.array([1, 0], np.int32), ones == 0)


@cache
def memory_of(omega=1.0, beta=0.5, batch_size=16, total_steps=600, storage=None):
    """A memory of which each function is compiled."""
    storage = storage or ring(CAPACITY, NUM_ENVS)
    memory = prioritized(storage, batch_size, omega, beta, total_steps)
    return memory._replace(
        add=jax.jit(memory.add),
        draw=jax.jit(memory.draw, static_argnums=3),
        sample=jax.jit(memory.sample),
        update_priorities=jax.jit(memory.update_priorities),
    )


def filled(memory, rollouts, start=0, state=None):
    state = state or memory.init(rollout(0))
    for i in range(start, start + rollouts):
        state = memory.add(state, jnp.int32(i * LENGTH), rollout(i * LENGTH))
    return state


def drawn(memory, state, step, key=0, num_updates=1):
    draws = memory.draw(jax.random.key(key), state, jnp.int32(step), num_updates)
    samples = [
        memory.sample(state, jax.tree.map(lambda x, i=i: x[i], draws)) for i in range(num_updates)
    ]
    return samples[0] if num_updates == 1 else samples


def updated(memory, state, leaf, priority):
    sample = drawn(memory, state, LENGTH)
    leaf, priority = np.asarray(leaf, np.int32), np.asarray(priority, np.float32)
    sample = sample._replace(index=leaf, weight=np.ones(leaf.shape, np.float32))
    return memory.update_priorities(state, sample, priority)


@pytest.mark.parametrize("rollouts", (1, 3, 4, 5, 6, 11))
def test_leaves_are_read_at_the_times_of_their_writes(rollouts):
    memory = memory_of(batch_size=512)
    state, step = filled(memory, rollouts), rollouts * LENGTH
    sample = drawn(memory, state, step)
    time, env = np.asarray(sample.transition.obs).T
    np.testing.assert_array_equal(sample.index, time % ROWS * NUM_ENVS + env)
    expected = {(t, e) for t in range(max(0, step - ROWS), step) for e in range(NUM_ENVS)}
    assert set(zip(time.tolist(), env.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(sample.transition.reward, 10 * time + env)


def test_draws_are_in_proportion_to_powers_of_the_priorities():
    memory = memory_of(omega=0.6, batch_size=4_096)
    state = filled(memory, 4)
    priority = np.linspace(0.1, 5, CAPACITY)
    state = updated(memory, state, np.arange(CAPACITY), priority)
    samples = drawn(memory, state, ROWS, num_updates=20)
    counts = np.bincount(np.concatenate([s.index for s in samples]), minlength=CAPACITY)
    expected = counts.sum() * priority**0.6 / (priority**0.6).sum()
    assert ((counts - expected) ** 2 / expected).sum() < stats.chi2.ppf(0.999, CAPACITY - 1)


@pytest.mark.parametrize("rollouts", (2, 4, 7))
def test_importance_weights_by_hand(rollouts):
    """(N P(i))^-beta, divided by the largest of the batch; beta = 0.5 + 0.5 step N_envs / total."""
    memory = memory_of(omega=0.5, beta=0.5, batch_size=8, total_steps=60)
    step = rollouts * LENGTH
    state = filled(memory, rollouts)
    stored = min(step, ROWS) * NUM_ENVS
    priority = 1.0 + np.arange(stored) ** 2
    state = updated(memory, state, np.arange(stored), priority)
    sample = drawn(memory, state, step)
    power = (priority + SMALLEST) ** 0.5
    probability = (power / power.sum())[sample.index]
    beta = 0.5 + 0.5 * step * NUM_ENVS / 60
    weight = (stored * probability) ** -beta
    np.testing.assert_allclose(sample.weight, weight / weight.max(), rtol=1e-4)
    assert sample.weight.min() < 0.9


@pytest.mark.parametrize(
    ("step", "beta"), ((8, 0.424), (50, 0.55), (100, 0.7), (200, 1.0), (10_000, 1.0))
)
def test_beta_increases_linearly_to_one_at_the_last_step(step, beta):
    memory = memory_of(beta=0.4, batch_size=64, total_steps=200 * NUM_ENVS)
    state = updated(memory, filled(memory, 4), np.arange(CAPACITY), np.arange(1.0, CAPACITY + 1))
    draw = memory.draw(jax.random.key(0), state, jnp.int32(step), 1)
    sample = memory.sample(state, jax.tree.map(lambda x: x[0], draw))
    priority = np.asarray(sample.index) + 1.0
    np.testing.assert_allclose(sample.weight, (priority / priority.min()) ** -beta, rtol=1e-4)


@pytest.mark.parametrize("total_steps", (2**31 - 1, 2**33))
def test_beta_increases_over_very_long_runs(total_steps):
    memory = memory_of(beta=0.0, batch_size=64, total_steps=total_steps)
    state = updated(memory, filled(memory, 4), np.arange(CAPACITY), np.arange(1.0, CAPACITY + 1))
    step = min(total_steps // NUM_ENVS, 2**31 - 1)
    draw = memory.draw(jax.random.key(0), state, jnp.int32(step), 1)
    sample = memory.sample(state, jax.tree.map(lambda x: x[0], draw))
    priority = np.asarray(sample.index) + 1.0
    beta = step * NUM_ENVS / total_steps
    np.testing.assert_allclose(sample.weight, (priority / priority.min()) ** -beta, rtol=1e-3)


def test_new_transitions_have_the_largest_priority_so_far():
    memory = memory_of(omega=0.5)
    state = filled(memory, 1)
    np.testing.assert_array_equal(state.tree[0][:6], np.ones(6))
    state = updated(memory, state, [0, 1], [0.01, 0.25])
    assert state.largest == 1
    state = filled(memory, 1, 1, state)
    np.testing.assert_allclose(state.tree[0][:12], [0.1, 0.5, *[1] * 10], rtol=1e-3)
    state = updated(memory, state, [3], [9.0])
    state = updated(memory, state, [3], [4.0])
    state = filled(memory, 1, 2, state)
    expected = [0.1, 0.5, 1, 2, *[1] * 8, *[3] * 6, *[0] * 6]
    np.testing.assert_allclose(state.tree[0][:CAPACITY], expected, rtol=1e-3)
    np.testing.assert_allclose(state.largest, 9, rtol=1e-5)


def test_overwriting_a_transition_resets_its_priority():
    memory = memory_of()
    state = updated(memory, filled(memory, 4), np.arange(CAPACITY), np.full(CAPACITY, 0.1))
    state = filled(memory, 1, 4, state)
    expected = np.where(np.arange(CAPACITY) < LENGTH * NUM_ENVS, 1, 0.1)
    np.testing.assert_allclose(state.tree[0][:CAPACITY], expected, rtol=1e-4)
    expect_sums(state.tree, FAN_OUT)


def test_priorities_are_positive_magnitudes():
    memory = memory_of(omega=1.0)
    state = updated(memory, filled(memory, 1), [0, 1, 2, 2], [-3.0, 0.0, -0.5, 0.25])
    expected = [3 + SMALLEST, SMALLEST, 0.5 + SMALLEST, 1, 1, 1]
    np.testing.assert_allclose(state.tree[0][:6], expected, rtol=1e-6)
    np.testing.assert_allclose(state.largest, 3, rtol=1e-5)


def test_updates_change_only_the_sampled_priorities():
    memory = memory_of(batch_size=4)
    before = filled(memory, 4)
    sample = drawn(memory, before, ROWS)
    after = memory.update_priorities(before, sample, jnp.array([0.1, 0.2, 0.3, 0.4]))
    changed = np.flatnonzero(np.asarray(after.tree[0] != before.tree[0]))
    assert set(changed) == set(np.asarray(sample.index).tolist())
    chex.assert_trees_all_equal(after.storage, before.storage)


def test_omega_zero_is_uniform_replay_with_weights_of_one():
    memory = memory_of(omega=0.0, batch_size=4_096)
    state = updated(memory, filled(memory, 4), np.arange(CAPACITY), np.arange(CAPACITY) ** 3.0)
    state = filled(memory, 1, 4, state)
    samples = drawn(memory, state, ROWS + LENGTH, num_updates=10)
    counts = np.bincount(np.concatenate([s.index for s in samples]), minlength=CAPACITY)
    expected = counts.sum() / CAPACITY
    assert ((counts - expected) ** 2 / expected).sum() < stats.chi2.ppf(0.999, CAPACITY - 1)
    for sample in samples:
        np.testing.assert_allclose(sample.weight, np.ones(4_096), rtol=1e-5)


def test_updates_use_the_priorities_of_earlier_updates():
    memory = memory_of(batch_size=64)
    state = filled(memory, 4)
    draws = memory.draw(jax.random.key(0), state, jnp.int32(ROWS), 2)
    first, second = (jax.tree.map(lambda x, i=i: x[i], draws) for i in range(2))
    state = updated(memory, state, np.arange(CAPACITY), np.where(np.arange(CAPACITY) == 7, 1e6, 0))
    for draw in (first, second):
        np.testing.assert_array_equal(memory.sample(state, draw).index, np.full(64, 7))
    assert (first.uniform != second.uniform).all()


def test_vmapped_seeds_have_separate_trees():
    memory = memory_of(batch_size=32)
    keys = jax.random.split(jax.random.key(0), 3)
    blocks = [rollout(i * LENGTH) for i in range(5)]
    target = jnp.array([2, 11, 23])

    def run(key, target, step):
        state = memory.init(rollout(0))
        for i, block in enumerate(blocks):
            state = memory.add(state, step + i * LENGTH, block)
        draw = jax.tree.map(lambda x: x[0], memory.draw(key, state, step + 5 * LENGTH, 1))
        sample = memory.sample(state, draw)
        priority = jnp.where(jnp.arange(CAPACITY) == target, 1e6, 1e-3)
        everything = sample._replace(index=jnp.arange(CAPACITY), weight=jnp.ones(CAPACITY))
        state = memory.update_priorities(state, everything, priority)
        return state, sample, memory.sample(state, draw)

    batched = jax.jit(jax.vmap(run, (0, 0, None)))(keys, target, jnp.int32(0))
    for seed in range(3):
        alone = jax.jit(run)(keys[seed], target[seed], jnp.int32(0))
        ours = jax.tree.map(lambda x, seed=seed: x[seed], batched)
        chex.assert_trees_all_close(ours, alone, rtol=1e-5)
        assert (ours[2].index == target[seed]).all()
    before = np.asarray(batched[1].index)
    assert (before[0] != before[1]).any() and (before[1] != before[2]).any()


def stream(start, length):
    """Every fifth step is a truncation, and every seventh a termination."""
    block = rollout(start, length)
    time, env = block.obs[..., 0], block.obs[..., 1]
    truncated, terminated = (time + env) % 5 == 4, (time + env) % 7 == 6
    return block._replace(discount=1 - np.float32(terminated), last=truncated | terminated)


@pytest.mark.parametrize("loses_boundaries", (False, True))
def test_prioritised_replay_of_n_step_deduplicated_transitions(loses_boundaries):
    n, gamma, num_rows = 3, 0.5, 40
    length = 1 if loses_boundaries else 4
    boundaries = 1 if loses_boundaries else 120
    storage = n_step(deduplicated(num_rows * NUM_ENVS, NUM_ENVS, boundaries), n, gamma)
    memory = memory_of(batch_size=512, total_steps=10**6, beta=1.0, storage=storage)
    state = memory.init(stream(0, length))
    add = jax.jit(memory.add)
    for step in range(0, 100, length):
        state = add(state, jnp.int32(step), stream(step, length))
    sample = drawn(memory, state, 100)
    batch = jax.tree.map(np.asarray, sample.transition)
    time, env = batch.obs.T
    everything = jax.tree.map(np.asarray, stream(0, 100))
    last, discount = everything.last, everything.discount
    steps = np.array(
        [
            next((k for k in range(1, n) if last[t + k - 1, e] or t + k == 100), n)
            for t, e in zip(time, env, strict=True)
        ]
    )
    end = time + steps - 1
    reward = [
        sum(gamma**k * everything.reward[t + k, e] for k in range(count))
        for t, e, count in zip(time, env, steps, strict=True)
    ]
    np.testing.assert_allclose(batch.reward, reward, rtol=1e-5)
    np.testing.assert_allclose(batch.discount, gamma ** (steps - 1) * discount[end, env])
    truncated = last & (discount > 0)
    newer = np.cumsum(truncated.ravel()[::-1])[::-1].reshape(truncated.shape)
    kept = ~(truncated & (newer > max(boundaries, length * NUM_ENVS)))[end, env]
    np.testing.assert_array_equal(sample.weight, kept)  # all priorities are equal
    assert kept.all() != loses_boundaries
    valid = kept & (batch.discount > 0)
    expected = everything.next_obs[end, env]
    np.testing.assert_array_equal(batch.next_obs[valid], expected[valid])
    assert {1, 2, 3} == set(steps) and time.min() == 60

    # lost transitions, whose probabilities are small, must not determine the largest weight
    tree = write_tree(state.tree, sample.index, jnp.where(kept, 1.0, 0.1))
    resampled = drawn(memory, state._replace(tree=tree), 100, key=1)
    assert (np.asarray(resampled.weight) == 0).any() == loses_boundaries
    np.testing.assert_allclose(resampled.weight[resampled.weight > 0], 1, rtol=1e-5)

    updated = memory.update_priorities(state, sample, jnp.where(kept, 0.5, 50.0))
    assert updated.largest == 1  # lost transitions do not change the largest priority
    lost = np.asarray(sample.index)[~kept]
    np.testing.assert_allclose(np.asarray(updated.tree[0])[lost], SMALLEST, rtol=1e-5)


def test_trees_are_little_larger_than_their_leaves():
    memory = memory_of()
    tree = memory.init(rollout(0)).tree
    assert [len(level) for level in tree] == [24, 8]
    assert sum(len(level) for level in empty_tree(100_000)) < 1.15 * 100_000
