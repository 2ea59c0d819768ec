"""Pictures of the recorded rows, as PNG and SVG in `scripts/results/pictures/`.

Each picture names the digest of what it shows, so that an outdated one is found without drawing.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from purejaxrl_sac.agents import ALGORITHMS
from scripts import record

FOLDER = record.FOLDER / "pictures"
PUBLISHED = tomllib.loads((record.FOLDER / "published.toml").read_text())
WIDTH = 7.0  # inches: the text width of a page
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "purejaxrl_sac",
    "svg.fonttype": "none",
}
OURS, PEER, DARK = "#0b5fa5", "#b0b0b0", "#606060"
EARLIER = "measured with earlier code"
BOARD = (  # two columns of environments
    (
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
        *("Catch-bsuite", "FourRooms-misc", "DeepSea-bsuite"),
    ),
    (
        *("Pendulum-v1", "MountainCarContinuous-v0", "Breakout-MinAtar", "Asterix-MinAtar"),
        *("Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar"),
        *("CartPole-positions", "Pendulum-positions", "t_maze_20"),
        "MemoryChain-bsuite(memory_length=30)",
    ),
)
MOST = 1.3  # larger shares are written beside the edge

Data = list[dict[str, Any]]


def count(steps: float) -> str:
    """A number of steps with a unit."""
    value, unit = (steps / 1e6, "M") if steps >= 1e6 else (steps / 1e3, "k")
    return f"{value:.3g}{unit}"


def title(environment: str) -> str:
    """The name of an environment, without those of its parameters: "MemoryChain-bsuite (30)"."""
    return re.sub(r"\(\w+=", " (", environment)


# --- what is shown ---


def scoreboard() -> Data:
    """Presets' scores: 0 is that of random actions, 1 the optimum or a larger published one."""
    rows = record.rows(record.FOLDER / "learning.jsonl")
    random = {row["environment"]: row["value"] for row in rows if row["algorithm"] == "random"}
    found = {}
    for row in rows:
        env = row["environment"]
        if row["algorithm"] == "random" or row.get("changed") or "library" in row:
            continue
        if env not in random or env not in PUBLISHED:
            continue
        scores = PUBLISHED[env].get("scores", ())
        optimum = [PUBLISHED[env]["optimum"]] if "optimum" in PUBLISHED[env] else []
        best = max([*optimum, *(score["value"] for score in scores)], default=None)
        if best is None:
            continue
        share = [(x - random[env]) / (best - random[env]) for x in (row["value"], *row["interval"])]
        found[row["algorithm"], env] = {
            "algorithm": row["algorithm"],
            "environment": env,
            "steps": row["steps"],
            "share": [round(x, 4) for x in share],
            "stale": record.stale(row),
        }
    return list(found.values())


def curves() -> Data:
    """Training returns by steps, of the newest row with a curve of each algorithm and environment.

    Of the environments of the scoreboard, in its order.
    """
    shown = [env for column in BOARD for env in column]
    found = {}
    for row in record.rows(record.FOLDER / "learning.jsonl"):
        if len(row.get("curve", {}).get("steps", ())) > 1 and row["environment"] in shown:
            key = row["algorithm"], row["environment"]
            found[key] = {
                "algorithm": row["algorithm"],
                "environment": row["environment"],
                "seeds": row["seeds"],
                **row["curve"],
                "stale": record.stale(row),
            }
    return sorted(found.values(), key=lambda row: shown.index(row["environment"]))


def speed() -> Data:
    """Rows of speed that were measured together with a peer."""
    found = {}
    for row in record.rows(record.FOLDER / "speed.jsonl"):
        if row["what"] == "speed" and "peer_us" in row:
            found[row["algorithm"], row["seeds"], row["buffer"]] = {
                **{x: row[x] for x in ("algorithm", "environment", "seeds", "buffer")},
                "us": [row["value"], row["peer_us"]],
                "peer": row["peer"],
                "stale": record.stale(row),
            }
    return list(found.values())


def kernels() -> Data:
    """Kernels per iteration of programs that were also compiled by a peer."""
    found: dict[tuple, dict] = {}
    for row in record.rows(record.ACCELERATOR):
        if row["what"] == "compile" and "kernels" in row and row.get("kind") == "one update":
            key = row["algorithm"], row["environment"], row["seeds"], row["device"]
            library = row.get("library", "ours")
            found.setdefault(key, {})[library] = row["kernels"]
            if library == "ours":
                found[key]["stale"] = record.stale(row)
    names = ("algorithm", "environment", "seeds", "device")
    return [
        {**dict(zip(names, key, strict=True)), **x}
        for key, x in found.items()
        if "ours" in x and len(x) > 2
    ]


# --- pictures ---


