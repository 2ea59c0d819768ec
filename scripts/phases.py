"""Seconds and size of each phase in which JAX makes a program: tracing, lowering, compiling.

This module does not import the package, so that peers can be measured in other environments.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import jax

from scripts import hlo


def timed(function: Callable, *arguments: Any) -> tuple[Any, float, float]:
    """The result, the seconds, and the CPU-seconds of the process with all of its threads."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, time.perf_counter() - start, time.process_time() - cpu_start


def measured(function: jax.stages.Wrapped, *arguments: Any) -> dict[str, float]:
    """Figures of one program: seconds by phase, CPU-seconds, and instructions after optimisation.

    Args:
        arguments: arrays, or their shapes.
    """
    traced, trace_s, trace_cpu_s = timed(function.trace, *arguments)
    lowered, lower_s, lower_cpu_s = timed(traced.lower)
    compiled, compile_s, compile_cpu_s = timed(lowered.compile)
    return {
        "trace_s": trace_s,
        "trace_cpu_s": trace_cpu_s,
        "lower_s": lower_s,
        "lower_cpu_s": lower_cpu_s,
        "compile_s": compile_s,
        "compile_cpu_s": compile_cpu_s,
        "instructions": hlo.instructions(compiled.as_text()),
    }


def warm_up() -> None:
    """Start the backend, and compile once, so that neither is part of a measurement."""
    jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.numpy.zeros(3)))


def origin() -> dict[str, str]:
    """What the figures of this process are of: the version of jax, and the devices."""
    return {"jax": jax.__version__, "device": device()}


def device() -> str:
    """The devices of this process, on CPUs with the number of cores that it may use."""
    name = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.default_backend() != "cpu":
        return name
    usable = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    cores = len(usable(0)) if usable else os.cpu_count()
    return f"{name}, {cores} core" + "s" * (cores != 1)
