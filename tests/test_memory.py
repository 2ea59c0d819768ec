"""Contents and samples of memories, transition by transition."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac import envs
from purejaxrl_sac.clock import unbatched, write_rows
from purejaxrl_sac.memory import latest, minibatches, uniform
from purejaxrl_sac.memory.storage import ring
from purejaxrl_sac.types import Transition
from tests.probes import Counter, stored

T, N, CAPACITY = 4, 3, 36


def rollout(start):
    """A rollout whose entries identify their row and environment."""
    index = (start + np.arange(T, dtype=np.int32))[:, None] * N + np.arange(N, dtype=np.int32)
    f = index.astype(np.float32)
    obs = np.stack([index, index], -1).astype(np.uint8)
    return Transition(obs, index, f, f, obs + 1, index % 2 == 0)


@cache
def replay():
    """Uniform replay from a ring, compiled."""
    memory = uniform(ring(CAPACITY, N), 64)
    draw = jax.jit(memory.draw, static_argnums=3)
    return memory._replace(add=jax.jit(memory.add), draw=draw, sample=jax.jit(memory.sample))


def filled(rollouts, add=None):
    memory = replay()
    state = memory.init(rollout(0))
    for i in range(rollouts):
        state = (add or memory.add)(state, jnp.int32(i * T), rollout(i * T))
    return memory, state


@pytest.mark.parametrize("rollouts", (1, 2, 3, 4, 7))
def test_ring_stores_exactly_the_latest_transitions(rollouts):
    _, state = filled(rollouts)
    found = stored(ring(CAPACITY, N), state, rollouts * T)
    assert found.obs.dtype == jnp.uint8 and found.last.dtype == bool
    total = rollouts * T * N
    indices = sorted(found.action.ravel().tolist())
    if total < CAPACITY:
        assert indices == list(range(total))
    else:
        assert indices == list(range(total - CAPACITY, total))


def test_samples_are_complete_transitions_of_filled_rows():
    memory, state = filled(2)
    draws = memory.draw(jax.random.key(0), state, jnp.int32(2 * T), 5)
    batch = draws.transition
    assert batch.obs.shape == (5, 64, 2) and batch.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(batch.obs[..., 0], batch.action)
    np.testing.assert_array_equal(batch.next_obs, batch.obs + 1)
    np.testing.assert_array_equal(batch.reward, batch.action)
    assert set(np.asarray(batch.action).ravel().tolist()) == set(range(2 * T * N))
    sample = memory.sample(state, jax.tree.map(lambda x: x[0], draws))
    assert sample.transition.reward.shape == (64,) and (sample.weight == 1).all()
    assert memory.update_priorities(state, sample, sample.transition.reward) is state


def test_sampling_is_uniform():
    memory, state = filled(7)
    batch = memory.draw(jax.random.key(1), state, jnp.int32(7 * T), 500).transition
    counts = np.bincount(np.asarray(batch.action).ravel() % CAPACITY, minlength=CAPACITY)
    expected = 500 * 64 / CAPACITY
    assert ((counts - expected) ** 2 / expected).sum() < 66.6  # chi2(35) at 0.1 %


def test_latest_is_the_rollout():
    memory = latest()
    state = memory.init(rollout(0))
    state = memory.add(state, jnp.int32(0), rollout(8))
    draw = memory.draw(jax.random.key(0), state, jnp.int32(4), 1)
    chex.assert_trees_all_equal(memory.sample(state, draw).transition, rollout(8))


def minibatch_samples(num_epochs, num_minibatches, key=0, start=8):
    memory = minibatches(num_epochs, num_minibatches)

    @jax.jit
    def samples(key):
        block = jax.tree.map(jnp.asarray, rollout(start))
        state = memory.add(memory.init(block), jnp.int32(0), block)
        draws = memory.draw(key, state, jnp.int32(T), num_epochs * num_minibatches)
        return jax.vmap(memory.sample, (None, 0))(state, draws)

    return jax.tree.map(np.asarray, samples(jax.random.key(key)))


@pytest.mark.parametrize("num_minibatches", (1, 2, 6, T * N))
def test_minibatches_contain_every_transition_once_per_epoch(num_minibatches):
    sample = minibatch_samples(3, num_minibatches)
    action = np.asarray(sample.transition.action)
    assert action.shape == (3 * num_minibatches, T * N // num_minibatches)
    everything = np.sort(rollout(8).action.ravel())
    for epoch in action.reshape(3, T * N):
        np.testing.assert_array_equal(np.sort(epoch), everything)
    assert (sample.weight == 1).all()


def test_minibatches_differ_between_epochs_and_keys():
    first, again, other = (minibatch_samples(4, 3, key).transition.action for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    epochs = np.concatenate([first, other]).reshape(8, T * N)
    assert len({tuple(epoch) for epoch in epochs}) == 8
    partitions = np.sort(np.reshape(first, (4, 3, T)), axis=-1)
    assert len({tuple(partition.ravel()) for partition in partitions}) == 4


def test_minibatches_keep_the_fields_of_a_transition_together():
    batch = minibatch_samples(2, 3).transition
    chex.assert_shape(batch.obs, (6, 4, 2))
    np.testing.assert_array_equal(batch.obs[..., 0], batch.action)
    np.testing.assert_array_equal(batch.next_obs, batch.obs + 1)
    np.testing.assert_array_equal(batch.reward, batch.action)
    np.testing.assert_array_equal(batch.discount, batch.action)
    np.testing.assert_array_equal(batch.last, batch.action % 2 == 0)
    assert batch.obs.dtype == jnp.uint8 and batch.last.dtype == bool


def test_write_rows_is_one_update_slice_under_nested_vmap():
    ring, block = jnp.zeros((2, 5, 8, 3)), jnp.ones((2, 5, 2, 3))
    write = jax.vmap(jax.vmap(write_rows, (0, 0, None)), (0, 0, None))
    expected = ring.at[:, :, 4:6].set(1)
    np.testing.assert_array_equal(write(ring, block, jnp.int32(4)), expected)
    jaxpr = str(jax.make_jaxpr(write)(ring, block, jnp.int32(4)))
    assert "dynamic_update_slice" in jaxpr and "scatter" not in jaxpr
    one_ring = jax.vmap(write_rows, (None, 0, None))(ring[0, 0], block[0], jnp.int32(4))
    np.testing.assert_array_equal(one_ring, expected[0])
    with pytest.raises(ValueError, match="the same in every lane"):
        jax.vmap(write_rows)(ring[0], block[0], jnp.arange(5))


def test_the_clock_cannot_be_batched():
    doubled = jax.vmap(jax.vmap(lambda s: unbatched(s) * 2))
    np.testing.assert_array_equal(doubled(jnp.full((2, 3), 7)), jnp.full((2, 3), 14))
    step = jax.vmap(unbatched, out_axes=None)(jnp.full(3, 7))
    assert step.shape == () and step == 7


def test_ring_stores_true_successors_after_wrap_around():
    """A real environment through the loop: terminations, truncations, resets, wrap-around."""
    env = envs.bind(Counter())
    memory, length, n = uniform(ring(60, 4), 8), 5, 4

    def actor(key, obs, step, carry):
        return jnp.zeros(n, jnp.int32), (), carry

    play, add = jax.jit(partial(envs.rollout, env, actor=actor)), jax.jit(memory.add)
    reset = jax.jit(env.reset, static_argnums=1)
    env_state, step, state, history = reset(jax.random.key(0), n), 0, None, []
    for key in jax.random.split(jax.random.key(1), 10):
        keys = jax.random.split(key, (length, 1 + n))
        env_state, (block, _) = play(keys, env_state, jnp.int32(step))
        if state is None:
            state = memory.init(jax.eval_shape(lambda b=block: b))
        state = add(state, jnp.int32(step), block)
        history.append(block)
        step += length
    everything = jax.tree.map(lambda *x: np.concatenate(x), *history)  # [50, 4]
    found = stored(ring(60, 4), state, step)
    chex.assert_trees_all_equal(found, jax.tree.map(lambda x: x[-15:], everything))
    assert found.obs.dtype == jnp.uint8 and found.reward.dtype == jnp.float32
    obs, following = np.asarray(everything.obs, int), np.asarray(everything.next_obs, int)
    assert (following[..., 0] == obs[..., 0] + 1).all()  # at the ends of episodes, too
    assert (following[..., 1] == obs[..., 1]).all()
    last, discount = np.asarray(everything.last), np.asarray(everything.discount)
    even = obs[..., 1] % 2 == 0
    assert (last == np.where(even, following[..., 0] == 5, following[..., 0] == 7)).all()
    assert (discount == np.where(last & even, 0, 1)).all()  # time limits are no terminations
    assert (last & even).any() and (last & ~even).any()
    assert (everything.reward == 3).all()
