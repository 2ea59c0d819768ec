"""Output for the user: progress during training, and a table at the end."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from purejaxrl_sac.config import Config
from purejaxrl_sac.experiment.errors import RunWarning, one_line
from purejaxrl_sac.experiment.runs.plans import Plan, Progress, Result
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm

LINE_SECONDS = 60  # between lines of progress where there is no terminal


def with_interval(scores: np.ndarray) -> str:
    """'IQM [low, high]' of the finite scores, with a 95 % bootstrap interval.

    Equal scores have equal texts, during training and after it. Intervals of many scores have fewer
    resamples, so that a line of progress takes milliseconds.
    """
    known = scores[np.isfinite(scores)]
    if len(known) == 0:
        return "no finished episode yet"
    if len(known) == 1:
        return f"{known[0]:.4g}"
    low, high = bootstrap_interval(known, resamples=resamples(known))
    return f"{iqm(known):.4g} [{low:.4g}, {high:.4g}]"


def resamples(scores: np.ndarray) -> int:
    """Resamples of the intervals that are shown."""
    return 2_000 if len(scores) <= 512 else 500


class Reporter:
    """Receives the events of a run; this base class ignores them."""

    live: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    """Entered during training."""

    def message(self, text: str) -> None:
        """A message for the user, such as the step from which a run is resumed."""

    def warning(self, text: str) -> None:
        """A message about damage or about numbers that may differ; a message by default."""
        self.message(text)

    def on_start(self, plan: Plan, title: str, device: str) -> None:
        """Called before compilation."""

    def on_compiled(self, seconds: float) -> None:
        """Called after compilation, with the time it took."""

    def on_chunk(self, progress: Progress) -> None:
        """Called after each chunk."""

    def on_finished(self, title: str, summary: Mapping[str, Any], path: Path) -> None:
        """Called once everything is written, with the contents of `summary.json`."""


class SilentReporter(Reporter):
    """Shows no progress; its warnings are Python's."""

    def warning(self, text: str) -> None:
        warnings.warn(RunWarning(text), stacklevel=2)


class JsonReporter(Reporter):
    """Prints one JSON object per line, for programs."""

    def __init__(self, write: Callable[[str], object] = print) -> None:
        self.write = write
        self.seconds_left = SecondsLeft()

    def _write_event(self, event: str, **fields: Any) -> None:
        self.write(json.dumps({"event": event, **fields}))

    def message(self, text: str) -> None:
        self._write_event("remark", text=text)

    def on_compiled(self, seconds: float) -> None:
        self._write_event("compiled", seconds=round(seconds, 3))

    def on_chunk(self, progress: Progress) -> None:
        self._write_event(
            "chunk",
            steps=progress.steps,
            total_steps=progress.total_steps,
            steps_per_second=round(progress.rate),
            seconds_left=round(self.seconds_left(progress)),
            **means(progress),
            failed_seeds=np.flatnonzero(progress.failed).tolist(),
        )

    def on_finished(self, title: str, summary: Mapping[str, Any], path: Path) -> None:
        returns = summary.get("greedy_returns") or []
        scores = np.array([x for x in returns if x is not None])
        found: dict[str, Any] = {}
        if len(scores):
            found["greedy_return_iqm"] = round(float(iqm(scores)), 6)
        if len(scores) > 1:
            interval = bootstrap_interval(scores, resamples=resamples(scores))
            found["greedy_return_interval"] = [round(float(x), 6) for x in interval]
        self._write_event("finished", run=str(path), **found, **summary)


