"""Points of a sweep or a search: hyperparameters and their values, {field: value}.

grid(learning_rate=[1e-4, 1e-3], tau=[0.005, 0.01])  # four points
sampled(sobol(32, 2), learning_rate=log_uniform(1e-4, 1e-2), gamma=uniform(0.9, 0.999))
grid(**{"env_params.length": [0.5, 1.0]})  # parameters of the environment
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import (
    Config,
    ConfigError,
    bounds_of,
    traced_fields,
    unknown,
    validate,
    whole_number,
)
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.errors import RunWarning

Point = dict[str, Any]  # field -> value
Scale = Callable[[float], float]  # increasing, from [0, 1) to values


class Sample(float):
    """A number drawn from a range, which fields of whole numbers round."""


MAX_POINTS = 100_000
NOT_SWEPT = {"algorithm", "env", "env_params", "wrappers", "curriculum", "dataset"}
COLUMNS = {  # of the tables of sweeps and searches, which have hyperparameters beside them
    *("point", "seed", "seeds", "score", "failed", "iqm", "low", "high", "mean", "worst", "best"),
    *("steps", "member", "parent", "trial"),
}
ENV_PARAMS = "env_params."  # before the names of the environment's parameters


def grid(**values: Sequence[Any]) -> list[Point]:
    """All combinations of values; the last field varies fastest.

    Raises:
        ConfigError: there are more than `MAX_POINTS`, or a value is given twice.
    """
    for name, given in values.items():
        if twice := [x for i, x in enumerate(given) if str(x) in map(str, given[:i])]:
            raise ConfigError(f"{name} has the value {twice[0]} twice: give each value once")
    check_count(math.prod(map(len, values.values())))
    names = list(values)
    return [dict(zip(names, x, strict=True)) for x in itertools.product(*values.values())]


def check_count(count: int) -> None:
    """Raises ConfigError for more points than `MAX_POINTS`, or none."""
    whole_number("points", count, at_least=1, at_most=MAX_POINTS)


def uniform(low: float, high: float) -> Scale:
    """A uniform distribution.

    Raises:
        ConfigError: not low < high.
    """
    _check_range(low, high)
    return lambda u: low + u * (high - low)


def log_uniform(low: float, high: float) -> Scale:
    """A log-uniform distribution: every order of magnitude is equally likely.

    Raises:
        ConfigError: not 0 < low < high.
    """
    _check_range(low, high)
    if low <= 0:
        raise ConfigError(f"{low:g} has no logarithm: start above zero, or append :linear")
    return lambda u: low * (high / low) ** u


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"a range goes from low to high, not from {low:g} to {high:g}")


def random(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Independent uniform draws, [count, dimensions]."""
    check_count(count)
    return np.random.default_rng(seed).random((count, dimensions))


def sobol(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """A scrambled Sobol sequence (Owen 1998), [count, dimensions]; best with powers of two."""
    from scipy.stats import qmc

    check_count(count)
    power = max(0, math.ceil(math.log2(count)))  # scipy warns about other counts
    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)[:count]


def sampled(cube: np.ndarray, **scales: Scale) -> list[Point]:
    """Points from the unit cube, [points, fields], each coordinate mapped by its field's scale.

    Fields of whole numbers round their samples.

    Raises:
        ConfigError: the cube has another number of coordinates than fields.
    """
    if np.shape(cube)[1:] != (len(scales),):
        raise ConfigError(
            f"the cube has shape {[*np.shape(cube)]}, but must be [points, {len(scales)}]: a"
            " coordinate for each field"
        )
    return [
        {name: Sample(scale(u)) for (name, scale), u in zip(scales.items(), row, strict=True)}
        for row in cube
    ]


def at(config: Config, point: Point) -> Config:
    """The configuration of a point.

    Raises:
        ConfigError: the environment has no such parameter.
    """
    params = {k.removeprefix(ENV_PARAMS): x for k, x in point.items() if k.startswith(ENV_PARAMS)}
    config = config.replace(**{k: x for k, x in point.items() if not k.startswith(ENV_PARAMS)})
    if not params:
        return config
    return config.replace(env_params=parameters.changed(config.env, params, config.env_params))


