"""The host side: a run as compiled chunks, with progress, records, statistics and pictures.

    run = prl.experiment.run(config, seeds=32, out="runs/demo")
    run = prl.experiment.resume("runs/demo")
    run = prl.experiment.load("runs/demo")
    points = prl.experiment.points.grid(tau=[0.005, 0.01])
    swept = prl.experiment.sweep.run(config, points, seeds=8, out="runs/taus")

The pure core imports nothing of this.
"""

import importlib
from typing import Any

RUNS = ("Run", "load", "resume", "run")
MODULES = ("mesh", "points", "runner", "sweep")


def __getattr__(name: str) -> Any:  # what they need costs seconds to import
    if name in RUNS:
        from purejaxrl_sac.experiment import runs

        return getattr(runs, name)
    if name in MODULES:
        return importlib.import_module(f"purejaxrl_sac.experiment.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
