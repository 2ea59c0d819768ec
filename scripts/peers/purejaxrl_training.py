"""PureJaxRL's recurrent PPO with the settings of a request, read from a clone of its repository.

Imported in a virtual environment of its own. Its code is older than the libraries there: it finds
the cell of flax as it was called then, and empty modules in place of environments that it does not
use here.
"""

import sys
import types

import jax
import jax.numpy as jnp
from flax import linen as nn

SIZE = 128  # of its memory and layers


class Cell(nn.GRUCell):
    """flax's GRU with the initial carry of earlier versions: (key, batch shape, size) -> zeros."""

    features: int = SIZE

    @staticmethod
    def initialize_carry(_, batch_shape, size):
        return jnp.zeros((*batch_shape, size))


def load(clone):
    """Its `make_train`, from the folder of a clone."""
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "navix"):
        sys.modules[name] = types.ModuleType(name)
    training = types.ModuleType("brax.envs.wrappers.training")
    training.EpisodeWrapper = training.AutoResetWrapper = object
    sys.modules["brax.envs.wrappers.training"] = training
    sys.modules["brax"].envs = sys.modules["brax.envs"]
    nn.GRUCell = Cell
    sys.path.insert(0, f"{clone}/purejaxrl")
    import ppo_rnn

    return ppo_rnn.make_train


def work(request):
    """Training of one or more seeds.

    Args:
        request: clone, env, seeds, num_envs, rollout_length and iterations.

    Returns:
        A function and its arguments.
    """
    settings = {
        "LR": 2.5e-4,
        "NUM_ENVS": request["num_envs"],
        "NUM_STEPS": request["rollout_length"],
        "TOTAL_TIMESTEPS": request["num_envs"] * request["rollout_length"] * request["iterations"],
        "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4,
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ENV_NAME": request["env"],
        "ANNEAL_LR": False,
        "DEBUG": False,
    }
    train = load(request["clone"])(settings)

    def seed(key):
        return train(key)["runner_state"]

    keys = jax.random.split(jax.random.PRNGKey(0), request["seeds"])
    return (seed, (keys[0],)) if request["seeds"] == 1 else (jax.vmap(seed), (keys,))
