"""Throughput of tabular Q-learning, compared with a NumPy loop over gymnasium.

    python scripts/benchmark_tabular.py

Prints one JSON line per row, appended to `--record`: millions of environment steps per second over
all seeds, each with one update, the median over `--rounds`. Compilation is timed separately; all
rows and the loop alternate within each round, so that noise affects all of them. The loop is a
straightforward one in NumPy: one environment, one step, one update at a time.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gymnasium
import jax
import numpy as np

import purejaxrl_sac as prl
from scripts import record
from scripts.options import Parser, count

LOOP_STEPS = 20_000
ROWS = (  # environment, seeds, parallel environments per seed, rollout length
    ("frozen_lake", 1, 1, 1),
    ("frozen_lake", 1_024, 1, 1),
    ("frozen_lake", 1_024, 1, 8),
    ("frozen_lake", 1_024, 8, 1),
    ("FrozenLake-misc", 1_024, 1, 1),
    ("taxi", 1_024, 1, 1),
)


class Ours:
    """A run that continues from round to round, like chunks of a long run."""

    def __init__(self, env: str, seeds: int, num_envs: int, rollout_length: int) -> None:
        iterations = 20_000 if seeds == 1 else 800 // (num_envs * rollout_length)
        config = prl.default_config("q_learning").replace(
            env=env, num_envs=num_envs, rollout_length=rollout_length, total_steps=2**30
        )
        keys = jax.random.split(jax.random.key(0), seeds)
        axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))

        def chunk(state: prl.TrainState) -> tuple:
            run = jax.vmap(lambda state: prl.run(state, config, iterations), (axes,), (axes, 0))
            state, metrics = run(state)
            return state, jax.tree.map(lambda x: x.sum(1), metrics)

        self.state = jax.jit(jax.vmap(prl.init, (0, None), axes))(keys, config)
        start_time = time.perf_counter()
        self.program = jax.jit(chunk, donate_argnums=0).lower(self.state).compile()
        self.compile_s = time.perf_counter() - start_time
        self.steps = seeds * iterations * config.steps_per_iteration
        self.rate()

    def rate(self) -> float:
        """Steps per second of one chunk."""
        start_time = time.perf_counter()
        self.state, _ = jax.block_until_ready(self.program(self.state))
        return self.steps / (time.perf_counter() - start_time)


def loop_rate(epsilon: float = 0.1, learning_rate: float = 0.1, gamma: float = 0.99) -> float:
    """Steps per second of Q-learning in NumPy on gymnasium's FrozenLake."""
    env = gymnasium.make("FrozenLake-v1")
    rng, q = np.random.default_rng(0), np.zeros((16, 4))
    state, _ = env.reset(seed=0)
    start_time = time.perf_counter()
    for _ in range(LOOP_STEPS):
        if rng.random() < epsilon:
            action = rng.integers(4)
        else:
            action = rng.choice(np.flatnonzero(q[state] == q[state].max()))
        successor, reward, terminated, truncated, _ = env.step(int(action))
        target = reward + gamma * (not terminated) * q[successor].max()
        q[state, action] += learning_rate * (target - q[state, action])
        state = env.reset()[0] if terminated or truncated else successor
    return LOOP_STEPS / (time.perf_counter() - start_time)


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=count, default=7)
    record.add_record(parser, "speed")
    options = parser.parse_args()

    stamp = record.stamp("tabular speed", depends=record.algorithm_modules("q_learning"))
    runs = [Ours(*row) for row in ROWS]
    rates = [[loop_rate(), *(run.rate() for run in runs)] for _ in range(options.rounds)]
    loop, *ours = (statistics.median(column) for column in zip(*rates))
    python_loop = {"environment": "frozen_lake", "seeds": 1, "num_envs": 1, "rollout_length": 1}
    python_loop |= {"library": "NumPy and gymnasium", "algorithm": "q_learning"}
    record.append(options.record, {**stamp, **python_loop, "value": round(loop / 1e6, 4)})
    for (env, seeds, num_envs, rollout_length), run, rate in zip(ROWS, runs, ours):
        row = {
            **stamp,
            "algorithm": "q_learning",
            "environment": env,
            "seeds": seeds,
            "num_envs": num_envs,
            "rollout_length": rollout_length,
            "value": round(rate / 1e6, 2),
            "times_the_loop": round(rate / loop),
            "compile_s": round(run.compile_s, 1),
        }
        record.append(options.record, row)


if __name__ == "__main__":
    main()
