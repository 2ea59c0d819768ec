"""How a run can end before its end; `ConfigError` is for what never began."""

from __future__ import annotations

from pathlib import Path
from signal import Signals

from purejaxrl_sac.config import ConfigError


class InUseError(ConfigError):
    """Another process writes there."""


class RunError(RuntimeError):
    """A run that could not go on; the message is one line that says what is safe."""


class StoppedError(Exception):
    """A run that was asked to stop and did, after a checkpoint."""

    def __init__(self, path: Path, steps: int, signal: Signals) -> None:
        super().__init__(f"{path} stopped at step {steps:,} by {signal.name}")
        self.path, self.steps, self.signal = path, steps, signal


class DamagedError(Exception):
    """A checkpoint that is not what was written."""
