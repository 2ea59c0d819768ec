"""Errors that end a run early, and how they are shown; bad input is a `ConfigError`."""

from __future__ import annotations

from pathlib import Path
from signal import Signals

from purejaxrl_sac.config import ConfigError


def shortened(text: str, length: int, end: int = 0) -> str:
    """The text with at most `length` characters; an ellipsis stands for what is left out.

    Args:
        end: number of characters that are kept at the end of a text that is too long.
    """
    if len(text) <= length:
        return text
    return f"{text[: max(length - end - 1, 0)]}…{text[len(text) - end :]}"


def one_line(text: object) -> str:
    """A text for a terminal: line breaks, escape sequences and other controls are shown as such."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(shown)


def reason(error: BaseException) -> str:
    """The first line of an error's message; its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class InUseError(ConfigError):
    """Another process is writing to the directory."""


class InsufficientMemoryError(ConfigError):
    """The run does not fit into the available memory."""


class RunError(RuntimeError):
    """The machine failed during a run; the message is one line that says what was saved."""


class StoppedError(Exception):
    """The run received a signal and stopped after writing a checkpoint."""

    def __init__(self, path: Path, steps: int, signal: Signals, trained: bool = False) -> None:
        super().__init__(path, steps, signal, trained)  # all, so that it can be pickled
        self.path, self.steps, self.signal = path, steps, signal
        self.trained = trained  # whether only the final evaluation and its files are missing

    def __str__(self) -> str:
        return f"{self.path} stopped at step {self.steps:,} by {self.signal.name}"

    @property
    def advice(self) -> str:
        """What exists, and how to get the rest."""
        resume = f"purejaxrl-sac resume {self.path}"
        if not self.trained:
            return f"continue with {resume}"
        return (
            "its training is complete and its checkpoint is written, but the final evaluation,"
            f" summary.json and pictures are missing: {resume} makes them"
        )


class DamagedError(Exception):
    """A checkpoint that cannot be read, or whose checksum differs from the recorded one."""


class RunWarning(UserWarning):
    """What a user should know of a run or a sweep, such as damage that does not stop it."""
