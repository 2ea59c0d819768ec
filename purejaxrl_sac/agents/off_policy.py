"""Replay memories as parts of the families of DQN and SAC, and their fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from purejaxrl_sac.agents.common import Learning
from purejaxrl_sac.config import Config, ConfigError, static, traced
from purejaxrl_sac.memory import prioritized, records, uniform
from purejaxrl_sac.memory.storage import deduplicated, n_step, ring
from purejaxrl_sac.networks.torsos import convolutions
from purejaxrl_sac.normalize import WRAPPERS
from purejaxrl_sac.types import (
    Backup,
    Env,
    Index,
    Memory,
    PyTree,
    Sample,
    Storage,
    Target,
    Transition,
)


class ReplayConfig(Learning):
    """Fields of every algorithm with experience replay."""

    warmup_steps: int = static(1_000)
    """Environment steps of uniformly random actions before learning starts."""
    batch_size: int = static(128, at_least=1)
    """Transitions per gradient update."""
    capacity: int = static(10_000, at_least=1, below=2**31)
    """Transitions the replay memory stores; a multiple of num_envs x rollout_length."""

    def check(self) -> None:
        super().check()
        size = self.steps_per_iteration
        if self.capacity % size:
            raise ConfigError(
                f"capacity is {self.capacity}, but must be a multiple of num_envs x rollout_length"
                f" = {size}, for example {max(1, round(self.capacity / size)) * size}"
            )
        if self.batch_size > self.capacity:
            raise ConfigError(
                f"batch_size {self.batch_size} is larger than capacity {self.capacity}: lower"
                " batch_size or raise capacity"
            )


class Targets(Config):
    """Fields of target networks."""

    tau: float = traced(0.005, between=(0, 1))
    """Step of the target parameters towards the learned ones at each target update; 1 copies."""
    target_period: int = traced(1, at_least=1, below=2**31)
    """Gradient updates between two target updates."""


class NStep(ReplayConfig):
    """Fields of `n_step_storage`."""

    n_step: int = static(3, at_least=1)
    """Steps of reward before bootstrapping."""

    def check(self) -> None:
        super().check()
        rows = self.capacity // self.num_envs
        if self.n_step > rows:
            raise ConfigError(
                f"n_step is {self.n_step}, but the memory stores {rows} steps of each of"
                f" {self.num_envs} environments: lower n_step or raise capacity"
            )


class Prioritized(ReplayConfig):
    """Fields of `prioritized_replay`."""

    priority_exponent: float = traced(0.6, between=(0, 1))
    """Exponent of the priorities; 0 is uniform replay."""
    importance_exponent: float = traced(0.4, between=(0, 1))
    """Initial exponent of the importance weights; it rises linearly to 1 at the end of the run."""


def encoded(batch: Transition, encode: Callable[[jax.Array], jax.Array]) -> Transition:
    """The batch [B] with features in place of observations."""
    return batch._replace(obs=encode(batch.obs), next_obs=encode(batch.next_obs))


def backup_of(config: Learning, target: Target, batch: Transition, reward: jax.Array) -> Backup:
    """The backup of returns [B, K] from s' on, each of the K by `target`."""
    return jax.vmap(partial(target, reward, batch.discount, config.gamma), 1, 1)


def replay_storage(config: ReplayConfig, env: Env, codec: records.Codec | None = None) -> Storage:
    """A ring buffer; images are stored once, other observations with their next observations.

    Args:
        codec: how transitions are packed; by default one bit for each number of an observation
            where the environment declares `binary_observations` and all wrappers are those of
            `normalize`, which store observations unchanged; exact words elsewhere.
    """
    kind = deduplicated if convolutions(env.observation_space) else ring
    if codec is None:
        binary = env.binary_observations and set(config.wrappers) <= set(WRAPPERS.values())
        codec = records.bits(env) if binary else records.words
    return kind(config.capacity, config.num_envs, codec=codec)


def n_step_storage(config: NStep, env: Env, codec: records.Codec | None = None) -> Storage:
    """Transitions of n steps, with the sum of their rewards.

    The entropies in between are left out: soft algorithms have `soft_n_step_storage`.
    """
    return n_step(replay_storage(config, env, codec), config.n_step, config.gamma)


def soft_n_step_storage(config: NStep, env: Env, codec: records.Codec | None = None) -> Storage:
    """Transitions of n steps, with the entropies in between (Schulman et al. 2017, 1704.06440).

    The soft return of k <= n steps is

        r_t + sum_{i=1}^{k-1} gamma^i (r_{t+i} + alpha H(pi(.|s_{t+i}))) + gamma^k V(s_{t+k})

    without the entropy at s_t, where the action is given. `extras` are H(pi(.|s)) when stored, and
    the discounted sum of those in between when read; the entropies are thus of the policy that
    acted, as the rewards are. In the warm-up, whose actions are uniform, they are those of the
    initial parameters.
    """
    steps = replay_storage(config, env, codec)

    def read_entropies(state: PyTree, step: jax.Array, index: Index) -> Sample:
        sample = steps.read(state, step, index)
        transition = sample.transition
        return sample._replace(transition=transition._replace(reward=transition.extras))

    entropies = n_step(steps._replace(read=read_entropies), config.n_step, config.gamma)
    rewards = n_step(steps, config.n_step, config.gamma)

    def read(state: PyTree, step: jax.Array, index: Index) -> Sample:
        sample, entropy = (x.read(state, step, index) for x in (rewards, entropies))
        between = entropy.transition.reward - sample.transition.extras
        return sample._replace(transition=sample.transition._replace(extras=between))

    return rewards._replace(read=read)


def uniform_replay(config: ReplayConfig, storage: Storage) -> Memory:
    """Samples every transition with the same probability (post, 2.3.2)."""
    return uniform(storage, config.batch_size)


def prioritized_replay(config: Prioritized, storage: Storage) -> Memory:
    """Samples in proportion to powers of priorities (Schaul et al. 2016, arXiv 1511.05952)."""
    return prioritized(
        storage,
        config.batch_size,
        config.priority_exponent,
        config.importance_exponent,
        config.total_steps,
    )
