"""Points of a search as lanes of one program: compiled, trained, scored and gathered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import fill, padded, shardings
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.runs.engine import Programs
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.experiment.tuning.points import Point, at, variants
from purejaxrl_sac.train import seed_axes
from purejaxrl_sac.types import TrainState


def check_time_limit(config: Config) -> None:
    """Raises ConfigError if episodes have no time limit, without which points have no score."""
    plans.check_time_limit(config, "a search")


def lane_plan(
    config: Config, points: Sequence[Point], *, seeds: int, seed: int, episodes: int
) -> Plan:
    """A plan whose variants are points of one program, with an evaluation after every chunk."""
    config = parameters.fixed(config)
    return plans.plan(
        at(config, points[0]), seeds, seed=seed, chunks=1, episodes=episodes,
        eval_every=config.steps_per_iteration, eval_episodes=episodes,
        variants=variants(config, points),
    )  # fmt: skip


def compile_chunks(plan: Plan, mesh: Mesh, lengths: list[int], done: int = 0) -> Programs:
    """Compile chunks of so many iterations.

    Memory is checked at the start only, as later rungs need less.

    Raises:
        ConfigError: the lanes do not fit into memory.
    """
    if done:
        return engine.compile_run(plan, done, mesh, lengths)
    resources.check_state(plan, mesh)
    programs = engine.compile_run(plan, done, mesh, lengths)
    resources.check_programs(programs)
    return programs


def train_chunk(
    plan: Plan, programs: Programs, state: TrainState, length: int, config: Config
) -> tuple[TrainState, np.ndarray]:
    """Train one chunk.

    Returns:
        the new state, and the mean greedy return of every lane after it, [lanes]; nan where a lane
        diverged.
    """
    keys = fill(plan.keys().evaluation, plan.lanes, programs.mesh)
    state, metrics = programs.chunks[length](state, config, keys, True)
    returns = np.asarray(metrics["greedy_return"])
    diverged = (np.asarray(metrics["finite"]) < length) | ~np.isfinite(returns)
    scores = np.where(diverged, np.nan, returns)
    return state, scores[: plan.lanes]


def take_lanes(state: TrainState, lanes: np.ndarray, old: Mesh, new: Mesh) -> TrainState:
    """Gather lanes on the devices, and distribute them over the devices of another mesh.

    Args:
        state: padded for the devices of `old`.
        lanes: their indices, in the new order; an index may occur more than once.

    Returns:
        the lanes, padded for the devices of `new`.
    """
    index = np.pad(lanes, (0, padded(len(lanes), new) - len(lanes)), constant_values=lanes[0])
    axes = seed_axes(state)
    same = old == new
    taken = jax.jit(_gather, out_shardings=shardings(axes, new) if same else None)(state, index)
    return taken if same else jax.device_put(taken, shardings(axes, new))


def _gather(state: TrainState, index: jax.Array) -> TrainState:
    """A module-level function, so that `jit` compiles it once per shape."""
    return jax.tree.map(lambda x: x[index] if jnp.ndim(x) else x, state)


def score(scores: np.ndarray) -> float:
    """The IQM; -inf where a seed diverged."""
    return float(iqm(scores)) if np.isfinite(scores).all() else -math.inf


def highest(scores: np.ndarray) -> int | None:
    """The index of the highest finite score; None if there is none."""
    if not np.isfinite(scores).any():
        return None
    return int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