def check_points(config: Config, points: Sequence[Point]) -> list[Point]:
    """Convert values to the types of their fields.

    Returns:
        points in their order, except that those of one program are grouped.

    Raises:
        ConfigError: an unknown field, an invalid value, or no point.
    """
    if not points:
        raise ConfigError("a sweep needs at least one point")
    fields = _defaults(config) | _parameters(config)
    optional = {name for name, bounds in bounds_of(type(config)).items() if bounds.optional}
    valid: list[Point] = []
    for point in points:
        if point.keys() != points[0].keys():
            raise ConfigError("every point of a sweep has the same fields")
        typed = {}
        for name, value in point.items():
            if name in ("seed", "seeds"):
                raise ConfigError(f"{name} is no hyperparameter: all points have the same seeds")
            if name in NOT_SWEPT:
                raise ConfigError(f"{name} cannot be swept: run one sweep for each")
            if name not in fields:
                raise unknown("hyperparameter", name, sorted(fields))
            if name in COLUMNS:
                raise ConfigError(f"{name} is a column of the results: give the field another name")
            none = name in optional and str(value) == "None"
            typed[name] = None if none else _convert(name, value, fields[name])
        validate(at(config, typed))
        valid.append(typed)
    programs = dict.fromkeys(static_values(config, point) for point in valid)
    order = {static: i for i, static in enumerate(programs)}
    return sorted(valid, key=lambda point: order[static_values(config, point)])


def distinct_points(config: Config, points: Sequence[Point]) -> list[Point]:
    """As `check_points`, without duplicates, of which it warns."""
    distinct = list({str(point): point for point in check_points(config, points)}.values())
    if dropped := len(points) - len(distinct):
        text = f"{dropped} of {len(points)} points repeat others: {len(distinct)} are trained"
        warnings.warn(RunWarning(text), stacklevel=3)
    return distinct


def _defaults(config: Config) -> dict[str, Any]:
    """The values of the fields that can be swept, those of real numbers as floats, and numbers in
    place of None."""
    bounds = bounds_of(type(config))
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kind = bounds[field.name].kind if field.name in bounds else field.type
        if value is None and field.name in bounds:
            value = bounds[field.name].kind(1)
        whole = isinstance(value, int) and not isinstance(value, bool)
        found[field.name] = float(value) if whole and kind in (float, "float") else value
    return {name: x for name, x in found.items() if name not in NOT_SWEPT}


def _parameters(config: Config) -> dict[str, Any]:
    """The numbers among the environment's parameters, by their names in points."""
    default = config.env_params
    default = envs.make(config.env).default_params if default is None else default
    if not dataclasses.is_dataclass(default):
        return {}
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    return {f"{ENV_PARAMS}{name}": x for name, x in values.items() if isinstance(x, int | float)}


def static_values(config: Config, point: Point) -> tuple[tuple[str, Any], ...]:
    """The fields of a point that are compiled into its program, with their values: static ones, and
    those that are None."""
    traced = traced_fields(at(config, point))
    return tuple((name, value) for name, value in sorted(point.items()) if name not in traced)


def variants(config: Config, points: Sequence[Point]) -> dict[str, list[float]]:
    """The traced fields of points of one program, each with its value at every point."""
    names = sorted(traced_fields(at(config, points[0])) & points[0].keys())
    return {name: [point[name] for point in points] for name in names}


def points_per_batch(lanes: int, seeds: int) -> int:
    """How many points, with `seeds` lanes each, fit into `lanes`.

    Raises:
        ConfigError: not even one.
    """
    if lanes < seeds:
        raise ConfigError(
            f"lanes is {lanes}, but a point takes {seeds}, one for each seed: raise lanes or lower"
            " seeds"
        )
    return lanes // max(1, seeds)


def _convert(name: str, value: Any, default: Any) -> Any:
    """A value, or its text on the command line, as the type of a field's default."""
    try:
        if isinstance(default, tuple):
            parts = value.split("x") if isinstance(value, str) else value
            return tuple(int(part) for part in parts)
        if isinstance(default, bool):
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(default, int):
            number = float(value)
            if not (number.is_integer() or isinstance(value, Sample)):
                raise ValueError
            return round(number)
        if isinstance(default, float):
            return float(value)
        if isinstance(default, str) and not isinstance(value, str):
            raise TypeError
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ConfigError(f"{name} is {value!r}, but takes values like {default!r}") from None
    return value
