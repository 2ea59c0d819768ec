"""Checkpoints of training states: written atomically, verified by checksums when restored."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import data_to_keys, keys_to_data, policy_state
from purejaxrl_sac.experiment.errors import DamagedError
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.types import PyTree, TrainState

MAX_FILES = 200  # in a checkpoint, more than there are
SEAL = "crc32.json"  # in the directory of a checkpoint
REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)

Parts = dict[str, PyTree]
"""A state in named parts, so that policies can be restored without the replay memory."""
Checkpoint = tuple[int, Parts]
"""Environment steps of each seed, and the state after them."""

for _name in ("absl", "asyncio"):  # orbax logs what it also raises, from its own threads
    logging.getLogger(_name).addFilter(
        lambda record: "orbax" not in f"{record.pathname} {record.getMessage()}"
    )


def split_state(state: TrainState) -> Parts:
    """A state in two parts: what policies depend on, and environments with memory."""
    return {"policy": policy_state(state), "rest": (state.env, state.memory)}


def join_state(policy: TrainState, rest: tuple[PyTree, PyTree]) -> TrainState:
    """The inverse of `split_state`."""
    return policy._replace(env=rest[0], memory=rest[1])


def checksum(tree: PyTree, lanes: int) -> int:
    """The sum of every lane's CRC-32, modulo 2**32; the file format does not detect bit flips.

    The sum is independent of the sharding: each process adds its own lanes.

    Args:
        tree: arrays [at least lanes, ...], and scalars; padding does not count.
    """
    shared = 0
    crcs: dict[int, int] = {}
    for leaf in jax.tree.leaves(keys_to_data(tree)):
        shards = {str(shard.index): shard for shard in leaf.addressable_shards}  # without replicas
        for shard in shards.values():
            array = np.asarray(shard.data)
            if array.ndim == 0:
                shared = _crc(array, shared)
                continue
            first = shard.index[0].start or 0
            for lane in range(first, min(lanes, first + len(array))):
                crcs[lane] = _crc(array[lane - first], crcs.get(lane, 0))
    own = sum(crcs.values()) + shared * processes.is_first()  # every process has the scalars
    return processes.sum_uint32(own % 2**32)


def structure(tree: PyTree) -> str:
    """A checksum of the names, shapes and types of a part's arrays, without their axis of lanes."""
    leaves = jax.tree_util.tree_leaves_with_path(keys_to_data(tree))
    described = [(jax.tree_util.keystr(at), x.shape[1:], str(x.dtype)) for at, x in leaves]
    return files.checksum(described)


def _crc(array: np.ndarray, initial: int) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, initial)


