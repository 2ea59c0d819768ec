"""Speed on CPUs: iterations, tabular steps, several devices, and sweeps."""

from __future__ import annotations

import itertools

from scripts.pages.tables import Cell, algorithm, limitation, number, picture, rows, spread, table

WORK: dict[str, Cell] = {"work": lambda row: f"{algorithm(row)} {row['environment']}"}
SEEDS: dict[str, Cell] = {**WORK, "seeds": lambda row: f"{row['seeds']:,}"}
SAME = ("algorithm", "environment", "seeds", "buffer", "updates", "device")
ITERATION = (
    "Microseconds per iteration (one environment step and one update, 64 x 64 networks) and seed,"
    " without compilation, on two cores (`scripts/benchmark_speed.py`). The speed of the machine"
    " differed between versions: compare ratios, which are of one run, not microseconds."
)


def summary() -> list[str]:
    """What was measured together with rejax."""
    chosen = [row for row in rows("speed", "speed", SAME) if "peer_us" in row]
    return [
        "## Speed",
        f"{ITERATION} [More](speed.md): all algorithms, the floor of the loop, on-policy and"
        " tabular algorithms, prioritised replay, several devices, sweeps.",
        picture("speed", "microseconds per iteration of this package and of rejax"),
        table(
            chosen,
            {
                **SEEDS,
                "buffer": lambda row: f"{row['buffer']:,}",
                "µs": lambda row: number(row["value"]),
                "rejax 0.1.3, µs": lambda row: number(row["peer_us"]),
                "rejax / ours": lambda row: f"{row['peer_us'] / row['value']:.1f}",
            },
            notes=limitation("speed"),
        ),
    ]


def page() -> list[str]:
    """All tables of speed."""
    parts = (iterations, solution, throughput, recurrent, priorities, scale)
    return ["# Speed", *itertools.chain.from_iterable(part() for part in parts)]


def iterations() -> list[str]:
    """Iterations of all algorithms, compared with their floor."""
    return [
        "## Iterations",
        f"{ITERATION} The floor is the same work without the loop: environment and policy alone,"
        " plus updates on one fixed batch.",
        table(
            rows("speed", "speed", SAME),
            {
                **SEEDS,
                "buffer": lambda row: f"{row['buffer']:,}",
                "µs": lambda row: number(row["value"]),
                "ratio to floor": lambda row: f"{row['floor_ratio']:.2f}",
                "rejax 0.1.3, µs": lambda row: number(row.get("peer_us")),
                "rejax / ours": lambda row: (
                    f"{row['peer_us'] / row['value']:.1f}" if "peer_us" in row else ""
                ),
            },
            notes=limitation("speed"),
        ),
    ]


def solution() -> list[str]:
    """Seconds from a command to a solved environment."""
    same = ("library", "algorithm", "environment", "seeds", "device")
    found = rows("speed", "solution", same)
    if not found:
        return []
    ours = {tuple(row[name] for name in same[1:]): row for row in found if "library" not in row}

    def seconds(cache: str) -> Cell:
        return lambda row: f"{row[cache]:.1f}" if cache in row else ""

    def ratio(cache: str) -> Cell:
        def text(row: dict) -> str:
            own = ours.get(tuple(row[name] for name in same[1:]), {})
            known = "library" in row and cache in row and cache in own
            return f"{row[cache] / own[cache]:.1f}" if known else ""

        return text

    return [
        "## Time to solution",
        "Seconds of a whole command, from the start of the interpreter on, that trains all seeds"
        " and evaluates their greedy policies. An environment is solved by an IQM over seeds of at"
        " least 475 on CartPole-v1, -150 on Pendulum-v1. Each library has its own tuned settings"
        " and trains for a number of steps that solved it with other seeds; SBX trains one seed"
        " after the other and stops when all together have solved it, and the seconds of its"
        " evaluations are subtracted. Libraries alternate, with an empty cache of compiled"
        " programs and then with a full one (`scripts/benchmark_solution.py`).",
        table(
            found,
            {
                "work": lambda row: f"{algorithm(row)} {row['environment']}",
                "device": lambda row: row["device"],
                "seeds": lambda row: f"{row['seeds']:,}",
                "steps": lambda row: f"{row['steps']:,}" if "steps" in row else "",
                "solved, rounds": lambda row: f"{row['solved']} of {row['rounds']}",
                "IQM": lambda row: number(row.get("value")),
                "empty cache, s": seconds("empty"),
                "ratio": ratio("empty"),
                "full cache, s": seconds("full"),
                "ratio, full": ratio("full"),
            },
        ),
    ]


