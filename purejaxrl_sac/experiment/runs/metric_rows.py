"""The rows of `metrics.jsonl`: what a run measured in each of its chunks.

A row has the steps and seconds so far, the steps of the row before (`after`), and of every other
metric a list over lanes, with null for nan and infinity. Its checksum tells a damaged row.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.plans import EVALUATED_POLICIES, Plan, Progress

PER_LANE = ("failed_step", "episodes", "episode_return", "episode_length")  # fields of `Progress`
SCALARS = {"steps": int, "after": int, "seconds": float}  # all other fields of a row are per lane
Row = dict[str, Any]


class Metrics(NamedTuple):
    """The intact rows of a file."""

    rows: list[Row]  # in ascending order of steps
    lost: list[tuple[int, int]]  # steps after which rows are missing, and up to which

    @property
    def warning(self) -> str:
        """'rows ... are missing', or empty if none is."""
        if not self.lost:
            return ""
        ranges = ", ".join(f"{after:,} to {until:,}" for after, until in self.lost)
        return f"rows after steps {ranges} are missing or damaged"


def append(path: Path, progress: Progress, after: int) -> None:
    """Appends a row.

    Args:
        after: the steps of the row before; 0 for the first one.
    """
    row = {
        "steps": progress.steps,
        "after": after,
        "seconds": progress.seconds,
        "failed_step": progress.failed_step.tolist(),
        "episodes": progress.episodes.tolist(),
        "episode_return": to_list(progress.episode_return),
        "episode_length": to_list(progress.episode_length),
        **{name: to_list(value) for name, value in progress.metrics.items()},
        **{name: to_list(value) for name, value in progress.evaluation.items()},
    }
    with path.open("a") as file:
        file.write(_line(row))


def sync(path: Path) -> None:
    """Flushes the file to disk."""
    with path.open("a") as file:
        os.fsync(file.fileno())


def read(path: Path, lanes: int, steps: int | None = None, end: int = 0) -> Metrics:
    """Reads the intact rows; there is none if there is no file.

    Args:
        steps: up to which rows are read, and must exist; None for all rows, which must reach `end`.

    Raises:
        ConfigError: it is no file, or cannot be read.
    """
    text = files.read_text(path) if path.exists() else ""
    end = end if steps is None else steps
    rows, lost, last = [], [], 0
    for line in text.split("\n")[:-1]:  # a last line without newline is incomplete
        row = _row(line, lanes)
        if row is None or not last <= row["after"] < row["steps"]:
            continue
        if steps is not None and row["steps"] > steps:
            break
        if row["after"] > last:
            lost.append((last, row["after"]))
        rows.append(row)
        last = row["steps"]
    if last < end:
        lost.append((last, end))
    return Metrics(rows, lost)


def truncate(path: Path, lanes: int, steps: int) -> None:
    """Removes damaged rows, and those after a step, which a resumed run writes again."""
    if path.exists():
        text = "".join(map(_line, read(path, lanes, steps).rows))
        if text.encode() != path.read_bytes():
            files.write_text(path, text)


def columns(rows: list[Row], lanes: int) -> dict[str, np.ndarray]:
    """`steps` and `seconds` [chunks], every other metric [chunks, lanes], nan if missing."""
    names = dict.fromkeys(name for row in rows for name in row if name != "after")
    found = {name: np.zeros(0) for name in ("steps", "seconds")}
    for name in names:
        values = [row.get(name, [None] * lanes) for row in rows]
        scalar = name in SCALARS
        found[name] = np.array(values) if scalar else np.stack([from_list(x) for x in values])
    return found


def history(rows: list[Row], plan: Plan, steps: int) -> list[Progress]:
    """The progress of a run up to a step; without metrics at it if the last row is missing."""
    unknown = np.full(plan.lanes, np.nan, np.float32)
    none = np.zeros(plan.lanes, int)
    latest = unknown
    history = []
    for row in rows:
        metrics = {name: from_list(x) for name, x in row.items() if name not in SCALARS}
        latest = np.where(metrics["episodes"] == 0, latest, metrics["episode_return"])
        evaluation = {name: metrics.pop(name) for name in EVALUATED_POLICIES if name in metrics}
        trained = (row["steps"] - plan.steps(0)) * plan.lanes
        history.append(
            Progress(
                steps=row["steps"],
                total_steps=plan.total,
                seconds=row["seconds"],
                rate=trained / max(row["seconds"], 1e-9),
                latest_return=latest,
                evaluation=evaluation,
                **{name: metrics.pop(name) for name in PER_LANE},
                metrics=metrics,
            )
        )
    if not history or history[-1].steps != steps:
        last = history[-1] if history else None
        history.append(
            Progress(
                steps=steps,
                total_steps=plan.total,
                seconds=last.seconds if last else 0.0,
                rate=last.rate if last else math.nan,
                latest_return=latest,
                evaluation={},
                failed_step=last.failed_step if last else none - 1,
                episodes=none,
                episode_return=unknown,
                episode_length=unknown,
                metrics={},
            )
        )
    return history


def _line(row: Row) -> str:
    return json.dumps(files.sealed(row)) + "\n"


def _row(line: str, lanes: int) -> Row | None:
    """The inverse of `_line`; None for a damaged line, or one of another number of lanes."""
    row = files.unsealed(line)
    if row is None:
        return None
    per_lane = {name: x for name, x in row.items() if name not in SCALARS}
    try:
        for name, kind in SCALARS.items():
            files.check(row.get(name), kind, name)
        for name, values in per_lane.items():
            files.check(values, list[float | None], name)
    except ConfigError:
        return None
    complete = set(PER_LANE) <= per_lane.keys() and all(len(x) == lanes for x in per_lane.values())
    return row if complete else None


def to_list(values: np.ndarray) -> list[float | None]:
    """float32 as the shortest decimals that restore it; null for nan and infinity."""
    return [
        float(str(x)) if math.isfinite(x) else None for x in np.asarray(values, np.float32).ravel()
    ]


def from_list(values: Any) -> np.ndarray:
    """The inverse of `to_list`; integers stay integers, and null is nan."""
    if not isinstance(values, list) or all(isinstance(x, int) for x in values):
        return np.asarray(values)
    return np.array([np.nan if x is None else x for x in values], np.float32)
