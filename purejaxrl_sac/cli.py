"""The command line: `purejaxrl-sac COMMAND`; without one it says which there are."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

import purejaxrl_sac
from purejaxrl_sac.agents import ALGORITHMS, name_of
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.errors import RunError, StoppedError
from purejaxrl_sac.normalize import WRAPPERS
from purejaxrl_sac.presets import PRESETS, preset

if TYPE_CHECKING:
    from purejaxrl_sac.experiment.runs.display import Reporter
    from purejaxrl_sac.experiment.tuning.sweep import Sweep, SweepResult

USAGE = f"""\
purejaxrl-sac: reinforcement learning as one compiled scan

  purejaxrl-sac train ALGORITHM [--env NAME] [flags]   train, show progress, leave a run directory
  purejaxrl-sac sweep ALGORITHM --grid FIELD=A,B ...   train points of hyperparameters, as lanes
  purejaxrl-sac resume RUN [--steps N]                 go on with a run, or make it longer
  purejaxrl-sac eval RUN [--episodes N]                what its policies earn in fresh episodes
  purejaxrl-sac plot RUN [RUN ...]                     compare runs in a picture
  purejaxrl-sac render RUN [--out FILE.gif]            an episode as a GIF or MP4
  purejaxrl-sac export RUN [--out DIRECTORY]           the policy as a file that needs only JAX
  purejaxrl-sac info RUN                               what a run is and how far it got
  purejaxrl-sac list                                   algorithms, environments and presets
  purejaxrl-sac COMMAND --help                         every flag of a command
  purejaxrl-sac --version

for example
  purejaxrl-sac train sac --env Pendulum-v1 --seeds 8 --name demo
  purejaxrl-sac eval runs/demo --episodes 1000

exit status: 0 done, 1 the disk or the machine failed, 2 bad input, 130 and 143 stopped by Ctrl-C
and SIGTERM after a checkpoint (go on with resume)

algorithms: {", ".join(ALGORITHMS)}"""

STYLE = (tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff)
RunPath = Annotated[Path, tyro.conf.Positional]


@dataclasses.dataclass(kw_only=True)
class OnDevices:
    """What computes; numbers are the same on any number of devices, but for rounding."""

    devices: int | Literal["all"] = "all"
    """Over how many devices the seeds are spread."""
    cpu_devices: int | None = None
    """Devices made of a CPU's cores: as many as there are cores, or seeds, if not given."""

    def use(self, lanes: int) -> int | None:
        """Makes devices of a CPU's cores; returns how many devices to use, None for all."""
        from purejaxrl_sac.experiment.devices import mesh

        if self.cpu_devices is not None:
            mesh.use_cpu_devices(self.cpu_devices)
        elif not mesh.is_initialized():
            mesh.use_cpu_devices(max(1, min(mesh.cores(), lanes)))
        return None if self.devices == "all" else self.devices


