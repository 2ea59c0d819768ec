"""Q-learning to Soft Actor-Critic in pure JAX, each compiled into a single `lax.scan`.

Modules, configuration classes and algorithms are attributes of this package, imported when they
are first used: `prl.networks`, `prl.SACConfig`, `prl.sac`.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from purejaxrl_sac.agents import default_config, exported, preset
from purejaxrl_sac.config import Config, ConfigError, static, traced, validate
from purejaxrl_sac.evaluate import (
    Policy,
    evaluate,
    exploring_policy,
    policy,
    q_values,
    rollout_episodes,
)
from purejaxrl_sac.offline import offline, record_dataset
from purejaxrl_sac.train import (
    build,
    init,
    make_train,
    run,
    seed_axes,
    seed_state,
    train,
    train_with_eval,
)
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Curriculum,
    Env,
    EnvState,
    Memory,
    Sample,
    Storage,
    TrainState,
    Transition,
    memoryless,
)

if TYPE_CHECKING:  # what a type checker and an editor follow; at run time, `__getattr__`
    from purejaxrl_sac import (
        agents,
        config,
        distributions,
        envs,
        experiment,
        exploration,
        heads,
        losses,
        mdp,
        memory,
        networks,
        noise,
        normalize,
        optimize,
        presets,
        resets,
        returns,
        types,
    )
    from purejaxrl_sac.agents.a2c import ActorCriticConfig, ReinforceConfig, a2c, reinforce
    from purejaxrl_sac.agents.continuous_soft_q import ContinuousSoftQConfig, continuous_soft_q
    from purejaxrl_sac.agents.crossq import CrossQConfig, crossq
    from purejaxrl_sac.agents.discrete_sac import DiscreteSACConfig, discrete_sac
    from purejaxrl_sac.agents.distributional import (
        C51Config,
        IQNConfig,
        QRDQNConfig,
        RainbowConfig,
        c51,
        iqn,
        qr_dqn,
        rainbow,
    )
    from purejaxrl_sac.agents.dqn import (
        DQNConfig,
        MunchausenDQNConfig,
        NoisyDQNConfig,
        NStepDQNConfig,
        PrioritizedDQNConfig,
        SoftDQNConfig,
        double_dqn,
        dqn,
        dueling_dqn,
        expected_dqn,
        munchausen_dqn,
        n_step_dqn,
        noisy_dqn,
        per_dqn,
        soft_dqn,
    )
    from purejaxrl_sac.agents.ppo import PPOConfig, ppo
    from purejaxrl_sac.agents.pqn import PQNConfig, pqn
    from purejaxrl_sac.agents.q_learning import (
        QLambdaConfig,
        SoftQLearningConfig,
        TabularConfig,
        double_q_learning,
        expected_sarsa,
        q_lambda,
        q_learning,
        sarsa,
        soft_q_learning,
    )
    from purejaxrl_sac.agents.recurrent import (
        RecurrentA2CConfig,
        RecurrentPPOConfig,
        RecurrentPQNConfig,
        recurrent_a2c,
        recurrent_ppo,
        recurrent_pqn,
    )
    from purejaxrl_sac.agents.recurrent_dqn import (
        R2D2Config,
        RecurrentDQNConfig,
        r2d2,
        recurrent_dqn,
    )
    from purejaxrl_sac.agents.recurrent_sac import RecurrentSACConfig, recurrent_sac
    from purejaxrl_sac.agents.sac import SACConfig, sac
    from purejaxrl_sac.agents.sac_family import (
        DroQConfig,
        FastSACConfig,
        REDQConfig,
        SimBaConfig,
        TQCConfig,
        droq,
        fast_sac,
        redq,
        simba,
        tqc,
    )
    from purejaxrl_sac.agents.sac_v1 import SACv1Config, sac_v1
    from purejaxrl_sac.agents.td3 import TD3Config, td3
    from purejaxrl_sac.envs import frames, visible
    from purejaxrl_sac.mdp import dynamic_programming
    from purejaxrl_sac.memory import records, storage

__version__ = "0.8.26"

INNER = {  # public modules inside of others
    "dynamic_programming": "mdp.dynamic_programming",
    "frames": "envs.frames",
    "records": "memory.records",
    "storage": "memory.storage",
    "visible": "envs.visible",
}

__all__ = [
    "ActorCriticConfig",
    "Agent",
    "Algorithm",
    "C51Config",
    "Config",
    "ConfigError",
    "ContinuousSoftQConfig",
    "CrossQConfig",
    "Curriculum",
    "DQNConfig",
    "DiscreteSACConfig",
    "DroQConfig",
    "Env",
    "EnvState",
    "FastSACConfig",
    "IQNConfig",
    "Memory",
    "MunchausenDQNConfig",
    "NStepDQNConfig",
    "NoisyDQNConfig",
    "PPOConfig",
    "PQNConfig",
    "Policy",
    "PrioritizedDQNConfig",
    "QLambdaConfig",
    "QRDQNConfig",
    "R2D2Config",
    "REDQConfig",
    "RainbowConfig",
    "RecurrentA2CConfig",
    "RecurrentDQNConfig",
    "RecurrentPPOConfig",
    "RecurrentPQNConfig",
    "RecurrentSACConfig",
    "ReinforceConfig",
    "SACConfig",
    "SACv1Config",
    "Sample",
    "SimBaConfig",
    "SoftDQNConfig",
    "SoftQLearningConfig",
    "Storage",
    "TD3Config",
    "TQCConfig",
    "TabularConfig",
    "TrainState",
    "Transition",
    "a2c",
    "agents",
    "build",
    "c51",
    "config",
    "continuous_soft_q",
    "crossq",
    "default_config",
    "discrete_sac",
    "distributions",
    "double_dqn",
    "double_q_learning",
    "dqn",
    "droq",
    "dueling_dqn",
    "dynamic_programming",
    "envs",
    "evaluate",
    "expected_dqn",
    "expected_sarsa",
    "experiment",
    "exploration",
    "exploring_policy",
    "fast_sac",
    "frames",
    "heads",
    "init",
    "iqn",
    "losses",
    "make_train",
    "mdp",
    "memory",
    "memoryless",
    "munchausen_dqn",
    "n_step_dqn",
    "networks",
    "noise",
    "noisy_dqn",
    "normalize",
    "offline",
    "optimize",
    "per_dqn",
    "policy",
    "ppo",
    "pqn",
    "preset",
    "presets",
    "q_lambda",
    "q_learning",
    "q_values",
    "qr_dqn",
    "r2d2",
    "rainbow",
    "record_dataset",
    "records",
    "recurrent_a2c",
    "recurrent_dqn",
    "recurrent_ppo",
    "recurrent_pqn",
    "recurrent_sac",
    "redq",
    "reinforce",
    "resets",
    "returns",
    "rollout_episodes",
    "run",
    "sac",
    "sac_v1",
    "sarsa",
    "seed_axes",
    "seed_state",
    "simba",
    "soft_dqn",
    "soft_q_learning",
    "static",
    "storage",
    "td3",
    "tqc",
    "traced",
    "train",
    "train_with_eval",
    "types",
    "validate",
    "visible",
]


if not TYPE_CHECKING:  # which knows all names from the imports above, and refuses others

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if find_spec(module := f"{__name__}.{INNER.get(name, name)}"):
            return importlib.import_module(module)
        return exported(name)  # an algorithm or a configuration class


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
