"""Experiments: runs as compiled chunks, with progress, records, statistics and pictures.

    run = prl.experiment.run(config, seeds=32, out="runs/demo")
    run = prl.experiment.resume("runs/demo")
    run = prl.experiment.load("runs/demo")
    points = prl.experiment.points.grid(tau=[0.005, 0.01])
    result = prl.experiment.sweep.run(config, points, seeds=8, out="runs/taus")

The pure core imports nothing of this. Every module is an attribute of this package, imported
when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what an editor follows; at run time, `__getattr__`
    from purejaxrl_sac.experiment import errors, export, statistics
    from purejaxrl_sac.experiment.devices import cluster, mesh, processes, resources
    from purejaxrl_sac.experiment.pictures import (
        bands,
        compare,
        exact,
        layout,
        painters,
        plot,
        render,
        run_figures,
        value_maps,
    )
    from purejaxrl_sac.experiment.runs import (
        checkpoint,
        configuration,
        datasets,
        directory,
        display,
        engine,
        files,
        interruptions,
        lifecycle,
        loading,
        loggers,
        measures,
        plans,
        record,
        training,
    )
    from purejaxrl_sac.experiment.runs.lifecycle import resume, run
    from purejaxrl_sac.experiment.runs.loading import Run, load
    from purejaxrl_sac.experiment.tuning import (
        batches,
        journal,
        points,
        search,
        sensitivity,
        sweep,
        sweep_plan,
        sweep_results,
    )

FOLDERS = ("", ".runs", ".devices", ".tuning", ".pictures")
FUNCTIONS = {"Run": "loading", "load": "loading", "resume": "lifecycle", "run": "lifecycle"}

__all__ = [
    "Run", "bands", "batches", "checkpoint", "cluster", "compare", "configuration", "datasets",
    "directory", "display", "engine", "errors", "exact", "export", "files", "interruptions",
    "journal", "layout", "lifecycle", "load", "loading", "loggers", "measures", "mesh", "painters",
    "plans", "plot", "points", "processes", "record", "render", "resources", "resume", "run",
    "run_figures", "search", "sensitivity", "statistics", "sweep", "sweep_plan", "sweep_results",
    "training", "value_maps",
]  # fmt: skip


def __getattr__(name: str) -> object:  # importing them costs seconds
    if name in FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.runs.{FUNCTIONS[name]}"), name)
    for folder in FOLDERS if name in __all__ else ():
        if find_spec(module := f"{__name__}{folder}.{name}"):
            return importlib.import_module(module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
