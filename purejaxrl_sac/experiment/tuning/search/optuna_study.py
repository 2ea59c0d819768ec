"""Optuna studies, with batches of trials trained together."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, files, plans
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.experiment.tuning import batches, journal, sweep_results
from purejaxrl_sac.experiment.tuning.points import (
    Point,
    at,
    check_points,
    distinct_points,
    static_values,
    variants,
)
from purejaxrl_sac.experiment.tuning.search.lanes import check_time_limit


def optuna_search(
    config: Config,
    study: Any,
    suggest: Callable[[Any], Point],
    *,
    batch: int = 16,
    rounds: int = 4,
    seeds: int = 4,
    seed: int = 0,
    episodes: int = 64,
    devices: int | None = None,
    out: Path | str | None = None,
) -> Point | None:
    """Run an Optuna study (extra `optuna`), with batches of trials trained together.

        study = optuna.create_study(direction="maximize")
        suggest = lambda trial: {"tau": trial.suggest_float("tau", 1e-3, 1e-1, log=True)}
        best = search.optuna_search(config, study, suggest, batch=16, rounds=4)

    Args:
        study: an `optuna.Study` that maximises; to be reproducible, its sampler needs a seed.
        suggest: `optuna.Trial` -> point.
        batch: trials per round, trained together.
        rounds: number of batches.
        seeds: per point; its score is the IQM over seeds of mean greedy returns.
        seed: root of all random numbers of training.
        episodes: greedy evaluation episodes per seed.
        devices: number of devices that lanes are distributed over; None for all.
        out: directory of `table.csv` and of the runs that train the batches, with which the same
            call continues, if the study is new and its sampler has the same seed; None to write
            nothing.

    Returns:
        the point with the highest score; None if every point diverged.

    Raises:
        ConfigError: Optuna is not installed, the study does not maximise, no time limit is known,
            or a point is invalid.
    """
    try:
        from optuna.trial import FixedTrial, TrialState
    except ImportError:
        raise ConfigError("Optuna is not installed: install purejaxrl_sac[optuna]") from None
    if study.direction.name != "MAXIMIZE":
        raise ConfigError("the study minimises: create it with direction='maximize'")
    check_time_limit(config)
    planned = {"seeds": seeds, "seed": seed, "episodes": episodes}
    rows: list[dict[str, Any]] = []
    with journal.opened(out, "Optuna", config, {**planned, "batch": batch}):
        for round_ in range(rounds):
            trials = [study.ask() for _ in range(batch)]
            suggested = [suggest(trial) for trial in trials]
            points = distinct_points(config, suggested)
            scores: dict[str, float] = {}
            for i, static in enumerate(dict.fromkeys(static_values(config, x) for x in points)):
                group = [point for point in points if static_values(config, point) == static]
                path = None if out is None else Path(out) / "rounds" / f"{round_:05d}-{i:05d}"
                trained = _train(config, group, planned, devices, path)
                for point, row in zip(group, trained, strict=True):
                    scores[str(point)] = math.nan if np.isnan(row).any() else float(iqm(row))
            for trial, point in zip(trials, suggested, strict=True):
                typed = check_points(config, [point])[0]
                score = scores[str(typed)]
                rows.append({"trial": trial.number, **typed, "score": score})
                if math.isnan(score):
                    study.tell(trial, state=TrialState.FAIL)
                else:
                    study.tell(trial, score)
            if out is not None:
                files.write_csv(Path(out) / "table.csv", rows)
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        return None
    return check_points(config, [suggest(FixedTrial(study.best_params))])[0]


def _train(
    config: Config,
    points: list[Point],
    planned: dict[str, int],
    devices: int | None,
    path: Path | None,
) -> np.ndarray:
    """Mean greedy returns of points of one program, [points, seeds]; nan where a seed diverged.

    Args:
        path: directory of the run that trains them, which continues if it exists; None for none.

    Raises:
        ConfigError: they do not fit into memory, or the run has other points.
    """
    config, values = at(config, points[0]), variants(config, points)
    if path is not None:
        run = batches.Batch(config, values, {**planned, "chunks": 20}, path)
        if (path / "config.json").exists():
            written = RunDirectory(path).read_document()["variants"]
            if written != files.to_json(values):
                raise ConfigError(
                    f"{path} has other points than the study suggests: create the study with the"
                    " same seed, or give another directory"
                )
        batches.train_batch(run, devices=devices)
        return sweep_results.lane_scores(path, config)[0].reshape(len(points), -1)
    plan = plans.plan(parameters.fixed(config), chunks=1, variants=values, **planned)
    resources.check_state(plan, mesh_for(plan.lanes, devices))
    result = engine.train_seeds(plan, devices=devices)
    assert result.evaluation is not None  # there is a time limit
    returns = np.where(result.history[-1].failed, np.nan, result.evaluation.mean(1))
    return returns.reshape(len(points), -1)
