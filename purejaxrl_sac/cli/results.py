"""The commands that read runs: `eval`, `plot`, `render`, `export` and `info`."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from purejaxrl_sac.cli.options import (
    EvalOptions,
    ExportOptions,
    InfoOptions,
    PlotOptions,
    RenderOptions,
)
from purejaxrl_sac.cli.parsing import parameter_values
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunWarning, one_line

if TYPE_CHECKING:
    from purejaxrl_sac.experiment.runs.loading import Run


def evaluate(options: EvalOptions) -> None:
    """Print the returns of a run's policies in new episodes."""
    from purejaxrl_sac.evaluate import exploring_policy, policy
    from purejaxrl_sac.experiment.runs import display, plans
    from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of
    from purejaxrl_sac.experiment.runs.loading import load

    if options.episodes < 1:
        raise ConfigError(f"episodes is {options.episodes}, but must be at least 1")
    document = RunDirectory.find(options.run).read_document()
    if document["variants"]:
        raise ConfigError(
            f"{options.run} has runs of several configurations (of"
            f" {', '.join(document['variants'])}), and their returns are no sample: see the table"
            " of its sweep, or train one of them alone"
        )
    devices = options.set_up_devices(lanes_of(document))
    run = load(options.run, best=options.best, **options.code())
    episodes = options.episodes
    choose = {"greedy": policy, "exploring": exploring_policy}[options.policy]
    params = parameter_values(options.env_params) or None
    evaluated = run.evaluate(
        episodes, seed=options.seed, policy=choose, devices=devices, env_params=params
    )
    scores = evaluated.mean(1)
    failed = np.flatnonzero(run.failed).tolist()
    if options.json:
        returns = [x if np.isfinite(x) else None for x in scores.tolist()]
        found = {"steps": run.steps, "episodes_per_seed": episodes, "returns": returns}
        print(json.dumps({"run": str(run.path), "policy": options.policy, **found}))
        return
    rows = {
        "environment steps per seed": f"{run.steps:,}",
        "seeds x episodes": f"{run.plan.lanes} x {episodes}",
    }
    if failed:
        rows["nan or infinite, left out of the returns below"] = f"seed {str(failed)[1:-1]}"
    rows |= display.not_finite(scores, run.failed)
    known = scores[~run.failed & np.isfinite(scores)]
    if len(known):
        rows |= {
            f"{options.policy} return, IQM [95 % interval]": display.with_interval(known),
            "worst and best seed": f"{known.min():.4g}, {known.max():.4g}",
        }
    Console().print(display.table(plans.title(run.config), rows))


def plot(options: PlotOptions) -> None:
    """Plot runs for comparison."""
    from purejaxrl_sac.experiment.pictures import compare, layout

    if options.size and options.columns:
        raise ConfigError("give --size or --columns, not both: each sets the width")
    size = layout.SCREEN
    if options.columns:
        size = layout.columns(options.columns)
    elif options.size:
        size = layout.inches(*options.size)
    out = options.out or Path(f"comparison-{time.strftime('%Y%m%d-%H%M%S')}.png")
    compare.compare(
        options.runs,
        options.metric,
        out,
        labels=options.labels or None,
        panel=options.panel,
        title=options.title,
        log_x=options.log_x,
        layout=size,
    )
    print(f"written to {one_line(out)}")
    improvement = options.panel in (None, "improvement")
    if improvement and (line := compare.improvement_line(options.runs, options.labels or None)):
        print(one_line(line))


def render(options: RenderOptions) -> None:
    """Render an episode."""
    from purejaxrl_sac.experiment.pictures import render
    from purejaxrl_sac.experiment.runs import plans
    from purejaxrl_sac.experiment.runs.loading import load

    run = load(options.run, best=options.best, **options.code())
    out = options.out or run.path / f"episode-{time.strftime('%Y%m%d-%H%M%S')}.gif"
    key, seed = plans.key_from_seed(options.seed), chosen_seed(run, options.seed_index)
    render.episode(key, run.seed_config(seed), run.seed_state(seed), out)
    print(f"written to {one_line(out)}")


def chosen_seed(run: Run, index: int | None) -> int:
    """The index of a seed, with a warning if it has diverged; None is the first that has not.

    Raises:
        ConfigError: None was given, and every seed has diverged.
    """
    diverged = np.flatnonzero(run.failed)
    if index is None:
        if len(diverged) == run.plan.lanes:
            raise ConfigError(f"every seed of {run.path} has diverged: choose one by --seed-index")
        return int(np.argmin(run.failed))
    if index in diverged:
        text = f"seed {index} of {run.path} has diverged: its policy is of no use"
        warnings.warn(RunWarning(text), stacklevel=2)
    return index


def export(options: ExportOptions) -> None:
    """Export a policy that runs without this package."""
    from purejaxrl_sac.experiment.export import export_policy
    from purejaxrl_sac.experiment.runs.loading import load

    run = load(options.run, best=options.best, **options.code())
    seed = chosen_seed(run, options.seed_index)
    out = options.out or run.path / f"policy-{seed}"
    export_policy(run.seed_config(seed), run.seed_state(seed), out)
    print(f"written to {one_line(out)}: python {one_line(out / 'load.py')}")


def info(options: InfoOptions) -> None:
    """Print the configuration and status of a run or a sweep, from its files alone."""
    from purejaxrl_sac.experiment.runs import display, files
    from purejaxrl_sac.experiment.runs.directory import RunDirectory
    from purejaxrl_sac.experiment.tuning import sweep_results

    if files.exists(options.run / "sweep.json"):
        rows = sweep_results.describe(options.run)
    else:
        rows = RunDirectory.find(options.run).describe()
    Console().print(display.table(str(options.run), rows))
