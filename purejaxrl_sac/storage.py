"""Where replay memories keep transitions: `ring`, `once` for large observations, and `n_step`.

The transition of `Index(t, e)` is what environment e did at its t-th step. Transitions are packed
into records of W 32-bit words (see `records`), and a memory is one array of them. Rollouts of T
rows are written as one block at row t mod R, which never wraps because T divides R; reading costs
what is read, whatever the capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import records
from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.records import Codec, Record
from purejaxrl_sac.types import Index, PyTree, Sample, Storage, Transition


@struct.dataclass
class Records:
    """The transitions of N environments, packed."""

    words: jax.Array  # uint32 [rows, N * W]
    spec: tuple = struct.field(pytree_node=False)  # of one transition: leaves, and their treedef

    def record(self, codec: Codec) -> Record:
        """How they are packed, if it was by `codec`."""
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
        spec = _spec(rollout)
        width = num_envs * codec(spec).words
        leaves, treedef = jax.tree.flatten(spec)
        return Records(jnp.zeros((rows, width), jnp.uint32), (tuple(leaves), treedef))

    def add(state: Records, step: jax.Array, rollout: Transition) -> Records:
        packed = state.record(codec).encode(rollout)  # [T, N, W]
        block = packed.reshape(len(packed), -1)
        return state.replace(words=write_rows(state.words, block, step % rows))

    def read(state: Records, step: jax.Array, index: Index) -> Sample:
        record = state.record(codec)
        packed = _read(state.words, record.words, index.time % rows, index.env)
        return Sample(record.decode(packed), jnp.ones(index.time.shape), index)

    return Storage(init, add, read, capacity, num_envs)


class Once(NamedTuple):
    rows: Records  # [R + T + 1, N * (W + 1)]: a record without next_obs and its slot, each
    boundary: jax.Array  # uint32 [M, W]: records of the last M observations that cut one off
    boundaries: jax.Array  # int32: how many there have been


def once(
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

    def init(rollout: Transition) -> Once:
        length = rollout.reward.shape[0]
        wanted = capacity // 16 if boundaries is None else boundaries
        room = max(wanted, length * num_envs)
        spec = _spec(rollout._replace(next_obs=()))
        width = codec(spec).words
        leaves, treedef = jax.tree.flatten(spec)
        # T rows more, so that the newest observation overwrites none that is still needed, and
        # one for that observation where they end
        kept = jnp.zeros((rows + length + 1, num_envs * (width + 1)), jnp.uint32)
        return Once(
            rows=Records(kept, (tuple(leaves), treedef)),
            boundary=jnp.zeros((room, width), jnp.uint32),
            boundaries=jnp.int32(0),
        )

    def add(state: Once, step: jax.Array, rollout: Transition) -> Once:
        total, room = len(state.rows.words) - 1, len(state.boundary)
        encode = state.rows.record(codec).encode
        cut = rollout.last & (rollout.discount > 0)
        slot = state.boundaries + jnp.cumsum(cut.ravel()).reshape(cut.shape) - 1
        # the newest observations are those of one row more
        after = jax.tree.map(lambda x: x[-1:], rollout._replace(next_obs=()))
        after = after._replace(obs=rollout.next_obs[-1:])
        longer = jax.tree.map(lambda *x: jnp.concatenate(x), rollout._replace(next_obs=()), after)
        slots = jnp.concatenate([slot, slot[-1:]]).astype(jnp.uint32)
        packed = jnp.concatenate([encode(longer), slots[..., None]], axis=-1)
        words = write_rows(state.rows.words, packed.reshape(len(packed), -1), step % total)
        ends = encode(rollout._replace(obs=rollout.next_obs, next_obs=()))
        place = jnp.where(cut, slot % room, room).ravel()
        ends = ends.reshape(len(place), -1)
        return Once(
            rows=state.rows.replace(words=words),
            boundary=state.boundary.at[place].set(ends, mode="drop"),
            boundaries=state.boundaries + cut.sum(dtype=jnp.int32),
        )

    def read(state: Once, step: jax.Array, index: Index) -> Sample:
        total, room = len(state.rows.words) - 1, len(state.boundary)
        record, kept = state.rows.record(codec), state.rows.words
        width, now = record.words + 1, index.time % total
        packed = _read(kept, width, now, index.env)
        following = _read(kept, width, now + 1, index.env)[..., :-1]
        transition = record.decode(packed[..., :-1])
        slot = packed[..., -1].astype(jnp.int32)
        cut = transition.last & (transition.discount > 0)
        lost = cut & (state.boundaries - slot > room)
        end = state.boundary.at[slot % room].get(mode="promise_in_bounds")
        successor = record.decode(jnp.where(cut[..., None], end, following)).obs
        transition = transition._replace(next_obs=successor)
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
 # the first step's fields, and those of the last one, are read as they are
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


def _spec(rollout: Transition) -> Transition:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), rollout)


def _read(words: jax.Array, width: int, row: jax.Array, env: jax.Array) -> jax.Array:
    """Records [..., W] of `words` [rows, N * W] at rows and environments of any shape [...]."""
    flat = words.reshape(-1, width)
    return flat.at[row * (words.shape[1] // width) + env].get(mode="promise_in_bounds")
