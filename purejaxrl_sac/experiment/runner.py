"""A vmapped run as a loop of compiled chunks.

Nothing inside a chunk talks to the host; between chunks the host logs, draws and checks. The
state is donated to each chunk, so a run holds one copy of its memory.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.evaluate import evaluate
from purejaxrl_sac.experiment import plot, record
from purejaxrl_sac.train import build, init, run, seed_axes
from purejaxrl_sac.types import TrainState


class Progress(NamedTuple):
    """What is known after a chunk; per-seed arrays are [seeds]."""

    steps: int  # environment steps of each seed so far
    total_steps: int  # environment steps of each seed at the end
    seconds: float  # spent in chunks; compilation, warm-up and the host's work not counted
    rate: float  # environment steps per second, over all seeds, warm-up not counted
    episode_return: np.ndarray  # mean over the episodes that ended in the chunk; nan if none
    episode_length: np.ndarray
    latest_return: np.ndarray  # the newest episode_return that is known; nan if none is
    metrics: dict[str, np.ndarray]  # the agent's own, averaged over the chunk
    failed: np.ndarray  # bool: some metric has been nan or infinite


class Result(NamedTuple):
    """A finished run."""

    state: TrainState  # leading axis [seeds], clock unbatched
    history: list[Progress]
    evaluation: np.ndarray | None  # [seeds, episodes] greedy returns; None without time limit
    compile_seconds: float
    train_seconds: float


def chunk_lengths(iterations: int, chunks: int) -> list[int]:
    """Splits iterations into about `chunks` parts of at most two different lengths.

    Each length is a program to compile: one length wherever a divisor is near.
    """
    wanted = max(1, round(iterations / chunks))
    for length in range(wanted, max(1, wanted // 2), -1):
        if iterations % length == 0:
            return [length] * (iterations // length)
    whole, rest = divmod(iterations, wanted)
    return [wanted] * whole + [rest] * (rest > 0)


def train_seeds(
    key: jax.Array,
    config: Config,
    seeds: int,
    *,
    chunks: int = 50,
    episodes: int = 128,
    on_compiled: Callable[[float], None] = lambda seconds: None,
    on_chunk: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Trains `seeds` independent seeds side by side, then evaluates each one greedily.

    Args:
        key: root key; training and evaluation keys are split from it.
        chunks: about how many times `on_chunk` hears of the run.
        episodes: evaluation episodes per seed.

    Raises:
        ConfigError: the configuration cannot run.
    """
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}, but must be at least 1")
    build(config)
    key_train, key_eval = jax.random.split(key)
    keys = jax.random.split(key_train, seeds)
    axes = seed_axes(jax.eval_shape(init, keys[0], config))

    began = time.perf_counter()
    begin = jax.jit(jax.vmap(init, (0, None), axes)).lower(keys, config).compile()
    chunk = jax.jit(_chunk, static_argnums=2, donate_argnums=0)
    lengths = chunk_lengths(config.iterations, chunks)
    shapes = jax.eval_shape(jax.vmap(init, (0, None), axes), keys, config)
    programs = {n: chunk.lower(shapes, config, n).compile() for n in sorted(set(lengths))}
    compile_seconds = time.perf_counter() - began
    on_compiled(compile_seconds)

    state = jax.block_until_ready(begin(keys, config))
    history: list[Progress] = []
    failed, latest = np.zeros(seeds, bool), np.full(seeds, np.nan)
    warmup = config.warmup_iterations * config.block
    seconds = 0.0
    total = (config.warmup_iterations + config.iterations) * config.block
    for length in lengths:
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(programs[length](state, config))
        seconds += time.perf_counter() - began
        metrics = {name: np.asarray(value) for name, value in metrics.items()}
        failed = failed | ~np.all([np.isfinite(value) for value in metrics.values()], axis=0)
        ended = metrics.pop("episodes")
        with np.errstate(invalid="ignore", divide="ignore"):
            episode_return = metrics.pop("returns") / ended
            episode_length = metrics.pop("lengths") / ended
        latest = np.where(np.isnan(episode_return), latest, episode_return)
        steps = int(state.step) * config.num_envs
        progress = Progress(
            steps=steps,
            total_steps=total,
            seconds=seconds,
            rate=(steps - warmup) * seeds / seconds,
            episode_return=episode_return,
            episode_length=episode_length,
            latest_return=latest,
            metrics=metrics,
            failed=failed,
        )
        history.append(progress)
        on_chunk(progress)

    def play(key: jax.Array, state: TrainState) -> jax.Array:
        return evaluate(key, config, state, episodes)

    try:  # start states of its own for each seed: the interval is to include their luck
        keys = jax.random.split(key_eval, seeds)
        evaluation = np.asarray(jax.jit(jax.vmap(play, (0, axes)))(keys, state))
    except ConfigError:  # an environment without a time limit
        evaluation = None
    return Result(state, history, evaluation, compile_seconds, seconds)


