"""The compiled programs of a run, and the loop over them.

A run is a sequence of chunks, each compiled into a single `lax.scan` without host callbacks;
between two chunks the host logs, displays, checks and saves. Each chunk donates its input state, so
a run holds one copy of its replay memory. The lanes of a run are its seeds or, in a sweep, variants
of its configuration times seeds; mesh.py spreads them over devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import PolicyFactory, evaluate, policy
from purejaxrl_sac.experiment.devices.mesh import (
    fill,
    mesh_for,
    padded,
    policy_state,
    shardings,
    trim,
    vmap_lanes,
)
from purejaxrl_sac.experiment.runs import plans
from purejaxrl_sac.experiment.runs.plans import (
    EVALUATED_POLICIES,
    Keys,
    Plan,
    Progress,
    Result,
    chunk_lengths,
    has_time_limit,
)
from purejaxrl_sac.train import TOTALS, init, run, seed_axes
from purejaxrl_sac.types import PyTree, TrainState

_init = jax.jit(init, inline=True)  # traced once for several programs
STATE_AXES = TrainState._make([0, None, 0, 0, 0])  # of lanes: `seed_axes` of `shapes`


class Program(NamedTuple):
    """A jitted function, and the arguments or their shapes for which it is compiled."""

    function: jax.stages.Wrapped
    arguments: tuple[PyTree, ...]

    def lower(self) -> jax.stages.Lowered:
        """Traces and lowers the function.

        Raises:
            ConfigError: JAX is not to compile.
        """
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            raise ConfigError(
                "runs and evaluations are compiled, but jax_disable_jit is set: unset it"
                " (JAX_DISABLE_JIT), or call prl.train, which it lets run step by step"
            )
        return self.function.lower(*self.arguments)

    def compile(self) -> jax.stages.Compiled:
        """Traces, lowers and compiles the function."""
        return self.lower().compile()

    def compile_in(self, pool: ThreadPoolExecutor) -> Future[jax.stages.Compiled]:
        """Traces and lowers the function here, and compiles it in a thread of the pool."""
        return pool.submit(self.lower().compile)


class Programs(NamedTuple):
    """The compiled programs of a run."""

    init: jax.stages.Compiled | None  # (keys, config) -> state; None for a resumed run
    chunks: dict[int, jax.stages.Compiled]  # by number of iterations, see `_chunk`:
    # (state, config, keys, due) -> state, metrics [lanes]
    seconds: float  # compilation time, without the final evaluation's
    mesh: Mesh  # the devices they were compiled for
    evaluation: Future[jax.stages.Compiled] | None = None  # see `evaluation_program`; None if it is
    # not wanted, or episodes have no time limit


def shapes(plan: Plan, mesh: Mesh | None = None) -> TrainState:
    """The shapes of a run's state: leading axis [lanes], clock unbatched.

    Args:
        mesh: adds its padding and shardings; None for neither.
    """
    if mesh is None:
        seed = _init.eval_shape(plans.key_from_seed(plan.seed), plan.config)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((plan.lanes, *x.shape), x.dtype), seed)
        return like._replace(step=seed.step)
    keys, config, config_axes = _inputs(plan, mesh)
    init_lanes = vmap_lanes(_init, mesh, (0, config_axes), STATE_AXES)  # traces as the program does
    state = jax.eval_shape(init_lanes, keys, config)

    def placed(where: NamedSharding, part: PyTree) -> PyTree:
        place = partial(jax.ShapeDtypeStruct, sharding=where)
        return jax.tree.map(lambda x: place(x.shape, x.dtype), part)

    return jax.tree.map(placed, shardings(STATE_AXES, mesh), state)


def _inputs(plan: Plan, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, Config, PyTree]:
    """The shape of the keys of all lanes and the padding, their configuration, and its axes."""
    lanes = padded(plan.lanes, mesh)
    # not the keys themselves, whose own program would have to be compiled first
    dtype = jax.eval_shape(plan.keys).train.dtype
    keys = jax.ShapeDtypeStruct((lanes,), dtype, sharding=shardings(0, mesh))
    return keys, *plan.config_lanes(lanes)


def compile_run(
    plan: Plan,
    done: int = 0,
    mesh: Mesh | None = None,
    lengths: Sequence[int] | None = None,
    *,
    evaluated: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Programs:
    """Compiles the remainder of a run after `done` iterations, its programs side by side.

    Args:
        mesh: the devices; None for `mesh_for` all available ones.
        lengths: iterations of the chunks to compile; None for those that the plan needs.
        evaluated: whether to compile the final evaluation, too: in the background, once the
            programs of training are compiled, which are needed first.
        meanwhile: called while the programs compile.
    """
    start = time.perf_counter()
    mesh = mesh or mesh_for(plan.lanes)
    if lengths is None:
        lengths = chunk_lengths(plan.config.iterations - done, plan.chunk)
    first, rest = training_programs(plan, mesh, lengths)
    pool = ThreadPoolExecutor(2)
    compiling = {length: chunk.compile_in(pool) for length, chunk in rest.items()}
    compiling_init = None if done else first.compile_in(pool)
    evaluation = None
    if evaluated and has_time_limit(plan.config):
        keys = _keys(plan, mesh).final_evaluation
        policies = policy_state(shapes(plan, mesh))
        evaluation = evaluation_program(keys, plan, policies, plan.episodes, mesh=mesh).lower()
    meanwhile()
    chunks = {length: chunk.result() for length, chunk in compiling.items()}
    compiled_init = compiling_init.result() if compiling_init else None
    programs = Programs(
        init=compiled_init,
        chunks=chunks,
        seconds=time.perf_counter() - start,
        mesh=mesh,
        evaluation=pool.submit(evaluation.compile) if evaluation else None,
    )
    pool.shutdown(wait=False)
    return programs


def training_programs(
    plan: Plan, mesh: Mesh, lengths: Sequence[int]
) -> tuple[Program, dict[int, Program]]:
    """The programs of `Programs.init` and, by number of iterations, of `Programs.chunks`."""
    like = shapes(plan, mesh)
    keys, config, config_axes = _inputs(plan, mesh)
    where = shardings(STATE_AXES, mesh)
    init_lanes = jax.jit(
        vmap_lanes(_init, mesh, (0, config_axes), STATE_AXES),
        out_shardings=where,
        compiler_options=_runs_once(mesh),
    )
    episodes = plan.eval_episodes if plan.eval_every else 0
    chunks = {}
    for n in sorted(set(lengths)):
        chunk = partial(_chunk, mesh, n, episodes, config_axes)
        out = (where, shardings(None, mesh))  # every process receives all metrics
        program = jax.jit(chunk, donate_argnums=0, out_shardings=out)
        chunks[n] = Program(program, (like, config, keys, True))
    return Program(init_lanes, (keys, config)), chunks


def _runs_once(mesh: Mesh) -> dict[str, Any] | None:
    """Compiler options of a program that runs once, so that fast code is not worth its compilation.

    On CPUs, LLVM's level 1 of 3: `init` compiles in two thirds of the time, to the same numbers.
    """
    on_cpus = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpus else None


def _keys(plan: Plan, mesh: Mesh) -> Keys:
    """The plan's keys, padded and on their devices."""
    return fill(plan.keys(), plan.lanes, mesh)


