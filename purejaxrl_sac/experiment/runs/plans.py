"""The plan of a run, its progress and its result, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.agents import name_of
from purejaxrl_sac.config import (
    Config,
    ConfigError,
    bounds_of,
    shown,
    traced_fields,
    unknown,
    validate,
    whole_number,
)
from purejaxrl_sac.evaluate import PolicyFactory, exploring_policy, policy
from purejaxrl_sac.experiment.errors import shortened
from purejaxrl_sac.experiment.runs import names
from purejaxrl_sac.train import build
from purejaxrl_sac.types import PyTree, TrainState

LONGEST_NAME = 48  # characters of an algorithm in titles
EVALUATED_POLICIES: dict[str, PolicyFactory] = {
    "greedy_return": policy,
    "exploring_return": exploring_policy,
}
"""The policies evaluated during training, by the name of their metric."""


class Streams(NamedTuple):
    """The independent keys of one seed. New ones are appended, which does not change the others."""

    train: jax.Array
    final_evaluation: jax.Array
    population: jax.Array  # of `tuning.search.population`
    evaluation: jax.Array  # during training
    new_episodes: jax.Array  # of runs that are evaluated later


def streams(key: jax.Array) -> Streams:
    """Splits the root key of a seed, the only use of it."""
    return Streams(*jax.random.split(key, len(Streams._fields)))


class Keys(NamedTuple):
    """PRNG keys of a run, each [lanes]."""

    train: jax.Array
    final_evaluation: jax.Array
    evaluation: jax.Array  # during training, the same at every evaluation


class Plan(NamedTuple):
    """Everything that determines the numbers of a run; display and storage are not part of it."""

    config: Config
    seeds: int  # trained in parallel
    seed: int  # root of all random numbers
    chunk: int  # iterations per compiled chunk
    episodes: int  # greedy evaluation episodes per seed, at the end
    eval_every: int  # environment steps between evaluations during training; 0 for none
    eval_episodes: int  # episodes of each such evaluation, per seed
    variants: dict[str, list[float]] = {}  # noqa: RUF012  traced field -> its value in each variant

    @property
    def lanes(self) -> int:
        """Number of parallel training runs: variants x seeds, ordered by variant."""
        return self.seeds * len(next(iter(self.variants.values()), [None]))

    def lane_config(self, lane: int) -> Config:
        """The configuration of one lane."""
        return self.config.replace(**{k: v[lane // self.seeds] for k, v in self.variants.items()})

    def config_lanes(self, lanes: int) -> tuple[Config, PyTree]:
        """The configuration of `lanes` lanes, and its axes for `vmap`.

        Fields that differ between variants are [lanes]; lanes that only pad the devices have the
        first variant's values. Infinite limits, such as `max_grad_norm`, become None: as traced
        numbers they would make the program compute a norm that clips nothing.
        """
        config = self.config
        limits = [name for name, bounds in bounds_of(type(config)).items() if bounds.optional]
        infinite = [name for name in limits if getattr(config, name) == math.inf]
        config = config.replace(**dict.fromkeys(infinite))
        if not self.variants:
            return config, None
        variant = np.arange(lanes) // self.seeds * (np.arange(lanes) < self.lanes)
        axes = jax.tree.map(lambda _: None, config)
        values = {name: np.asarray(x)[variant] for name, x in self.variants.items()}
        return config.replace(**values), axes.replace(**dict.fromkeys(values, 0))

    @property
    def total(self) -> int:
        """Environment steps of each seed at the end, warm-up included."""
        return self.steps(self.config.iterations)

    def steps(self, iterations: int) -> int:
        """Environment steps of each seed after so many learning iterations, warm-up included."""
        return (self.config.warmup_iterations + iterations) * self.config.steps_per_iteration

    def evaluation_due(self, before: int, after: int) -> bool:
        """Whether an evaluation is due after the iterations from `before` to `after`."""
        if not self.eval_every:
            return False
        if after == self.config.iterations:
            return True
        return self.steps(after) // self.eval_every > self.steps(before) // self.eval_every

    def keys(self) -> Keys:
        """The keys of all lanes; variants share them, so they are compared on equal seeds."""
        return _keys(key_from_seed(self.seed), self.seeds, self.lanes // self.seeds)


@partial(jax.jit, static_argnums=(1, 2))
def _keys(key: jax.Array, seeds: int, variants: int) -> Keys:
    root = streams(key)

    def split(key: jax.Array) -> jax.Array:
        return jnp.tile(jax.random.split(key, seeds), variants)

    return Keys(split(root.train), split(root.final_evaluation), split(root.evaluation))


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
    """Makes a plan from the arguments of `lifecycle.run`, and checks it.

    Raises:
        ConfigError: the configuration cannot run, or a count is out of range.
    """
    build(config)
    variants = _checked_variants(config, {} if variants is None else variants)
    key_from_seed(seed)
    seed = int(seed)
    seeds = whole_number("seeds", seeds, at_least=1)
    chunks = whole_number("chunks", chunks, at_least=1)
    episodes = whole_number("episodes", episodes, at_least=1)
    eval_every = whole_number("eval_every", eval_every, at_least=0)
    eval_episodes = whole_number("eval_episodes", eval_episodes, at_least=1)
    # the sum of episode lengths over a chunk must be an int32
    chunk = chunk_length(config.iterations, max(chunks, -(-config.total_steps // 2**30)))
    if eval_every:
        check_time_limit(config, "eval_every")
        chunk = min(chunk, max(1, eval_every // config.steps_per_iteration))
    return Plan(config, seeds, seed, chunk, episodes, eval_every, eval_episodes, variants)


def _checked_variants(config: Config, variants: dict[str, list[float]]) -> dict[str, list[float]]:
    """Variants with Python's numbers.

    Raises:
        ConfigError: a field cannot vary, or its values are no list of valid numbers.
    """
    if not isinstance(variants, dict):
        raise ConfigError(f"variants is {shown(variants)}, but must be a dict of lists")
    checked = {}
    for name, values in variants.items():
        if name not in (traced := traced_fields(config)):
            raise unknown("traced field", name, sorted(traced))
        if isinstance(values, str) or not np.size(values) or np.ndim(values) != 1:
            raise ConfigError(f"variants: {name} is {shown(values)}, but must be a list of numbers")
        checked[name] = [x.item() if hasattr(x, "item") else x for x in values]
    lengths = {name: len(values) for name, values in checked.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"variants have lists of different lengths: {lengths}")
    for values in zip(*checked.values(), strict=True):
        validate(config.replace(**dict(zip(checked, values, strict=True))))
    return checked


class Progress(NamedTuple):
    """The state of a run after a chunk; arrays are [lanes]."""

    steps: int  # environment steps of each seed so far
    total_steps: int  # environment steps of each seed at the end
    seconds: float  # spent in chunks, without compilation, warm-up and the host's work
    rate: float  # environment steps per second over all lanes, warm-up not counted
    episodes: np.ndarray  # number of episodes that ended in the chunk
    episode_return: np.ndarray  # their mean return; nan if there are none
    episode_length: np.ndarray  # their mean length; nan if there are none
    latest_return: np.ndarray  # the latest episode_return that is not nan; nan before the first
    metrics: dict[str, np.ndarray]  # the agent's own, averaged over the chunk
    evaluation: dict[str, np.ndarray]  # mean return by metric name; {} if no evaluation was due
    failed_step: np.ndarray  # step of the first nan or infinite metric; -1 while all are finite

    @property
    def failed(self) -> np.ndarray:
        """[lanes] bool: whether a metric has been nan or infinite."""
        return self.failed_step >= 0


class Result(NamedTuple):
    """A finished run."""

    state: TrainState  # leading axis [lanes], clock unbatched
    history: list[Progress]
    evaluation: np.ndarray | None  # [lanes, episodes] greedy returns; None without a time limit
    compile_seconds: float
    train_seconds: float


def chunk_length(iterations: int, chunks: int) -> int:
    """Iterations per chunk for about `chunks` chunks.

    Prefers a divisor of `iterations`, because a shorter last chunk is another program to compile.
    """
    wanted = max(1, round(iterations / chunks))
    near = range(wanted, max(1, wanted // 2, wanted - 10_000), -1)
    return next((length for length in near if iterations % length == 0), wanted)


def chunk_lengths(iterations: int, chunk: int) -> list[int]:
    """The lengths of the chunks that cover `iterations`: `chunk` each, the last one the rest."""
    whole, rest = divmod(iterations, chunk)
    return [chunk] * whole + [rest] * (rest > 0)


def rounding_note(config: Config) -> str:
    """How many of `total_steps` are run if they are not whole iterations, else ''."""
    each = config.steps_per_iteration
    whole, rest = divmod(config.total_steps, each)
    if not rest:
        return ""
    return (
        f"total_steps is {config.total_steps:,}, but an iteration takes {each:,}:"
        f" {whole * each:,} steps are run"
    )


def title(config: Config) -> str:
    """Such as 'sac on Pendulum-v1'; an algorithm with many parts is shortened."""
    env = config.env if isinstance(config.env, str) else config.env.name
    name = name_of(config)
    if "(" in name:  # with parts
        name = shortened(names.short_name(config.algorithm), LONGEST_NAME)
    return f"{name} on {env}"


def has_time_limit(config: Config) -> bool:
    """Whether episodes have a time limit, without which policies cannot be evaluated."""
    return envs.bind(config.env, config.env_params).max_steps is not None


def check_time_limit(config: Config, what: str) -> None:
    """Raises ConfigError if episodes have no time limit, which `what` needs."""
    if not has_time_limit(config):
        raise ConfigError(
            f"{what} needs a time limit, which {envs.make(config.env).name} does not have: declare"
            " max_steps_in_episode in its parameters"
        )


def endless_note(config: Config, history: Sequence[Progress]) -> str:
    """A warning if no seed has finished an episode in twice the time limit, else ''."""
    limit, taken = envs.bind(config.env, config.env_params).max_steps, history[-1].steps
    if config.dataset is not None or limit is None or taken <= 2 * limit * config.num_envs:
        return ""
    if any(progress.episodes.any() for progress in history):
        return ""
    return (
        f"no episode has ended in {taken // config.num_envs:,} steps of each environment, although"
        f" the time limit is {int(limit):,}: does step_env add 1 to the time of its state?"
    )


def key_from_seed(seed: int) -> jax.Array:
    """The root key of an integer seed.

    Raises:
        ConfigError: the seed is no whole number of 32 bits.
    """
    seed = whole_number("seed", seed, at_least=0, at_most=2**32 - 1)
    return jax.random.key(jnp.uint32(seed))
