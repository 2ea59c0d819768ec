"""Sweeps: every point of hyperparameters with every seed, as lanes of as few programs as possible.

Traced hyperparameters may differ between lanes of one program; each combination of static ones is
compiled separately. Every batch of points that fits into memory is an ordinary run, in `batches/`,
so a sweep is distributed over devices, stopped and resumed as a run is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import device_name, mesh_for
from purejaxrl_sac.experiment.errors import InsufficientMemoryError, RunWarning, StoppedError
from purejaxrl_sac.experiment.runs import files, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of
from purejaxrl_sac.experiment.runs.interruptions import failures_as_run_errors
from purejaxrl_sac.experiment.runs.measures import Measure
from purejaxrl_sac.experiment.tuning import batches, sweep_plan, sweep_results
from purejaxrl_sac.experiment.tuning.batches import Batch, Engine, train_here
from purejaxrl_sac.experiment.tuning.points import Point
from purejaxrl_sac.experiment.tuning.sweep_plan import Sweep
from purejaxrl_sac.experiment.tuning.sweep_results import SweepResult
from purejaxrl_sac.types import Curriculum, Wrapper


def run(
    config: Config,
    points: Sequence[Point],
    seeds: int = 8,
    *,
    out: Path | str,
    seed: int = 0,
    chunks: int = 20,
    episodes: int = 128,
    fresh_seeds: int | None = None,
    **options: Any,
) -> SweepResult:
    """Train every point with every seed, then retrain the best point with fresh seeds.

    The score of the best point is biased upwards by its selection; with fresh seeds, which decide
    training and evaluation episodes, it is not.

    Args:
        points: {field: value}, see `points`; each value of a static field compiles a program.
        seeds: per point, the same for all.
        out: output directory, which must not exist yet.
        seed: root of all random numbers.
        chunks: approximate number of times that progress is reported and logged.
        episodes: greedy evaluation episodes per seed, whose mean return is its score.
        fresh_seeds: None for as many as `seeds`; 0 to skip retraining.
        options: see `train_remaining`.

    Raises:
        ConfigError: invalid input; nothing is written.
        RunError, StoppedError: as for a run; continue with `resume`.
    """
    sweep = sweep_plan.plan(
        config, points, seeds, seed=seed, chunks=chunks, episodes=episodes, fresh_seeds=fresh_seeds
    )
    return start(Path(out), sweep, **options)


def start(
    path: Path,
    sweep: Sweep,
    *,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Create a sweep's directory and train it; arguments and errors as for `run`."""
    sweep_plan.check_measures(sweep, measure or {}, options.get("devices"))
    sweep_plan.create(path, sweep, measure)
    try:
        return train_remaining(path, sweep, measure=measure, **options)
    except ConfigError:
        if processes.is_first() and not any(path.glob("batches/*/metrics.jsonl")):  # not trained
            files.remove(path, "sweep.json", "dataset.npz", "lock", "batches", "best")
        raise


def resume(
    path: Path | str,
    *,
    config: Config | None = None,
    algorithm: Any = None,
    env: Any = None,
    wrappers: Sequence[Wrapper | str] | None = None,
    curriculum: Curriculum | str | None = None,
    trust: bool = False,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Resume a sweep; finished batches are not trained again.

    Args:
        config, algorithm, env, wrappers, curriculum, trust: code that files cannot store, as for
            `loading.load`.
        measure: the measures of the sweep, unless they are trusted.
        options: see `train_remaining`.

    Raises:
        ConfigError: not a sweep, or written by another version.
    """
    given = record.Given(config, algorithm, env, wrappers, curriculum, trust)
    sweep = sweep_plan.read(Path(path), given)
    again = sweep_plan.read_measures(Path(path), measure, trust)
    return train_remaining(Path(path), sweep, measure=again, **options)


def train_remaining(
    path: Path,
    sweep: Sweep,
    *,
    engine: Engine = train_here,
    max_lanes: int | None = None,
    devices: int | None = None,
    measure: Mapping[str, Measure] | None = None,
    **options: Any,
) -> SweepResult:
    """Train what is left of a sweep, and write its results.

    Args:
        path: the sweep's directory.
        engine: what trains batches.
        max_lanes: of a batch; None for as many as fit into memory.
        devices: number of devices that lanes are distributed over; None for all.
        measure: name -> function of one seed's state, evaluated after each chunk of every lane; see
            `runs.measures`.
        options: of the engine, such as `reporter`, `checkpoint_minutes` and `any_version`.

    Returns:
        the results; also written as `table.csv`, `seeds.csv`, `sensitivity.png`, `heatmap.png` (of
        two hyperparameters), the same figures of each measure, `summary.json`, and `best/`, a run
        of the best point with fresh seeds.
    """
    if devices is not None:
        options["devices"] = devices
    if measure:
        options["measure"] = measure
    document = sweep_plan.document_of(sweep, measure)
    processes.check_equal(repr((str(path), document, max_lanes, devices)))
    processes.on_first(RunDirectory(path).check_links)
    with failures_as_run_errors(RunDirectory(path)):
        try:
            _train_batches(path, sweep, engine, max_lanes, **options)
            scores, diverged = sweep_results.read_scores(path, sweep)
            best = sweep_results.best_point(scores)
            fresh, fresh_diverged = None, np.zeros(0, bool)
            if sweep.fresh_seeds and best is not None:
                batch = batches.fresh_batch(path, sweep, best)
                _check_versions(path, [batch], engine, options)
                engine([batch], **options)
                fresh, fresh_diverged = sweep_results.lane_scores(batch.path, batch.config)
        except StoppedError as stop:
            raise StoppedError(path, stop.steps, stop.signal) from None
        measured = {name: sweep_results.read_measure(path, sweep, name) for name in measure or {}}
        result = SweepResult(path, sweep, scores, diverged, best, fresh, fresh_diverged, measured)
        processes.on_first(lambda: sweep_results.write(result))
    return result


def _train_batches(
    path: Path, sweep: Sweep, engine: Engine, max_lanes: int | None, **options: Any
) -> None:
    """Train all batches; where programs need more memory than their states, in smaller ones."""
    while True:
        remaining = batches.divide(path, sweep, max_lanes, options.get("devices"))
        _check_versions(path, remaining, engine, options)
        try:
            return engine(remaining, **options)
        except InsufficientMemoryError:
            processes.on_first(lambda: None)  # the first process has removed the batch
            sizes = (batch.points for batch in remaining if not batch.path.exists())
            largest = max(sizes, default=1)
            if largest == 1:
                raise
            max_lanes = largest // 2 * sweep.seeds


def _check_versions(
    path: Path, found: Sequence[Batch], engine: Engine, options: Mapping[str, Any]
) -> None:
    """Check that batches which remain are trained as those which are finished were.

    Other devices, which are known of this process only, are a warning.

    Raises:
        ConfigError: versions or settings are not those of the sweep, unless `any_version`.
    """
    finished = [batch for batch in found if (batch.path / "summary.json").exists()]
    if len(finished) == len(found):
        return
    any_version = options.get("any_version", False)
    other = record.check_versions(path, sweep_plan.read_document(path), any_version)
    for batch in finished if engine is train_here else ():
        document = RunDirectory.find(batch.path).read_document()
        here = device_name(mesh_for(lanes_of(document), options.get("devices")))
        if document["device"] != here:
            other.append(f"{document['device']} (here {here})")
    if other and processes.is_first():
        created = ", ".join(dict.fromkeys(other))
        text = f"{path} was created with {created}: numbers may differ between points"
        warnings.warn(RunWarning(text), stacklevel=2)
