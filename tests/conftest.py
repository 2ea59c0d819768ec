import jax
import pytest

import purejaxrl_sac as prl


@pytest.fixture
def key():
    return jax.random.key(0)


def small(algorithm, **changes):
    """A preset cut down to a few iterations, several environments and updates each."""
    env = "Pendulum-v1" if algorithm == "sac" else "CartPole-v1"
    sizes = {
        "total_steps": 240,
        "num_envs": 3,
        "rollout_length": 4,
        "num_updates": 2,
        "warmup_steps": 24,
        "capacity": 96,
        "batch_size": 8,
        "hidden_sizes": (8, 8),
    }
    return prl.preset(algorithm, env).replace(**{**sizes, **changes})
