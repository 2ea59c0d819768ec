"""Recorded rows as Markdown tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence

from scripts import cells, pictures, record

LIMITATIONS = tomllib.loads((record.FOLDER / "limitations.toml").read_text())
GOALS = cells.goals()

SPACE = "\N{NO-BREAK SPACE}"  # in figures, which are hard to read when broken into lines
NUMBER = re.compile(r"[-+]?\d[\d.,]*(e-\d+)?[kM]?(\s.*)?$")

Cell = Callable[[dict], object]


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
    ends = f",{SPACE}".join(map(number, row.get(name, ())))
    return number(row["value"]) + (f" [{ends}]" if ends else "")


def limitation(table: str) -> Cell:
    """What was changed in the preset, a known limitation, and a note about the row.

    Limitations are of an algorithm and environment, or also of a number of seeds.
    """
    texts = LIMITATIONS[table]

    def cell(row: dict) -> str:
        changed = row.get("changed", {}).items()
        parts = [f"{name}={value}" for name, value in changed if name != "total_steps"]
        name = f"{row['algorithm']} {row['environment']}"
        names = [] if "library" in row else [name, f"{name} seeds={row.get('seeds')}"]
        found = [texts[name] for name in names if name in texts]
        found += [row["note"]] if "note" in row else []
        return "; ".join([*([", ".join(parts)] if parts else []), *found])

    return cell


def goal(row: dict) -> str:
    """The goal of the IQM of a preset, and in brackets that of the worst seed."""
    wanted = _goal(row)
    return _both(wanted.value, wanted.worst)


def missed(row: dict) -> str:
    """By how much a row misses its goals, in the same form; "met", or nothing without a goal."""
    wanted = _goal(row)
    if wanted.value is None:
        return ""
    by = wanted.missed(row)
    return _both(by.get("IQM"), by.get("worst")) or "met"


def _goal(row: dict) -> cells.Goal:
    if row.get("changed") or "library" in row:
        return cells.Goal()
    return GOALS.get((row["algorithm"], row["environment"]), cells.Goal())


def _both(value: float | None, worst: float | None) -> str:
    parts = [number(value)] if value is not None else []
    return " ".join([*parts, f"({number(worst)})"] if worst is not None else parts)


def algorithm(row: dict) -> str:
    """The algorithm, its kind of work, and the library if it is not this one."""
    text = f"{row['library']}: " if "library" in row else ""
    return f"{text}`{row['algorithm']}`" + (f", {row['kind']}" if "kind" in row else "")


def grid(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table, with columns of equal widths except for the last one.

    Columns of numbers are aligned to the right.
    """
    body = [[str(x) for x in line] for line in lines]
    columns = list(zip(names, *body, strict=True))
    widths = [*(max(3, *map(len, column)) for column in columns[:-1]), 3]
    right = [
        any(column[1:]) and all(map(NUMBER.match, filter(None, column[1:]))) for column in columns
    ]

    def shown(cells: Sequence[str]) -> str:
        sides = zip(cells, widths, right, strict=True)
        return f"| {' | '.join(x.rjust(n) if y else x.ljust(n) for x, n, y in sides)} |"

    bars = ("-" * (n + 1) + (":" if x else "-") for n, x in zip(widths, right, strict=True))
    return "\n".join([shown(names), f"|{'|'.join(bars)}|", *map(shown, body)])


def table(
    chosen: Iterable[dict],
    columns: dict[str, Cell],
    old: Callable[[dict], bool] = record.stale,
    notes: Cell | None = None,
) -> str:
    """A table with the version, and † where the row is stale.

    If all rows are stale, the name of the column has the only †.

    Args:
        columns: name -> what it shows of a row.
        old: whether a row is stale.
        notes: a row -> settings and limitations, which are listed below the table; the first column
            refers to them by number.
    """
    chosen = list(chosen)
    ages = [old(row) for row in chosen]
    every = len(chosen) > 1 and all(ages)
    marks = [" †" * (age and not every) for age in ages]
    names = [*columns, "version, all †" if every else "version"]
    lines = [
        [*(column(row) for column in columns.values()), row["version"] + mark]
        for row, mark in zip(chosen, marks, strict=True)
    ]
    texts = [str(notes(row)) if notes else "" for row in chosen]
    listed = list(dict.fromkeys(filter(None, texts)))
    for line, text in zip(lines, texts, strict=True):
        line[0] = f"{line[0]} <sup>{listed.index(text) + 1}</sup>" if text else line[0]
    below = "\n".join(f"{number}. {text}" for number, text in enumerate(listed, start=1))
    return "\n\n".join(filter(None, (grid(names, lines), below)))


def marked(page: str) -> tuple[int, int]:
    """The number of rows in the tables of a page but for published figures, and of those with †."""
    count = daggers = 0
    for found in re.findall(r"(?m)^\|.*\|\n\|---.*\n(?:\|.*\|\n?)+", page):
        head, _, *lines = found.strip().splitlines()
        if "published" not in head or "version" in head:
            count += len(lines)
            daggers += len(lines) if "all †" in head else sum("†" in line for line in lines)
    return count, daggers


def picture(name: str, text: str) -> str:
    """A picture of the page, with its vector format; empty if it has no rows."""
    if not pictures.DRAWN[name]():
        return ""
    return f"![{text}](pictures/{name}.png)\n\n([vector format](pictures/{name}.svg))"
