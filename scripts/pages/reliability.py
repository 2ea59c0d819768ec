"""Reliability: what was done to runs, how often, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scripts import record
from scripts.pages.tables import algorithm, number, rows, spread, table

HALVES = ("first_half", "second_half")
KILLED = {  # kinds of kill_test.py that are no algorithm -> what was killed
    "evaluations": "a run with evaluations during training",
    "fork": "a run of a fork of `sac`",
    "processes": "a run of several processes",
    "sweep": "a sweep",
    "halving": "a search by successive halving",
    "population": "a search by population-based training",
}
MISSED = "reliability.md#mistakes-that-the-fast-tests-do-not-find"
FUZZED = {
    "command lines": "random command lines",
    "configurations": "random configurations in Python",
    "run directories": "commands on run directories with random damage",
}


def kills() -> list[dict]:
    """The newest row of each kind of run that was killed."""
    found = {}
    for row in rows("reliability", "kills", ("kind", "algorithm")):
        found[row.get("kind") or row["algorithm"]] = row
    return list(found.values())


def killed(row: dict) -> str:
    """What was killed."""
    kind = row.get("kind") or row["algorithm"]
    return KILLED.get(kind, f"a run of `{kind}`")


def while_writing(row: dict) -> dict[str, int]:
    """Kills by what was being written."""
    old = {"a checkpoint": row.get("during_writes", 0)}
    names = ("a checkpoint", "a document", "a picture")
    return {x: row.get(f"during the write of {x}", old.get(x, 0)) for x in names}


def fuzzed() -> list[dict]:
    """The cases of each kind of random input, over the seeds of the newest version."""
    newest = {row["kind"]: row for row in rows("reliability", "fuzz", ("kind",))}
    every = rows("reliability", "fuzz", ("kind", "version", "seed"))
    found = []
    for kind, row in newest.items():
        same = [x for x in every if (x["kind"], x["version"]) == (kind, row["version"])]
        counted = ("cases", "faults", "accepted", "refused")
        totals = {name: sum(outcomes(x)[name] for x in same) for name in counted}
        found.append({**row, **totals, "stale": any(map(record.stale, same))})
    return found


def outcomes(row: dict) -> dict[str, int]:
    """Cases, and how many were accepted, refused by a line or ended by a fault."""
    found = {"cases": row["cases"], "faults": row["faults"]}
    for name, endings in (
        ("accepted", ("accepted", "warning")),
        ("refused", ("refused", "failed")),
    ):
        found[name] = sum(n for x, n in row.items() if isinstance(n, int) and x.endswith(endings))
    return found


def none_or(count: int, what: str) -> str:
    """Such as "no traceback", or "3: traceback"."""
    return f"no {what}" if count == 0 else f"**{count:,}: {what}**"


def line(done: str, often: str, wrong: str, of: Iterable[dict]) -> dict:
    """A row of the summary; it has the oldest version of its rows, and is stale if one is."""
    of = list(of)
    versions = sorted({row["version"] for row in of}, key=record.release)
    stale = any(row.get("stale", False) or record.stale(row) for row in of)
    version = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
    return {"done": done, "often": often, "wrong": wrong, "version": version, "stale": stale}


def killed_lines() -> list[dict]:
    """Runs that were killed; and sweeps, searches and several processes."""
    found = []
    every = kills()
    groups: dict[str, Callable[[dict], bool]] = {
        "runs of {}": lambda row: row.get("kind") not in KILLED,
        "{}": lambda row: row.get("kind") in KILLED,
    }
    for text, chosen in groups.items():
        of = [row for row in every if chosen(row)]
        if not of:
            continue
        names = [
            killed(row).removeprefix("a run of ") if "runs" in text else killed(row) for row in of
        ]
        count = sum(row["kills"] for row in of)
        writing = sum(sum(while_writing(row).values()) for row in of)
        found.append(
            line(
                f"killed (SIGKILL) at a random time and resumed: {text.format(', '.join(names))}",
                f"{count:,} kills, {writing:,} of them while a file was written",
                none_or(sum(row["value"] for row in of), "difference from an uninterrupted run"),
                of,
            )
        )
    return found


def lines() -> list[dict]:
    """The rows of the summary."""
    found = killed_lines()
    for row in fuzzed():
        found.append(
            line(
                FUZZED.get(row["kind"], row["kind"]),
                f"{row['cases']:,}: {row['accepted']:,} accepted, {row['refused']:,} refused"
                " in one line",
                none_or(row["faults"], "traceback or other fault"),
                [row],
            )
        )
    for row in rows("reliability", "soak", ("what",)):
        first, second = (row[f"resident_{half}"] / 1e6 for half in HALVES)
        found.append(
            line(
                "trained for a long time, with evaluations and checkpoints",
                f"{number(row['minutes'])} minutes, {row['chunks']:,} chunks",
                f"memory at most {first:,.0f} MB in the first half and {second:,.0f} MB in the"
                f" second; open files {row['files_first_half']} and {row['files_second_half']}",
                [row],
            )
        )
    if faults := rows("faults", "fault", ("name",)):
        missed = sum(row["outcome"] != "caught" for row in faults)
        found.append(
            line(
                "a mistake put into the package, and the fast tests run",
                f"{len(faults):,} mistakes, {len(faults) - missed:,} found by a test",
                f"{missed:,} not found: [which]({MISSED})" if missed else "none was missed",
                faults,
            )
        )
    return found


def summary() -> list[str]:
    """What was done, how often, and what went wrong."""
    return [
        "## Reliability",
        "What was done, how often, and what went wrong. [More](reliability.md): each kind of run,"
        " the cost of checkpoints, the mistakes that tests do not find. What a user sees in each"
        " case is [listed](../../purejaxrl_sac/experiment/README.md#failures).",
        table(
            lines(),
            {
                "what was done": lambda row: row["done"],
                "how often": lambda row: row["often"],
                "what went wrong": lambda row: row["wrong"],
            },
            old=lambda row: row["stale"],
        ),
    ]


def page() -> list[str]:
    """All tables of reliability."""
    faults = rows("faults", "fault", ("name",))
    missed = [row for row in faults if row["outcome"] != "caught"]
    columns = {"mistake": lambda row: row["name"], "ending": lambda row: row["outcome"]}
    return [
        "# Reliability",
        "## Killed runs",
        "Killed by SIGKILL at random times, resumed, and compared bit for bit with an uninterrupted"
        " run (`scripts/kill_test.py`). Documents are `metrics.jsonl`, `config.json` and"
        " `summary.json`.",
        table(
            kills(),
            {
                "what was killed": killed,
                "kills": lambda row: row["kills"],
                **{
                    f"while {name} was written": lambda row, name=name: while_writing(row)[name]
                    for name in ("a checkpoint", "a document", "a picture")
                },
                "runs that differ": lambda row: row["value"],
            },
        ),
        "## Random inputs",
        "Each must be accepted, or refused by one line (`scripts/fuzz.py`).",
        table(
            fuzzed(),
            {
                "inputs": lambda row: FUZZED.get(row["kind"], row["kind"]),
                "cases": lambda row: f"{row['cases']:,}",
                "accepted": lambda row: f"{row['accepted']:,}",
                "refused": lambda row: f"{row['refused']:,}",
                "tracebacks and other faults": lambda row: row["faults"],
            },
            old=lambda row: row["stale"],
        ),
        "## Long runs",
        "Largest values in the first and the second half of a run with evaluations and checkpoints"
        " (`scripts/soak.py`).",
        table(
            rows("reliability", "soak", ("minutes",)),
            {
                "minutes": lambda row: number(row["minutes"]),
                "memory, MB": lambda row: " / ".join(
                    f"{row[f'resident_{half}'] / 1e6:.0f}" for half in HALVES
                ),
                "open files": lambda row: " / ".join(str(row[f"files_{x}"]) for x in HALVES),
                "threads": lambda row: " / ".join(str(row[f"threads_{x}"]) for x in HALVES),
            },
        ),
        "## The cost of chunks and checkpoints",
        "Time of a run with chunks, metrics and progress, divided by that of a single scan, and"
        " seconds for which a checkpoint blocks a run (`scripts/benchmark_runner.py`).",
        table(
            rows("reliability", "overhead", ("algorithm", "environment", "seeds", "device")),
            {
                "work": lambda row: f"{algorithm(row)} {row['environment']}, {row['seeds']} seeds",
                "ratio [range]": lambda row: spread(row, "range"),
                "checkpoint, s": lambda row: number(row["checkpoint_seconds"]),
            },
        ),
        "## Mistakes that the fast tests do not find",
        "`scripts/faults.py` puts them into the package one at a time, and runs the fast tests that"
        " cover their place. Missed: no test failed; timeout: they did not end in time.",
        table(missed, columns) if missed else f"All {len(faults):,} were found.",
    ]
