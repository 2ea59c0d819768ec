"""Runs that survive: `run` begins one, `resume` goes on with it, `load` reads it.

Every number of a run follows from its plan, so a run that was killed at any moment and resumed ends
as it would have ended: bit for bit, on the same device and versions.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import Policy
from purejaxrl_sac.evaluate import policy as deployed
from purejaxrl_sac.experiment.runs import display, record, engine, plans
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.pictures import run_figures
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints
from purejaxrl_sac.experiment.runs.directory import RunDirectory, device, listed, write_json
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.errors import DamagedError, RunError, StoppedError
from purejaxrl_sac.experiment.runs.loggers import Logger
from purejaxrl_sac.experiment.devices.mesh import fill, mesh_for, trim
from purejaxrl_sac.experiment.runs.plans import Plan, Progress, Result
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.train import seed_state
from purejaxrl_sac.types import TrainState

if TYPE_CHECKING:
    import pandas


class Run(NamedTuple):
    """A run as `load` finds it."""

    path: Path
    plan: Plan
    steps: int  # environment steps of each seed behind `state`
    state: TrainState  # leading axis [lanes], clock unbatched; env and memory only where asked for
    metrics: dict[str, np.ndarray]  # steps and seconds [chunks], all others [chunks, lanes]
    summary: dict | None  # summary.json; None while the run goes on

    @property
    def config(self) -> Config:
        return self.plan.config

    def seed_state(self, seed: int = 0) -> TrainState:
        """The state of one seed.

        Raises:
            ConfigError: there is no such seed.
        """
        if not 0 <= seed < self.plan.lanes:
            raise ConfigError(f"there is no seed {seed}: the run has 0 to {self.plan.lanes - 1}")
        return seed_state(self.state, seed)

    def policy(self, seed: int = 0) -> Policy:
        """(key, obs [N, ...]) -> actions [N, ...] of one seed, compiled."""
        return jax.jit(deployed(self.plan.lane_config(seed), self.seed_state(seed)))

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int = 0,
        policy: Callable = deployed,
        devices: int | None = None,
    ) -> np.ndarray:
        """Returns of fresh episodes, [lanes, episodes]; `seed` decides start states and noise.

        Args:
            devices: how many to use; None for all there are.

        Raises:
            ConfigError: the environment has no time limit.
        """
        keys = jax.random.split(jax.random.fold_in(plans.key_from_seed(seed), 1), self.plan.lanes)
        mesh = mesh_for(self.plan.lanes, devices)
        return engine.play_lanes(keys, self.plan, self.state, episodes, policy=policy, mesh=mesh)

    def frame(self) -> pandas.DataFrame:
        """The metrics as a table: a row per chunk and seed."""
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
    loggers: Sequence[Callable[[Path, int], Logger]] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Trains, and leaves everything in a new directory.

    Args:
        seeds: trained side by side in one program.
        out: the directory, which must not exist yet.
        seed: root of all random numbers.
        chunks: about how many times the host looks at the run.
        episodes: greedy evaluation episodes per seed, at the end.
        eval_every: environment steps between evaluations during training; 0 for none.
        eval_episodes: episodes of each of them, per seed.
        variants: traced field -> its value in each variant; all seeds train each one, and what
            is per seed elsewhere then is per lane: the seeds of the first variant, of the second...
        devices: over how many the lanes are spread; None for all there are.
        checkpoint_minutes: time between checkpoints; one is always written at the end.
        keep: how many of the newest checkpoints stay.
        loggers: (directory, steps done) -> a function of each `Progress`.
        watch: hears of the run as it goes on.

    Raises:
        ConfigError: it cannot run, or does not fit into memory; nothing is left behind.
        RunError: something failed on the way; what was kept is resumed by `resume`.
        StoppedError: by SIGINT or SIGTERM, after a checkpoint.
    """
    plan = plans.plan(
        config, seeds, seed=seed, chunks=chunks, episodes=episodes,
        eval_every=eval_every, eval_episodes=eval_episodes, variants=variants,
    )  # fmt: skip
    check_keep(keep)
    mesh = mesh_for(plan.lanes, devices)
    _check_alike(Path(out), plan, mesh)
    resources.check_state(plan, mesh)
    directory = RunDirectory(Path(out))
    processes.on_first(lambda: RunDirectory.create(Path(out)))
    with directory.locked_by_first():
        processes.on_first(directory.check_new)
        try:
            with failing(directory):
                processes.on_first(lambda: directory.write_plan(plan, keep, mesh))
                return _train(
                    directory, plan, None, mesh=mesh, checkpoint_minutes=checkpoint_minutes,
                    keep=keep, loggers=loggers, reporter=reporter or Reporter(),
                )  # fmt: skip
        finally:
            if processes.is_first():
                directory.remove_if_unused()


