"""Loggers for TensorBoard and Weights & Biases.

A logger is any function of a `Progress`; it is called after each chunk. A logger factory receives
the run directory and the environment steps that are done already: 0, or those before a resumption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.runs.display import means
from purejaxrl_sac.experiment.runs.plans import Progress

Logger = Callable[[Progress], None]
LoggerFactory = Callable[[Path, int], Logger]


def tensorboard(directory: Path, steps: int = 0) -> Logger:
    """Writes TensorBoard event files into the run directory.

    Raises:
        ConfigError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError("--log tensorboard needs pip install 'purejaxrl_sac[log]'") from None
    writer = SummaryWriter(str(directory), purge_step=steps + 1 if steps else None, flush_secs=10)

    def log(progress: Progress) -> None:
        for name, value in means(progress).items():
            writer.add_scalar(name, value, progress.steps)
        writer.flush()

    return log


def wandb(directory: Path, steps: int = 0) -> Logger:
    """Logs to Weights & Biases; WANDB_MODE=offline keeps everything in the run directory.

    Raises:
        ConfigError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigError("--log wandb needs pip install 'purejaxrl_sac[log]'") from None
    identity = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    run = wandb.init(
        project="purejaxrl_sac", name=directory.name, dir=directory, id=identity, resume="allow"
    )
    return lambda progress: run.log(means(progress), step=progress.steps)


LOGGERS: dict[str, LoggerFactory] = {"tensorboard": tensorboard, "wandb": wandb}