class ConsoleReporter(Reporter):
    """Shows a progress bar on a terminal; elsewhere, prints a line per tenth of the run, and after
    each chunk that ends `LINE_SECONDS` or more after the previous line."""

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, *, note: str = ""
    ) -> None:
        self.console = console
        self.clock = clock
        self.note = note  # printed below the title
        self.seconds_left = SecondsLeft()
        self.printed = 0.0  # fraction of the run at the last printed line
        self.printed_at = clock()
        self.warned = False  # of returns outside a categorical agent's support
        self.pooled = ""  # what returns are of, in a sweep
        self.failed = 0  # number of diverged seeds reported so far
        self.greedy = np.empty(0)  # the latest greedy returns
        self.bar = ProgressBar(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.live, self.task = self.bar, self.bar.add_task("starting")

    def _print(self, text: str, style: str = "") -> None:
        try:
            self.console.print(Text(one_line(text), style), soft_wrap=True)
        except SystemExit:  # of rich, where the reader of the output has closed it
            raise BrokenPipeError from None

    def message(self, text: str) -> None:
        self._print(text)

    def warning(self, text: str) -> None:
        self._print(text, "yellow")

    def on_start(self, plan: Plan, title: str, device: str) -> None:
        self.config = plan.config
        self.pooled = " of all points" if plan.variants else ""
        steps = f"{plan.total:,} environment steps"
        self._print(f"{title}, {plan.lanes} x {steps}, on {device}", "bold")
        if self.note:
            self.message(self.note)
        self.message("compiling (up to a minute; faster the next time) ...")

    def on_compiled(self, seconds: float) -> None:
        self.message(f"compiled in {seconds:.1f} s")
        self.printed_at = self.clock()

    def on_chunk(self, progress: Progress) -> None:
        if not self.warned and (warning := outside_support(self.config, progress)):
            self.warned = True
            self.warning(f"step {progress.steps:,}: {warning}")
        if progress.failed.sum() > self.failed:
            self.failed = progress.failed.sum()
            self._print(f"nan or infinite: {failures(progress)}", "red")
        if "greedy_return" in progress.evaluation:
            self.greedy = progress.evaluation["greedy_return"][~progress.failed]
        done, left = progress.steps / progress.total_steps, self.seconds_left(progress)
        now = self.clock()
        due = done >= self.printed + 0.1 or done == 1 or now >= self.printed_at + LINE_SECONDS
        if not (self.console.is_terminal or due):
            return
        self.printed, self.printed_at = done, now
        line = f"{progress.rate:,.0f} environment steps/s, {left:.0f} s left,"
        latest = progress.latest_return[~progress.failed]
        line += f" return{self.pooled}" if np.isfinite(latest).any() else ""
        line += f" {with_interval(latest)}"
        if len(self.greedy):
            line += f", greedy {with_interval(self.greedy)}"
        losses = {name: x for name, x in means(progress).items() if name.endswith("loss")}
        line += "".join(f", {name.replace('_', ' ')} {x:.3g}" for name, x in losses.items())
        if self.console.is_terminal:
            self.bar.update(
                self.task, completed=progress.steps, total=progress.total_steps, description=line
            )
        else:
            self.message(f"{done:4.0%}  step {progress.steps:,}  {line}")

    def on_finished(self, title: str, summary: Mapping[str, Any], path: Path) -> None:
        print_results(self.console, title, summary["figures"], path)


def default_reporter(progress: bool | None = None) -> Reporter:
    """A `ConsoleReporter`, or a `SilentReporter`.

    Args:
        progress: which of them; None for output on a terminal and in a notebook.
    """
    if progress is None:
        is_terminal = getattr(sys.stdout, "isatty", bool)  # stdout may be None, or one's own
        progress = is_terminal() or "ipykernel" in sys.modules
    return ConsoleReporter(Console()) if progress else SilentReporter()


class SummaryReporter(ConsoleReporter):
    """Prints warnings and the final table only."""

    def message(self, text: str) -> None:
        pass

    def on_start(self, plan: Plan, title: str, device: str) -> None:
        pass

    def on_chunk(self, progress: Progress) -> None:
        pass


class SecondsLeft:
    """Estimates the remaining seconds of a run, after each of its chunks.

    The rate is that since the first chunk of this process, because a run may be resumed on another
    machine; after that chunk, the mean rate so far.
    """

    def __init__(self) -> None:
        self.first: Progress | None = None

    def __call__(self, progress: Progress) -> float:
        left = progress.total_steps - progress.steps
        if self.first is None or progress.steps <= self.first.steps:  # of another run
            self.first = progress
            return left * len(progress.failed) / progress.rate
        return left * (progress.seconds - self.first.seconds) / (progress.steps - self.first.steps)


def means(progress: Progress) -> dict[str, float]:
    """The mean of each metric over seeds that have not diverged; metrics without one are left out.

    Of the remaining seeds, those without a finite value, such as a finished episode, do not count.
    """
    metrics = {"episode_return": progress.episode_return, **progress.metrics, **progress.evaluation}
    counted = {name: values[~progress.failed] for name, values in metrics.items()}
    known = {name: values[np.isfinite(values)] for name, values in counted.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}


def failures(progress: Progress) -> str:
    """'seed 3 at step 1,200, ...': the seeds with nan or infinite metrics, and their first step."""
    seeds = np.flatnonzero(progress.failed)
    return ", ".join(f"seed {seed} at step {progress.failed_step[seed]:,}" for seed in seeds)


def outside_support(config: Config, progress: Progress) -> str:
    """A warning if a categorical agent's targets exceed the support of its atoms, else ''."""
    finite = ~progress.failed
    if "target_min" not in progress.metrics or not finite.any():
        return ""
    low = progress.metrics["target_min"][finite].min()
    high = progress.metrics["target_max"][finite].max()
    v_min, v_max = (getattr(config, name) for name in ("v_min", "v_max"))
    if v_min <= low and high <= v_max:
        return ""
    return (
        f"returns of {low:.4g} to {high:.4g}, and possibly beyond, are estimated, outside v_min .."
        f" v_max = {v_min:g} .. {v_max:g}: widen it; rewards up to r give returns up to"
        " r / (1 - gamma)"
    )


def summary(config: Config, result: Result) -> dict[str, str]:
    """The figures of a finished run, as text; diverged seeds are named and left out of returns."""
    last = result.history[-1]
    failed = last.failed
    rows = {
        "environment steps per seed": f"{last.steps:,}",
        "seeds": f"{len(failed)}",
        "compilation": f"{result.compile_seconds:.1f} s",
        "training": f"{result.train_seconds:.1f} s",
        "environment steps per second": f"{last.rate:,.0f}",
    }
    if warning := outside_support(config, last):
        rows["warning"] = warning
    if failed.any():
        rows["nan or infinite, left out of the returns below"] = failures(last)
    if failed.all():
        return rows
    rows["latest training return, IQM [95 % interval]"] = with_interval(last.latest_return[~failed])
    if result.evaluation is not None:
        scores = result.evaluation.mean(1)
        rows |= not_finite(scores, failed)
        scores = scores[~failed & np.isfinite(scores)]
    if result.evaluation is not None and len(scores):
        rows["greedy return, IQM [95 % interval]"] = with_interval(scores)
        rows["greedy return, worst and best seed"] = f"{scores.min():.4g}, {scores.max():.4g}"
    return rows


def not_finite(scores: np.ndarray, failed: np.ndarray) -> dict[str, str]:
    """The seeds that have not diverged and yet a nan or infinite return, as a row; or none."""
    seeds = np.flatnonzero(~np.isfinite(scores) & ~failed)
    name = "nan or infinite return, left out of those below"
    return {name: f"seed {', '.join(map(str, seeds))}"} if len(seeds) else {}


def print_results(console: Console, title: str, figures: dict[str, str], path: Path) -> None:
    """Print a table of results, and below it their path in one line, so that it can be copied."""
    console.print(table(title, figures))
    console.print(Text(one_line(f"written to {path}")), soft_wrap=True)


def table(title: str, rows: dict[str, str]) -> Table:
    """A table of names and values."""
    out = Table(title=Text(one_line(title)), show_header=False)
    out.add_column()
    out.add_column(overflow="fold")  # paths are shown whole
    for name, value in rows.items():
        out.add_row(Text(one_line(name)), Text(one_line(value)))
    return out
