"""Configurations as JSON data, and the versions that a result depends on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from purejaxrl_sac.agents import ALGORITHMS, default_config, name_of
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.normalize import WRAPPERS

CONFIG_FORMAT = 1


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if hasattr(value, "tolist"):
        value = np.asarray(value).tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value


def config_to_dict(config: Config) -> dict[str, Any]:
    """A configuration as JSON data, with the names of its algorithm, wrappers and environment.

    A custom algorithm or wrapper is named "module:function", an environment object by its `name`.
    """
    name = name_of(config)
    if name not in ALGORITHMS:
        name = _import_path(config.algorithm, name)
    names = {function: name for name, function in WRAPPERS.items()}
    wrappers = [names.get(wrapper) or _import_path(wrapper) for wrapper in config.wrappers]
    env = config.env if isinstance(config.env, str) else config.env.name
    fields = _to_json(config.replace(algorithm=None, wrappers=(), env=env))
    return {**fields, "schema": CONFIG_FORMAT, "algorithm": name, "wrappers": wrappers}


def _import_path(function: Callable[..., Any], name: str = "") -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', name)}"


def config_from_dict(data: dict[str, Any]) -> Config:
    """The inverse of `config_to_dict`.

    Raises:
        ConfigError: another version wrote the data, or it has env_params or a custom algorithm or
            wrapper, which JSON data cannot restore.
    """
    data = dict(data)
    if data.pop("schema", None) != CONFIG_FORMAT:
        raise ConfigError(f"the configuration has another format than {CONFIG_FORMAT}")
    algorithm = data.pop("algorithm")
    wrappers = data.pop("wrappers", ())
    custom = algorithm not in ALGORITHMS or data["env_params"] is not None
    if custom or not set(wrappers) <= set(WRAPPERS):
        raise ConfigError(
            f"{algorithm} on {data['env']} used a custom algorithm, wrapper or env_params:"
            " build the configuration in Python"
        )
    config = default_config(algorithm)
    defaults = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, value in data.items():
        if isinstance(defaults[name], tuple):
            data[name] = tuple(value)
        elif isinstance(defaults[name], float):
            data[name] = float(value)
    return config.replace(**data, wrappers=tuple(WRAPPERS[name] for name in wrappers))


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    packages = ("purejaxrl_sac", "jax", "jaxlib", "flax", "optax", "gymnax", "distrax", "numpy")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
