"""The algorithms by name. Nothing is imported before it is needed."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from purejaxrl_sac import references
from purejaxrl_sac.config import Config, ConfigError, shown, unknown
from purejaxrl_sac.part_errors import name_of_function
from purejaxrl_sac.presets import PRESETS
from purejaxrl_sac.types import Algorithm

if TYPE_CHECKING:
    import purejaxrl_sac as prl

# name -> module, configuration class, description
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
    "soft_dqn": ("dqn", "SoftDQNConfig", "soft Q-learning, discrete (Haarnoja et al. 2017)"),
    "munchausen_dqn": ("dqn", "MunchausenDQNConfig", "Munchausen DQN (Vieillard et al. 2020)"),
    "c51": ("distributional", "C51Config", "C51, categorical DQN (Bellemare et al. 2017)"),
    "qr_dqn": ("distributional", "QRDQNConfig", "QR-DQN, quantile regression (Dabney et al. 2018)"),
    "iqn": ("distributional", "IQNConfig", "IQN, implicit quantiles (Dabney et al. 2018)"),
    "rainbow": ("distributional", "RainbowConfig", "Rainbow (Hessel et al. 2018)"),
    "pqn": ("pqn", "PQNConfig", "PQN, Q(lambda) without replay (Gallici et al. 2025)"),
    "a2c": ("a2c", "ActorCriticConfig", "Advantage actor-critic (Mnih et al. 2016)"),
    "reinforce": ("a2c", "ReinforceConfig", "REINFORCE with a baseline (Williams 1992)"),
    "ppo": ("ppo", "PPOConfig", "Proximal policy optimisation (Schulman et al. 2017)"),
    "recurrent_a2c": ("recurrent", "RecurrentA2CConfig", "A2C with a recurrent network"),
    "recurrent_ppo": ("recurrent", "RecurrentPPOConfig", "PPO with a recurrent network"),
    "recurrent_pqn": ("recurrent", "RecurrentPQNConfig", "PQN with a recurrent network"),
    "recurrent_dqn": ("recurrent_dqn", "RecurrentDQNConfig", "DQN with a recurrent network"),
    "r2d2": ("recurrent_dqn", "R2D2Config", "R2D2, recurrent replay (Kapturowski et al. 2019)"),
    "recurrent_sac": ("recurrent_sac", "RecurrentSACConfig", "SAC with recurrent networks"),
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
    "fast_sac": ("sac_family", "FastSACConfig", "SAC with a thousand environments at once"),
    "td3": ("td3", "TD3Config", "Twin delayed DDPG (Fujimoto et al. 2018)"),
}
# module -> those whose algorithms are its functions with other parts
VARIANTS = {"dqn": ("distributional",), "a2c": ("ppo",), "sac": ("sac_family",)}


@overload
def default_config(
    algorithm: Literal["q_learning", "double_q_learning", "sarsa", "expected_sarsa"],
) -> prl.TabularConfig: ...
@overload
def default_config(algorithm: Literal["soft_q_learning"]) -> prl.SoftQLearningConfig: ...
@overload
def default_config(algorithm: Literal["q_lambda"]) -> prl.QLambdaConfig: ...
@overload
def default_config(
    algorithm: Literal["dqn", "double_dqn", "dueling_dqn", "expected_dqn"],
) -> prl.DQNConfig: ...
@overload
def default_config(algorithm: Literal["noisy_dqn"]) -> prl.NoisyDQNConfig: ...
@overload
def default_config(algorithm: Literal["n_step_dqn"]) -> prl.NStepDQNConfig: ...
@overload
def default_config(algorithm: Literal["per_dqn"]) -> prl.PrioritizedDQNConfig: ...
@overload
def default_config(algorithm: Literal["soft_dqn"]) -> prl.SoftDQNConfig: ...
@overload
def default_config(algorithm: Literal["munchausen_dqn"]) -> prl.MunchausenDQNConfig: ...
@overload
def default_config(algorithm: Literal["c51"]) -> prl.C51Config: ...
@overload
def default_config(algorithm: Literal["qr_dqn"]) -> prl.QRDQNConfig: ...
@overload
def default_config(algorithm: Literal["iqn"]) -> prl.IQNConfig: ...
@overload
def default_config(algorithm: Literal["rainbow"]) -> prl.RainbowConfig: ...
@overload
def default_config(algorithm: Literal["pqn"]) -> prl.PQNConfig: ...
@overload
def default_config(algorithm: Literal["a2c"]) -> prl.ActorCriticConfig: ...
@overload
def default_config(algorithm: Literal["reinforce"]) -> prl.ReinforceConfig: ...
@overload
def default_config(algorithm: Literal["ppo"]) -> prl.PPOConfig: ...
@overload
def default_config(algorithm: Literal["recurrent_a2c"]) -> prl.RecurrentA2CConfig: ...
@overload
def default_config(algorithm: Literal["recurrent_ppo"]) -> prl.RecurrentPPOConfig: ...
@overload
def default_config(algorithm: Literal["recurrent_pqn"]) -> prl.RecurrentPQNConfig: ...
@overload
def default_config(algorithm: Literal["recurrent_dqn"]) -> prl.RecurrentDQNConfig: ...
@overload
def default_config(algorithm: Literal["r2d2"]) -> prl.R2D2Config: ...
@overload
def default_config(algorithm: Literal["recurrent_sac"]) -> prl.RecurrentSACConfig: ...
@overload
def default_config(algorithm: Literal["continuous_soft_q"]) -> prl.ContinuousSoftQConfig: ...
@overload
def default_config(algorithm: Literal["sac"]) -> prl.SACConfig: ...
@overload
def default_config(algorithm: Literal["discrete_sac"]) -> prl.DiscreteSACConfig: ...
@overload
def default_config(algorithm: Literal["sac_v1"]) -> prl.SACv1Config: ...
@overload
def default_config(algorithm: Literal["crossq"]) -> prl.CrossQConfig: ...
@overload
def default_config(algorithm: Literal["redq"]) -> prl.REDQConfig: ...
@overload
def default_config(algorithm: Literal["droq"]) -> prl.DroQConfig: ...
@overload
def default_config(algorithm: Literal["tqc"]) -> prl.TQCConfig: ...
@overload
def default_config(algorithm: Literal["simba"]) -> prl.SimBaConfig: ...
@overload
def default_config(algorithm: Literal["fast_sac"]) -> prl.FastSACConfig: ...
@overload
def default_config(algorithm: Literal["td3"]) -> prl.TD3Config: ...
@overload
def default_config(algorithm: str) -> Config: ...
def default_config(algorithm: str) -> Config:
    """The default configuration of a named algorithm.

    Raises:
        ConfigError: no algorithm has this name (with the nearest one that exists).
    """
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS)
    config_class: type[Config] = exported(ALGORITHMS[algorithm][1])
    return config_class(algorithm=exported(algorithm))


@overload
def preset(
    algorithm: Literal["q_learning", "double_q_learning", "sarsa", "expected_sarsa"],
    env: Any = None,
) -> prl.TabularConfig: ...
@overload
def preset(algorithm: Literal["soft_q_learning"], env: Any = None) -> prl.SoftQLearningConfig: ...
@overload
def preset(algorithm: Literal["q_lambda"], env: Any = None) -> prl.QLambdaConfig: ...
@overload
def preset(
    algorithm: Literal["dqn", "double_dqn", "dueling_dqn", "expected_dqn"], env: Any = None
) -> prl.DQNConfig: ...
@overload
def preset(algorithm: Literal["noisy_dqn"], env: Any = None) -> prl.NoisyDQNConfig: ...
@overload
def preset(algorithm: Literal["n_step_dqn"], env: Any = None) -> prl.NStepDQNConfig: ...
@overload
def preset(algorithm: Literal["per_dqn"], env: Any = None) -> prl.PrioritizedDQNConfig: ...
@overload
def preset(algorithm: Literal["soft_dqn"], env: Any = None) -> prl.SoftDQNConfig: ...
@overload
def preset(algorithm: Literal["munchausen_dqn"], env: Any = None) -> prl.MunchausenDQNConfig: ...
@overload
def preset(algorithm: Literal["c51"], env: Any = None) -> prl.C51Config: ...
@overload
def preset(algorithm: Literal["qr_dqn"], env: Any = None) -> prl.QRDQNConfig: ...
@overload
def preset(algorithm: Literal["iqn"], env: Any = None) -> prl.IQNConfig: ...
@overload
def preset(algorithm: Literal["rainbow"], env: Any = None) -> prl.RainbowConfig: ...
@overload
def preset(algorithm: Literal["pqn"], env: Any = None) -> prl.PQNConfig: ...
@overload
def preset(algorithm: Literal["a2c"], env: Any = None) -> prl.ActorCriticConfig: ...
@overload
def preset(algorithm: Literal["reinforce"], env: Any = None) -> prl.ReinforceConfig: ...
@overload
def preset(algorithm: Literal["ppo"], env: Any = None) -> prl.PPOConfig: ...
@overload
def preset(algorithm: Literal["recurrent_a2c"], env: Any = None) -> prl.RecurrentA2CConfig: ...
@overload
def preset(algorithm: Literal["recurrent_ppo"], env: Any = None) -> prl.RecurrentPPOConfig: ...
@overload
def preset(algorithm: Literal["recurrent_pqn"], env: Any = None) -> prl.RecurrentPQNConfig: ...
@overload
def preset(algorithm: Literal["recurrent_dqn"], env: Any = None) -> prl.RecurrentDQNConfig: ...
@overload
def preset(algorithm: Literal["r2d2"], env: Any = None) -> prl.R2D2Config: ...
@overload
def preset(algorithm: Literal["recurrent_sac"], env: Any = None) -> prl.RecurrentSACConfig: ...
@overload
def preset(
    algorithm: Literal["continuous_soft_q"], env: Any = None
) -> prl.ContinuousSoftQConfig: ...
@overload
def preset(algorithm: Literal["sac"], env: Any = None) -> prl.SACConfig: ...
@overload
def preset(algorithm: Literal["discrete_sac"], env: Any = None) -> prl.DiscreteSACConfig: ...
@overload
def preset(algorithm: Literal["sac_v1"], env: Any = None) -> prl.SACv1Config: ...
@overload
def preset(algorithm: Literal["crossq"], env: Any = None) -> prl.CrossQConfig: ...
@overload
def preset(algorithm: Literal["redq"], env: Any = None) -> prl.REDQConfig: ...
@overload
def preset(algorithm: Literal["droq"], env: Any = None) -> prl.DroQConfig: ...
@overload
def preset(algorithm: Literal["tqc"], env: Any = None) -> prl.TQCConfig: ...
@overload
def preset(algorithm: Literal["simba"], env: Any = None) -> prl.SimBaConfig: ...
@overload
def preset(algorithm: Literal["fast_sac"], env: Any = None) -> prl.FastSACConfig: ...
@overload
def preset(algorithm: Literal["td3"], env: Any = None) -> prl.TD3Config: ...
@overload
def preset(algorithm: str | type[Config] | Config | Algorithm, env: Any = None) -> Config: ...
def preset(algorithm: str | type[Config] | Config | Algorithm, env: Any = None) -> Config:
    """The tuned configuration of an algorithm on an environment.

    Where none is tuned, the algorithm's defaults on that environment. A fork of a listed algorithm
    has its presets, except in fields whose default the fork has changed.

    Args:
        algorithm: a name; `purejaxrl-sac list` prints them. Or what `configuration` accepts.
        env: a name, a reference, or a gymnax `Environment` object, for which nothing is tuned; None
            for the algorithm's own default environment.

    Raises:
        ConfigError: no algorithm has this name, or a reference cannot be imported.
    """
    config = configuration(algorithm)
    env = config.env if env is None else env
    if references.is_reference(env):
        env = references.make(env)
    if not isinstance(env, str) or isinstance(algorithm, Config):
        return config.replace(env=env)
    base = base_name(config)
    tuned = PRESETS.get((base, env), {}) if base else {}
    if base and type(config) is not type(default := default_config(base)):
        own = {k: x for k, x in tuned.items() if hasattr(config, k)}
        tuned = {k: x for k, x in own.items() if getattr(config, k) == getattr(default, k)}
    return config.replace(env=env, **tuned)


def configuration(algorithm: str | type[Config] | Config | Algorithm) -> Config:
    """The default configuration of an algorithm, listed or not.

    Args:
        algorithm: a listed name, a reference ("fork.py:name", see `references`), a configuration
            or its class, or an algorithm: a listed one with other parts, or one whose first
            parameter is annotated with its class of configurations.

    Raises:
        ConfigError: none of these, or a reference cannot be imported.
    """
    if isinstance(algorithm, str):
        if not references.is_reference(algorithm):
            return default_config(algorithm)
        algorithm = references.load(algorithm)
    if isinstance(algorithm, type) and issubclass(algorithm, Config):
        algorithm = algorithm()
    if isinstance(algorithm, Config):
        return algorithm
    if not callable(algorithm):
        raise ConfigError(f"algorithm is {shown(algorithm)}, but must be a function or a Config")
    base = listed_base(algorithm)
    kind: Any = exported(ALGORITHMS[base][1]) if base else _annotated(algorithm)
    if kind is None:
        raise ConfigError(
            f"the configuration of {name_of_function(algorithm)} is not known: annotate its first"
            " parameter with a subclass of Config, or name such a class, whose algorithm it is"
        )
    found: Config = kind(algorithm=algorithm)
    return found


def base_name(config: Config) -> str | None:
    """The listed algorithm that a configuration's algorithm is, or is one with other parts.

    Of several, one that the class of the configuration is for.
    """
    algorithm = config.algorithm
    for kind in type(config).__mro__:
        listed = ((name, x) for name, (_, x, _) in ALGORITHMS.items() if x == kind.__name__)
        names = [name for name, x in listed if exported(x) is kind]
        if base := listed_base(algorithm, names):
            return base
    return listed_base(algorithm)


def listed_base(algorithm: Any, names: Iterable[str] = ALGORITHMS) -> str | None:
    """The algorithm among `names` that has all its parts, or others of these names, in this one.

    A `partial` of a `partial` does not know the inner one, so of several algorithms it is the one
    with the most equal parts.
    """
    function, parts = _composition(algorithm)
    module = str(getattr(function, "__module__", "")).removeprefix(f"{__name__}.")
    modules = {module, *VARIANTS.get(module, ())}  # the others are not imported for this
    equal = {}  # name -> number of equal parts
    for name in names:
        if ALGORITHMS[name][0] not in modules:
            continue
        listed, own = _composition(exported(name))
        if listed is function and own.keys() <= parts.keys():
            equal[name] = sum(parts[part] is x for part, x in own.items())
    return max(equal, key=lambda name: equal[name], default=None)


def _composition(algorithm: Any) -> tuple[Any, dict[str, Any]]:
    """A function and the parts that it is given."""
    if isinstance(algorithm, functools.partial):
        return algorithm.func, algorithm.keywords
    return algorithm, {}


def _annotated(function: Any) -> type[Config] | None:
    """The class of configurations that a function's first parameter is annotated with."""
    while hasattr(function, "func"):
        function = function.func
    try:
        hints = typing.get_type_hints(function)
        first = next(iter(inspect.signature(function).parameters))
    except (NameError, StopIteration, TypeError, ValueError):
        return None
    kind = hints.get(first)
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def exported(name: str) -> Any:
    """An algorithm or a configuration class by its name.

    Raises:
        AttributeError: there is none of this name.
    """
    for algorithm, (module, config_class, _) in ALGORITHMS.items():
        if name in (algorithm, config_class):
            return getattr(importlib.import_module(f"purejaxrl_sac.agents.{module}"), name)
    raise AttributeError(f"no algorithm or configuration is called {name}")


def name_of(config: Config) -> str:
    """The name a configuration's algorithm is listed under, else its own.

    A listed algorithm with other parts is called "dqn(bootstrap=double)", unless it has a class of
    configurations of its own, whose name it has then.
    """
    algorithm, base = config.algorithm, base_name(config)
    if base is not None and exported(base) is algorithm:
        return base
    if base is not None and type(config) is exported(ALGORITHMS[base][1]):
        parts = getattr(algorithm, "keywords", {}).items()
        named = ", ".join(f"{k}={getattr(x, '__name__', x)}" for k, x in parts)
        return f"{base}({named})"
    return getattr(algorithm, "__name__", type(config).__name__)
