"""The pictures that a run leaves: whatever cannot be drawn, the run is kept."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jax
import numpy as np

from purejaxrl_sac.agents import name_of
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.pictures import exact, plot
from purejaxrl_sac.experiment.runs.plans import Plan, Result
from purejaxrl_sac.train import seed_state
from purejaxrl_sac.types import TrainState


def leave(path: Path, plan: Plan, result: Result) -> dict[str, str]:
    """Draws `curve.png`, `episode.gif` of the first seed, and `values.png` of a finite MDP.

    Returns:
        further rows for the summary.
    """
    name = title(plan.config)
    steps = np.array([progress.steps for progress in result.history])
    returns = np.stack([progress.episode_return for progress in result.history], axis=1)
    plot.learning_curve(steps, returns, name, path / "curve.png")
    gif = path / "episode.gif"
    gif.unlink(missing_ok=True)  # of this run, before it was made longer
    mdp = exact.finite_mdp(plan.config)
    rows = {} if mdp is None else exact.report(plan.config, result.state, mdp, name, path)
    with contextlib.suppress(ConfigError):  # nobody can draw this environment
        episode(jax.random.key(0), plan.config, seed_state(result.state, 0), gif)
    return rows


def episode(key: jax.Array, config: Config, state: TrainState, path: Path) -> None:
    """One episode of one seed's greedy policy, as a GIF or MP4.

    Raises:
        ConfigError: nobody can draw this environment, or the file exists.
    """
    from purejaxrl_sac.experiment.pictures import render

    render.episode(key, config, state, path)


def title(config: Config) -> str:
    """'sac on Pendulum-v1'."""
    env = config.env if isinstance(config.env, str) else config.env.name
    return f"{name_of(config)} on {env}"
