"""Datasets as .npz files: one array for each field of a `Transition`. Reading one runs no code."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError, kind_of
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.offline import Dataset
from purejaxrl_sac.types import Transition

DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, MemoryError, RuntimeError),  # also encrypted files
    *(zipfile.BadZipFile, zlib.error),
)
FIELDS = tuple(name for name in Transition._fields if name != "extras")


def save(path: Path | str, dataset: Transition) -> None:
    """Writes a dataset, atomically; `path` should end in .npz.

    Raises:
        ConfigError: it is no dataset, or cannot be written.
    """
    if not isinstance(dataset, Transition):
        raise ConfigError(f"dataset is {kind_of(dataset)}, but must be a Transition")
    arrays: dict[str, Any] = {name: np.asarray(getattr(dataset, name)) for name in FIELDS}
    try:
        with files.replacing(Path(path)) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def load(path: Path | str) -> Dataset:
    """Reads a dataset.

    Raises:
        ConfigError: it cannot be read, or lacks a field.
    """
    return Dataset(*map(jnp.asarray, read(path)[:-1]))


def read(path: Path | str) -> Dataset:
    """Reads a dataset as NumPy arrays, of which JAX may narrow those of 64 bits; as for `load`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays}
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or "it is not an .npz file of arrays"
        raise ConfigError(f"cannot read the dataset {path}: {reason}") from None
    if missing := set(FIELDS) - found.keys():
        raise ConfigError(f"the dataset {path} has no array {min(missing)}: see prl.record_dataset")
    return Dataset(**found)


def checksum(dataset: Transition) -> str:
    """The CRC-32 of a dataset's arrays, their shapes and types."""
    arrays = [np.asarray(getattr(dataset, name)) for name in FIELDS]
    return files.checksum([[str(x.dtype), x.shape, zlib.crc32(x.tobytes())] for x in arrays])