@dataclasses.dataclass(kw_only=True)
class Watching(OnDevices):
    """How a run is shown and kept; nothing of it changes a number of the run."""

    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train together; Slurm and TPU pods tell."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Which one this is, from 0."""
    join_timeout: int = 120
    """Seconds until all processes must be there."""
    checkpoint_minutes: float = 5.0
    """Time between checkpoints; one is always written at the end and on Ctrl-C or SIGTERM."""
    keep: int | None = None
    """How many of the newest checkpoints stay: 2, or as many as before."""
    quiet: bool = False
    """Print the final summary only."""
    json: bool = False
    """Print a JSON object per line, for programs."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Further loggers, beside metrics.jsonl."""
    no_cache: bool = False
    """Compile anew, instead of keeping compiled programs between calls."""

    def use(self, lanes: int) -> int | None:
        """Also makes one machine of several processes."""
        from purejaxrl_sac.experiment.devices import processes

        devices = super().use(-(-lanes // (self.processes or processes.expected() or 1)))
        processes.join(self.coordinator, self.processes, self.process, self.join_timeout)
        return devices

    def reporter(self) -> Reporter:
        from purejaxrl_sac.experiment.runs import display

        if self.json:
            return display.JsonReporter()
        return (display.SummaryReporter if self.quiet else display.ConsoleReporter)(Console())

    def keeping(self, lanes: int) -> dict[str, Any]:
        """Arguments of `run` and `resume`, for so many seeds."""
        from purejaxrl_sac.experiment.runs.loggers import LOGGERS

        if not self.no_cache:
            use_compilation_cache()
        return {
            "devices": self.use(lanes),
            "checkpoint_minutes": self.checkpoint_minutes,
            **({} if self.keep is None else {"keep": self.keep}),
            "loggers": [LOGGERS[name] for name in self.log],
            "reporter": self.reporter(),
        }


@dataclasses.dataclass(kw_only=True)
class Engine(Watching):
    """What trains the batches of a sweep."""

    lanes: int | None = None
    """Points x seeds trained at once; as many as fit into memory if not given."""
    engine: Literal["here", "ray"] = "here"
    """Ray spreads batches of points over a cluster whose hosts share the directory."""
    ray_address: str | None = None
    """The cluster; a running one that Ray finds, or else this machine, if not given."""
    cpus: int = 1
    """CPU cores that Ray gives each batch."""
    gpus: float = 0
    """GPUs that Ray gives each batch."""

    def use(self, lanes: int) -> int | None:
        """With Ray, this process only asks for shapes, and leaves accelerators to the workers."""
        if self.engine == "ray":
            import jax

            jax.config.update("jax_platforms", "cpu")
        return super().use(lanes)

    def engaged(self, made: Sweep) -> dict[str, Any]:
        """Further arguments for a sweep; with Ray, all of a cluster has something to do."""
        how = {"reporter": self.reporter, "most": self.lanes}
        if self.engine == "here":
            return how
        from purejaxrl_sac.experiment.devices import cluster

        asked = {"cpus": self.cpus, "gpus": self.gpus, "address": self.ray_address}
        share = made.seeds * -(-len(made.points) // cluster.slots(**asked))
        engine = functools.partial(cluster.train_on_ray, **asked)
        return {**how, "engine": engine, "most": self.lanes or share}


@dataclasses.dataclass(kw_only=True)
class TrainOptions(Watching):
    """Train an algorithm on an environment, several seeds side by side.

    Defaults are those of the preset for the algorithm and environment. For example:
    purejaxrl-sac train double_dqn --env CartPole-v1 --seeds 8 --tau 0.01 --name demo
    """

    config: tyro.conf.OmitArgPrefixes[Config]
    seeds: int = 1
    """Independent seeds, trained side by side in one program."""
    seed: int = 0
    """Root key from which every seed's key is split."""
    name: str | None = None
    """The run directory is runs/NAME, which must not exist yet; ALGORITHM-ENV-TIME if not given."""
    out: Path | None = None
    """The run directory itself, instead of a name."""
    chunks: int = 50
    """About how many times progress is looked at and written down."""
    episodes: int = 512
    """Greedy evaluation episodes per seed at the end."""
    eval_every: int = 0
    """Environment steps between evaluations during training, which choose the best checkpoint; 0
    for none."""
    eval_episodes: int = 32
    """Episodes of each of them per seed, once greedily and once exploring."""
    normalize: tuple[Literal["observations", "rewards"], ...] = ()
    """What is divided by its running standard deviation; observations lose their mean as well."""
    dry_run: bool = False
    """Compile, and say what the run would take of memory, instead of running."""


@dataclasses.dataclass(kw_only=True)
class SweepOptions(Engine):
    """Train every point of hyperparameters with every seed, as lanes of one compiled program.

    Fields that are shapes or counts cost a program for each value. For example:
    purejaxrl-sac sweep sac --env Pendulum-v1 --grid learning-rate=1e-4,1e-3 tau=0.005,0.01
    """

    config: tyro.conf.OmitArgPrefixes[Config]
    grid: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE,...: every combination is a point; layers as hidden-sizes=64x64,256x256."""
    range: tuple[str, ...] = ()
    """FIELD=LOW:HIGH, by orders of magnitude, or FIELD=LOW:HIGH:linear; sampled."""
    sample: Literal["sobol", "random"] = "sobol"
    """How ranges are sampled."""
    points: int = 32
    """Samples of the ranges; a grid beside them is combined with each."""
    seeds: int = 8
    """Seeds of every point, the same for all of them."""
    seed: int = 0
    """Root key of the seeds, and of the samples."""
    fresh_seeds: int | None = None
    """Seeds that the best point is trained with anew, which did not choose it: as many as seeds if
    not given; 0 for none."""
    name: str | None = None
    """The directory is runs/NAME, which must not exist yet; sweep-ALGORITHM-ENV-TIME otherwise."""
    out: Path | None = None
    """The directory itself, instead of a name."""
    chunks: int = 20
    """About how many times progress is looked at and written down."""
    episodes: int = 128
    """Greedy evaluation episodes of each seed at the end, whose mean is its score."""
    normalize: tuple[Literal["observations", "rewards"], ...] = ()
    """What is divided by its running standard deviation; observations lose their mean as well."""


@dataclasses.dataclass(kw_only=True)
class ResumeOptions(Engine):
    """Go on with a run or a sweep that was stopped or killed, or make a run longer.

    Without --steps, every number is as in a run that was never interrupted. For example:
    purejaxrl-sac resume runs/demo
    """

    run: RunPath
    steps: int | None = None
    """A new total of environment steps; schedules stretch over it."""
    any_version: bool = False
    """Go on under other package versions, without the promise of equal numbers."""


@dataclasses.dataclass(kw_only=True)
class EvalOptions(OnDevices):
    """Play fresh episodes with every seed's policy. For example:
    purejaxrl-sac eval runs/demo --episodes 1000
    """

    run: RunPath
    episodes: int = 1_000
    """Episodes over all seeds (at least one each)."""
    seed: int = 1
    """Decides start states and noise."""
    policy: Literal["greedy", "exploring"] = "greedy"
    """The policy to deploy, or the one that trains."""
    best: bool = False
    """Take the checkpoint that was best in an evaluation, instead of the newest."""
    json: bool = False
    """Print one JSON object, with every seed's mean."""


@dataclasses.dataclass(kw_only=True)
class PlotOptions:
    """Compare runs: learning curves, final scores, profiles, probabilities of improvement.

    For example: purejaxrl-sac plot runs/dqn runs/double_dqn --out compared.png
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    metric: str = "episode_return"
    """What the curves show: any column of metrics.jsonl."""
    out: Path | None = None
    """The picture, which must not exist yet; comparison-TIME.png if not given."""


@dataclasses.dataclass(kw_only=True)
class RenderOptions:
    """An episode of the greedy policy as a GIF or MP4. For example:
    purejaxrl-sac render runs/demo --seed-index 3 --out swing.gif
    """

    run: RunPath
    out: Path | None = None
    """A .gif or .mp4 that must not exist yet; RUN/episode-TIME.gif if not given."""
    seed_index: int = 0
    """Whose policy."""
    seed: int = 0
    """Decides the start state."""
    best: bool = False
    """Take the checkpoint that was best in an evaluation, instead of the newest."""


@dataclasses.dataclass(kw_only=True)
class ExportOptions:
    """Write one seed's policy as a program for CPU, CUDA and TPU that needs only JAX to run.

    For example: purejaxrl-sac export runs/demo --out policy && python policy/load.py
    """

    run: RunPath
    out: Path | None = None
    """A directory that must not exist yet; RUN/policy-SEED if not given."""
    seed_index: int = 0
    """Whose policy."""
    best: bool = False
    """Take the checkpoint that was best in an evaluation, instead of the newest."""


@dataclasses.dataclass(kw_only=True)
class InfoOptions:
    """What a run is and how far it got. For example: purejaxrl-sac info runs/demo"""

    run: RunPath


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status, see USAGE."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command(arguments)
    except ConfigError as error:
        print(f"purejaxrl-sac: {error}", file=sys.stderr)
        return ended(2)
    except BrokenPipeError:  # whoever read what we print is gone
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        print("purejaxrl-sac: interrupted", file=sys.stderr)
        return 130
    except RunError as error:
        print(f"purejaxrl-sac: {error}", file=sys.stderr)
        return ended(1)
    except StoppedError as error:
        how = f"go on with purejaxrl-sac resume {error.path}"
        print(f"purejaxrl-sac: {error}: {how}", file=sys.stderr)
        return 128 + error.signal
    except Exception:
        if joined():
            traceback.print_exc()
            return ended(1)
        raise
    return 0


def joined() -> bool:
    """Whether this is one of several processes."""
    processes = sys.modules.get("purejaxrl_sac.experiment.devices.processes")
    return processes is not None and processes.is_distributed()


def ended(status: int) -> int:
    """The exit status of a failure; one of several processes ends at once.

    Otherwise it would wait at its exit for processes that wait for it.
    """
    if joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def command(arguments: list[str]) -> None:
    """Runs one command.

    Raises:
        ConfigError: bad input.
    """
    match arguments:
        case [] | ["-h" | "--help" | "help"] | ["train"] | ["train", "-h" | "--help"]:
            print(USAGE)
        case ["--version"]:
            print(purejaxrl_sac.__version__)
        case ["list"]:
            list_all(Console())
        case ["list", *rest]:
            raise ConfigError(f"list takes no arguments, but was given {' '.join(rest)}")
        case ["train", algorithm, *flags]:
            train(parse_train(algorithm, flags))
        case ["sweep", algorithm, *flags] if not algorithm.startswith("-"):
            sweep(parse_train(algorithm, flags, SweepOptions, "sweep"))
        case ["sweep", *_]:
            print("usage: purejaxrl-sac sweep ALGORITHM --grid FIELD=VALUE,VALUE [flags]")
            print("every flag of an algorithm: purejaxrl-sac sweep sac --help")
        case [name, *flags] if name in COMMANDS:
            options, act = COMMANDS[name]
            act(parse(options, name, flags))
        case [name, *_]:
            known = ", ".join(["train", "sweep", *COMMANDS, "list"])
            raise ConfigError(f"no command is called {name}: use one of {known}")


def parse(options: type, name: str, flags: list[str], **more: Any) -> Any:
    """The options of a command.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong kind.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(options, prog=f"purejaxrl-sac {name}", args=flags, config=STYLE, **more)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        lines = (line.strip("╭╮╰╯│─ ") for line in complaint.getvalue().splitlines())
        words = [line for line in lines if line and not line.startswith("For full helptext")]
        hint = f"see purejaxrl-sac {name} --help"
        raise ConfigError(f"{'; '.join(words[1:])} ({hint})") from None


def parse_train(
    algorithm: str, flags: list[str], kind: type = TrainOptions, command: str = "train"
) -> Any:
    """The flags of `train` or `sweep`, over the preset that the algorithm and `--env` choose.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong kind.
    """
    split = (flag.split("=", 1) if flag.startswith("--") else [flag] for flag in flags)
    flags = ["--total-steps" if part == "--steps" else part for parts in split for part in parts]
    for flag in ("--grid", "--range"):
        if flags.count(flag) > 1:  # all but the last would be forgotten
            raise ConfigError(f"{flag} is given twice: give it once, with all fields")
    named = [value for flag, value in itertools.pairwise(flags) if flag == "--env"]
    config = preset(algorithm, named[-1] if named else None)
    options = dataclasses.make_dataclass(
        kind.__name__,
        [("config", tyro.conf.OmitArgPrefixes[type(config)])],
        kw_only=True,
        bases=(kind,),
        namespace={"__doc__": kind.__doc__},
    )
    names = tuple(name for name, wrap in WRAPPERS.items() if wrap in config.wrappers)
    chosen = parse(
        options,
        f"{command} {algorithm}",
        flags,
        default=options(config=config, normalize=names),
    )
    wrappers = tuple(WRAPPERS[name] for name in chosen.normalize)
    return dataclasses.replace(chosen, config=chosen.config.replace(wrappers=wrappers))


def train(options: TrainOptions) -> None:
    """Trains, shows progress, and leaves everything in the run directory."""
    from purejaxrl_sac.experiment.devices import mesh, resources
    from purejaxrl_sac.experiment.pictures import finished
    from purejaxrl_sac.experiment.runs import display, engine, lifecycle, plans

    planned = {
        name: getattr(options, name)
        for name in ("seed", "chunks", "episodes", "eval_every", "eval_episodes")
    }
    if options.dry_run:
        devices = options.use(options.seeds)
        plan = plans.plan(options.config, options.seeds, **planned)
        over = mesh.mesh_for(plan.lanes, devices)
        resources.check_state(plan, over)
        figures = resources.report(plan, engine.compile_run(plan, mesh=over))
        Console().print(display.table(f"{finished.title(plan.config)}, not run", figures))
        return
    keeping = options.keeping(options.seeds)
    lifecycle.run(options.config, options.seeds, out=directory_of(options), **planned, **keeping)


def directory_of(options: TrainOptions | SweepOptions, prefix: str = "") -> Path:
    """Where a run or a sweep is kept.

    Raises:
        ConfigError: it is said twice, or several processes are to make one of their own each.
    """
    if options.name is not None and options.out is not None:
        raise ConfigError("--name and --out both say where it is kept: give one of them")
    if options.out or options.name:
        return options.out or Path("runs") / options.name
    if joined():
        raise ConfigError("several processes share a directory: give --name or --out")
    env = options.config.env
    name = f"{prefix}{name_of(options.config)}-{env}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path("runs") / name


def sweep(options: SweepOptions) -> None:
    """Trains every point of a sweep, and leaves tables and pictures."""
    from purejaxrl_sac.experiment.tuning import sweep as sweeps

    planned = {
        name: getattr(options, name)
        for name in ("seeds", "seed", "chunks", "episodes", "fresh_seeds")
    }
    found = asked_points(options)
    keeping = options.keeping(len(found) * options.seeds)
    made = sweeps.plan(options.config, found, **planned)
    out, engaged = directory_of(options, "sweep-"), options.engaged(made)
    show_costs(options, made)
    show_sweep(options, sweeps.start(out, made, **{**keeping, **engaged}))


def asked_points(options: SweepOptions) -> list[dict[str, Any]]:
    """The points of `--grid` and `--range`.

    Raises:
        ConfigError: they cannot be read.
    """
    from purejaxrl_sac.experiment.tuning import points

    axes = _assignments(options.grid, "grid", "VALUE,VALUE")
    scales = _assignments(options.range, "range", "LOW:HIGH")
    if not axes and not scales:
        raise ConfigError("a sweep needs --grid FIELD=VALUE,VALUE or --range FIELD=LOW:HIGH")
    if both := axes.keys() & scales.keys():
        raise ConfigError(f"{both.pop()} is in --grid and in --range: give it once")
    if options.points < 1:
        raise ConfigError(f"points is {options.points}, but must be at least 1")
    found = points.grid(**{name: text.split(",") for name, text in axes.items()})
    if scales:
        draw = {"sobol": points.sobol, "random": points.random}[options.sample]
        cube = draw(options.points, len(scales), options.seed % 2**32)
        drawn = points.sampled(cube, **{name: _scale(name, x) for name, x in scales.items()})
        found = [point | other for point in found for other in drawn]
    return found


def show_costs(options: Watching, made: Sweep) -> None:
    """Says where hyperparameters cost programs."""
    from purejaxrl_sac.experiment.tuning import sweep as sweeps

    if (said := sweeps.costs(made)) and not (options.json or options.quiet):
        Console().print(said, soft_wrap=True)


def show_sweep(options: Watching, swept: SweepResult) -> None:
    """The table at the end of a sweep."""
    from purejaxrl_sac.experiment.devices import processes
    from purejaxrl_sac.experiment.pictures import finished
    from purejaxrl_sac.experiment.runs import display
    from purejaxrl_sac.experiment.tuning import sweep as sweeps

    figures = sweeps.figures(swept)
    if not processes.is_first():
        return
    if options.json:
        display.JsonReporter().on_finished("", figures, swept.path)
        return
    title = f"sweep of {finished.title(swept.sweep.config)}"
    Console().print(display.table(title, {**figures, "written to": str(swept.path)}))


def _assignments(words: tuple[str, ...], flag: str, value: str) -> dict[str, str]:
    """Of FIELD=VALUE ..., the fields as Python writes them."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.replace("-", "_")
        if not (name and equals and text):
            raise ConfigError(f"--{flag} takes FIELD={value}, not {word!r}")
        if name in found:
            raise ConfigError(f"{name} is twice in --{flag}: give it once, with all values")
        found[name] = text
    return found


def _scale(name: str, text: str) -> Callable[[float], float]:
    """LOW:HIGH or LOW:HIGH:linear."""
    from purejaxrl_sac.experiment.tuning import points

    wrong = f"--range takes {name}=LOW:HIGH or {name}=LOW:HIGH:linear, not {text!r}"
    match text.split(":"):
        case [low, high, "linear"]:
            scale = points.uniform
        case [low, high]:
            scale = points.log_uniform
        case _:
            raise ConfigError(wrong)
    try:
        low, high = float(low), float(high)
    except ValueError:
        raise ConfigError(wrong) from None
    return scale(low, high)


def resume(options: ResumeOptions) -> None:
    """Goes on with a run."""
    from purejaxrl_sac.experiment.runs import lifecycle
    from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of
    from purejaxrl_sac.experiment.tuning import sweep as sweeps

    if (options.run / "sweep.json").exists():
        if options.steps is not None:
            raise ConfigError("a sweep is resumed as it is: without --steps")
        made = sweeps.read(options.run)
        how = options.keeping(len(made.points) * made.seeds) | options.engaged(made)
        show_costs(options, made)
        how["any_version"] = options.any_version
        show_sweep(options, sweeps.go_on(options.run, made, **how))
        return
    if options.engine != "here" or options.lanes is not None:
        raise ConfigError("--engine and --lanes are for sweeps")
    keeping = options.keeping(lanes_of(RunDirectory.find(options.run).read_document()))
    lifecycle.resume(options.run, steps=options.steps, any_version=options.any_version, **keeping)


def evaluate(options: EvalOptions) -> None:
    """Prints what a run's policies earn."""
    from purejaxrl_sac.evaluate import exploring_policy, policy
    from purejaxrl_sac.experiment.pictures import finished
    from purejaxrl_sac.experiment.runs import display, lifecycle
    from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of

    if options.episodes < 1:
        raise ConfigError(f"episodes is {options.episodes}, but must be at least 1")
    devices = options.use(lanes_of(RunDirectory.find(options.run).read_document()))
    run = lifecycle.load(options.run, best=options.best)
    episodes = -(-options.episodes // run.plan.lanes)
    choose = {"greedy": policy, "exploring": exploring_policy}[options.policy]
    scores = run.evaluate(episodes, seed=options.seed, policy=choose, devices=devices).mean(1)
    if options.json:
        found = {"steps": run.steps, "episodes_per_seed": episodes, "returns": scores.tolist()}
        print(json.dumps({"run": str(run.path), "policy": options.policy, **found}))
        return
    rows = {
        "environment steps per seed": f"{run.steps:,}",
        "seeds x episodes": f"{run.plan.lanes} x {episodes}",
        f"{options.policy} return, IQM [95 % interval]": display.with_interval(scores),
        "worst and best seed": f"{scores.min():.4g}, {scores.max():.4g}",
    }
    Console().print(display.table(finished.title(run.config), rows))


def plot(options: PlotOptions) -> None:
    """Draws runs beside each other."""
    from purejaxrl_sac.experiment.pictures import compare

    out = options.out or Path(f"comparison-{time.strftime('%Y%m%d-%H%M%S')}.png")
    compare.compare(options.runs, options.metric, out)
    print(f"written to {out}")


def render(options: RenderOptions) -> None:
    """Draws an episode."""
    from purejaxrl_sac.experiment.pictures import finished
    from purejaxrl_sac.experiment.runs import lifecycle, plans

    run = lifecycle.load(options.run, best=options.best)
    out = options.out or run.path / f"episode-{time.strftime('%Y%m%d-%H%M%S')}.gif"
    key = plans.key_from_seed(options.seed)
    finished.episode(key, run.config, run.seed_state(options.seed_index), out)
    print(f"written to {out}")


def export(options: ExportOptions) -> None:
    """Writes a policy that runs without this package."""
    from purejaxrl_sac.experiment.export import export_policy
    from purejaxrl_sac.experiment.runs import lifecycle

    run = lifecycle.load(options.run, best=options.best)
    out = options.out or run.path / f"policy-{options.seed_index}"
    export_policy(run.config, run.seed_state(options.seed_index), out)
    print(f"written to {out}: python {out / 'load.py'}")


def info(options: InfoOptions) -> None:
    """Prints what is known of a run, from its files alone."""
    from purejaxrl_sac.experiment.runs import display
    from purejaxrl_sac.experiment.runs.directory import RunDirectory
    from purejaxrl_sac.experiment.tuning import sweep

    if (options.run / "sweep.json").exists():
        Console().print(display.table(str(options.run), sweep.describe(options.run)))
        return
    directory = RunDirectory.find(options.run)
    Console().print(display.table(str(options.run), directory.describe()))


COMMANDS = {
    "resume": (ResumeOptions, resume),
    "eval": (EvalOptions, evaluate),
    "plot": (PlotOptions, plot),
    "render": (RenderOptions, render),
    "export": (ExportOptions, export),
    "info": (InfoOptions, info),
}


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
