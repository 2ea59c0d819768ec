"""The options of every command, as dataclasses whose fields tyro turns into flags.

Methods import what they need when they are called, so that `--help` and a wrong flag stay fast.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from purejaxrl_sac.config import Config

if TYPE_CHECKING:
    from purejaxrl_sac.experiment.runs.display import Reporter
    from purejaxrl_sac.experiment.tuning.sweep_plan import Sweep

Normalization = Literal["observations", "rewards"]
RunPath = Annotated[Path, tyro.conf.Positional]


@dataclasses.dataclass(kw_only=True)
class DeviceOptions:
    """Which devices compute; results do not depend on their number, except for rounding."""

    devices: int | Literal["all"] = "all"
    """Number of devices that the seeds are distributed over."""
    cpu_devices: int | None = None
    """Number of CPU devices to create; by default one per core, but at most one per seed."""

    def set_up_devices(self, lanes: int) -> int | None:
        """Create the CPU devices, and return how many devices to use; None for all."""
        from purejaxrl_sac.experiment.devices import mesh

        if self.cpu_devices is not None:
            mesh.use_cpu_devices(self.cpu_devices)
        else:
            mesh.use_all_cores(lanes)
        return None if self.devices == "all" else self.devices


@dataclasses.dataclass(kw_only=True)
class RunOptions(DeviceOptions):
    """How a run is distributed, reported and checkpointed. Only the number of devices affects
    results: it changes rounding, which long training of networks amplifies."""

    coordinator: str | None = None
    """HOST:PORT of process 0 of several; detected on Slurm and TPU pods."""
    processes: int | None = None
    """Number of processes."""
    process: int | None = None
    """Index of this process, from 0."""
    join_timeout: int = 120
    """Seconds to wait until all processes have connected."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is always written at the end and on Ctrl-C or SIGTERM."""
    keep: int | None = None
    """Number of newest checkpoints to keep; by default 2, or as many as before."""
    quiet: bool = False
    """Print the final summary only."""
    json: bool = False
    """Print one JSON object per line, for programs."""
    log: tuple[str, ...] = ()
    """Loggers besides metrics.jsonl: tensorboard, wandb, or your own as file.py:name."""
    no_cache: bool = False
    """Do not keep compiled programs on disk between calls."""

    def set_up_devices(self, lanes: int) -> int | None:
        """Also connect this process to the others of the run."""
        from purejaxrl_sac.experiment.devices import processes

        count = self.processes or processes.expected() or 1
        devices = super().set_up_devices(-(-lanes // count))
        processes.join(self.coordinator, self.processes, self.process, self.join_timeout)
        return devices

    def reporter(self, note: str = "") -> Reporter:
        """The reporter that --json and --quiet choose; without them, it prints a note at first."""
        from purejaxrl_sac.experiment.runs import display

        if self.json:
            return display.JsonReporter()
        if self.quiet:
            return display.SummaryReporter(Console())
        return display.ConsoleReporter(Console(), note=note)

    def run_arguments(self, lanes: int) -> dict[str, Any]:
        """Set up the devices for so many lanes, and return arguments of `run` and `resume`."""
        from purejaxrl_sac.experiment.runs import loggers

        if not self.no_cache:
            use_compilation_cache()
        return {
            "devices": self.set_up_devices(lanes),
            "checkpoint_minutes": self.checkpoint_minutes,
            **({} if self.keep is None else {"keep": self.keep}),
            "loggers": [loggers.named(name) for name in self.log],
            "reporter": self.reporter(),
        }


@dataclasses.dataclass(kw_only=True)
class EngineOptions(RunOptions):
    """What trains the batches of a sweep."""

    lanes: int | None = None
    """Points x seeds trained at once; by default what fits into memory. Not kept for resume."""
    engine: Literal["here", "ray"] = "here"
    """Train in this process, or on a Ray cluster whose hosts share the directory."""
    ray_address: str | None = None
    """Address of the Ray cluster; by default a running one that Ray finds, or else this machine."""
    cpus: int = 1
    """CPU cores per batch, with Ray."""
    gpus: float = 0
    """GPUs per batch, with Ray."""

    def set_up_devices(self, lanes: int) -> int | None:
        """With Ray, this process computes only shapes and leaves accelerators to the workers."""
        if self.engine == "ray":
            import jax

            jax.config.update("jax_platforms", "cpu")
        return super().set_up_devices(lanes)

    def engine_arguments(self, sweep: Sweep) -> dict[str, Any]:
        """Further arguments of a sweep; with Ray, batches are small enough to fill the cluster."""
        arguments: dict[str, Any] = {"reporter": self.reporter, "max_lanes": self.lanes}
        if self.engine == "here":
            return arguments
        from purejaxrl_sac.experiment.devices import cluster

        slots = cluster.slots(cpus=self.cpus, gpus=self.gpus, address=self.ray_address)
        arguments["max_lanes"] = self.lanes or sweep.seeds * -(-len(sweep.points) // slots)
        arguments["engine"] = functools.partial(
            cluster.train_on_ray, cpus=self.cpus, gpus=self.gpus, address=self.ray_address
        )
        return arguments


@dataclasses.dataclass(kw_only=True)
class NewRunOptions:
    """What `train` and `sweep` have in common."""

    name: str | None = None
    """The output directory is runs/NAME, a new one; by default ALGORITHM-ENV-TIME."""
    out: Path | None = None
    """The output directory itself, instead of a name."""
    env_params: tuple[str, ...] = ()
    """Parameters of the environment that are not its defaults: NAME=VALUE [NAME=VALUE ...]."""
    dataset: Path | None = None
    """Learn from the transitions of this .npz file, without stepping the environment."""
    normalize: tuple[Normalization, ...] = ()
    """What to divide by its running standard deviation; observations are also centred."""
    wrap: tuple[str, ...] = ()
    """Further wrappers of the agent, the innermost first: file.py:name or module:name ..."""
    curriculum: str | None = None
    """file.py:name of a function (params, progress) -> parameters of the environment."""
    parts: tuple[str, ...] = ()
    """Other parts of the algorithm, see `list ALGORITHM`: PART=file.py:name ..."""


@dataclasses.dataclass(kw_only=True)
class TrainOptions(NewRunOptions):
    """Train an algorithm on an environment, with several seeds in parallel.

    Defaults are those of the preset for the algorithm and environment, or of a file: --config
    FILE.toml, or the directory of a run.

    For example:
        purejaxrl-sac train double_dqn --env CartPole-v1 --seeds 8 --name demo
    """

    seeds: int = 1
    """Number of independent seeds, trained in parallel by one program."""
    seed: int = 0
    """Root PRNG seed, from which the key of every seed is split."""
    chunks: int = 50
    """Approximate number of times that progress is reported and logged."""
    episodes: int = 512
    """Greedy evaluation episodes per seed at the end."""
    eval_every: int = 0
    """Steps between evaluations, which select the best checkpoint; 0 for none."""
    eval_episodes: int = 32
    """Episodes per seed of each evaluation during training, greedy and exploring."""
    measure: tuple[str, ...] = ()
    """Functions of a seed's state to evaluate after each chunk: NAME=file.py:name ..."""
    dry_run: bool = False
    """Compile and report memory requirements, without training."""
    config: tyro.conf.OmitArgPrefixes[Config]
    running: tyro.conf.OmitArgPrefixes[RunOptions] = dataclasses.field(default_factory=RunOptions)

    def parallel(self) -> int:
        """The number of lanes."""
        return self.seeds


@dataclasses.dataclass(kw_only=True)
class SweepOptions(NewRunOptions):
    """Train every point of a grid or sample of hyperparameters with every seed, in parallel.

    Each value of a static field (a shape or a count) compiles a program.

    For example:
        purejaxrl-sac sweep sac --env Pendulum-v1 --grid tau=0.005,0.01
    """

    grid: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE,...: every combination is a point; layers as hidden-sizes=64x64,256x256."""
    range: tuple[str, ...] = ()
    """FIELD=LOW:HIGH is sampled log-uniformly, FIELD=LOW:HIGH:linear uniformly."""
    sample: Literal["sobol", "random"] = "sobol"
    """How ranges are sampled."""
    points: int = 32
    """Number of samples of the ranges; each is combined with every point of the grid."""
    seeds: int = 8
    """Seeds per point, the same for all points."""
    seed: int = 0
    """Root PRNG seed, of the training seeds and of the samples."""
    fresh_seeds: int | None = None
    """New seeds that the best point is retrained with; by default as many as seeds, 0 for none."""
    chunks: int = 20
    """Approximate number of times that progress is reported and logged."""
    episodes: int = 128
    """Greedy evaluation episodes per seed at the end, whose mean return is the score."""
    measure: tuple[str, ...] = ()
    """Functions of a seed's state to evaluate after each chunk: NAME=file.py:name ..."""
    config: tyro.conf.OmitArgPrefixes[Config]
    running: tyro.conf.OmitArgPrefixes[EngineOptions] = dataclasses.field(
        default_factory=EngineOptions
    )

    def parallel(self) -> int:
        """The number of lanes, points x seeds, before duplicate points are dropped."""
        grid = math.prod(1 + word.count(",") for word in self.grid)
        return grid * (self.points if self.range else 1) * self.seeds


@dataclasses.dataclass(kw_only=True)
class CodeOptions:
    """Code of your own that a run was trained with: it is imported only if you say so."""

    trust: bool = False
    """Import the files and modules that the run names."""
    algorithm: str | None = None
    """The run's algorithm again, file.py:name or module:name, instead of trusting the run."""
    env: str | None = None
    """Its environment again, file.py:name or module:name."""
    wrap: tuple[str, ...] = ()
    """Its wrappers again, those of your own: file.py:name or module:name ..."""
    curriculum: str | None = None
    """Its curriculum again, file.py:name or module:name."""

    def code(self) -> dict[str, Any]:
        """Arguments of `loading.load`, `lifecycle.resume` and `sweep.resume`."""
        return {
            "trust": self.trust,
            "algorithm": self.algorithm,
            "env": self.env,
            "wrappers": self.wrap or None,
            "curriculum": self.curriculum,
        }


@dataclasses.dataclass(kw_only=True)
class ResumeOptions(EngineOptions, CodeOptions):
    """Resume a run or a sweep that was stopped or killed, or extend a run.

    Without --steps, results are those of an uninterrupted run.

    For example:
        purejaxrl-sac resume runs/demo
    """

    run: RunPath
    steps: int | None = None
    """New total number of environment steps; schedules are stretched to it."""
    any_version: bool = False
    """Resume with other package versions; results may then differ from an uninterrupted run."""
    measure: tuple[str, ...] = ()
    """Its measures again: NAME=file.py:name ..."""


@dataclasses.dataclass(kw_only=True)
class LoadOptions(CodeOptions):
    """Which checkpoint of which run to load."""

    run: RunPath
    best: bool = False
    """Load the checkpoint with the best evaluation, instead of the newest."""


@dataclasses.dataclass(kw_only=True)
class EvalOptions(LoadOptions, DeviceOptions):
    """Evaluate the policy of every seed in new episodes.

    For example:
        purejaxrl-sac eval runs/demo --episodes 1000
    """

    episodes: int = 512
    """Episodes per seed."""
    seed: int = 1
    """PRNG seed of start states and noise."""
    env_params: tuple[str, ...] = ()
    """Other parameters of the environment than those trained with: NAME=VALUE ..."""
    policy: Literal["greedy", "exploring"] = "greedy"
    """The greedy policy, or the one that explores during training."""
    json: bool = False
    """Print one JSON object, with the mean return of every seed."""


@dataclasses.dataclass(kw_only=True)
class PlotOptions:
    """Compare runs: learning curves, final scores, profiles, probabilities of improvement.

    For example:
        purejaxrl-sac plot runs/dqn runs/double --out compared.png
        purejaxrl-sac plot runs/dqn runs/double --panel curves --out a.pdf
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    metric: str = "episode_return"
    """Metric of the learning curves: any column of metrics.jsonl."""
    out: Path | None = None
    """A new .png, .pdf or .svg file, with its data beside it as .csv."""
    labels: tuple[str, ...] = ()
    """A name for each run, with formulas ($...$) if needed; by default the directory's."""
    title: str | None = None
    """Title of the figure; '' for none. By default, a single panel has its own and a page none."""
    panel: Literal["curves", "scores", "profile", "improvement"] | None = None
    """A single panel instead of the page."""
    log_x: bool = False
    """Learning curves over the logarithm of the steps."""
    columns: Literal[1, 2] | None = None
    """Width for a paper, with text of 8 points: one column (3.25 inches) or two (6.75 inches)."""
    size: tuple[float, float] | None = None
    """Width and height in inches, also with text of 8 points."""


@dataclasses.dataclass(kw_only=True)
class RenderOptions(LoadOptions):
    """Render an episode of the greedy policy as a GIF or MP4.

    For example:
        purejaxrl-sac render runs/demo --seed-index 3 --out swing.gif
    """

    out: Path | None = None
    """A .gif or .mp4 file, which must not exist yet; RUN/episode-TIME.gif by default."""
    seed_index: int | None = None
    """Index of the seed whose policy acts; by default the first that has not diverged."""
    seed: int = 0
    """PRNG seed of the start state and noise."""


@dataclasses.dataclass(kw_only=True)
class ExportOptions(LoadOptions):
    """Export the policy of one seed as a program for CPU, CUDA and TPU that needs only JAX.

    For example:
        purejaxrl-sac export runs/demo --out policy && python policy/load.py
    """

    out: Path | None = None
    """Output directory, which must not exist yet; RUN/policy-SEED by default."""
    seed_index: int | None = None
    """Index of the seed whose policy is exported; by default the first that has not diverged."""


@dataclasses.dataclass(kw_only=True)
class InfoOptions:
    """Show the configuration and status of a run.

    For example:
        purejaxrl-sac info runs/demo
    """

    run: RunPath


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache directory, unless JAX has one configured."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "purejaxrl_sac" / "xla"))
