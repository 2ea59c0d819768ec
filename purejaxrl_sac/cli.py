"""The command line: `purejaxrl-sac train ALGORITHM [flags]` and `purejaxrl-sac list`."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.presets import PRESETS, preset

USAGE = """\
purejaxrl-sac: reinforcement learning as one compiled scan

  purejaxrl-sac train ALGORITHM [--env NAME] [flags]   train, show progress, leave a run directory
  purejaxrl-sac train ALGORITHM --help                 every flag of an algorithm
  purejaxrl-sac list                                   algorithms, environments and presets

for example
  purejaxrl-sac train sac --env Pendulum-v1 --seeds 8
  purejaxrl-sac train double_dqn --env CartPole-v1 --steps 50000 --tau 0.01 --out runs/demo
"""


@dataclasses.dataclass
class TrainOptions:
    """Train an algorithm on an environment, several seeds side by side.

    Defaults are those of the preset for the algorithm and environment.
    """

    config: tyro.conf.OmitArgPrefixes[Config]
    seeds: int = 1
    """Independent seeds, trained side by side in one program."""
    seed: int = 0
    """Root key from which every seed's key is split."""
    out: Path | None = None
    """Run directory, which must not exist yet; runs/ALGORITHM-ENV-TIME if not given."""
    episodes: int = 128
    """Greedy evaluation episodes per seed at the end."""
    no_cache: bool = False
    """Compile anew, instead of keeping compiled programs between calls."""
    quiet: bool = False
    """Print the final summary only."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Further loggers, beside metrics.jsonl."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (2 for bad input)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        match arguments:
            case [] | ["-h" | "--help" | "help"] | ["train"] | ["train", "-h" | "--help"]:
                print(USAGE + "\nalgorithms: " + ", ".join(ALGORITHMS))
            case ["list"]:
                list_all(Console())
            case ["train", algorithm, *flags]:
                train(parse(algorithm, flags))
            case [command, *_]:
                raise ConfigError(f"no command is called {command}: use train or list")
    except ConfigError as error:
        print(f"purejaxrl-sac: {error}", file=sys.stderr)
        return 2
    return 0


def parse(algorithm: str, flags: list[str]) -> TrainOptions:
    """The flags of `train`, over the preset that the algorithm and `--env` choose."""
    flags = [part for flag in flags for part in (flag.split("=", 1) if "--" in flag else [flag])]
    flags = ["--total-steps" if flag == "--steps" else flag for flag in flags]
    env = flags[flags.index("--env") + 1] if "--env" in flags[:-1] else None
    default = TrainOptions(config=preset(algorithm, env))
    options = dataclasses.make_dataclass(
        "TrainOptions",
        [("config", tyro.conf.OmitArgPrefixes[type(default.config)])],
        bases=(TrainOptions,),
    )
    options.__doc__ = TrainOptions.__doc__
    return tyro.cli(
        options,
        prog=f"purejaxrl-sac train {algorithm}",
        args=flags,
        default=options(**{f.name: getattr(default, f.name) for f in dataclasses.fields(default)}),
        config=(tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff),
    )


def train(options: TrainOptions) -> None:
    """Trains, shows progress, and leaves everything in the run directory."""
    import jax

    from purejaxrl_sac.agents import name_of
    from purejaxrl_sac.experiment import runner
    from purejaxrl_sac.experiment.loggers import LOGGERS
    from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm

    config, console = options.config, Console()
    if options.seeds < 1 or options.episodes < 1:
        raise ConfigError("seeds and episodes must be at least 1")
    validate(config)
    config.algorithm(config)  # an algorithm refuses an environment before anything is written
    algorithm = name_of(config)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    directory = runner.RunDirectory(
        options.out or Path("runs") / f"{algorithm}-{config.env}-{stamp}"
    )
    directory.write_config(config, options.seeds, options.seed)
    logs = [directory.write_chunk, *(LOGGERS[name](directory.path) for name in options.log)]
    if not options.no_cache:
        use_compilation_cache()

    say = (lambda *_, **__: None) if options.quiet else console.print
    say(
        f"[bold]{algorithm}[/] on [bold]{config.env}[/], {options.seeds} seeds x"
        f" {config.total_steps:,} environment steps, {jax.devices()[0].device_kind}"
    )
    say("compiling ...")
    bar = Progress(
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=options.quiet or not console.is_terminal,
    )
    task = bar.add_task("starting", total=config.total_steps)
    told = 0.0

    def on_compiled(seconds: float) -> None:
        say(f"compiled in {seconds:.1f} s")

    def on_chunk(progress: runner.Progress) -> None:
        nonlocal told
        for log in logs:
            log(progress)
        share = progress.steps / progress.total_steps
        left = (progress.total_steps - progress.steps) * options.seeds / progress.rate
        line = f"{progress.rate:,.0f} environment steps/s, {left:.0f} s left, return "
        line += interval(progress.latest_return)
        bar.update(task, completed=progress.steps, total=progress.total_steps, description=line)
        if not console.is_terminal and (share >= told + 0.1 or share == 1):
            told = share
            say(f"{share:4.0%}  step {progress.steps:,}  {line}", soft_wrap=True)

    def interval(scores: np.ndarray) -> str:
        known = scores[np.isfinite(scores)]
        if len(known) == 0:
            return "no episode ended yet"
        if len(known) == 1:
            return f"{known[0]:.1f}"
        low, high = bootstrap_interval(known)
        return f"{iqm(known):.1f} [{low:.1f}, {high:.1f}]"

    with bar:
        result = runner.train_seeds(
            runner.key_from_seed(options.seed),
            config,
            options.seeds,
            episodes=options.episodes,
            on_compiled=on_compiled,
            on_chunk=on_chunk,
        )
    last = result.history[-1]
    table = Table(title=f"{algorithm} on {config.env}", show_header=False)
    rows = {
        "environment steps per seed": f"{last.steps:,}",
        "seeds": f"{options.seeds}",
        "compilation": f"{result.compile_seconds:.1f} s",
        "training": f"{result.train_seconds:.1f} s",
        "environment steps per second": f"{last.rate:,.0f}",
        "training return, IQM [95 % interval]": interval(last.latest_return),
    }
    summary = {**rows, "failed_seeds": [i for i, bad in enumerate(last.failed) if bad]}
    if result.evaluation is not None:
        scores = result.evaluation.mean(1)[~last.failed]
        if len(scores):
            rows[f"greedy return, IQM [95 % interval], {options.episodes} episodes"] = interval(
                scores
            )
            rows["greedy return, worst and best seed"] = f"{scores.min():.1f}, {scores.max():.1f}"
        summary["greedy_returns"] = [float(score) for score in result.evaluation.mean(1)]
    if last.failed.any():
        rows["seeds with nan or infinite losses (left out above)"] = str(summary["failed_seeds"])
    rows["written to"] = str(directory.path)
    directory.write_result(result, {**rows, **summary}, f"{algorithm} on {config.env}")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache directory, unless JAX is told another."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "purejaxrl_sac" / "xla"))


def list_all(console: Console) -> None:
    """Prints algorithms, presets and environments."""
    from purejaxrl_sac import envs

    algorithms = Table(title="algorithms")
    for column in ("name", "what", "presets"):
        algorithms.add_column(column)
    for name, (_, _, what) in ALGORITHMS.items():
        tuned = ", ".join(env for algorithm, env in PRESETS if algorithm == name)
        algorithms.add_row(name, what, tuned)
    console.print(algorithms)
    console.print("environments: " + ", ".join(envs.names()))


if __name__ == "__main__":
    sys.exit(main())
