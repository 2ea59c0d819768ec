"""Cost model: time is proportional to kernels below the knee and to seeds above it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scripts import record

FEW = 8  # numbers of seeds with which a device is mostly idle
SAME = ("device", "jax", "version")


def key(row: dict) -> str:
    """The work of a row, independent of its number of seeds."""
    return f"{row['algorithm']}:{row['environment']}:{row['kind']}"


def curves(rows: Iterable[dict]) -> dict[str, list[dict]]:
    """Rows of each work that were timed without XLA flags, sorted by seeds."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        if row["what"] == "curve" and not row["flags"] and "error" not in row:
            found.setdefault(key(row), []).append(row)
    return {name: sorted(curve, key=lambda row: row["seeds"]) for name, curve in found.items()}


def knees(rows: Iterable[dict]) -> dict[str, int]:
    """For each work, the smallest measured number of seeds with half of the maximum throughput."""
    found = {}
    for name, curve in curves(rows).items():
        most = max(row["steps_per_second"] for row in curve)
        found[name] = next(r["seeds"] for r in curve if r["steps_per_second"] >= most / 2)
    return found


def newest(rows: Iterable[dict]) -> dict | None:
    """The recorded fit of the newest version, the last one if there are several."""
    fits = [row for row in rows if row["what"] == "fit"]
    return max(reversed(fits), key=lambda row: record.release(row["version"]), default=None)


def fit(rows: list[dict]) -> dict | None:
    """Fit the cost per kernel with few seeds, and per seed above the knee; None without curves.

    us = us_per_kernel x kernels, by least squares of relative errors (programs of fifty and of five
    thousand kernels have the same weight); us_per_seed is the slope above the knee (the mean if
    nothing was measured above it).
    """
    counted = [
        row
        for curve in curves(rows).values()
        for row in curve
        if row["seeds"] <= FEW and "kernels" in row
    ]
    if not counted:
        return None
    kernels = np.array([row["kernels"] for row in counted])
    us = np.array([row["us_per_iteration"] for row in counted])
    ratio = kernels / us
    per_kernel = ratio.sum() / (ratio**2).sum()
    knee, slopes = knees(rows), {}
    for name, curve in curves(rows).items():
        above = [row for row in curve if row["seeds"] >= knee[name]]
        us_each = [row["us_per_iteration"] for row in above]
        seeds = [row["seeds"] for row in above]
        slope = np.polyfit(seeds, us_each, 1)[0] if len(above) > 1 else us_each[0] / seeds[0]
        slopes[name] = round(float(slope), 3)
    last = rows[-1]
    return {
        "what": "fit",
        **{name: last[name] for name in (*SAME, "date")},
        "rows": len(counted),
        "us_per_kernel": round(float(per_kernel), 3),
        "relative_error": round(float(np.sqrt(np.mean((per_kernel * ratio - 1) ** 2))), 3),
        "knees": knee,
        "us_per_seed": slopes,
    }


def predicted(fit: dict, row: dict) -> float | None:
    """Predicted microseconds per iteration: the larger of the costs of kernels and of seeds."""
    if "kernels" not in row:
        return None
    seeds = 0.0 if "library" in row else fit["us_per_seed"].get(key(row), 0.0) * row["seeds"]
    return max(fit["us_per_kernel"] * row["kernels"], seeds)


def sentence(fit: dict) -> str:
    """A sentence that describes the fit."""
    slopes = ", ".join(f"{name} {slope:g} µs" for name, slope in fit["us_per_seed"].items())
    return (
        f"fit of {fit['rows']} rows with at most {FEW} seeds: {fit['us_per_kernel']:g} µs per"
        f" kernel, relative error {fit['relative_error']:.0%}; per seed above the knee (the number"
        f" of seeds with half of the maximum throughput): {slopes}"
    )
