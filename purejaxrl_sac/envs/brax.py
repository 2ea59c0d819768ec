"""Brax environments (Freeman et al. 2021, arXiv 2106.13281) as gymnax ones.

Names are `brax/hopper` or, with one of Brax's backends, `brax/hopper/spring`; scores on different
backends are not comparable. Any object with Brax's interface can be wrapped, such as an
environment of MuJoCo Playground: `Brax(registry.load("HopperHop"), "HopperHop")`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from purejaxrl_sac.config import ConfigError, unknown

TASKS = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
BACKENDS = ("generalized", "spring", "positional", "mjx")


@struct.dataclass
class State:
    inner: Any  # Brax's state
    time: jax.Array  # int32


@struct.dataclass
class Params:
    max_steps_in_episode: int = 1_000


class Brax(environment.Environment):
    """An environment with Brax's interface: `reset(key)`, `step(state, action)`, sizes.

    `done` is a termination. The time limit is applied here, as a truncation, so that targets
    bootstrap through it. Every episode starts from a newly sampled state, whereas Brax's own
    auto-reset wrapper repeats the first one.
    """

    def __init__(self, inner: Any, name: str) -> None:
        super().__init__()
        self.inner, self._name = inner, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        inner = self.inner.reset(key)
        return inner.obs, State(inner, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, Any]]:
        inner = self.inner.step(state.inner, jnp.clip(action, -1, 1))
        return inner.obs, State(inner, state.time + 1), inner.reward, inner.done > 0, {}

    def get_obs(
        self, state: State, params: Params | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        return state.inner.obs

    def action_space(self, params: Params | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.inner.action_size,))

    def observation_space(self, params: Params) -> spaces.Box:
        size = self.inner.observation_size
        if isinstance(size, Mapping):  # as of some environments of MuJoCo Playground
            raise ConfigError(
                f"observations of {self._name} are a dictionary of {', '.join(size)}: wrap it, with"
                " one of them as obs of its states and its length as observation_size"
            )
        return spaces.Box(-jnp.inf, jnp.inf, (size,))


def named(name: str) -> Brax:
    """The environment called `brax/ENVIRONMENT` or `brax/ENVIRONMENT/BACKEND`.

    Raises:
        ConfigError: Brax is not installed, or has no such environment or backend.
    """
    _, task, *rest = name.split("/")
    backend = "/".join(rest)
    if task not in TASKS:
        raise unknown("Brax environment", task, TASKS)
    if rest and backend not in BACKENDS:
        raise unknown("Brax backend", backend, BACKENDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about optional simulators
            from brax import envs
    except ImportError:
        raise ConfigError(f"{name} needs Brax: pip install 'purejaxrl_sac[brax]'") from None
    return Brax(envs.get_environment(task, **({"backend": backend} if rest else {})), name)
