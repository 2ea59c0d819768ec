"""Tuned configurations per (algorithm, environment), as data.

Tuned on seeds other than those that the README reports; on MinAtar, on one or two of the games
that share a setting.
"""

from __future__ import annotations

from typing import Any

from purejaxrl_sac import normalize

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
_EPSILON = {"epsilon_end": 0.02, "epsilon_fraction": 0.5}
_LONGER = {  # for those whose policies still swing at 50k steps
    "total_steps": 100_000,
    "learning_rate": 5e-4,
    "learning_rate_end": 0.1,
    "tau": 0.01,
}
_EARLY_EPSILON = {"epsilon_end": 0.05, "epsilon_fraction": 0.2}
_FEWER = {**_LONGER, "num_updates": 5, "batch_size": 64}  # a third of the time
_QUANTILES = {  # gradients that are bounded earlier learn the rare ends of episodes too slowly
    **_FEWER,
    **_EARLY_EPSILON,
    "learning_rate": 1e-3,
    "huber_delta": 30.0,
}

_ACROBOT = {
    "total_steps": 100_000,
    "num_envs": 10,
    "num_updates": 5,
    "capacity": 50_000,
    "warmup_steps": 1_000,
    "learning_rate": 6e-4,
    "target_period": 250,
    "epsilon_end": 0.05,
}
_MOUNTAIN_CAR = {
    "total_steps": 120_000,
    "num_envs": 8,
    "num_updates": 32,
    "rollout_length": 8,
    "noise_repeat": 8,  # a coin for each step of its own climbs no hill
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
_ROOMS = {
    **_CATCH,
    "total_steps": 100_000,
    "num_envs": 10,
    "num_updates": 5,
    "capacity": 50_000,
    "warmup_steps": 2_000,
    "learning_rate_end": 0.1,
    "gamma": 0.97,
}
_MINATAR = {  # sizes and step size of Young & Tian 2019, but an update every four steps
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
_RAINBOW = {"learning_rate": 6e-4, "v_max": 30.0}
_PQN_MINATAR = {
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
_PPO_MINATAR = {  # as PureJaxRL's
    "total_steps": 10_000_000,
    "num_envs": 64,
    "rollout_length": 128,
    "num_epochs": 4,
    "num_updates": 32,
    "learning_rate": 5e-3,
}
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")

_GOALS = {
    "total_steps": 50_048,
    "num_envs": 16,
    "num_updates": 4,
    "batch_size": 128,
    "capacity": 51_200,
    "warmup_steps": 2_560,
    "gamma": 0.97,
    "tau": 0.01,
}

_BRAX = {  # one update a step; 64 x 64, for CPUs
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
_TARGETS = {"tau": 0.01}
_SAC = {**_TARGETS, "alpha_learning_rate": 3e-3}
_MORE_OFTEN = {"num_updates": 4, "policy_delay": 2, "batch_size": 128}
_NARROW = {  # networks for three numbers, and the entropy that SAC aims at
    "batch_size": 128,
    "critic_width": 64,
    "critic_blocks": 1,
    "actor_width": 64,
    "learning_rate": 1e-3,
    "target_entropy_per_dim": -1.0,
}

_LAKE = {
    "total_steps": 200_000,
    "learning_rate": 0.5,
    "omega": 0.5,
    "epsilon_end": 0.2,
    "epsilon_fraction": 0.8,
}
_CLIFF = {"total_steps": 100_000, "learning_rate": 0.5, "epsilon_end": 0.1}
_SOFT = {"exploration": "epsilon_greedy", "alpha": 0.01}

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (algorithm, env): {**_LAKE, **extra}
        for env in ("FrozenLake-misc", "frozen_lake")
        for algorithm, extra in {
            "q_learning": {},
            "double_q_learning": {"total_steps": 400_000},
            "sarsa": {"epsilon_end": 0.05},
            "expected_sarsa": {"epsilon_end": 0.05},
            "soft_q_learning": _SOFT,
            "q_lambda": {},
        }.items()
    },
    ("q_learning", "frozen_lake_8x8"): {"total_steps": 500_000, "initial_value": 0.5},
    ("q_learning", "cliff_walking"): _CLIFF,
    ("double_q_learning", "cliff_walking"): {**_CLIFF, "total_steps": 400_000},
    ("sarsa", "cliff_walking"): {"total_steps": 50_000},
    ("expected_sarsa", "cliff_walking"): {"total_steps": 50_000},
    ("soft_q_learning", "cliff_walking"): {**_CLIFF, **_SOFT},
    ("q_lambda", "cliff_walking"): _CLIFF,
    ("q_learning", "taxi"): {
        "total_steps": 200_000,
        "learning_rate": 1.0,
        "epsilon_end": 0.1,
        "epsilon_fraction": 0.8,
    },
    **{
        (algorithm, "CartPole-v1"): {**_CARTPOLE, **extra}
        for algorithm, extra in {
            "dqn": {**_LONGER, **_EARLY_EPSILON},
            "double_dqn": {**_LONGER, **_EARLY_EPSILON},
            "dueling_dqn": {**_LONGER, **_EARLY_EPSILON},
            "n_step_dqn": _EPSILON,
            "per_dqn": _EPSILON,
            "munchausen_dqn": _EPSILON,
            "qr_dqn": {**_QUANTILES, "num_quantiles": 10},
            "iqn": {**_QUANTILES, "num_quantiles": 8},
            "c51": {**_FEWER, **_EARLY_EPSILON, "v_max": 110.0},
            "noisy_dqn": {},
            "rainbow": {**_FEWER, "learning_rate": 1e-3, "v_max": 110.0},
        }.items()
    },
    ("pqn", "CartPole-v1"): {"total_steps": 500_000},
    **{
        (algorithm, f"{game}-MinAtar"): settings
        for game in GAMES
        for algorithm, settings in {
            "dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "double_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "munchausen_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "qr_dqn": {**_MINATAR, **_MINATAR_EPSILON},
            "rainbow": {**_MINATAR, **_RAINBOW},
            "pqn": _PQN_MINATAR,
            "ppo": _PPO_MINATAR,
        }.items()
    },
    ("rainbow", "Asterix-MinAtar"): {  # old policies' actions and strong noise hurt here
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
    ("dqn", "FourRooms-misc"): _ROOMS,
    ("double_dqn", "FourRooms-misc"): _ROOMS,
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
        "noise_repeat": 4,  # with noise of its own for each step most runs never see the bar
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
        "noise_repeat": 16,  # noise of its own for each step climbs no hill
        "num_updates": 128,  # one a step
        "batch_size": 128,
        "capacity": 51_200,
        "warmup_steps": 2_560,
        "learning_rate": 2e-3,
        "alpha_learning_rate": 2e-3,
        "gamma": 0.995,
        "tau": 0.02,
    },
    ("sac", "Reacher-misc"): _GOALS,
    ("sac", "Swimmer-misc"): {**_GOALS, "num_updates": 8},
    ("sac", "PointRobot-misc"): {**_GOALS, "num_updates": 16, "gamma": 0.95},
    ("sac", "multi_goal"): {
        "total_steps": 20_000,
        "num_envs": 4,
        "num_updates": 4,
        "batch_size": 128,
        "capacity": 20_000,
        "tau": 0.01,
    },
    ("redq", "Swimmer-misc"): {**_GOALS, "num_updates": 8, "policy_delay": 2, "num_critics": 5},
    ("droq", "Swimmer-misc"): {**_GOALS, "num_updates": 16, "policy_delay": 4},
    ("sac", "brax/halfcheetah/spring"): _BRAX,
    ("droq", "brax/halfcheetah/spring"): {**_BRAX, "policy_delay": 1},
    ("tqc", "brax/halfcheetah/spring"): {**_BRAX, "num_critics": 2},
    ("sac", "brax/ant/spring"): _BRAX,
    ("sac", "brax/hopper/spring"): {**_BRAX, "target_entropy_per_dim": -0.5},
    ("sac", "brax/walker2d/spring"): {**_BRAX, "target_entropy_per_dim": -0.5},
    **{
        (algorithm, "Pendulum-v1"): {**_PENDULUM, **extra}
        for algorithm, extra in {
            "sac": {
                "num_updates": 4,
                "batch_size": 128,
                "learning_rate": 1e-2,  # so large only because it falls
                "learning_rate_end": 0.03,
                "alpha_learning_rate": 3e-3,
            },
            "redq": {**_SAC, **_MORE_OFTEN, "num_critics": 5},
            "droq": {**_SAC, **_MORE_OFTEN},
            "tqc": {**_SAC, "num_critics": 2},
            "crossq": {"alpha_learning_rate": 3e-3, "num_updates": 1, "renorm_warmup": 1_000},
            "simba": {**_SAC, **_NARROW},
            "sac_v1": {**_TARGETS, "alpha": 0.2},
            "td3": {**_TARGETS, "num_updates": 4, "batch_size": 128, "learning_rate": 1e-3},
        }.items()
    },
}