def resume(
    path: Path | str,
    *,
    config: Config | None = None,
    steps: int | None = None,
    any_version: bool = False,
    devices: int | None = None,
    checkpoint_minutes: float = 5.0,
    keep: int | None = None,
    loggers: Sequence[Callable[[Path, int], Logger]] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Goes on with a run from its newest intact checkpoint.

    Args:
        config: needed only where it has an algorithm, wrappers or env_params of your own.
        steps: a new total, to make a run longer; schedules that end with the run then stretch
            over the new total.
        any_version: go on under other versions of the packages, without the promise that every
            number is as in an uninterrupted run.
        devices: over how many the lanes are spread, whatever it was before; None for all.
        keep: None for as many checkpoints as before.

    Other arguments and errors as for `run`.

    Raises:
        ConfigError: not a run, or finished, or made by other versions, or in use.
    """
    directory = RunDirectory.find(Path(path))
    reporter = reporter or Reporter() if processes.is_first() else Reporter()
    with directory.locked_by_first(), failing(directory):
        plan = directory.read_plan(config)
        document = directory.read_document()
        keep = document["keep"] if keep is None else keep
        check_keep(keep)
        longer = _longer(directory, plan, steps)
        mesh = mesh_for(plan.lanes, devices)
        _check_versions(directory.path, document, any_version, mesh, reporter)
        _check_alike(directory.path, longer, mesh)
        resources.check_state(longer, mesh)
        found = _intact(directory, longer, mesh, reporter)
        reporter.say(f"going on from step {found[0]:,}" if found else "no checkpoint: from the start")

        def prepare() -> None:
            if longer is not plan:
                if directory.summary.exists():  # first: a run without it can always go on
                    directory.summary.rename(directory.path / f"summary-{plan.total}.json")
                directory.write_plan(longer, keep, mesh)
            directory.truncate(found[0] if found else 0)

        return _train(
            directory, longer, found, mesh=mesh, checkpoint_minutes=checkpoint_minutes, keep=keep,
            loggers=loggers, reporter=reporter, prepare=prepare,
        )  # fmt: skip


def load(
    path: Path | str, *, config: Config | None = None, best: bool = False, whole: bool = False
) -> Run:
    """Reads a run.

    Args:
        config: needed only where it has an algorithm, wrappers or env_params of your own.
        best: what was best in an evaluation, instead of the newest checkpoint.
        whole: the state with its environments and replay memory, to go on from in your own code.

    Raises:
        ConfigError: not a run, or it has no checkpoint yet.
    """
    directory = RunDirectory.find(Path(path))
    plan = directory.read_plan(config)
    like = parted(engine.shapes(plan))
    if not whole or best:
        del like["rest"]
    where = directory.best if best else directory.checkpoints
    damaged: dict[int, DamagedError] = {}
    for _ in range(3):  # a run that goes on takes old ones away as we read
        with contextlib.closing(Checkpoints(where)) as checkpoints:
            if found := checkpoints.newest(damaged.__setitem__, plan.lanes, **like):
                break
    if found is None:
        if best and not plan.eval_every:
            raise ConfigError(f"{path} has no best checkpoint: it was made without --eval-every")
        raise ConfigError(f"{path} has no intact checkpoint: run purejaxrl-sac resume {path}")
    steps, parts = found
    if any(later > steps for later in damaged):
        warnings.warn(
            f"{path}: the newest checkpoint is damaged, this is step {steps:,}", stacklevel=2
        )
    summary = directory.read_summary()
    state = joined(**parts) if "rest" in parts else parts["policy"]
    return Run(directory.path, plan, steps, state, directory.columns(), summary)


def parted(state: TrainState) -> dict[str, Any]:
    """A state in two parts: what policies need of it, and what going on needs besides."""
    return {"policy": state._replace(env=(), memory=()), "rest": (state.env, state.memory)}


def joined(policy: TrainState, rest: tuple) -> TrainState:
    """The state that `parted` took apart."""
    return policy._replace(env=rest[0], memory=rest[1])


def _train(
    directory: RunDirectory,
    plan: Plan,
    found: tuple[int, dict[str, Any]] | None,
    *,
    mesh: Mesh,
    checkpoint_minutes: float,
    keep: int,
    loggers: Sequence[Callable[[Path, int], Logger]],
    reporter: Reporter,
    prepare: Callable[[], None] = lambda: None,
) -> Run:
    """Trains what is left; `prepare` is called once it is certain that it can."""
    title = run_figures.title(plan.config)
    steps = found[0] if found else plan.steps(0)
    history = directory.history(plan, steps) if found else []
    first = processes.is_first()
    reporter = reporter if first else Reporter()
    if found and (not history or history[-1].steps != steps):
        raise ConfigError(f"{directory.metrics} ends before the checkpoint of step {steps:,}")
    logs = [make(directory.path, steps) for make in loggers] if first else []
    reporter.on_begin(plan, title, device(mesh))
    done = steps // plan.config.steps_per_iteration - plan.config.warmup_iterations
    programs = engine.compile_run(plan, done, mesh)
    held = sum(resources.state_bytes(plan, mesh).values()) if found else 0
    resources.check_programs(programs, held)
    processes.on_first(prepare)
    reporter.on_compiled(programs.seconds)
    state = fill(joined(**found[1]), plan.lanes, mesh) if found else engine.begin(plan, programs)
    with (
        Interrupts() as interrupts,
        reporter.live,
        contextlib.closing(Checkpoints(directory.checkpoints, keep)) as checkpoints,
        contextlib.closing(Checkpoints(directory.best, keep=1)) as best,
    ):
        saved = time.monotonic()
        last = history[-1] if history else None
        for state, progress in engine.advance(plan, programs, state, last):  # noqa: B020
            if first:
                directory.append(progress)
            if is_best(progress, history) and progress.steps not in best.steps():
                best.save(progress.steps, plan.lanes, policy=parted(state)["policy"])
            history.append(progress)
            for log in (*logs, reporter.on_chunk):
                log(progress)
            waited = time.monotonic() - saved
            due, stop = processes.any_of(waited >= 60 * checkpoint_minutes, bool(interrupts.heard))
            if due or stop or progress.steps == plan.total:
                if first:
                    directory.sync()
                best.wait()  # a checkpoint never knows of a best policy that is not kept
                checkpoints.save(progress.steps, plan.lanes, **parted(state))
                saved = time.monotonic()
            if stop:
                checkpoints.wait()
                how = interrupts.heard or signal.SIGTERM  # another process heard it
                raise StoppedError(directory.path, progress.steps, how)
    scores = engine.final_evaluation(plan, state, mesh) if plans.timed(plan.config) else None
    state = trim(state, plan.lanes, mesh)
    result = Result(state, history, scores, programs.seconds, history[-1].seconds)
    processes.on_first(lambda: _leave(directory, plan, result, mesh, reporter))
    summary = directory.read_summary()
    return Run(directory.path, plan, plan.total, state, directory.columns(), summary)


def _leave(directory: RunDirectory, plan: Plan, result: Result, mesh: Mesh, reporter: Reporter) -> None:
    """Pictures and, last, the summary: it says that the run is finished."""
    figures = display.summary(plan.config, result)
    if not plan.variants:  # what seeds have in common, variants do not
        figures |= run_figures.write_figures(directory.path, plan, result)
    write_json(directory.summary, _summary(result, figures, mesh))
    reporter.on_finished(run_figures.title(plan.config), figures, directory.path)


def _check_alike(path: Path, plan: Plan, mesh: Mesh) -> None:
    """Raises ConfigError where processes are about to do different things."""
    if not processes.alone():
        config = record.config_to_dict(plan.config)
        planned = (str(path), config, plan._replace(config=None))
        processes.check_alike(repr((planned, record.versions(), len(mesh.local_devices))))


def _summary(result: Result, figures: dict[str, str], mesh: Mesh) -> dict[str, Any]:
    last = result.history[-1]
    document = {
        "figures": figures,
        "steps": last.steps,
        "failed_step": {
            str(seed): int(step) for seed, step in enumerate(last.failed_step) if step >= 0
        },
        "greedy_returns": None,
        "device": device(mesh),
    }
    if result.evaluation is not None:
        document["greedy_returns"] = listed(result.evaluation.mean(1))
    return document


def is_best(progress: Progress, before: Sequence[Progress]) -> bool:
    """Whether no evaluation before had as high an interquartile mean over the seeds."""
    if "greedy_return" not in progress.evaluation:
        return False
    scores = [iqm(p.evaluation["greedy_return"]) for p in before if p.evaluation]
    mine = iqm(progress.evaluation["greedy_return"])
    return bool(np.isfinite(mine)) and all(not np.isfinite(x) or mine > x for x in scores)


def check_keep(keep: int) -> None:
    """Raises ConfigError where no checkpoint would stay."""
    if keep < 1:
        raise ConfigError(f"keep is {keep}, but at least 1 checkpoint must stay")


def _longer(directory: RunDirectory, plan: Plan, steps: int | None) -> Plan:
    """The plan to go on with: as it was, or with more steps."""
    summary = directory.read_summary()
    finished = summary is not None and summary.get("steps") == plan.total
    if not finished and steps in (None, plan.config.total_steps):
        return plan
    if steps is None:
        raise ConfigError(f"{directory.path} is finished: add --steps to make it longer")
    longer = plan._replace(config=plan.config.replace(total_steps=steps))
    plans.plan(longer.config, plan.seeds, variants=plan.variants)
    if longer.total <= plan.total:
        raise ConfigError(f"steps is {steps:,}, but the run has {plan.total:,} already: give more")
    return longer


def _intact(
    directory: RunDirectory, plan: Plan, mesh: Mesh, reporter: Reporter
) -> tuple[int, dict[str, Any]] | None:
    """The newest intact checkpoint; those that are not are moved aside once there is one."""
    damaged: dict[int, DamagedError] = {}
    with contextlib.closing(Checkpoints(directory.checkpoints)) as checkpoints:
        like = parted(engine.shapes(plan, mesh))
        found = checkpoints.newest(damaged.__setitem__, plan.lanes, **like)
    if damaged and found is None:
        why = ", ".join(f"step {steps:,}: {error}" for steps, error in damaged.items())
        raise ConfigError(
            f"no checkpoint of {directory.path} can be read ({why}): to begin from the start, move"
            f" {directory.checkpoints} away"
        )

    def move_aside() -> None:
        for steps, error in damaged.items():
            aside = directory.path / "damaged" / f"{steps}-{time.time_ns()}"
            aside.parent.mkdir(exist_ok=True)
            (directory.checkpoints / str(steps)).rename(aside)
            reporter.say(f"the checkpoint of step {steps:,} is damaged ({error}): moved to {aside}")

    processes.on_first(move_aside)
    return found


def _check_versions(
    path: Path, document: dict, any_version: bool, mesh: Mesh, reporter: Reporter
) -> None:
    now = record.versions()
    other = [
        f"{name} {document['versions'].get(name)} (here {now[name]})"
        for name in now
        if document["versions"].get(name) != now[name]
    ]
    if other and not any_version:
        raise ConfigError(
            f"{path} was made with {', '.join(other)}: install those, or add"
            " --any-version to go on without the promise of equal numbers"
        )
    if other or document["device"] != device(mesh):
        reporter.say(f"made with {', '.join([*other, document['device']])}: numbers may differ")


class Interrupts:
    """Hears SIGINT and SIGTERM without being torn out of a chunk; a second SIGINT is obeyed."""

    heard: signal.Signals | None = None

    def __enter__(self) -> Interrupts:
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.hear)
        return self

    def hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.heard = signal.Signals(number)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failing(directory: RunDirectory) -> Iterator[None]:
    """Says in one line what is safe when the disk or the machine fails a run.

    Raises:
        RunError: instead of what that failure raised.
    """
    try:
        yield
    except (BrokenPipeError, ConnectionError):
        raise  # whoever listened is gone
    except (OSError, MemoryError, ValueError, jax.errors.JaxRuntimeError) as error:
        if gone := processes.lost(error):
            raise gone from error
        if isinstance(error, ValueError):  # an error of ours, or in the input
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        failed = f"{directory.path} cannot go on ({reason or type(error).__name__})"
        if any(directory.checkpoints.glob("[0-9]*")):
            failed += ": the last checkpoint is intact"
        raise RunError(f"{failed}: mend it, and run it again or resume it") from error