def draw_scoreboard(data: Data) -> Any:
    figure = _figure(height=5.2)
    for axes, environments in zip(figure.subplots(1, 2), BOARD, strict=True):
        labels, heights, y = [], [], 0.0
        for env in environments:
            rows = [row for row in data if row["environment"] == env]
            if not rows:
                continue
            axes.text(-0.03, y, title(env), ha="right", va="center", weight="bold", fontsize=7.5)
            y += 1
            for row in sorted(rows, key=lambda row: -row["share"][0]):
                value, low, high = (min(x, MOST) for x in row["share"])
                fill = "white" if row["stale"] else OURS
                axes.plot([low, high], [y, y], color=OURS, linewidth=1.4)
                mark = {"markerfacecolor": fill, "markersize": 4.5, "clip_on": False}
                axes.plot(value, y, "o", color=OURS, **mark)
                if row["share"][0] > MOST:
                    text = f"{row['share'][0]:.1f}"
                    axes.text(MOST + 0.05, y, text, va="center", fontsize=7)
                labels.append(f"{row['algorithm']}, {count(row['steps'])}")
                heights.append(y)
                y += 1
            y += 0.4
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xlim=(0, MOST), ylim=(y - 0.4, -0.8), yticks=heights, yticklabels=labels)
        axes.tick_params(axis="y", length=0, labelsize=7)
        axes.grid(axis="x", alpha=0.25)
    text = "score after the given steps: 0 is random, 1 the optimum or a larger published score"
    figure.supxlabel(text, fontsize=8)
    _legend_of_ages(figure, data)
    return figure


