"""The figures of a finished run; importing this takes a second."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices.mesh import policy_state
from purejaxrl_sac.experiment.errors import reason
from purejaxrl_sac.experiment.pictures import bands, exact, painters, plot, render
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.runs.plans import Plan, Result, title
from purejaxrl_sac.train import init, seed_state
from purejaxrl_sac.types import TrainState


def write_figures(
    path: Path,
    plan: Plan,
    result: Result,
    warn: Callable[[str], None],
    note: Callable[[str], None],
    rollout: render.Rollout | None = None,
) -> dict[str, str]:
    """Write `curve.png`, `curve.csv`, `episode.gif` of the first seed, and `values.png` of a finite
    MDP.

    Seeds that diverged are left out. Environments without a renderer have no `episode.gif`, which
    a note says.

    Args:
        warn: receives one line for each picture that cannot be drawn, for whatever reason.
        note: receives one line if there is no `episode.gif`.
        rollout: from `compile_episode`.

    Returns:
        additional rows of the run's summary.
    """
    for file in ("curve.png", "curve.csv", "episode.gif", "values.png"):
        (path / file).unlink(missing_ok=True)  # of this run before it was extended
    seeds = np.flatnonzero(~result.history[-1].failed)
    if len(seeds) == 0:
        return {}
    name = title(plan.config)
    steps = np.array([progress.steps for progress in result.history])
    returns = np.stack([progress.episode_return for progress in result.history], axis=1)
    returns[result.history[-1].failed] = np.nan
    state = _of_seeds(policy_state(result.state), seeds)
    rows: dict[str, str] = {}
    with _attempted(path / "curve.png", warn):
        figure, shown = plot.run_curve(steps, returns, name)
        files.write_figure(path / "curve.png", figure)
        with _attempted(path / "curve.csv", warn, "written"):
            bands.write_csv(path / "curve.csv", bands.csv_text(shown, {}))
    with _attempted(path / "values.png", warn):
        mdp = exact.finite_mdp(plan.config)
        rows = {} if mdp is None else exact.write_value_map(plan.config, state, mdp, name, path)
    with _attempted(path / "episode.gif", warn):
        if _is_drawable(plan.config):
            first = jax.device_put(seed_state(state, 0), jax.local_devices()[0])
            arguments = (jax.random.key(0), plan.config, first, path / "episode.gif")
            render.episode(*arguments, rollout=rollout)
        else:
            env = envs.make(plan.config.env).name
            note(f"no episode.gif: the environment {env} has no method paint(scene, t)")
    return rows


def compile_episode(config: Config) -> render.Rollout | None:
    """The program of `episode.gif`; None if it fails, which `write_figures` will report."""
    with contextlib.suppress(Exception):
        if _is_drawable(config):
            key = jax.eval_shape(lambda: jax.random.key(0))
            state = policy_state(jax.eval_shape(init, key, config))
            return render.rollout_program(config).lower(key, state).compile()
    return None


def _is_drawable(config: Config) -> bool:
    """Whether there is a painter of the environment."""
    try:
        painters.painter(config)
    except ConfigError:
        return False
    return True


@jax.jit  # one program instead of one for each shape
def _of_seeds(state: TrainState, seeds: np.ndarray) -> TrainState:
    selected: TrainState = jax.tree.map(lambda x: x[seeds] if jnp.ndim(x) else x, state)
    return selected


@contextlib.contextmanager
def _attempted(file: Path, warn: Callable[[str], None], what: str = "drawn") -> Iterator[None]:
    """Turns the failure of a picture into a warning: it must not cost a run its results."""
    try:
        yield
    except Exception as error:
        warn(f"{file} was not {what}: {reason(error)}")
