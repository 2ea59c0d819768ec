"""The algorithms by name. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib

from purejaxrl_sac.config import Config, unknown

# name -> module, configuration class, what it is
ALGORITHMS = {
    "q_learning": ("q_learning", "TabularConfig", "Q-learning (Watkins 1989)"),
    "double_q_learning": ("q_learning", "TabularConfig", "Double Q-learning (van Hasselt 2010)"),
    "sarsa": ("q_learning", "TabularConfig", "SARSA (Rummery & Niranjan 1994)"),
    "expected_sarsa": ("q_learning", "TabularConfig", "Expected SARSA (van Seijen et al. 2009)"),
    "soft_q_learning": ("q_learning", "SoftQLearningConfig", "soft Q-learning with a table"),
    "q_lambda": ("q_learning", "QLambdaConfig", "Watkins's Q(lambda) (Watkins 1989)"),
    "dqn": ("dqn", "DQNConfig", "Deep Q-network (Mnih et al. 2015)"),
    "double_dqn": ("dqn", "DQNConfig", "Double DQN (van Hasselt et al. 2016)"),
    "dueling_dqn": ("dqn", "DQNConfig", "DQN with a dueling network (Wang et al. 2016)"),
    "noisy_dqn": ("dqn", "NoisyDQNConfig", "DQN with a noisy network (Fortunato et al. 2018)"),
    "n_step_dqn": ("dqn", "NStepDQNConfig", "DQN with n-step returns (Sutton 1988)"),
    "per_dqn": ("dqn", "PrioritizedDQNConfig", "DQN, prioritised replay (Schaul et al. 2016)"),
    "expected_dqn": ("dqn", "DQNConfig", "DQN with the target of Expected SARSA"),
    "soft_dqn": (
        "continuous_soft_q",
        "SoftDQNConfig",
        "soft Q-learning, discrete (Haarnoja et al. 2017)",
    ),
    "munchausen_dqn": ("dqn", "MunchausenDQNConfig", "Munchausen DQN (Vieillard et al. 2020)"),
    "c51": ("distributional", "C51Config", "C51, categorical DQN (Bellemare et al. 2017)"),
    "qr_dqn": ("distributional", "QRDQNConfig", "QR-DQN, quantile regression (Dabney et al. 2018)"),
    "iqn": ("distributional", "IQNConfig", "IQN, implicit quantiles (Dabney et al. 2018)"),
    "rainbow": ("distributional", "RainbowConfig", "Rainbow (Hessel et al. 2018)"),
    "pqn": ("pqn", "PQNConfig", "PQN, Q(lambda) without replay (Gallici et al. 2025)"),
    "a2c": ("a2c", "ActorCriticConfig", "Advantage actor-critic (Mnih et al. 2016)"),
    "reinforce": ("a2c", "ReinforceConfig", "REINFORCE with a baseline (Williams 1992)"),
    "ppo": ("ppo", "PPOConfig", "Proximal policy optimisation (Schulman et al. 2017)"),
    "continuous_soft_q": (
        "continuous_soft_q",
        "ContinuousSoftQConfig",
        "soft Q-learning, continuous (Haarnoja et al. 2017)",
    ),
    "sac": ("sac", "SACConfig", "Soft Actor-Critic (Haarnoja et al. 2018)"),
    "discrete_sac": ("discrete_sac", "DiscreteSACConfig", "SAC, discrete (Christodoulou 2019)"),
    "sac_v1": ("sac_v1", "SACv1Config", "SAC with a value network (Haarnoja et al. 2018)"),
    "crossq": ("crossq", "CrossQConfig", "SAC without target networks (Bhatt et al. 2024)"),
    "redq": ("sac_family", "REDQConfig", "SAC with a large ensemble (Chen et al. 2021)"),
    "droq": ("sac_family", "DroQConfig", "SAC with dropout critics (Hiraoka et al. 2022)"),
    "tqc": ("sac_family", "TQCConfig", "SAC, truncated quantiles (Kuznetsov et al. 2020)"),
    "simba": ("sac_family", "SimBaConfig", "SAC with residual networks (Lee et al. 2024)"),
    "fast_sac": ("sac_family", "FastSACConfig", "SAC with many environments (Li et al. 2023)"),
    "td3": ("td3", "TD3Config", "Twin delayed DDPG (Fujimoto et al. 2018)"),
}


def default_config(algorithm: str) -> Config:
    """The default configuration of a named algorithm.

    Raises:
        ConfigError: no algorithm has this name (with the nearest one that exists).
    """
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS)
    module_name, config_class, _ = ALGORITHMS[algorithm]
    module = importlib.import_module(f"purejaxrl_sac.agents.{module_name}")
    return getattr(module, config_class)(algorithm=getattr(module, algorithm))


def name_of(config: Config) -> str:
    """The name a configuration's algorithm is listed under, else the function's own."""
    for name, (module_name, _, _) in ALGORITHMS.items():
        module = importlib.import_module(f"purejaxrl_sac.agents.{module_name}")
        if getattr(module, name) is config.algorithm:
            return name
    return getattr(config.algorithm, "__name__", type(config).__name__)
