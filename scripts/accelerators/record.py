"""Rows of figures, as JSON lines in a file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import jax

import purejaxrl_sac as prl

RESULTS = Path(__file__).parents[1] / "results" / "accelerator.jsonl"
SAME = (
    *("what", "library", "algorithm", "environment", "kind", "seeds"),
    *("device", "jax", "sources", "flags"),
)


def sources() -> str:
    """A digest of the package's sources, which identifies the code of a row."""
    files = sorted((Path(__file__).parents[2] / "purejaxrl_sac").rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def stamp(what: str, device: str) -> dict:
    """The origin of a row: device, versions, flags and date."""
    return {
        "what": what,
        "device": device,
        "jax": jax.__version__,
        "version": prl.__version__,
        "sources": sources(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def rows(record: Path) -> list[dict]:
    """All rows of a record, the oldest first.

    Raises:
        ConfigError: the path is a folder, or a line is not JSON.
    """
    if record.is_dir():
        raise prl.ConfigError(f"{record} is a folder: pass a file to --record")
    if not record.exists():
        return []
    found = []
    for number, line in enumerate(record.read_text().splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise prl.ConfigError(
                f"line {number} of {record} is not JSON: correct or remove it"
            ) from None
    return found


def identity(row: dict) -> tuple:
    """The fields that identify a figure; of equal rows, the last one counts."""
    return tuple(row.get(name) for name in SAME)


def recorded(record: Path, row: dict) -> bool:
    """Whether a row of the same identity is recorded."""
    return any(identity(old) == identity(row) for old in rows(record))


def append(record: Path, row: dict) -> None:
    """Append a row to the file and print it."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def one_line(error: BaseException) -> str:
    """The first line of an error's message, with its type unless that is redundant."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    named = isinstance(error, (prl.ConfigError, MemoryError, jax.errors.JaxRuntimeError))
    return text if named and text else f"{type(error).__name__}: {text}"
