"""Configurations as JSON data, and the versions that a result depends on."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.agents import ALGORITHMS, default_config, exported, name_of
from purejaxrl_sac.config import Config, ConfigError, bounds_of, unknown, validate
from purejaxrl_sac.normalize import WRAPPERS

CONFIG_FORMAT = 1
INFINITE = ("inf", "-inf", "nan")  # as JSON text, see `_to_json`
SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_disable_jit",
)
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
IRRELEVANT = ("--xla_dump", "--xla_force_host_platform_device_count")  # flags: devices are recorded


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

    See `function_name` and `environment_name`.
    """
    name = name_of(config)
    if name not in ALGORITHMS:
        name = function_name(config.algorithm)
    wrappers = [function_name(wrapper) for wrapper in config.wrappers]
    env = environment_name(config.env)
    fields = _to_json(config.replace(algorithm=None, wrappers=(), env=env))
    return {**fields, "schema": CONFIG_FORMAT, "algorithm": name, "wrappers": wrappers}


def function_name(function: Callable[..., Any]) -> str:
    """The name of an algorithm, wrapper or part; equal names are equal functions.

    Those that the package lists have their listed names, others are named "module:function", and
    partial functions as calls: "dqn(bootstrap=purejaxrl_sac.agents.dqn:double)". Lambdas and local
    functions have their line, too.
    """
    if isinstance(function, functools.partial):
        given = [_shown_value(x) for x in function.args]
        given += [f"{name}={_shown_value(x)}" for name, x in sorted(function.keywords.items())]
        return f"{function_name(function.func)}({', '.join(given)})"
    listed = [name for name, wrapper in WRAPPERS.items() if wrapper is function]
    module, name = (getattr(function, x, "") for x in ("__module__", "__qualname__"))
    if module.startswith("purejaxrl_sac.agents") and name in ALGORITHMS:
        listed += [name] if exported(name) is function else []
    if listed:
        return listed[0]
    if "<" in name and hasattr(function, "__code__"):  # a lambda or a local function
        name += f"@{function.__code__.co_firstlineno}"
    return f"{module}:{name or type(function).__qualname__}"


def environment_name(env: Any) -> str:
    """The name of an environment, or "module:class(attributes)" of an object without one.

    An object has a name if it equals the environment of that name in type and attributes. Equal
    attributes are shown equally: arrays, and other data, as their checksum.
    """
    if isinstance(env, str):
        return env
    shown = _shown_value(env)
    name = getattr(env, "name", None)
    if name in envs.names() and _shown_value(envs.make(name)) == shown:
        return name
    return shown


def _shown_value(value: Any) -> str:
    """A text that differs for different arguments of functions and attributes of environments."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if hasattr(value, "default_params"):  # an environment
        attributes = sorted(getattr(value, "__dict__", {}).items())
        given = ", ".join(f"{name}={_shown_value(x)}" for name, x in attributes)
        return f"{_shown_value(type(value))}({given})"
    if callable(value):
        return function_name(value)
    leaves, structure = jax.tree.flatten(value)
    crc = zlib.crc32(str(structure).encode())
    for leaf in leaves:
        if hasattr(leaf, "dtype"):
            array = np.asarray(leaf)
            crc = zlib.crc32(f"{array.dtype}{array.shape}".encode() + array.tobytes(), crc)
        elif isinstance(leaf, bool | int | float | str):
            crc = zlib.crc32(repr(leaf).encode(), crc)
        else:  # not data: equal if its type is
            crc = zlib.crc32(_shown_value(type(leaf)).encode(), crc)
    return f"<{type(value).__name__} {crc:08x}>"


def config_from_dict(data: dict[str, Any]) -> Config:
    """The inverse of `config_to_dict`.

    Raises:
        ConfigError: another version wrote the data, or it has env_params, an environment object, or
            a custom algorithm or wrapper, which JSON data cannot restore.
    """
    data = dict(data)
    if data.pop("schema", None) != CONFIG_FORMAT:
        raise ConfigError(f"the configuration has another format than {CONFIG_FORMAT}")
    algorithm, wrappers = data.pop("algorithm", None), data.pop("wrappers", ())
    custom = algorithm not in ALGORITHMS or data.get("env_params") is not None
    custom = custom or ":" in str(data.get("env"))  # an object, see `environment_name`
    if custom or not set(wrappers) <= set(WRAPPERS):
        raise ConfigError(
            f"{algorithm} on {data.get('env')} used a custom algorithm, environment, wrapper or"
            " env_params: build the configuration in Python, and pass it as config"
        )
    config = default_config(algorithm)
    kinds = {name: bounds.kind for name, bounds in bounds_of(type(config)).items()}
    fields = {f.name for f in dataclasses.fields(config)} - {"algorithm", "wrappers"}
    if missing := fields - data.keys():
        raise ConfigError(f"the configuration has no field {min(missing)}")
    for name, value in data.items():
        if name not in fields:
            raise unknown("field of the configuration", name, sorted(fields))
        if isinstance(value, list):
            data[name] = tuple(value)
        elif kinds.get(name) is float and (value in INFINITE or isinstance(value, int)):
            data[name] = float(value)
    config = config.replace(**data, wrappers=tuple(WRAPPERS[name] for name in wrappers))
    validate(config)
    return config


def check_equal(config: Config, written: dict[str, Any], path: Path) -> None:
    """Raises ConfigError with the first field in which a configuration is not the one written."""
    found = config_to_dict(config)
    for name in dict.fromkeys((*written, *found)):
        if found.get(name) != written.get(name):
            raise ConfigError(
                f"the config given is not the one that {path} was created with: {name} is"
                f" {found.get(name)}, but was {written.get(name)}"
            )


def settings() -> dict[str, bool | int | str | None]:
    """The settings of JAX and XLA that decide numbers, beside versions and devices."""
    found: dict[str, Any] = {name: getattr(jax.config, name) for name in SETTINGS}
    for name in VARIABLES:
        flags = sorted(x for x in os.environ.get(name, "").split() if not x.startswith(IRRELEVANT))
        found[name] = " ".join(flags)
    return found


def differences(written: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """'optax 0.2.6 (here 0.2.7)' for every version or setting that is not the one written."""
    return [
        f"{name} {_shown(written.get(name))} (here {_shown(here.get(name))})"
        for name in dict.fromkeys((*written, *here))
        if written.get(name) != here.get(name)
    ]


def _shown(value: object) -> str:
    return "unset" if value in (None, "") else str(value)


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
