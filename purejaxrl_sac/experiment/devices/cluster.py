"""Batches of a sweep on a Ray cluster (extra `ray`), one task each; lost tasks are restarted.

All workers share the file system on which the batches are written, so a restarted task resumes its
batch from the last checkpoint.
"""

from __future__ import annotations

import math
import socket
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunError, StoppedError
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.tuning.batches import Batch, train_batch


def slots(cpus: int = 1, gpus: float = 0, address: str | None = None) -> int:
    """The number of batches that a cluster can train at once.

    Args:
        cpus: CPU cores per batch.
        gpus: GPUs per batch.
        address: of the cluster; None for the one that Ray finds, or else a new one on this machine.

    Raises:
        ConfigError: Ray is not installed, the cluster does not exist, or no host is large enough.
    """
    if not (cpus >= 1 and 0 <= gpus < math.inf):
        raise ConfigError(f"a batch needs at least 1 CPU and 0 GPUs, not {cpus} and {gpus:g}")
    hosts = [x["Resources"] for x in _connect(address).nodes() if x["Alive"]]
    needed = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    count = sum(min(int(host.get(x, 0) / each) for x, each in needed.items()) for host in hosts)
    if count < 1:
        sizes = " or ".join(f"{host.get('CPU', 0):g} and {host.get('GPU', 0):g}" for host in hosts)
        raise ConfigError(
            f"a batch needs {cpus} CPUs and {gpus:g} GPUs, but no host has that many: {sizes}"
        )
    return count


def train_on_ray(
    batches: Sequence[Batch],
    *,
    cpus: int = 1,
    gpus: float = 0,
    retries: int = 3,
    address: str | None = None,
    reporter: Callable[[], Reporter] = Reporter,
    **options: Any,
) -> None:
    """Trains the batches of a sweep on a cluster; if one fails, all are cancelled.

    Args:
        cpus: CPU cores per batch.
        gpus: GPUs per batch.
        retries: how often a batch is restarted after its worker was lost or received SIGTERM.
        address: as for `slots`.
        reporter: creates the reporter of this process; workers report nothing.
        options: of `batches.train_batch`; `loggers` are left out.

    Raises:
        ConfigError: as for `slots`.
        RunError: a batch failed, or its worker was lost too often.
    """
    slots(cpus, gpus, address)
    ray = _connect(address)
    options.pop("loggers", None)
    retry = {"max_retries": retries, "retry_exceptions": [StoppedError]}
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, **retry)(_train)
    running = {task.remote(_absolute(batch), cpus, options): batch for batch in batches}
    progress = reporter()
    try:
        while running:
            (finished, *_), _ = ray.wait(list(running))
            batch = running.pop(finished)
            try:
                seconds = ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                reason = str(error).split("\n", 1)[0]
                raise RunError(
                    f"the worker of {batch.path} was lost ({reason}): resume the sweep"
                ) from None
            progress.message(f"batch {batch.path.name} in {seconds:.1f} s, {len(running)} left")
    finally:
        for other in running:
            ray.cancel(other)
        if running:
            ray.wait(list(running), num_returns=len(running))


def _train(batch: Batch, cpus: int, options: dict[str, Any]) -> float:
    """Trains a batch in a worker, and returns the seconds it took."""
    import time

    from purejaxrl_sac.experiment.devices import mesh

    start = time.perf_counter()
    if not mesh.is_initialized():
        mesh.use_cpu_devices(max(1, cpus))
    train_batch(batch, **options)
    return time.perf_counter() - start


def _absolute(batch: Batch) -> Batch:
    return batch._replace(path=Path(batch.path).absolute())


def _connect(address: str | None) -> Any:
    """The module `ray`, connected to a cluster."""
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed: install purejaxrl_sac[ray]") from None
    if not ray.is_initialized():
        try:
            host, _, port = (address or "").rpartition(":")
            if port.isdigit() and "/" not in host:  # Ray itself retries for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(
                    address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
                )
        except (OSError, OverflowError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise ConfigError(f"no Ray cluster at {address}: {reason}") from None
    return ray
