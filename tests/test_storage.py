"""Storages: every stored transition compared with a history in NumPy."""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

import purejaxrl_sac as prl
from purejaxrl_sac.agents.off_policy import replay_storage
from purejaxrl_sac.memory import uniform
from purejaxrl_sac.memory.storage import _period, deduplicated, n_step, ring
from purejaxrl_sac.returns import discounted_sum
from purejaxrl_sac.types import Index, Sample, Transition
from tests.conftest import small

ROWS, GAMMA = 8, 0.9


def history(length, num_envs, ends=0.35, terminates=0.5, seed=0):
    """A stream [length, N] in which every observation is different.

    At the end of an episode, the observation of the next row is not the true successor.
    """
    rng = np.random.default_rng(seed)
    shape = (length, num_envs)
    last = rng.random(shape) < ends
    terminated = last & (rng.random(shape) < terminates)
    ids = iter(range(1, 10_000))
    obs, next_obs = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for env in range(num_envs):
        current = next(ids)
        for time in range(length):
            obs[time, env], next_obs[time, env] = current, next(ids)
            current = next(ids) if last[time, env] else next_obs[time, env]
    return Transition(
        obs=np.stack([obs, -obs], -1),
        action=rng.integers(0, 5, shape).astype(np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        discount=1 - terminated.astype(np.float32),
        next_obs=np.stack([next_obs, -next_obs], -1),
        last=last,
        extras={"value": rng.normal(size=(*shape, 3)).astype(np.float32)},
    )


class Stored(NamedTuple):
    """What a storage returns for every index that it must contain."""

    time: np.ndarray  # [stored, N]
    env: np.ndarray
    sample: Sample


def replayed(storage, stream, length, begin=lambda state: state):
    """Writes a stream in rollouts of `length`; yields all stored transitions after each.

    Args:
        begin: changes the initial state.
    """
    rows, num_envs = storage.capacity // storage.num_envs, storage.num_envs
    blocks = [
        jax.tree.map(lambda x, t=t: jnp.asarray(x[t : t + length]), stream)
        for t in range(0, len(stream.reward), length)
    ]
    state = begin(storage.init(jax.eval_shape(lambda: blocks[0])))
    add, read = jax.jit(storage.add), jax.jit(storage.read)
    for count, block in enumerate(blocks):
        state = add(state, jnp.int32(count * length), block)
        step = (count + 1) * length
        time, env = np.indices((rows, num_envs), np.int32)
        time = np.maximum(time + step - rows, 0)
        sample = read(state, jnp.int32(step), Index(jnp.asarray(time), jnp.asarray(env)))
        stored = Stored(time, env, sample)
        first = max(0, rows - step)  # nothing was stored before
        yield step, jax.tree.map(lambda x, first=first: np.asarray(x)[first:], stored)


def expect_equal(stored, stream, next_obs_where=None):
    expected = jax.tree.map(lambda x: x[stored.time, stored.env], stream)
    ours = stored.sample.transition
    if next_obs_where is not None:
        where = next_obs_where(expected)
        np.testing.assert_array_equal(ours.next_obs[where], expected.next_obs[where])
        ours, expected = ours._replace(next_obs=()), expected._replace(next_obs=())
    chex.assert_trees_all_equal(ours, expected)
    chex.assert_trees_all_equal_dtypes(ours, expected)


def not_terminated(expected):
    return expected.discount > 0


LAYOUTS = pytest.mark.parametrize(("length", "num_envs"), ((1, 1), (1, 3), (4, 1), (4, 3)))
KINDS = pytest.mark.parametrize("kind", (ring, deduplicated))


@LAYOUTS
def test_ring_returns_the_latest_rows_unchanged(length, num_envs):
    stream = history(5 * ROWS, num_envs)
    counts = []
    for _, stored in replayed(ring(ROWS * num_envs, num_envs), stream, length):
        expect_equal(stored, stream)
        assert (stored.sample.weight == 1).all()
        np.testing.assert_array_equal(stored.sample.index.time, stored.time)
        counts.append(len(stored.time))
    assert counts[0] == length and counts.count(ROWS) > 3 * ROWS // length


@LAYOUTS
def test_deduplicated_returns_the_same_unless_terminated(length, num_envs):
    stream = history(5 * ROWS, num_envs)
    truncated = stream.last & (stream.discount > 0)
    assert truncated.any() and (stream.discount == 0).any()
    storage = deduplicated(ROWS * num_envs, num_envs, boundaries=ROWS * num_envs)
    for _, stored in replayed(storage, stream, length):
        expect_equal(stored, stream, not_terminated)
        assert (stored.sample.weight == 1).all()


@pytest.mark.parametrize("always", ("terminated", "truncated", "neither"))
def test_deduplicated_if_all_or_no_steps_end_an_episode(always):
    stream = history(4 * ROWS, 3, ends=0)
    if always != "neither":
        last = np.ones_like(stream.last)
        discount = np.full_like(stream.discount, always == "truncated")
        obs = stream.obs + 20_000  # no observation is the successor of another
        stream = stream._replace(last=last, discount=discount, obs=obs)
    for _, stored in replayed(deduplicated(ROWS * 3, 3, boundaries=ROWS * 3), stream, 4):
        expect_equal(stored, stream, not_terminated)
        assert (stored.sample.weight == 1).all()


def test_boundaries_are_found_while_their_number_wraps():
    stream = history(5 * ROWS, 3, ends=0.7, terminates=0.1)
    storage = deduplicated(ROWS * 3, 3, boundaries=7)

    def shortly_before(state):
        period = _period(len(state.boundary))
        assert period % len(state.boundary) == 0
        return state._replace(boundaries=jnp.int32(period - len(state.boundary)))

    plain = replayed(storage, stream, 1)
    for (_, ours), (_, theirs) in zip(
        replayed(storage, stream, 1, shortly_before), plain, strict=True
    ):
        chex.assert_trees_all_equal(ours.sample, theirs.sample)


@pytest.mark.parametrize("length", (1, 4))
@pytest.mark.parametrize("boundaries", (1, 9, 24))
def test_exactly_the_oldest_boundaries_are_lost(length, boundaries):
    num_envs = 3
    stream = history(6 * ROWS, num_envs, ends=0.7, terminates=0.1)
    truncated = stream.last & (stream.discount > 0)
    limit, lost = max(boundaries, length * num_envs), 0
    for step, stored in replayed(
        deduplicated(ROWS * num_envs, num_envs, boundaries), stream, length
    ):
        newer = np.cumsum(truncated[:step].ravel()[::-1])[::-1].reshape(step, num_envs)
        kept = ~(truncated[:step] & (newer > limit))[stored.time, stored.env]
        np.testing.assert_array_equal(stored.sample.weight, kept)
        expect_equal(stored, stream, lambda x, kept=kept: not_terminated(x) & kept)
        lost += (~kept).sum()
    assert (lost > 0) == (boundaries < 24)


def test_default_and_minimum_number_of_boundaries():
    def max_boundaries(capacity, length, **boundaries):
        stream = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, history(length, 4)))
        return len(deduplicated(capacity, 4, **boundaries).init(stream).boundary)

    assert max_boundaries(640, 2) == 40
    assert max_boundaries(64, 2) == 8
    assert max_boundaries(64, 8, boundaries=5) == 32
    assert max_boundaries(640, 2, boundaries=100) == 100


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def images(length, num_envs, dtype):
    shape = (length, num_envs)
    image = jax.ShapeDtypeStruct((*shape, 10, 10, 4), dtype)
    number, flag = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, bool)
    action = jax.ShapeDtypeStruct(shape, jnp.int32)
    return Transition(image, action, number, number, image, flag)


