"""Finite MDPs as gymnax environments. Observations are state indices."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from purejaxrl_sac import mdp as mdps
from purejaxrl_sac.config import ConfigError, kind_of, whole_number
from purejaxrl_sac.mdp import MDP
from purejaxrl_sac.mdp.model import Array


@struct.dataclass
class State:
    position: jax.Array  # int32
    time: jax.Array  # int32


@struct.dataclass
class Params:
    """An MDP as tables to sample from, with K successors per (s, a) and M start states."""

    successor: jax.Array  # [S, A, K] int32
    cumulative: jax.Array  # [S, A, K] cumulative sums of P(successor | s, a)
    reward: jax.Array  # [S, A, K]
    noise: jax.Array | None  # [S, A] standard deviations; None if rewards are deterministic
    terminal: jax.Array  # [S] bool
    legal: jax.Array  # [S, A] bool
    start: jax.Array  # [M] int32
    start_cumulative: jax.Array  # [M]
    max_steps_in_episode: int | jax.Array = 100


class Tabular(environment.Environment):
    """An MDP with a time limit.

    Raises:
        ConfigError: the arrays are not an MDP, or max_steps is not a whole number of at least 1.
    """

    def __init__(self, mdp: MDP, name: str = "MDP", max_steps: int = 100) -> None:
        super().__init__()
        if not isinstance(mdp, MDP):
            raise ConfigError(f"Tabular needs an MDP, not {kind_of(mdp)}: see mdp.make")
        mdps.validate(mdp)
        self.mdp, self._name = mdp, name
        self._params = tables(mdp, whole_number("max_steps", max_steps, at_least=1))

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> Params:
        return self._params

    @property
    def num_actions(self) -> int:
        return self.mdp.P.shape[1]

    @partial(jax.jit, static_argnames="self")
    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params | None = None
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]:
        """`step` of gymnax, without a key for the reset where there is a single start state.

        Random numbers are most of the cost of a step of a small MDP.
        """
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key) if _has_random_start(params) else (key, key)
        final_obs, ended, reward, terminated, _ = self.step_env(key_step, state, action, params)
        truncated = self.is_truncated(ended, params)
        _, start = self.reset_env(key_reset, params)
        state = jax.tree.map(partial(jnp.where, terminated | truncated), start, ended)
        info = {"terminated": terminated, "truncated": truncated, "final_observation": final_obs}
        return state.position, state, reward, terminated, truncated, info

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        position = params.start[0]
        if _has_random_start(params):
            position = params.start[_choose(jax.random.uniform(key), params.start_cumulative)]
        return position, State(position, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, Any]]:
        cell = (state.position, action)
        # deterministic rewards need no random numbers
        key_successor, key_noise = (key, key) if params.noise is None else jax.random.split(key)
        k = sample(key_successor, params.cumulative, cell)
        position, reward = params.successor[*cell, k], params.reward[*cell, k]
        if params.noise is not None:
            reward += params.noise[cell] * jax.random.normal(key_noise)
        state = State(position, state.time + 1)
        return position, state, reward, params.terminal[position], {}

    def is_terminated(self, state: State, params: Params) -> jax.Array:
        return params.terminal[state.position]

    def observe(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> jax.Array:
        """The state's index, which is the observation."""
        return state.position

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(len(self.mdp.P))

    def state_space(self, params: Params) -> spaces.Dict:
        time = spaces.Discrete(params.max_steps_in_episode + 1)
        return spaces.Dict({"position": self.observation_space(params), "time": time})


def tables(mdp: MDP, max_steps: int, successors: int | None = None) -> Params:
    """The environment parameters of an MDP; those of several MDPs can be stacked and vmapped over.

    Args:
        max_steps: the time limit.
        successors: K, if more than this MDP needs: MDPs that are stacked need the same K.
    """
    successor, cumulative = possible(mdp.P, successors or 0)
    starts = np.flatnonzero(np.asarray(mdp.start) > 0)
    return Params(
        successor=jnp.array(successor, jnp.int32),
        cumulative=jnp.array(cumulative, jnp.float32),
        reward=jnp.array(np.take_along_axis(np.asarray(mdp.R), successor, -1), jnp.float32),
        noise=jnp.array(mdp.noise, jnp.float32) if np.any(mdp.noise) else None,
        terminal=jnp.array(mdp.terminal),
        legal=jnp.array(mdp.legal),
        start=jnp.array(starts, jnp.int32),
        start_cumulative=jnp.array(np.asarray(mdp.start)[starts].cumsum(), jnp.float32),
        max_steps_in_episode=max_steps,
    )


def possible(kernel: Array, width: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The outcomes of positive probability and their cumulative sums, [..., K] each.

    Args:
        kernel: [..., outcomes] probabilities.
        width: K, if more than the largest number of possible outcomes.
    """
    kernel = np.asarray(kernel, np.float64)
    width = max(width, int((kernel > 0).sum(-1).max()))
    order = np.argsort(kernel <= 0, axis=-1, kind="stable")[..., :width]  # possible ones first
    return order, np.take_along_axis(kernel, order, -1).cumsum(-1)


def sample(key: jax.Array, cumulative: jax.Array, cell: tuple[jax.Array, ...]) -> int | jax.Array:
    """The index of a random outcome of a row of `possible`; certain ones need no random number."""
    if cumulative.shape[-1] == 1:
        return 0
    return _choose(jax.random.uniform(key), cumulative[cell])


def _has_random_start(params: Params) -> bool:
    return params.start.shape[-1] > 1


def _choose(u: jax.Array, cumulative: jax.Array) -> jax.Array:
    """Inverse transform sampling: the index for u in [0, 1), never one of probability 0."""
    return (cumulative <= u * cumulative[-1]).sum()


def named(name: str) -> Tabular:
    """The environment of an MDP in `purejaxrl_sac.mdp.NAMED`."""
    build, max_steps = mdps.NAMED[name]
    return Tabular(build(), name, max_steps)


def exact(env: Any) -> MDP | None:
    """The MDP of a `Tabular` or of gymnax's FrozenLake; None for other environments."""
    from gymnax.environments.misc.frozen_lake import FrozenLake

    if isinstance(env, Tabular):
        return env.mdp
    if not isinstance(env, FrozenLake):
        return None
    rows = ["".join("SFHG"[tile] for tile in row) for row in np.asarray(env.desc)]
    goal, hole, frozen = np.asarray(env.reward_schedule).tolist()
    straight = env.success_rate if env.is_slippery else 1.0
    side = (1 - straight) / 2
    return mdps.from_map(
        rows,
        rewards={"G": goal, "H": hole, "F": frozen, "S": frozen},
        turn=(straight, side, 0, side),
        moves=mdps.LEFT_DOWN_RIGHT_UP,
    )
