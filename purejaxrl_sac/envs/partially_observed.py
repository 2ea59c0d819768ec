"""Finite POMDPs as gymnax environments. Observations are indices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from purejaxrl_sac.config import ConfigError, kind_of
from purejaxrl_sac.envs import tabular
from purejaxrl_sac.mdp import MDP, NAMED_POMDPS, POMDP
from purejaxrl_sac.mdp.pomdp import validate


@struct.dataclass
class State(tabular.State):
    observation: jax.Array  # int32, drawn on arrival


@struct.dataclass(kw_only=True)
class Params(tabular.Params):
    """A POMDP as tables to sample from, with J observations per (a, s') and I per start state.

    `legal` is [Z, A], because agents observe z.
    """

    observation: jax.Array  # [A, S, J] int32
    observation_cumulative: jax.Array  # [A, S, J]
    initial: jax.Array  # [S, I] int32
    initial_cumulative: jax.Array  # [S, I]


class PartiallyObserved(environment.Environment):
    """A POMDP with a time limit.

    Raises:
        ConfigError: the arrays are not a POMDP.
    """

    def __init__(self, pomdp: POMDP, name: str = "POMDP", max_steps: int = 100) -> None:
        super().__init__()
        if not isinstance(pomdp, POMDP):
            raise ConfigError(
                f"PartiallyObserved needs a POMDP, not {kind_of(pomdp)}: see mdp.pomdp.make"
            )
        validate(pomdp)
        self.pomdp, self.hidden = pomdp, tabular.Tabular(pomdp.mdp, name, max_steps)
        self._params = tables(pomdp, max_steps)

    @property
    def name(self) -> str:
        return self.hidden.name

    @property
    def default_params(self) -> Params:
        return self._params

    @property
    def num_actions(self) -> int:
        return self.hidden.num_actions

    @property
    def mdp(self) -> MDP:
        """The MDP of the hidden states."""
        return self.pomdp.mdp

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        key_start, key_observation = jax.random.split(key)
        position, start = self.hidden.reset_env(key_start, params)
        j = tabular.sample(key_observation, params.initial_cumulative, (position,))
        observation = params.initial[position, j]
        return observation, State(position, start.time, observation)

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, Any]]:
        key_step, key_observation = jax.random.split(key)
        stepped = self.hidden.step_env(key_step, state, action, params)
        position, ended, reward, terminated, info = stepped
        cell = (action, position)
        j = tabular.sample(key_observation, params.observation_cumulative, cell)
        observation = params.observation[*cell, j]
        return observation, State(position, ended.time, observation), reward, terminated, info

    def is_terminated(self, state: State, params: Params) -> jax.Array:
        return self.hidden.is_terminated(state, params)

    def observe(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> jax.Array:
        """The observation that was drawn on arrival in the state."""
        return state.observation

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(self.pomdp.O.shape[-1])

    def state_space(self, params: Params) -> spaces.Dict:
        hidden = self.hidden.state_space(params).spaces
        return spaces.Dict({**hidden, "observation": self.observation_space(params)})


def tables(
    pomdp: POMDP, max_steps: int, successors: int | None = None, observations: int = 0
) -> Params:
    """The environment parameters of a POMDP; those of several can be stacked and vmapped over.

    Args:
        max_steps: the time limit.
        successors: as of `tabular.tables`.
        observations: J and I, if more than this POMDP needs: stacked ones need the same.
    """
    hidden = vars(tabular.tables(pomdp.mdp, max_steps, successors))
    observation, observation_cumulative = tabular.possible(pomdp.O, observations)
    initial, initial_cumulative = tabular.possible(pomdp.initial, observations)
    num_actions, _, num_observations = pomdp.O.shape
    return Params(
        **hidden | {"legal": jnp.ones((num_observations, num_actions), bool)},
        observation=jnp.array(observation, jnp.int32),
        observation_cumulative=jnp.array(observation_cumulative, jnp.float32),
        initial=jnp.array(initial, jnp.int32),
        initial_cumulative=jnp.array(initial_cumulative, jnp.float32),
    )


def named(name: str) -> PartiallyObserved:
    """The environment of a POMDP in `purejaxrl_sac.mdp.NAMED_POMDPS`."""
    build, max_steps = NAMED_POMDPS[name]
    return PartiallyObserved(build(), name, max_steps)
