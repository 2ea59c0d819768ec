"""Several processes, on one host or many, as one machine: `jax.distributed`.

Every process runs the same commands on its own devices. What they have to agree on, and what only
the first may do, goes through the functions below; alone, a process agrees with itself.
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
from jax._src.clusters import ClusterEnv  # JAX says nowhere else what it would join

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunError

LONGEST = 2_000  # bytes of a message
SILENCE = 30  # seconds after which a process that is not heard of is taken for lost


def expected() -> int | None:
    """How many processes srun or a TPU pod has begun, as JAX sees it; None where there is one."""
    known = [env for env in ClusterEnv._cluster_types if env.name in ("slurm", "gcetpu", "gketpu")]
    count = next((env.get_process_count() for env in known if env.is_env_present()), 1)
    return count if count > 1 else None


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 120,
) -> None:
    """Makes one machine of several processes; to be called before JAX computes anything.

    Without arguments it asks Slurm or the TPU pod; alone, it does nothing.

    Args:
        coordinator: HOST:PORT of process 0, where all can reach it.
        processes: how many there are.
        process: which one this is, from 0.
        timeout: seconds until all are there.

    Raises:
        ConfigError: half of the arguments, an address that cannot be, or a coordinator that does
            not answer. Where it does, but not all come, the process says so and ends, as XLA would
            end it without a word.
    """
    given = (coordinator, processes, process)
    if all(x is None for x in given):
        processes = expected()
        if processes is None:
            return
    elif any(x is None for x in given):
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
        where = coordinator or "the coordinator"
        print(
            f"purejaxrl-sac: not all {processes} processes came to {where} within {timeout} s:"
            " start all of them, with the same --coordinator and --processes",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    clock = threading.Timer(timeout, give_up)
    clock.daemon = True
    clock.start()
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=None if coordinator is None else "deactivate",
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=SILENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"processes cannot be joined: {str(error).splitlines()[0]}") from None
    finally:
        clock.cancel()


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigError(f"--coordinator takes HOST:PORT, not {coordinator!r}")
    return host, int(port)


def _check_free(address: tuple[str, int]) -> None:
    """Raises ConfigError where somebody listens already, which XLA does not survive."""
    try:
        socket.create_server(("", address[1])).close()
    except OSError as error:
        raise ConfigError(
            f"port {address[1]} cannot be had ({error.strerror}): give --coordinator another one"
        ) from None


def _wait_for(address: tuple[str, int], timeout: float) -> None:
    """Returns once somebody listens there."""
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


def joined() -> bool:
    """Whether `join` has made one machine of several processes; JAX need not have begun."""
    return jax.distributed.is_initialized()


def alone() -> bool:
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the one process that writes what there is one of."""
    return jax.process_index() == 0


def gathered(values: np.ndarray) -> np.ndarray:
    """Every process's values [...], as [processes, ...] in all of them."""
    if alone():
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def total(value: int) -> int:
    """The sum of every process's 32-bit number, modulo 2**32."""
    return int(gathered(np.uint32(value)).astype(np.uint64).sum() % 2**32)


def any_of(*flags: bool) -> list[bool]:
    """Which flags are set in some process."""
    return gathered(np.array(flags)).any(0).tolist()


def least(value: int) -> int:
    """The smallest of every process's numbers."""
    return int(gathered(np.int32(min(value, 2**31 - 1))).min())


def on_first(action: Callable[[], object]) -> None:
    """Acts in the first process only; the others wait, and hear if it failed.

    Raises:
        ConfigError: in all of them, what it raised in the first.
    """
    failed = None
    if is_first():
        try:
            action()
        except ConfigError as error:
            failed = error
    if alone():
        if failed:
            raise failed
        return
    from jax.experimental import multihost_utils

    message = np.zeros(LONGEST, np.uint8)
    text = str(failed or "").encode()[:LONGEST]
    message[: len(text)] = np.frombuffer(text, np.uint8)
    heard = np.asarray(multihost_utils.broadcast_one_to_all(message)).tobytes()
    heard = heard.rstrip(b"\0").decode(errors="ignore")
    if heard:
        raise failed or ConfigError(heard)


def check_alike(what: str) -> None:
    """Compares what all processes are about to do.

    Raises:
        ConfigError: in all of them, where they are about to do different things.
    """
    mark = gathered(np.uint32(zlib.crc32(what.encode())))
    if len(other := np.flatnonzero(mark != mark[0])):
        raise ConfigError(
            f"processes {', '.join(map(str, other))} and process 0 were started with different"
            " configurations, directories, versions or numbers of devices: start all of them alike"
        )


def lost(error: Exception) -> RunError | None:
    """The error to raise where another process is gone, which makes what they share fail."""
    text = str(error)
    signs = ("Gloo", "NCCL", "coordination", "heartbeat", "Connection", "barrier")
    if alone() or not any(sign in text for sign in signs):
        return None
    return RunError(
        "another process of this run is gone: the last checkpoint is intact, start all of them"
        " again with resume"
    )
