"""Parameters of environments in runs: part of the environment, and data in the files of a run.

A run is compiled with the parameters as constants, because time limits and spaces must be known
before compilation. Elsewhere `config.env_params` may be traced.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError, shown, unknown

INFINITE = ("inf", "-inf", "nan")  # as JSON text


class Parametrised:
    """An environment whose default parameters are given ones.

    Args:
        source: the name of an environment, or a gymnax `Environment`.
        params: its parameters, of the type of its `default_params`.
    """

    def __init__(self, source: Any, params: Any) -> None:
        self.source, self.env, self.params = source, envs.make(source), params

    @property
    def default_params(self) -> Any:
        """The given parameters."""
        return self.params

    def __getattr__(self, name: str) -> Any:
        # a finite MDP or POMDP is one of the original parameters
        if name.startswith("__") or name in ("env", "source", "params", "mdp", "pomdp"):
            raise AttributeError(name)
        return getattr(self.env, name)


def fixed(config: Config) -> Config:
    """The configuration with `env_params` as a part of the environment, if there are any."""
    if not isinstance(config, Config) or config.env_params is None:
        return config  # what is no configuration is refused where it is built
    envs.bind(config.env, config.env_params)  # checks their type
    return config.replace(env=Parametrised(config.env, config.env_params), env_params=None)


def free(config: Config) -> Config:
    """The inverse of `fixed`."""
    if not isinstance(config.env, Parametrised):
        return config
    return config.replace(env=config.env.source, env_params=config.env.params)


def changed(env: Any, values: dict[str, Any], base: Any = None) -> Any:
    """The parameters of an environment with other values of some fields.

    Args:
        base: the parameters; None for the environment's defaults.

    Raises:
        ConfigError: there is no such field (with the nearest one), or a value has the wrong type.
    """
    default = envs.make(env).default_params if base is None else base
    title = env if isinstance(env, str) else getattr(env, "name", type(env).__name__)
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        raise ConfigError(f"the parameters of {title} have no fields")
    fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    for name in values:
        if name not in fields:
            raise unknown(f"parameter of {title}", name, sorted(fields))
    return dataclasses.replace(
        default, **{name: _converted(name, x, fields[name]) for name, x in values.items()}
    )


def _converted(name: str, value: Any, default: Any) -> Any:
    """A value of the type of the default one."""
    if isinstance(value, str) and value in INFINITE:
        value = float(value)
    if default is None:
        return value
    try:
        if isinstance(value, dict):
            inner = {k: _converted(k, x, getattr(default, k)) for k, x in value.items()}
            return dataclasses.replace(default, **inner)
        if hasattr(default, "dtype"):
            array = jnp.asarray(value, default.dtype)
            if array.shape != default.shape:
                raise ValueError
            return array
        if isinstance(default, tuple):
            return tuple(_converted(name, *pair) for pair in zip(value, default, strict=True))
        wrong = isinstance(value, bool) is not isinstance(default, bool)
        if wrong or (isinstance(default, int) and value != int(value)):
            raise ValueError
        return type(default)(value)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"{name} of the environment is {shown(value)}, but must be like its default,"
            f" {shown(default)}"
        ) from None
