"""What several families of algorithms share: fields, action spaces, and checked networks."""

from __future__ import annotations

from typing import Any

from purejaxrl_sac.checks import checked
from purejaxrl_sac.config import Config, ConfigError, static, traced
from purejaxrl_sac.types import Env, MakeActor, MakeCritics, MakeQNetwork, Network

ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "leaky_relu", "softplus", "sigmoid")


class Learning(Config):
    """Fields of an optimiser, and the discount factor."""

    learning_rate: float = traced(1e-3, at_least=0)
    """Initial learning rate."""
    learning_rate_end: float = traced(1.0, between=(0, 1))
    """Fraction of the initial learning rate, not a rate, that it decays to linearly."""
    gamma: float = traced(0.99, between=(0, 1))
    """Discount factor."""
    max_grad_norm: float | None = traced(
        float("inf"), kind=float, above=0, infinite=True, optional=True
    )
    """Global norm that the gradients of each network are clipped to; inf or None: no clipping."""


class Layers(Config):
    """Fields of MLPs."""

    hidden_sizes: tuple[int, ...] = static((64, 64), kind=tuple)
    """Units of each hidden layer."""
    activation: str = static("relu", one_of=ACTIVATIONS)
    """Activation function, by its name in flax.linen."""


class QLayers(Layers):
    """Fields of `networks.q_network`."""

    compute_dtype: str = static("float32", one_of=("float32", "bfloat16"))
    """Dtype of hidden layers' computations, float32 or bfloat16; parameters are float32."""


class EpsilonGreedy(Config):
    """Fields of `exploration.annealed_epsilon`."""

    epsilon_start: float = traced(1.0, between=(0, 1))
    """Probability of a random action at step 0 of the clock, which includes the warm-up."""
    epsilon_end: float = traced(0.05, between=(0, 1))
    """Probability of a random action at the end of the schedule."""
    epsilon_fraction: float = traced(0.2, between=(0, 1))
    """Fraction of total_steps over which epsilon decays linearly."""


class Huber(Config):
    """Fields of the Huber loss."""

    huber_delta: float = traced(float("inf"), above=0, infinite=True)
    """Error at which the loss turns from squared to linear; inf is the squared loss."""


class Epochs(Config):
    """Fields of on-policy methods with several epochs of minibatches per rollout."""

    num_epochs: int = static(4, at_least=1)
    """Passes over each rollout."""

    @property
    def num_minibatches(self) -> int:
        """Minibatches of each pass."""
        return self.num_updates // self.num_epochs

    def check(self) -> None:
        super().check()
        size = self.steps_per_iteration
        if self.num_updates % self.num_epochs or size % self.num_minibatches:
            raise ConfigError(
                f"num_updates is {self.num_updates}, but must be num_epochs = {self.num_epochs}"
                f" times a number of minibatches that divides num_envs x rollout_length = {size}"
            )


class DelayedActor(Config):
    """Fields of an actor with its own learning rate and period of updates."""

    policy_delay: int = static(1, at_least=1)
    """Updates of the critics per update of the actor and the temperature."""
    actor_learning_rate: float | None = traced(None, kind=float, at_least=0, optional=True)
    """Initial learning rate of the actor; None for that of the critics, `learning_rate`."""


class LogStd(Config):
    """Fields of a Gaussian actor, before squashing."""

    log_std_min: float = static(-20.0, kind=float)
    """Smallest log standard deviation."""
    log_std_max: float = static(2.0, kind=float)
    """Largest log standard deviation."""

    def check(self) -> None:
        super().check()
        if self.log_std_min >= self.log_std_max:
            raise ConfigError(
                f"log_std_min is {self.log_std_min}, but must be less than log_std_max ="
                f" {self.log_std_max}"
            )


class Temperature(Config):
    """Fields of a learned temperature."""

    alpha: float = traced(1.0, above=0)
    """Initial temperature (constant where alpha_learning_rate is 0)."""
    alpha_learning_rate: float = traced(1e-3, at_least=0)
    """Learning rate of log alpha; 0 keeps the temperature fixed."""


MAX_ENTROPY = 0.6836
"""Largest entropy of tanh(N(m, s^2)), at m = 0 and s = 0.874; that of uniform actions is log 2."""


class EntropyTarget(Temperature):
    """Fields of a temperature that keeps the entropy of squashed Gaussians at a target.

    Where actions can end an episode, a negative target is a cost of each step, alpha times its
    size, which favours short episodes; a positive one favours long episodes.
    """

    target_entropy_per_dim: float = traced(-1.0, kind=float, below=MAX_ENTROPY)
    """Target entropy in nats per action dimension, of actions in [-1, 1]; below `MAX_ENTROPY`."""


def number_of_actions(algorithm: str, env: Env) -> int:
    """The number of discrete actions.

    Raises:
        ConfigError: the environment's actions are continuous.
    """
    if env.num_actions is None:
        raise ConfigError(
            f"{algorithm} needs discrete actions, but {env.name} has continuous ones: use sac"
        )
    return env.num_actions


def check_independent_noise(algorithm: str, config: Config) -> None:
    """Refuses repeated noise for algorithms that learn the values of their own policy.

    Their updates use pi(a|s) of each action alone, as if it were drawn independently of the others.

    Raises:
        ConfigError: noise_repeat is not 1.
    """
    if config.noise_repeat != 1:
        raise ConfigError(
            f"noise_repeat is {config.noise_repeat}, but {algorithm} is on-policy, which needs"
            " actions that are drawn independently: set noise_repeat=1"
        )


def dimension_of_actions(algorithm: str, env: Env, alternative: str = "discrete_sac or dqn") -> int:
    """The dimension of continuous actions.

    Args:
        alternative: what the error message recommends for discrete actions.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    if env.action_dim is None:
        raise ConfigError(
            f"{algorithm} needs continuous actions, but {env.name} has discrete ones: use"
            f" {alternative}"
        )
    return env.action_dim


def actor_and_critics(
    config: Any,
    env: Env,
    action_dim: int,
    actor: MakeActor,
    critics: MakeCritics,
    *,
    actor_outputs: int = 2,
) -> tuple[Network, Network]:
    """The networks of the two parts, whose outputs are checked.

    Args:
        action_dim: D.
        actor_outputs: arrays [B, D] that the actor's network returns: mean and log std, or actions.
    """
    space = env.observation_space
    policy, q = actor(config, space, action_dim), critics(config, space)
    return (
        checked("actor", policy, ("B", action_dim), arrays=actor_outputs),
        checked("critics", q, ("E", "B"), ("E", "B", "K")),
    )


def value_network(
    config: Any, env: Env, num_actions: int, num_outputs: int, network: MakeQNetwork
) -> Network:
    """The network of the part, whose outputs are checked to be [B, A, K]."""
    model = network(config, env.observation_space, num_actions, num_outputs)
    return checked("network", model, ("B", num_actions, "K"))
