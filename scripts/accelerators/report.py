"""Render recorded rows as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts import record
from scripts.accelerators import fitting, plan
from scripts.accelerators.tables import amount, newest, text, version
from scripts.pages import tables

PAGE = record.FOLDER / "accelerators.md"
YES_NO = {True: "yes", False: "no"}
VERDICTS = ("continues", "exports", "seeds_differ", "one_program")
BASE = "0.6.0"  # the version with which figures are compared


def render(rows: list[dict]) -> str:
    """Render the whole page."""
    parts = [
        "# Accelerators",
        "[Results](README.md): what † means, and the other topics. Rendered from the rows of"
        " `accelerator.jsonl`. *One update*: one environment, one step and one update per"
        " iteration, networks of 64 x 64. *Preset*: the unchanged preset. µs: microseconds per"
        " iteration. Rows have the names of their versions: `soft_q` is `continuous_soft_q` and the"
        " storage `once` is `deduplicated` since 0.7.0.",
        *measured(rows),
        *flagged(rows),
        *fused(rows),
        *compiled(rows),
        *checked(rows),
        *plan.section(rows),
    ]
    return "\n\n".join(parts) + "\n"


def grid(columns: str, lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; column names are separated by bars."""
    return tables.grid(columns.split("|"), [list(map(text, line)) for line in lines])


def work(row: dict) -> str:
    """A description of the work of a row."""
    mark = " †" * record.stale(row) if "library" not in row else ""
    return f"{row['algorithm']} {row['environment']}, {row['kind']}{mark}"


def plain(row: dict) -> bool:
    return not row.get("flags")


def before(rows: list[dict], row: dict) -> dict:
    """The row of version `BASE` of the same work and device, or an empty one."""
    same = ("what", "device", "algorithm", "environment", "kind", "seeds", "flags")
    matching = [
        old
        for old in rows
        if old.get("version") == BASE and all(old.get(name) == row.get(name) for name in same)
    ]
    return matching[0] if matching else {}


def of_version(rows: list[dict], what: str) -> list[dict]:
    """The newest rows of a kind, without those of version `BASE`."""
    return [row for row in newest(r for r in rows if r["what"] == what) if row["version"] != BASE]


def measured(rows: list[dict]) -> list[str]:
    """Sections of curves over seeds, by device."""
    parts = []
    curves = [row for row in of_version(rows, "curve") if plain(row)]
    for device in dict.fromkeys(row["device"] for row in curves):
        here = [row for row in curves if row["device"] == device]
        knees = fitting.knees(here)
        single = {key for key, curve in fitting.curves(here).items() if len(curve) < 2}
        lines, errors = [], []
        for row in sorted(here, key=lambda row: (work(row), row["seeds"])):
            if "error" in row:
                errors.append(f"* {work(row)}, {row['seeds']:,} seeds: {row['error']}.")
                continue
            old = before(rows, row)
            ratio = old["us_per_iteration"] / row["us_per_iteration"] if "us_range" in old else None
            if "error" in old:
                errors.append(f"* {work(row)}, {row['seeds']:,} seeds, {BASE}: {old['error']}.")
            kernels = row.get("kernels")
            key = fitting.key(row)
            knee = " (knee)" if knees[key] == row["seeds"] and key not in single else ""
            lines.append(
                [
                    work(row),
                    f"{row['seeds']:,}{knee}",
                    row["us_per_iteration"],
                    kernels,
                    f"{row['us_per_iteration'] / kernels:.2f}" if kernels else None,
                    row["steps_per_second"],
                    amount(row["bytes_per_seed"]),
                    f"{ratio:.2f}" if ratio else "",
                ]
            )
        model = ""
        if fit := fitting.newest(row for row in rows if row["device"] == device):
            used = [row for row in here if row["version"] == fit["version"]]
            old = not used or any(map(record.stale, used))
            model = f"Cost model ({version(fit, old)}): {fitting.sentence(fit)}."
        parts += [
            f"## Measured on one {device}",
            "Environment steps per second are totals over seeds; memory is state and temporaries"
            f" per seed; the last column is the time of version {BASE} on the same kind of device"
            " divided by the current one. The knee is the smallest measured number of seeds with"
            " half of the maximum throughput.",
            grid(
                f"work|seeds|µs|kernels|µs per kernel|steps/s|memory per seed|{BASE} / now", lines
            ),
            *(["\n".join(errors)] if errors else []),
            model,
        ]
    return [part for part in parts if part]


def flagged(rows: list[dict]) -> list[str]:
    """Section of XLA flags, compared with the same code without them."""
    lines = []
    for row in newest(r for r in rows if r["what"] == "curve" and r["flags"]):
        same = {**row, "flags": ""}
        base = [r for r in rows if record.identity(r) == record.identity(same)]
        if "error" not in row and base and "error" not in base[-1]:
            ratio = row["us_per_iteration"] / base[-1]["us_per_iteration"]
            lines.append(
                [
                    f"`{row['flags']}`",
                    f"{work(row)}, {row['seeds']:,} seeds",
                    row["us_per_iteration"],
                    f"{ratio:.2f}",
                    row["version"],
                ]
            )
    if not lines:
        return []
    return [
        "## XLA flags",
        "Microseconds per iteration, and their ratio to those without the flag.",
        grid("flag|work|µs|ratio|version", lines),
    ]


