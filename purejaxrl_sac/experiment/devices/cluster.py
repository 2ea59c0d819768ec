"""A sweep's batches over a Ray cluster (extra `ray`): each a task, and a lost one is begun again.

A batch is a run on a file system that all workers share. So a task that is begun again, because its
worker or its host was lost, goes on from the last checkpoint.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunError, StoppedError
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.tuning.sweep import Batch, train_batch


def slots(cpus: int = 1, gpus: float = 0, address: str | None = None) -> int:
    """How many batches a cluster trains at a time.

    Args:
        cpus, gpus: that each takes.
        address: of the cluster; None for the one that Ray finds, or else one of this machine.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster, or it is too small.
    """
    if cpus < 1 or gpus < 0:
        raise ConfigError(f"a batch takes {cpus} CPUs and {gpus:g} GPUs, but needs a CPU at least")
    hosts = [x["Resources"] for x in _connected(address).nodes() if x["Alive"]]
    asked = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    count = sum(min(int(has.get(x, 0) / each) for x, each in asked.items()) for has in hosts)
    if count < 1:
        there = " or ".join(f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}" for has in hosts)
        raise ConfigError(
            f"a batch takes {cpus} CPUs and {gpus:g} GPUs, but no host has so many: {there}"
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
    """The engine of a cluster, for `sweep.train_remaining`; where one batch fails, all are stopped.

    Args:
        cpus, gpus: that each batch takes.
        retries: how often a batch is begun again after its worker was lost, or told to stop.
        options: of `runs.run`, but for what only one process can hear.

    Raises:
        ConfigError: as for `slots`.
        RunError: a batch failed, or its worker was lost too often.
    """
    slots(cpus, gpus, address)
    ray = _connected(address)
    options.pop("loggers", None)
    again = {"max_retries": retries, "retry_exceptions": [StoppedError]}
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, **again)(_train)
    left = {task.remote(_absolute(batch), cpus, options): batch for batch in batches}
    told = reporter()
    try:
        while left:
            (ended, *_), _ = ray.wait(list(left))
            batch = left.pop(ended)
            try:
                seconds = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                reason = str(error).split("\n", 1)[0]
                lost = f"{batch.path} was lost with its worker ({reason}): resume it"
                raise RunError(lost) from None
            told.say(f"batch {batch.path.name} in {seconds:.1f} s, {len(left)} left")
    finally:
        for waiting in left:
            ray.cancel(waiting)
        ray.wait(list(left), num_returns=len(left)) if left else None


def _train(batch: Batch, cpus: int, options: dict[str, Any]) -> float:
    """What a worker does; the seconds it took."""
    import time

    from purejaxrl_sac.experiment.devices import mesh

    began = time.perf_counter()
    if not mesh.has_begun():
        mesh.use_cpu_devices(max(1, cpus))
    train_batch(batch, **options)
    return time.perf_counter() - began


def _absolute(batch: Batch) -> Batch:
    return batch._replace(path=Path(batch.path).absolute())


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed: install purejaxrl_sac[ray]") from None
    if not ray.is_initialized():
        try:
            host, _, port = (address or "").rpartition(":")
            if port.isdigit() and "/" not in host:  # Ray itself would try for minutes
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
