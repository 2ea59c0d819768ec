"""What recurrent agents share: stored carries, and samples of sequences.

The carry of a recurrent torso is the agent's memory of the running episode. It is stored with every
action. On-policy updates unroll whole sequences from the carry that was stored at their beginning,
as a constant, and reset it where episodes begin inside them. In replay, `start_carry` chooses
it or the initial one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.networks.recurrent import TORSOS
from purejaxrl_sac.types import PyTree, Sample, Transition


class Remembered(NamedTuple):
    """What is stored with an action, [T, N]."""

    choice: Any  # what the memoryless algorithm stores
    carry: PyTree  # before the step
    next_carry: PyTree = ()  # after it, which `process_rollout` removes: for the value of next_obs


class Sequences(NamedTuple):
    """A sample of sequences [T, B], and its rows [T x B], time by time."""

    carry: PyTree  # [B, ...]: stored before their first steps
    start: jax.Array  # [T, B] bool: the first steps of episodes inside; never the first row's,
    # whose stored carry has been reset already
    batch: Transition  # [T x B]; `extras` are what the memoryless algorithm stores
    weight: jax.Array  # [T x B]


def flattened(tree: PyTree) -> PyTree:
    """[T, B, ...] -> [T x B, ...], time by time."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def within_episodes(steps: int, batch: int) -> jax.Array:
    """`start` of sequences in which no episode begins: False, [T, B]."""
    return jnp.zeros((steps, batch), bool)


def newest(carries: PyTree) -> PyTree:
    """The carry after the last of several steps: [T, B, ...] -> [B, ...]."""
    return jax.tree.map(lambda x: x[-1], carries)


def sequences_of(sample: Sample) -> Sequences:
    """What updates need of a sample.

    Raises:
        ConfigError: the memory samples single transitions.
    """
    transition = sample.transition
    last, remembered = transition.last, transition.extras
    if last.ndim != 2:
        raise ConfigError(
            "recurrent networks learn from sequences [T, B], but the memory samples single"
            " transitions: use memory.sequences, memory.latest or memory.uniform_sequences"
        )
    transition = transition._replace(extras=remembered.choice)
    return Sequences(
        carry=jax.tree.map(lambda x: x[0], remembered.carry),
        start=jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]]),
        batch=flattened(transition),
        weight=jnp.broadcast_to(sample.weight, last.shape).reshape(-1),
    )


class RecurrentCell(Config):
    """Fields of `networks.recurrent.named_torso`."""

    cell: str = static("gru", one_of=tuple(TORSOS))
    """Recurrent torso: gru, lstm, or min_gru, which computes all steps of a sequence at once."""
    memory_size: int = static(64, at_least=1)
    """Units of the recurrent torso."""
    encoder_layers: int = static(1, at_least=0)
    """Hidden layers before the recurrent torso; the others follow it, at least one."""