def fused(rows: list[dict]) -> list[str]:
    """Section that compares the Pallas kernel with the unfused update."""
    lines = [
        [
            row["seeds"],
            row["plain"]["us"],
            row["plain"]["kernels"],
            *(x for shape in ("128x8", "64x4") for x in (row[f"fused {shape}"]["us"],)),
            row["fused 128x8"]["kernels"],
            version(row),
        ]
        for row in newest(r for r in rows if r["what"] == "fused time")
    ]
    distances = newest(r for r in rows if r["what"] == "fused distance")
    if not lines or not distances:
        return []
    worst = max(distances, key=lambda row: row["fused highest / plain highest"])
    device = next(r["device"] for r in rows if r["what"] == "fused time")
    return [
        f"## The whole update as one Pallas kernel ({device})",
        "`config.replace(wrappers=(fused_dqn.dqn_update,))`: DQN on CartPole, one update,"
        " microseconds per iteration, alternating measurements (`scripts/benchmark_fused.py`);"
        " 128x8 are transitions per program x warps of the kernel. After ten updates in float32 the"
        " parameters differ from those of the unfused update by at most"
        f" {worst['fused highest / plain highest']:.0e} of their change ({version(worst)}).",
        grid("seeds|unfused, µs|kernels|fused 128x8, µs|fused 64x4, µs|kernels|version", lines),
    ]


def compiled(rows: list[dict]) -> list[str]:
    """Sections of programs compiled ahead of time: kernels and memory."""
    parts = []
    chosen = newest(r for r in rows if r["what"] == "compile")
    gpu = [r for r in chosen if "kernels" in r]  # all for an H100 so far
    if gpu:
        lines = []
        for row in gpu:
            library = row.get("library", "")
            lines.append(
                [
                    f"{library}: {work(row)}" if library else work(row),
                    row["seeds"],
                    row["kernels"],
                    row.get("per_update"),
                    row.get("per_step"),
                    row.get("copies"),
                    amount(row.get("state_bytes")),
                    amount(row["temp_bytes"]),
                    row["compile_seconds"],
                ]
            )
        parts += [
            "## Compiled ahead of time for GPUs",
            "Kernels per iteration, update and environment step; each cond counts as its largest"
            " branch.",
            grid(
                "work|seeds|kernels|per update|per step|copies|state|temporaries|compile s", lines
            ),
        ]
    other = [r for r in chosen if r["device"] == "v5e"]
    if other:
        lines = [
            [
                work(row),
                row["seeds"],
                amount(row.get("state_bytes")),
                amount(row.get("temp_bytes")),
                f"{row['temp_bytes'] / row['state_bytes']:.2f}" if "state_bytes" in row else None,
                row.get("compile_seconds"),
                row.get("error", "yes"),
            ]
            for row in other
        ]
        parts += [
            "## Compiled ahead of time for one core of a TPU v5e (16 GB)",
            grid("work|seeds|state|temporaries|ratio|compile s|fits", lines),
        ]
    return parts


def checked(rows: list[dict]) -> list[str]:
    """Section that compares a device with the CPU."""
    chosen = [r for r in newest(r for r in rows if r["what"] == "check") if r["device"] != "cpu"]
    if not chosen:
        return []
    lines = []
    for row in chosen:
        if "error" in row:
            lines.append([row["algorithm"], "no", row["error"], *[None] * 6])
            continue
        lines.append(
            [
                row["algorithm"] + " †" * record.stale(row),
                "yes" if row["passed"] else "no",
                f"{row['difference']:.1e}",
                f"{row['tolerance']:.0e}",
                f"{row['difference_default']:.1e}",
                *(YES_NO.get(row.get(x)) for x in VERDICTS),
            ]
        )
    return [
        f"## Checked on one {chosen[0]['device']}",
        "Difference of parameters between the device and the CPU after ten updates in float32,"
        " relative to their change; the same with the default precision of matrix products (TF32);"
        " whether a run resumes bit for bit after its state was copied to the host and back;"
        " whether an exported policy has the same actions; whether two seeds differ in parameters,"
        " actions and environments; and whether one program of twice as many iterations gives"
        " the same bits, which is not required: XLA tunes each program separately.",
        grid(
            "algorithm|passed|difference|tolerance|default precision|resumes|exports"
            "|seeds differ|one program",
            lines,
        ),
    ]


def current() -> str:
    """The page of the recorded rows."""
    return render(record.rows(record.ACCELERATOR))


def write(page: Path = PAGE) -> None:
    """Render the page from the recorded rows."""
    page.write_text(current())
