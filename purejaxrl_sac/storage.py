"""Where replay memories keep transitions: `ring`, `once` for large observations, and `n_step`.

The transition of `Index(t, e)` is what environment e did at its t-th step. Rollouts of T rows
are written as one block at row t mod R, which never wraps because T divides R; reading costs
what is read, whatever the capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.types import Index, PyTree, Sample, Storage, Transition


def ring(capacity: int, num_envs: int) -> Storage:
    """The last `capacity` transitions as they are: a Transition of [R, N, ...] arrays.

    Args:
        capacity: transitions kept, over all environments; a multiple of T x N.
        num_envs: N.
    """
    rows = capacity // num_envs

    def add(state: Transition, step: jax.Array, rollout: Transition) -> Transition:
        return jax.tree.map(lambda x, block: write_rows(x, block, step % rows), state, rollout)

    def read(state: Transition, step: jax.Array, index: Index) -> Sample:
        transition = jax.tree.map(lambda x: _rows(x, index.time % rows, index.env), state)
        return Sample(transition, jnp.ones(index.time.shape), index)

    return Storage(lambda rollout: _empty(rows, rollout), add, read, capacity, num_envs)


class Once(NamedTuple):
    rows: Transition  # [R + T, N, ...]; its next_obs is ()
    slot: jax.Array  # [R + T, N] int32: which of all the boundaries was this row's
    boundary: jax.Array  # [M, *obs_shape]: the last M observations at which an episode was cut off
    boundaries: jax.Array  # int32: how many there have been


def once(capacity: int, num_envs: int, boundaries: int | None = None) -> Storage:
    """Like `ring`, with each observation kept once: about half the memory where they are images.

    A successor is the observation one row on. Where a time limit cut the episode off, that row
    begins another episode, and the successor is one of the `boundaries` kept apart. Where the
    episode terminated there is nothing to bootstrap from: the discount is 0, and `next_obs` is
    whatever came next.

    Args:
        capacity, num_envs: as for `ring`.
        boundaries: M; should more of the kept transitions be cut off, the oldest of those have
            weight 0. By default one for every 16 transitions, and never less than a rollout.
    """
    rows = capacity // num_envs

    def init(rollout: Transition) -> Once:
        length = rollout.reward.shape[0]
        wanted = capacity // 16 if boundaries is None else boundaries
        room = max(wanted, length * num_envs)
        obs = rollout.obs
        # T rows more, so that the newest observation overwrites none that is still needed
        kept = _empty(rows + length, rollout._replace(next_obs=()))
        slot = jnp.zeros((rows + length, num_envs), jnp.int32)
        return Once(kept, slot, jnp.zeros((room, *obs.shape[2:]), obs.dtype), jnp.int32(0))

    def add(state: Once, step: jax.Array, rollout: Transition) -> Once:
        total, room = len(state.slot), len(state.boundary)
        length = len(rollout.reward)
        cut = (rollout.last & (rollout.discount > 0)).ravel()
        slot = state.boundaries + jnp.cumsum(cut) - 1
        ends = rollout.next_obs.reshape(-1, *rollout.next_obs.shape[2:])
        boundary = state.boundary.at[jnp.where(cut, slot % room, room)].set(ends, mode="drop")

        def write(x: jax.Array, block: jax.Array) -> jax.Array:
            return write_rows(x, block, step % total)

        kept = jax.tree.map(write, state.rows, rollout._replace(next_obs=()))
        newest = write_rows(kept.obs, rollout.next_obs[-1:], (step + length) % total)
        return Once(
            rows=kept._replace(obs=newest),
            slot=write(state.slot, slot.astype(jnp.int32).reshape(rollout.reward.shape)),
            boundary=boundary,
            boundaries=state.boundaries + cut.sum(dtype=jnp.int32),
        )

    def read(state: Once, step: jax.Array, index: Index) -> Sample:
        total, room = len(state.slot), len(state.boundary)
        now = index.time % total
        transition = jax.tree.map(lambda x: _rows(x, now, index.env), state.rows)
        cut = transition.last & (transition.discount > 0)
        slot = _rows(state.slot, now, index.env)
        lost = cut & (state.boundaries - slot > room)
        following = _rows(state.rows.obs, (index.time + 1) % total, index.env)
        end = state.boundary.at[slot % room].get(mode="promise_in_bounds")
        cut = cut.reshape(cut.shape + (1,) * (end.ndim - cut.ndim))
        transition = transition._replace(next_obs=jnp.where(cut, end, following))
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
        first = storage.read(state, step, index).transition
        final = storage.read(state, step, index._replace(time=index.time + steps - 1))
        transition = first._replace(
            reward=(taken * ahead.reward * gamma ** jnp.arange(n)).sum(-1),
            discount=final.transition.discount * jnp.float32(gamma) ** (steps - 1),
            next_obs=final.transition.next_obs,
            last=final.transition.last,
        )
        return Sample(transition, final.weight, index)

    return storage._replace(read=read)


def _empty(rows: int, rollout: Transition) -> Transition:
    return jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), rollout)


def _rows(x: jax.Array, row: jax.Array, env: jax.Array) -> jax.Array:
    flat = x.reshape(-1, *x.shape[2:])
    return flat.at[row * x.shape[1] + env].get(mode="promise_in_bounds")
