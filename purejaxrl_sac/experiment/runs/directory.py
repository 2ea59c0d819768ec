"""What a run leaves on disk. Nothing that exists is ever written over by another run."""

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
from purejaxrl_sac.experiment.runs import record
from purejaxrl_sac.experiment.errors import InUseError
from purejaxrl_sac.experiment.devices.resources import readable
from purejaxrl_sac.experiment.runs.plans import WATCHED, Plan, Progress

RUN_FORMAT = 3  # of a run's files; 1 had no checkpoints, 2 wrote keys and checksums in another way


class RunDirectory:
    """One run's files; `create` makes a new one, `find` opens one that exists.

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
        """Makes a run directory.

        Raises:
            ConfigError: it exists, or cannot be made.
        """
        try:
            Path(path).mkdir(parents=True)
        except FileExistsError:
            if not Path(path).is_dir() or any(x.name not in REMAINS for x in Path(path).iterdir()):
                raise ConfigError(
                    f"{path} exists already: give --out another directory, or move this one away"
                ) from None
        except OSError as error:
            raise ConfigError(f"cannot make {path}: {error.strerror}") from None
        return cls(path)

    @classmethod
    def find(cls, path: Path) -> RunDirectory:
        """Opens a run directory.

        Raises:
            ConfigError: there is no run.
        """
        if not (Path(path) / "config.json").is_file():
            what = "has no config.json" if Path(path).exists() else "does not exist"
            raise ConfigError(f"{path} is not a run: it {what}")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing here; a process that dies gives its lock up.

        Raises:
            ConfigError: another process has it, or the directory cannot be written to.
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
        """`locked`, for all processes of a run: the first one holds the lock."""
        with contextlib.ExitStack() as held:
            processes.on_first(lambda: held.enter_context(self.locked()))
            yield

    def check_new(self) -> None:
        """Raises ConfigError where another run was faster."""
        if (self.path / "config.json").exists():
            raise ConfigError(f"{self.path} exists already: give --out another directory")

    def is_running(self) -> bool:
        """Whether some process has the lock."""
        try:
            with self.locked():
                return False
        except InUseError:
            return True
        except ConfigError:  # nobody can write there
            return False

    def remove_if_unused(self) -> None:
        """Takes the directory away again, unless some training has been written down."""
        if not self.metrics.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def write_plan(self, plan: Plan, keep: int, mesh: Mesh) -> None:
        """`config.json`: everything needed to run this again, and how many checkpoints stay."""
        document = {
            "schema": RUN_FORMAT,
            "config": record.config_to_dict(plan.config),
            **{name: getattr(plan, name) for name in plan._fields if name != "config"},
            "keep": keep,
            "versions": record.versions(),
            "device": device(mesh),
            "revision": revision(),
        }
        write_json(self.path / "config.json", document)

    def read_document(self) -> dict[str, Any]:
        """`config.json` as it is.

        Raises:
            ConfigError: it cannot be read, or another version wrote it.
        """
        document = read_json(self.path / "config.json")
        if document.get("schema") != RUN_FORMAT:
            by = document.get("versions", {}).get("purejaxrl_sac", "unknown")
            raise ConfigError(
                f"{self.path} was written by another version of purejaxrl_sac ({by}),"
                " which this one cannot read: use that version, or train anew"
            )
        if not {*Plan._fields, "config", "versions", "device", "keep"} <= document.keys():
            raise ConfigError(f"{self.path}/config.json cannot be read: is it damaged?")
        return document

    def read_summary(self) -> dict[str, Any] | None:
        """`summary.json`, or None where the run has not finished.

        Raises:
            ConfigError: it cannot be read.
        """
        return read_json(self.summary) if self.summary.exists() else None

    def read_plan(self, config: Config | None = None) -> Plan:
        """The run that `write_plan` wrote down.

        Args:
            config: needed where plain data cannot bring it back, such as an algorithm of your
                own; it must be the one that the run was made with.

        Raises:
            ConfigError: it cannot be read, or `config` is another.
        """
        document = self.read_document()
        if config is None:
            config = record.config_from_dict(document["config"])
        else:
            config = config.replace(total_steps=document["config"]["total_steps"])
            if record.config_to_dict(config) != document["config"]:
                raise ConfigError(f"the config given is not the one that {self.path} was made with")
        return Plan(config, **{name: document[name] for name in Plan._fields if name != "config"})

    def append(self, progress: Progress) -> None:
        """One more line of `metrics.jsonl`: per-seed lists, null where nothing is known."""
        row = {
            "steps": progress.steps,
            "seconds": progress.seconds,
            "failed_step": progress.failed_step.tolist(),
            "episodes": progress.episodes.tolist(),
            "episode_return": listed(progress.episode_return),
            "episode_length": listed(progress.episode_length),
            **{name: listed(value) for name, value in progress.metrics.items()},
            **{name: listed(value) for name, value in progress.evaluation.items()},
        }
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def sync(self) -> None:
        """Returns once `metrics.jsonl` is on the disk."""
        with self.metrics.open("a") as file:
            os.fsync(file.fileno())

    def rows(self, steps: int | None = None) -> list[dict]:
        """Lines of `metrics.jsonl` up to a step, or to the first one that cannot be read."""
        text = self.metrics.read_text(errors="replace") if self.metrics.exists() else ""
        found = []
        for line in text.split("\n")[:-1]:  # what follows the last newline was cut off
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return [row for row in found if steps is None or row["steps"] <= steps]

    def truncate(self, steps: int) -> None:
        """Takes the lines after a step away: they are about to be made once more."""
        kept = self.rows(steps)
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if self.metrics.exists() and text != self.metrics.read_text(errors="replace"):
            write_text(self.metrics, text)

    def describe(self) -> dict[str, str]:
        """What is known of the run, in words."""
        document = self.read_document()
        config = document["config"]
        rows = self.rows()
        steps = rows[-1]["steps"] if rows else 0
        kept = sorted(int(p.name) for p in self.checkpoints.glob("*") if p.name.isdigit())
        status = "finished" if self.summary.exists() else "stopped: go on with resume"
        failed_step = rows[-1]["failed_step"] if rows else []
        failed = [seed for seed, step in enumerate(failed_step) if step >= 0]
        hidden = ("algorithm", "env", "schema", "total_steps")
        return {
            "algorithm": config["algorithm"],
            "environment": config["env"],
            "status": "running" if self.is_running() else status,
            "environment steps per seed": f"{steps:,} of {config['total_steps']:,}",
            "seeds": f"{document['seeds']}, root {document['seed']}",
            "nan or infinite": ", ".join(f"seed {seed}" for seed in failed) or "no seed",
            "checkpoints": ", ".join(f"step {step:,}" for step in kept) or "none yet",
            "on disk": readable(size_on_disk(self.path)),
            "device": document["device"],
            "revision": document["revision"] or "not in a git repository",
            "versions": ", ".join(f"{name} {v}" for name, v in document["versions"].items()),
            **{name: str(value) for name, value in config.items() if name not in hidden},
        }

    def columns(self) -> dict[str, np.ndarray]:
        """`steps` and `seconds` [chunks], every other metric [chunks, lanes], nan if unknown."""
        rows = self.rows()
        unknown = [None] * lanes_of(self.read_document())
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name, unknown) for row in rows] for name in names}
        for name, values in columns.items():
            plain = name in ("steps", "seconds")
            columns[name] = np.array(values) if plain else np.stack([arrayed(x) for x in values])
        return columns

    def history(self, plan: Plan, steps: int) -> list[Progress]:
        """Progress as it was written down, up to a step."""
        latest = np.full(plan.lanes, np.nan, np.float32)
        history = []
        for row in self.rows(steps):
            figures = {name: arrayed(value) for name, value in row.items() if name != "seconds"}
            taken = int(figures.pop("steps"))
            latest = np.where(figures["episodes"] == 0, latest, figures["episode_return"])
            evaluation = {name: figures.pop(name) for name in WATCHED if name in figures}
            history.append(
                Progress(
                    steps=taken,
                    total_steps=plan.total,
                    seconds=row["seconds"],
                    rate=(taken - plan.steps(0)) * plan.lanes / max(row["seconds"], 1e-9),
                    latest_return=latest,
                    evaluation=evaluation,
                    **{name: figures.pop(name) for name in FIGURES},
                    metrics=figures,
                )
            )
        return history


def lanes_of(document: dict[str, Any]) -> int:
    """What a run's `config.json` says of its lanes."""
    return document["seeds"] * len(next(iter(document["variants"].values()), [None]))


REMAINS = ("lock", "config.json.part")  # of a run that was killed before it had a plan
FIGURES = ("failed_step", "episodes", "episode_return", "episode_length")


def listed(values: np.ndarray) -> list[float | None]:
    """float32 as the shortest decimals that give it back; null where not finite."""
    return [
        float(str(x)) if math.isfinite(x) else None for x in np.asarray(values, np.float32).ravel()
    ]


def arrayed(values: Any) -> np.ndarray:
    """What `listed` wrote, whole numbers as such."""
    if not isinstance(values, list) or all(isinstance(x, int) for x in values):
        return np.asarray(values)
    return np.array([np.nan if x is None else x for x in values], np.float32)


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one piece: whoever reads it sees the old or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, document: dict) -> None:
    write_text(path, json.dumps(document, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """An object that `write_json` wrote.

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
    """Bytes of all files, also while some of them are taken away."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def device(mesh: Mesh) -> str:
    """What computes, as people call it."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"


def revision() -> str | None:
    """The git commit of the working directory, with + where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
