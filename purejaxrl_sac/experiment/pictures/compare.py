"""Several runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.pictures import plot
from purejaxrl_sac.experiment.runs.directory import RunDirectory


def compare(paths: Sequence[Path], metric: str, out: Path) -> Figure:
    """Learning curves of a metric, and the final scores, of several runs.

    A score is a seed's mean greedy return at the end; where some run has none yet, every run's are
    its seeds' latest returns while training.

    Raises:
        ConfigError: not a run, no such metric, or the picture exists already.
    """
    if not paths:
        raise ConfigError("plot needs at least one run")
    if out.exists():
        raise ConfigError(f"{out} exists already: give --out another name")
    found = [RunDirectory.find(path) for path in paths]
    played = sorted({run.read_document()["config"]["env"] for run in found})
    if len(played) > 1:
        raise ConfigError(f"runs on {' and '.join(played)} have nothing to compare")
    curves, greedy, training = {}, {}, {}
    for name, run in zip(labels(paths), found, strict=True):
        columns = run.columns()
        known = [column for column in columns if column not in ("steps", "seconds")]
        if metric not in known:
            has = ", ".join(known) or "none yet"
            raise ConfigError(f"{run.path} has no metric {metric}: it has {has}")
        curves[name] = (columns["steps"], columns[metric].T)
        summary = run.read_summary() or {}
        greedy[name] = np.array(summary.get("greedy_returns") or [], float)
        training[name] = plot.forward_fill(columns["episode_return"].T)[:, -1]
    finished = all(map(len, greedy.values()))
    what = "greedy return" if finished else "training return"
    try:
        return plot.comparison(
            curves,
            greedy if finished else training,
            ylabel=metric.replace("_", " "),
            xlabel=f"final {what} of a seed",
            path=out,
        )
    except (OSError, ValueError) as error:  # no such directory, or no such kind of picture
        raise ConfigError(f"cannot write {out}: {error}") from None


def labels(paths: Sequence[Path]) -> list[str]:
    """Names to tell runs apart: their directories', with parents where those are alike."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
