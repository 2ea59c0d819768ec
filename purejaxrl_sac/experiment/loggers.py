"""Where else progress goes. A logger is any function of a `Progress`, called after each chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from purejaxrl_sac.config import ConfigError

if TYPE_CHECKING:
    from purejaxrl_sac.experiment.runner import Progress

Logger = Callable[["Progress"], None]


def _scalars(progress: Progress) -> dict[str, float]:
    """Means over the seeds where the figure is known."""
    figures = {"episode_return": progress.episode_return, **progress.metrics}
    known = {name: values[np.isfinite(values)] for name, values in figures.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}


def tensorboard(directory: Path) -> Logger:
    """Writes TensorBoard event files into the run directory.

    Raises:
        ConfigError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError("--log tensorboard needs pip install 'purejaxrl_sac[log]'") from None
    writer = SummaryWriter(str(directory), flush_secs=10)

    def log(progress: Progress) -> None:
        for name, value in _scalars(progress).items():
            writer.add_scalar(name, value, progress.steps)
        writer.flush()

    return log


def wandb(directory: Path) -> Logger:
    """Logs to Weights & Biases; WANDB_MODE=offline keeps everything in the run directory.

    Raises:
        ConfigError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigError("--log wandb needs pip install 'purejaxrl_sac[log]'") from None
    run = wandb.init(project="purejaxrl_sac", name=directory.name, dir=directory)
    return lambda progress: run.log(_scalars(progress), step=progress.steps)


LOGGERS = {"tensorboard": tensorboard, "wandb": wandb}