@pytest.mark.parametrize("dtype", (jnp.uint8, bool, jnp.float32))
def test_deduplicated_halves_the_memory_of_images(dtype):
    rollout = images(1, 4, dtype)
    states = [jax.eval_shape(kind(16_000, 4).init, rollout) for kind in (ring, deduplicated)]
    ratio = size(states[1]) / size(states[0])
    assert 0.5 < ratio < (0.67 if dtype is bool else 0.57)
    read = jax.eval_shape(
        deduplicated(16_000, 4).read,
        states[1],
        jnp.int32(8),
        Index(jnp.zeros(3, jnp.int32), jnp.zeros(3, jnp.int32)),
    )
    assert read.transition.obs.dtype == read.transition.next_obs.dtype == dtype
    assert read.transition.next_obs.shape == (3, 10, 10, 4) and read.weight.shape == (3,)


@KINDS
@pytest.mark.parametrize("n", (1, 3))
def test_storages_work_under_jit_and_vmap_over_seeds(kind, n):
    streams = [history(3 * ROWS, 3, seed=seed) for seed in range(4)]
    storage = n_step(kind(ROWS * 3, 3), n, GAMMA)
    batched = jax.tree.map(lambda *x: jnp.stack(x), *streams)
    state = jax.vmap(storage.init)(jax.tree.map(lambda x: x[:, :4], batched))
    add = jax.jit(jax.vmap(storage.add, (0, None, 0)))
    for t in range(0, 3 * ROWS, 4):
        state = add(state, jnp.int32(t), jax.tree.map(lambda x, t=t: x[:, t : t + 4], batched))
    time, env = np.meshgrid(np.arange(2 * ROWS, 3 * ROWS), np.arange(3), indexing="ij")
    index = Index(jnp.asarray(time), jnp.asarray(env))
    read = jax.jit(jax.vmap(storage.read, (0, None, None)))(state, jnp.int32(3 * ROWS), index)
    for seed, stream in enumerate(streams):
        alone = [stored for _, stored in replayed(storage, stream, 4)][-1]
        ours = jax.tree.map(lambda x, seed=seed: x[seed], read.transition)
        chex.assert_trees_all_close(ours, alone.sample.transition, rtol=1e-6)


