"""What is on the first page only: compile times, accelerators and replay memories."""

from __future__ import annotations

from collections.abc import Callable

from scripts import record
from scripts.accelerators import report as accelerators
from scripts.pages.tables import algorithm, number, picture, rows, table

WORK = {  # columns
    "work": lambda row: f"{algorithm(row)} {row['environment']}",
    "seeds": lambda row: row["seeds"],
}


def compile_time() -> list[str]:
    """Compile times, beside those of a peer."""
    from scripts.benchmark_compile import total

    chosen = rows("compile", "compile time", ("library", "algorithm", "seeds", "device"))
    ours = [row for row in chosen if "library" not in row]
    peers = {row["algorithm"]: row for row in chosen if "library" in row}
    if not ours:
        return []

    def peer(row: dict, unit: str) -> str:
        return f"{total(peers[row['algorithm']], unit):.1f}" if row["algorithm"] in peers else ""

    return [
        "## Compile time",
        "CPU-seconds and seconds to trace, lower and compile all programs of a run, without a cache"
        " (`scripts/benchmark_compile.py`); those of rejax 0.1.3 on the same machine.",
        table(
            ours,
            {
                **WORK,
                "CPU-seconds": lambda row: f"{total(row):.1f}",
                "seconds": lambda row: f"{total(row, 's'):.1f}",
                "rejax, CPU-seconds": lambda row: peer(row, "cpu_s"),
                "rejax, seconds": lambda row: peer(row, "s"),
            },
        ),
        *_start(),
    ]


def _start() -> list[str]:
    """Seconds of a command that are not training."""
    found = rows("compile", "start", ("algorithm", "environment", "seeds", "device"))
    if not found:
        return []

    def figure(cache: str, name: str) -> Callable[[dict], str]:
        return lambda row: f"{row[cache][name]:.1f}"

    return [
        "Seconds of `purejaxrl-sac train` from the command to the line of the first chunk of"
        " training, and of the whole command less its training, with an empty cache of compiled"
        " programs and with a full one (`scripts/benchmark_start.py`):",
        table(
            found,
            {
                **WORK,
                "first line, empty cache": figure("empty", "first"),
                "full": figure("full", "first"),
                "besides training, empty cache": figure("empty", "besides"),
                "besides, full": figure("full", "besides"),
            },
        ),
    ]


def accelerator() -> list[str]:
    """The most steps per second of each work, on each device."""
    measured = accelerators.of_version(record.rows(record.ACCELERATOR), "curve")
    measured = [row for row in measured if accelerators.plain(row) and "error" not in row]
    same = ("device", "algorithm", "environment", "kind")
    single: dict[tuple, float] = {}
    most: dict[tuple, dict] = {}
    for row in measured:
        key = tuple(row[name] for name in same)
        if row["seeds"] == 1:
            single[key] = row["steps_per_second"]
        if key not in most or row["steps_per_second"] > most[key]["steps_per_second"]:
            most[key] = row

    def alone(row: dict) -> str:
        value = single.get(tuple(row[name] for name in same))
        return f"{value:,.0f}" if value else ""

    return [
        "## Accelerators",
        "Environment steps per second over all seeds, trained in one program."
        " [More](accelerators.md): from one seed to thousands, time per kernel, XLA flags,"
        " agreement with the CPU, programs compiled ahead of time. With few seeds the time of an"
        " iteration is proportional to its number of kernels.",
        table(
            most.values(),
            {
                "work": algorithm_and_environment,
                "device": lambda row: row["device"],
                "1 seed, steps/s": alone,
                "most seeds measured": lambda row: f"{row['seeds']:,}",
                "steps/s": lambda row: f"{row['steps_per_second']:,.0f}",
            },
        ),
        picture("kernels", "kernels per iteration of this package and of rejax"),
    ]


def algorithm_and_environment(row: dict) -> str:
    """Such as `dqn` CartPole-v1, preset."""
    return f"`{row['algorithm']}` {row['environment']}, {row['kind']}"


def memory() -> list[str]:
    """Replay memories."""
    return [
        "## Memory",
        "Bytes per transition of replay memories, and those of one array per field (images stored"
        " once) in the environment's dtypes (`scripts/replay_bytes.py`).",
        table(
            rows("memory", "replay bytes", ("environment",)),
            {
                "environment": lambda row: row["environment"],
                "storage": lambda row: f"{row['storage']}, {row['codec']}",
                "bytes": lambda row: number(row["bytes_per_transition"]),
                "separate arrays, bytes": lambda row: number(row["bytes_before"]),
            },
        ),
    ]
