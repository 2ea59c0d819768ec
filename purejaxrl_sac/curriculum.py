"""Curricula: parameters of the environment that change over a run.

    def longer(params, progress):
        return params.replace(length=0.5 + 0.5 * progress)

    config = config.replace(curriculum=longer)

A curriculum is a function of the configuration's own parameters and of the progress, the fraction
of `total_steps` that were taken before a rollout, in [0, 1); it returns the parameters of that
rollout. Episodes that are running when the parameters change continue under the new ones.
Everything else, such as evaluation, rendering and export, uses the configuration's own parameters:
they are the task to be solved.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError, kind_of
from purejaxrl_sac.part_errors import ERRORS, described, name_of_function
from purejaxrl_sac.types import Env, PyTree

PROGRESS = jax.ShapeDtypeStruct((), jnp.float32)


def at(config: Config, env: Env, step: jax.Array) -> Env:
    """The environment of a rollout; `env` itself where there is no curriculum.

    Args:
        env: bound to the configuration's own parameters.
        step: the clock at the beginning of the rollout.
    """
    if config.curriculum is None:
        return env
    steps = jnp.float32(config.total_steps / config.num_envs)
    progress = jnp.minimum(step.astype(jnp.float32) / steps, 1)
    return _under(config, env, config.curriculum(env.params, progress))


def check(config: Config, env: Env) -> None:
    """Checks that a curriculum, if there is one, changes nothing but numbers.

    Args:
        env: bound to the configuration's own parameters.

    Raises:
        ConfigError: it fails, returns anything but parameters of the environment, or changes what
            networks or the environment's code depend on.
    """
    if config.curriculum is None:
        return
    name = f"the curriculum {name_of_function(config.curriculum)}"
    if config.dataset is not None:
        raise ConfigError(f"{name} is for rollouts, of which a dataset takes the place: remove it")
    if env.legal_actions is not None:
        raise ConfigError(
            f"{env.name} declares legal actions, which agents know under its own parameters only:"
            f" remove {name}"
        )
    own, found = _leaves(env.params), _returned(config, env, name)
    for path, (before, after) in {path: (own[path], found[path]) for path in own}.items():
        if jnp.shape(before) != jnp.shape(after):
            raise ConfigError(
                f"{name} changes the shape of {path} from {jnp.shape(before)} to"
                f" {jnp.shape(after)}: keep it"
            )
    changed = [path for path in own if isinstance(found[path], jax.core.Tracer)]
    if error := _error(config, env, changed):
        alone = [path for path in changed if _error(config, env, [path])]
        raise ConfigError(
            f"{name} changes {', '.join(alone or changed)}, which {env.name} must know before"
            f" compilation ({error}): keep it constant"
        )


def _under(config: Config, env: Env, params: Any) -> Env:
    """The environment under other parameters."""
    bound = envs.bind(config.env, params)
    return env._replace(reset=bound.reset, step=bound.step, to_env=bound.to_env)


def _leaves(params: PyTree) -> dict[str, Any]:
    """The leaves of parameters by their paths, such as 'length'."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path).lstrip("."): x for path, x in leaves}


def _returned(config: Config, env: Env, name: str) -> dict[str, Any]:
    """The leaves that a curriculum returns; those that depend on the progress are tracers.

    Raises:
        ConfigError: it fails, or does not return parameters of the environment.
    """
    assert config.curriculum is not None
    found: list[Any] = []

    def call(progress: jax.Array) -> None:
        found.append(config.curriculum and config.curriculum(env.params, progress))

    try:
        jax.eval_shape(call, PROGRESS)
    except jax.errors.ConcretizationTypeError:
        raise ConfigError(
            f"{name} needs the value of the progress, which is traced: use jnp.where instead of if"
        ) from None
    except ERRORS as error:
        raise ConfigError(f"{name} fails: {described(error)}") from error
    (params,) = found
    if not isinstance(params, type(env.params)):
        raise ConfigError(
            f"{name} returned {kind_of(params)}, but must return {kind_of(env.params)}, such as"
            " params.replace(...)"
        )
    structures: list[Any] = [jax.tree.structure(x) for x in (params, env.params)]
    if structures[0] != structures[1]:
        raise ConfigError(f"{name} changes a static field of {env.name}'s parameters: keep it")
    return _leaves(params)


def _error(config: Config, env: Env, changed: Collection[str]) -> str:
    """Why the environment cannot be run with these parameters traced; empty if it can."""

    def steps(which: Env, key: jax.Array) -> Any:
        state = which.reset(key, 1)
        action = which.to_env(env.random_action(key, 1))
        return state, which.step(jax.random.split(key, 1), state, action)

    def traced(progress: jax.Array, key: jax.Array) -> Any:
        assert config.curriculum is not None
        params = config.curriculum(env.params, progress)
        leaves, structure = jax.tree.flatten(params)
        own = _leaves(env.params).items()
        mixed = [x if path in changed else y for x, (path, y) in zip(leaves, own, strict=True)]
        params = jax.tree.unflatten(structure, mixed)
        bound = envs.bind(config.env, params)
        for value in (bound.num_actions, bound.action_dim, *bound.observation_space.shape):
            if isinstance(value, jax.core.Tracer):
                raise TypeError("it decides the number of actions or the shape of observations")
        return steps(_under(config, env, params), key)

    key = jax.eval_shape(jax.random.key, 0)
    try:
        expected = jax.eval_shape(partial(steps, env), key)
    except ERRORS:  # of the environment, whatever its parameters: `init` reports it
        return ""
    try:
        found = jax.eval_shape(traced, PROGRESS, key)
    except jax.errors.ConcretizationTypeError:
        return "its code needs the value"
    except ERRORS as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    shapes: list[Any] = [jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (found, expected)]
    return "" if shapes[0] == shapes[1] else "shapes or types of its states change"
