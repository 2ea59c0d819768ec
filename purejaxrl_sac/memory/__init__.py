"""Replay memories and rollout buffers as pure functions (see `types.Memory`)."""

from purejaxrl_sac.memory.replay import prioritized, uniform
from purejaxrl_sac.memory.rollouts import (
    latest,
    latest_before,
    latest_with_next_action,
    minibatches,
    sequences,
)
from purejaxrl_sac.memory.sequence_replay import (
    prioritized_sequences,
    sequence_storage,
    uniform_sequences,
)

__all__ = [
    "latest",
    "latest_before",
    "latest_with_next_action",
    "minibatches",
    "prioritized",
    "prioritized_sequences",
    "sequence_storage",
    "sequences",
    "uniform",
    "uniform_sequences",
]
