"""How a run can end before its end; `ConfigError` is for what never began."""

from __future__ import annotations

from pathlib import Path
from signal import Signals

from purejaxrl_sac.config import ConfigError


class InUseError(ConfigError):
    """Another process writes there."""


class NoRoomError(ConfigError):
    """More than fits into memory."""


class RunError(RuntimeError):
    """A run that could not go on; the message is one line that says what is safe."""


class StoppedError(Exception):
    """A run that was asked to stop and did, after a checkpoint."""

    def __init__(self, path: Path, steps: int, signal: Signals) -> None:
        super().__init__(path, steps, signal)  # as they are, so that it can be pickled
        self.path, self.steps, self.signal = path, steps, signal

    def __str__(self) -> str:
        return f"{self.path} stopped at step {self.steps:,} by {self.signal.name}"


class DamagedError(Exception):
    """A checkpoint that is not what was written."""
