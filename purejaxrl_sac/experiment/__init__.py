"""The host side: a run as compiled chunks, with progress, records, statistics and pictures.

    run = prl.experiment.run(config, seeds=32, out="runs/demo")
    run = prl.experiment.resume("runs/demo")
    run = prl.experiment.load("runs/demo")

The pure core imports nothing of this.
"""

from typing import Any

RUNS = ("Run", "load", "resume", "run")


def __getattr__(name: str) -> Any:  # what they need costs seconds to import
    if name in RUNS:
        from purejaxrl_sac.experiment import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
