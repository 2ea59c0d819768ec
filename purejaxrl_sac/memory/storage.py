"""Storages of replay memories: `ring`, `deduplicated` for large observations, and `n_step`.

`Index(t, e)` identifies the transition of environment e at its step t. Transitions are packed into
records of W 32-bit words (see `records`), and a memory is one array of them, [R * N, W], row by
row. Rollouts of T rows are written as one block at row t mod R, which never wraps because T
divides R. The cost of a read does not depend on the capacity.

Words are not numbers: no gradient passes through a memory.

The array has two axes and is never reshaped: a TPU tiles the last two axes, so that a reshape
would copy it; XLA lays it out with the records along the lanes there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.config import ConfigError, kind_of
from purejaxrl_sac.memory import records
from purejaxrl_sac.memory.indices import divided
from purejaxrl_sac.memory.records import Codec, Record
from purejaxrl_sac.returns import discounted_sum
from purejaxrl_sac.types import Index, PyTree, Sample, Scalar, Storage, Transition


class Records(struct.PyTreeNode):
    """Packed transitions."""

    words: jax.Array  # uint32 [rows * N, W]
    spec: tuple[tuple[jax.ShapeDtypeStruct, ...], jax.tree_util.PyTreeDef] = struct.field(
        pytree_node=False
    )  # leaves and structure of one transition

    def record(self, codec: Codec) -> Record:
        """The `Record` by which `codec` packs them."""
        leaves, treedef = self.spec
        return _record(codec, jax.tree.unflatten(treedef, leaves))


def ring(capacity: int, num_envs: int, codec: Codec = records.words) -> Storage:
    """A ring buffer of the latest `capacity` transitions, in R = capacity / N rows.

    Args:
        capacity: transitions stored, over all environments; a multiple of T x N.
        num_envs: N.
        codec: packs transitions.
    """
    rows = capacity // num_envs

    def init(rollout: Transition) -> Records:
        return _empty(rows * num_envs, rollout, codec)

    def add(state: Records, step: jax.Array, rollout: Transition) -> Records:
        block = _flat(state.record(codec).encode(rollout))
        return state.replace(words=write_rows(state.words, block, step % rows * num_envs))

    def read(state: Records, step: jax.Array, index: Index) -> Sample:
        _, row = divided(index.time, rows)
        packed = _take(state.words, row * num_envs + index.env)
        transition = state.record(codec).decode(packed)
        return Sample(transition, jnp.ones(index.time.shape, jnp.float32), index)

    return Storage(init, add, read, capacity, num_envs)


class Deduplicated(NamedTuple):
    rows: Records  # [(R + T + 1) * N, W + 1]: records without next_obs, and the number of each
    # one's boundary, counted over the run
    boundary: jax.Array  # uint32 [M, W]: the latest M boundaries, final observations of episodes
    # that were truncated
    boundaries: jax.Array  # int32: the number of boundaries so far, modulo `_period` of M


def deduplicated(
    capacity: int, num_envs: int, boundaries: int | None = None, codec: Codec = records.words
) -> Storage:
    """Like `ring`, but stores each observation once: about half the memory for images.

    `next_obs` of a transition is `obs` of the next row. Where the episode was truncated, the next
    row belongs to another episode, and `next_obs` is one of the `boundaries`, which are stored
    separately; the row has its number. Where the episode terminated, the discount is 0 and
    `next_obs` has no meaning: it is the first observation of the next episode.

    Args:
        capacity, num_envs, codec: as for `ring`.
        boundaries: M. If more of the stored transitions are truncated, the oldest of these have
            weight 0. By default one for every 16 transitions, but at least one rollout.
    """
    rows = capacity // num_envs

    def init(rollout: Transition) -> Deduplicated:
        length = rollout.reward.shape[0]
        requested = capacity // 16 if boundaries is None else boundaries
        max_boundaries = max(requested, length * num_envs)
        # T more rows, so that the newest observation overwrites none that is still needed, and one
        # for the newest observation when it comes after the last of them
        empty = _empty((rows + length + 1) * num_envs, rollout._replace(next_obs=()), codec, 1)
        boundary = jnp.zeros((max_boundaries, empty.words.shape[1] - 1), jnp.uint32)
        return Deduplicated(empty, boundary, jnp.int32(0))

    def add(state: Deduplicated, step: jax.Array, rollout: Transition) -> Deduplicated:
        total, max_boundaries = len(state.rows.words) // num_envs - 1, len(state.boundary)
        record = state.rows.record(codec)
        truncated = (rollout.last & (rollout.discount > 0)).ravel()
        period = _period(max_boundaries)
        count = jnp.cumsum(truncated, dtype=jnp.int32)
        number = (state.boundaries + count - 1) % period
        current = _flat(record.encode(rollout._replace(next_obs=())))
        following = _flat(record.encode(rollout._replace(obs=rollout.next_obs, next_obs=())))
        block = jnp.concatenate([current, number.astype(jnp.uint32)[:, None]], axis=-1)
        newest = jnp.pad(following[-num_envs:], ((0, 0), (0, 1)))
        block = jnp.concatenate([block, newest])
        words = write_rows(state.rows.words, block, step % total * num_envs)
        slot = jnp.where(truncated, number % max_boundaries, max_boundaries)
        return Deduplicated(
            rows=state.rows.replace(words=words),
            boundary=state.boundary.at[slot].set(following, mode="drop"),
            boundaries=(state.boundaries + count[-1]) % period,
        )

    def read(state: Deduplicated, step: jax.Array, index: Index) -> Sample:
        total, max_boundaries = len(state.rows.words) // num_envs - 1, len(state.boundary)
        record = state.rows.record(codec)
        _, time = divided(index.time, total)
        row = time * num_envs + index.env
        packed = _take(state.rows.words, row)
        transition = record.decode(packed[..., :-1])
        number = packed[..., -1].astype(jnp.int32)
        truncated = transition.last & (transition.discount > 0)
        newer = (state.boundaries - number) % _period(max_boundaries)
        lost = truncated & (newer > max_boundaries)
        following = _take(state.rows.words, row + num_envs)[..., :-1]
        _, slot = divided(number, max_boundaries)
        boundary = _take(state.boundary, slot)
        successor = jnp.where(truncated[..., None], boundary, following)
        transition = transition._replace(next_obs=record.decode(successor).obs)
        return Sample(transition, 1 - lost.astype(jnp.float32), index)

    return Storage(init, add, read, capacity, num_envs)


def n_step(storage: Storage, n: int, gamma: Scalar) -> Storage:
    """Transitions of up to n steps, from any storage (Sutton & Barto 2018, section 7.1).

    With k <= n the number of steps until the episode ends, by termination or time limit, or until
    the newest stored transition,

        reward   = r_t + gamma r_{t+1} + ... + gamma^(k-1) r_{t+k-1}
        discount = gamma^(k-1) d_{t+k-1}
        next_obs = next_obs_{t+k-1}

    so that reward + gamma discount V(next_obs) is the target, as it is for one step.

    Args:
        n: at most capacity / N.
    """

    def read(state: PyTree, step: jax.Array, index: Index) -> Sample:
        newest = (step - 1 - index.time)[..., None]  # in steps from the transition on
        ahead_by = jnp.arange(n, dtype=jnp.int32)
        times = index.time[..., None] + jnp.minimum(ahead_by, newest)
        window = Index(times, jnp.broadcast_to(index.env[..., None], times.shape))
        ahead = storage.read(state, step, window).transition
        last = ahead.last.astype(jnp.int32)
        ended = jnp.cumsum(last, axis=-1) - last > 0
        valid = (ahead_by <= newest) & ~ended
        steps = valid.sum(-1, dtype=jnp.int32)
        # [B, n, ...] -> [B, ...], or without B for a single index
        first = jax.tree.map(lambda x: x[(slice(None),) * index.time.ndim + (0,)], ahead)
        final = storage.read(state, step, index._replace(time=index.time + steps - 1))
        rewards = valid.astype(jnp.float32) * ahead.reward
        shrinkage = jnp.float32(gamma) ** (steps - 1).astype(jnp.float32)
        transition = first._replace(
            reward=discounted_sum(rewards, gamma),
            discount=final.transition.discount * shrinkage,
            next_obs=final.transition.next_obs,
            last=final.transition.last,
        )
        return Sample(transition, final.weight, index, rewards)

    return storage._replace(read=read)


def _period(max_boundaries: int) -> int:
    """A multiple of M at which boundary numbers wrap: far above the capacity, below 2^30."""
    return 2**30 // max_boundaries * max_boundaries


def _empty(count: int, rollout: Transition, codec: Codec, more: int = 0) -> Records:
    """Zeros for `count` transitions, with `more` additional words each."""
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), rollout)
    leaves, treedef = jax.tree.flatten(spec)
    words = jnp.zeros((count, _record(codec, spec).words + more), jnp.uint32)
    return Records(words, (tuple(leaves), treedef))


def _record(codec: Codec, spec: Transition) -> Record:
    if not callable(codec):
        raise ConfigError(
            f"the codec is {kind_of(codec)}, but must be a function, see records.Codec"
        )
    record = codec(spec)
    if not isinstance(record, Record):
        raise ConfigError(f"the codec returned {kind_of(record)}, but must return a records.Record")
    return record


def _flat(rollout: jax.Array) -> jax.Array:
    """[T, N, W] -> [T * N, W]."""
    return rollout.reshape(-1, rollout.shape[-1])


def _take(words: jax.Array, row: jax.Array) -> jax.Array:
    """Rows [..., W] of [count, W]; `row` [...] must be in bounds."""
    return words.at[row].get(mode="promise_in_bounds")
