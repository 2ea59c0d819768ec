"""The files of a run; no run overwrites those of another."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import filelock
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.resources import format_bytes
from purejaxrl_sac.experiment.errors import InUseError, RunWarning
from purejaxrl_sac.experiment.runs import configuration, datasets, files, record
from purejaxrl_sac.experiment.runs.plans import EVALUATED_POLICIES, Plan, Progress
from purejaxrl_sac.types import Transition

RUN_FORMAT = 4  # 1 had no checkpoints, 2 other keys and checksums, 3 no checksums of documents
LEFTOVERS = (  # of a run that was killed before it had a plan
    *("lock", "config.json.part", "config.toml", "config.toml.part"),
    *("dataset.npz", "dataset.npz.part"),
)
PER_LANE = ("failed_step", "episodes", "episode_return", "episode_length")  # fields of `Progress`
SCALARS = {"steps": int, "after": int, "seconds": float}  # all other fields of a row are per lane


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
    variants: dict[str, list[float]]
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


class Metrics(NamedTuple):
    """The intact rows of `metrics.jsonl`."""

    rows: list[dict[str, Any]]  # in ascending order of steps
    lost: list[tuple[int, int]]  # steps after which rows are missing, and up to which

    @property
    def warning(self) -> str:
        """'rows ... are missing', or empty if none is."""
        if not self.lost:
            return ""
        ranges = ", ".join(f"{after:,} to {until:,}" for after, until in self.lost)
        return f"rows after steps {ranges} are missing or damaged"


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
        try:
            Path(path).mkdir(parents=True)
        except FileExistsError:
            if not Path(path).is_dir() or any(
                x.name not in LEFTOVERS for x in Path(path).iterdir()
            ):
                raise ConfigError(
                    f"{path} exists already: give --out another directory, or move this one away"
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
            raise ConfigError(f"{path} is not a run: it {reason}")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's write lock, which the system releases if the process dies.

        Raises:
            ConfigError: another process holds it, or the directory is not writable.
        """
        self.check_links()
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

    def check_links(self) -> None:
        """Raises ConfigError if writing here could change files elsewhere."""
        for link in files.links_outside(self.path):
            raise ConfigError(f"{link} is a link that leads out of the run: remove it")

    def check_new(self) -> None:
        """Raises ConfigError if another process has started a run here in the meantime."""
        if (self.path / "config.json").exists():
            raise ConfigError(f"{self.path} exists already: give --out another directory")

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
        """Removes the directory unless it has metrics."""
        if not self.metrics.exists():
            shutil.rmtree(self.path, ignore_errors=True)

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
            "revision": git_revision(),
            **({"measures": dict(measures)} if measures else {}),
        }
        if plan.config.dataset is not None:
            datasets.save(self.dataset, cast(Transition, plan.config.dataset))
        contents = configuration.of_plan(plan, measures)
        comment = "the configuration of this run, for purejaxrl-sac train --config FILE"
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
        fields: dict[str, Any] = {**document, "config": parameters.fixed(config)}
        return Plan(**{name: fields[name] for name in Plan._fields})

    def append(self, progress: Progress, after: int) -> None:
        """Appends a line to `metrics.jsonl`: a list over lanes per metric, null for nan or inf.

        Args:
            after: the steps of the line before; 0 for the first one.
        """
        row = {
            "steps": progress.steps,
            "after": after,
            "seconds": progress.seconds,
            "failed_step": progress.failed_step.tolist(),
            "episodes": progress.episodes.tolist(),
            "episode_return": to_list(progress.episode_return),
            "episode_length": to_list(progress.episode_length),
            **{name: to_list(value) for name, value in progress.metrics.items()},
            **{name: to_list(value) for name, value in progress.evaluation.items()},
        }
        with self.metrics.open("a") as file:
            file.write(_line(row))

    def sync(self) -> None:
        """Flushes `metrics.jsonl` to disk."""
        with self.metrics.open("a") as file:
            os.fsync(file.fileno())

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
        text = files.read_text(self.metrics) if self.metrics.exists() else ""
        end = max(self.checkpoint_steps(), default=0) if steps is None else steps
        rows, lost, last = [], [], 0
        for line in text.split("\n")[:-1]:  # a last line without newline is incomplete
            row = _row(line, lanes)
            if row is None or not last <= row["after"] < row["steps"]:
                continue
            if steps is not None and row["steps"] > steps:
                break
            if row["after"] > last:
                lost.append((last, row["after"]))
            rows.append(row)
            last = row["steps"]
        if last < end:
            lost.append((last, end))
        return Metrics(rows, lost)

    def truncate(self, lanes: int, steps: int) -> None:
        """Removes damaged lines, and those after a step, which a resumed run writes again."""
        if self.metrics.exists():
            text = "".join(map(_line, self.read_metrics(lanes, steps).rows))
            if text.encode() != self.metrics.read_bytes():
                files.write_text(self.metrics, text)

    def describe(self) -> dict[str, str]:
        """The status of the run and its configuration, as text."""
        document = self.read_document()
        config = document["config"]
        rows, lost = metrics = self.read_metrics(lanes_of(document))
        steps = rows[-1]["steps"] if rows else 0
        status = "finished" if self.summary.exists() else "stopped: continue with resume"
        each = config["num_envs"] * config["rollout_length"]
        if status != "finished" and config["total_steps"] // each * each in self.checkpoint_steps():
            status = "trained, but not evaluated: resume makes the evaluation"
        failed_step = rows[-1]["failed_step"] if rows else []
        failed = [seed for seed, step in enumerate(failed_step) if step >= 0]
        hidden = ("algorithm", "env", "schema", "total_steps")
        return {
            "algorithm": config["algorithm"],
            "environment": config["env"],
            "status": "running" if self.is_running() else status,
            "environment steps per seed": f"{steps:,} of {config['total_steps']:,}",
            "seeds": f"{document['seeds']}, root seed {document['seed']}",
            "nan or infinite": ", ".join(f"seed {seed}" for seed in failed) or "no seed",
            "checkpoints": ", ".join(f"step {x:,}" for x in self.checkpoint_steps()) or "none yet",
            **({"metrics.jsonl": metrics.warning} if lost else {}),
            "size on disk": format_bytes(files.size_on_disk(self.path)),
            "device": document["device"],
            "revision": document["revision"] or "not in a git repository",
            "versions": ", ".join(f"{name} {v}" for name, v in document["versions"].items()),
            **{name: str(value) for name, value in config.items() if name not in hidden},
        }

    def columns(self) -> dict[str, np.ndarray]:
        """`steps` and `seconds` [chunks], every other metric [chunks, lanes], nan if missing.

        Warns if rows are missing.
        """
        lanes = lanes_of(self.read_document())
        metrics = self.read_metrics(lanes)
        if metrics.lost:
            warnings.warn(RunWarning(f"{self.metrics}: {metrics.warning}"), stacklevel=2)
        names = dict.fromkeys(name for row in metrics.rows for name in row if name != "after")
        columns = {name: np.zeros(0) for name in ("steps", "seconds")}
        for name in names:
            values = [row.get(name, [None] * lanes) for row in metrics.rows]
            scalar = name in SCALARS
            columns[name] = np.array(values) if scalar else np.stack([from_list(x) for x in values])
        return columns

    def history(self, plan: Plan, steps: int) -> list[Progress]:
        """The progress of the run up to a step, from `metrics.jsonl`.

        If the last row is missing, the last progress has no metrics.
        """
        unknown = np.full(plan.lanes, np.nan, np.float32)
        none = np.zeros(plan.lanes, int)
        latest = unknown
        history = []
        for row in self.read_metrics(plan.lanes, steps).rows:
            metrics = {name: from_list(x) for name, x in row.items() if name not in SCALARS}
            latest = np.where(metrics["episodes"] == 0, latest, metrics["episode_return"])
            evaluation = {name: metrics.pop(name) for name in EVALUATED_POLICIES if name in metrics}
            trained = (row["steps"] - plan.steps(0)) * plan.lanes
            history.append(
                Progress(
                    steps=row["steps"],
                    total_steps=plan.total,
                    seconds=row["seconds"],
                    rate=trained / max(row["seconds"], 1e-9),
                    latest_return=latest,
                    evaluation=evaluation,
                    **{name: metrics.pop(name) for name in PER_LANE},
                    metrics=metrics,
                )
            )
        if not history or history[-1].steps != steps:
            last = history[-1] if history else None
            history.append(
                Progress(
                    steps=steps,
                    total_steps=plan.total,
                    seconds=last.seconds if last else 0.0,
                    rate=last.rate if last else math.nan,
                    latest_return=latest,
                    evaluation={},
                    failed_step=last.failed_step if last else none - 1,
                    episodes=none,
                    episode_return=unknown,
                    episode_length=unknown,
                    metrics={},
                )
            )
        return history


