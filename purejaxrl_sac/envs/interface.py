"""The interface of an environment object, checked from shapes before anything is compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jax
from gymnax.environments.environment import Environment

from purejaxrl_sac.checks import ERRORS, described
from purejaxrl_sac.config import ConfigError

METHODS = {  # method -> its arguments and results, and the public method that calls it
    "reset_env": ("(key, params) -> obs, state", "reset"),
    "step_env": ("(key, state, action, params) -> obs, state, reward, terminated, info", "step"),
    "action_space": ("(params) -> Discrete or Box", "action_space"),
    "observation_space": ("(params) -> Box or Discrete", "observation_space"),
}


@lru_cache(maxsize=64)  # environments are static arguments: hashable, and bound many times
def check(env: Any) -> None:
    """Raises ConfigError unless an environment has gymnax's interface, with its default parameters.

    Python code in it runs once for `reset` and once for `step`, on abstract values.
    """
    kind = type(env)
    name = kind.__name__
    for method, (signature, caller) in METHODS.items():
        if _inherited(kind, method) and _inherited(kind, caller):
            raise ConfigError(f"the environment {name} has no method {method}{signature}")
    if _inherited(kind, "default_params"):
        raise ConfigError(
            f"the environment {name} has no default_params, and gymnax's own end an episode after"
            " one step: set default_params = environment.EnvParams(max_steps_in_episode=...)"
        )
    key, params = jax.random.key(0), env.default_params
    with failing(name, "action_space or observation_space"):
        action, space = env.action_space(params), env.observation_space(params)
    with jax.numpy_dtype_promotion("standard"):
        reset = "reset_env" if _inherited(kind, "reset") else "reset"
        with failing(name, reset):
            begun = jax.eval_shape(getattr(env, reset), key, params)
        obs, state = _unpacked(name, reset, begun, ("obs", "state"))
        if hasattr(space, "shape") and obs.shape != tuple(space.shape):
            raise ConfigError(
                f"the environment {name} returns observations of shape {obs.shape}, but its"
                f" observation_space has the shape {tuple(space.shape)}"
            )
        if not _inherited(kind, "step"):
            return
        if _inherited(kind, "is_truncated") and not hasattr(state, "time"):
            raise ConfigError(
                f"the state of the environment {name} has no field time, which counts the steps of"
                " an episode: derive it from gymnax's EnvState"
            )
        action = jax.ShapeDtypeStruct(action.shape, action.dtype)
        with failing(name, "step_env"):
            stepped = jax.eval_shape(env.step_env, key, state, action, params)
    names = ("obs", "state", "reward", "terminated", "info")
    stepped = _unpacked(name, "step_env", stepped, names)
    _check_same(name, "obs", obs, stepped[0])
    _check_same(name, "state", state, stepped[1])


def _inherited(kind: type, name: str) -> bool:
    """Whether an attribute of a class is that of gymnax's base class."""
    return getattr(kind, name, None) is getattr(Environment, name)


def _unpacked(name: str, method: str, returned: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The values that a method returned, as many as there are names."""
    count = len(returned) if isinstance(returned, tuple) else 1
    if count != len(names):
        raise ConfigError(
            f"{method} of the environment {name} returns {count} value{'s' * (count != 1)}, but"
            f" must return {', '.join(names)}"
        )
    values: tuple[Any, ...] = returned
    return values


def _check_same(name: str, what: str, begun: Any, stepped: Any) -> None:
    """Raises ConfigError unless `reset_env` and `step_env` return arrays of equal shapes and types.

    gymnax selects between them where an episode ends.
    """
    structures: list[Any] = [jax.tree.structure(x) for x in (begun, stepped)]
    if structures[0] != structures[1]:
        raise ConfigError(
            f"{what} of the environment {name} has another structure from step_env than from"
            " reset_env"
        )
    leaves = zip(jax.tree.leaves_with_path(begun), jax.tree.leaves(stepped), strict=True)
    for (path, first), then in leaves:
        if (first.shape, first.dtype) != (then.shape, then.dtype):
            raise ConfigError(
                f"{what}{jax.tree_util.keystr(path)} of the environment {name} is {_shown(then)}"
                f" from step_env, but {_shown(first)} from reset_env: make them equal"
            )


def _shown(x: jax.ShapeDtypeStruct) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


@contextlib.contextmanager
def failing(name: str, where: str) -> Iterator[None]:
    """Turns an error of the environment's code into a `ConfigError` with its place."""
    try:
        yield
    except ConfigError:
        raise
    except ERRORS as error:
        raise ConfigError(f"the environment {name} fails in {where}: {described(error)}") from error
