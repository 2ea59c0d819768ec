"""The command line: `purejaxrl-sac train ALGORITHM [flags]` and `purejaxrl-sac list`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import sys
import time
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

import purejaxrl_sac
from purejaxrl_sac.agents import ALGORITHMS, name_of
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.normalize import WRAPPERS
from purejaxrl_sac.presets import PRESETS, preset

USAGE = f"""\
purejaxrl-sac: reinforcement learning as one compiled scan

  purejaxrl-sac train ALGORITHM [--env NAME] [flags]   train, show progress, leave a run directory
  purejaxrl-sac train ALGORITHM --help                 every flag of an algorithm
  purejaxrl-sac list                                   algorithms, environments and presets
  purejaxrl-sac --version

for example
  purejaxrl-sac train sac --env Pendulum-v1 --seeds 8
  purejaxrl-sac train double_dqn --env CartPole-v1 --steps 50000 --tau 0.01 --out runs/demo

algorithms: {", ".join(ALGORITHMS)}"""


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
    episodes: int = 512
    """Greedy evaluation episodes per seed at the end."""
    no_cache: bool = False
    """Compile anew, instead of keeping compiled programs between calls."""
    quiet: bool = False
    """Print the final summary only."""
    normalize: tuple[Literal["observations", "rewards"], ...] = ()
    """What is divided by its running standard deviation; observations lose their mean as well."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Further loggers, beside metrics.jsonl."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (2 for bad input)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        match arguments:
            case [] | ["-h" | "--help" | "help"] | ["train"] | ["train", "-h" | "--help"]:
                print(USAGE)
            case ["--version"]:
                print(purejaxrl_sac.__version__)
            case ["list"]:
                list_all(Console())
            case ["train", algorithm, *flags]:
                train(parse(algorithm, flags))
            case ["list", *rest]:
                raise ConfigError(f"list takes no arguments, but was given {' '.join(rest)}")
            case [command, *_]:
                raise ConfigError(f"no command is called {command}: use train or list")
    except ConfigError as error:
        print(f"purejaxrl-sac: {error}", file=sys.stderr)
        return 2
    return 0


def parse(algorithm: str, flags: list[str]) -> TrainOptions:
    """The flags of `train`, over the preset that the algorithm and `--env` choose.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong kind.
    """
    split = (flag.split("=", 1) if flag.startswith("--") else [flag] for flag in flags)
    flags = ["--total-steps" if part == "--steps" else part for parts in split for part in parts]
    named = [value for flag, value in itertools.pairwise(flags) if flag == "--env"]
    config = preset(algorithm, named[-1] if named else None)
    options = dataclasses.make_dataclass(
        "TrainOptions",
        [("config", tyro.conf.OmitArgPrefixes[type(config)])],
        bases=(TrainOptions,),
        namespace={"__doc__": TrainOptions.__doc__},
    )
    names = tuple(name for name, wrap in WRAPPERS.items() if wrap in config.wrappers)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            chosen = tyro.cli(
                options,
                prog=f"purejaxrl-sac train {algorithm}",
                args=flags,
                default=options(config=config, normalize=names),
                config=(tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        lines = (line.strip("╭╮╰╯│─ ") for line in complaint.getvalue().splitlines())
        words = [line for line in lines if line and not line.startswith("For full helptext")]
        hint = f"see purejaxrl-sac train {algorithm} --help"
        raise ConfigError(f"{'; '.join(words[1:])} ({hint})") from None
    wrappers = tuple(WRAPPERS[name] for name in chosen.normalize)
    return dataclasses.replace(chosen, config=chosen.config.replace(wrappers=wrappers))


def train(options: TrainOptions) -> None:
    """Trains, shows progress, and leaves everything in the run directory."""
    import jax

    from purejaxrl_sac.experiment import display, exact, runner
    from purejaxrl_sac.experiment.loggers import LOGGERS

    config = options.config
    if options.seeds < 1 or options.episodes < 1:
        raise ConfigError("seeds and episodes must be at least 1")
    key = runner.key_from_seed(options.seed)
    mdp = exact.finite_mdp(config)
    if not options.no_cache:
        use_compilation_cache()
    algorithm = name_of(config)
    title = f"{algorithm} on {config.env}"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = Path("runs") / f"{algorithm}-{config.env}-{stamp}"
    directory = runner.RunDirectory(options.out or default)
    shown = display.Display(Console(), config, options.seeds, options.quiet)
    try:
        directory.write_config(config, options.seeds, options.seed)
        logs = [directory.write_chunk, *(LOGGERS[name](directory.path) for name in options.log)]

        def on_chunk(progress: runner.Progress) -> None:
            for log in (*logs, shown.on_chunk):
                log(progress)

        steps, device = f"{config.total_steps:,} environment steps", jax.devices()[0].device_kind
        shown.say(f"[bold]{title}[/], {options.seeds} x {steps}, on {device}; compiling ...")
        with shown.bar:
            result = runner.train_seeds(
                key,
                config,
                options.seeds,
                episodes=options.episodes,
                on_compiled=shown.on_compiled,
                on_chunk=on_chunk,
            )
    finally:
        directory.remove_if_unused()
    rows = display.summary(config, result)
    try:
        if mdp is not None:
            rows |= exact.report(config, result.state, mdp, title, directory.path)
    finally:  # whatever cannot be drawn, the run is kept
        directory.write_result(result, rows, title)
    rows["written to"] = str(directory.path)
    shown.console.print(display.table(title, rows))


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
