"""A configuration as plain JSON data, and back."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from typing import Any

import numpy as np

from purejaxrl_sac.agents import ALGORITHMS, default_config, name_of
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.normalize import WRAPPERS

CONFIG_FORMAT = 1


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        value = np.asarray(value).tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value


def config_to_dict(config: Config) -> dict:
    """A configuration as JSON-ready data: algorithm and environment by their names.

    Your own algorithm is named "module:function"; an environment object by its `name` alone.
    """
    name = name_of(config)
    if name not in ALGORITHMS:
        name = _own(config.algorithm, name)
    listed = {function: name for name, function in WRAPPERS.items()}
    wrappers = [listed.get(wrapper) or _own(wrapper) for wrapper in config.wrappers]
    env = config.env if isinstance(config.env, str) else config.env.name
    plain = _plain(config.replace(algorithm=None, wrappers=(), env=env))
    return {**plain, "schema": CONFIG_FORMAT, "algorithm": name, "wrappers": wrappers}


def _own(function: Any, name: str = "") -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', name)}"


def config_from_dict(data: dict) -> Config:
    """The configuration that `config_to_dict` wrote down.

    Raises:
        ConfigError: written by another schema version, or it has env_params, an algorithm or a
            wrapper of your own, which plain data cannot bring back.
    """
    data = dict(data)
    if data.pop("schema", None) != CONFIG_FORMAT:
        raise ConfigError(f"this configuration was written in another format than {CONFIG_FORMAT}")
    algorithm = data.pop("algorithm")
    wrappers = data.pop("wrappers", ())
    own = algorithm not in ALGORITHMS or data["env_params"] is not None
    if own or not set(wrappers) <= set(WRAPPERS):
        raise ConfigError(
            f"{algorithm} on {data['env']} used an algorithm, wrappers or env_params of your own:"
            " build the configuration in Python"
        )
    config = default_config(algorithm)
    like = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, value in data.items():
        if isinstance(like[name], tuple):
            data[name] = tuple(value)
        elif isinstance(like[name], float):
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
