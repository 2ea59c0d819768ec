"""The files of a run; no run overwrites those of another."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.resources import format_bytes
from purejaxrl_sac.experiment.errors import InUseError
from purejaxrl_sac.experiment.runs import record
from purejaxrl_sac.experiment.runs.plans import EVALUATED_POLICIES, Plan, Progress

RUN_FORMAT = 3  # 1 had no checkpoints, 2 other keys and checksums
LEFTOVERS = ("lock", "config.json.part")  # of a run that was killed before it had a plan
PER_LANE = ("failed_step", "episodes", "episode_return", "episode_length")  # fields of `Progress`


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
        if not (Path(path) / "config.json").is_file():
            reason = "has no config.json" if Path(path).exists() else "does not exist"
            raise ConfigError(f"{path} is not a run: it {reason}")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's write lock, which the system releases if the process dies.

        Raises:
            ConfigError: another process holds it, or the directory is not writable.
        """
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

    def write_plan(self, plan: Plan, keep: int, mesh: Mesh) -> None:
        """Writes `config.json`: everything that reproduces the run, and `keep`."""
        document = {
            "schema": RUN_FORMAT,
            "config": record.config_to_dict(plan.config),
            **{name: getattr(plan, name) for name in plan._fields if name != "config"},
            "keep": keep,
            "versions": record.versions(),
            "device": device_name(mesh),
            "revision": git_revision(),
        }
        write_json(self.path / "config.json", document)

    def read_document(self) -> dict[str, Any]:
        """Reads `config.json`.

        Raises:
            ConfigError: it cannot be read, or another version wrote it.
        """
        document = read_json(self.path / "config.json")
        if document.get("schema") != RUN_FORMAT:
            version = document.get("versions", {}).get("purejaxrl_sac", "unknown")
            raise ConfigError(
                f"{self.path} was written by another version of purejaxrl_sac ({version}),"
                " which this one cannot read: use that version, or retrain"
            )
        if not {*Plan._fields, "config", "versions", "device", "keep"} <= document.keys():
            raise ConfigError(f"{self.path}/config.json cannot be read: is it damaged?")
        return document

    def read_summary(self) -> dict[str, Any] | None:
        """Reads `summary.json`; None if the run has not finished.

        Raises:
            ConfigError: it cannot be read.
        """
        return read_json(self.summary) if self.summary.exists() else None

    def read_plan(self, config: Config | None = None) -> Plan:
        """Reads the plan that `write_plan` wrote.

        Args:
            config: the run's configuration, needed if JSON cannot restore it, for example because
                its algorithm is a custom one.

        Raises:
            ConfigError: it cannot be read, or `config` differs.
        """
        document = self.read_document()
        if config is None:
            config = record.config_from_dict(document["config"])
        else:
            config = config.replace(total_steps=document["config"]["total_steps"])
            if record.config_to_dict(config) != document["config"]:
                raise ConfigError(
                    f"the config given is not the one that {self.path} was created with"
                )
        return Plan(config, **{name: document[name] for name in Plan._fields if name != "config"})

    def append(self, progress: Progress) -> None:
        """Appends a line to `metrics.jsonl`: a list over lanes per metric, null for nan or inf."""
        row = {
            "steps": progress.steps,
            "seconds": progress.seconds,
            "failed_step": progress.failed_step.tolist(),
            "episodes": progress.episodes.tolist(),
            "episode_return": to_list(progress.episode_return),
            "episode_length": to_list(progress.episode_length),
            **{name: to_list(value) for name, value in progress.metrics.items()},
            **{name: to_list(value) for name, value in progress.evaluation.items()},
        }
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def sync(self) -> None:
        """Flushes `metrics.jsonl` to disk."""
        with self.metrics.open("a") as file:
            os.fsync(file.fileno())

    def rows(self, steps: int | None = None) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl` up to a step, or to the first one that cannot be read."""
        text = self.metrics.read_text(errors="replace") if self.metrics.exists() else ""
        found = []
        for line in text.split("\n")[:-1]:  # a last line without newline is incomplete
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return [row for row in found if steps is None or row["steps"] <= steps]

    def truncate(self, steps: int) -> None:
        """Removes the lines after a step, which a resumed run writes again."""
        kept = self.rows(steps)
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if self.metrics.exists() and text != self.metrics.read_text(errors="replace"):
            write_text(self.metrics, text)

    def describe(self) -> dict[str, str]:
        """The status of the run and its configuration, as text."""
        document = self.read_document()
        config = document["config"]
        rows = self.rows()
        steps = rows[-1]["steps"] if rows else 0
        checkpoints = sorted(int(p.name) for p in self.checkpoints.glob("*") if p.name.isdigit())
        status = "finished" if self.summary.exists() else "stopped: continue with resume"
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
            "checkpoints": ", ".join(f"step {step:,}" for step in checkpoints) or "none yet",
            "size on disk": format_bytes(size_on_disk(self.path)),
            "device": document["device"],
            "revision": document["revision"] or "not in a git repository",
            "versions": ", ".join(f"{name} {v}" for name, v in document["versions"].items()),
            **{name: str(value) for name, value in config.items() if name not in hidden},
        }

    def columns(self) -> dict[str, np.ndarray]:
        """`steps` and `seconds` [chunks], every other metric [chunks, lanes], nan if missing."""
        rows = self.rows()
        missing = [None] * lanes_of(self.read_document())
        columns = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name, missing) for row in rows]
            scalar = name in ("steps", "seconds")
            columns[name] = np.array(values) if scalar else np.stack([from_list(x) for x in values])
        return columns

    def history(self, plan: Plan, steps: int) -> list[Progress]:
        """The progress of the run up to a step, from `metrics.jsonl`."""
        latest = np.full(plan.lanes, np.nan, np.float32)
        history = []
        for row in self.rows(steps):
            metrics = {name: from_list(value) for name, value in row.items() if name != "seconds"}
            done = int(metrics.pop("steps"))
            latest = np.where(metrics["episodes"] == 0, latest, metrics["episode_return"])
            evaluation = {name: metrics.pop(name) for name in EVALUATED_POLICIES if name in metrics}
            history.append(
                Progress(
                    steps=done,
                    total_steps=plan.total,
                    seconds=row["seconds"],
                    rate=(done - plan.steps(0)) * plan.lanes / max(row["seconds"], 1e-9),
                    latest_return=latest,
                    evaluation=evaluation,
                    **{name: metrics.pop(name) for name in PER_LANE},
                    metrics=metrics,
                )
            )
        return history


def lanes_of(document: dict[str, Any]) -> int:
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


def write_text(path: Path, text: str) -> None:
    """Replaces a file atomically."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replaces a JSON file atomically."""
    write_text(path, json.dumps(document, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} cannot be read: is it damaged?")
    return document


def size_on_disk(path: Path) -> int:
    """Bytes of all files below a directory; files removed in the meantime are ignored."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


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