@KINDS
def test_reading_allocates_no_array_as_large_as_the_memory(kind):
    """Neither temporaries nor outputs are as large as the memory."""
    rollout = images(1, 4, jnp.uint8)
    storage = kind(16_000, 4)
    state = jax.eval_shape(storage.init, rollout)
    index = Index(*[jax.ShapeDtypeStruct((32,), jnp.int32)] * 2)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    read = jax.jit(storage.read).lower(state, step, index).compile().memory_analysis()
    assert read.temp_size_in_bytes + read.output_size_in_bytes < 1e6 < size(state)


def n_step_transition(stream, time, env, newest, n):
    """By definition: reward, discount, next_obs, last and number of steps."""
    reward, steps = np.float64(0), 0
    while steps < n:
        now = time + steps
        reward += np.float64(GAMMA) ** steps * stream.reward[now, env]
        steps += 1
        if stream.last[now, env] or now == newest:
            break
    end = time + steps - 1
    discount = np.float64(GAMMA) ** (steps - 1) * stream.discount[end, env]
    return reward, discount, stream.next_obs[end, env], stream.last[end, env], steps


@KINDS
@pytest.mark.parametrize("n", (1, 3, 5, ROWS))
@LAYOUTS
def test_n_step_transitions_equal_a_loop_over_their_definition(kind, n, length, num_envs):
    stream = history(4 * ROWS, num_envs, seed=n)
    more = {"boundaries": ROWS * num_envs} if kind is deduplicated else {}
    storage = n_step(kind(ROWS * num_envs, num_envs, **more), n, GAMMA)
    found = set()
    for step, stored in replayed(storage, stream, length):
        ours = stored.sample.transition
        plain = jax.tree.map(lambda x, s=stored: x[s.time, s.env], stream)
        for name in ("obs", "action", "extras"):
            chex.assert_trees_all_equal(getattr(ours, name), getattr(plain, name))
        rows = [
            n_step_transition(stream, time, env, step - 1, n)
            for time, env in zip(stored.time.flat, stored.env.flat, strict=True)
        ]
        reward, discount, next_obs, last, steps = map(np.array, zip(*rows, strict=True))
        shape = stored.time.shape
        np.testing.assert_allclose(ours.reward, reward.reshape(shape), rtol=1e-5, atol=1e-6)
        summed = discounted_sum(stored.sample.rewards, GAMMA)
        np.testing.assert_allclose(summed, ours.reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.discount, discount.reshape(shape), rtol=1e-6)
        np.testing.assert_array_equal(ours.last, last.reshape(shape))
        valid = discount.reshape(shape) > 0 if kind is deduplicated else np.ones(shape, bool)
        expected = next_obs.reshape(*shape, 2)
        np.testing.assert_array_equal(ours.next_obs[valid], expected[valid])
        assert (stored.sample.weight == 1).all()
        found |= set(steps.tolist())
    assert {1, min(n, 3)} <= found <= set(range(1, n + 1))


def test_one_step_is_the_underlying_storage():
    stream = history(3 * ROWS, 3)
    plain = replayed(ring(ROWS * 3, 3), stream, 4)
    one = replayed(n_step(ring(ROWS * 3, 3), 1, GAMMA), stream, 4)
    for (_, ours), (_, theirs) in zip(one, plain, strict=True):
        chex.assert_trees_all_equal(ours.sample._replace(rewards=None), theirs.sample)


