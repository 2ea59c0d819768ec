"""What off-policy agents that remember share: replay of sequences, and burn-in.

A replay memory stores sequences (`memory.sequence_replay`), each with the carry that the agent had
before its first step. Updates unroll a sequence from this carry or from the initial one ("stored
state" and "zero start state" of R2D2, Kapturowski et al. 2019, section 3). Both differ from the
carry under the current parameters, so the first `burn_in` steps of a sequence only recompute it,
for each network with its own parameters and without gradients; the steps after them are learned
from.
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from purejaxrl_sac.agents.off_policy import Prioritized, ReplayConfig
from purejaxrl_sac.agents.sequences import RecurrentCell, newest, sequences_of
from purejaxrl_sac.config import ConfigError, static, traced
from purejaxrl_sac.memory import prioritized_sequences, sequence_storage, uniform_sequences
from purejaxrl_sac.types import Memory, PyTree, RecurrentNetwork, Sample, Storage, Transition


class BurnIn(NamedTuple):
    """The steps of sequences before those that are learned from."""

    carry: PyTree  # [B, ...]: stored before their first steps
    start: jax.Array  # [burn_in, B] bool: steps before which the carry is reset
    batch: Transition  # [burn_in x B]


class Replayed(NamedTuple):
    """The steps of sequences that are learned from, T of each."""

    start: jax.Array  # [T, B] bool, as in `BurnIn`
    batch: Transition  # [T x B]
    weight: jax.Array  # [T x B]


def after_burn_in(config: SequenceReplay, sample: Sample) -> tuple[BurnIn, Replayed]:
    """Splits a sample of sequences, which start with the carry of `config.start_carry`.

    Raises:
        ConfigError: the memory samples single transitions.
    """
    carry, start, batch, weight = sequences_of(sample)
    if config.start_carry == "initial":
        start = start.at[0].set(True)
    burn_in = config.burn_in
    row = burn_in * start.shape[1]
    before, after = (
        jax.tree.map(lambda x, s=s: x[s], batch) for s in (slice(row), slice(row, None))
    )
    return BurnIn(carry, start[:burn_in], before), Replayed(start[burn_in:], after, weight[row:])


def uniform_replay(config: SequenceReplay, storage: Storage) -> Memory:
    """Samples every sequence with the same probability."""
    length = config.sequence_length
    sequences = sequence_storage(storage, length)
    return uniform_sequences(sequences, config.batch_size, length, config.rollout_length)


def prioritized_replay(config: PrioritizedSequences, storage: Storage) -> Memory:
    """Samples sequences in proportion to powers of their priorities."""
    length = config.sequence_length
    return prioritized_sequences(
        sequence_storage(storage, length),
        config.batch_size,
        length,
        config.rollout_length,
        config.priority_exponent,
        config.importance_exponent,
        config.priority_of_maximum,
        config.total_steps,
    )


def warmed(
    network: RecurrentNetwork, params: PyTree, carry: PyTree, before: BurnIn, *inputs: jax.Array
) -> PyTree:
    """The carry [B, ...] after the burn-in. Losses do not compute it, so that it has no gradient.

    Args:
        carry: the network's own part of the stored one.
        inputs: the network's inputs in the burn-in: observations [burn_in x B], and further ones.
    """
    if not len(before.start):
        return carry
    obs, *more = inputs
    return newest(network.apply(params, carry, obs, before.start, *more)[0])


class SequenceReplay(ReplayConfig, RecurrentCell):
    """Fields of replay of sequences."""

    rollout_length: int = static(10)
    """Steps each environment takes between learning phases. Sequences begin where rollouts do."""
    sequence_length: int = static(20, at_least=1)
    """Steps of each sequence, with those of the burn-in; a multiple of rollout_length."""
    start_carry: str = static("stored", one_of=("stored", "initial"))
    """Carry before a sampled sequence: stored, or initial as at the start of an episode."""
    burn_in: int = static(0, at_least=0)
    """First steps of each sequence, which only recompute its carry."""
    batch_size: int = static(32)
    """Sequences per gradient update."""
    num_updates: int = static(10)
    """Gradient updates in each learning phase."""

    def check(self) -> None:
        if self.dataset is not None:
            raise ConfigError(
                "recurrent algorithms replay sequences with the carries before them, which a"
                " dataset of transitions does not have: use dqn or sac"
            )
        super().check()
        length, envs = self.sequence_length, self.num_envs
        if self.burn_in >= length:
            raise ConfigError(
                f"burn_in is {self.burn_in}, but must be less than sequence_length = {length}, of"
                " which it is a part"
            )
        if length % self.rollout_length:
            raise ConfigError(
                f"sequence_length is {length}, but must be a multiple of rollout_length ="
                f" {self.rollout_length}, because sequences begin where rollouts do"
            )
        for name in ("capacity", "warmup_steps"):
            if getattr(self, name) < length * envs:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, but must be at least sequence_length x"
                    f" num_envs = {length * envs}, so that there is a sequence to learn from"
                )


class PrioritizedSequences(SequenceReplay, Prioritized):
    """Fields of `prioritized_replay` of sequences."""

    priority_of_maximum: float = traced(0.9, between=(0, 1))
    """Weight of the largest priority of a sequence's steps; 1 minus it is that of their mean."""