def initial_state(plan: Plan, programs: Programs) -> TrainState:
    """The state of all lanes after the warm-up, padded for the devices.

    Args:
        programs: of a run from its start.
    """
    assert programs.init is not None, "programs of a resumed run have no initial state"
    keys = _keys(plan, programs.mesh).train
    config, _ = plan.config_lanes(len(keys))
    return jax.block_until_ready(programs.init(keys, config))


def run_chunks(
    plan: Plan, programs: Programs, state: TrainState, last: Progress | None = None
) -> Iterator[tuple[TrainState, Progress]]:
    """Runs the remaining chunks; each yielded state is donated to the next chunk.

    Args:
        state: of a run after any number of whole chunks, padded for the devices, as all states
            that are yielded.
        last: its latest progress; None at the start of a run.
    """
    config, lanes = plan.config, plan.lanes
    keys = _keys(plan, programs.mesh).evaluation
    lane_configs, _ = plan.config_lanes(len(keys))
    done = int(state.step) // config.rollout_length - config.warmup_iterations
    seconds = last.seconds if last else 0.0
    failed_step = last.failed_step if last else np.full(lanes, -1)
    latest = last.latest_return if last else np.full(lanes, np.nan, np.float32)
    for length in chunk_lengths(config.iterations - done, plan.chunk):
        due = plan.evaluation_due(done, done + length)
        start = time.perf_counter()
        chunk = programs.chunks[length]
        state, metrics = jax.block_until_ready(chunk(state, lane_configs, keys, due))
        seconds += time.perf_counter() - start
        metrics = {name: np.asarray(value)[:lanes] for name, value in metrics.items()}
        finite = metrics.pop("finite")
        newly = (finite < length) & (failed_step < 0)
        first_step = plan.steps(done + 1) + finite.astype(np.int64) * config.steps_per_iteration
        failed_step = np.where(newly, first_step, failed_step)
        done += length
        episodes, returns, lengths = (metrics.pop(name) for name in TOTALS)
        with np.errstate(invalid="ignore", divide="ignore"):
            episode_return = (returns / episodes).astype(np.float32)
            episode_length = (lengths / episodes).astype(np.float32)
        latest = np.where(episodes == 0, latest, episode_return)
        evaluation = {name: metrics.pop(name) for name in EVALUATED_POLICIES if name in metrics}
        trained = (plan.steps(done) - plan.steps(0)) * lanes
        progress = Progress(
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
        )
        yield state, progress


