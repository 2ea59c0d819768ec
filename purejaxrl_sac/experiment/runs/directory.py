"""The files of a run; no run overwrites those of another."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import filelock
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import device_name
from purejaxrl_sac.experiment.devices.resources import format_bytes
from purejaxrl_sac.experiment.errors import InUseError, RunWarning
from purejaxrl_sac.experiment.runs import (
    configuration,
    datasets,
    files,
    metric_rows,
    recipes,
    record,
)
from purejaxrl_sac.experiment.runs.metric_rows import Metrics
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.types import Transition

RUN_FORMAT = 4  # 1 had no checkpoints, 2 other keys and checksums, 3 no checksums of documents
LEFTOVERS = (  # of a run that was killed before it had a plan
    *("lock", "config.json.part", "config.toml", "config.toml.part"),
    *("dataset.npz", "dataset.npz.part"),
)
UNSAFE = "[\\"  # orbax reads a path with these as a pattern, and writes incomplete checkpoints


class Extras(TypedDict, total=False):
    """Fields of `config.json` and `sweep.json` that only some runs and sweeps have."""

    measures: dict[str, str | None]  # name -> its reference; null if it has none


class RunDocument(Extras):
    """`config.json`: everything that reproduces the run, and `keep`."""

    schema: int
    config: dict[str, Any]
    seeds: int
    seed: int
    chunk: int
    episodes: int
    eval_every: int
    eval_episodes: int
    variants: dict[str, list[float | str]]  # infinity is a text
    keep: int
    versions: dict[str, str]
    settings: dict[str, bool | int | str | None]
    device: str
    revision: str | None


class Summary(TypedDict):
    """`summary.json`: the results of a finished run."""

    schema: int
    figures: dict[str, str]
    steps: int
    failed_step: dict[str, int]  # by seed, of those with a nan or infinite metric
    greedy_returns: list[float | None] | None  # null for a seed that diverged
    device: str


def _is_left_over(path: Path) -> bool:
    """Whether a directory is empty, or has only what a run that was killed at its start left."""
    found = {x.name for x in path.iterdir()}
    return not found or ("lock" in found and found <= {*LEFTOVERS})  # others are their user's


def sweep_note(path: Path) -> str:
    """What a sweep's directory is, for messages."""
    if files.exists(path / "best" / "config.json"):
        return f"is a sweep, whose best run is {path / 'best'}"
    return f"is a sweep, whose runs are in {path / 'batches'}"


