"""gymnax environments as the loop sees them: vectorised, with actions in one unit.

Agents live in canonical units: discrete actions are int32 in [0, A), continuous ones flat
float32 vectors in [-1, 1]. `Env.to_env` maps them to the environment's own bounds and shape;
`rollout` applies it, and remembers the canonical action.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError, unknown
from purejaxrl_sac.kernels.packing import packed_scan
from purejaxrl_sac.mdp import NAMED
from purejaxrl_sac.types import EnvState, PyTree, Transition

MULTI_GOAL = "multi_goal"  # the environment of soft Q-learning, see `envs.multigoal`
BRAX = "brax/"  # begins the names of Brax's environments, see `envs.brax`


class Env(NamedTuple):
    """A gymnax environment with its parameters bound, as pure functions over N copies."""

    reset: Callable  # (key, num_envs) -> EnvState
    step: Callable  # (keys [N], EnvState, action [N, ...], own units) -> EnvState, Transition, ...
    to_env: Callable  # (canonical action [N, ...]) -> the same in the environment's units
    random_action: Callable  # (key, num_envs) -> action [N, ...], uniform, canonical units
    observation_space: Any  # gymnax space
    num_actions: int | None  # A, where actions are discrete
    action_dim: int | None  # numbers per action, where they are continuous
    name: str
    max_steps: Any  # the time limit in steps; a tracer where env_params are traced
    binary_observations: bool = False  # declared: every number observed is 0 or 1


def names() -> list[str]:
    """The environments `make` knows by name, besides `brax/...`."""
    return [*_gymnax().registered_envs, *NAMED, MULTI_GOAL]


def _gymnax() -> Any:
    # costs seconds: only when an environment is asked for; and its modules compute constants as
    # they are imported, which must not be tracers
    with jax.ensure_compile_time_eval():
        import gymnax
    return gymnax


@cache  # one object per name: environments are static arguments, hashed by identity
def _make(name: str) -> Any:
    gymnax = _gymnax()
    if name not in names() and not name.startswith(BRAX):
        raise unknown("environment", name, names(), "see `purejaxrl-sac list` for the names")
    from purejaxrl_sac.envs import brax, multigoal, tabular

    if name.startswith(BRAX):
        return brax.named(name)
    try:
        with jax.ensure_compile_time_eval():  # some compute constants as they are made
            if name == MULTI_GOAL:
                return multigoal.MultiGoal()
            return tabular.named(name) if name in NAMED else gymnax.make(name)[0]
    except Exception as error:  # MNISTBandit, for one, downloads its data
        raise ConfigError(f"cannot make {name}: {str(error).splitlines()[0]}") from error


def make(env: Any) -> Any:
    """The gymnax environment of that name; an environment object is returned as it is.

    Raises:
        ConfigError: no environment has this name (with the nearest one that exists).
    """
    env = _make(env) if isinstance(env, str) else env
    if not hasattr(env, "default_params"):
        raise ConfigError(
            f"env is a {type(env).__name__}, but must be a name or a gymnax Environment:"
            " gymnax.make gives (env, params), of which env is the first"
        )
    return env


def bind(env: Any, params: Any = None) -> Env:
    """Binds an environment (name or object) to its parameters (None for the defaults).

    Raises:
        ConfigError: the name is unknown, or the action space is neither Discrete nor a
            bounded Box.
    """
    spaces, env = _gymnax().environments.spaces, make(env)
    with jax.ensure_compile_time_eval():  # spaces of untraced parameters are concrete
        params = env.default_params if params is None else params
        action_space = env.action_space(params)
        observation_space = env.observation_space(params)

    num_actions = action_dim = None
    if isinstance(action_space, spaces.Discrete):
        num_actions = action_space.n

        def to_env(action: jax.Array) -> jax.Array:
            return action

        def random_action(key: jax.Array, num_envs: int) -> jax.Array:
            return jax.random.randint(key, (num_envs,), 0, action_space.n, jnp.int32)

    elif isinstance(action_space, spaces.Box):
        low, high, shape = action_space.low, action_space.high, action_space.shape
        action_dim = math.prod(shape)
        for bound in (low, high):
            if not isinstance(bound, jax.core.Tracer) and not np.isfinite(bound).all():
                raise ConfigError(
                    f"{env.name} has unbounded actions ({action_space}), which cannot be rescaled"
                    " from [-1, 1]: wrap it in an environment with finite bounds"
                )

        def to_env(action: jax.Array) -> jax.Array:
            action = action.reshape(-1, *shape)
            return (low + (action + 1) * 0.5 * (high - low)).astype(action_space.dtype)

        def random_action(key: jax.Array, num_envs: int) -> jax.Array:
            return jax.random.uniform(key, (num_envs, action_dim), jnp.float32, -1, 1)

    else:
        raise ConfigError(f"{env.name} has actions of kind {action_space}: need Discrete or Box")

    def reset(key: jax.Array, num_envs: int) -> EnvState:
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), params)
        zeros = jnp.zeros(num_envs)
        return EnvState(_strong(state), _strong(obs), zeros, zeros.astype(jnp.int32))

    def step(keys: jax.Array, env_state: EnvState, action: jax.Array) -> tuple:
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, env_state.state, action, params
        )
        reward = reward.astype(jnp.float32)
        last = terminated | truncated
        transition = Transition(
            obs=env_state.obs,
            action=action,
            reward=reward,
            discount=1 - terminated.astype(jnp.float32),
            next_obs=info["final_observation"].astype(env_state.obs.dtype),
            last=last,
        )
        returns = env_state.episode_return + reward
        lengths = env_state.episode_length + 1
        episodes = {
            "episodes": last.astype(jnp.int32),
            "returns": jnp.where(last, returns, 0),
            "lengths": jnp.where(last, lengths, 0),
        }
        running = EnvState(
            state=_strong(state),
            obs=obs.astype(env_state.obs.dtype),
            episode_return=jnp.where(last, 0, returns),
            episode_length=jnp.where(last, 0, lengths),
        )
        return running, transition, episodes

    return Env(
        reset=reset,
        step=step,
        to_env=to_env,
        random_action=random_action,
        observation_space=observation_space,
        num_actions=num_actions,
        action_dim=action_dim,
        name=env.name,
        max_steps=getattr(params, "max_steps_in_episode", None),
        binary_observations=_binary(env),
    )


def _binary(env: Any) -> bool:
    """Whether every number that the environment observes is declared to be 0 or 1.

    gymnax's MinAtar games are, by their exact classes: a subclass or a wrapper may observe
    anything. Other environments say so by an attribute `binary_observations = True` of the object
    or of its class; one that a wrapper only passes on does not count, nor does a property.
    """
    games = vars(_gymnax().environments.minatar)
    binary = {value for value in games.values() if isinstance(value, type)}
    return type(env) in binary or inspect.getattr_static(env, "binary_observations", False) is True


def rollout(
    env: Env, keys: jax.Array, env_state: EnvState, step: jax.Array, actor: Callable
) -> tuple[EnvState, tuple[Transition, dict]]:
    """Steps N environments T times.

    Args:
        keys: [T, 1 + N], in each step one for the actor and one for every environment.
        step: the clock at the first of these steps.
        actor: (key, obs [N, ...], step) -> action [N, ...], extras.

    Returns:
        the environments' new state, and the transitions and episode figures, [T, N].
    """

    @jax.named_scope("environment_step")
    def body(env_state: EnvState, xs: tuple) -> tuple[EnvState, tuple]:
        keys, step = xs
        action, extras = actor(keys[0], env_state.obs, step)
        env_state, transition, episodes = env.step(keys[1:], env_state, env.to_env(action))
        return env_state, (transition._replace(action=action, extras=extras), episodes)

    xs = (keys, step + jnp.arange(len(keys)))
    return packed_scan(body, env_state, xs, lead=env_state.episode_return.shape)


_strong: Callable[[PyTree], PyTree] = partial(
    # environments mix Python scalars into their states; loops need one stable type
    jax.tree.map,
    lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)),
)
