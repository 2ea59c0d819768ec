"""Training states on disk: written atomically beside the run, checked when they are read."""

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
from purejaxrl_sac.experiment.errors import DamagedError
from purejaxrl_sac.experiment.devices.mesh import plain, typed
from purejaxrl_sac.types import PyTree


def checksum(tree: PyTree, lanes: int) -> int:
    """What a flipped bit changes, which the file format alone does not notice.

    The sum of each lane's CRC-32, modulo 2**32: wherever the lanes lie, each process adds its own.

    Args:
        tree: of arrays [lanes or more, ...], and scalars.
    """
    shared, crcs = 0, {}
    for leaf in jax.tree.leaves(plain(tree)):
        pieces = {str(piece.index): piece for piece in leaf.addressable_shards}  # each once
        for piece in pieces.values():
            array = np.asarray(piece.data)
            if array.ndim == 0:
                shared = _crc(array, shared)
                continue
            first = piece.index[0].start or 0
            for lane in range(first, min(lanes, first + len(array))):
                crcs[lane] = _crc(array[lane - first], crcs.get(lane, 0))
    own = sum(crcs.values()) + shared * processes.is_first()  # scalars are in every process
    return processes.total(own % 2**32)


def _crc(array: np.ndarray, before: int) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), before)


class Checkpoints:
    """The newest few states of a run, by the number of environment steps taken.

    A state is written in parts by name, so that a policy can be read without the replay memory.
    Writing goes on while the run does; a state that was not written to its end does not exist.

    Args:
        keep: how many stay, for the one process that writes; None only reads.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = Path(path).absolute()  # a relative one fails in a thread that nobody watches
        self.keep = keep

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Makes the directory, so nobody asks for it before there is something to write."""
        with quiet():
            reads = self.keep is None
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, read_only=reads, cleanup_tmp_directories=not reads
            )
            return ocp.CheckpointManager(self.path, options=options)

    def steps(self) -> list[int]:
        """What there is, oldest first."""
        return sorted(self.manager.all_steps()) if self.path.exists() else []

    def save(self, steps: int, lanes: int, **parts: PyTree) -> None:
        """Copies a state and goes on writing it behind the caller's back.

        Args:
            lanes: how many there are; what follows them only fills the devices up.

        Raises:
            OSError: this one, or the one before, cannot be written.
        """
        items = {name: ocp.args.StandardSave(plain(part)) for name, part in parts.items()}
        check = ocp.args.JsonSave({name: checksum(part, lanes) for name, part in parts.items()})
        with quiet(), writing():
            self.manager.save(steps, args=ocp.args.Composite(**items, check=check), force=True)

    def wait(self) -> None:
        """Returns once everything is written.

        Raises:
            OSError: it cannot be.
        """
        if "manager" in self.__dict__:
            with quiet(), writing():
                self.manager.wait_until_finished()

    def restore(self, steps: int, lanes: int, **like: PyTree) -> dict[str, PyTree]:
        """Parts of the state after so many steps.

        Args:
            lanes: how many there are; more in the shapes asked for are zeros.
            like: their shapes, and where they are to lie; on the first device if they do not say.

        Raises:
            DamagedError: they cannot be read, or are not what was written.
        """
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # wherever it was written

        def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here)

        items = {
            name: ocp.args.StandardRestore(jax.tree.map(placed, plain(part)), strict=False)
            for name, part in like.items()
        }
        check = ocp.args.JsonRestore()
        parts, failure = {}, None
        try:
            with quiet():
                args = ocp.args.Composite(**items, check=check)
                found = self.manager.restore(steps, args=args)
            parts = {name: found[name] for name in like}
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # the machine's failure, not the file's
        except Exception as error:  # whatever damage makes a reader raise
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            failure = error
        if processes.any_of(failure is not None)[0]:
            name = "another process failed" if failure is None else type(failure).__name__
            raise DamagedError(f"{name} while reading") from failure
        if any(checksum(parts[name], lanes) != found.check[name] for name in parts):
            raise DamagedError("its checksum is another")
        return {name: typed(part, like[name]) for name, part in parts.items()}

    def newest(
        self, on_damage: Callable[[int, DamagedError], None], lanes: int, **like: PyTree
    ) -> tuple[int, dict[str, PyTree]] | None:
        """The newest state that is intact, and its steps; None if there is none.

        Args:
            on_damage: hears of each one that is passed over.
            lanes, like: as for `restore`.
        """
        for steps in reversed(self.steps()):
            try:
                return steps, self.restore(steps, lanes, **like)
            except DamagedError as error:
                on_damage(steps, error)
        return None

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            OSError: it cannot be.
        """
        if "manager" in self.__dict__:
            with quiet(), writing():
                self.manager.close()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Calls by one name what the layers below raise where a disk fails them."""
    try:
        yield
    except Exception as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise OSError(f"a checkpoint could not be written: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps orbax's remarks on its own affairs off the terminal."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
