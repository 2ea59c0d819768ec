"""Theory: values that are known, and what the package computes."""

from __future__ import annotations

from pathlib import Path

from scripts import record
from scripts.pages.tables import SPACE, rows, table


def cases() -> list[dict]:
    """All values."""
    return rows("theory", "theory", ("kind",))


def script(row: dict) -> str:
    """The script that computed a value."""
    return next((Path(word).name for word in row["command"].split() if word.endswith(".py")), "")


def groups() -> list[dict]:
    """The values of each script: their number, and their largest difference from what is known."""
    found: dict[str, list[dict]] = {}
    for row in cases():
        if "expected" in row:
            found.setdefault(script(row), []).append(row)
    return [
        {
            "script": name,
            "cases": len(of),
            "difference": max(abs(row["value"] - row["expected"]) for row in of),
            "errors": max(
                (
                    abs(row["value"] - row["expected"]) / row["error"]
                    for row in of
                    if row.get("error")
                ),
                default=None,
            ),
            "version": max((row["version"] for row in of), key=record.release),
            "stale": any(map(record.stale, of)),
        }
        for name, of in found.items()
    ]


def summary() -> list[str]:
    """The values of each script."""
    if not cases():
        return []
    return [
        "## Theory",
        "Values that are known exactly, published or simulated by other code, and what the package"
        " computes. [All values](theory.md).",
        table(
            groups(),
            {
                "script": lambda row: f"`{row['script']}`",
                "values": lambda row: row["cases"],
                "largest difference": lambda row: f"{row['difference']:.2g}",
                "in standard errors": lambda row: (
                    f"{row['errors']:.1f}" if row["errors"] else "computed, not sampled"
                ),
            },
            old=lambda row: row["stale"],
        ),
    ]


def page() -> list[str]:
    """All values."""
    return [
        "# Theory",
        "Values that are known exactly, published or simulated by other code, and what the package"
        " computes, ± the standard error of the difference where they are sampled.",
        table(
            cases(),
            {
                "case": lambda row: row["kind"],
                "value": value,
                "expected": lambda row: f"{row['expected']:g}" if "expected" in row else "",
            },
        ),
    ]


def value(row: dict) -> str:
    """A value; one that was sampled has the decimals of its standard error."""
    if "error" not in row:
        return f"{row['value']:g}"
    error = f"{row['error']:f}".rstrip("0")
    decimals = len(error.partition(".")[2])
    return SPACE.join((f"{row['value']:.{decimals}f}", "±", error))