@KINDS
@pytest.mark.parametrize("n", (2, 5))
def test_n_step_targets_agree_with_rlax_within_an_episode(kind, n):
    stream = history(ROWS, 1, ends=0)
    *_, (_, stored) = replayed(n_step(kind(ROWS, 1), n, GAMMA), stream, 4)

    def value(obs):
        return np.sin(np.asarray(obs[..., 0], np.float32))

    ours = stored.sample.transition
    target = ours.reward + GAMMA * ours.discount * value(ours.next_obs)
    theirs = rlax.n_step_bootstrapped_returns(
        jnp.asarray(stream.reward[:, 0]),
        jnp.full(ROWS, GAMMA),
        jnp.asarray(value(stream.next_obs)[:, 0]),
        n,
    )
    np.testing.assert_allclose(target[:, 0], theirs, rtol=1e-5, atol=1e-6)


def test_n_step_transitions_by_hand():
    last = np.array([[0, 0, 1, 0, 1, 0]], bool).T
    stream = history(6, 1)._replace(
        reward=np.float32([[1, 2, 4, 8, 16, 32]]).T,
        last=last,
        discount=np.float32([[1, 1, 0, 1, 1, 1]]).T,
    )
    *_, (_, stored) = replayed(n_step(ring(6, 1), 3, 0.5), stream, 2)
    ours = stored.sample.transition
    np.testing.assert_array_equal(ours.reward[:, 0], [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32])
    np.testing.assert_array_equal(ours.discount[:, 0], [0, 0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(ours.last[:, 0], [1, 1, 1, 1, 1, 0])
    end = [2, 2, 2, 4, 4, 5]
    np.testing.assert_array_equal(ours.next_obs[:, 0], stream.next_obs[end, 0])


def test_n_step_transitions_to_lost_boundaries_have_weight_zero():
    num_envs, n = 3, 3
    stream = history(6 * ROWS, num_envs, terminates=0)
    lost = 0
    for step, stored in replayed(n_step(deduplicated(24, num_envs, 1), n, GAMMA), stream, 1):
        newer = np.cumsum(stream.last[:step].ravel()[::-1])[::-1].reshape(step, num_envs)
        is_lost = stream.last[:step] & (newer > num_envs)  # as many as a rollout has
        steps = [
            n_step_transition(stream, time, env, step - 1, n)[-1]
            for time, env in zip(stored.time.flat, stored.env.flat, strict=True)
        ]
        end = stored.time + np.reshape(steps, stored.time.shape) - 1
        np.testing.assert_array_equal(stored.sample.weight, ~is_lost[end, stored.env])
        lost += is_lost[end, stored.env].sum()
    assert lost > 0


def test_gamma_may_be_traced():
    stream = history(ROWS, 1, ends=0)
    storage = ring(ROWS, 1)
    state = storage.init(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, stream)))
    state = storage.add(state, jnp.int32(0), jax.tree.map(jnp.asarray, stream))
    index = Index(jnp.int32([0]), jnp.int32([0]))

    def reward(gamma):
        return n_step(storage, 3, gamma).read(state, jnp.int32(ROWS), index).transition.reward

    first = stream.reward[:3, 0]
    rewards = jax.jit(jax.vmap(reward))(jnp.array([0.0, 0.5, 1.0]))[:, 0]
    expected = [first[0], first[0] + first[1] / 2 + first[2] / 4, first.sum()]
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)


@KINDS
def test_uniform_replay_draws_only_stored_transitions(kind):
    stream = history(3 * ROWS, 3, ends=0)
    storage = kind(ROWS * 3, 3)
    memory = uniform(storage, 256)
    state = memory.init(jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.asarray(x[:4]), stream)))
    for t in range(0, 3 * ROWS, 4):
        block = jax.tree.map(lambda x, t=t: jnp.asarray(x[t : t + 4]), stream)
        state = memory.add(state, jnp.int32(t), block)
        sample = memory.draw(jax.random.key(t), state, jnp.int32(t + 4), 2)
        valid = stream.obs[max(0, t + 4 - ROWS) : t + 4, :, 0].ravel()
        assert set(np.unique(sample.transition.obs[..., 0])) == set(valid)


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (5, "the codec is 5, but must be a function"),
        (lambda spec: None, "the codec returned None, but must return a records.Record"),
        (lambda spec: (1, 2), "the codec returned a tuple of 2, but must return"),
    ],
)
def test_a_codec_makes_a_record(codec, message):
    config = small("dqn")
    storage = partial(replay_storage, codec=codec)
    config = config.replace(algorithm=partial(config.algorithm, storage=storage))
    with pytest.raises(prl.ConfigError, match=f"^{message}"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))