class Checkpoints:
    """The latest checkpoints of a run, by the number of environment steps.

    Writing is asynchronous; a checkpoint that was not written completely does not exist.

    Args:
        keep: the number of checkpoints to keep; None opens them read-only.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = Path(path).absolute()  # orbax fails in its own thread with a relative one
        self.keep = keep

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Lazy, because orbax creates the directory."""
        asynchronous = ocp.AsyncOptions(post_finalization_callback=self._seal)
        read_only = self.keep is None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            async_options=asynchronous,
        )
        return ocp.CheckpointManager(self.path, options=options)

    def _seal(self) -> None:
        """Adds the checksums of its files to a checkpoint, before its directory is renamed.

        Damaged files are thus found before orbax reads them.
        """
        if processes.is_first():
            for folder in self.path.glob("*.orbax-checkpoint-tmp*"):
                parts = [part.name for part in folder.iterdir() if part.is_dir()]
                self._forget_path(folder)
                files.write_text(folder / SEAL, json.dumps(files.contents(folder, parts)))

    def _forget_path(self, folder: Path) -> None:
        """Empties the files by which orbax marks a checkpoint as complete: they hold its path."""
        if processes.is_first():
            for file in folder.rglob("commit_success.txt"):
                with contextlib.suppress(OSError):  # an old checkpoint, which is being removed
                    os.truncate(file, 0)

    def verify(self, steps: int) -> None:
        """Raises DamagedError if a checkpoint does not exist, or files differ from those saved."""
        check = self._check(steps)
        self._check_files(steps, {*check["checksums"], "check"})

    def delete(self, steps: int) -> None:
        """Removes a checkpoint."""
        self.manager.delete(steps)

    def _check_files(self, steps: int, parts: Collection[str]) -> None:
        """Raises DamagedError if files of these parts differ from what was written."""
        folder = self.path / str(steps)
        try:
            written = files.parse(files.read_text(folder / SEAL)) or {}
        except ConfigError as error:
            raise DamagedError(str(error)) from None
        expected = {name: crc for name, crc in written.items() if name.split("/")[0] in parts}
        found = files.contents(folder, parts)
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise DamagedError(f"the file {name} differs")

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in ascending order."""
        return files.numbered(self.path)

    def save(self, steps: int, lanes: int, **parts: PyTree) -> None:
        """Copies a state, and writes it in the background.

        Args:
            lanes: the number of lanes without padding.

        Raises:
            OSError: this checkpoint, or the previous one, cannot be written.
        """
        items = {name: ocp.args.StandardSave(keys_to_data(part)) for name, part in parts.items()}
        check = {
            "steps": steps,
            "checksums": {name: checksum(part, lanes) for name, part in parts.items()},
            "structures": {name: structure(part) for name, part in parts.items()},
        }
        args = ocp.args.Composite(**items, check=ocp.args.JsonSave(files.sealed(check)))
        with failures_as_os_errors():
            self._check_inodes()
            self.manager.save(steps, args=args, force=True)

    def _check_inodes(self) -> None:
        """Raises OSError if the disk cannot hold the files: orbax fails with many messages."""
        existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        disk = os.statvfs(existing)
        if disk.f_files and disk.f_favail < MAX_FILES:  # f_files is 0 where there is no limit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wait(self) -> None:
        """Returns once everything is written.

        Raises:
            OSError: a checkpoint cannot be written.
        """
        if "manager" in self.__dict__:
            with failures_as_os_errors():
                self.manager.wait_until_finished()
            self._forget_path(self.path)

    def restore(self, steps: int, lanes: int, **like: PyTree) -> Parts:
        """Restores parts of a checkpoint.

        Args:
            lanes: the number of lanes without padding; padding is restored as zeros.
            like: shapes of the parts, with shardings; those without one go to the first device.

        Raises:
            DamagedError: they cannot be read, or a checksum differs.
            ConfigError: the state has other arrays here, under other versions or settings of JAX.
        """
        default = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or default)

        items = {
            name: ocp.args.StandardRestore(jax.tree.map(placed, keys_to_data(part)), strict=False)
            for name, part in like.items()
        }
        self._check_files(steps, {*like, "check"})
        check = self._check(steps)
        if any(check["structures"].get(name) != structure(like[name]) for name in like):
            raise ConfigError(
                f"{self.path / str(steps)} holds arrays of other shapes or types than this"
                " configuration has here: use the versions and settings in config.json"
            )
        parts: Parts = {}
        failure = None
        try:
            found = self.manager.restore(steps, args=ocp.args.Composite(**items))
            parts = {name: found[name] for name in like}
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # a failure of the machine, not of the file
        except Exception as error:  # damaged files make orbax raise errors of many types
            missing = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
            if isinstance(error, OSError) and not isinstance(error, missing):
                raise
            failure = error
        if processes.any_of(failure is not None)[0]:
            name = "another process failed" if failure is None else type(failure).__name__
            raise DamagedError(f"{name} while reading") from failure
        if any(checksum(parts[name], lanes) != check["checksums"].get(name) for name in parts):
            raise DamagedError("the checksum differs")
        return {name: data_to_keys(part, like[name]) for name, part in parts.items()}

    def _check(self, steps: int) -> dict[str, Any]:
        """What `save` wrote besides the arrays."""
        try:
            check = files.unsealed(files.read_text(self.path / str(steps) / "check" / "metadata"))
        except ConfigError as error:
            raise DamagedError(str(error)) from None
        if not check:
            raise DamagedError("its checksums are damaged")
        if check["steps"] != steps:
            raise DamagedError(f"it is that of step {check['steps']:,}")
        return check

    def newest(
        self, on_damage: Callable[[int, DamagedError], None], lanes: int, **like: PyTree
    ) -> Checkpoint | None:
        """Restores the newest intact checkpoint; None if there is none.

        Args:
            on_damage: receives the steps and error of every damaged checkpoint that is skipped.
            lanes, like: as for `restore`.
        """
        for steps in reversed(self.steps()):
            try:
                return steps, self.restore(steps, lanes, **like)
            except DamagedError as error:
                on_damage(steps, error)
        return None

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            OSError: a checkpoint cannot be written.
        """
        if "manager" in self.__dict__:
            with failures_as_os_errors():
                self.manager.close()
            if self.keep is not None:
                self._forget_path(self.path)


@contextlib.contextmanager
def failures_as_os_errors() -> Iterator[None]:
    """Raises an OSError for every error of a write, whatever type orbax gives it."""
    try:
        yield
    except Exception as error:
        text = str(error)
        known = (os.strerror(number) for number in REASONS)
        first_line = text.split("\n", 1)[0] or type(error).__name__
        reason = next((reason for reason in known if reason in text), first_line)
        raise OSError(f"a checkpoint could not be written: {reason}") from error
