"""The steps of a search on disk: a record and the state after each, from which it continues.

search.json has the arguments of the search, records.jsonl a line per step, checkpoints/ the states
after the latest steps, table.csv the results. Called again with the same arguments and directory, a
search repeats its decisions from the records, and trains only what is left.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices.mesh import fill
from purejaxrl_sac.experiment.errors import DamagedError, RunWarning
from purejaxrl_sac.experiment.runs import engine, files, record
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints, join_state, split_state
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.interruptions import failures_as_run_errors
from purejaxrl_sac.experiment.runs.metric_rows import from_list, to_list
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.types import TrainState

SEARCH_FORMAT = 1


class SearchDocument(TypedDict):
    """`search.json`: everything that reproduces the search."""

    schema: int
    search: str
    config: dict[str, Any]
    arguments: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, bool | int | str | None]


class Journal:
    """The steps of a search that have been taken; none of them is on disk without a directory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: list[np.ndarray] = []  # the scores of every step
        self.taken = 0  # steps that the search has taken or repeated, counted by itself
        self.checkpoints = None if path is None else Checkpoints(path / "checkpoints", keep=2)

    def scores(self, step: int) -> np.ndarray | None:
        """The recorded scores of a step, flat; None if it has not been taken."""
        return self.records[step] if step < len(self.records) else None

    def add(self, scores: np.ndarray, state: TrainState, lanes: int) -> None:
        """Records the scores of the next step, after saving the state from which one continues."""
        self.records.append(np.ravel(scores))
        if self.path is not None and self.checkpoints is not None:
            count = len(self.records)
            self.checkpoints.save(count, lanes, **split_state(state))
            self.checkpoints.wait()
            line = {"step": count, "scores": to_list(scores)}
            with (self.path / "records.jsonl").open("a") as file:
                file.write(json.dumps(files.sealed(line)) + "\n")

    def restore(self, plan: Plan, mesh: Mesh) -> TrainState:
        """The state after the latest step, padded for the devices."""
        assert self.checkpoints is not None, "there are no records without a directory"
        like = split_state(engine.shapes(plan, mesh))
        parts = self.checkpoints.restore(len(self.records), plan.lanes, **like)
        return fill(join_state(**parts), plan.lanes, mesh)

    def read(self) -> None:
        """Reads all records up to the latest intact state, and removes those after it."""
        assert self.path is not None and self.checkpoints is not None
        path = self.path / "records.jsonl"
        text = files.read_text(path) if path.exists() else ""
        kept = []
        for line in text.split("\n")[:-1]:
            row = files.unsealed(line)
            if row is None or row.get("step") != len(self.records) + 1:
                break
            kept.append(line)
            self.records.append(from_list(row["scores"]).astype(np.float32))
        while self.records:
            try:
                self.checkpoints.verify(len(self.records))
                break
            except DamagedError as error:
                text = f"{self.path}: step {len(self.records)} is damaged ({error}): repeating it"
                warnings.warn(RunWarning(text), stacklevel=2)
                self.records.pop()
        intact = "".join(f"{line}\n" for line in kept[: len(self.records)])
        if intact != text:  # also if only the last line is torn, which the next would continue
            files.write_text(path, intact)
        for later in self.checkpoints.steps():  # a step that was taken again saves its state again
            if later > len(self.records):
                self.checkpoints.delete(later)


@contextlib.contextmanager
def opened(
    path: Path | str | None, search: str, config: Config, arguments: Mapping[str, Any]
) -> Iterator[Journal]:
    """The journal of a new search, or of the one with the same arguments that a directory has.

    Args:
        path: the directory; None for a search that writes nothing.

    Raises:
        ConfigError: the directory has something else, or the search was other arguments, versions
            or settings.
        RunError: the machine failed.
    """
    if path is None:
        yield Journal(None)
        return
    directory = RunDirectory(Path(path))
    document = {
        "schema": SEARCH_FORMAT,
        "search": search,
        "config": record.config_to_dict(config),
        "arguments": files.to_json(json.loads(json.dumps(arguments, default=str))),
        "versions": record.versions(),
        "settings": record.settings(),
    }
    file = directory.path / "search.json"
    if not files.exists(file):
        RunDirectory.create(directory.path)
    with directory.locked(), failures_as_run_errors(directory):
        if file.exists():
            _check_equal(file, document)
        else:
            files.write_document(file, document)
        journal = Journal(directory.path)
        assert journal.checkpoints is not None
        with contextlib.closing(journal.checkpoints):
            journal.read()
            yield journal


def _check_equal(file: Path, document: dict[str, Any]) -> None:
    written: dict[str, Any] = {**files.read_document(file, SearchDocument, SEARCH_FORMAT)}
    other = record.differences({"search": written["search"]}, {"search": document["search"]})
    for field in ("config", "arguments", "versions", "settings"):
        other += record.differences(written[field], document[field])
    if other:
        raise ConfigError(
            f"{file} was written with {', '.join(other)}: continue with the same, or give another"
            " directory"
        )
