"""Where replay memories keep transitions: `ring`, `once` for large observations, and `n_step`.

The transition of `Index(t, e)` is what environment e did at its t-th step. Transitions are packed
into records of W 32-bit words (see `records`), and a memory is one array of them, [R * N, W], row
by row. Rollouts of T rows are written as one block at row t mod R, which never wraps because T
divides R; reading costs what is read, whatever the capacity.

Words are not numbers: no gradient passes through a memory.

The array has two axes and is never reshaped, because on a TPU, where the last two are tiled, a
reshape would copy it; XLA lays it out with the records along the lanes there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.memory import records
from purejaxrl_sac.memory.records import Codec, Record
from purejaxrl_sac.types import Index, PyTree, Sample, Storage, Transition


@struct.dataclass
class Records:
    """Packed transitions."""

    words: jax.Array  # uint32 [rows * N, W]
    spec: tuple = struct.field(pytree_node=False)  # of one transition: leaves, and their treedef

    def record(self, codec: Codec) -> Record:
        """How `codec` packs them."""
        leaves, treedef = self.spec
        return codec(jax.tree.unflatten(treedef, leaves))


def ring(capacity: int, num_envs: int, codec: Codec = records.words) -> Storage:
    """The last `capacity` transitions as they are, in R = capacity / N rows.

    Args:
        capacity: transitions kept, over all environments; a multiple of T x N.
        num_envs: N.
        codec: how a transition is packed.
    """
    rows = capacity // num_envs

    def init(rollout: Transition) -> Records:
        return _empty(rows * num_envs, rollout, codec)

    def add(state: Records, step: jax.Array, rollout: Transition) -> Records:
        block = _flat(state.record(codec).encode(rollout))
        return state.replace(words=write_rows(state.words, block, step % rows * num_envs))

    def read(state: Records, step: jax.Array, index: Index) -> Sample:
        packed = _take(state.words, index.time % rows * num_envs + index.env)
        transition = state.record(codec).decode(packed)
        return Sample(transition, jnp.ones(index.time.shape), index)

    return Storage(init, add, read, capacity, num_envs)


class Deduplicated(NamedTuple):
    rows: Records  # [(R + T + 1) * N, W + 1]: records without next_obs, and which of all the
    # boundaries was each one's
    boundary: jax.Array  # uint32 [M, W]: the last M observations at which an episode was cut off
    boundaries: jax.Array  # int32: how many there have been


def deduplicated(
    capacity: int, num_envs: int, boundaries: int | None = None, codec: Codec = records.words
) -> Storage:
    """Like `ring`, with each observation kept once: about half the memory where they are images.

    A successor is the observation one row on. Where a time limit cut the episode off, that row
    begins another episode, and the successor is one of the `boundaries` kept apart: the row's
    slot says which. Where the episode terminated there is nothing to bootstrap from: the discount
    is 0, and `next_obs` is whatever came next.

    Args:
        capacity, num_envs, codec: as for `ring`.
        boundaries: M; should more of the kept transitions be cut off, the oldest of those have
            weight 0. By default one for every 16 transitions, and never less than a rollout.
    """
    rows = capacity // num_envs

    def init(rollout: Transition) -> Deduplicated:
        length = rollout.reward.shape[0]
        wanted = capacity // 16 if boundaries is None else boundaries
        room = max(wanted, length * num_envs)
        # T rows more, so that the newest observation overwrites none that is still needed, and
        # one for that observation after the last of them
        kept = _empty((rows + length + 1) * num_envs, rollout._replace(next_obs=()), codec, 1)
        boundary = jnp.zeros((room, kept.words.shape[1] - 1), jnp.uint32)
        return Deduplicated(kept, boundary, jnp.int32(0))

    def add(state: Deduplicated, step: jax.Array, rollout: Transition) -> Deduplicated:
        total, room = len(state.rows.words) // num_envs - 1, len(state.boundary)
        record = state.rows.record(codec)
        cut = (rollout.last & (rollout.discount > 0)).ravel()
        slot = state.boundaries + jnp.cumsum(cut, dtype=jnp.int32) - 1
        current = _flat(record.encode(rollout._replace(next_obs=())))
        following = _flat(record.encode(rollout._replace(obs=rollout.next_obs, next_obs=())))
        block = jnp.concatenate([current, slot.astype(jnp.uint32)[:, None]], axis=-1)
        newest = jnp.pad(following[-num_envs:], ((0, 0), (0, 1)))
        block = jnp.concatenate([block, newest])
        words = write_rows(state.rows.words, block, step % total * num_envs)
        place = jnp.where(cut, slot % room, room)
        return Deduplicated(
            rows=state.rows.replace(words=words),
            boundary=state.boundary.at[place].set(following, mode="drop"),
            boundaries=state.boundaries + cut.sum(dtype=jnp.int32),
        )

    def read(state: Deduplicated, step: jax.Array, index: Index) -> Sample:
        total, room = len(state.rows.words) // num_envs - 1, len(state.boundary)
        record = state.rows.record(codec)
        now = index.time % total * num_envs + index.env
        packed = _take(state.rows.words, now)
        transition = record.decode(packed[..., :-1])
        slot = packed[..., -1].astype(jnp.int32)
        cut = transition.last & (transition.discount > 0)
        lost = cut & (state.boundaries - slot > room)
        following = _take(state.rows.words, now + num_envs)[..., :-1]
        successor = jnp.where(cut[..., None], _take(state.boundary, slot % room), following)
        transition = transition._replace(next_obs=record.decode(successor).obs)
        return Sample(transition, 1 - lost.astype(jnp.float32), index)

    return Storage(init, add, read, capacity, num_envs)


def n_step(storage: Storage, n: int, gamma: jax.Array | float) -> Storage:
    """Transitions of up to n steps, out of any storage (Sutton & Barto 2018, section 7.1).

    With k <= n the steps until the episode ends, by termination or time limit, or until nothing
    newer is stored,

        reward   = r_t + gamma r_{t+1} + ... + gamma^(k-1) r_{t+k-1}
        discount = gamma^(k-1) d_{t+k-1}
        next_obs = the successor of step t + k - 1

    so that reward + gamma discount V(next_obs) is the target, as it is for one step.

    Args:
        n: a static number, at most capacity / N.
    """

    def read(state: PyTree, step: jax.Array, index: Index) -> Sample:
        times = index.time[..., None] + jnp.arange(n)
        window = Index(
            jnp.minimum(times, step - 1), jnp.broadcast_to(index.env[..., None], times.shape)
        )
        ahead = storage.read(state, step, window).transition
        ended = jnp.cumsum(ahead.last, axis=-1) - ahead.last > 0
        taken = (times < step) & ~ended
        steps = taken.sum(-1)
        first = jax.tree.map(lambda x: x[(slice(None),) * index.time.ndim + (0,)], ahead)
        final = storage.read(state, step, index._replace(time=index.time + steps - 1))
        transition = first._replace(
            reward=(taken * ahead.reward * gamma ** jnp.arange(n)).sum(-1),
            discount=final.transition.discount * jnp.float32(gamma) ** (steps - 1),
            next_obs=final.transition.next_obs,
            last=final.transition.last,
        )
        return Sample(transition, final.weight, index)

    return storage._replace(read=read)


def _empty(count: int, rollout: Transition, codec: Codec, more: int = 0) -> Records:
    """Room for `count` transitions, with `more` words each than they need."""
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), rollout)
    leaves, treedef = jax.tree.flatten(spec)
    words = jnp.zeros((count, codec(spec).words + more), jnp.uint32)
    return Records(words, (tuple(leaves), treedef))


def _flat(rollout: jax.Array) -> jax.Array:
    """[T, N, W] -> [T * N, W]."""
    return rollout.reshape(-1, rollout.shape[-1])


def _take(words: jax.Array, row: jax.Array) -> jax.Array:
    """Rows [..., W] of [count, W], all of which exist."""
    return words.at[row].get(mode="promise_in_bounds")
