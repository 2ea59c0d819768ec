"""What a run is asked for, and what is known of it: data alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.evaluate import exploring_policy, policy
from purejaxrl_sac.train import build
from purejaxrl_sac.types import TrainState

TOTALS = ("episodes", "returns", "lengths")  # summed over a chunk; all other metrics are averaged
WATCHED = {"greedy_return": policy, "exploring_return": exploring_policy}


class Plan(NamedTuple):
    """What decides every number of a run; how it is shown and kept is not part of it."""

    config: Config
    seeds: int  # trained side by side
    seed: int  # root of all random numbers
    chunk: int  # iterations between two looks of the host
    episodes: int  # greedy evaluation episodes per seed, at the end
    eval_every: int  # environment steps between evaluations during training; 0 for none
    eval_episodes: int  # of each of them, per seed
    variants: dict[str, list[float]] = {}  # noqa: RUF012  traced field -> its value in each variant

    @property
    def lanes(self) -> int:
        """All that is trained side by side: the seeds of the first variant, of the second ..."""
        return self.seeds * len(next(iter(self.variants.values()), [None]))

    def lane_config(self, lane: int) -> Config:
        """What one lane trains with."""
        return self.config.replace(**{k: v[lane // self.seeds] for k, v in self.variants.items()})

    def config_lanes(self, lanes: int) -> tuple[Config, Any]:
        """What so many lanes train with, [lanes] where they differ, and its axes for `vmap`.

        Those beyond the plan's own are as the first. A norm that nothing is clipped to is None:
        programs take the other numbers as arguments, and would have to compute a norm for it.
        """
        config = self.config
        if getattr(config, "max_grad_norm", 0) == math.inf:
            config = config.replace(max_grad_norm=None)
        if not self.variants:
            return config, None
        of = np.arange(lanes) // self.seeds * (np.arange(lanes) < self.lanes)
        axes = jax.tree.map(lambda _: None, config)
        values = {name: np.asarray(x)[of] for name, x in self.variants.items()}
        return config.replace(**values), axes.replace(**dict.fromkeys(values, 0))

    @property
    def total(self) -> int:
        """Environment steps of each seed at the end, warm-up included."""
        config = self.config
        return (config.warmup_iterations + config.iterations) * config.steps_per_iteration

    def steps(self, iterations: int) -> int:
        """Environment steps of each seed after so many learning iterations."""
        return (self.config.warmup_iterations + iterations) * self.config.steps_per_iteration

    def due(self, before: int, after: int) -> bool:
        """Whether an evaluation falls between two numbers of iterations done."""
        if not self.eval_every:
            return False
        if after == self.config.iterations:
            return True
        return self.steps(after) // self.eval_every > self.steps(before) // self.eval_every

    def keys(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Keys [lanes] of training, of the final evaluation, and of those during training.

        Every variant has the same, so what differs between variants is not luck.
        """
        key_train, key_eval = jax.random.split(key_from_seed(self.seed))
        key_watch = jax.random.fold_in(key_eval, 1)

        def split(key: jax.Array) -> jax.Array:
            return jnp.tile(jax.random.split(key, self.seeds), self.lanes // self.seeds)

        return split(key_train), split(key_eval), split(key_watch)


def plan(
    config: Config,
    seeds: int = 1,
    *,
    seed: int = 0,
    chunks: int = 50,
    episodes: int = 128,
    eval_every: int = 0,
    eval_episodes: int = 32,
    variants: dict[str, list[float]] | None = None,
) -> Plan:
    """Checks what a run is asked for.

    Args:
        chunks: about how many times the host hears of the run.
        variants: traced field -> its value in each variant; every one is trained with all seeds.

    Raises:
        ConfigError: the configuration cannot run, or a count is out of range.
    """
    build(config)
    for values in zip(*(variants or {}).values(), strict=True):
        validate(config.replace(**dict(zip(variants, values, strict=True))))
    key_from_seed(seed)
    for name, value in {"seeds": seeds, "chunks": chunks, "episodes": episodes}.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1")
    if eval_every < 0 or eval_episodes < 1:
        raise ConfigError("eval_every must be zero (never) or more, eval_episodes at least 1")
    chunk = chunk_length(config.iterations, chunks)
    if eval_every:
        if not timed(config):
            raise ConfigError(f"eval_every needs a time limit, which {config.env} does not have")
        chunk = min(chunk, max(1, eval_every // config.steps_per_iteration))
    return Plan(config, seeds, seed, chunk, episodes, eval_every, eval_episodes, variants or {})


class Progress(NamedTuple):
    """What is known after a chunk; per-seed arrays are [lanes]."""

    steps: int  # environment steps of each seed so far
    total_steps: int  # environment steps of each seed at the end
    seconds: float  # spent in chunks; compilation, warm-up and the host's work not counted
    rate: float  # environment steps per second, over all lanes, warm-up not counted
    episodes: np.ndarray  # that ended in the chunk
    episode_return: np.ndarray  # their mean; nan if none
    episode_length: np.ndarray
    latest_return: np.ndarray  # the newest episode_return that is known; nan if none is
    metrics: dict[str, np.ndarray]  # the agent's own, averaged over the chunk
    evaluation: dict[str, np.ndarray]  # greedy_return and exploring_return, where one was due
    failed_step: np.ndarray  # when some metric was first nan or infinite; -1 while all are finite

    @property
    def failed(self) -> np.ndarray:
        return self.failed_step >= 0


class Result(NamedTuple):
    """A finished run."""

    state: TrainState  # leading axis [lanes], clock unbatched
    history: list[Progress]
    evaluation: np.ndarray | None  # [lanes, episodes] greedy returns; None without time limit
    compile_seconds: float
    train_seconds: float


def chunk_length(iterations: int, chunks: int) -> int:
    """Iterations per chunk for about `chunks` chunks: one that divides, wherever one is near.

    The last chunk has what is left; each length is a program to compile.
    """
    wanted = max(1, round(iterations / chunks))
    near = range(wanted, max(1, wanted // 2), -1)
    return next((length for length in near if iterations % length == 0), wanted)


def chunk_lengths(left: int, chunk: int) -> list[int]:
    """The iterations that are left, in chunks."""
    whole, rest = divmod(left, chunk)
    return [chunk] * whole + [rest] * (rest > 0)


def timed(config: Config) -> bool:
    """Whether episodes have a time limit, so that a policy can be evaluated."""
    return envs.bind(config.env, config.env_params).max_steps is not None


def key_from_seed(seed: int) -> jax.Array:
    """The root key of a whole number.

    Raises:
        ConfigError: the number does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}, but must be between 0 and 2**32 - 1")
    return jax.random.key(jnp.uint32(seed))
