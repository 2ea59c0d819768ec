"""The contracts: what a transition, an agent, a memory and a training state are.

Shapes: T is the rollout length, N the number of parallel environments, B a batch, G the
number of updates per iteration, A the number of discrete actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any


class Transition(NamedTuple):
    """One step of experience; leading axes [T, N] in a rollout and [B] in a batch."""

    obs: jax.Array  # [..., *obs_shape], in the environment's own dtype
    action: jax.Array  # [...] int32 if discrete, else [..., action_dim] in [-1, 1]
    reward: jax.Array  # [...] float32
    discount: jax.Array  # [...] float32: 0 where the episode TERMINATED, 1 elsewhere
    next_obs: jax.Array  # [..., *obs_shape]: the true successor, before any auto-reset; () where
    # `Agent.process_rollout` has left it out of what is remembered
    last: jax.Array  # [...] bool: terminated or truncated, the episode's last transition
    extras: PyTree = ()  # what `Agent.act` wants remembered (log-probabilities, values)


class Index(NamedTuple):
    """Which transitions: what environment `env` did at its `time`-th step, of any shape [...]."""

    time: jax.Array  # [...] int32, counted by the one clock
    env: jax.Array  # [...] int32


class Sample(NamedTuple):
    """What a memory hands to `Agent.update`."""

    transition: Transition  # leading axes [B] from a replay memory, [T, N] from `latest`
    weight: jax.Array  # weights of the rows, which broadcast against the leading axes
    index: PyTree = ()  # where the rows live, for `Memory.update_priorities`; () if nobody asks


def unchanged(state: PyTree, rollout: Transition) -> tuple[PyTree, Transition]:
    """`Agent.process_rollout` of an agent that remembers its rollouts as they are."""
    return state, rollout


class Agent(NamedTuple):
    """An algorithm as pure functions. `state` is whatever pytree `init` returns."""

    init: Callable  # (key, obs [N, ...]) -> state
    act: Callable  # (key, state, obs [N, ...], step) -> action [N, ...], extras  (exploring)
    policy: Callable  # (key, state, obs [N, ...]) -> action [N, ...]             (evaluation)
    update: Callable  # (key, state, Sample, count) -> state, priority [B], metrics
    q_values: Callable | None = None  # (state, obs [N, ...]) -> [N, A] where actions are discrete,
    # (state, obs, action [N, action_dim]) -> [N] where they are continuous
    process_rollout: Callable = (
        unchanged  # (state, rollout [T, N]) -> state, rollout to remember: targets,
    )
    # advantages and running statistics are made here, once per rollout


class Memory(NamedTuple):
    """What is remembered of the rollouts, as pure functions.

    No function keeps a position or a fill level: both follow from `step`, the one clock, which
    is the same for every seed of a vmapped run and therefore never batched.
    """

    init: Callable  # (rollout: Transition of [T, N] shape structs) -> state
    add: Callable  # (state, step, rollout [T, N]) -> state; `step` counts the rows added before
    draw: Callable  # (key, state, step, G) -> draws, leading axis G: what G updates can share
    sample: Callable  # (state, draw) -> Sample
    update_priorities: Callable  # (state, Sample, priority [B]) -> state


class Storage(NamedTuple):
    """Where a replay memory keeps its transitions, and how it reads them; see `Memory` on `step`.

    Rows age in place: of the R rows there is room for, those of times step - R .. step - 1 exist.
    """

    init: Callable  # (rollout: Transition of [T, N] shape structs) -> state
    add: Callable  # (state, step, rollout [T, N]) -> state
    read: Callable  # (state, step, Index [...]) -> Sample of [...]; weight 0 where lost
    capacity: int  # transitions kept, over all parallel environments: rows x N
    num_envs: int  # N


class EnvState(NamedTuple):
    """N parallel environments between two steps."""

    state: PyTree  # the environment's own state, leading axis [N]
    obs: jax.Array  # [N, *obs_shape]: what the next action is chosen from
    episode_return: jax.Array  # [N] float32: undiscounted, so far in the running episode
    episode_length: jax.Array  # [N] int32: likewise, in steps


class TrainState(NamedTuple):
    """Everything a run is: serialise it and you have the run."""

    key: jax.Array  # typed PRNG key
    step: jax.Array  # int32: steps taken by each environment, warm-up included; never batched
    env: EnvState
    agent: PyTree
    memory: PyTree
