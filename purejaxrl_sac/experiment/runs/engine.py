"""A vmapped run as a loop of compiled chunks.

Nothing inside a chunk talks to the host; between chunks the host logs, draws, checks and keeps.
The state is donated to each chunk, so a run holds one copy of its memory. A run's lanes are its
seeds or, in a sweep, variants of its configuration times seeds; mesh.py spreads them over devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.evaluate import evaluate, exploring_policy, policy
from purejaxrl_sac.experiment.devices.mesh import fill, mesh_for, padded, shardings, spread, trim
from purejaxrl_sac.experiment.runs.plans import TOTALS, WATCHED, Plan, Progress, Result, chunk_lengths, timed
from purejaxrl_sac.train import build, init, run, seed_axes
from purejaxrl_sac.types import TrainState

class Programs(NamedTuple):
    """What a run is made of, compiled."""

    begin: jax.stages.Compiled | None  # (keys, config) -> state; None where a run goes on
    chunks: dict[int, jax.stages.Compiled]  # iterations -> (state, config, keys, due) -> ...
    seconds: float  # it took to compile
    mesh: Mesh  # the devices they are for


def shapes(plan: Plan, mesh: Mesh | None = None) -> TrainState:
    """The shapes of a run's state: leading axis [lanes], clock unbatched.

    Args:
        mesh: where it is to lie, padded for the devices; None for the lanes alone, anywhere.
    """
    keys, _, _ = plan.keys()
    axes = seed_axes(jax.eval_shape(init, keys[0], plan.config))
    if mesh is None:
        return jax.eval_shape(jax.vmap(init, (0, None), axes), keys, plan.config)
    lanes = padded(plan.lanes, mesh)
    spec = jax.ShapeDtypeStruct((lanes,), keys.dtype)
    like = jax.eval_shape(jax.vmap(init, (0, None), axes), spec, plan.config)

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        where = shardings(0 if x.shape else None, mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(placed, like)


def compile_run(
    plan: Plan, done: int = 0, mesh: Mesh | None = None, lengths: Sequence[int] | None = None
) -> Programs:
    """Compiles what is left of a run after `done` iterations.

    Args:
        mesh: the devices; None for as many as there are.
        lengths: iterations of the chunks that are wanted; None for those of the plan.
    """
    began = time.perf_counter()
    mesh = mesh or mesh_for(plan.lanes)
    like = shapes(plan, mesh)
    config, config_axes = plan.config_lanes(padded(plan.lanes, mesh))
    keys, _, watch = _keys(plan, mesh)
    axes = seed_axes(like)
    where = shardings(axes, mesh)
    seeds = jax.jit(spread(init, mesh, (0, config_axes), axes), out_shardings=where)
    begin = None if done else seeds.lower(keys, config).compile()
    if lengths is None:
        lengths = chunk_lengths(plan.config.iterations - done, plan.chunk)
    episodes = plan.eval_episodes if plan.eval_every else 0
    chunks = {}
    for n in sorted(set(lengths)):
        chunk = partial(_chunk, mesh, n, episodes, config_axes)
        out = (where, shardings(None, mesh))  # metrics go to every process
        program = jax.jit(chunk, donate_argnums=0, out_shardings=out)
        chunks[n] = program.lower(like, config, watch, True).compile()
    return Programs(begin, chunks, time.perf_counter() - began, mesh)


def _keys(plan: Plan, mesh: Mesh) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The plan's keys, padded and on their devices."""
    return fill(plan.keys(), plan.lanes, mesh)


def begin(plan: Plan, programs: Programs) -> TrainState:
    """All lanes after their warm-up, padded for the devices."""
    keys, _, _ = _keys(plan, programs.mesh)
    config, _ = plan.config_lanes(len(keys))
    return jax.block_until_ready(programs.begin(keys, config))


