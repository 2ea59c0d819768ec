"""What a person sees of a run: progress while it trains, and a table at its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from purejaxrl_sac.config import Config
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm


def with_interval(scores: np.ndarray, resamples: int = 2_000) -> str:
    """'IQM [low, high]' of the scores that are known, with a 95 % bootstrap interval."""
    known = scores[np.isfinite(scores)]
    if len(known) == 0:
        return "no episode ended yet"
    if len(known) == 1:
        return f"{known[0]:.4g}"
    low, high = bootstrap_interval(known, resamples=resamples)
    return f"{iqm(known):.4g} [{low:.4g}, {high:.4g}]"


class Reporter:
    """Who hears of a run as it goes on; this one keeps quiet."""

    live: contextlib.AbstractContextManager = contextlib.nullcontext()  # entered while it trains

    def say(self, text: str) -> None:
        """A remark, such as a checkpoint that was passed over."""

    def on_begin(self, plan: plans.Plan, title: str, device: str) -> None:
        """What is about to be compiled."""

    def on_compiled(self, seconds: float) -> None:
        """Compilation has ended."""

    def on_chunk(self, progress: plans.Progress) -> None:
        """A chunk has ended."""

    def on_finished(self, title: str, figures: dict[str, str], path: Path) -> None:
        """Everything is written; the figures are those of `summary.json`."""


class Lines(Reporter):
    """One JSON object per line, for programs."""

    def __init__(self, write: Callable[[str], object] = print) -> None:
        self.write = write

    def tell(self, event: str, **figures: Any) -> None:
        self.write(json.dumps({"event": event, **figures}))

    def say(self, text: str) -> None:
        self.tell("remark", text=text)

    def on_compiled(self, seconds: float) -> None:
        self.tell("compiled", seconds=round(seconds, 3))

    def on_chunk(self, progress: plans.Progress) -> None:
        self.tell(
            "chunk",
            steps=progress.steps,
            total_steps=progress.total_steps,
            steps_per_second=round(progress.rate),
            seconds_left=round(seconds_left(progress)),
            **means(progress),
            failed_seeds=np.flatnonzero(progress.failed).tolist(),
        )

    def on_finished(self, title: str, figures: dict[str, str], path: Path) -> None:
        self.tell("finished", run=str(path), figures=figures)


class Display(Reporter):
    """A progress bar on a terminal, a line every tenth of the run elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told, self.warned, self.failed, self.greedy = 0.0, False, 0, ""
        self.bar = Progress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.live, self.task = self.bar, self.bar.add_task("starting")

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def on_begin(self, plan: plans.Plan, title: str, device: str) -> None:
        self.config = plan.config
        steps = f"{plan.total:,} environment steps"
        self.say(f"[bold]{title}[/], {plan.lanes} x {steps}, on {device}; compiling ...")

    def on_compiled(self, seconds: float) -> None:
        self.say(f"compiled in {seconds:.1f} s")

    def on_chunk(self, progress: plans.Progress) -> None:
        if not self.warned and (warning := outside_support(self.config, progress)):
            self.warned = True
            self.say(f"[yellow]step {progress.steps:,}: {warning}[/]")
        if progress.failed.sum() > self.failed:
            self.failed = progress.failed.sum()
            self.say(f"[red]nan or infinite: {failures(progress)}[/]")
        if "greedy_return" in progress.evaluation:
            greedy = with_interval(progress.evaluation["greedy_return"], resamples=500)
            self.greedy = f", greedy {greedy}"
        share = progress.steps / progress.total_steps
        due = share >= self.told + 0.1 or share == 1
        if not (self.console.is_terminal or due):
            return
        self.told = share
        line = f"{progress.rate:,.0f} environment steps/s, {seconds_left(progress):.0f} s left,"
        line += f" return {with_interval(progress.latest_return, resamples=500)}"
        line += self.greedy
        losses = {name: x for name, x in means(progress).items() if name.endswith("loss")}
        line += "".join(f", {name.replace('_', ' ')} {x:.3g}" for name, x in losses.items())
        if self.console.is_terminal:
            self.bar.update(
                self.task, completed=progress.steps, total=progress.total_steps, description=line
            )
        else:
            self.say(f"{share:4.0%}  step {progress.steps:,}  {line}")

    def on_finished(self, title: str, figures: dict[str, str], path: Path) -> None:
        self.console.print(table(title, {**figures, "written to": str(path)}))


class Quiet(Display):
    """The final table only."""

    def say(self, text: str) -> None:
        pass

    def on_begin(self, plan: plans.Plan, title: str, device: str) -> None:
        pass

    def on_chunk(self, progress: plans.Progress) -> None:
        pass


def seconds_left(progress: plans.Progress) -> float:
    """What is left of a run at the rate it has had."""
    return (progress.total_steps - progress.steps) * len(progress.failed) / progress.rate


def means(progress: plans.Progress) -> dict[str, float]:
    """Every figure's mean over the seeds where it is known."""
    figures = {"episode_return": progress.episode_return, **progress.metrics, **progress.evaluation}
    known = {name: values[np.isfinite(values)] for name, values in figures.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}


def failures(progress: plans.Progress) -> str:
    """'seed 3 at step 1,200, ...': where metrics were first nan or infinite."""
    found = np.flatnonzero(progress.failed)
    return ", ".join(f"seed {seed} at step {progress.failed_step[seed]:,}" for seed in found)


def outside_support(config: Config, progress: plans.Progress) -> str:
    """A warning where a categorical agent expects returns that its atoms cannot hold, else ''."""
    known = ~progress.failed
    if "target_min" not in progress.metrics or not known.any():
        return ""
    low = progress.metrics["target_min"][known].min()
    high = progress.metrics["target_max"][known].max()
    if config.v_min <= low and high <= config.v_max:
        return ""
    return (
        f"returns of {low:.4g} to {high:.4g}, and perhaps beyond, are expected, outside v_min .."
        f" v_max = {config.v_min:g} .. {config.v_max:g}: widen it; rewards up to r stay within"
        " r / (1 - gamma)"
    )


def summary(config: Config, result: plans.Result) -> dict[str, str]:
    """The figures of a finished run, in words; seeds that diverged are named and left out."""
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
    rows["training return, IQM [95 % interval]"] = with_interval(last.latest_return[~failed])
    if result.evaluation is not None:
        scores = result.evaluation.mean(1)[~failed]
        rows["greedy return, IQM [95 % interval]"] = with_interval(scores)
        rows["greedy return, worst and best seed"] = f"{scores.min():.4g}, {scores.max():.4g}"
    return rows


def table(title: str, rows: dict[str, str]) -> Table:
    """Rows of a name and a value."""
    out = Table(title=title, show_header=False)
    for name, value in rows.items():
        out.add_row(name, value)
    return out
