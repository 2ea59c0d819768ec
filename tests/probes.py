"""Small environments whose values are known exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from gymnax.environments import environment, spaces
from jax.flatten_util import ravel_pytree

import purejaxrl_sac as prl
from purejaxrl_sac import envs
from purejaxrl_sac.agents.dqn import replay_storage
from purejaxrl_sac.types import Index
from tests.conftest import FULL_COMPILATION

GAMMA = 0.9


@struct.dataclass
class State:
    sign: jax.Array
    time: jax.Array


@struct.dataclass
class Params:
    max_steps_in_episode: int = 1_000


class Probe(environment.Environment):
    """Environment with observation [sign, time / horizon] that terminates after `horizon` steps.

    With horizon 0 it never terminates and observations do not contain the time.

    Args:
        reward: (sign, time, action) -> reward of the step at `time`.
        signs: initial signs, one of which is drawn uniformly per episode.
        action_space: Discrete(2) by default.
    """

    def __init__(
        self,
        reward: Callable,
        horizon: int = 1,
        signs: tuple[float, ...] = (1.0,),
        action_space: Any = None,
        name: str = "Probe",
    ) -> None:
        super().__init__()
        self.reward, self.horizon, self.signs = reward, horizon, jnp.array(signs)
        self._space = action_space or spaces.Discrete(2)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        state = State(jax.random.choice(key, self.signs), jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        action = jnp.reshape(action, ()) if action.size == 1 else action.sum()
        reward = self.reward(state.sign, state.time, action)
        state = State(state.sign, state.time + 1)
        done = (state.time >= self.horizon) & (self.horizon > 0)
        return self.get_obs(state), state, reward, done, {}

    def get_obs(self, state: State, params=None, key=None) -> jax.Array:
        time = state.time / self.horizon if self.horizon else 0.0 * state.time
        return jnp.stack([state.sign, time])

    def action_space(self, params=None) -> Any:
        return self._space

    def observation_space(self, params) -> spaces.Box:
        return spaces.Box(-1000.0, 1000.0, (2,))


CONTINUOUS = spaces.Box(-1.0, 1.0, (1,))


class Counter(environment.Environment):
    """Environment whose observations identify every transition.

    Observation: [steps since the start of the episode, a number drawn per episode]. Episodes
    with an even number terminate after 5 steps; those with an odd one are truncated after 7.
    """

    @property
    def default_params(self) -> Params:
        return Params(max_steps_in_episode=7)

    def reset_env(self, key, params):
        state = State(jax.random.randint(key, (), 0, 50), jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        state = State(state.sign, state.time + 1)
        terminated = (state.time >= 5) & (state.sign % 2 == 0)
        return self.get_obs(state), state, jnp.int32(3), terminated, {}

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.time, state.sign]).astype(jnp.uint8)

    def action_space(self, params=None):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(0, 255, (2,), jnp.uint8)


def stored(storage, state, step):
    """Contents of a storage after `step` rows, oldest first: a Transition of [rows, N, ...]."""
    rows = min(int(step), storage.capacity // storage.num_envs)
    time, env = jnp.indices((rows, storage.num_envs))
    index = Index(time + int(step) - rows, env)
    return jax.tree.map(np.asarray, storage.read(state, jnp.int32(step), index).transition)


def replayed(config, state):
    """Contents of the replay memory of a run, oldest first."""
    return stored(replay_storage(config, envs.bind(config.env)), state.memory, state.step)


def trained(algorithm, env, updates=1_000, /, **changes):
    """A short training run: four environments, four updates per iteration."""
    return learned(algorithm, env, updates, **changes)[:2]


def learned(algorithm, env, updates=1_000, /, **changes):
    """`trained`, and the metrics of its iterations."""
    config = prl.default_config(algorithm)
    sizes = {
        "warmup_steps": 200,
        "capacity": 1_000,
        "batch_size": 64,
        "hidden_sizes": (32, 32),
        "tau": 0.05,
        "target_period": 1,
        "v_min": -2.0,
        "v_max": 12.0,
        "epsilon_end": 0.2,
        "num_epochs": 1,
    }
    known = {field.name for field in dataclasses.fields(config)}
    config = config.replace(
        env=env,
        num_envs=4,
        rollout_length=2,
        num_updates=4,
        learning_rate=3e-3,
        gamma=GAMMA,
        **{name: value for name, value in sizes.items() if name in known},
    )
    config = config.replace(**changes)
    updates_per_step = config.num_updates / config.steps_per_iteration
    config = config.replace(total_steps=config.warmup_steps + int(updates / updates_per_step))
    options = FULL_COMPILATION if algorithm == "iqn" else None
    return config, *jax.jit(prl.train, compiler_options=options)(jax.random.key(0), config)


def adam_gradient(opt_state, b1=0.9):
    """The gradient of Adam's first update, flattened: its first moment divided by 1 - b1."""
    moments = optax.tree_utils.tree_get(opt_state, "mu")
    return ravel_pytree(moments)[0] / (1 - b1)
