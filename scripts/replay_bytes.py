"""Bytes per transition of replay memories, with and without packed records.

    python scripts/replay_bytes.py                          # prints a table
    python scripts/replay_bytes.py --capacity 1000000

Sizes are total bytes of the shapes of the replay memory of a `dqn` or `sac` run; nothing is
allocated. `bytes_before` is the size of the same transitions as separate arrays in the dtypes of
the environment, the format of versions up to 0.6.0.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from purejaxrl_sac import envs, networks
from purejaxrl_sac.agents.dqn import replay_storage
from purejaxrl_sac.memory import records
from purejaxrl_sac.memory.storage import Deduplicated
from purejaxrl_sac.types import Transition
from scripts import record
from scripts.options import Parser, count

ENVIRONMENTS = (
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Pendulum-v1",
    "Catch-bsuite",
    "FourRooms-misc",
    "DeepSea-bsuite",
    "FrozenLake-misc",
)


def size(tree: Any) -> int:
    """Total bytes of a tree of arrays or shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def rollout_of(config: prl.Config) -> Transition:
    """Shapes of a rollout [1, N] of the environments of a run."""
    env = envs.bind(config.env)

    def collect(key: jax.Array) -> Transition:
        def actor(key: jax.Array, obs: jax.Array, step: jax.Array, carry: Any) -> tuple:
            return env.random_action(key, config.num_envs), (), carry

        keys = jax.random.split(key, (1, 1 + config.num_envs))
        return envs.rollout(env, keys, env.reset(key, config.num_envs), jnp.int32(0), actor)[1][0]

    return jax.eval_shape(collect, jax.random.key(0))


def before(rollout: Transition, config: prl.Config, deduplicated: bool) -> int:
    """Bytes of a memory with a separate array for each field."""
    each = size(rollout) / config.num_envs
    if not deduplicated:
        return int(config.capacity * each)
    image = size(rollout.obs) / config.num_envs
    rows = config.capacity + config.num_envs
    boundaries = max(config.capacity // 16, config.num_envs)
    return int(rows * (each - image + 4) + boundaries * image + 4)


def row(name: str, capacity: int) -> dict:
    """The figures of one environment."""
    algorithm = "dqn" if envs.bind(name).num_actions is not None else "sac"
    config = prl.default_config(algorithm).replace(env=name, num_envs=4, capacity=capacity)
    rollout = rollout_of(config)
    state = jax.eval_shape(replay_storage(config, envs.bind(name)).init, rollout)
    deduplicated = isinstance(state, Deduplicated)
    assert deduplicated == bool(networks.convolutions(envs.bind(name).observation_space))
    return {
        **record.stamp("replay bytes", "shapes", ["agents.off_policy", "envs", "memory.storage"]),
        "environment": name,
        "storage": "deduplicated" if deduplicated else "ring",
        "codec": "bits" if envs.bind(name).binary_observations else records.words.__name__,
        "bytes_per_transition": round(size(state) / capacity, 3),
        "bytes_before": round(before(rollout, config, deduplicated) / capacity, 3),
        "capacity": capacity,
    }


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--capacity", type=count, default=1_000_000)
    record.add_record(parser, "memory")
    options = parser.parse_args()
    print(f"{'environment':24}{'storage':14}{'codec':10}{'before':>10}{'bytes':>10}")
    for name in ENVIRONMENTS:
        found = row(name, options.capacity)
        record.append(options.record, found, show=False)
        print(
            f"{name:24}{found['storage']:14}{found['codec']:10}"
            f"{found['bytes_before']:10.2f}{found['bytes_per_transition']:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
