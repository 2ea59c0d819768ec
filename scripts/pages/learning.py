"""Learning: scores of greedy policies."""

from __future__ import annotations

from scripts import pictures, record
from scripts.pages.tables import (
    SPACE,
    Cell,
    algorithm,
    goal,
    grid,
    limitation,
    missed,
    number,
    picture,
    spread,
    table,
)

PUBLISHED = pictures.PUBLISHED
WHAT = (
    "A seed's score is the mean undiscounted return of its greedy policy in sampled episodes, with"
    " different start states for each seed. IQM is the interquartile mean over seeds, with its 95 %"
    " bootstrap interval; that of up to five seeds is about their range, and contains the true"
    " value less often. Seeds differ from those that were used to tune presets."
)


def newest() -> list[dict]:
    """One row for each preset; for each number of steps of other settings and kinds of work.

    It is the newest row; or the newest that is not stale, if there is any. Rows are ordered by
    environment; presets precede others, and higher scores lower ones.
    """
    same = ("algorithm", "environment", "library", "kind", "changed")
    found: dict[str, dict] = {}
    for row in record.rows(record.FOLDER / "learning.jsonl"):
        values = [row.get(name) for name in same]
        key = repr([*values, row["steps"] if any(values[2:]) else None])
        known = found.get(key)
        replaced = known is None or record.stale(known) or not record.stale(row)
        if row["algorithm"] != "random" and replaced:
            found[key] = row
    order = list(dict.fromkeys([*PUBLISHED, *(row["environment"] for row in found.values())]))

    def place(row: dict) -> tuple:
        own = any(row.get(name) for name in same[2:])
        return order.index(row["environment"]), own, -row["value"]

    return sorted(found.values(), key=place)


def best(every: list[dict]) -> list[dict]:
    """The preset with the highest IQM on each environment, of those that are not stale if any.

    Of equal ones it is that with the better worst seed, or else with fewer steps.
    """
    presets = [
        row for row in every if not (row.get("changed") or "library" in row or "kind" in row)
    ]
    found = {}
    for row in presets:
        worst = row.get("worst", float("-inf"))
        rank = (not record.stale(row), row["value"], worst, -row["steps"])
        env = row["environment"]
        if env not in found or rank > found[env][0]:
            found[env] = rank, row
    return [row for _, row in found.values()]


def episodes(row: dict) -> int | None:
    """Episodes per seed; None if they were not recorded."""
    return row["episodes"] // row["seeds"] if "episodes" in row else None


def sample(row: dict) -> str:
    """Seeds x episodes per seed."""
    count = episodes(row)
    return SPACE.join([str(row["seeds"]), "x", f"{count:,}"]) if count else str(row["seeds"])


def limited(row: dict) -> str:
    """Settings and limitations; also the search for the preset, where its size was recorded, and
    whether a score is above the optimum, by chance."""
    notes = [limitation("learning")(row)]
    if row.get("tried"):
        notes.append(f"the best of {row['tried']} configurations with other seeds")
    best = PUBLISHED.get(row["environment"], {}).get("optimum")
    if best is not None and row["value"] > best:
        notes.append(f"above the optimum by chance: {episodes(row)} episodes per seed")
    return "; ".join(filter(None, notes))


def optimum(row: dict) -> str:
    """The return of an optimal policy, where it is known."""
    return number(PUBLISHED.get(row["environment"], {}).get("optimum"))


def reported(row: dict) -> str:
    """The best score that others report, with its steps if they are others or unknown."""
    scores = PUBLISHED.get(row["environment"], {}).get("scores", ())
    if not scores:
        return ""
    top = max(scores, key=lambda score: score["value"])
    same = "steps" in top and pictures.count(top["steps"]) == pictures.count(row["steps"])
    return f"{top['source']} {number(top['value'])}" + ("" if same else f" ({steps(top)})")


def steps(score: dict) -> str:
    """The steps of a published score."""
    return pictures.count(score["steps"]) if "steps" in score else "steps unknown"


SCORE: dict[str, Cell] = {
    "steps": lambda row: pictures.count(row["steps"]),
    "IQM [95 % interval]": spread,
    "worst seed": lambda row: number(row.get("worst")),
}


def summary() -> list[str]:
    """The best preset of each environment."""
    columns: dict[str, Cell] = {
        "environment": lambda row: pictures.title(row["environment"]),
        "preset": algorithm,
        **SCORE,
        "worst seed": lambda row: f"{number(row.get('worst'))} of{SPACE}{row['seeds']}".strip(),
        "optimum": optimum,
        "best published": reported,
    }
    return [
        "## Learning",
        f"{WHAT} For each environment, the table has the preset with the highest IQM,"
        " of those measured with the current code where there are any, the optimum where it is"
        " known, and the best published score, with its steps if they are others or unknown."
        " [All scores](learning.md): every preset, changed settings, Brax, goals.",
        picture("scoreboard", "scores between those of random actions and the best known"),
        table(best(newest()), columns, notes=limited),
    ]


def family(env: str) -> str:
    """The heading below which an environment is shown."""
    if PUBLISHED.get(env, {}).get("tabular"):
        return "Tabular algorithms"
    if env.endswith("-MinAtar"):
        return "MinAtar"
    if env.startswith("brax/"):
        return "Brax"
    if PUBLISHED.get(env, {}).get("memory"):
        return "Memory"
    if env.endswith(("-bsuite", "-misc")):
        return "Other environments of gymnax"
    return "Classic control"


TEXTS = {
    "Brax": "*Equal updates*: both libraries make the same steps, updates and networks"
    " (`scripts/benchmark_brax.py`).",
    "Tabular algorithms": "Also mean returns of sampled episodes, not exact values.",
}


def page() -> list[str]:
    """All scores."""
    every = newest()
    columns: dict[str, Cell] = {
        "algorithm": algorithm,
        **SCORE,
        "seeds x episodes": sample,
        "goal (worst)": goal,
        "missed by": missed,
    }
    goals = "Goals are of the IQM, and in brackets of the worst seed."
    parts = [
        "# Learning",
        f"{WHAT} {goals}",
        "Training returns, IQM over seeds with its 95 % interval; dashed: †.",
        picture("curves", "training returns by environment steps"),
    ]
    for name in dict.fromkeys(family(row["environment"]) for row in every):
        parts += [f"## {name}", TEXTS.get(name, "")]
        for env in dict.fromkeys(row["environment"] for row in every):
            if family(env) == name:
                chosen = [row for row in every if row["environment"] == env]
                parts += [f"### {env}", table(chosen, columns, notes=limited)]
    optima = (
        "Optima are returns of policies that know how many steps are left: of tables, the largest"
        " ones; of MountainCar, MountainCarContinuous and Pendulum, those of policies that are"
        " optimal on a grid of states ([all of them](theory.md))."
    )
    return [*parts, "## Scores that others report, and optima", optima, published()]


def published() -> str:
    """The table of published scores."""
    lines = []
    for env, found in PUBLISHED.items():
        texts = [
            f"{score['source']} {number(score['value'])} ({steps(score)})"
            for score in found.get("scores", ())
        ]
        if texts or "optimum" in found:
            lines.append((env, number(found.get("optimum")), ", ".join(texts)))
    return grid(["environment", "optimum", "published (steps)"], lines)
