"""Runs on disk: `run` starts one, `resume` continues it, `load` reads it.

A plan determines every number of a run: on the same device and package versions, a run that was
killed at any time and resumed is equal, bit for bit, to an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Bounds, Config, ConfigError, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.evaluate import PolicyFactory
from purejaxrl_sac.evaluate import policy as greedy_policy
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import (
    fill,
    mesh_for,
    policy_state,
    trim,
    use_all_cores,
)
from purejaxrl_sac.experiment.errors import (
    DamagedError,
    InsufficientMemoryError,
    RunError,
    RunWarning,
    StoppedError,
    reason,
)
from purejaxrl_sac.experiment.runs import display, engine, plans, record
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoint, Checkpoints, Parts
from purejaxrl_sac.experiment.runs.directory import (
    RunDirectory,
    RunDocument,
    Summary,
    device_name,
    to_list,
)
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.runs.loggers import LoggerFactory, Logs
from purejaxrl_sac.experiment.runs.measures import Measure, Measures, measured_again
from purejaxrl_sac.experiment.runs.plans import Plan, Progress, Result
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.train import seed_state
from purejaxrl_sac.types import Curriculum, PyTree, TrainState, Wrapper

if TYPE_CHECKING:
    import pandas


class Run(NamedTuple):
    """A run as `load` reads it."""

    path: Path
    plan: Plan
    steps: int  # environment steps of each seed in `state`
    state: (
        TrainState  # leading axis [lanes], clock unbatched; env and memory are () unless asked for
    )
    metrics: dict[str, np.ndarray]  # steps and seconds [chunks], all others [chunks, lanes]
    summary: Summary | None  # summary.json; None before the run has finished

    @property
    def config(self) -> Config:
        """The configuration, without variants."""
        return parameters.free(self.plan.config)

    @property
    def failed(self) -> np.ndarray:
        """[lanes] bool: whether a metric has been nan or infinite up to the steps of `state`."""
        failed_step = self.metrics.get("failed_step", np.full((0, self.plan.lanes), -1))
        known = failed_step[self.metrics["steps"] <= self.steps]
        return np.any(known >= 0, axis=0)

    def seed_state(self, seed: int = 0) -> TrainState:
        """The state of one seed.

        Raises:
            ConfigError: the seed does not exist.
        """
        return seed_state(self.state, seed)

    def policy(self, seed: int = 0) -> Callable[..., Any]:
        """The greedy policy of one seed, compiled: (key, obs [N, ...]) -> actions [N, ...]."""
        state = self.seed_state(seed)
        return jax.jit(greedy_policy(self.plan.lane_config(seed), state))

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int = 0,
        policy: PolicyFactory = greedy_policy,
        devices: int | None = None,
        env_params: Any = None,
    ) -> np.ndarray:
        """Returns of new episodes, [lanes, episodes]; nan for seeds that have diverged.

        Args:
            env_params: other parameters of the environment than those trained with, or a
                dictionary of some of them, such as {"length": 1.0}.
            seed: determines start states and noise.
            policy: `evaluate.policy` (the default) or `evaluate.exploring_policy`, or your own.
            devices: the maximum number of devices; None for all available ones.

        Raises:
            ConfigError: the environment has no time limit, or memory is insufficient.
        """
        episodes = whole_number("episodes", episodes, at_least=1)
        keys = jax.random.split(jax.random.fold_in(plans.key_from_seed(seed), 1), self.plan.lanes)
        mesh = mesh_for(self.plan.lanes, devices)
        plan = self.plan
        if env_params is not None:
            config = self.config
            if isinstance(env_params, dict):
                env_params = parameters.changed(config.env, env_params, config.env_params)
            config = config.replace(env_params=env_params)
            plan = plan._replace(config=parameters.fixed(config))
        resources.check_evaluation(plan, mesh, episodes)
        returns = engine.evaluate_lanes(
            keys, plan, self.state, episodes, policy=policy, mesh=mesh,
            compile=partial(resources.compile_evaluation, mesh=mesh),
        )  # fmt: skip
        return np.where(self.failed[:, None], np.nan, returns)

    def frame(self) -> pandas.DataFrame:
        """The metrics as a pandas table, one row per chunk and seed."""
        import pandas

        steps, seconds = self.metrics["steps"], self.metrics["seconds"]
        columns = {
            "steps": np.repeat(steps, self.plan.lanes),
            "seed": np.tile(np.arange(self.plan.lanes), len(steps)),
            "seconds": np.repeat(seconds, self.plan.lanes),
        }
        columns |= {name: x.ravel() for name, x in self.metrics.items() if name not in columns}
        return pandas.DataFrame(columns)


def run(
    config: Config,
    seeds: int = 1,
    *,
    out: Path | str,
    seed: int = 0,
    chunks: int = 50,
    episodes: int = 128,
    eval_every: int = 0,
    eval_episodes: int = 32,
    variants: dict[str, list[float]] | None = None,
    devices: int | None = None,
    checkpoint_minutes: float = 5.0,
    keep: int = 2,
    loggers: Sequence[LoggerFactory] = (),
    measure: Mapping[str, Measure] | None = None,
    progress: bool | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Trains, and writes metrics, checkpoints and results to a new directory.

    Args:
        seeds: number of seeds, trained in parallel in one program.
        out: the directory, which must not exist yet.
        seed: root of all random numbers.
        chunks: approximate number of compiled chunks; metrics are written after each.
        episodes: greedy evaluation episodes per seed, at the end.
        eval_every: environment steps between evaluations during training; 0 for none.
        eval_episodes: episodes of each such evaluation, per seed.
        variants: traced field -> its value in each variant. Every variant is trained with all
            seeds, and results per seed become results per lane, ordered by variant.
        devices: the maximum number of devices; None for all available ones.
        checkpoint_minutes: time between checkpoints; the last one is written at the end.
        keep: number of checkpoints to keep.
        loggers: see `runs.loggers`.
        measure: name -> function of one seed's state, evaluated after each chunk; see
            `runs.measures`.
        progress: whether to show it; None for on a terminal and in a notebook.
        reporter: receives messages and progress, instead.

    Raises:
        ConfigError: bad input, or too little memory; nothing is written.
        RunError: the machine failed during training; `resume` continues from the last checkpoint.
        StoppedError: SIGINT or SIGTERM was received; a checkpoint has been written.
    """
    use_all_cores(seeds)
    plan = plans.plan(
        parameters.fixed(config), seeds, seed=seed, chunks=chunks, episodes=episodes,
        eval_every=eval_every, eval_episodes=eval_episodes, variants=variants,
    )  # fmt: skip
    check_storage(keep, checkpoint_minutes)
    mesh = mesh_for(plan.lanes, devices)
    measures = Measures(measure or {}, plan, mesh)
    directory = RunDirectory(Path(out))
    _check_same_in_all_processes(directory, plan, mesh)
    resources.check_state(plan, mesh)
    processes.on_first(lambda: RunDirectory.create(directory.path))
    with directory.locked_by_first():
        processes.on_first(directory.check_new)
        try:
            with failures_as_run_errors(directory):
                references = measures.references()
                processes.on_first(lambda: directory.write_plan(plan, keep, mesh, references))
                return _train(
                    directory, plan, mesh, None, checkpoint_minutes=checkpoint_minutes,
                    keep=keep, loggers=loggers, measures=measures,
                    reporter=_first_process_only(reporter, progress),
                )  # fmt: skip
        finally:
            if processes.is_first():
                directory.remove_if_unused()


