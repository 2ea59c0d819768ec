"""What is wrong with an environment object, said in one line before anything is compiled.

A step is traced as a run does it. Only if that fails, its cause is looked for.
"""

from __future__ import annotations

import contextlib
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs.core import without_parameters
from purejaxrl_sac.part_errors import ERRORS, described
from purejaxrl_sac.types import Env

METHODS = {  # what users write -> its arguments and results
    "reset_env": "(key, params) -> obs, state",
    "step_env": "(key, state, action, params) -> obs, state, reward, terminated, info",
    "get_obs": "(state) -> obs",
    "action_space": "(params) -> Discrete or Box",
    "observation_space": "(params) -> Box or Discrete",
}
_checked: dict[int, weakref.ref[Any]] = {}  # objects by their identity; without keeping them alive


def check(env: Env, *, default: bool) -> None:
    """Raises ConfigError if the object of a bound environment cannot take a step.

    Each object is checked once: its Python code runs on abstract values.

    Args:
        default: whether its parameters are the default ones.
    """
    game = without_parameters(env.game)
    name = type(game).__name__
    known = _checked.get(id(game))
    if known is not None and known() is game:
        return
    ends = not all(map(_inherited(game), ("is_truncated", "step")))
    if default and _inherited(game)("default_params") and not ends:
        raise ConfigError(
            f"the environment {name} has no default_params, and gymnax's own end an episode"
            " after one step: set default_params = environment.EnvParams(max_steps_in_episode=...)"
        )
    if default and not ends and _has_limit_of_gymnax(env.params, derived=True):
        raise ConfigError(
            f"the parameters of the environment {name} inherit gymnax's max_steps_in_episode, which"
            f" ends an episode after one step: declare it in {type(env.params).__name__}"
        )
    if ends and _has_limit_of_gymnax(env.params):
        raise ConfigError(
            f"the environment {name} ends episodes itself, but its parameters have gymnax's"
            " max_steps_in_episode of 1, after which evaluations stop: declare it in them, with the"
            " length of the longest episode"
        )

    def step(key: jax.Array) -> Any:
        begun = env.reset(key, 1)
        action = env.to_env(env.random_action(key, 1))
        return begun.obs, env.step(jax.random.split(key, 1), begun, action)

    try:
        obs, _ = jax.eval_shape(step, jax.random.key(0))
    except ConfigError:
        raise
    except ERRORS as error:
        text = f"the environment {name} fails: {described(error)}"
        with contextlib.suppress(*ERRORS):  # of what looks for the cause
            text = next(causes(env, error), text)
        raise ConfigError(text) from error
    shape = getattr(env.observation_space, "shape", None)
    if isinstance(shape, tuple) and obs.shape[1:] != shape:
        raise ConfigError(
            f"the environment {name} returns observations of shape {obs.shape[1:]}, but its"
            f" observation_space has the shape {shape}"
        )
    if hasattr(env.observation_space, "n") and not jnp.issubdtype(obs.dtype, jnp.integer):
        raise ConfigError(
            f"the environment {name} returns observations that are {obs.dtype}, but its"
            " observation_space is Discrete: return integers"
        )
    with contextlib.suppress(TypeError):  # an object without weak references is checked again
        _checked[id(game)] = weakref.ref(game)


def _has_limit_of_gymnax(params: Any, *, derived: bool = False) -> bool:
    """Whether parameters have the time limit that gymnax's base class has.

    Args:
        derived: only if they are of a class that is derived from it.
    """
    if derived and type(params) is environment.EnvParams:
        return False
    limit = "max_steps_in_episode"
    kinds = [
        kind for kind in type(params).__mro__ if limit in vars(kind).get("__annotations__", {})
    ]
    usual = environment.EnvParams.max_steps_in_episode
    return kinds[:1] == [environment.EnvParams] and getattr(params, limit) is usual


def missing_method(env: Any, error: BaseException) -> str:
    """What is said of a method that gymnax's base class only declares; else ''."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    name = frame.f_code.co_name
    declared = isinstance(error, NotImplementedError) and name in METHODS
    if not declared or frame.f_code.co_filename != environment.__file__:
        return ""
    return f"the environment {type(env).__name__} has no method {name}{METHODS[name]}"


def causes(env: Env, error: BaseException) -> Iterator[str]:
    """Texts of what is known to make a step fail, the most probable first."""
    game, params = without_parameters(env.game), env.params
    name = type(game).__name__
    if text := missing_method(game, error):
        yield text
    if type(game).__hash__ is None:
        yield (
            f"the environment {name} cannot be hashed, as a static argument must be: a dataclass"
            " can with @dataclass(eq=False)"
        )
    inherited = _inherited(game)
    if not (inherited("reset") and inherited("step")):
        return
    key = jax.random.key(0)
    action = jax.tree.map(lambda x: x[0], env.to_env(env.random_action(key, 1)))
    with jax.numpy_dtype_promotion("standard"):
        begun = jax.eval_shape(lambda key: game.reset_env(key, params), key)
        yield from _counted(name, "reset_env", begun, ("obs", "state"))
        obs, state = jax.tree.map(_strong, tuple(begun))
        if isinstance(obs, environment.EnvState):
            yield (
                f"reset_env of the environment {name} returns state, obs, but must return obs,"
                " state"
            )
        if inherited("is_truncated") and not hasattr(state, "time"):
            yield (
                f"the state of the environment {name} has no field time, which counts the steps of"
                " an episode: derive it from gymnax's EnvState"
            )
        stepped = jax.eval_shape(
            lambda key, state, action: game.step_env(key, state, action, params), key, state, action
        )
    names = ("obs", "state", "reward", "terminated", "info")
    yield from _counted(name, "step_env", stepped, names)
    if stepped[3].shape:
        yield (
            f"terminated of the environment {name} is {_shown(stepped[3])} from step_env, but must"
            " be a scalar"
        )
    yield from _different(name, "obs", obs, stepped[0])
    yield from _different(name, "state", state, stepped[1])


def _inherited(game: Any) -> Any:
    """name -> whether an attribute of an object is that of gymnax's base class."""

    def inherited(name: str) -> bool:
        own = name in getattr(game, "__dict__", {})
        base = vars(environment.Environment).get(name)
        return not own and getattr(type(game), name, None) is base

    return inherited


def _counted(name: str, method: str, returned: Any, names: tuple[str, ...]) -> Iterator[str]:
    count = len(returned) if isinstance(returned, (tuple, list)) else 1
    if count != len(names):
        yield (
            f"{method} of the environment {name} returns {count} value{'s' * (count != 1)}, but"
            f" must return {', '.join(names)}"
        )


def _different(name: str, what: str, begun: Any, stepped: Any) -> Iterator[str]:
    """Where `reset_env` and `step_env` differ: gymnax selects between them at an episode's end."""
    structures: list[Any] = [jax.tree.structure(x) for x in (begun, stepped)]
    if structures[0] != structures[1]:
        yield (
            f"{what} of the environment {name} has another structure from step_env than from"
            " reset_env"
        )
    leaves = zip(jax.tree.leaves_with_path(begun), jax.tree.leaves(stepped), strict=True)
    for (path, first), then in leaves:
        if (first.shape, first.dtype) != (then.shape, then.dtype):
            yield (
                f"{what}{jax.tree_util.keystr(path)} of the environment {name} is {_shown(then)}"
                f" from step_env, but {_shown(first)} from reset_env: make them equal"
            )


def _strong(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Without a weak type, as in a run."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _shown(x: jax.ShapeDtypeStruct) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
