"""The multi-goal point mass of soft Q-learning (Haarnoja et al. 2017, arXiv 1702.08165, 5.1).

Rewards and the end of episodes are those of the authors' code (haarnoja/softqlearning).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

GOALS = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]], np.float32)


@struct.dataclass
class State:
    position: jax.Array  # [2]
    time: jax.Array


@struct.dataclass
class Params:
    max_steps_in_episode: int = 30
    start_std: float = 0.1
    action_cost: float = 30.0
    reach: float = 1.0
    """Distance from a goal at which it is reached."""
    bonus: float = 10.0
    """Reward for reaching a goal."""


class MultiGoal(environment.Environment):
    """A point mass that starts halfway between four equally good goals.

    s' = s + a, clipped to [-7, 7]^2, with |a_i| <= 1; the reward is -30 |a|^2 - min_g |s' - g|^2,
    and 10 more at a goal, which ends the episode. A deterministic policy reaches one or two of the
    goals, a maximum entropy policy all four.
    """

    size = 7.0

    @property
    def name(self) -> str:
        return "MultiGoal"

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        state = State(params.start_std * jax.random.normal(key, (2,)), jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, Any]]:
        action = jnp.clip(action, -1, 1)
        position = jnp.clip(state.position + action, -self.size, self.size)
        distance = jnp.square(position - GOALS).sum(-1).min()
        reached = distance < params.reach**2
        reward = -params.action_cost * jnp.square(action).sum() - distance
        state = State(position, state.time + 1)
        return self.get_obs(state), state, reward + params.bonus * reached, reached, {}

    def get_obs(
        self, state: State, params: Params | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        return state.position

    def action_space(self, params: Params | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,))

    def observation_space(self, params: Params) -> spaces.Box:
        return spaces.Box(-self.size, self.size, (2,))


def goal_reached(position: jax.Array, reach: float = 1.0) -> jax.Array:
    """Which goal a point is at, [...]; -1 if at none.

    Args:
        position: [..., 2].
    """
    distance = jnp.square(position[..., None, :] - GOALS).sum(-1)
    return jnp.where(distance.min(-1) < reach**2, distance.argmin(-1), -1)
