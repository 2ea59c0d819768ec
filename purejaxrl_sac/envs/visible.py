"""Some components of the observations only, for agents that need to remember the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from purejaxrl_sac.config import ConfigError, shown, whole_number
from purejaxrl_sac.envs.core import POSITIONS, bind, make, steppable


class Visible(environment.Environment):
    """An environment that shows some components of its observations; see `visible`."""

    def __init__(self, env: Any, components: Sequence[int], name: str | None = None) -> None:
        super().__init__()
        if not isinstance(components, tuple | list):
            raise ConfigError(f"components is {shown(components)}, but must be a tuple of indices")
        self.inner = steppable(make(env), "visible")
        self.components = tuple(whole_number("a component", i, at_least=0) for i in components)
        self._name = name or f"{self.inner.name} {list(self.components)}"
        shape = self.inner.observation_space(self.inner.default_params).shape
        if len(shape) != 1 or not all(i < shape[0] for i in self.components):
            raise ConfigError(
                f"components are {list(self.components)}, but observations of {self.inner.name} are"
                f" of shape {shape}: need vectors, and components of them from 0 on"
            )
        if bind(self.inner).legal_actions is not None:
            raise ConfigError(
                f"{self.inner.name} has legal_actions, which need all of an observation: hide its"
                " components in an environment of your own"
            )

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> Any:
        return self.inner.default_params

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        obs, state = self.inner.reset_env(key, params)
        return self._seen(obs), state

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        obs, state, reward, terminated, info = self.inner.step_env(key, state, action, params)
        return self._seen(obs), state, reward, terminated, info

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        return self.inner.is_truncated(state, params)

    def get_obs(self, state: Any, params: Any = None, key: jax.Array | None = None) -> jax.Array:
        return self._seen(self.inner.get_obs(state, params, key))

    def action_space(self, params: Any = None) -> Any:
        return self.inner.action_space(params)

    def observation_space(self, params: Any) -> spaces.Box:
        space = self.inner.observation_space(params)
        low, high = (x[self.components,] if jnp.ndim(x) else x for x in (space.low, space.high))
        return spaces.Box(low, high, (len(self.components),), space.dtype)

    def _seen(self, obs: jax.Array) -> jax.Array:
        return obs[jnp.array(self.components)]


def visible(env: Any, components: Sequence[int]) -> Visible:
    """An environment whose observations are some components of those of `env`.

        config.replace(env=visible("CartPole-v1", (0, 2)))  # positions without velocities

    The named ones, `CartPole-positions` and `Pendulum-positions`, hide the velocities. Without
    them, the state follows from two observations. If `env` has its own `step`, which resets it,
    gymnax's takes its place.

    Args:
        env: a name, or a gymnax `Environment` object whose observations are vectors.
        components: indices of what is shown.

    Raises:
        ConfigError: no environment has this name, it has no such components or no `step_env` of
            its own, or its actions may be illegal, which depends on the whole observation.
    """
    return Visible(env, components)


def without_velocities(name: str) -> Visible:
    """The environment of a name in `core.POSITIONS`."""
    return Visible(*POSITIONS[name], name)
