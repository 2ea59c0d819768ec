"""What ends a run early: signals, and failures of the machine."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import jax

from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.errors import RunError, StoppedError, reason
from purejaxrl_sac.experiment.runs.directory import RunDirectory


@contextlib.contextmanager
def recorded_signals() -> Iterator[list[signal.Signals]]:
    """SIGINT and SIGTERM are recorded, so that a run can stop after the current chunk.

    A second SIGINT raises KeyboardInterrupt at once.
    """
    received: list[signal.Signals] = []

    def record(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    with _handled_by(record):
        yield received


@contextlib.contextmanager
def stopping_at_once(path: Path, steps: int) -> Iterator[None]:
    """SIGINT and SIGTERM end the evaluation of a trained run: its checkpoint is on disk.

    Raises:
        StoppedError: one was received.
    """
    received = signal.SIGINT

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # no Exception, which the failure of a picture may be

    try:
        with _handled_by(stop):
            yield
    except KeyboardInterrupt:
        raise StoppedError(path, steps, received, trained=True) from None


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call a handler, if this is the main thread."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {x: signal.signal(x, handler) for x in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextlib.contextmanager
def failures_as_run_errors(directory: RunDirectory) -> Iterator[None]:
    """Turns failures of the disk, the memory or another process into one-line errors.

    Raises:
        RunError: with the reason and how to continue.
    """
    try:
        yield
    except (BrokenPipeError, ConnectionError):
        raise  # standard output was closed
    except (OSError, MemoryError, ValueError, jax.errors.JaxRuntimeError) as error:
        if lost := processes.lost_process(error):
            raise lost from error
        if isinstance(error, ValueError):  # bad input, or a bug
            raise
        cause = getattr(error, "strerror", None) or reason(error)
        advice = "fix the cause and resume it"
        if steps := directory.checkpoint_steps():
            advice += f" from its checkpoint of step {steps[-1]:,}"
        elif not directory.path.exists():
            advice = "its directory was removed"
        elif not (directory.metrics.exists() or (directory.path / "sweep.json").exists()):
            advice = "fix the cause and run it again, nothing was trained"
        raise RunError(f"{directory.path} failed ({cause}): {advice}") from error
