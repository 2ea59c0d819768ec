"""Successive halving: all points are trained for a short time, the best of them longer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError, whole_number
from purejaxrl_sac.experiment.devices.mesh import mesh_for, padded
from purejaxrl_sac.experiment.runs import engine, files
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.tuning import journal
from purejaxrl_sac.experiment.tuning.journal import Journal
from purejaxrl_sac.experiment.tuning.points import (
    Point,
    at,
    distinct_points,
    points_per_batch,
    static_values,
)
from purejaxrl_sac.experiment.tuning.search import lanes
from purejaxrl_sac.types import TrainState


class Rung(NamedTuple):
    """A comparison of the points that have reached some number of steps."""

    steps: int  # environment steps of each seed
    points: np.ndarray  # [N] indices of the points
    scores: np.ndarray  # [N, seeds] their greedy returns; nan where the seed diverged


class HalvingResult(NamedTuple):
    """The results of successive halving."""

    points: list[Point]  # distinct
    rungs: list[list[Rung]]  # of each batch
    best: int | None  # index in `points` of the highest score at the last rung at which a point
    # has one; None if every point diverged

    def table(self) -> list[dict[str, Any]]:
        """One row per rung and point that reached it."""
        return [
            {
                "point": int(point),
                **self.points[point],
                "steps": rung.steps,
                "iqm": lanes.score(scores),
            }
            for rungs in self.rungs
            for rung in rungs
            for point, scores in zip(rung.points, rung.scores, strict=True)
        ]


def successive_halving(
    config: Config,
    points: Sequence[Point],
    seeds: int = 4,
    *,
    eta: int = 3,
    first: float | None = None,
    seed: int = 0,
    episodes: int = 64,
    max_lanes: int | None = None,
    devices: int | None = None,
    on_rung: Callable[[Rung], None] = lambda rung: None,
    out: Path | str | None = None,
) -> HalvingResult:
    """Train all points for a short time, the best 1 / eta of them eta times as long, and so on.

    Jamieson & Talwalkar 2016 (arXiv 1502.07943). If not all lanes are trained at once, batches are
    trained one after the other, and at each rung a point survives if it is in the best 1 / eta of
    all points that have reached the rung so far. This is the stopping rule of ASHA (Li et al. 2020,
    arXiv 1810.05934); lanes share one clock, so that none can be promoted later.

    Args:
        seeds: per point, the same for all.
        eta: reduction factor: one in `eta` points survives a rung, rounded up; points that diverged
            do not count.
        first: fraction of the run after which points are first compared; None for the one from
            which on one point of each batch reaches the end, or few where their number is no power
            of `eta`.
        seed: root of all random numbers.
        episodes: greedy evaluation episodes per seed at each rung.
        max_lanes: lanes trained at once; None for all.
        devices: number of devices that lanes are distributed over; None for all.
        on_rung: called after each rung, also after those of a search that continues.
        out: directory of `table.csv` and of the states after the latest rungs, from which the same
            call continues, see `journal`; None to write nothing.

    Raises:
        ConfigError: invalid input, points that need several programs, or more lanes at once than
            fit into memory.
    """
    eta = whole_number("eta", eta, at_least=2)
    size = len(points) if max_lanes is None else points_per_batch(max_lanes, seeds)
    points = distinct_points(config, points)
    if len({static_values(config, point) for point in points}) > 1:
        raise ConfigError("points of a search share one program: sweep static fields instead")
    lanes.check_time_limit(config)
    iterations = at(config, points[0]).iterations
    ends = rung_ends(iterations, min(size, len(points)), eta, first)
    seen: list[list[float]] = [[] for _ in ends]
    batches = []
    planned = {"seeds": seeds, "seed": seed, "episodes": episodes}
    arguments = {**planned, "points": points, "eta": eta, "first": first, "max_lanes": max_lanes}
    with journal.opened(out, "successive halving", config, arguments) as steps:
        for start in range(0, len(points), size):
            batch = np.arange(start, min(start + size, len(points)))
            batches.append(
                _halve(config, points, batch, ends, seen, eta, devices, on_rung, planned, steps)
            )
    result = HalvingResult(points, batches, best_of([rung for rungs in batches for rung in rungs]))
    if out is not None:
        files.write_csv(Path(out) / "table.csv", result.table())
    return result


def best_of(rungs: Sequence[Rung]) -> int | None:
    """The point with the highest score at the last rung at which one has a score."""
    for steps in sorted({rung.steps for rung in rungs}, reverse=True):
        reached = [rung for rung in rungs if rung.steps == steps]
        points = np.concatenate([rung.points for rung in reached])
        best = lanes.highest(np.array([lanes.score(x) for rung in reached for x in rung.scores]))
        if best is not None:
            return int(points[best])
    return None


def rung_ends(iterations: int, points: int, eta: int, first: float | None = None) -> list[int]:
    """The iterations after which points are compared, each eta times the previous one; the last is
    the whole run.

    Args:
        points: number of points of a batch.
        first: fraction of the run before the first rung; None for 1 / eta^floor(log_eta(points)).

    Raises:
        ConfigError: `first` is out of range.
    """
    if first is not None and not 0 < first <= 1:
        raise ConfigError(
            f"first is {first}, but must be a fraction of the run, above 0 and up to 1"
        )
    fraction = first or float(eta) ** -math.floor(math.log(points, eta) + 1e-9)
    count = math.floor(-math.log(fraction, eta) + 1e-9)
    ends = [round(iterations * fraction * eta**rung) for rung in range(count + 1)]
    return sorted({max(1, end) for end in ends} | {iterations})


def survivors(scores: np.ndarray, seen: Sequence[float], eta: int) -> np.ndarray:
    """Select the scores in the best 1 / eta of all that have been seen, at least one if any is.

    Args:
        scores: [N]; those that are not finite are never selected.
        seen: all scores at this rung so far, of any number.

    Returns:
        indices of the selected scores, increasing; of equal scores, the first.
    """
    known = np.sort([score for score in seen if np.isfinite(score)])[::-1]
    if len(known) == 0 or not np.isfinite(scores).any():
        return np.empty(0, int)
    count = -(-len(known) // eta)
    threshold = known[count - 1]
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    above = [i for i in order if np.isfinite(scores[i]) and scores[i] >= threshold]
    return np.sort(np.array(above[:count], int))


def _halve(
    config: Config,
    points: list[Point],
    batch: np.ndarray,
    ends: list[int],
    seen: list[list[float]],
    eta: int,
    devices: int | None,
    on_rung: Callable[[Rung], None],
    planned: dict[str, int],
    steps: Journal,
) -> list[Rung]:
    """Train one batch until none of its points survives, and add its scores to `seen`.

    Rungs that the journal has are not trained again.
    """
    remaining, surviving, done = batch, np.arange(len(batch)), 0
    state: TrainState | None = None
    previous: tuple[Plan, Mesh] | None = None
    rungs: list[Rung] = []
    earlier = steps.taken
    for end, rung_scores in zip(ends, seen, strict=True):
        plan = lanes.lane_plan(config, [points[i] for i in remaining], **planned)
        mesh = mesh_for(plan.lanes, devices)
        scores = steps.scores(earlier + len(rungs))
        if scores is None:
            programs = lanes.compile_chunks(plan, mesh, [end - done], done)
            if previous is None:
                state = engine.initial_state(plan, programs)
            else:
                state = steps.restore(*previous) if state is None else state
                kept = surviving[:, None] * plan.seeds + np.arange(plan.seeds)
                state = lanes.take_lanes(state, kept.ravel(), previous[1], mesh)
            config_lanes, _ = plan.config_lanes(padded(plan.lanes, mesh))
            state, scores = lanes.train_chunk(plan, programs, state, end - done, config_lanes)
            steps.add(scores, state, plan.lanes)
        rung = Rung(plan.steps(end), remaining, scores.reshape(len(remaining), plan.seeds))
        rungs.append(rung)
        on_rung(rung)
        done, previous = end, (plan, mesh)
        iqms = np.array([lanes.score(x) for x in rung.scores])
        rung_scores.extend(iqms.tolist())
        surviving = survivors(iqms, rung_scores, eta)
        remaining = remaining[surviving]
        if len(remaining) == 0:
            break
    steps.taken += len(rungs)
    return rungs
