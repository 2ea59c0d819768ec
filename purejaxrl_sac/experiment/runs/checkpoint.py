"""Checkpoints of training states: written atomically, verified by checksums when restored."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import data_to_keys, keys_to_data
from purejaxrl_sac.experiment.errors import DamagedError
from purejaxrl_sac.types import PyTree

Parts = dict[str, PyTree]
"""A state in named parts, so that policies can be restored without the replay memory."""
Checkpoint = tuple[int, Parts]
"""Environment steps of each seed, and the state after them."""


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
        with quiet():
            read_only = self.keep is None
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, read_only=read_only, cleanup_tmp_directories=not read_only
            )
            return ocp.CheckpointManager(self.path, options=options)

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in ascending order."""
        return sorted(self.manager.all_steps()) if self.path.exists() else []

    def save(self, steps: int, lanes: int, **parts: PyTree) -> None:
        """Copies a state, and writes it in the background.

        Args:
            lanes: the number of lanes without padding.

        Raises:
            OSError: this checkpoint, or the previous one, cannot be written.
        """
        items = {name: ocp.args.StandardSave(keys_to_data(part)) for name, part in parts.items()}
        check = ocp.args.JsonSave({name: checksum(part, lanes) for name, part in parts.items()})
        with quiet(), failures_as_os_errors():
            self.manager.save(steps, args=ocp.args.Composite(**items, check=check), force=True)

    def wait(self) -> None:
        """Returns once everything is written.

        Raises:
            OSError: a checkpoint cannot be written.
        """
        if "manager" in self.__dict__:
            with quiet(), failures_as_os_errors():
                self.manager.wait_until_finished()

    def restore(self, steps: int, lanes: int, **like: PyTree) -> Parts:
        """Restores parts of a checkpoint.

        Args:
            lanes: the number of lanes without padding; padding is restored as zeros.
            like: shapes of the parts, with shardings; those without one go to the first device.

        Raises:
            DamagedError: they cannot be read, or a checksum differs.
        """
        default = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or default)

        items = {
            name: ocp.args.StandardRestore(jax.tree.map(placed, keys_to_data(part)), strict=False)
            for name, part in like.items()
        }
        check = ocp.args.JsonRestore()
        parts: Parts = {}
        failure = None
        try:
            with quiet():
                args = ocp.args.Composite(**items, check=check)
                found = self.manager.restore(steps, args=args)
            parts = {name: found[name] for name in like}
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # a failure of the machine, not of the file
        except Exception as error:  # damaged files make orbax raise errors of many types
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            failure = error
        if processes.any_of(failure is not None)[0]:
            name = "another process failed" if failure is None else type(failure).__name__
            raise DamagedError(f"{name} while reading") from failure
        if any(checksum(parts[name], lanes) != found.check[name] for name in parts):
            raise DamagedError("the checksum differs")
        return {name: data_to_keys(part, like[name]) for name, part in parts.items()}

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
            with quiet(), failures_as_os_errors():
                self.manager.close()


@contextlib.contextmanager
def failures_as_os_errors() -> Iterator[None]:
    """Raises an OSError for every error of a write, whatever type orbax gives it."""
    try:
        yield
    except Exception as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise OSError(f"a checkpoint could not be written: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses orbax's log messages below ERROR."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
