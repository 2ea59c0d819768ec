"""The figures of a finished run; importing this takes a second."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jax
import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.pictures import exact, plot
from purejaxrl_sac.experiment.runs.plans import Plan, Result, title
from purejaxrl_sac.train import seed_state


def write_figures(path: Path, plan: Plan, result: Result) -> dict[str, str]:
    """Write `curve.png`, `episode.gif` of the first seed, and `values.png` of a finite MDP.

    Environments without a renderer have no `episode.gif`.

    Returns:
        additional rows of the run's summary.
    """
    from purejaxrl_sac.experiment.pictures import render

    name = title(plan.config)
    steps = np.array([progress.steps for progress in result.history])
    returns = np.stack([progress.episode_return for progress in result.history], axis=1)
    plot.learning_curve(steps, returns, name, path / "curve.png")
    gif = path / "episode.gif"
    gif.unlink(missing_ok=True)  # of this run before it was extended
    mdp = exact.finite_mdp(plan.config)
    rows = {} if mdp is None else exact.write_value_map(plan.config, result.state, mdp, name, path)
    with contextlib.suppress(ConfigError):
        render.episode(jax.random.key(0), plan.config, seed_state(result.state, 0), gif)
    return rows
