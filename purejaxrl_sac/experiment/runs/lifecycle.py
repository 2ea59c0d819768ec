"""Starts and continues runs.

A plan determines every number of a run: on the same device and package versions, a run that was
killed at any time and resumed is equal, bit for bit, to an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from purejaxrl_sac.config import Bounds, Config, ConfigError, whole_number
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import device_name, mesh_for, use_all_cores
from purejaxrl_sac.experiment.errors import DamagedError
from purejaxrl_sac.experiment.runs import display, engine, files, metric_rows, plans, record
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoint, Checkpoints, split_state
from purejaxrl_sac.experiment.runs.directory import RunDirectory, RunDocument
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.runs.interruptions import failures_as_run_errors
from purejaxrl_sac.experiment.runs.loading import Run, way_out
from purejaxrl_sac.experiment.runs.loggers import LoggerFactory
from purejaxrl_sac.experiment.runs.measures import Measure, Measures, measured_again
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.experiment.runs.training import train
from purejaxrl_sac.types import Curriculum, Wrapper


def run(
    config: Config,
    seeds: int = 1,
    *,
    out: Path | str,
    seed: int = 0,
    chunks: int = 50,
    episodes: int = 512,
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
    use_all_cores(whole_number("seeds", seeds, at_least=1))
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
                return train(
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
        if (found := directory.read_metrics(plan.lanes, start)).lost:
            reporter.warning(f"{directory.metrics}: {found.warning}; the run goes on without them")
        reporter.message(
            f"resuming from step {start:,}" if checkpoint else "no checkpoint: starting over"
        )

        def update_directory() -> None:
            if plan is not old_plan:
                if directory.summary.exists():  # first, because without it a run can be resumed
                    directory.summary.rename(directory.path / f"summary-{old_plan.total}.json")
                directory.write_plan(plan, keep, mesh, measures.references())
            metric_rows.truncate(directory.metrics, plan.lanes, start)
            directory.remove_best_after(start)

        return train(
            directory, plan, mesh, checkpoint, checkpoint_minutes=checkpoint_minutes, keep=keep,
            loggers=loggers, measures=measures, reporter=reporter, before_training=update_directory,
        )  # fmt: skip


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
    batches = directory.path.absolute().parent
    if batches.name == "batches" and files.exists(batches.parent / "sweep.json"):
        raise ConfigError(
            f"{directory.path} is a batch of a sweep, whose points have equal steps: start a sweep"
            " with more"
        )
    whole_number("steps", steps, at_least=1)
    if steps <= plan.total:
        raise ConfigError(
            f"steps is the new total, and {steps:,} is not more than the {plan.total:,} that the"
            " run has: give more"
        )
    extended = plan._replace(config=plan.config.replace(total_steps=steps))
    plans.plan(extended.config, plan.seeds, variants=plan.variants)  # checks the new total
    if extended.total <= plan.total:
        raise ConfigError(f"steps is {steps:,}, which adds no iteration: give more")
    return extended


def _newest_checkpoint(
    directory: RunDirectory, plan: Plan, mesh: Mesh, reporter: Reporter
) -> Checkpoint | None:
    """The newest intact checkpoint, after moving damaged ones to `damaged/`; None without any.

    Raises:
        ConfigError: all checkpoints are damaged, none of which is moved; or the run has finished,
            so that results would be replaced.
    """
    damaged: dict[int, DamagedError] = {}
    with contextlib.closing(Checkpoints(directory.checkpoints)) as checkpoints:
        like = split_state(engine.shapes(plan, mesh))
        found = checkpoints.newest(damaged.__setitem__, plan.lanes, **like)
    if damaged and found is None:
        reasons = ", ".join(f"step {steps:,}: {error}" for steps, error in damaged.items())
        raise ConfigError(
            f"no checkpoint of {directory.path} can be read ({reasons}):"
            f" {way_out(directory, damaged)}"
        )
    if found is None and directory.summary.exists():
        raise ConfigError(
            f"{directory.path} is finished and has no checkpoint: {way_out(directory, damaged)}"
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
    other = record.check_versions(directory.path, document, any_version)
    if other or document["device"] != device_name(mesh):
        created = ", ".join([*other, document["device"]])
        reporter.warning(f"created with {created}: numbers may differ")
