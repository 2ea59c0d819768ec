"""The last k observations as one, for agents that need to remember no more than these."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from purejaxrl_sac.config import ConfigError, whole_number
from purejaxrl_sac.envs.core import bind, steppable, without_parameters
from purejaxrl_sac.types import Env


@struct.dataclass
class State:
    """State of a `FrameStack`."""

    inner: Any  # of the wrapped environment
    frames: jax.Array  # [k, *obs_shape], the newest last


class FrameStack(environment.Environment):
    """An environment whose observations are the last k of another one; see `frame_stack`."""

    def __init__(self, env: Any, k: int) -> None:
        super().__init__()
        bound = bind(env)
        self.inner, self.k = steppable(bound.game, "frame_stack"), k
        self.binary_observations = bound.binary_observations
        if bound.legal_actions is not None:
            self.legal_actions = self._legal_actions

    @property
    def name(self) -> str:
        return f"{self.inner.name} ({self.k} frames)"

    @property
    def default_params(self) -> Any:
        return self.inner.default_params

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        obs, inner = self.inner.reset_env(key, params)
        state = State(inner, jnp.stack([obs] * self.k))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Any
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, Any]]:
        obs, inner, reward, terminated, info = self.inner.step_env(key, state.inner, action, params)
        newest = obs[None].astype(state.frames.dtype)
        state = State(inner, jnp.concatenate([state.frames[1:], newest]))
        return self.get_obs(state, params), state, reward, terminated, info

    def is_truncated(self, state: State, params: Any) -> jax.Array:
        return self.inner.is_truncated(state.inner, params)

    def get_obs(self, state: State, params: Any = None, key: jax.Array | None = None) -> jax.Array:
        space, frames = self.inner.observation_space(params), state.frames
        if hasattr(space, "n"):
            place = jnp.array([space.n**i for i in reversed(range(self.k))], frames.dtype)
            return (frames * place).sum().astype(frames.dtype)
        return jnp.concatenate([*frames], -1) if space.shape else frames

    def action_space(self, params: Any = None) -> Any:
        return self.inner.action_space(params)

    def observation_space(self, params: Any) -> Any:
        space = self.inner.observation_space(params)
        if hasattr(space, "n"):
            if (number := space.n**self.k) >= 2**31:
                raise ConfigError(
                    f"{self.k} observations of {space.n} values each have {number} values, more"
                    " than an int32 can count: lower k"
                )
            return spaces.Discrete(number)
        *outer, channels = space.shape or (1,)

        def repeated(bound: Any) -> Any:
            return jnp.concatenate([bound] * self.k, -1) if jnp.ndim(bound) else bound

        shape = (*outer, self.k * channels)
        return spaces.Box(repeated(space.low), repeated(space.high), shape, space.dtype)

    def _legal_actions(self, obs: jax.Array, params: Any) -> jax.Array:
        space = self.inner.observation_space(params)
        if hasattr(space, "n"):
            newest = obs % space.n
        else:
            newest = obs[..., -space.shape[-1] :] if space.shape else obs[-1]
        return self.inner.legal_actions(newest, params)


def frame_stack(env: Any, k: int) -> FrameStack:
    """An environment whose observations are the last k of `env`, the newest last.

        config.replace(env=frame_stack("CartPole-v1", 4))

    At the beginning of an episode, its first observation takes the places of those before it.
    Vectors [F] become [k F] and images [H, W, C] become [H, W, k C]. One of n Discrete values
    becomes one of n^k, o_1 n^(k-1) + .. + o_k, so that tables can learn from it. Every algorithm
    can be trained on it; memories store k frames per observation. If `env` has its own `step`,
    which resets it, gymnax's takes its place.

    Args:
        env: a name, or a gymnax `Environment` object.
        k: at least 1.

    Raises:
        ConfigError: no environment has this name, it has no `step_env` of its own, or k is not a
            whole number of at least 1.
    """
    return FrameStack(env, whole_number("k", k, at_least=1))


def existing_actions(env: Env, num_states: int) -> jax.Array | bool:
    """Which actions exist where an environment is in each state or stack of them, [S, A].

    Returns:
        True if all do, or if its parameters do not say so.
    """
    if env.legal_actions is not None:
        return env.legal_actions(jnp.arange(num_states))
    legal: Any = getattr(env.params, "legal", True)  # of a finite MDP or POMDP
    if not jnp.ndim(legal) or len(legal) == num_states:
        return legal
    if isinstance(without_parameters(env.game), FrameStack):  # whose newest state is the last digit
        return legal[jnp.arange(num_states) % len(legal)]
    return True
