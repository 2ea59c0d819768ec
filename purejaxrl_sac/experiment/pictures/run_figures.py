"""The figures of a finished run; importing this takes a second."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.pictures import exact, plot
from purejaxrl_sac.experiment.runs.plans import Plan, Result, title
from purejaxrl_sac.train import seed_state


def write_figures(path: Path, plan: Plan, result: Result) -> dict[str, str]:
    """Write `curve.png`, `episode.gif` of the first seed, and `values.png` of a finite MDP.

    Seeds that diverged are left out. Environments without a renderer have no `episode.gif`.

    Returns:
        additional rows of the run's summary.
    """
    from purejaxrl_sac.experiment.pictures import render

    for file in ("curve.png", "episode.gif", "values.png"):  # of this run before it was extended
        (path / file).unlink(missing_ok=True)
    seeds = np.flatnonzero(~result.history[-1].failed)
    if len(seeds) == 0:
        return {}
    name = title(plan.config)
    steps = np.array([progress.steps for progress in result.history])
    returns = np.stack([progress.episode_return[seeds] for progress in result.history], axis=1)
    plot.learning_curve(steps, returns, name, path / "curve.png")
    state = jax.tree.map(lambda x: x[seeds] if jnp.ndim(x) else x, result.state)
    mdp = exact.finite_mdp(plan.config)
    rows = {} if mdp is None else exact.write_value_map(plan.config, state, mdp, name, path)
    with contextlib.suppress(ConfigError):
        render.episode(jax.random.key(0), plan.config, seed_state(state, 0), path / "episode.gif")
    return rows