class RunDirectory:
    """The files of one run; `create` makes a new directory, `find` opens an existing one.

    config.json, metrics.jsonl, checkpoints/, best/, curve.png, episode.gif, summary.json.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.dataset = self.path / "dataset.npz"

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Creates a run directory.

        Raises:
            ConfigError: it exists, or cannot be created.
        """
        cls(path).check_name()
        try:
            Path(path).mkdir(parents=True)
        except FileExistsError:
            if not Path(path).is_dir() or not _is_left_over(Path(path)):
                resume = ", resume it" if files.exists(Path(path) / "config.json") else ""
                raise ConfigError(
                    f"{path} exists already: choose another with --name or --out{resume}, or move"
                    " this one away"
                ) from None
        except OSError as error:
            raise ConfigError(f"cannot create {path}: {error.strerror}") from None
        return cls(path)

    @classmethod
    def find(cls, path: Path) -> RunDirectory:
        """Opens a run directory.

        Raises:
            ConfigError: there is no run.
        """
        if not files.exists(Path(path) / "config.json"):
            reason = "has no config.json" if files.exists(Path(path)) else "does not exist"
            if files.exists(Path(path) / "sweep.json"):
                reason = sweep_note(Path(path))
            raise ConfigError(f"{path} is not a run: it {reason}")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's write lock, which the system releases if the process dies.

        Raises:
            ConfigError: another process holds it, the directory is not writable, its path is not
                one that checkpoints can be written to, or a file is a directory or vice versa.
        """
        self.check_name()
        self.check_links()
        self.check_kinds()
        lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InUseError(f"{self.path} is being written by another process") from None
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path}: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def locked_by_first(self) -> Iterator[None]:
        """`locked` for all processes of a run: the first one holds the lock."""
        with contextlib.ExitStack() as stack:
            processes.on_first(lambda: stack.enter_context(self.locked()))
            yield

    def check_name(self) -> None:
        """Raises ConfigError if checkpoints that are written to this path would be incomplete."""
        path = str(self.path.absolute())
        found = next((c for c in path if c in UNSAFE or "\ud800" <= c <= "\udfff"), None)
        if found:
            raise ConfigError(
                f"{path} contains {found!r}, with which checkpoints cannot be written: use a path"
                " without it"
            )

    def check_links(self) -> None:
        """Raises ConfigError if writing here could change files elsewhere."""
        for link in files.links_outside(self.path):
            raise ConfigError(f"{link} is a link that leads out of the run: remove it")

    def check_kinds(self) -> None:
        """Raises ConfigError for a file in place of a directory, and for a directory as lock."""
        for folder in (self.checkpoints, self.best):
            if folder.exists() and not folder.is_dir():
                raise ConfigError(f"{folder} is not a directory: move it away")
        if (self.path / "lock").is_dir():
            raise ConfigError(f"{self.path / 'lock'} is a directory: move it away")

    def check_new(self) -> None:
        """Raises ConfigError if another process has started a run here in the meantime."""
        if (self.path / "config.json").exists():
            raise ConfigError(f"{self.path} exists already: choose another with --name or --out")

    def is_running(self) -> bool:
        """Whether a process holds the lock."""
        try:
            with self.locked():
                return False
        except InUseError:
            return True
        except ConfigError:  # not writable, so no process can hold it
            return False

    def remove_if_unused(self) -> None:
        """Removes the run's files unless it has metrics; others are kept, with the directory."""
        if self.metrics.exists():
            return
        logs = (x.name for x in self.path.glob("events.out.tfevents.*"))
        own = ("config.json", *LEFTOVERS, "checkpoints", "best", "wandb", "wandb-id", *logs)
        files.remove(self.path, *own)

    def remove_best_after(self, steps: int) -> None:
        """Removes the best policy if training goes on from before it: it may not be reached again.

        Otherwise it is saved again.
        """
        for later in files.numbered(self.best):
            if later > steps:
                shutil.rmtree(self.best / str(later))

    def write_plan(
        self, plan: Plan, keep: int, mesh: Mesh, measures: Mapping[str, str | None]
    ) -> None:
        """Writes `config.json`: everything that reproduces the run, and `keep`.

        Its configuration is also written to `config.toml`, to be read and to be trained again.

        Args:
            measures: name -> reference, of the run's measures.
        """
        plan_fields = {name: getattr(plan, name) for name in plan._fields if name != "config"}
        document = {
            "schema": RUN_FORMAT,
            "config": record.config_to_dict(plan.config),
            **plan_fields,
            "keep": keep,
            "versions": record.versions(),
            "settings": record.settings(),
            "device": device_name(mesh),
            "revision": record.git_revision(),
            **({"measures": dict(measures)} if measures else {}),
        }
        if plan.config.dataset is not None:
            datasets.save(self.dataset, cast(Transition, plan.config.dataset))
        contents = configuration.of_plan(plan, measures)
        several = f" (several values of {', '.join(plan.variants)}: here the first)"
        what = f"the configuration of this run{several if plan.variants else ''}"
        comment = f"{what}, for purejaxrl-sac train --config FILE"
        files.write_text(self.path / "config.toml", configuration.text(contents, comment))
        files.write_document(self.path / "config.json", document)

    def read_document(self) -> RunDocument:
        """Reads `config.json`.

        Raises:
            ConfigError: it cannot be read, was changed, or another version wrote it.
        """
        return files.read_document(self.path / "config.json", RunDocument, RUN_FORMAT)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`, which marks the run as finished."""
        files.write_document(self.summary, {"schema": RUN_FORMAT, **summary})

    def read_summary(self) -> Summary | None:
        """Reads `summary.json`; None if the run has not finished.

        Raises:
            ConfigError: as for `read_document`.
        """
        if not self.summary.exists():
            return None
        return files.read_document(self.summary, Summary, RUN_FORMAT)

    def read_plan(self, given: record.Given = record.NOTHING) -> Plan:
        """Reads the plan that `write_plan` wrote.

        Args:
            given: what JSON cannot restore, such as a custom algorithm.

        Raises:
            ConfigError: it cannot be read, needs code that is not given, or `given` differs.
        """
        document = self.read_document()
        try:
            config = record.config_with_dataset(document["config"], given, self.dataset)
        except ConfigError as error:
            raise ConfigError(f"{self.path / 'config.json'}: {error}") from None
        given.check(config, document["config"], self.path)
        variants = {k: [files.from_json(x) for x in v] for k, v in document["variants"].items()}
        fields: dict[str, Any] = {**document, "config": parameters.fixed(config)}
        fields["variants"] = variants
        return Plan(**{name: fields[name] for name in Plan._fields})

    def checkpoint_steps(self) -> list[int]:
        """The steps of all complete checkpoints, in ascending order; they may be damaged."""
        return files.numbered(self.checkpoints)

    def read_metrics(self, lanes: int, steps: int | None = None) -> Metrics:
        """Reads `metrics.jsonl`; damaged lines are left out.

        Args:
            steps: up to which lines are read, and must exist; None for all lines, which must reach
                the newest checkpoint.

        Raises:
            ConfigError: it is no file, or cannot be read.
        """
        newest = max(self.checkpoint_steps(), default=0)
        return metric_rows.read(self.metrics, lanes, steps, end=newest)

    def describe(self) -> dict[str, str]:
        """The status of the run and its configuration, as text."""
        document = self.read_document()
        config = document["config"]
        rows, lost = found = self.read_metrics(lanes_of(document))
        steps = rows[-1]["steps"] if rows else 0
        status = "finished" if self.summary.exists() else "stopped: continue with resume"
        each = config["num_envs"] * config["rollout_length"]
        if status != "finished" and config["total_steps"] // each * each in self.checkpoint_steps():
            status = "trained, but not evaluated: resume makes the evaluation"
        failed_step = rows[-1]["failed_step"] if rows else []
        failed = [seed for seed, step in enumerate(failed_step) if step >= 0]
        hidden = ("algorithm", "env", "schema", "total_steps", "recipe")
        code = sorted({*recipes.named(config.get("recipe", {}))})
        return {
            "algorithm": config["algorithm"],
            "environment": config["env"],
            **({"code": ", ".join(code)} if code else {}),
            "status": "running" if self.is_running() else status,
            "environment steps per seed": f"{steps:,} of {config['total_steps']:,}",
            "seeds": f"{document['seeds']}, root seed {document['seed']}",
            "nan or infinite": ", ".join(f"seed {seed}" for seed in failed) or "no seed",
            "checkpoints": ", ".join(f"step {x:,}" for x in self.checkpoint_steps()) or "none yet",
            **({"metrics.jsonl": found.warning} if lost else {}),
            "size on disk": format_bytes(files.size_on_disk(self.path)),
            "device": document["device"],
            "revision": document["revision"] or "not in a git repository",
            "versions": ", ".join(f"{name} {v}" for name, v in document["versions"].items()),
            **{name: str(value) for name, value in config.items() if name not in hidden},
        }

    def columns(self) -> dict[str, np.ndarray]:
        """`metric_rows.columns` of the whole run; warns if rows are missing."""
        lanes = lanes_of(self.read_document())
        found = self.read_metrics(lanes)
        if found.lost:
            warnings.warn(RunWarning(f"{self.metrics}: {found.warning}"), stacklevel=2)
        return metric_rows.columns(found.rows, lanes)


def lanes_of(document: RunDocument) -> int:
    """The number of lanes, from a run's `config.json`."""
    return document["seeds"] * len(next(iter(document["variants"].values()), [None]))
