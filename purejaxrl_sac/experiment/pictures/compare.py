"""Comparison of several runs in one figure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunWarning, one_line
from purejaxrl_sac.experiment.pictures import plot
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of


def compare(paths: Sequence[Path], metric: str, out: Path) -> Figure:
    """Plot learning curves of a metric, and final scores, of several runs.

    The score of a seed is its mean greedy return at the end; if some run has none yet, it is the
    latest training return in all runs.

    Args:
        paths: run directories.
        metric: a column of `metrics.jsonl`.
        out: image file, which must not exist.

    Warns if runs have different numbers of steps, or training returns stand for greedy ones.

    Raises:
        ConfigError: not a run, no such metric, different environments, or the file exists.
    """
    if not paths:
        raise ConfigError("plot needs at least one run")
    if files.exists(out):
        raise ConfigError(f"{out} exists already: give --out another name")
    runs = [RunDirectory.find(path) for path in paths]
    envs = sorted({run.read_document()["config"]["env"] for run in runs})
    if len(envs) > 1:
        raise ConfigError(f"runs on {' and '.join(envs)} cannot be compared: plot them separately")
    curves, greedy, training, steps = {}, {}, {}, {}
    for run in runs:
        rows, lost = metrics = run.read_metrics(lanes_of(run.read_document()))
        if lost and not rows:
            raise ConfigError(f"{run.metrics}: {metrics.warning}")
    every = [run.columns() for run in runs]
    unequal = len({tuple(columns.get("steps", ())[-1:]) for columns in every}) > 1
    for name, run, columns in zip(labels(paths), runs, every, strict=True):
        known = [column for column in columns if column not in ("steps", "seconds")]
        if metric not in known:
            has = ", ".join(known) or "none yet"
            raise ConfigError(f"{run.path} has no metric {metric}: it has {has}")
        diverged = columns["failed_step"][-1] >= 0
        if diverged.all():
            raise ConfigError(f"every seed of {run.path} has diverged: leave it out")
        seeds = ", ".join(map(str, np.flatnonzero(diverged)))
        label = f"{name} (without diverged seed {seeds})" if seeds else name
        label += f", {columns['steps'][-1]:,.0f} steps" if unequal else ""
        steps[label] = int(columns["steps"][-1])
        curves[label] = (columns["steps"], columns[metric].T[~diverged])
        summary = run.read_summary()
        returns = summary["greedy_returns"] if summary else None
        greedy[label] = np.array(returns or [], float)[~diverged[: len(returns or [])]]
        training[label] = plot.forward_fill(columns["episode_return"].T[~diverged])[:, -1]
    finished = all(map(len, greedy.values()))
    score = "greedy return" if finished else "training return"
    _warn_of_unequal(steps, greedy)
    try:
        return plot.comparison(
            curves,
            greedy if finished else training,
            ylabel=metric.replace("_", " "),
            xlabel=f"final {score} of a seed",
            path=out,
        )
    except (OSError, ValueError) as error:  # no such directory, or an unknown image format
        raise ConfigError(f"cannot write {out}: {error}") from None


def _warn_of_unequal(steps: dict[str, int], greedy: dict[str, np.ndarray]) -> None:
    """Warn of what makes scores of runs incomparable."""
    if len(set(steps.values())) > 1:
        text = f"runs have different numbers of steps: {'; '.join(steps)}"
        warnings.warn(RunWarning(text), stacklevel=3)
    unscored = [label for label, returns in greedy.items() if not len(returns)]
    if unscored and len(unscored) < len(greedy):
        text = f"{', '.join(unscored)}: no greedy returns yet, so all scores are training returns"
        warnings.warn(RunWarning(text), stacklevel=3)


def labels(paths: Sequence[Path]) -> list[str]:
    """Distinct names of runs: of their directories, or the whole paths if those are equal."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [one_line(name).replace("$", r"\$") for name in names]  # no formulas
