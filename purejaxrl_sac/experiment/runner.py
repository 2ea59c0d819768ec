"""A vmapped run as a loop of compiled chunks.

Nothing inside a chunk talks to the host; between chunks the host logs, draws, checks and keeps.
The state is donated to each chunk, so a run holds one copy of its memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import evaluate, exploring_policy, policy
from purejaxrl_sac.train import build, init, run, seed_axes
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

    @property
    def total(self) -> int:
        """Environment steps of each seed at the end, warm-up included."""
        config = self.config
        return (config.warmup_iterations + config.iterations) * config.block

    def steps(self, iterations: int) -> int:
        """Environment steps of each seed after so many learning iterations."""
        return (self.config.warmup_iterations + iterations) * self.config.block

    def due(self, before: int, after: int) -> bool:
        """Whether an evaluation falls between two numbers of iterations done."""
        if not self.eval_every:
            return False
        if after == self.config.iterations:
            return True
        return self.steps(after) // self.eval_every > self.steps(before) // self.eval_every

    def keys(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Keys [seeds] of training, of the final evaluation, and of those during training."""
        key_train, key_eval = jax.random.split(key_from_seed(self.seed))
        key_watch = jax.random.fold_in(key_eval, 1)
        split = partial(jax.random.split, num=self.seeds)
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
) -> Plan:
    """Checks what a run is asked for.

    Args:
        chunks: about how many times the host hears of the run.

    Raises:
        ConfigError: the configuration cannot run, or a count is out of range.
    """
    build(config)
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
        chunk = min(chunk, max(1, eval_every // config.block))
    return Plan(config, seeds, seed, chunk, episodes, eval_every, eval_episodes)


class Progress(NamedTuple):
    """What is known after a chunk; per-seed arrays are [seeds]."""

    steps: int  # environment steps of each seed so far
    total_steps: int  # environment steps of each seed at the end
    seconds: float  # spent in chunks; compilation, warm-up and the host's work not counted
    rate: float  # environment steps per second, over all seeds, warm-up not counted
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

    state: TrainState  # leading axis [seeds], clock unbatched
    history: list[Progress]
    evaluation: np.ndarray | None  # [seeds, episodes] greedy returns; None without time limit
    compile_seconds: float
    train_seconds: float


class Programs(NamedTuple):
    """What a run is made of, compiled."""

    begin: jax.stages.Compiled | None  # (keys, config) -> state; None where a run goes on
    chunks: dict[int, jax.stages.Compiled]  # iterations -> (state, config, keys, due) -> ...
    seconds: float  # it took to compile


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


def shapes(plan: Plan) -> TrainState:
    """The shapes of a run's state: leading axis [seeds], clock unbatched."""
    keys, _, _ = plan.keys()
    axes = seed_axes(jax.eval_shape(init, keys[0], plan.config))
    return jax.eval_shape(jax.vmap(init, (0, None), axes), keys, plan.config)


def compile_run(plan: Plan, done: int = 0) -> Programs:
    """Compiles what is left of a run after `done` iterations."""
    began = time.perf_counter()
    config = plan.config
    keys, _, watch = plan.keys()
    like = shapes(plan)
    seeds = jax.jit(jax.vmap(init, (0, None), seed_axes(like)))
    begin = None if done else seeds.lower(keys, config).compile()
    lengths = chunk_lengths(config.iterations - done, plan.chunk)
    chunk = jax.jit(_chunk, static_argnums=(1, 2), donate_argnums=0)
    episodes = plan.eval_episodes if plan.eval_every else 0
    lowered = {n: chunk.lower(like, n, episodes, config, watch, True) for n in sorted(set(lengths))}
    chunks = {n: program.compile() for n, program in lowered.items()}
    return Programs(begin, chunks, time.perf_counter() - began)


def begin(plan: Plan, programs: Programs) -> TrainState:
    """All seeds after their warm-up."""
    keys, _, _ = plan.keys()
    return jax.block_until_ready(programs.begin(keys, plan.config))


def advance(
    plan: Plan, programs: Programs, state: TrainState, last: Progress | None = None
) -> Iterator[tuple[TrainState, Progress]]:
    """Runs chunk after chunk; each state is given up when the next one is asked for.

    Args:
        state: of a run that has done any number of whole chunks.
        last: its newest progress, None where it has just begun.
    """
    config, seeds, (_, _, keys) = plan.config, plan.seeds, plan.keys()
    done = int(state.step) // config.rollout_length - config.warmup_iterations
    seconds = last.seconds if last else 0.0
    failed_step = last.failed_step if last else np.full(seeds, -1)
    latest = last.latest_return if last else np.full(seeds, np.nan, np.float32)
    for length in chunk_lengths(config.iterations - done, plan.chunk):
        due = plan.due(done, done + length)
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(programs.chunks[length](state, config, keys, due))
        seconds += time.perf_counter() - began
        metrics = {name: np.asarray(value) for name, value in metrics.items()}
        finite = metrics.pop("finite")
        newly = (finite < length) & (failed_step < 0)
        failed_step = np.where(newly, plan.steps(done + 1) + finite * config.block, failed_step)
        done += length
        episodes, returns, lengths = (metrics.pop(name) for name in TOTALS)
        with np.errstate(invalid="ignore", divide="ignore"):
            episode_return = (returns / episodes).astype(np.float32)
            episode_length = (lengths / episodes).astype(np.float32)
        latest = np.where(episodes == 0, latest, episode_return)
        evaluation = {name: metrics.pop(name) for name in WATCHED if name in metrics}
        trained = (plan.steps(done) - plan.steps(0)) * seeds
        yield (
            state,
            Progress(
                steps=plan.steps(done),
                total_steps=plan.total,
                seconds=seconds,
                rate=trained / seconds,
                episodes=episodes,
                episode_return=episode_return,
                episode_length=episode_length,
                latest_return=latest,
                metrics=metrics,
                evaluation=evaluation if due else {},
                failed_step=failed_step,
            ),
        )


def final_evaluation(plan: Plan, state: TrainState) -> np.ndarray:
    """Greedy returns of every seed at the end, [seeds, episodes]; errors as for `play_seeds`."""
    _, keys, _ = plan.keys()
    return play_seeds(keys, plan.config, state, plan.episodes)


def play_seeds(
    keys: jax.Array, config: Config, state: TrainState, episodes: int, policy: Callable = policy
) -> np.ndarray:
    """Returns of every seed's policy, [seeds, episodes], each from start states of its own.

    An interval over seeds then includes the luck of their starts.

    Args:
        keys: [seeds].

    Raises:
        ConfigError: the environment has no time limit.
    """

    def play(key: jax.Array, state: TrainState) -> jax.Array:
        return evaluate(key, config, state, episodes, policy=policy)

    return np.asarray(jax.jit(jax.vmap(play, (0, seed_axes(state))))(keys, state))


def timed(config: Config) -> bool:
    """Whether episodes have a time limit, so that a policy can be evaluated."""
    return envs.bind(config.env, config.env_params).max_steps is not None


def train_seeds(
    plan: Plan,
    *,
    on_compiled: Callable[[float], None] = lambda seconds: None,
    on_chunk: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Trains all seeds side by side, then evaluates each one greedily; keeps nothing on disk."""
    programs = compile_run(plan)
    on_compiled(programs.seconds)
    state = begin(plan, programs)
    history: list[Progress] = []
    for state, progress in advance(plan, programs, state):  # noqa: B007, B020
        history.append(progress)
        on_chunk(progress)
    evaluation = final_evaluation(plan, state) if timed(plan.config) else None
    return Result(state, history, evaluation, programs.seconds, history[-1].seconds)


def _chunk(  # noqa: PLR0917
    state: TrainState, iterations: int, episodes: int, config: Config, keys: jax.Array, due: bool
) -> tuple[TrainState, dict]:
    """Runs all seeds for some iterations, then evaluates them if that is due."""
    axes = seed_axes(state)
    state, metrics = jax.vmap(run, (axes, None, None), (axes, 0))(state, config, iterations)
    finite = jnp.stack([jnp.isfinite(x) for x in metrics.values()]).all(0)  # [seeds, iterations]
    reduced = {name: x.sum(1) if name in TOTALS else x.mean(1) for name, x in metrics.items()}
    reduced["finite"] = jnp.where(finite.all(1), iterations, finite.argmin(1))
    if episodes:

        def play() -> dict[str, jax.Array]:
            def mean(key: jax.Array, state: TrainState, choose: Callable) -> jax.Array:
                return evaluate(key, config, state, episodes, policy=choose).mean()

            return {
                name: jax.vmap(partial(mean, choose=choose), (0, axes))(keys, state)
                for name, choose in WATCHED.items()
            }

        unknown = {name: jnp.full(len(keys), jnp.nan) for name in WATCHED}
        reduced |= jax.lax.cond(due, play, lambda: unknown)
    return state, reduced


def key_from_seed(seed: int) -> jax.Array:
    """The root key of a whole number.

    Raises:
        ConfigError: the number does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}, but must be between 0 and 2**32 - 1")
    return jax.random.key(jnp.uint32(seed))