def _chunk(state: TrainState, config: Config, iterations: int) -> tuple[TrainState, dict]:
    """Runs all seeds for some iterations; sums of episode figures, means of all others."""
    axes = seed_axes(state)
    state, metrics = jax.vmap(run, (axes, None, None), (axes, 0))(state, config, iterations)
    totals = ("episodes", "returns", "lengths")
    reduced = {k: v.sum(1) if k in totals else v.mean(1) for k, v in metrics.items()}
    return state, reduced


class RunDirectory:
    """Where a run leaves its files. Nothing that exists is ever written over.

    Raises:
        ConfigError: the directory exists, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                f"{self.path} exists already: give --out another directory, or move this one away"
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot make {self.path}: {error.strerror}") from None

    def remove_if_unused(self) -> None:
        """Takes the directory away again, unless some training has been written down."""
        if not (self.path / "metrics.jsonl").exists():
            shutil.rmtree(self.path)

    def write_config(self, config: Config, seeds: int, seed: int) -> None:
        """`config.json`: everything needed to run this again."""
        device = jax.devices()[0]
        document = {
            "config": record.config_to_dict(config),
            "seeds": seeds,
            "seed": seed,
            "versions": record.versions(),
            "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        }
        (self.path / "config.json").write_text(json.dumps(document, indent=2) + "\n")

    def write_chunk(self, progress: Progress) -> None:
        """One more line of `metrics.jsonl`; per-seed lists, null where nothing is known."""
        row = {
            "steps": progress.steps,
            "seconds": round(progress.seconds, 3),
            "episode_return": _listed(progress.episode_return),
            "episode_length": _listed(progress.episode_length),
            **{name: _listed(value) for name, value in progress.metrics.items()},
        }
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def write_result(self, result: Result, summary: dict[str, str], title: str) -> None:
        """The agents' final states (`agent/`), `curve.png` and `summary.json`."""
        import orbax.checkpoint as ocp  # costs a second: only once a run has ended

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(self.path.absolute() / "agent", result.state.agent)
        steps = np.array([progress.steps for progress in result.history])
        returns = np.stack([progress.episode_return for progress in result.history], axis=1)
        plot.learning_curve(steps, returns, title, self.path / "curve.png")
        document = {
            **summary,
            "failed_seeds": np.flatnonzero(result.history[-1].failed).tolist(),
            "greedy_returns": None,
        }
        if result.evaluation is not None:
            document["greedy_returns"] = _listed(result.evaluation.mean(1))
        (self.path / "summary.json").write_text(json.dumps(document, indent=2) + "\n")


def _listed(values: np.ndarray) -> list[float | None]:
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in np.asarray(values).tolist()]


def key_from_seed(seed: int) -> jax.Array:
    """The root key of a whole number.

    Raises:
        ConfigError: the number does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}, but must be between 0 and 2**32 - 1")
    return jax.random.key(jnp.uint32(seed))
