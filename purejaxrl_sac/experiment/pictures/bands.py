"""What figures show: statistics over seeds with 95 % bootstrap intervals, as arrays and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.statistics import (
    bootstrap_interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

Statistic = Callable[[np.ndarray], np.ndarray]  # [runs, ...] -> [...]
Curve = tuple[np.ndarray, np.ndarray]  # steps [points], values [runs, points]

STATISTICS: dict[str, Statistic] = {
    "IQM": iqm,
    "median": lambda x: np.median(x, axis=0),
    "mean": lambda x: np.mean(x, axis=0),
}
FEW_SEEDS = 6  # with fewer, a percentile interval of the IQM is about the range of the seeds
COLUMNS = ("run", "label", "panel", "statistic", "seeds", "x", "y", "low", "high")  # of CSV files


class Band(NamedTuple):
    """A statistic over the seeds of a run, with the ends of its interval."""

    label: str  # of the run
    panel: str  # curves, scores, profile, improvement
    statistic: str  # IQM, median, mean, fraction above x, P(> another run), or seed 3
    seeds: int  # that the statistic is of
    x: np.ndarray  # [points] steps or scores; nan if the statistic is one number
    y: np.ndarray  # [points]
    low: np.ndarray  # [points], nan without an interval, as for one seed
    high: np.ndarray  # [points]


def forward_fill(returns: np.ndarray) -> np.ndarray:
    """Replace nan by the last known value of the same run, which is its latest score.

    Args:
        returns: [runs, points], nan where no episode ended.

    Returns:
        [runs, points], nan only before a run's first episode.
    """
    known = np.where(np.isnan(returns), 0, np.arange(returns.shape[1]))
    return np.take_along_axis(returns, np.maximum.accumulate(known, axis=1), axis=1)


def _of_seeds(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values as an array [seeds, points]; ConfigError unless there is one for each of the steps."""
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[1:] != np.shape(steps):
        raise ConfigError(
            f"values of shape {[*values.shape]} are no curve over steps of shape"
            f" {[*np.shape(steps)]}: values are [seeds, points], and steps [points]"
        )
    return values


def curve(label: str, steps: np.ndarray, values: np.ndarray) -> Band:
    """The IQM over the seeds with a value, from where all of them have one.

    A point is where at least one of these seeds has a new value; the others keep their latest.

    Args:
        steps: [points].
        values: [seeds, points], nan where nothing was measured, such as where no episode ended.
    """
    values = _of_seeds(steps, values)
    filled = forward_fill(values)
    finite = np.isfinite(filled[:, -1])
    known, new = filled[finite], np.isfinite(values[finite]).any(0)
    measured = np.isfinite(known).all(0) & new
    x, known = np.asarray(steps, float)[measured], known[:, measured]
    y = iqm(known) if len(known) else np.empty(0)
    none = np.full_like(y, np.nan)
    low, high = bootstrap_interval(known) if len(known) > 1 else (none, none)
    return Band(label, "curves", "IQM", len(known), x, y, low, high)


def seed_curves(label: str, steps: np.ndarray, values: np.ndarray) -> list[Band]:
    """The curve of every seed with a value; its points are where the seed has a new one.

    Args:
        steps: [points].
        values: [seeds, points], nan where nothing was measured, such as where no episode ended.
    """
    rows = [
        (seed, np.asarray(steps, float)[known], row[known])
        for seed, row in enumerate(_of_seeds(steps, values))
        if (known := np.isfinite(row)).any()
    ]
    return [
        Band(label, "curves", f"seed {seed}", 1, x, y, np.full_like(y, np.nan), y * np.nan)
        for seed, x, y in rows
    ]


def score(label: str, scores: np.ndarray, statistic: str) -> Band:
    """A statistic of `STATISTICS` over final scores, [seeds]."""
    function = STATISTICS[statistic]
    interval = partial(bootstrap_interval, scores, function)
    return _number(label, "scores", statistic, len(scores), function(scores), interval)


def seed_scores(label: str, scores: np.ndarray) -> list[Band]:
    """The final score of every seed, [seeds]; nan for a seed without one, which is left out."""
    return [
        _number(label, "scores", f"seed {seed}", 1, value)
        for seed, value in enumerate(scores)
        if np.isfinite(value)
    ]


def profile(label: str, scores: np.ndarray, thresholds: np.ndarray) -> Band:
    """The fraction of seeds above each threshold.

    Args:
        scores: [seeds].
        thresholds: [points].
    """
    above = partial(performance_profile, thresholds=thresholds)
    y = above(scores)
    none = np.full_like(y, np.nan)
    low, high = stratified_interval([scores], above) if len(scores) > 1 else (none, none)
    return Band(label, "profile", "fraction above x", len(scores), thresholds, y, low, high)


def improvement(scores: Mapping[str, np.ndarray], first: str, second: str) -> Band:
    """P(a seed of the first run > a seed of the second)."""
    samples = [scores[first], scores[second]]
    seeds = min(map(len, samples))
    value = probability_of_improvement(*samples)
    interval = partial(stratified_interval, samples, probability_of_improvement)
    return _number(first, "improvement", f"P(> {second})", seeds, value, interval)


def _number(
    label: str,
    panel: str,
    statistic: str,
    seeds: int,
    value: np.ndarray | float,
    interval: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Band:
    """A band of one point without x."""
    ends = (math.nan, math.nan) if seeds < 2 or interval is None else interval()
    x, y, low, high = (np.array([number], float) for number in (math.nan, value, *ends))
    return Band(label, panel, statistic, seeds, x, y, low, high)


def caution(seeds: Iterable[int], meaning: str = "about their range") -> str:
    """What intervals of so few seeds mean, in one line; empty if all are of enough seeds.

    Of up to 4 seeds, the 95 % percentile interval of the IQM is exactly their range: more than
    2.5 % of the resamples have the lowest seed as their IQM.
    """
    few = sorted({number for number in seeds if 0 < number < FEW_SEEDS})
    several = [str(number) for number in few if number > 1]
    texts = [f"intervals of {' or '.join(several)} seeds: {meaning}"] * bool(several)
    return "; ".join([*texts, *["1 seed: no interval"] * (1 in few)])


def csv_text(bands: Sequence[Band], runs: Mapping[str, str]) -> str:
    """The points of all bands as a CSV table of `COLUMNS`; nan is an empty cell.

    Args:
        runs: label -> name of the run; in labels, an escaped dollar sign is a dollar sign.
    """
    rows = [
        [runs.get(band.label, ""), band.label, band.panel, band.statistic, band.seeds, *point]
        for band in bands
        for point in zip(band.x, band.y, band.low, band.high, strict=True)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_cell(x) for x in row] for row in rows])
    return text.getvalue()


def write_csv(path: Path, text: str) -> None:
    """Write a table, such as `csv_text`, as a new file.

    Raises:
        OSError: it exists, or cannot be written.
    """
    with path.open("x", newline="") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _cell(value: str | float) -> str | float:
    if isinstance(value, str):
        return value.replace(r"\$", "$")
    return "" if math.isnan(value) else float(value) if isinstance(value, np.floating) else value
