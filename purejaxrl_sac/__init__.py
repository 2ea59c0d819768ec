"""Q-learning to Soft Actor-Critic in pure JAX, each one compiled scan."""

import importlib

from purejaxrl_sac import envs
from purejaxrl_sac.agents import default_config
from purejaxrl_sac.config import Config, ConfigError, validate
from purejaxrl_sac.evaluate import evaluate, exploring_policy, policy, q_values, rollout_episodes
from purejaxrl_sac.presets import preset
from purejaxrl_sac.train import init, make_train, run, seed_axes, seed_state, train, train_with_eval
from purejaxrl_sac.types import Agent, EnvState, Memory, Sample, Storage, TrainState, Transition


def __getattr__(name: str) -> object:  # the host side, where somebody asks for it
    if name == "experiment":
        return importlib.import_module("purejaxrl_sac.experiment")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.6.1"

__all__ = [
    "Agent",
    "Config",
    "ConfigError",
    "EnvState",
    "Memory",
    "Sample",
    "Storage",
    "TrainState",
    "Transition",
    "default_config",
    "envs",
    "evaluate",
    "exploring_policy",
    "init",
    "make_train",
    "policy",
    "preset",
    "q_values",
    "rollout_episodes",
    "run",
    "seed_axes",
    "seed_state",
    "train",
    "train_with_eval",
    "validate",
]