def resume(
    path: Path | str,
    *,
    config: Config | None = None,
    algorithm: Any = None,
    env: Any = None,
    wrappers: Sequence[Wrapper | str] | None = None,
    curriculum: Curriculum | str | None = None,
    trust: bool = False,
    steps: int | None = None,
    any_version: bool = False,
    devices: int | None = None,
    checkpoint_minutes: float = 5.0,
    keep: int | None = None,
    loggers: Sequence[LoggerFactory] = (),
    measure: Mapping[str, Measure] | None = None,
    progress: bool | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Continues a run from its newest intact checkpoint, or from the start if there is none.

    Args:
        config, algorithm, env, wrappers, curriculum, trust: code that files cannot store, as for
            `load`.
        steps: a larger `total_steps`, to extend the run; schedules then span the new total.
        any_version: allow other package versions and settings of JAX and XLA, under which numbers
            may differ from those of an uninterrupted run.
        devices: the maximum number of devices, which may change; None for all available ones.
        keep: number of checkpoints to keep; None for as many as before.

    Other arguments and errors as for `run`.

    Raises:
        ConfigError: not a run, or it has finished, is in use, was changed, or has other package
            versions or settings.
    """
    directory = RunDirectory.find(Path(path))
    reporter = _first_process_only(reporter, progress)
    with directory.locked_by_first(), failures_as_run_errors(directory):
        given = record.Given(config, algorithm, env, wrappers, curriculum, trust)
        old_plan = directory.read_plan(given)
        document = directory.read_document()
        keep = document["keep"] if keep is None else keep
        check_storage(keep, checkpoint_minutes)
        plan = _extended_plan(directory, old_plan, steps)
        mesh = mesh_for(plan.lanes, devices)
        given_measures = measured_again(document.get("measures", {}), measure, trust)
        measures = Measures(given_measures, plan, mesh)
        _check_versions(directory, document, any_version, mesh, reporter)
        _check_same_in_all_processes(directory, plan, mesh)
        resources.check_state(plan, mesh)
        checkpoint = _newest_checkpoint(directory, plan, mesh, reporter)
        start = checkpoint[0] if checkpoint else 0
        metrics = directory.read_metrics(plan.lanes, start)
        if metrics.lost:
            reporter.warning(
                f"{directory.metrics}: {metrics.warning}; the run goes on without them"
            )
        reporter.message(
            f"resuming from step {start:,}" if checkpoint else "no checkpoint: starting over"
        )

        def update_directory() -> None:
            if plan is not old_plan:
                if directory.summary.exists():  # first, because without it a run can be resumed
                    directory.summary.rename(directory.path / f"summary-{old_plan.total}.json")
                directory.write_plan(plan, keep, mesh, measures.references())
            directory.truncate(plan.lanes, start)

        return _train(
            directory, plan, mesh, checkpoint, checkpoint_minutes=checkpoint_minutes, keep=keep,
            loggers=loggers, measures=measures, reporter=reporter, before_training=update_directory,
        )  # fmt: skip


def load(
    path: Path | str,
    *,
    config: Config | None = None,
    algorithm: Any = None,
    env: Any = None,
    wrappers: Sequence[Wrapper | str] | None = None,
    curriculum: Curriculum | str | None = None,
    trust: bool = False,
    best: bool = False,
    whole: bool = False,
) -> Run:
    """Reads a run, which may still be training.

    Files cannot store code. A run with an algorithm, wrapper, environment or curriculum of one's
    own needs it again: given as it is, or imported from where it was when the run was created, if
    `trust` says so. It must be the same as before. Nothing else is ever imported from a run.

    Args:
        config: the run's configuration, instead of the following.
        algorithm: the algorithm, its class of configurations, or a reference ("fork.py:name").
        env: the environment, or a reference.
        wrappers: all wrappers, the innermost first; or references of those of one's own only.
        curriculum: the curriculum, or a reference.
        trust: whether to import the modules and files that the run names.
        best: read the policies that scored best in an evaluation, not the newest checkpoint.
        whole: restore environments and replay memory too, so that `train.run` can continue.

    Raises:
        ConfigError: not a run, or it has no checkpoint yet.
    """
    directory = RunDirectory.find(Path(path))
    plan = directory.read_plan(record.Given(config, algorithm, env, wrappers, curriculum, trust))
    like = split_state(engine.shapes(plan))
    if not whole or best:
        del like["rest"]
    where = directory.best if best else directory.checkpoints
    damaged: dict[int, DamagedError] = {}
    for _ in range(3):  # a run in progress may delete a checkpoint while it is read
        with contextlib.closing(Checkpoints(where)) as checkpoints:
            if found := checkpoints.newest(damaged.__setitem__, plan.lanes, **like):
                break
    if found is None:
        if best and not plan.eval_every:
            raise ConfigError(f"{path} has no best checkpoint: it was trained without --eval-every")
        way_out = "load the newest one" if best else _way_out(directory, damaged)
        raise ConfigError(f"{where} has no intact checkpoint: {way_out}")
    steps, parts = found
    if any(later > steps for later in damaged):
        text = f"{path}: the newest checkpoint is damaged, this is step {steps:,}"
        warnings.warn(RunWarning(text), stacklevel=2)
    summary = directory.read_summary()
    state = join_state(**parts) if "rest" in parts else parts["policy"]
    return Run(directory.path, plan, steps, state, directory.columns(), summary)


def _way_out(directory: RunDirectory, damaged: Collection[int]) -> str:
    """What to do where no checkpoint can be read."""
    obstacles = [directory.checkpoints] * bool(damaged)
    obstacles += [directory.summary] * directory.summary.exists()
    move = f"move {' and '.join(map(str, obstacles))} away, then " if obstacles else ""
    return f"to train it from the start, {move}run purejaxrl-sac resume {directory.path}"


def split_state(state: TrainState) -> Parts:
    """A state in two parts: what policies depend on, and environments with memory."""
    return {"policy": policy_state(state), "rest": (state.env, state.memory)}


def join_state(policy: TrainState, rest: tuple[PyTree, PyTree]) -> TrainState:
    """The inverse of `split_state`."""
    return policy._replace(env=rest[0], memory=rest[1])


def _train(
    directory: RunDirectory,
    plan: Plan,
    mesh: Mesh,
    checkpoint: Checkpoint | None,
    *,
    checkpoint_minutes: float,
    keep: int,
    loggers: Sequence[LoggerFactory],
    measures: Measures,
    reporter: Reporter,
    before_training: Callable[[], None] = lambda: None,
) -> Run:
    """Trains as `_train_logged`, with loggers that are closed whatever happens."""
    steps = checkpoint[0] if checkpoint else plan.steps(0)
    makers = loggers if processes.is_first() else ()
    with contextlib.closing(Logs(directory.path, steps, makers, reporter)) as logs:
        return _train_logged(
            directory, plan, mesh, checkpoint, logs, checkpoint_minutes=checkpoint_minutes,
            keep=keep, measures=measures, reporter=reporter, before_training=before_training,
        )  # fmt: skip


def _train_logged(
    directory: RunDirectory,
    plan: Plan,
    mesh: Mesh,
    checkpoint: Checkpoint | None,
    logs: Logs,
    *,
    checkpoint_minutes: float,
    keep: int,
    measures: Measures,
    reporter: Reporter,
    before_training: Callable[[], None],
) -> Run:
    """Trains from a checkpoint, or from the start, to the end of the plan.

    Args:
        before_training: called in the first process after all checks, before files are changed.
    """
    steps = checkpoint[0] if checkpoint else plan.steps(0)
    history = directory.history(plan, steps) if checkpoint else []
    first = processes.is_first()
    reporter.on_start(plan, plans.title(plan.config), device_name(mesh))
    if note := plans.rounding_note(plan.config):
        reporter.message(note)
    done = steps // plan.config.steps_per_iteration - plan.config.warmup_iterations
    programs = engine.compile_run(plan, done, mesh, evaluated=True, meanwhile=_import_pictures)
    held = sum(resources.state_bytes(plan, mesh).values()) if checkpoint else 0
    resources.check_programs(programs, held)
    processes.on_first(before_training)
    reporter.on_compiled(programs.seconds)
    if checkpoint:
        state = fill(join_state(**checkpoint[1]), plan.lanes, mesh)
    else:
        state = engine.initial_state(plan, programs)
    with (
        Interrupts() as interrupts,
        reporter.live,
        contextlib.closing(Checkpoints(directory.checkpoints, keep)) as checkpoints,
        contextlib.closing(Checkpoints(directory.best, keep=1)) as best,
    ):
        saved = time.monotonic()
        last = history[-1] if history else None
        after = steps if checkpoint else 0
        for state, progress in engine.run_chunks(plan, programs, state, last):  # noqa: B020
            progress = measures.add(progress, state)  # noqa: PLW2901
            if first:
                directory.append(progress, after)
            after = progress.steps
            if is_best(progress, history) and progress.steps not in best.steps():
                best.save(progress.steps, plan.lanes, policy=policy_state(state))
            history.append(_copied(progress))
            logs.write(progress, state)
            reporter.on_chunk(progress)
            due = time.monotonic() - saved >= 60 * checkpoint_minutes
            due, stop = processes.any_of(due, interrupts.received is not None)
            if due or stop or progress.steps == plan.total:
                if first:
                    directory.sync()
                best.wait()  # so that no checkpoint is ahead of the best policy
                checkpoints.save(progress.steps, plan.lanes, **split_state(state))
                saved = time.monotonic()
            if stop:
                checkpoints.wait()
                number = interrupts.received or signal.SIGTERM  # another process received it
                trained = progress.steps == plan.total
                raise StoppedError(directory.path, progress.steps, number, trained)
    with stopping_at_once(directory.path, plan.total):
        evaluation = _evaluate(directory, plan, state, programs, reporter)
        state = trim(state, plan.lanes, mesh)
        result = Result(state, history, evaluation, programs.seconds, history[-1].seconds)
        processes.on_first(lambda: _write_results(directory, plan, result, mesh, reporter))
    summary = directory.read_summary()
    return Run(directory.path, plan, plan.total, state, directory.columns(), summary)


def _evaluate(
    directory: RunDirectory,
    plan: Plan,
    state: TrainState,
    programs: engine.Programs,
    reporter: Reporter,
) -> np.ndarray | None:
    """As `engine.final_evaluation`; None, with a warning, where memory is insufficient."""
    try:
        resources.check_final_evaluation(plan, programs)
        return engine.final_evaluation(plan, state, programs)
    except (InsufficientMemoryError, MemoryError, jax.errors.JaxRuntimeError) as error:
        checked = isinstance(error, InsufficientMemoryError)  # by all processes
        if not checked and not processes.is_single():
            raise
        reporter.warning(
            f"the final evaluation failed ({reason(error)}): run purejaxrl-sac eval"
            f" {directory.path} with fewer --episodes than {plan.episodes:,}"
        )
        return None


def _import_pictures() -> None:
    """Imports what takes a second and is needed only after training."""
    import purejaxrl_sac.experiment.pictures.run_figures  # noqa: F401


def _write_results(
    directory: RunDirectory, plan: Plan, result: Result, mesh: Mesh, reporter: Reporter
) -> None:
    """Writes pictures and, last, the summary, which marks the run as finished."""
    from purejaxrl_sac.experiment.pictures import run_figures

    figures = display.summary(plan.config, result)
    if not plan.variants:  # pictures aggregate over seeds of one configuration
        figures |= run_figures.write_figures(directory.path, plan, result, reporter.warning)
    last = result.history[-1]
    failed = {str(seed): int(step) for seed, step in enumerate(last.failed_step) if step >= 0}
    greedy_returns = None
    if result.evaluation is not None:
        greedy_returns = to_list(np.where(last.failed, np.nan, result.evaluation.mean(1)))
    document = {
        "figures": figures,
        "steps": last.steps,
        "failed_step": failed,
        "greedy_returns": greedy_returns,
        "device": device_name(mesh),
    }
    directory.write_summary(document)
    reporter.on_finished(plans.title(plan.config), figures, directory.path)


def _copied(progress: Progress) -> Progress:
    """The progress in arrays of its own: views would keep buffers of every chunk alive."""
    return jax.tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, progress)


def is_best(progress: Progress, history: Sequence[Progress]) -> bool:
    """Whether the IQM of greedy returns exceeds that of all previous evaluations.

    All are over the seeds that have not diverged so far.
    """
    if "greedy_return" not in progress.evaluation:
        return False

    def score(evaluated: Progress) -> float:
        return float(iqm(evaluated.evaluation["greedy_return"][~progress.failed]))

    scores = [score(evaluated) for evaluated in history if evaluated.evaluation]
    latest = score(progress)
    return math.isfinite(latest) and all(not math.isfinite(x) or latest > x for x in scores)


def check_storage(keep: int, checkpoint_minutes: float) -> None:
    """Raises ConfigError if no checkpoint would be kept, or the time between them is no time."""
    whole_number("keep", keep, at_least=1)
    Bounds(float, at_least=0, infinite=True).check("checkpoint_minutes", checkpoint_minutes)


def _first_process_only(reporter: Reporter | None, progress: bool | None) -> Reporter:
    """The reporter in the first process; one without output in all others."""
    if not processes.is_first():
        return Reporter()
    return reporter or display.default_reporter(progress)


def _check_same_in_all_processes(directory: RunDirectory, plan: Plan, mesh: Mesh) -> None:
    """Raises ConfigError if processes were started with different arguments or versions."""
    if not processes.is_single():
        config = record.config_to_dict(plan.config)
        arguments = (str(directory.path), config, plan[1:])  # all of a plan but the configuration
        processes.check_equal(repr((arguments, record.versions(), len(mesh.local_devices))))


def _extended_plan(directory: RunDirectory, plan: Plan, steps: int | None) -> Plan:
    """The plan of a resumed run: with a larger `total_steps`, or unchanged."""
    summary = directory.read_summary()
    has_finished = summary is not None and summary.get("steps") == plan.total
    if not has_finished and steps in (None, plan.config.total_steps):
        return plan
    if steps is None:
        raise ConfigError(f"{directory.path} is finished: add --steps to extend it")
    extended = plan._replace(config=plan.config.replace(total_steps=steps))
    plans.plan(extended.config, plan.seeds, variants=plan.variants)  # checks the new total
    if extended.total <= plan.total:
        raise ConfigError(f"steps is {steps:,}, but the run has {plan.total:,} already: give more")
    return extended


def _newest_checkpoint(
    directory: RunDirectory, plan: Plan, mesh: Mesh, reporter: Reporter
) -> Checkpoint | None:
    """The newest intact checkpoint, after moving damaged ones to `damaged/`; None without any.

    Raises:
        ConfigError: all checkpoints are damaged; none is moved.
    """
    damaged: dict[int, DamagedError] = {}
    with contextlib.closing(Checkpoints(directory.checkpoints)) as checkpoints:
        like = split_state(engine.shapes(plan, mesh))
        found = checkpoints.newest(damaged.__setitem__, plan.lanes, **like)
    if damaged and found is None:
        reasons = ", ".join(f"step {steps:,}: {error}" for steps, error in damaged.items())
        raise ConfigError(
            f"no checkpoint of {directory.path} can be read ({reasons}):"
            f" {_way_out(directory, damaged)}"
        )

    def move_damaged() -> None:
        for steps, error in damaged.items():
            target = directory.path / "damaged" / f"{steps}-{time.time_ns()}"
            target.parent.mkdir(exist_ok=True)
            (directory.checkpoints / str(steps)).rename(target)
            reporter.warning(
                f"the checkpoint of step {steps:,} is damaged ({error}): moved to {target}"
            )

    processes.on_first(move_damaged)
    return found


def _check_versions(
    directory: RunDirectory,
    document: RunDocument,
    any_version: bool,
    mesh: Mesh,
    reporter: Reporter,
) -> None:
    """Raises ConfigError for other versions or settings, unless allowed; reports another device."""
    other = record.differences(document["versions"], record.versions())
    other += record.differences(document["settings"], record.settings())
    if other and not any_version:
        raise ConfigError(
            f"{directory.path} was created with {', '.join(other)}: restore them, or add"
            " --any-version to resume with numbers that may differ"
        )
    if other or document["device"] != device_name(mesh):
        created = ", ".join([*other, document["device"]])
        reporter.warning(f"created with {created}: numbers may differ")


class Interrupts:
    """Records SIGINT and SIGTERM, so that a run can stop after the current chunk.

    A second SIGINT raises KeyboardInterrupt at once.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> Interrupts:
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopping_at_once(path: Path, steps: int) -> Iterator[None]:
    """SIGINT and SIGTERM end the evaluation of a trained run: its checkpoint is on disk.

    Raises:
        StoppedError: one was received.
    """

    received = signal.SIGINT

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # no Exception, which the failure of a picture may be

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {x: signal.signal(x, stop) for x in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(path, steps, received, trained=True) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failures_as_run_errors(directory: RunDirectory) -> Iterator[None]:
    """Turns failures of the disk, the memory or another process into one-line errors.

    Raises:
        RunError: with the reason and how to continue.
    """
    try:
        yield
    except (BrokenPipeError, ConnectionError):
        raise  # standard output was closed
    except (OSError, MemoryError, ValueError, jax.errors.JaxRuntimeError) as error:
        if lost := processes.lost_process(error):
            raise lost from error
        if isinstance(error, ValueError):  # bad input, or a bug
            raise
        cause = getattr(error, "strerror", None) or reason(error)
        advice = "fix the cause and resume it"
        if steps := directory.checkpoint_steps():
            advice += f" from its checkpoint of step {steps[-1]:,}"
        elif not directory.metrics.exists():
            advice = "fix the cause and run it again, nothing was trained"
        raise RunError(f"{directory.path} failed ({cause}): {advice}") from error
