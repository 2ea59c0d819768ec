"""Several processes of one run, on one host or many, with `jax.distributed`.

Every process runs the same program on its own devices. The functions below broadcast and reduce
values over processes, and run actions in the first process only; with one process they are local.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt
from jax._src.clusters import ClusterEnv  # JAX has no public function for `expected`

from purejaxrl_sac.config import ConfigError, whole_number
from purejaxrl_sac.experiment.errors import RunError

MAX_MESSAGE = 2_000  # bytes
MAX_TIMEOUT = 10**6  # seconds
HEARTBEAT_TIMEOUT = 30  # seconds without a heartbeat after which a process counts as lost


def expected() -> int | None:
    """The number of processes that srun or a TPU pod has started; None if it is one."""
    known = [env for env in ClusterEnv._cluster_types if env.name in ("slurm", "gcetpu", "gketpu")]
    count = next((env.get_process_count() for env in known if env.is_env_present()), 1)
    return count if count > 1 else None


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 120,
) -> None:
    """Connects the processes of a run; call it before JAX computes anything.

    Without arguments, Slurm or the TPU pod provides them; a single process is left alone. A second
    call does nothing.

    Args:
        coordinator: HOST:PORT of process 0, reachable by all processes.
        processes: the number of processes.
        process: the index of this one, from 0.
        timeout: seconds to wait for all processes.

    Raises:
        ConfigError: some arguments are missing, the address is invalid, or the coordinator does not
            answer. If it does but other processes are missing, this process prints an error and
            exits with status 1, because XLA would otherwise abort it without a message.
    """
    timeout = whole_number("join_timeout", timeout, at_least=1, at_most=MAX_TIMEOUT)
    if is_distributed():
        return
    address = None
    if coordinator is None and processes is None and process is None:
        processes = expected()
        if processes is None:
            return
    elif coordinator is None or processes is None or process is None:
        raise ConfigError("--coordinator, --processes, --process: give all three or none")
    else:
        if not 0 <= process < processes:
            raise ConfigError(f"process is {process}, but must be between 0 and {processes - 1}")
        address = _address(coordinator)
        if process > 0:
            _wait_for(address, timeout)
        else:
            _check_free(address)

    def give_up() -> None:
        print(
            f"purejaxrl-sac: not all {processes} processes connected to"
            f" {coordinator or 'the coordinator'} within {timeout} s:"
            " start all of them, with the same --coordinator and --processes",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            None if address is None else processes,
            process,
            cluster_detection_method=None if address is None else "deactivate",
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"processes cannot connect: {str(error).splitlines()[0]}") from None
    finally:
        timer.cancel()


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigError(f"--coordinator takes HOST:PORT, not {coordinator!r}")
    return host, int(port)


def _check_free(address: tuple[str, int]) -> None:
    """Raises ConfigError if the port is in use, because XLA would abort the process."""
    try:
        socket.create_server(("", address[1])).close()
    except OSError as error:
        raise ConfigError(
            f"port {address[1]} is not available ({error.strerror}): give --coordinator another one"
        ) from None


def _wait_for(address: tuple[str, int], timeout: float) -> None:
    """Returns once the address accepts connections."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"the coordinator {address[0]}:{address[1]} did not answer within {timeout:g} s"
                    f" ({error}): is process 0 running, and its port open?"
                ) from None
        time.sleep(0.2)


def is_distributed() -> bool:
    """Whether `join` has connected several processes; does not initialise JAX."""
    return jax.distributed.is_initialized()


def is_single() -> bool:
    """Whether the run has one process only."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def gather(values: npt.ArrayLike) -> np.ndarray:
    """Every process's values [...], as [processes, ...] in all processes."""
    if is_single():
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def sum_uint32(value: int) -> int:
    """The sum of a 32-bit number over processes, modulo 2**32."""
    return int(gather(np.uint32(value)).astype(np.uint64).sum() % 2**32)


def any_of(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process."""
    return [bool(column.any()) for column in gather(np.array(flags)).T]


def minimum(value: int) -> int:
    """The minimum of a number over processes; at most 2**31 - 1."""
    return int(gather(np.int32(min(value, 2**31 - 1))).min())


def on_first(action: Callable[[], object]) -> None:
    """Runs an action in the first process; the others wait until it is done.

    Raises:
        ConfigError: in all processes, if the action raises one.
    """
    failure = None
    if is_first():
        try:
            action()
        except ConfigError as error:
            failure = error
    if is_single():
        if failure:
            raise failure
        return
    from jax.experimental import multihost_utils

    buffer = np.zeros(MAX_MESSAGE, np.uint8)
    text = str(failure or "").encode()[:MAX_MESSAGE]
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
    message = received.rstrip(b"\0").decode(errors="ignore")
    if message:
        raise failure or ConfigError(message)


def check_equal(description: str) -> None:
    """Compares a description of the run over processes.

    Raises:
        ConfigError: in all processes, if descriptions differ.
    """
    checksums = gather(np.uint32(zlib.crc32(description.encode())))
    if len(other := np.flatnonzero(checksums != checksums[0])):
        raise ConfigError(
            f"processes {', '.join(map(str, other))} and process 0 were started with different"
            " configurations, directories, versions or numbers of devices: start all of them with"
            " the same ones"
        )


def lost_process(error: Exception) -> RunError | None:
    """The error to raise instead of `error` if it is due to the loss of another process."""
    text = str(error)
    signs = ("Gloo", "NCCL", "coordination", "heartbeat", "Connection", "barrier")
    if is_single() or not any(sign in text for sign in signs):
        return None
    return RunError(
        "another process of this run was lost: the last checkpoint is intact, resume the run in"
        " all processes"
    )