def throughput() -> list[str]:
    """On-policy and tabular algorithms."""
    return [
        "## On-policy and tabular algorithms",
        "On-policy, 2,048 environments: environment steps per second, compared with the same"
        " environments with random actions (`scripts/benchmark_on_policy.py`).",
        table(
            rows("speed", "on-policy speed", ("algorithm", "environment", "num_envs", "device")),
            {
                **SEEDS,
                "steps/s": lambda row: f"{row['steps_per_second']:,}",
                "random actions, steps/s": lambda row: f"{row['random_steps_per_second']:,}",
                "ratio": lambda row: number(row["times_slower_than_random"]),
                "rollout, MiB": lambda row: number(row["rollout_mib"]),
            },
        ),
        "Tabular: millions of steps per second over all seeds, each with an update"
        " (`scripts/benchmark_tabular.py`).",
        table(
            rows(
                "speed",
                "tabular speed",
                ("library", "environment", "seeds", "num_envs", "rollout_length", "device"),
            ),
            {
                **SEEDS,
                "environments": lambda row: row["num_envs"],
                "rollout": lambda row: row["rollout_length"],
                "million steps/s": lambda row: number(row["value"]),
                "ratio to the loop": lambda row: row.get("times_the_loop", ""),
            },
        ),
    ]


def recurrent() -> list[str]:
    """Recurrent PPO and PQN, compared with PureJaxRL's recurrent PPO."""
    same = ("algorithm", "cell", "num_envs", "seeds", "device")
    speeds = rows("speed", "recurrent speed", same)
    compiled = {
        tuple(row[name] for name in same[:-1]): row
        for row in rows("speed", "recurrent kernels", same)
        if row["device"] == "h100"
    }

    def kernels(row: dict, name: str) -> str:
        found = compiled.get(tuple(row[x] for x in same[:-1]), {})
        return number(found.get(name)) if found else ""

    return [
        "## Recurrent algorithms",
        "Environment steps per second over all seeds on CartPole-v1, with a memory of 128 units and"
        " layers of 128: rollouts of 128 steps, 4 epochs of 4 minibatches, trained in turns with"
        " PureJaxRL's recurrent PPO, which has a GRU (`scripts/benchmark_recurrent.py`). Kernels"
        " are those of an iteration, a rollout and its 16 updates, compiled for an H100.",
        table(
            speeds,
            {
                "algorithm": algorithm,
                "memory": lambda row: row["cell"],
                "device": lambda row: row["device"],
                "seeds x environments": lambda row: f"{row['seeds']} x {row['num_envs']}",
                "steps/s": lambda row: f"{row['value']:,}",
                "PureJaxRL": lambda row: f"{row['peer_value']:,}" if "peer_value" in row else "",
                "ratio": lambda row: (
                    f"{row['value'] / row['peer_value']:.2f}" if "peer_value" in row else ""
                ),
                "kernels": lambda row: kernels(row, "value"),
                "kernels of PureJaxRL": lambda row: kernels(row, "peer_value"),
            },
            notes=limitation("recurrent"),
        ),
    ]


def priorities() -> list[str]:
    """Data structures of prioritised replay."""
    return [
        "## Prioritised replay",
        "Microseconds per seed to add a transition, draw 64 and write their"
        " priorities, by data structure (`scripts/benchmark_priorities.py`); the package's is"
        " `tree 8`.",
        table(
            rows("speed", "priorities", ("kind", "capacity", "seeds", "device")),
            {
                "structure": lambda row: row["kind"],
                "buffer": lambda row: f"{row['capacity']:,}",
                "seeds": lambda row: row["seeds"],
                "µs": lambda row: number(row["value"]),
            },
        ),
    ]


def scale() -> list[str]:
    """Several devices, and sweeps."""
    return [
        "## Several devices and sweeps",
        "Microseconds per iteration and seed on one XLA device and on two devices of the same two"
        " cores (`scripts/benchmark_scale.py devices`).",
        table(
            rows("scale", "scale: devices", ("algorithm", "seeds", "devices", "device")),
            {
                **WORK,
                "seeds": lambda row: row["seeds"],
                "1 device, µs": lambda row: number(row["one_us"]),
                "2 devices, µs": lambda row: number(row["all_us"]),
                "ratio [range]": lambda row: spread(row, "range"),
            },
        ),
        "`scripts/benchmark_scale.py sweep`: learning rates as lanes of one program, compared with"
        " sequential runs, each of which is compiled.",
        table(
            rows("scale", "scale: sweep", ("algorithm", "kind", "lanes", "device")),
            {
                **WORK,
                "compilation, s": lambda row: number(row["compile_seconds"]),
                "training, s": lambda row: number(row["train_seconds"]),
                "total, s": lambda row: number(row["value"]),
            },
        ),
        "`scripts/benchmark_scale.py compaction`: the cost of a rung of successive halving.",
        table(
            rows("scale", "scale: compaction", ("algorithm", "lanes", "device")),
            {
                **WORK,
                "lanes": lambda row: f"{row['lanes']} to {row['kept']}",
                "ms": lambda row: number(row["value"]),
            },
        ),
    ]
