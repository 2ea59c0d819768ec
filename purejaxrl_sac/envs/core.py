"""gymnax environments as vectorised pure functions, with actions in canonical units.

Discrete actions are int32 in [0, A), continuous ones flat float32 vectors in [-1, 1]. `Env.to_env`
maps them to the environment's own bounds and shape; `rollout` applies it and stores the canonical
action. For a Box of integers, [-1, 1] is divided into as many equal intervals, so that uniform
canonical actions are uniform integers.

An environment whose discrete actions may be illegal, such as a board game, declares it by a method
`legal_actions(obs, params) -> bool [A]` of one observation, which must contain what is needed (if
nothing else, the mask itself). The legal actions of s' are thus stored with every transition.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError, kind_of, unknown, whole_number
from purejaxrl_sac.kernels.packing import packed_scan
from purejaxrl_sac.mdp import NAMED, NAMED_POMDPS
from purejaxrl_sac.types import Env, EnvState, Metrics, PyTree, Transition

MULTI_GOAL = "multi_goal"  # the environment of soft Q-learning, see `envs.multigoal`
# name -> environment, and the components of its observations that are no velocities
POSITIONS = {
    "CartPole-positions": ("CartPole-v1", (0, 2)),
    "Pendulum-positions": ("Pendulum-v1", (0, 1)),
}
BRAX = "brax/"  # prefix of the names of Brax's environments, see `envs.brax`


class Actor(Protocol):
    def __call__(
        self, key: jax.Array, obs: jax.Array, step: jax.Array, carry: Any, /
    ) -> tuple[jax.Array, PyTree, PyTree]:
        """(key, obs [N, ...], step, carry [N, ...]) -> action [N, ...], extras, carry."""


def names() -> list[str]:
    """The names that `make` accepts, besides `brax/...`."""
    return [*_gymnax().registered_envs, *NAMED, *NAMED_POMDPS, *POSITIONS, MULTI_GOAL]


def _gymnax() -> Any:
    # imported lazily because it takes a second; its modules compute constants on import, which must
    # not be tracers
    with (
        jax.ensure_compile_time_eval(),
        _imported_later("seaborn"),
        _imported_later("matplotlib.pyplot"),
    ):
        import gymnax
    return gymnax


@contextlib.contextmanager
def _imported_later(name: str) -> Iterator[None]:
    """Modules that import `name` here do so when they first use it: gymnax only draws with it."""
    if name in sys.modules:
        yield
        return
    substitute = ModuleType(name)

    def attribute(of_module: str) -> Any:
        withdraw()
        return getattr(import_module(name), of_module)

    def withdraw() -> None:
        if sys.modules.get(name) is substitute:
            del sys.modules[name]

    vars(substitute)["__getattr__"] = attribute
    sys.modules[name] = substitute
    try:
        yield
    finally:
        withdraw()


@cache  # one object per name: environments are static arguments, hashed by identity
def _make(name: str, precision: Any) -> Any:
    """The environment of a name. Some hold arrays, which are of the floating-point precision."""
    gymnax = _gymnax()
    if name not in names() and not name.startswith(BRAX):
        raise unknown("environment", name, names(), "see `purejaxrl-sac list` for the names")
    from purejaxrl_sac.envs import brax, multigoal, partially_observed, tabular, visible

    if name.startswith(BRAX):
        return brax.named(name)
    try:
        with jax.ensure_compile_time_eval():  # some constructors compute constants
            if name == MULTI_GOAL:
                return multigoal.MultiGoal()
            if name in POSITIONS:
                return visible.without_velocities(name)
            if name in NAMED_POMDPS:
                return partially_observed.named(name)
            return tabular.named(name) if name in NAMED else gymnax.make(name)[0]
    except Exception as error:  # for example MNISTBandit, which downloads its data
        raise ConfigError(f"cannot make {name}: {str(error).splitlines()[0]}") from error


def make(env: Any) -> Any:
    """Returns the gymnax environment of a name; an environment object is returned as it is.

    Raises:
        ConfigError: no environment has this name (with the nearest one that exists), or `env` is
            not an environment.
    """
    if isinstance(env, str):
        return _make(env, jnp.result_type(float))
    if isinstance(env, type):
        raise ConfigError(f"env is the class {env.__name__}: pass an object, {env.__name__}()")
    if {"gym", "gymnasium"} & {x.__module__.partition(".")[0] for x in type(env).__mro__}:
        raise ConfigError(
            f"env is a {type(env).__name__} of Gymnasium, which does not run in JAX: pass a name,"
            " or write the environment with gymnax's interface"
        )
    if not hasattr(env, "default_params"):
        raise ConfigError(
            f"env is {kind_of(env)}, but must be a name or a gymnax Environment:"
            " gymnax.make gives (env, params), of which env is the first"
        )
    return env


def bind(env: Any, params: Any = None) -> Env:
    """Binds an environment (name or object) to its parameters (None: the defaults).

    Raises:
        ConfigError: the name is unknown, or the action space is neither Discrete nor a
            bounded Box.
    """
    spaces, named, env = _gymnax().environments.spaces, isinstance(env, str), make(env)
    usual = params is None
    with jax.ensure_compile_time_eval():  # spaces of untraced parameters are concrete
        default = env.default_params
        if not isinstance(params, type(default) | None):
            found, expected = (kind_of(x) for x in (params, default))
            if found == expected:  # of different modules
                found, expected = (f"{type(x).__module__}'s" for x in (params, default))
            raise ConfigError(
                f"env_params is {found}, but must be {expected}:"
                f" change values of default_params, as {env.name}'s default_params.replace(...)"
            )
        params = default if params is None else params
        action_space, observation_space = _spaces(env, params)

    num_actions = action_dim = None
    if isinstance(action_space, spaces.Discrete):
        num_actions = whole_number(
            f"the number of actions of {env.name}", action_space.n, at_least=1
        )

        def to_env(action: jax.Array) -> jax.Array:
            return action

        def random_action(key: jax.Array, num_envs: int) -> jax.Array:
            return jax.random.randint(key, (num_envs,), 0, num_actions, jnp.int32)

    elif isinstance(action_space, spaces.Box):
        low, high, shape = action_space.low, action_space.high, action_space.shape
        action_dim = math.prod(shape)
        _check_bounds(env.name, action_space)
        continuous = jnp.issubdtype(action_space.dtype, jnp.floating)
        if continuous:  # differences of small integers may exceed their range
            low, high = (
                x if jnp.issubdtype(getattr(x, "dtype", float), jnp.floating) else jnp.float32(x)
                for x in (low, high)
            )

        def to_env(action: jax.Array) -> jax.Array:
            fraction = (action.reshape(-1, *shape) + 1) * 0.5
            if continuous:
                scaled = low + fraction * (high - low)
            else:
                scaled = jnp.floor(low + fraction * (jnp.float32(high) - low + 1))
            # rounding errors may exceed the bounds, and the last interval is closed
            return jnp.clip(scaled, low, high).astype(action_space.dtype)

        def random_action(key: jax.Array, num_envs: int) -> jax.Array:
            return jax.random.uniform(key, (num_envs, action_dim), jnp.float32, -1, 1)

    else:
        foreign = type(action_space).__module__.partition(".")[0] in ("gym", "gymnasium")
        raise ConfigError(
            f"{env.name} has actions of kind {action_space}{' of Gymnasium' * foreign}: need"
            f" Discrete or Box{' of gymnax.environments.spaces' * foreign}"
        )

    def reset(key: jax.Array, num_envs: int) -> EnvState:
        with jax.numpy_dtype_promotion("standard"):  # which environments rely on
            obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), params)
        zeros = jnp.zeros(num_envs, jnp.float32)
        return EnvState(_strong(state), _strong(obs), zeros, zeros.astype(jnp.int32))

    def step(
        keys: jax.Array, env_state: EnvState, action: jax.Array
    ) -> tuple[EnvState, Transition, Metrics]:
        if jnp.issubdtype(action.dtype, jnp.floating):
            action = action.astype(float)  # as the environment's state, also in 64 bits
        with jax.numpy_dtype_promotion("standard"):
            obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
                keys, env_state.state, action, params
            )
        final_obs = info["final_observation"]
        for what, found, shape in (
            ("a reward", reward, env_state.episode_return.shape),
            ("terminated", terminated, env_state.episode_return.shape),
            ("an observation", obs, env_state.obs.shape),
            ("a final_observation", final_obs, env_state.obs.shape),
        ):
            if found.shape != shape:
                raise ConfigError(
                    f"the environment {env.name} returned {what} of shape {found.shape[1:]} from"
                    f" step, but must return one of shape {shape[1:]}"
                )
        begun = env_state.obs.dtype
        whole = not jnp.issubdtype(begun, jnp.floating)
        for found in (obs, final_obs):
            if whole and jnp.issubdtype(found.dtype, jnp.floating):
                raise ConfigError(
                    f"the environment {env.name} returned observations that are {found.dtype} from"
                    f" step, but {begun} from reset: make them equal"
                )
        reward = reward.astype(jnp.float32)
        terminated, truncated = terminated.astype(bool), truncated.astype(bool)  # 0 and 1 will do
        last = terminated | truncated
        transition = Transition(
            obs=env_state.obs,
            action=action,
            reward=reward,
            discount=1 - terminated.astype(jnp.float32),
            next_obs=final_obs.astype(begun),
            last=last,
        )
        returns = env_state.episode_return + reward
        lengths = env_state.episode_length + 1
        episodes = {
            "episodes": last.astype(jnp.int32),
            "returns": jnp.where(last, returns, 0),
            "lengths": jnp.where(last, lengths, 0),
        }
        following = env_state._replace(
            state=_strong(state),
            obs=obs.astype(begun),
            episode_return=jnp.where(last, 0, returns),
            episode_length=jnp.where(last, 0, lengths),
        )
        return following, transition, episodes

    bound = Env(
        reset=reset,
        step=step,
        to_env=to_env,
        random_action=random_action,
        observation_space=observation_space,
        num_actions=num_actions,
        action_dim=action_dim,
        name=env.name,
        max_steps=_time_limit(env.name, params),
        game=env,
        params=params,
        binary_observations=_has_binary_observations(env),
        legal_actions=_legal_actions(env, params, num_actions),
    )
    if not named:
        from purejaxrl_sac.envs import interface  # imports gymnax

        interface.check(bound, default=usual)
    return bound


def steppable(env: Any, what: str) -> Any:
    """The environment, if an environment that takes the place of its `step` leaves nothing out.

    Args:
        what: the function that wraps it, for the message.

    Raises:
        ConfigError: it wraps another one by its own `step`, such as the wrappers of gymnax do:
            their `step_env` is that of the other environment.
    """

    def own(name: str) -> bool:
        return inspect.getattr_static(env, name, None) is not None

    if own("step") and not own("step_env"):
        kind = type(env).__name__
        raise ConfigError(
            f"{what} calls step_env, but {kind} has only a step of its own, which would be left"
            f" out: if it wraps an environment, wrap in the opposite order, as {kind}({what}(...))"
        )
    return env


def _time_limit(name: str, params: Any) -> Any:
    """The longest episode, of which some are floats: an int, a tracer, or None for no limit.

    Raises:
        ConfigError: it is less than 1.
    """
    limit = getattr(params, "max_steps_in_episode", None)
    if limit is None or isinstance(limit, jax.core.Tracer) or np.ndim(limit) > 0:
        return limit
    if not limit >= 1:
        raise ConfigError(f"max_steps_in_episode of {name} is {limit}, but must be at least 1")
    return None if math.isinf(limit) else math.ceil(limit)


def _spaces(env: Any, params: Any) -> tuple[Any, Any]:
    """The spaces of actions and observations.

    Raises:
        ConfigError: the environment does not have them.
    """
    try:
        actions, observations = env.action_space(params), env.observation_space(params)
        if not isinstance(getattr(observations, "shape", None), tuple | list):
            raise ConfigError(
                f"the observation_space of {env.name} is {kind_of(observations)} without a shape,"
                " but must be a Box or Discrete"
            )
        for name, space in (("action_space", actions), ("observation_space", observations)):
            if 0 in (getattr(space, "shape", None) or ()):
                raise ConfigError(
                    f"the {name} of {env.name} has shape {space.shape}, which has no elements"
                )
        return actions, observations
    except NotImplementedError as error:
        from purejaxrl_sac.envs import interface

        if text := interface.missing_method(env, error):
            raise ConfigError(text) from error
        raise


def _check_bounds(name: str, box: Any) -> None:
    """Raises ConfigError unless actions in [-1, 1] can be rescaled to a Box; tracers pass."""
    bounds = [box.low, box.high]
    if any(isinstance(bound, jax.core.Tracer) for bound in bounds):
        return
    low, high = map(np.asarray, bounds)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"{name} has unbounded actions ({box}), which cannot be rescaled from [-1, 1]: wrap it"
            " in an environment with finite bounds"
        )
    for bound in bounds:
        if isinstance(bound, tuple | list) or np.shape(bound) not in ((), tuple(box.shape)):
            raise ConfigError(
                f"{name} has bounds of actions that are {kind_of(bound)}, but must be numbers or"
                f" arrays of shape {[*box.shape]}"
            )
    if (low > high).any():
        raise ConfigError(f"{name} has actions whose low exceeds their high: {box}")
    with np.errstate(over="ignore"):
        span = high.astype(np.float32) - low.astype(np.float32)
    if not np.isfinite(span).all():
        raise ConfigError(
            f"{name} has actions whose range exceeds that of float32 ({box}): wrap it in an"
            " environment with smaller bounds"
        )


def _legal_actions(
    env: Any, params: Any, num_actions: int | None
) -> Callable[[jax.Array], jax.Array] | None:
    """The environment's own `legal_actions`, not one of an environment that it wraps.

    Raises:
        ConfigError: its actions are continuous; when called, if it returns another number of them.
    """
    if inspect.getattr_static(without_parameters(env), "legal_actions", None) is None:
        return None
    if num_actions is None:
        raise ConfigError(
            f"{env.name} has a method legal_actions, but continuous actions are all legal: remove"
            " it, or make the action_space Discrete"
        )

    def legal_actions(obs: jax.Array) -> jax.Array:
        legal: jax.Array = jax.vmap(env.legal_actions, (0, None))(obs, params)
        if legal.shape[1:] != (num_actions,):
            raise ConfigError(
                f"legal_actions of {env.name} returned an array of shape {[*legal.shape[1:]]}, but"
                f" must return one of shape [{num_actions}]: whether each action is legal"
            )
        return legal | ~legal.any(-1, keepdims=True)  # in terminal states, where none is needed

    return legal_actions


def without_parameters(env: Any) -> Any:
    """The environment itself, where a run has given it other parameters."""
    from purejaxrl_sac.envs.parameters import Parametrised

    return env.env if isinstance(env, Parametrised) else env


def _has_binary_observations(env: Any) -> bool:
    """Whether every number in the environment's observations is declared to be 0 or 1.

    gymnax's MinAtar games are, identified by their exact classes: a subclass or a wrapper may
    return any observation. Other environments declare it by an attribute `binary_observations =
    True` of the object or of its class; properties and attributes that a wrapper forwards do not
    count.
    """
    games, own = vars(_gymnax().environments.minatar), without_parameters(env)
    binary = {value for value in games.values() if isinstance(value, type)}
    return type(own) in binary or inspect.getattr_static(own, "binary_observations", False) is True


def rollout(
    env: Env,
    keys: jax.Array,
    env_state: EnvState,
    step: jax.Array,
    actor: Actor,
    initial_carry: PyTree = (),
) -> tuple[EnvState, tuple[Transition, Metrics]]:
    """Steps N environments T times.

    Args:
        keys: [T, 1 + N]; in each step one for the actor and one for every environment.
        step: the clock at the first of these steps.
        actor: the policy; see `Actor`.
        initial_carry: the actor's carry at the beginning of an episode, leading axis [N].

    Returns:
        the new state of the environments; transitions and episode statistics, [T, N].
    """

    @jax.named_scope("environment_step")
    def body(
        env_state: EnvState, xs: tuple[jax.Array, jax.Array]
    ) -> tuple[EnvState, tuple[Transition, Metrics]]:
        keys, step = xs
        action, extras, carry = actor(keys[0], env_state.obs, step, env_state.carry)
        env_state, transition, episodes = env.step(keys[1:], env_state, env.to_env(action))
        carry = jax.tree.map(partial(_where, transition.last), initial_carry, carry)
        transition = transition._replace(action=action, extras=extras)
        return env_state._replace(carry=carry), (transition, episodes)

    xs = (keys, step + jnp.arange(len(keys), dtype=step.dtype))
    return packed_scan(body, env_state, xs, lead=env_state.episode_return.shape)


def _where(condition: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.where` with a condition [N] for arrays [N, ...]."""
    return jnp.where(condition.reshape(-1, *(1,) * (jnp.ndim(y) - 1)), x, y)


def _strong(tree: PyTree) -> PyTree:
    """Removes weak types: environments store Python scalars, but loops need stable types."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)
