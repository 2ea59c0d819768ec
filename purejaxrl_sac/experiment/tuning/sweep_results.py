"""The results of a sweep: scores, statistics, tables and figures."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.errors import RunWarning, reason
from purejaxrl_sac.experiment.pictures import bands
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.plans import has_time_limit, title
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.experiment.tuning import batches
from purejaxrl_sac.experiment.tuning.sweep_plan import Sweep, read_document


class SweepResult(NamedTuple):
    """The results of a sweep."""

    path: Path
    sweep: Sweep
    scores: np.ndarray  # [points, seeds] mean greedy return; nan where there is none
    diverged: np.ndarray  # [points, seeds] bool
    best: int | None  # index of the best point; None if no seed has a score
    fresh: np.ndarray | None  # [fresh_seeds] scores of the best point with fresh seeds
    fresh_diverged: np.ndarray  # [fresh_seeds] bool; empty without such seeds
    measures: dict[str, np.ndarray]  # [points, seeds] at the end of training; nan as for scores

    def table(self) -> list[dict[str, Any]]:
        """One row per point: of measures, the IQM over seeds and its 95 % interval."""
        rows = []
        for i, (point, diverged) in enumerate(zip(self.sweep.points, self.diverged, strict=True)):
            row = {"point": i, **point, **score_statistics(self.scores[i], diverged)}
            for name, values in self.measures.items():
                found = score_statistics(values[i], diverged)
                row |= {f"{name}_{x}": found[x] for x in ("iqm", "low", "high")}
            rows.append(row)
        return rows


def read_scores(path: Path, sweep: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Read the scores of all batches, and which seeds diverged; as `lane_scores`, but each
    [points, seeds]."""
    scores = np.full((len(sweep.points), sweep.seeds), np.nan)
    diverged = np.zeros(scores.shape, bool)
    for group in batches.existing(path):
        config = sweep.config_of(sweep.points[group.start])
        lanes = lane_scores(batches.path_of(path, group), config)
        for whole, part in zip((scores, diverged), lanes, strict=True):
            whole[group.start : group.stop] = part.reshape(-1, sweep.seeds)
    return scores, diverged


def read_measure(path: Path, sweep: Sweep, name: str) -> np.ndarray:
    """The values of a measure at the end of all batches, [points, seeds]; nan as for scores."""
    found = np.full((len(sweep.points), sweep.seeds), np.nan)
    for group in batches.existing(path):
        directory = RunDirectory.find(batches.path_of(path, group))
        summary, columns = directory.read_summary(), directory.columns()
        if summary is None or columns["steps"][-1:].tolist() != [summary["steps"]]:
            continue  # its last row is missing
        lanes = np.array(columns[name][-1], float)
        lanes[[int(lane) for lane in summary["failed_step"]]] = np.nan
        found[group.start : group.stop] = lanes.reshape(len(group), sweep.seeds)
    return found


