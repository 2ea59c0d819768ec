"""Points to try: which hyperparameters, at which values. A point is {field: value}.

grid(learning_rate=[1e-4, 1e-3], tau=[0.005, 0.01])  # four points
sampled(sobol(32, 2), learning_rate=log_uniform(1e-4, 1e-2), gamma=uniform(0.9, 0.999))
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from purejaxrl_sac.config import Config, ConfigError, unknown, validate

Point = dict[str, Any]
Scale = Callable[[float], float]  # from [0, 1) to values, and it grows


def grid(**values: Sequence) -> list[Point]:
    """Every combination; the last field varies fastest."""
    names = list(values)
    return [dict(zip(names, x, strict=True)) for x in itertools.product(*values.values())]


def uniform(low: float, high: float) -> Scale:
    """Every value is as likely."""
    _check_range(low, high)
    return lambda u: low + u * (high - low)


def log_uniform(low: float, high: float) -> Scale:
    """Every order of magnitude is as likely.

    Raises:
        ConfigError: not 0 < low < high.
    """
    _check_range(low, high)
    if low <= 0:
        raise ConfigError(f"{low:g} has no logarithm: begin above zero, or say :linear")
    return lambda u: low * (high / low) ** u


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"a range goes from low to high, not from {low:g} to {high:g}")


def random(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Independent uniform draws, [count, dimensions]."""
    return np.random.default_rng(seed).random((count, dimensions))


def sobol(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """A scrambled Sobol sequence, [count, dimensions]: even in every projection, most of all for
    powers of two (Owen 1998)."""
    from scipy.stats import qmc

    power = max(0, math.ceil(math.log2(count)))  # scipy warns where it is asked for another number
    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)[:count]


def sampled(cube: np.ndarray, **scales: Scale) -> list[Point]:
    """Points of the unit cube [points, fields], each coordinate on the scale of its field."""
    return [
        {name: float(scale(u)) for (name, scale), u in zip(scales.items(), row, strict=True)}
        for row in cube
    ]


def traced(config: Config) -> set[str]:
    """The fields that may differ between lanes of one program."""
    return {
        field.name
        for field in dataclasses.fields(config)
        if field.metadata.get("pytree_node", True) and isinstance(getattr(config, field.name), Real)
    }


def checked(config: Config, points: Sequence[Point]) -> list[Point]:
    """Points with values of their fields' types, one program's together, otherwise in order.

    Raises:
        ConfigError: an unknown field, a value that cannot be, or no point at all.
    """
    if not points:
        raise ConfigError("a sweep needs at least one point")
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    made = []
    for point in points:
        if point.keys() != points[0].keys():
            raise ConfigError("every point of a sweep has the same fields")
        typed = {}
        for name, value in point.items():
            if name not in fields or name in ("algorithm", "env", "env_params", "wrappers"):
                swept = sorted(fields.keys() - {"algorithm", "env", "env_params", "wrappers"})
                raise unknown("hyperparameter", name, swept)
            typed[name] = _typed(name, value, fields[name])
        validate(config.replace(**typed))
        if typed not in made:
            made.append(typed)
    programs = list(dict.fromkeys(shape_of(config, point) for point in made))
    return sorted(made, key=lambda point: programs.index(shape_of(config, point)))


def shape_of(config: Config, point: Point) -> tuple:
    """What of a point is compiled into its program: the values of its static fields."""
    return tuple((name, x) for name, x in sorted(point.items()) if name not in traced(config))


def variants(config: Config, points: Sequence[Point]) -> dict[str, list]:
    """What lanes of one program differ in: traced field -> its value in each point."""
    names = sorted(traced(config) & points[0].keys())
    return {name: [point[name] for point in points] for name in names}


def at_once(lanes: int, seeds: int) -> int:
    """How many points so many lanes are enough for.

    Raises:
        ConfigError: not even for one.
    """
    if lanes < seeds:
        raise ConfigError(
            f"lanes is {lanes}, but a point takes {seeds}, one for each seed: raise lanes or lower"
            " seeds"
        )
    return lanes // max(1, seeds)


def _typed(name: str, value: Any, like: Any) -> Any:
    """A value, or words of a command line, as the type of a field's default."""
    try:
        if isinstance(like, tuple):
            parts = value.split("x") if isinstance(value, str) else value
            return tuple(int(part) for part in parts)
        if isinstance(like, bool):
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(like, int):
            number = float(value)
            if isinstance(value, str) and not number.is_integer():
                raise ValueError
            return round(number)
        if isinstance(like, float):
            return float(value)
        if isinstance(like, str) and not isinstance(value, str):
            raise TypeError
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ConfigError(f"{name} is {value!r}, but takes values like {like!r}") from None
    return value
