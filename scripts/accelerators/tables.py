"""Rich tables of recorded rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.accelerators import fitting
from scripts.record import identity, stale


def newest(rows: Iterable[dict]) -> list[dict]:
    """The newest row of each identity (ignoring its code), in the order of first appearance."""
    found = {}
    for row in rows:
        found[identity({**row, "code": ""})] = row
    return list(found.values())


def show(rows: list[dict], commands: list[str]) -> None:
    """Print the tables of these commands; all of them for `table`."""
    tables: dict[str, Callable] = {"compile": compiled, "measure": measured, "check": checked}
    console = Console()
    console.width = max(console.width, 170)
    for command, table in tables.items():
        if command in commands or "table" in commands:
            for each in table(rows):
                console.print(each)


def make(title: str, columns: str, caption: str = "") -> Table:
    """An empty table; column names are separated by bars, all but the first are numbers."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for position, column in enumerate(columns.split("|")):
        table.add_column(column, justify="left" if position < 1 else "right", no_wrap=position < 1)
    return table


def add_error(table: Table, row: dict) -> None:
    """Append the error of a row to the caption of a table."""
    seeds = f", {row['seeds']} seeds" if "seeds" in row else ""
    table.caption = f"{table.caption}\n{name(row)}{seeds}: {escape(row['error'])}".strip()


def name(row: dict) -> str:
    """A description of the work of a row."""
    library = f"{row['library']}: " if "library" in row else ""
    return f"{library}{row['algorithm']} {row['environment']}, {row.get('kind', '')}".strip(", ")


def version(row: dict, old: bool | None = None) -> str:
    """The version of a row, with † if it is old; by default, if its code has changed."""
    old = stale(row) if old is None else old
    return row["version"] + " †" * old


def amount(size: float | None) -> str:
    """Format bytes in a readable unit."""
    if size is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def text(value: object) -> str:
    """Format a cell, empty for None."""
    if isinstance(value, float):
        return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def compiled(rows: list[dict]) -> Iterable[Table]:
    """One table per target."""
    fit = fitting.newest(rows)
    chosen = newest(row for row in rows if row["what"] == "compile")
    for device in dict.fromkeys(row["device"] for row in chosen):
        predicted = f"; µs: predicted by the fit for {fit['device']}" if fit else ""
        table = make(
            f"Compiled for {device}",
            "work|seeds|kernels|per update|per step|other|copies|temporaries|state|per seed"
            f"|Mflop|moved|compile s{'|µs' if fit else ''}",
            "kernels: per iteration, each cond as its largest branch; Mflop and moved count the"
            f" body of each loop once{predicted}",
        )
        for row in chosen:
            if row["device"] != device:
                continue
            if "error" in row:
                add_error(table, row)
                continue
            cells = [row.get(x) for x in ("kernels", "per_update", "per_step", "outside", "copies")]
            sizes = [row.get(x) for x in ("temp_bytes", "state_bytes", "bytes_per_seed")]
            last = [row["flops"] / 1e6, amount(row["bytes_moved"]), row["compile_seconds"]]
            if fit:
                last.append(fitting.predicted(fit, row))
            cells = [row["seeds"], *cells, *map(amount, sizes), *last]
            table.add_row(name(row), *map(text, cells))
        yield table


def measured(rows: list[dict]) -> Iterable[Table]:
    """One table per device: curve, profile and fit."""
    curves = newest(row for row in rows if row["what"] == "curve")
    profiles = {identity({**r, "what": "", "code": ""}): r for r in rows if r["what"] == "profile"}
    for device in dict.fromkeys(row["device"] for row in curves):
        fit = fitting.newest(row for row in rows if row["device"] == device)
        table = make(
            f"Measured on {device}",
            "work|seeds|µs|µs per kernel|kernels|launched|busy µs|steps/s|temporaries|flags",
            fitting.sentence(fit) if fit else "",
        )
        knees = fitting.knees([row for row in curves if row["device"] == device])
        for row in (row for row in curves if row["device"] == device):
            if "error" in row:
                add_error(table, row)
                continue
            profile = profiles.get(identity({**row, "what": "", "code": ""}), {})
            knee = knees.get(fitting.key(row)) == row["seeds"] and not row["flags"]
            each = f"{row['us_per_kernel']:.2f}" if "us_per_kernel" in row else None
            cells = [row["us_per_iteration"], each, row.get("kernels")]
            cells += [profile.get("launched"), profile.get("busy_us"), row["steps_per_second"]]
            cells += [amount(row.get("temp_bytes")), row["flags"].replace("--xla_gpu_", "")]
            seeds = f"knee {row['seeds']:,}" if knee else f"{row['seeds']:,}"
            table.add_row(name(row), seeds, *map(text, cells))
        yield table


def checked(rows: list[dict]) -> Iterable[Table]:
    """One table per device."""
    chosen = newest(row for row in rows if row["what"] == "check")
    for device in dict.fromkeys(row["device"] for row in chosen):
        table = make(
            f"Checked on {device} against the CPU",
            "work|passed|difference|tolerance|of a rounding error|default precision"
            "|resumes|exports|seeds differ|seconds",
            "difference: of parameters after ten updates, relative to their change",
        )
        for row in (row for row in chosen if row["device"] == device):
            if "error" in row:
                add_error(table, row)
                continue
            if "export_error" in row:
                add_error(table, {**row, "error": row["export_error"]})
            figures = ("difference", "tolerance", "rounding", "difference_default")
            cells = [f"{row[x]:.1e}" for x in figures]
            cells += [str(row[x]) for x in ("continues", "exports", "seeds_differ", "seconds")]
            table.add_row(name(row), "yes" if row["passed"] else "[red]no[/]", *cells)
        yield table
