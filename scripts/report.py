"""Render the recorded rows: `scripts/results/README.md`, its pictures, README's algorithms, and the
scores that `purejaxrl-sac list` shows.

    python scripts/report.py             # writes everything
    python scripts/report.py --check     # writes nothing; exit status 1 if a file is outdated

Figures of earlier code are marked: by † in tables, by hollow markers or dashed lines in pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts import cells, dependencies, pictures, record
from scripts.accelerators import report as accelerators

PAGE = record.FOLDER / "README.md"
README = record.ROOT / "README.md"
RECORDED = "# greedy return, IQM [95 % interval]: "  # before a score in the files of presets
SCORES = dependencies.PACKAGE / "cli" / "scores.json"
LIMITATIONS = tomllib.loads((record.FOLDER / "limitations.toml").read_text())
PUBLISHED = pictures.PUBLISHED
INTRODUCTION = """# Results

Rendered by `python scripts/report.py` from the rows of the `.jsonl` files in this folder. Each row
also has its command, commit, device, root key and date: search a file for the algorithm and
environment. **†: the code that the figure depends on has changed since it was measured**, so that
it may differ now; the version is the one that was measured.

IQM is the interquartile mean over seeds, with its 95 % bootstrap interval. Seeds differ from those
that were used to tune presets."""

Cell = Callable[[dict], object]
GOALS = cells.goals()

HALVES = ("first_half", "second_half")


def rows(name: str, what: str, same: Sequence[str]) -> list[dict]:
    """The newest row of each work, in the order of first appearance.

    Args:
        name: of the file, without `.jsonl`.
        same: the fields that identify a work.
    """
    found = {}
    for row in record.rows(record.FOLDER / f"{name}.jsonl"):
        if row["what"] == what:
            found[repr([row.get(field) for field in same])] = row
    return list(found.values())


def number(value: float | None) -> str:
    """A figure with at most five significant digits, or all before the point."""
    if value is None:
        return ""
    digits = 5 - len(str(int(abs(value)))) if abs(value) >= 1 else 4
    text = f"{value:,.{max(0, min(2, digits))}f}" if abs(value) >= 1 else f"{value:.{digits}g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def spread(row: dict, name: str = "interval") -> str:
    """A value with its interval or range."""
    ends = ", ".join(map(number, row.get(name, ())))
    return number(row["value"]) + (f" [{ends}]" if ends else "")


def limitation(table: str) -> Cell:
    """What was changed in the preset, a known limitation, and a note about the row."""
    texts = LIMITATIONS[table]

    def cell(row: dict) -> str:
        changed = row.get("changed", {}).items()
        parts = [f"{name}={value}" for name, value in changed if name != "total_steps"]
        name = f"{row['algorithm']} {row['environment']}"
        found = [texts[name]] if name in texts and "library" not in row else []
        found += [row["note"]] if "note" in row else []
        return "; ".join([*([", ".join(parts)] if parts else []), *found])

    return cell


def goal(row: dict) -> str:
    """The goals of a row of a preset, and by how much it misses them."""
    wanted = GOALS.get((row["algorithm"], row["environment"]), cells.Goal())
    if row.get("changed") or "library" in row or wanted.value is None:
        return ""
    missed = wanted.missed(row)
    text = number(wanted.value) + (f", worst {number(wanted.worst)}" if wanted.worst else "")
    misses = [f"{name} misses it by {number(x)}" for name, x in missed.items()]
    return f"{text}: {', '.join(misses) or 'met'}"


def algorithm(row: dict) -> str:
    """The algorithm, its kind of work, and the library if it is not this one."""
    text = f"{row['library']}: " if "library" in row else ""
    return f"{text}`{row['algorithm']}`" + (f", {row['kind']}" if "kind" in row else "")


def published() -> str:
    """The table of published scores."""
    lines = ["| environment | optimum | published (steps) |", "|---|---:|---|"]
    for env, found in PUBLISHED.items():
        texts = [
            f"{score['source']} {number(score['value'])}"
            + (f" ({pictures.count(score['steps'])})" if "steps" in score else "")
            for score in found.get("scores", ())
        ]
        lines.append(f"| {env} | {number(found.get('optimum'))} | {', '.join(texts)} |")
    return "\n".join(lines)


def table(chosen: Iterable[dict], columns: dict[str, Cell]) -> str:
    """A Markdown table; the version is its last column, with † where the row is stale."""
    names = [*columns, "version"]
    lines = [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]
    for row in chosen:
        version = row["version"] + " †" * record.stale(row)
        cells = [cell(row) for cell in columns.values()]
        lines.append(f"| {' | '.join(map(str, [*cells, version]))} |")
    return "\n".join(lines)


def preset(row: dict) -> tuple:
    """What an old row of other seeds is superseded in."""
    names = ("library", "algorithm", "environment", "kind", "changed")
    return tuple(repr(row.get(name)) for name in names)


def learning() -> list[str]:
    """Tables of learning: deep algorithms, and tabular ones."""
    same = ("library", "algorithm", "environment", "kind", "changed", "root", "seeds")
    every = [r for r in rows("learning", "learning", same) if r["algorithm"] != "random"]
    current = {preset(r) for r in every if not record.stale(r)}
    every = [r for r in every if not record.stale(r) or preset(r) not in current]
    columns: dict[str, Cell] = {
        "algorithm": algorithm,
        "environment": lambda row: row["environment"],
        "steps": lambda row: pictures.count(row["steps"]),
        "seeds": lambda row: row["seeds"],
        "IQM [95 % interval]": spread,
        "worst seed": lambda row: number(row.get("worst")),
        "goal": goal,
        "settings, limitation": limitation("learning"),
    }
    order = dict.fromkeys([*PUBLISHED, *(row["environment"] for row in every)])
    every.sort(key=lambda row: list(order).index(row["environment"]))
    tabular = [row for row in every if PUBLISHED.get(row["environment"], {}).get("tabular")]
    return [
        "## Learning",
        "Undiscounted returns of greedy policies, from different start states for each seed."
        " *Equal updates*: both libraries make the same steps, updates and networks"
        " (`scripts/benchmark_brax.py`).",
        picture("scoreboard", "scores as shares of the best published ones"),
        picture("curves", "training returns by environment steps"),
        table([row for row in every if row not in tabular], columns),
        "Scores that others report, and optima:",
        published(),
        "Tabular algorithms: exact returns of greedy policies.",
        table(tabular, columns),
    ]


def speed() -> list[str]:
    """Tables of speed on CPUs."""
    same = ("algorithm", "environment", "seeds", "buffer", "updates", "device")
    work: dict[str, Cell] = {
        "work": lambda row: f"{algorithm(row)} {row['environment']}",
        "seeds": lambda row: f"{row['seeds']:,}",
    }
    return [
        "## Speed",
        "`scripts/benchmark_speed.py`: microseconds per iteration (one environment step and one"
        " update, 64 x 64 networks) and seed, without compilation. The floor is the same work"
        " without the loop: environment and policy alone, plus updates on one fixed batch.",
        picture("speed", "microseconds per iteration of this package and of rejax"),
        table(
            rows("speed", "speed", same),
            {
                **work,
                "buffer": lambda row: f"{row['buffer']:,}",
                "µs": lambda row: number(row["value"]),
                "ratio to floor": lambda row: f"{row['floor_ratio']:.2f}",
                "rejax 0.1.3, µs": lambda row: number(row.get("peer_us")),
                "rejax / ours": lambda row: (
                    f"{row['peer_us'] / row['value']:.1f}" if "peer_us" in row else ""
                ),
                "limitation": limitation("speed"),
            },
        ),
        "On-policy, 2,048 environments: environment steps per second, compared with the same"
        " environments with random actions (`scripts/benchmark_on_policy.py`).",
        table(
            rows("speed", "on-policy speed", ("algorithm", "environment", "num_envs", "device")),
            {
                **work,
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
                **work,
                "environments": lambda row: row["num_envs"],
                "rollout": lambda row: row["rollout_length"],
                "million steps/s": lambda row: number(row["value"]),
                "ratio to the loop": lambda row: row.get("times_the_loop", ""),
            },
        ),
        "Prioritised replay: microseconds per seed to add a transition, draw 64 and write their"
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


def compile_time() -> list[str]:
    """The table of compile times."""
    from scripts.benchmark_compile import total

    chosen = rows("compile", "compile time", ("library", "algorithm", "seeds", "device"))
    if not chosen:
        return []
    return [
        "## Compile time",
        "`scripts/benchmark_compile.py`: CPU-seconds and seconds to trace, lower and compile all"
        " programs of a run, without a cache.",
        table(
            chosen,
            {
                "work": lambda row: f"{algorithm(row)} {row['environment']}",
                "seeds": lambda row: row["seeds"],
                "CPU-seconds": lambda row: f"{total(row):.1f}",
                "seconds": lambda row: f"{total(row, 's'):.1f}",
            },
        ),
    ]


def accelerator() -> list[str]:
    """The section of accelerators; most of it is on a page of its own."""
    return [
        "## Accelerators",
        "[accelerators.md](accelerators.md): steps per second from one seed to thousands, time per"
        " kernel, XLA flags, agreement with the CPU, and programs compiled ahead of time. With few"
        " seeds the time of an iteration is proportional to its number of kernels.",
        picture("kernels", "kernels per iteration of this package and of rejax"),
    ]


def memory() -> list[str]:
    """The table of replay memories."""
    return [
        "## Memory",
        "`scripts/replay_bytes.py`: bytes per transition of replay memories, and those of one"
        " array per field (images stored once) in the environment's dtypes.",
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


def scale() -> list[str]:
    """Tables of several devices and sweeps."""
    work: dict[str, Cell] = {"work": lambda row: f"{algorithm(row)} {row['environment']}"}
    return [
        "## Scale",
        "`scripts/benchmark_scale.py devices`: microseconds per iteration and seed on one XLA"
        " device and on two devices of the same two cores.",
        table(
            rows("scale", "scale: devices", ("algorithm", "seeds", "devices", "device")),
            {
                **work,
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
                **work,
                "compilation, s": lambda row: number(row["compile_seconds"]),
                "training, s": lambda row: number(row["train_seconds"]),
                "total, s": lambda row: number(row["value"]),
            },
        ),
        "`scripts/benchmark_scale.py compaction`: the cost of a rung of successive halving.",
        table(
            rows("scale", "scale: compaction", ("algorithm", "lanes", "device")),
            {
                **work,
                "lanes": lambda row: f"{row['lanes']} to {row['kept']}",
                "ms": lambda row: number(row["value"]),
            },
        ),
    ]


def reliability() -> list[str]:
    """Tables of runs that are interrupted, and of deliberate faults."""
    faults = rows("faults", "fault", ("name",))
    caught = sum(row["outcome"] == "caught" for row in faults)
    marks = "†" if any(map(record.stale, faults)) else ""
    return [
        "## Reliability",
        "`scripts/benchmark_runner.py`: time of a run with chunks, metrics and progress, divided by"
        " that of a single scan, and seconds for which a checkpoint blocks a run.",
        table(
            rows("reliability", "overhead", ("algorithm", "environment", "seeds", "device")),
            {
                "work": lambda row: f"{algorithm(row)} {row['environment']}, {row['seeds']} seeds",
                "ratio [range]": lambda row: spread(row, "range"),
                "checkpoint, s": lambda row: number(row["checkpoint_seconds"]),
            },
        ),
        "`scripts/kill_test.py`: runs killed by SIGKILL at random times and resumed, compared with"
        " an uninterrupted run bit for bit.",
        table(
            rows("reliability", "kills", ("kind", "algorithm", "environment", "seeds", "steps")),
            {
                "runs of": lambda row: row.get("kind") or f"{algorithm(row)} {row['environment']}",
                "kills": lambda row: row["kills"],
                "during the write of a checkpoint": lambda row: row.get(
                    "during the write of a checkpoint", row.get("during_writes", 0)
                ),
                "differences": lambda row: row["value"],
            },
        ),
        "`scripts/fuzz.py`: random inputs, each of which must be accepted or refused by one line.",
        table(
            rows("reliability", "fuzz", ("kind",)),
            {
                "inputs": lambda row: row["kind"],
                "cases": lambda row: f"{row['cases']:,}",
                "tracebacks and other faults": lambda row: row["faults"],
            },
        ),
        "`scripts/soak.py`: a long run with evaluations and checkpoints; largest values in the"
        " first and the second half.",
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
        f"`scripts/faults.py`: the fast tests catch {caught} of {len(faults)} deliberate faults"
        f" in the package (version {faults[-1]['version']} {marks}).",
    ]


def theory() -> list[str]:
    """The table of values that are known."""
    chosen = rows("theory", "theory", ("kind",))
    if not chosen:
        return []
    return [
        "## Theory",
        "Values that are known exactly or published, and what the package computes.",
        table(
            chosen,
            {
                "case": lambda row: row["kind"],
                "value": lambda row: (
                    f"{row['value']:g}" + (f" ± {row['error']:g}" if "error" in row else "")
                ),
                "expected": lambda row: f"{row['expected']:g}" if "expected" in row else "",
            },
        ),
    ]


def picture(name: str, text: str) -> str:
    """A picture of the page, with its vector format; empty if it has no rows."""
    if not pictures.DRAWN[name]():
        return ""
    return f"![{text}](pictures/{name}.png)\n\n([vector format](pictures/{name}.svg))"


def page() -> str:
    """The whole page."""
    sections = (
        learning, speed, compile_time, accelerator, memory, scale, reliability, theory,
    )  # fmt: skip
    parts = [INTRODUCTION, *(part for section in sections for part in section())]
    return "\n\n".join(part for part in parts if part) + "\n"


def learned(readme: str) -> str:
    """README with the last column of its table of algorithms: the environments of their scores."""
    found: dict[str, dict[str, bool]] = {}
    same = ("algorithm", "environment")
    for row in rows("learning", "learning", ("library", *same)):
        if "library" not in row:
            found.setdefault(row["algorithm"], {})[row["environment"]] = record.stale(row)

    def filled(line: re.Match) -> str:
        names = re.findall(r"`(\w+)`", line[1])
        environments = {env: old for name in names for env, old in found.get(name, {}).items()}
        cell = ", ".join(f"{env}{' †' * old}" for env, old in environments.items())
        return f"{line[1]}| {cell or 'not measured'} |"

    return re.sub(r"(?m)^(\| `\w+`.*\|[^|]*)\|[^|]*\|$", filled, readme)


def preset_files() -> dict[Path, str]:
    """The files of presets, with the recorded scores above their tables."""
    found = json.loads(scores())
    texts = {}
    for path in sorted((dependencies.PACKAGE / "presets").glob("*.toml")):
        envs = tomllib.loads(path.read_text())["env"]
        envs = [envs] if isinstance(envs, str) else envs
        lines = []
        for line in path.read_text().splitlines():
            if table := re.fullmatch(r"\[(\w+)\]", line):
                for env in envs:
                    if score := found.get(f"{table[1]} {env}"):
                        prefix = f"{env}: " if len(envs) > 1 else ""
                        lines.append(f"{RECORDED}{prefix}{scored(score)}")
            if not line.startswith(RECORDED):
                lines.append(line)
        texts[path] = "\n".join(lines) + "\n"
    return texts


def scored(score: dict) -> str:
    """A recorded score as text."""
    low, high = score.get("interval", ("?", "?"))
    worst = f", worst {score['worst']:g}" if "worst" in score else ""
    return (
        f"{score['value']:g} [{low:g}, {high:g}]{worst} over {score['seeds']} seeds"
        f" ({score['version']})"
    )


def scores() -> str:
    """The last score of each preset as JSON, which `purejaxrl-sac list` shows."""
    found = {}
    for row in record.rows(cells.LEARNING):
        name = f"{row['algorithm']} {row['environment']}"
        others = ("changed", "library", "kind")
        if row["algorithm"] != "random" and not any(row.get(field) for field in others):
            fields = ("steps", "seeds", "value", "interval", "worst", "version")
            found[name] = {field: row[field] for field in fields if field in row}
    lines = (f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def outdated() -> list[Path]:
    """Rendered files that do not show the rows as they are now."""
    readme = learned(README.read_text())
    texts = {PAGE: page(), README: readme, SCORES: scores(), **preset_files()}
    texts[accelerators.PAGE] = accelerators.current()
    wrong = [path for path, text in texts.items() if path.read_text() != text]
    return wrong + pictures.outdated()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        wrong = outdated()
        for path in wrong:
            print(f"{path.relative_to(record.ROOT)} is outdated: run scripts/report.py")
        return bool(wrong)
    PAGE.write_text(page())
    README.write_text(learned(README.read_text()))
    SCORES.write_text(scores())
    for path, text in preset_files().items():
        path.write_text(text)
    accelerators.write()
    pictures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