def lane_scores(path: Path, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a run, and which lanes diverged.

    Returns:
        greedy returns, [lanes], or training returns where there is no time limit, nan where a lane
        diverged or finished no episode; and whether it diverged, [lanes].

    Raises:
        ConfigError: the run has not finished, or has a time limit but no greedy returns.
    """
    directory = RunDirectory.find(path)
    try:
        summary = directory.read_summary()
    except ConfigError as error:
        raise ConfigError(f"{error}; or move {path} away, and resume the sweep") from None
    if summary is None:
        raise ConfigError(f"{path} has not finished: resume the sweep")
    returns: Any = summary["greedy_returns"]
    if returns is None and has_time_limit(config):
        raise ConfigError(
            f"{path} has no greedy returns, because its final evaluation failed: move"
            f" {directory.summary} away, and resume where more memory is free"
        )
    if returns is None and (columns := directory.columns())["steps"].size:
        returns = bands.forward_fill(columns["episode_return"].T)[:, -1]
    scores = np.array(returns, float)
    diverged = np.zeros(scores.shape, bool)
    diverged[[int(lane) for lane in summary["failed_step"]]] = True
    scores[diverged] = np.nan
    return scores, diverged


def best_point(scores: np.ndarray) -> int | None:
    """The point with the highest IQM among those with the fewest seeds without a score.

    Args:
        scores: [points, seeds], nan where a seed has none.

    Returns:
        its index; None if no seed has a score.
    """
    missing = np.isnan(scores).sum(1)
    if missing.min() == scores.shape[1]:
        return None
    candidates = np.flatnonzero(missing == missing.min())
    return int(max(candidates, key=lambda i: iqm(scores[i][~np.isnan(scores[i])])))


def score_statistics(scores: np.ndarray, diverged: np.ndarray) -> dict[str, Any]:
    """Statistics of the scores of one point, [seeds], of which some may have diverged, [seeds].

    The interval of a single score is nan.
    """
    known = scores[~np.isnan(scores)]
    figures: dict[str, Any] = {"seeds": len(scores), "failed": int(diverged.sum())}
    names = ("iqm", "low", "high", "mean", "worst", "best")
    if len(known) == 0:
        return figures | dict.fromkeys(names, float("nan"))
    low, high = bootstrap_interval(known) if len(known) > 1 else (np.nan, np.nan)
    values = (iqm(known), low, high, known.mean(), known.min(), known.max())
    return figures | dict(zip(names, map(float, values), strict=True))


def write(result: SweepResult) -> None:
    """Write tables, figures and, last, the summary; a figure that fails is a warning."""
    from purejaxrl_sac.experiment.tuning import sensitivity

    path, sweep = result.path, result.sweep
    table = result.table()
    files.write_csv(path / "table.csv", table)
    rows = [
        {"point": i, **point, "seed": seed, "score": score}
        | {name: values[i, seed] for name, values in result.measures.items()}
        for i, point in enumerate(sweep.points)
        for seed, score in enumerate(result.scores[i])
    ]
    files.write_csv(path / "seeds.csv", rows)
    what = title(sweep.config)
    figures = partial(sensitivity.write_figures, sweep.points, title=what, diverged=result.diverged)
    for name, values in {"": result.scores, **result.measures}.items():
        try:
            figures(values, result.best, path, measure=name)
        except Exception as error:
            text = f"figures of {name or 'the scores'} were not drawn: {reason(error)}"
            warnings.warn(RunWarning(text), stacklevel=2)
    document: dict[str, Any] = {
        "points": len(sweep.points),
        "programs": len(list(sweep.programs())),
    }
    if result.best is not None:
        document["best"] = table[result.best]
    if result.fresh is not None:
        fresh = score_statistics(result.fresh, result.fresh_diverged)
        document["best_on_fresh_seeds"] = fresh
    files.write_document(path / "summary.json", document)


def summary_rows(result: SweepResult) -> dict[str, str]:
    """The results as rows of a table."""
    sweep = result.sweep
    rows = {
        "points x seeds": f"{len(sweep.points)} x {sweep.seeds}",
        "programs": str(len(list(sweep.programs()))),
    }
    if result.best is None:
        diverged = bool(result.diverged.all())
        why = "every seed of every point diverged" if diverged else "no finished episode"
        return rows | {"best": why}
    point = sweep.points[result.best]
    rows["best"] = ", ".join(f"{name} {format_value(x)}" for name, x in point.items())
    found = score_statistics(result.scores[result.best], result.diverged[result.best])
    rows["its score on the seeds that selected it, IQM [95 % interval]"] = _with_interval(found)
    if result.fresh is not None:
        found = score_statistics(result.fresh, result.fresh_diverged)
        rows["its score with fresh seeds"] = _with_interval(found)
    return rows


def format_value(value: Any) -> str:
    """A value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe(path: Path) -> dict[str, str]:
    """The configuration and status of a sweep, from its files alone, as rows of a table."""
    document = read_document(path)
    trained = sum(
        len(group)
        for group in batches.existing(path)
        if (batches.path_of(path, group) / "summary.json").exists()
    )
    finished = (path / "summary.json").exists()
    rows = {
        "sweep of": ", ".join(document["points"][0]),
        "algorithm": document["config"]["algorithm"],
        "environment": document["config"]["env"],
        "status": "finished" if finished else "not finished: continue with resume",
        "points": f"{trained} of {len(document['points'])} trained",
        "seeds per point": str(document["seeds"]),
    }
    if not finished:
        return rows
    summary = files.parse(files.read_text(path / "summary.json")) or {}
    if summary.pop("checksums", None) != files.checksums(summary):
        return rows | {"results": "summary.json is damaged: resume writes it again"}
    if best := summary.get("best"):
        fields = document["points"][0]
        rows["best"] = ", ".join(f"{name} {format_value(best[name])}" for name in fields)
        rows["its score on the seeds that selected it, IQM [95 % interval]"] = _with_interval(best)
    if fresh := summary.get("best_on_fresh_seeds"):
        rows["its score with fresh seeds"] = _with_interval(fresh)
    return rows


def _with_interval(found: dict[str, Any]) -> str:
    """Of `score_statistics`, or their JSON, such as '4.98 [4.5, 5.2] (1 of 8 seeds diverged)'."""
    if found["failed"] == found["seeds"]:
        return "every seed diverged"
    iqm, low, high = (np.array(found[name], float) for name in ("iqm", "low", "high"))
    text = "no finished episode" if np.isnan(iqm) else f"{iqm:.4g}"
    text += "" if np.isnan(low) else f" [{low:.4g}, {high:.4g}]"
    return text + " ({failed} of {seeds} seeds diverged)".format(**found) * (found["failed"] > 0)
