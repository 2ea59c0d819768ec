"""Actor-critic with thousands of environments, compared with random actions in them.

    python scripts/benchmark_on_policy.py
    python scripts/benchmark_on_policy.py --algorithms ppo --envs 64 2048

Prints one JSON line per row, appended to `--record`: environment steps per second of training and
of a scan that only draws random actions, medians over `--rounds` in which the two alternate; their
ratio, the cost of learning; and the size of a rollout, the only memory of on-policy methods.
Compile times are separate.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac import envs
from scripts import record
from scripts.benchmark_speed import continuing_timer, timer
from scripts.options import Parser, count

ENVIRONMENTS = {
    "CartPole-v1": 20,
    "Breakout-MinAtar": 4,
}  # timed iterations with 2,048 environments


def measure(algorithm: str, name: str, num_envs: int, rounds: int) -> dict[str, Any]:
    config = prl.default_config(algorithm).replace(
        env=name, num_envs=num_envs, hidden_sizes=(64, 64), total_steps=2**40 // 2**10 * num_envs
    )
    iterations = max(1, ENVIRONMENTS[name] * 2_048 // num_envs)
    env = envs.bind(name)
    stamp = record.stamp("on-policy speed", depends=record.algorithm_modules(algorithm))
    state = prl.init(jax.random.key(0), config)

    def random(key: jax.Array, env_state: prl.types.EnvState) -> tuple:
        def actor(key: jax.Array, obs: jax.Array, step: jax.Array, carry: Any) -> tuple:
            return env.random_action(key, num_envs), (), carry

        keys = jax.random.split(key, (iterations * config.rollout_length, 1 + num_envs))
        env_state, (_, episodes) = envs.rollout(env, keys, env_state, jnp.int32(0), actor)
        return env_state, jax.tree.map(jnp.sum, episodes)

    timers = {
        "random": timer(random, jax.random.key(1), jax.tree.map(jnp.copy, state.env)),
        "train": continuing_timer(lambda state: prl.run(state, config, iterations), state),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for kind, (measure_once, _) in timers.items():
            seconds[kind].append(measure_once())
    steps = iterations * config.steps_per_iteration
    per_second = {kind: steps / statistics.median(times) for kind, times in seconds.items()}
    memory = jax.eval_shape(partial(prl.init, config=config), jax.random.key(0)).memory
    rollout = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(memory))
    return {
        **stamp,
        "algorithm": algorithm,
        "environment": name,
        "seeds": 1,
        "num_envs": num_envs,
        "rollout_length": config.rollout_length,
        "steps_per_second": round(per_second["train"]),
        "random_steps_per_second": round(per_second["random"]),
        "times_slower_than_random": round(per_second["random"] / per_second["train"], 2),
        "rollout_mib": round(rollout / 2**20, 2),
        "compile_s": round(timers["train"][1], 1),
    }


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--algorithms", nargs="+", default=["a2c"], choices=["a2c", "ppo"])
    names = list(ENVIRONMENTS)
    parser.add_argument("--environments", nargs="+", default=names, choices=names)
    parser.add_argument("--envs", nargs="+", type=count, default=[2_048])
    parser.add_argument("--rounds", type=count, default=5)
    record.add_record(parser, "speed")
    options = parser.parse_args()
    for algorithm in options.algorithms:
        for name in options.environments:
            for num_envs in options.envs:
                row = measure(algorithm, name, num_envs, options.rounds)
                record.append(options.record, row)


if __name__ == "__main__":
    main()
