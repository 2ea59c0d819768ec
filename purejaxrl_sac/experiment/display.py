"""What a person sees of a run: progress while it trains, and a table at its end."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from purejaxrl_sac.config import Config
from purejaxrl_sac.experiment import runner
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


class Display:
    """A progress bar on a terminal, a line every tenth of the run elsewhere, or nothing."""

    def __init__(self, console: Console, config: Config, seeds: int, quiet: bool) -> None:
        self.console, self.config, self.seeds, self.quiet = console, config, seeds, quiet
        self.told, self.warned = 0.0, False
        self.bar = Progress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.task = self.bar.add_task("starting")

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, soft_wrap=True)

    def on_compiled(self, seconds: float) -> None:
        self.say(f"compiled in {seconds:.1f} s")

    def on_chunk(self, progress: runner.Progress) -> None:
        if not self.warned and (warning := outside_support(self.config, progress)):
            self.warned = True
            self.say(f"[yellow]step {progress.steps:,}: {warning}[/]")
        share = progress.steps / progress.total_steps
        due = share >= self.told + 0.1 or share == 1
        if self.quiet or not (self.console.is_terminal or due):
            return
        self.told = share
        left = (progress.total_steps - progress.steps) * self.seeds / progress.rate
        line = f"{progress.rate:,.0f} environment steps/s, {left:.0f} s left, return "
        line += with_interval(progress.latest_return, resamples=500)
        if self.console.is_terminal:
            self.bar.update(
                self.task, completed=progress.steps, total=progress.total_steps, description=line
            )
        else:
            self.say(f"{share:4.0%}  step {progress.steps:,}  {line}")


def outside_support(config: Config, progress: runner.Progress) -> str:
    """A warning where a categorical agent expects returns that its atoms cannot hold, else ''."""
    known = ~progress.failed
    if "target_min" not in progress.metrics or not known.any():
        return ""
    low = progress.metrics["target_min"][known].min()
    high = progress.metrics["target_max"][known].max()
    if config.v_min <= low and high <= config.v_max:
        return ""
    return (
        f"returns of {low:.4g} to {high:.4g} are expected, outside v_min .. v_max ="
        f" {config.v_min:g} .. {config.v_max:g}: widen it"
    )


def summary(config: Config, result: runner.Result) -> dict[str, str]:
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
        seeds = ", ".join(str(seed) for seed in np.flatnonzero(failed))
        rows["seeds with nan or infinite losses, left out"] = seeds
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