def _line(row: dict[str, Any]) -> str:
    """A row of `metrics.jsonl` as text, with its checksum."""
    return json.dumps(files.sealed(row)) + "\n"


def _row(line: str, lanes: int) -> dict[str, Any] | None:
    """The inverse of `_line`; None for a damaged line, or one of another number of lanes."""
    row = files.unsealed(line)
    if row is None:
        return None
    per_lane = {name: x for name, x in row.items() if name not in SCALARS}
    try:
        for name, kind in SCALARS.items():
            files.check(row.get(name), kind, name)
        for name, values in per_lane.items():
            files.check(values, list[float | None], name)
    except ConfigError:
        return None
    complete = set(PER_LANE) <= per_lane.keys() and all(len(x) == lanes for x in per_lane.values())
    return row if complete else None


def lanes_of(document: RunDocument) -> int:
    """The number of lanes, from a run's `config.json`."""
    return document["seeds"] * len(next(iter(document["variants"].values()), [None]))


def to_list(values: np.ndarray) -> list[float | None]:
    """float32 as the shortest decimals that restore it; null for nan and infinity."""
    return [
        float(str(x)) if math.isfinite(x) else None for x in np.asarray(values, np.float32).ravel()
    ]


def from_list(values: Any) -> np.ndarray:
    """The inverse of `to_list`; integers stay integers, and null is nan."""
    if not isinstance(values, list) or all(isinstance(x, int) for x in values):
        return np.asarray(values)
    return np.array([np.nan if x is None else x for x in values], np.float32)


def device_name(mesh: Mesh) -> str:
    """'8 x NVIDIA H100 (gpu)'."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"


def git_revision() -> str | None:
    """The git commit of the working directory, with + if files differ from it; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
