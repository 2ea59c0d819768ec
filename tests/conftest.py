import dataclasses

import jax
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS


@pytest.fixture
def key():
    return jax.random.key(0)


ENVS = {"sac": "Pendulum-v1", "soft_q": "multi_goal", "soft_dqn": "CartPole-v1"} | {
    name: "CartPole-v1"
    for name, (module, *_) in ALGORITHMS.items()
    if module in {"dqn", "distributional", "pqn", "a2c", "ppo"}
}


def small(algorithm, **changes):
    """A preset cut down to a few iterations, several environments and updates each."""
    config = prl.preset(algorithm, ENVS.get(algorithm, "frozen_lake"))
    sizes = {
        "total_steps": 240,
        "num_envs": 3,
        "rollout_length": 4,
        "num_updates": 2,
        "num_epochs": 1,
        "warmup_steps": 24,
        "capacity": 96,
        "batch_size": 8,
        "hidden_sizes": (8, 8),
    }
    known = {field.name for field in dataclasses.fields(config)}
    sizes = {name: value for name, value in sizes.items() if name in known}
    return config.replace(**{**sizes, **changes})
