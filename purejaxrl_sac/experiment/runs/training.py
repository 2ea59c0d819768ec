"""Trains the remainder of a run: chunk by chunk, then the final evaluation, then the results."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.experiment.devices import processes, resources
from purejaxrl_sac.experiment.devices.mesh import device_name, fill, policy_state, trim
from purejaxrl_sac.experiment.errors import InsufficientMemoryError, StoppedError, reason
from purejaxrl_sac.experiment.runs import display, engine, metric_rows, plans
from purejaxrl_sac.experiment.runs.checkpoint import (
    Checkpoint,
    Checkpoints,
    join_state,
    split_state,
)
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.runs.interruptions import recorded_signals, stopping_at_once
from purejaxrl_sac.experiment.runs.loading import Run
from purejaxrl_sac.experiment.runs.loggers import LoggerFactory, Logs
from purejaxrl_sac.experiment.runs.measures import Measures
from purejaxrl_sac.experiment.runs.plans import Plan, Progress, Result
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.types import TrainState

if TYPE_CHECKING:  # importing pictures takes a second
    from purejaxrl_sac.experiment.pictures.render import Rollout


def train(
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
    """Trains from a checkpoint, or from the start, to the end of the plan.

    Args:
        before_training: called in the first process after all checks, before files are changed.
    """
    steps = checkpoint[0] if checkpoint else plan.steps(0)
    first = processes.is_first()
    makers = loggers if first else ()
    with contextlib.closing(Logs(directory.path, steps, makers, reporter)) as logs:
        history = []
        if checkpoint:
            rows = directory.read_metrics(plan.lanes, steps).rows
            history = metric_rows.history(rows, plan, steps)
        reporter.on_start(plan, plans.title(plan.config), device_name(mesh))
        if note := plans.rounding_note(plan.config):
            reporter.message(note)
        done = steps // plan.config.steps_per_iteration - plan.config.warmup_iterations
        aside = ThreadPoolExecutor(1)
        programs = engine.compile_run(
            plan, done, mesh, evaluated=True, meanwhile=lambda: aside.submit(_import_pictures)
        )
        rollout = aside.submit(_compile_episode, plan)
        aside.shutdown(wait=False)
        held = sum(resources.state_bytes(plan, mesh).values()) if checkpoint else 0
        resources.check_programs(programs, held)
        processes.on_first(before_training)
        reporter.on_compiled(programs.seconds)
        if checkpoint:
            state = fill(join_state(**checkpoint[1]), plan.lanes, mesh)
        else:
            state = engine.initial_state(plan, programs)
        with (
            recorded_signals() as received,
            reporter.live,
            contextlib.closing(Checkpoints(directory.checkpoints, keep)) as checkpoints,
            contextlib.closing(Checkpoints(directory.best, keep=1)) as best,
        ):
            saved = time.monotonic()
            last = history[-1] if history else None
            after = steps if checkpoint else 0
            kept = best.steps()
            saved_best = [evaluated for evaluated in history if evaluated.steps in kept]
            for state, progress in engine.run_chunks(plan, programs, state, last):  # noqa: B020
                progress = measures.add(progress, state)  # noqa: PLW2901
                if first:
                    metric_rows.append(directory.metrics, progress, after)
                after = progress.steps
                history.append(_copied(progress))
                if is_best(progress, saved_best):
                    best.save(progress.steps, plan.lanes, policy=policy_state(state))
                    saved_best = history[-1:]
                logs.write(progress, state)
                try:
                    reporter.on_chunk(progress)
                except BrokenPipeError:  # the reader of the output has closed it
                    received.append(signal.SIGPIPE)
                due = time.monotonic() - saved >= 60 * checkpoint_minutes
                due, stop = processes.any_of(due, bool(received))
                if due or stop or progress.steps == plan.total:
                    if first:
                        metric_rows.sync(directory.metrics)
                    best.wait()  # so that no checkpoint is ahead of the best policy
                    checkpoints.save(progress.steps, plan.lanes, **split_state(state))
                    saved = time.monotonic()
                if stop:
                    checkpoints.wait()
                    # without one here, another process received it
                    number = received[-1] if received else signal.SIGTERM
                    trained = progress.steps == plan.total
                    raise StoppedError(directory.path, progress.steps, number, trained)
        if note := plans.endless_note(plan.config, history):
            reporter.warning(note)
        with stopping_at_once(directory.path, plan.total):
            evaluation = _evaluate(directory, plan, state, programs, reporter)
            state = trim(state, plan.lanes, mesh)
            result = Result(state, history, evaluation, programs.seconds, history[-1].seconds)
            processes.on_first(
                lambda: _write_results(directory, plan, result, mesh, reporter, rollout)
            )
        summary = directory.read_summary()
        return Run(directory.path, plan, plan.total, state, directory.columns(), summary)


def is_best(progress: Progress, saved: Sequence[Progress]) -> bool:
    """Whether the IQM of greedy returns exceeds that of the policies that are saved as the best.

    All are over the seeds that have not diverged so far.
    """
    if "greedy_return" not in progress.evaluation:
        return False

    def score(evaluated: Progress) -> float:
        return float(iqm(evaluated.evaluation["greedy_return"][~progress.failed]))

    scores = [score(evaluated) for evaluated in saved if evaluated.evaluation]
    latest = score(progress)
    return math.isfinite(latest) and all(not math.isfinite(x) or latest > x for x in scores)


def _copied(progress: Progress) -> Progress:
    """The progress in arrays of its own: views would keep buffers of every chunk alive."""
    return jax.tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, progress)


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
        fewer = f"with fewer --episodes than {plan.episodes:,}"
        advice = f"run purejaxrl-sac eval {directory.path} {fewer}"
        if plan.variants:  # which `eval` refuses
            advice = f"where more memory is free, move {directory.summary} away and resume"
        reporter.warning(f"the final evaluation failed ({reason(error)}): {advice}")
        return None


def _import_pictures() -> None:
    """Imports what takes a second and is needed only after the first chunk."""
    import scipy.stats  # noqa: F401

    import purejaxrl_sac.experiment.pictures.run_figures  # noqa: F401


def _compile_episode(plan: Plan) -> Rollout | None:
    """As `run_figures.compile_episode`, for a run that has pictures."""
    from purejaxrl_sac.experiment.pictures import run_figures

    wanted = processes.is_first() and not plan.variants
    return run_figures.compile_episode(plan.config) if wanted else None


def _write_results(
    directory: RunDirectory,
    plan: Plan,
    result: Result,
    mesh: Mesh,
    reporter: Reporter,
    rollout: Future[Rollout | None],
) -> None:
    """Writes pictures and, last, the summary, which marks the run as finished."""
    from purejaxrl_sac.experiment.pictures import run_figures

    figures = display.summary(plan.config, result)
    if not plan.variants:  # pictures aggregate over seeds of one configuration
        figures |= run_figures.write_figures(
            directory.path, plan, result, reporter.warning, reporter.message, rollout.result()
        )
    last = result.history[-1]
    failed = {str(seed): int(step) for seed, step in enumerate(last.failed_step) if step >= 0}
    greedy_returns = None
    if result.evaluation is not None:
        greedy_returns = metric_rows.to_list(
            np.where(last.failed, np.nan, result.evaluation.mean(1))
        )
    document = {
        "figures": figures,
        "steps": last.steps,
        "failed_step": failed,
        "greedy_returns": greedy_returns,
        "device": device_name(mesh),
    }
    directory.write_summary(document)
    reporter.on_finished(plans.title(plan.config), document, directory.path)