def advance(
    plan: Plan, programs: Programs, state: TrainState, last: Progress | None = None
) -> Iterator[tuple[TrainState, Progress]]:
    """Runs chunk after chunk; each state is given up when the next one is asked for.

    Args:
        state: of a run that has done any number of whole chunks, padded for the devices, as all
            that are yielded.
        last: its newest progress, None where it has just begun.
    """
    config, lanes, (_, _, keys) = plan.config, plan.lanes, _keys(plan, programs.mesh)
    trained_with, _ = plan.config_lanes(len(keys))
    done = int(state.step) // config.rollout_length - config.warmup_iterations
    seconds = last.seconds if last else 0.0
    failed_step = last.failed_step if last else np.full(lanes, -1)
    latest = last.latest_return if last else np.full(lanes, np.nan, np.float32)
    for length in chunk_lengths(config.iterations - done, plan.chunk):
        due = plan.due(done, done + length)
        began = time.perf_counter()
        chunk = programs.chunks[length]
        state, metrics = jax.block_until_ready(chunk(state, trained_with, keys, due))
        seconds += time.perf_counter() - began
        metrics = {name: np.asarray(value)[:lanes] for name, value in metrics.items()}
        finite = metrics.pop("finite")
        newly = (finite < length) & (failed_step < 0)
        failed_step = np.where(newly, plan.steps(done + 1) + finite * config.steps_per_iteration, failed_step)
        done += length
        episodes, returns, lengths = (metrics.pop(name) for name in TOTALS)
        with np.errstate(invalid="ignore", divide="ignore"):
            episode_return = (returns / episodes).astype(np.float32)
            episode_length = (lengths / episodes).astype(np.float32)
        latest = np.where(episodes == 0, latest, episode_return)
        evaluation = {name: metrics.pop(name) for name in WATCHED if name in metrics}
        trained = (plan.steps(done) - plan.steps(0)) * lanes
        yield (
            state,
            Progress(
                steps=plan.steps(done),
                total_steps=plan.total,
                seconds=seconds,
                rate=trained / seconds,
                episodes=episodes,
                episode_return=episode_return,
                episode_length=episode_length,
                latest_return=latest,
                metrics=metrics,
                evaluation=evaluation if due else {},
                failed_step=failed_step,
            ),
        )


def final_evaluation(plan: Plan, state: TrainState, mesh: Mesh | None = None) -> np.ndarray:
    """Greedy returns of every lane at the end, [lanes, episodes]; errors as for `play_lanes`."""
    _, keys, _ = plan.keys()
    return play_lanes(keys, plan, state, plan.episodes, mesh=mesh)


def play_lanes(
    keys: jax.Array,
    plan: Plan,
    state: TrainState,
    episodes: int,
    *,
    policy: Callable = policy,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Returns of every lane's policy, [lanes, episodes], each with a key of its own.

    An interval over seeds then includes the luck of their starts.

    Args:
        keys: [lanes].
        state: its policies; environments and memory are not looked at.
        mesh: the devices; None for as many as there are.

    Raises:
        ConfigError: the environment has no time limit.
    """
    mesh = mesh or mesh_for(plan.lanes)
    policies = fill(state._replace(env=(), memory=()), plan.lanes, mesh)
    keys = fill(keys, plan.lanes, mesh)
    config, config_axes = plan.config_lanes(len(keys))

    def play(key: jax.Array, state: TrainState, config: Config) -> jax.Array:
        return evaluate(key, config, state, episodes, policy=policy)

    lanes = spread(play, mesh, (0, seed_axes(state), config_axes))
    returns = jax.jit(lanes, out_shardings=shardings(None, mesh))(keys, policies, config)
    return np.asarray(returns)[: plan.lanes]


def train_seeds(
    plan: Plan,
    *,
    devices: int | None = None,
    on_compiled: Callable[[float], None] = lambda seconds: None,
    on_chunk: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Trains all lanes side by side, then evaluates each one greedily; keeps nothing on disk.

    Args:
        devices: how many to use; None for all there are.
    """
    programs = compile_run(plan, mesh=mesh_for(plan.lanes, devices))
    on_compiled(programs.seconds)
    state = begin(plan, programs)
    history: list[Progress] = []
    for state, progress in advance(plan, programs, state):  # noqa: B007, B020
        history.append(progress)
        on_chunk(progress)
    evaluation = final_evaluation(plan, state, programs.mesh) if timed(plan.config) else None
    state = trim(state, plan.lanes, programs.mesh)
    return Result(state, history, evaluation, programs.seconds, history[-1].seconds)


def _chunk(  # noqa: PLR0917
    mesh: Mesh,
    iterations: int,
    episodes: int,
    config_axes: Any,
    state: TrainState,
    config: Config,
    keys: jax.Array,
    due: bool,
) -> tuple[TrainState, dict]:
    """Runs all lanes for some iterations, then evaluates them if that is due."""
    axes = seed_axes(state)
    go_on = partial(run, iterations=iterations)
    state, metrics = spread(go_on, mesh, (axes, config_axes), (axes, 0))(state, config)
    finite = jnp.stack([jnp.isfinite(x) for x in metrics.values()]).all(0)  # [lanes, iterations]
    reduced = {name: x.sum(1) if name in TOTALS else x.mean(1) for name, x in metrics.items()}
    reduced["finite"] = jnp.where(finite.all(1), iterations, finite.argmin(1))
    if episodes:

        def play() -> dict[str, jax.Array]:
            def mean(
                key: jax.Array, state: TrainState, config: Config, choose: Callable
            ) -> jax.Array:
                return evaluate(key, config, state, episodes, policy=choose).mean()

            policies = state._replace(env=(), memory=())
            return {
                name: spread(partial(mean, choose=choose), mesh, (0, axes, config_axes))(
                    keys, policies, config
                )
                for name, choose in WATCHED.items()
            }

        unknown = {name: jnp.full(len(keys), jnp.nan) for name in WATCHED}
        reduced |= jax.lax.cond(due, play, lambda: unknown)
    return state, reduced