def panels_of(data: Data, most: int = 5) -> list[tuple[str, Data]]:
    """Curves by environment; an environment with many has several panels, with alike algorithms.

    Args:
        most: curves of a panel.

    Returns:
        The title and the rows of each panel.
    """
    found = []
    for env in dict.fromkeys(row["environment"] for row in data):
        rows = [row for row in data if row["environment"] == env]
        rows.sort(key=lambda row: list(ALGORITHMS).index(row["algorithm"]))
        number = -(-len(rows) // most)
        size = -(-len(rows) // number)
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        for i, part in enumerate(parts, start=1):
            name = title(env)
            found.append((f"{name} ({i} of {number})" if number > 1 else name, part))
    return found


def draw_curves(data: Data) -> Any:
    from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator

    found = panels_of(data)
    columns = max(1, min(3, len(found)))
    figure = _figure(height=3 * -(-len(found) // columns))
    panels = figure.subplots(-(-len(found) // columns), columns, squeeze=False).ravel()
    for axes, (heading, rows) in zip(panels, found, strict=False):
        for row in rows:
            style = "--" if row["stale"] else "-"
            label = row["algorithm"] + " †" * row["stale"]
            (line,) = axes.plot(row["steps"], row["value"], style, label=label)
            axes.fill_between(
                row["steps"], row["low"], row["high"], color=line.get_color(), alpha=0.25, lw=0
            )
        axes.set(xlabel="environment steps")
        axes.set_title(heading, fontsize="medium")
        same = [row for row in data if row["environment"] == rows[0]["environment"]]
        last = [row["steps"][-1] for row in same]
        if max(last) > 2.5 * min(last):
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: count(x) if x else "0")
        low, high = min(min(row["low"]) for row in same), max(max(row["high"]) for row in same)
        if len(same) > len(rows):  # panels of one environment have the same axes
            margin = 0.05 * (high - low)
            axes.set_ylim(low - margin, high + margin)
            axes.set_xlim(min(row["steps"][0] for row in same), max(last))
        if high < 0 and low < 3 * high:  # a linear axis would hide how curves end
            axes.set_yscale("symlog", linthresh=-high)
            axes.yaxis.set_major_locator(
                SymmetricalLogLocator(base=10, linthresh=-high, subs=(1, 2, 5))
            )
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_ylim(1.1 * low, high / 1.1)
        if axes.get_xscale() == "log":
            low, high = axes.get_xlim()
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
            axes.xaxis.set_minor_formatter(NullFormatter())  # its labels overlap
        axes.legend(  # below the axis, where it covers no curve
            frameon=False, fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.24)
        )
        axes.grid(alpha=0.25)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    for axes in panels[: len(found) : columns]:
        axes.set_ylabel("training return")
    return figure


def draw_speed(data: Data) -> Any:
    figure = _figure(height=2.6)
    axes = figure.subplots()
    rows = sorted(data, key=lambda row: (row["algorithm"], row["seeds"], row["buffer"]))
    for i, row in enumerate(rows):
        ours, peer = row["us"]
        fill = "white" if row["stale"] else OURS
        axes.plot([i, i], row["us"], color=PEER, linewidth=1, zorder=1)
        axes.plot(i, ours, "o", color=OURS, markerfacecolor=fill)
        axes.plot(i, peer, "s", color=DARK)
        for value in row["us"]:
            axes.text(i + 0.12, value, f"{value:,.0f}", va="center", fontsize=7)
    stale = all(row["stale"] for row in rows)
    axes.plot(
        [], [], "o", color=OURS, markerfacecolor="white" if stale else OURS, label=_ours(stale)
    )
    axes.plot([], [], "s", color=DARK, label=rows[0]["peer"])
    axes.legend(frameon=False, fontsize=7, loc="lower right", ncols=2)
    sizes = [f"{_plural(row['seeds'])}\n{count(row['buffer'])}" for row in rows]
    axes.set_xticks(range(len(rows)), sizes)
    axes.set(yscale="log", ylim=(60, 6_000), ylabel="µs per iteration and seed")
    axes.set_yticks((100, 1_000), ("100", "1,000"))
    axes.grid(axis="y", alpha=0.25)
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        places = [i for i, row in enumerate(rows) if row["algorithm"] == name]
        text = f"{name.upper()}, {rows[places[0]]['environment']}"
        axes.text((places[0] + places[-1]) / 2, 6_500, text, ha="center", weight="bold")
    axes.set_xlabel("seeds in one program, and rows of the replay memory; two cores of a CPU")
    return figure


def draw_kernels(data: Data) -> Any:
    figure = _figure(height=2.2, width=WIDTH / 2)
    axes = figure.subplots()
    (peer,) = {name for row in data for name in row if name.startswith("rejax")}
    for i, row in enumerate(data):
        fill = "white" if row["stale"] else OURS
        axes.bar(i - 0.2, row["ours"], 0.36, facecolor=fill, edgecolor=OURS)
        axes.bar(i + 0.2, row[peer], 0.36, color=PEER)
        for x, value in ((i - 0.2, row["ours"]), (i + 0.2, row[peer])):
            axes.text(x, value, value, ha="center", va="bottom", fontsize=7)
    stale = all(row["stale"] for row in data)
    axes.bar(0, 0, facecolor="white" if stale else OURS, edgecolor=OURS, label=_ours(stale))
    axes.bar(0, 0, color=PEER, label=peer)
    axes.legend(frameon=False, fontsize=7, loc="upper left")
    names = [f"{row['algorithm'].upper()}, {row['environment']}" for row in data]
    axes.set_xticks(range(len(data)), names)
    axes.set_ylabel("kernels per iteration")
    axes.set_xlabel(f"{_plural(data[0]['seeds'])}, compiled for an {data[0]['device'].upper()}")
    axes.set_ylim(0, 1.4 * max(row[peer] for row in data))
    return figure


def _figure(height: float, width: float = WIDTH) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _ours(stale: bool) -> str:
    return "purejaxrl_sac" + f", {EARLIER}" * stale


def _legend_of_ages(figure: Any, data: Data) -> None:
    """The meaning of filled and hollow markers, where they occur."""
    from matplotlib.lines import Line2D

    kinds = {False: ("measured with the current code", OURS), True: (EARLIER, "white")}
    handles = [
        Line2D([], [], color=OURS, marker="o", markerfacecolor=fill, markersize=4.5, label=text)
        for old, (text, fill) in kinds.items()
        if any(row["stale"] == old for row in data)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)


def _plural(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


DRAWN: dict[str, Callable[[], Data]] = {
    "scoreboard": scoreboard,
    "curves": curves,
    "speed": speed,
    "kernels": kernels,
}
PAINTERS = {
    "scoreboard": draw_scoreboard,
    "curves": draw_curves,
    "speed": draw_speed,
    "kernels": draw_kernels,
}


# --- files ---


def digest(data: Data) -> str:
    """Identifies what a picture shows, and how."""
    shown = json.dumps(data, sort_keys=True).encode() + Path(__file__).read_bytes()
    return f"rows {hashlib.sha256(shown).hexdigest()[:12]}"


def paths(name: str) -> tuple[Path, Path]:
    return FOLDER / f"{name}.png", FOLDER / f"{name}.svg"


def outdated() -> list[Path]:
    """Pictures that do not show the rows as they are now."""
    wrong = []
    for name, data in DRAWN.items():
        shown = data()
        for path in paths(name):
            if shown and not (path.exists() and digest(shown).encode() in path.read_bytes()):
                wrong.append(path)
            if not shown and path.exists():
                wrong.append(path)
    return wrong


def write() -> None:
    """Draw the pictures that are outdated."""
    import matplotlib as mpl

    FOLDER.mkdir(exist_ok=True)
    wrong = set(outdated())
    for name, data in DRAWN.items():
        shown = data()
        for path in set(paths(name)) & wrong:
            if not shown:
                path.unlink()
                continue
            with mpl.rc_context(STYLE):
                metadata = {"Description": digest(shown)}
                if path.suffix == ".svg":
                    metadata["Date"] = None
                PAINTERS[name](shown).savefig(path, dpi=200, metadata=metadata)
