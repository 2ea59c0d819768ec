"""Tuned hyperparameters of pairs (algorithm, environment).

They were tuned on other seeds than those of the recorded results; on MinAtar, on one or two of the
games, which share their settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purejaxrl_sac import normalize

Settings = dict[str, Any]  # field of a configuration -> value

_CARTPOLE = {
    "total_steps": 50_000,
    "num_envs": 10,
    "num_updates": 10,
    "capacity": 50_000,
    "warmup_steps": 1_000,
    "learning_rate": 1e-3,
    "tau": 0.005,
    "target_period": 1,
}
_CARTPOLE_EPSILON = {"epsilon_end": 0.02, "epsilon_fraction": 0.5}
_CARTPOLE_LONG = {  # for algorithms that have not converged at 50k steps
    "total_steps": 100_000,
    "learning_rate": 5e-4,
    "learning_rate_end": 0.1,
    "tau": 0.01,
}
_EPSILON_EARLY = {"epsilon_end": 0.05, "epsilon_fraction": 0.2}
_CARTPOLE_FAST = {**_CARTPOLE_LONG, "num_updates": 5, "batch_size": 64}  # a third of the time
_CARTPOLE_QUANTILES = {  # a smaller huber_delta learns the rare terminations too slowly
    **_CARTPOLE_FAST,
    **_EPSILON_EARLY,
    "learning_rate": 1e-3,
    "huber_delta": 30.0,
}

_ACROBOT = {
    "total_steps": 100_000,
    "num_envs": 10,
    "num_updates": 5,
    "capacity": 50_000,
    "warmup_steps": 1_000,
    "learning_rate": 2e-3,
    "learning_rate_end": 0.01,
    "target_period": 100,
    "epsilon_end": 0.05,
}
_MOUNTAIN_CAR = {
    "total_steps": 120_000,
    "num_envs": 8,
    "num_updates": 32,
    "rollout_length": 8,
    "noise_repeat": 8,  # independent noise per step does not reach the goal
    "capacity": 48_000,
    "warmup_steps": 2_000,
    "learning_rate": 2e-3,
    "learning_rate_end": 0.1,
    "gamma": 0.98,
    "tau": 0.02,
    "target_period": 1,
    "epsilon_end": 0.03,
}
_CATCH = {
    "total_steps": 20_000,
    "num_envs": 8,
    "num_updates": 4,
    "capacity": 16_000,
    "warmup_steps": 800,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "tau": 0.01,
    "target_period": 1,
    "epsilon_end": 0.05,
    "epsilon_fraction": 0.5,
}
_FOUR_ROOMS = {
    **_CATCH,
    "total_steps": 100_000,
    "num_envs": 10,
    "num_updates": 5,
    "capacity": 50_000,
    "warmup_steps": 2_000,
    "learning_rate_end": 0.1,
    "gamma": 0.97,
}
_MINATAR = {  # sizes and learning rate of Young & Tian 2019, but one update per four steps
    "total_steps": 1_000_000,
    "num_envs": 4,
    "num_updates": 1,
    "capacity": 100_000,
    "warmup_steps": 5_000,
    "batch_size": 32,
    "hidden_sizes": (128,),
    "learning_rate": 2.5e-4,
    "target_period": 1_000,
}
_MINATAR_EPSILON = {"epsilon_end": 0.05, "epsilon_fraction": 0.1}
_MINATAR_RAINBOW = {"learning_rate": 6e-4, "v_max": 30.0}
_MINATAR_PQN = {
    "total_steps": 10_000_000,
    "num_envs": 128,
    "rollout_length": 32,
    "num_updates": 64,
    "num_epochs": 2,
    "hidden_sizes": (128,),
    "learning_rate": 5e-4,
    "trace_decay": 0.65,
    "epsilon_fraction": 0.1,
}
_MINATAR_PPO = {  # PureJaxRL's, whose returns end at time limits instead of bootstrapping
    "total_steps": 10_000_000,
    "num_envs": 64,
    "rollout_length": 128,
    "num_epochs": 4,
    "num_updates": 32,
    "learning_rate": 5e-3,
    "activation": "relu",
    "value_clip": 0.2,
    "adam_epsilon": 1e-5,
}
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")

_CONTROL = {
    "total_steps": 50_048,
    "num_envs": 16,
    "num_updates": 4,
    "batch_size": 128,
    "capacity": 51_200,
    "warmup_steps": 2_560,
    "gamma": 0.97,
    "tau": 0.01,
}

_BRAX = {  # one update per step; hidden layers of 64 x 64, for CPUs
    "total_steps": 100_000,
    "num_envs": 16,
    "num_updates": 16,
    "warmup_steps": 8_000,
    "alpha_learning_rate": 3e-4,
    "wrappers": (normalize.observations,),
}

_PENDULUM = {
    "total_steps": 10_000,
    "num_updates": 2,
    "capacity": 10_000,
    "learning_rate": 3e-3,
}
_PENDULUM_TARGET = {"tau": 0.01}
_PENDULUM_SAC = {**_PENDULUM_TARGET, "alpha_learning_rate": 3e-3}
_PENDULUM_CRITICS = {"num_updates": 4, "policy_delay": 2, "batch_size": 128}
_PENDULUM_SIMBA = {  # small networks for 3 numbers, and the target entropy of SAC
    "batch_size": 128,
    "critic_width": 64,
    "critic_blocks": 1,
    "actor_width": 64,
    "learning_rate": 1e-3,
    "target_entropy_per_dim": -1.0,
}

_FROZEN_LAKE = {
    "total_steps": 200_000,
    "learning_rate": 0.5,
    "omega": 0.5,
    "epsilon_end": 0.2,
    "epsilon_fraction": 0.8,
}
_CLIFF_WALKING = {"total_steps": 100_000, "learning_rate": 0.5, "epsilon_end": 0.1}
_SOFT_Q = {"exploration": "epsilon_greedy", "alpha": 0.01}

_RECURRENT_PPO = {"cell": "min_gru", "learning_rate": 2e-3, "sequence_length": 32}
_RECURRENT_PQN = {"cell": "min_gru", "sequence_length": 16}


def _each(
    envs: Sequence[str], common: Settings, extras: Mapping[str, Settings]
) -> dict[tuple[str, str], Settings]:
    """(algorithm, env) -> the common settings, with additional ones of each algorithm."""
    return {(name, env): {**common, **extra} for env in envs for name, extra in extras.items()}


PRESETS: dict[tuple[str, str], Settings] = {
    **_each(
        ("FrozenLake-misc", "frozen_lake"),
        _FROZEN_LAKE,
        {
            "q_learning": {},
            "double_q_learning": {"total_steps": 400_000},
            "sarsa": {"epsilon_end": 0.05},
            "expected_sarsa": {"epsilon_end": 0.05},
            "soft_q_learning": _SOFT_Q,
            "q_lambda": {},
        },
    ),
    ("q_learning", "frozen_lake_8x8"): {"total_steps": 500_000, "initial_value": 0.5},
    ("q_learning", "cliff_walking"): _CLIFF_WALKING,
    ("double_q_learning", "cliff_walking"): {**_CLIFF_WALKING, "total_steps": 400_000},
    ("sarsa", "cliff_walking"): {"total_steps": 50_000},
    ("expected_sarsa", "cliff_walking"): {"total_steps": 50_000},
    ("soft_q_learning", "cliff_walking"): {**_CLIFF_WALKING, **_SOFT_Q},
    ("q_lambda", "cliff_walking"): _CLIFF_WALKING,
    ("q_learning", "taxi"): {
        "total_steps": 200_000,
        "learning_rate": 1.0,
        "epsilon_end": 0.1,
        "epsilon_fraction": 0.8,
    },
    **_each(
        ("CartPole-v1",),
        _CARTPOLE,
        {
            "dqn": {**_CARTPOLE_LONG, **_EPSILON_EARLY},
            "double_dqn": {**_CARTPOLE_LONG, **_EPSILON_EARLY},
            "dueling_dqn": {**_CARTPOLE_LONG, **_EPSILON_EARLY},
            "n_step_dqn": _CARTPOLE_EPSILON,
            "per_dqn": _CARTPOLE_EPSILON,
            "munchausen_dqn": _CARTPOLE_EPSILON,
            "qr_dqn": {**_CARTPOLE_QUANTILES, "num_quantiles": 10},
            "iqn": {
                **_CARTPOLE_QUANTILES,
                "num_quantiles": 8,
                "num_target_quantiles": 8,
                "num_policy_quantiles": 8,
            },
            "c51": {
                **_CARTPOLE_FAST,
                **_EPSILON_EARLY,
                "learning_rate": 1e-3,
                "learning_rate_end": 0.01,
                "tau": 0.02,
                "v_max": 110.0,
            },
            "noisy_dqn": {},
            "rainbow": {**_CARTPOLE_FAST, "learning_rate": 1e-3, "v_max": 110.0},
        },
    ),
    ("pqn", "CartPole-v1"): {"total_steps": 500_000},
    **_each(
        [f"{game}-MinAtar" for game in GAMES],
        {},
        {
            "dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "double_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "munchausen_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "qr_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "rainbow": {**_MINATAR, **_MINATAR_RAINBOW},
            "pqn": _MINATAR_PQN,
            "ppo": _MINATAR_PPO,
        },
    ),
    ("rainbow", "Asterix-MinAtar"): {  # n-step returns and larger noise are harmful here
        **_MINATAR,
        "total_steps": 300_000,
        "learning_rate": 3e-4,
        "learning_rate_end": 0.1,
        "target_period": 250,
        "n_step": 1,
        "sigma": 0.1,
        "v_min": -1.0,
        "v_max": 10.0,
    },
    ("soft_dqn", "DeepSea-bsuite"): {"total_steps": 20_000},
    ("dqn", "Catch-bsuite"): _CATCH,
    ("double_dqn", "Catch-bsuite"): _CATCH,
    ("dqn", "FourRooms-misc"): _FOUR_ROOMS,
    ("double_dqn", "FourRooms-misc"): _FOUR_ROOMS,
    ("dqn", "Acrobot-v1"): _ACROBOT,
    ("double_dqn", "Acrobot-v1"): _ACROBOT,
    ("qr_dqn", "Acrobot-v1"): _ACROBOT,
    ("dqn", "MountainCar-v0"): _MOUNTAIN_CAR,
    ("qr_dqn", "MountainCar-v0"): _MOUNTAIN_CAR,
    ("a2c", "CartPole-v1"): {"total_steps": 300_000},
    ("a2c", "Acrobot-v1"): {"total_steps": 300_000},
    ("reinforce", "CartPole-v1"): {
        "total_steps": 500_000,
        "num_envs": 4,
        "learning_rate": 1e-2,
    },
    ("ppo", "CartPole-v1"): {"total_steps": 200_000, "learning_rate": 2e-3},
    ("ppo", "Acrobot-v1"): {"total_steps": 200_000, "learning_rate": 1e-3},
    ("ppo", "Pendulum-v1"): {
        "total_steps": 300_000,
        "num_epochs": 10,
        "num_updates": 80,
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "entropy_coef": 0.0,
        "wrappers": (normalize.observations, normalize.rewards),
    },
    ("recurrent_a2c", "CartPole-v1"): {
        "total_steps": 300_000,
        "rollout_length": 8,
        "cell": "min_gru",
    },
    ("recurrent_ppo", "CartPole-v1"): {**_RECURRENT_PPO, "total_steps": 300_000},
    ("recurrent_ppo", "MemoryChain-bsuite"): {**_RECURRENT_PPO, "total_steps": 100_000},
    ("recurrent_pqn", "CartPole-v1"): {**_RECURRENT_PQN, "total_steps": 500_000},
    ("recurrent_pqn", "MemoryChain-bsuite"): {**_RECURRENT_PQN, "total_steps": 100_000},
    ("discrete_sac", "CartPole-v1"): {
        "total_steps": 50_000,
        "num_envs": 8,
        "num_updates": 4,
        "capacity": 48_000,
        "warmup_steps": 1_000,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "learning_rate_end": 0.1,
        "tau": 0.02,
        "target_entropy_ratio": 0.7,
        "target_entropy_ratio_end": 0.7,
    },
    ("discrete_sac", "Acrobot-v1"): {
        "total_steps": 100_000,
        "num_envs": 8,
        "rollout_length": 4,
        "noise_repeat": 4,  # with independent noise per step most runs never reach the goal
        "num_updates": 16,
        "capacity": 102_400,
        "warmup_steps": 5_120,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "learning_rate_end": 0.1,
        "tau": 0.02,
        "target_entropy_ratio": 0.7,
    },
    ("sac", "MountainCarContinuous-v0"): {
        "total_steps": 50_048,
        "num_envs": 8,
        "rollout_length": 16,
        "noise_repeat": 16,  # independent noise per step does not reach the goal
        "num_updates": 128,  # one per step
        "batch_size": 128,
        "capacity": 51_200,
        "warmup_steps": 2_560,
        "learning_rate": 2e-3,
        "alpha_learning_rate": 2e-3,
        "gamma": 0.995,
        "tau": 0.02,
    },
    ("sac", "Reacher-misc"): _CONTROL,
    ("sac", "Swimmer-misc"): {**_CONTROL, "num_updates": 8},
    ("sac", "PointRobot-misc"): {**_CONTROL, "num_updates": 16, "gamma": 0.95},
    ("sac", "multi_goal"): {
        "total_steps": 20_000,
        "num_envs": 4,
        "num_updates": 4,
        "batch_size": 128,
        "capacity": 20_000,
        "tau": 0.01,
    },
    ("redq", "Swimmer-misc"): {**_CONTROL, "num_updates": 8, "policy_delay": 2, "num_critics": 5},
    ("droq", "Swimmer-misc"): {**_CONTROL, "num_updates": 16, "policy_delay": 4},
    ("sac", "brax/halfcheetah/spring"): _BRAX,
    ("droq", "brax/halfcheetah/spring"): {**_BRAX, "policy_delay": 1},
    ("tqc", "brax/halfcheetah/spring"): {**_BRAX, "num_critics": 2},
    ("sac", "brax/ant/spring"): _BRAX,
    ("sac", "brax/hopper/spring"): {**_BRAX, "target_entropy_per_dim": -0.5},
    ("sac", "brax/walker2d/spring"): {**_BRAX, "target_entropy_per_dim": -0.5},
    **_each(
        ("Pendulum-v1",),
        _PENDULUM,
        {
            "sac": {
                "num_updates": 4,
                "batch_size": 128,
                "learning_rate": 1e-2,  # so large only because of the decay
                "learning_rate_end": 0.03,
                "alpha_learning_rate": 3e-3,
            },
            "redq": {**_PENDULUM_SAC, **_PENDULUM_CRITICS, "num_critics": 5},
            "droq": {**_PENDULUM_SAC, **_PENDULUM_CRITICS},
            "tqc": {**_PENDULUM_SAC, "num_critics": 2},
            "crossq": {
                "num_updates": 1,
                "batch_size": 128,
                "critic_hidden_sizes": (64, 64),
                "learning_rate": 1e-3,
                "alpha_learning_rate": 3e-3,
                "renorm_warmup": 1_000,
            },
            "simba": {**_PENDULUM_SAC, **_PENDULUM_SIMBA},
            "sac_v1": {**_PENDULUM_TARGET, "alpha": 0.2},
            "td3": {**_PENDULUM_TARGET, "num_updates": 4, "batch_size": 128, "learning_rate": 1e-3},
        },
    ),
}
