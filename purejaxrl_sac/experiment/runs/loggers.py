"""Loggers for TensorBoard and Weights & Biases.

A logger is any function of a `Progress`; it is called after each chunk. If it takes a second
argument, that is the state of all lanes, padded for the devices: copy what you keep of it, because
the next chunk reuses its memory. If it has a method `close`, that is called when the run ends, for
whatever reason. A logger factory receives the run directory and the environment steps that are done
already: 0, or those before a resumption.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl_sac import references
from purejaxrl_sac.config import ConfigError, shown, unknown
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import Reporter, means
from purejaxrl_sac.experiment.runs.plans import Progress
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.part_errors import described
from purejaxrl_sac.types import TrainState

Logger = Callable[..., None]  # (Progress) or (Progress, TrainState)
LoggerFactory = Callable[[Path, int], Logger]


def scalars(progress: Progress) -> dict[str, float]:
    """What is logged: means over seeds that have not diverged, and IQMs of returns.

    `NAME_iqm`, `NAME_low` and `NAME_high` are the interquartile mean of a return over these seeds
    and, of several, its 95 % bootstrap interval. Of `episode_return` it is each seed's latest one,
    because seeds with long episodes may finish none in a chunk.
    """
    found = means(progress)
    returns = {"episode_return": progress.latest_return, **progress.evaluation}
    lengths = progress.episode_length[~progress.failed]
    if np.isfinite(lengths).any():
        found["episode_length"] = float(np.nanmean(lengths))
    for name, values in returns.items():
        known = values[~progress.failed]
        known = known[np.isfinite(known)]
        if len(known):
            found[f"{name}_iqm"] = float(iqm(known))
        if len(known) > 1:
            low, high = bootstrap_interval(known)
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def hyperparameters(directory: Path) -> dict[str, Any]:
    """The configuration of a run, its number of seeds and their root, as written in its files."""
    document = RunDirectory(directory).read_document()
    return {**document["config"], "seeds": document["seeds"], "seed": document["seed"]}


class TensorBoard:
    """Writes TensorBoard event files into the run directory.

    Raises:
        ConfigError: tensorboardX is not installed.
    """

    def __init__(self, directory: Path, steps: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError("--log tensorboard needs pip install 'purejaxrl_sac[log]'") from None
        purge = steps + 1 if steps else None
        self.writer = SummaryWriter(str(directory), purge_step=purge, flush_secs=10)
        rows = (f"| {name} | {value} |" for name, value in hyperparameters(directory).items())
        table = "\n".join(["| field | value |", "|---|---|", *rows])
        self.writer.add_text("configuration", table, 0)

    def __call__(self, progress: Progress) -> None:
        for name, value in scalars(progress).items():
            self.writer.add_scalar(name, value, progress.steps)
        self.writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self.writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases; WANDB_MODE=offline keeps everything in the run directory.

    The file `wandb-id` in the run directory has the identity under which a resumed run goes on.

    Raises:
        ConfigError: wandb is not installed.
    """

    def __init__(self, directory: Path, steps: int = 0) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError("--log wandb needs pip install 'purejaxrl_sac[log]'") from None
        file = directory / "wandb-id"
        if not files.exists(file):
            files.write_text(file, secrets.token_hex(8))
        self.run = wandb.init(
            project="purejaxrl_sac", name=directory.name, dir=directory, resume="allow",
            id=files.read_text(file).strip(), config=hyperparameters(directory),
        )  # fmt: skip

    def __call__(self, progress: Progress) -> None:
        self.run.log(scalars(progress), step=progress.steps)

    def close(self) -> None:
        """Marks the run as finished, so that the next one in this process is another."""
        self.run.finish()


LOGGERS: dict[str, LoggerFactory] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Logs:
    """The loggers of a run; one that fails is left out from then on, with a warning."""

    def __init__(
        self, path: Path, steps: int, loggers: Sequence[LoggerFactory], reporter: Reporter
    ) -> None:
        self.opened: list[Logger] = []
        self.reporter = reporter
        if not isinstance(loggers, Iterable):
            raise ConfigError(f"loggers is {shown(loggers)}, but must be a list of factories")
        try:
            for make_logger in loggers:
                self.opened.append(_made(make_logger, path, steps))
        except BaseException:
            self.close()
            raise
        self.active = list(self.opened)

    def write(self, progress: Progress, state: TrainState) -> None:
        """Calls every logger that has not failed so far."""
        for log in list(self.active):
            given = (progress, state) if _takes_state(log) else (progress,)
            if not self._attempt(log, partial(log, *given)):
                self.active.remove(log)

    def close(self) -> None:
        """Calls the method `close` of those that have one."""
        for log in self.opened:
            self._attempt(log, partial(_close, log))

    def _attempt(self, log: Logger, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:
            self.reporter.warning(
                f"the logger {_name(log)} failed, the run goes on: {described(error)}"
            )
            return False
        return True


def _made(make_logger: LoggerFactory, path: Path, steps: int) -> Logger:
    """A logger.

    Raises:
        ConfigError: its factory fails, or returns none.
    """
    name = getattr(make_logger, "__name__", type(make_logger).__name__)
    try:
        log = make_logger(path, steps)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the logger {name} cannot be made: {described(error)}") from error
    if not callable(log):
        raise ConfigError(
            f"the logger {name} is {shown(log)}, but must be a function of a Progress"
        )
    return log


def named(name: str) -> LoggerFactory:
    """A logger factory by its name, or by a reference ("file.py:name").

    Raises:
        ConfigError: there is none.
    """
    if name in LOGGERS:
        return LOGGERS[name]
    if not references.is_reference(name):
        raise unknown("logger", name, LOGGERS)
    found: LoggerFactory = references.load(name)
    return found


def _takes_state(log: Logger) -> bool:
    """Whether a logger takes a second argument."""
    try:
        inspect.signature(log).bind(None, None)
    except (TypeError, ValueError):  # another number, or the signature is not known
        return False
    return True


def _close(log: Logger) -> None:
    """Calls the method `close` of a logger, if it has one."""
    if hasattr(log, "close"):
        log.close()


def _name(log: Logger) -> str:
    """The name of a logger for messages."""
    return getattr(log, "__name__", type(log).__name__)