def final_evaluation(plan: Plan, state: TrainState, programs: Programs) -> np.ndarray | None:
    """Greedy returns of every lane, [lanes, episodes]; None if episodes have no time limit.

    Args:
        state: as for `evaluate_lanes`.
        programs: from `compile_run`.
    """
    if (compiled := programs.evaluation) is None:
        return None
    keys = plan.keys().final_evaluation
    return evaluate_lanes(
        keys, plan, state, plan.episodes, mesh=programs.mesh, compile=lambda _: compiled.result()
    )


def evaluate_lanes(
    keys: jax.Array,
    plan: Plan,
    state: TrainState,
    episodes: int,
    *,
    policy: PolicyFactory = policy,
    mesh: Mesh | None = None,
    compile: Callable[[Program], jax.stages.Compiled] = Program.compile,
) -> np.ndarray:
    """Returns of every lane's policy, [lanes, episodes].

    Args:
        keys: [lanes]; a different one per lane, so that intervals over seeds include the variance
            of start states.
        state: of all lanes; environments and memory are not used.
        mesh: the devices; None for `mesh_for` all available ones.
        compile: compiles the `evaluation_program`, or returns one that is compiled already.

    Raises:
        ConfigError: the environment has no time limit.
    """
    mesh = mesh or mesh_for(plan.lanes)
    policies = fill(policy_state(state), plan.lanes, mesh)
    keys = fill(keys, plan.lanes, mesh)
    program = evaluation_program(keys, plan, policies, episodes, policy=policy, mesh=mesh)
    return np.asarray(compile(program)(*program.arguments))[: plan.lanes]


def evaluation_program(
    keys: jax.Array,
    plan: Plan,
    policies: TrainState,
    episodes: int,
    *,
    policy: PolicyFactory = policy,
    mesh: Mesh,
) -> Program:
    """The program of `evaluate_lanes`: its keys and policies, padded for the devices, to returns.

    Args:
        policies: the `policy_state` of all lanes, or its shapes.
    """
    config, config_axes = plan.config_lanes(padded(plan.lanes, mesh))

    def returns_of_lane(key: jax.Array, state: TrainState, config: Config) -> jax.Array:
        return evaluate(key, config, state, episodes, policy=policy)

    lanes = vmap_lanes(returns_of_lane, mesh, (0, seed_axes(policies), config_axes))
    return Program(jax.jit(lanes, out_shardings=shardings(None, mesh)), (keys, policies, config))


def train_seeds(plan: Plan, *, devices: int | None = None) -> Result:
    """Trains and evaluates all lanes in parallel; writes nothing to disk.

    Args:
        devices: the maximum number of devices; None for all available ones.
    """
    programs = compile_run(plan, mesh=mesh_for(plan.lanes, devices), evaluated=True)
    state = initial_state(plan, programs)
    history: list[Progress] = []
    for state, progress in run_chunks(plan, programs, state):  # noqa: B007, B020
        history.append(progress)
    evaluation = final_evaluation(plan, state, programs)
    state = trim(state, plan.lanes, programs.mesh)
    return Result(state, history, evaluation, programs.seconds, history[-1].seconds)


def _chunk(
    mesh: Mesh,
    iterations: int,
    episodes: int,
    config_axes: PyTree,
    state: TrainState,
    config: Config,
    keys: jax.Array,
    due: bool,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Trains all lanes for some iterations, and evaluates them if an evaluation is due.

    Args:
        episodes: per evaluation and lane; 0 compiles no evaluation.
        config_axes: the `vmap` axes of `config`.
        keys: [lanes], of the evaluation.

    Returns:
        the new state, and metrics [lanes], reduced over iterations: `finite` is the number of
        iterations before the first nan or infinite metric, and each of `EVALUATED_POLICIES` the
        mean return, 0 if no evaluation was due.
    """
    axes = seed_axes(state)
    train = vmap_lanes(partial(run, iterations=iterations), mesh, (axes, config_axes), (axes, 0))
    state, metrics = train(state, config)
    floats = [x for x in metrics.values() if jnp.issubdtype(x.dtype, jnp.inexact)]
    finite = reduce(jnp.logical_and, map(jnp.isfinite, floats))  # [lanes, iterations]
    reduced = {name: x.sum(1) if name in TOTALS else x.mean(1) for name, x in metrics.items()}
    reduced["finite"] = jnp.where(finite.all(1), iterations, finite.argmin(1))
    if episodes:

        def mean_return(
            key: jax.Array, state: TrainState, config: Config, policy: PolicyFactory
        ) -> jax.Array:
            return evaluate(key, config, state, episodes, policy=policy).mean()

        def evaluate_policies() -> dict[str, jax.Array]:
            def lanes(policy: PolicyFactory) -> jax.Array:
                function = partial(mean_return, policy=policy)
                mapped = vmap_lanes(function, mesh, (0, axes, config_axes))
                return mapped(keys, policy_state(state), config)

            return {name: lanes(policy) for name, policy in EVALUATED_POLICIES.items()}

        zeros = {name: jnp.zeros(len(keys), jnp.float32) for name in EVALUATED_POLICIES}
        reduced |= jax.lax.cond(due, evaluate_policies, lambda: zeros)
    return state, reduced
