"""DQN and what it is made of (post, section 2).

The Q-network minimises its distance to a bootstrapped return over a replay memory D (post, 2.6),

    L(theta) = E_D [ w l(Q(s, a; theta), y) ],    y = r + gamma V(s'; theta, theta-),

theta- being a delayed copy of theta. Every part is a function, and every algorithm of the family
an expression of such parts:

    network      (config, space, A, K) -> flax module               networks.q_network
    head         config -> Head: what its outputs mean, and l       heads.scalar
    bootstrap    (config, Successor) -> pi(.|s'), bonus             maximum
    reward       (config, batch, Q(s, .; theta-)) -> r              plain_reward
    explore      (config, q, step) -> pi(.|s)                       epsilon_greedy
    storage      config -> Storage                                  replay_storage
    memory       (config, Storage) -> Memory                        uniform_replay

A bootstrap says which policy pi is followed from s' on, and what bonus it earns besides:

    V(s') = sum_a' pi(a'|s') Q(s', a'; theta-) + bonus

DQN (Mnih et al. 2015) follows the greedy policy of theta-, Double DQN (van Hasselt et al. 2016)
that of theta, so that theta- evaluates what theta chose. Where Q stands for a distribution, V does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import envs, exploration, heads, losses, networks
from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.memory import records, uniform
from purejaxrl_sac.memory.records import Codec
from purejaxrl_sac.memory.replay import prioritized
from purejaxrl_sac.memory.storage import deduplicated, n_step, ring
from purejaxrl_sac.normalize import WRAPPERS
from purejaxrl_sac.optimize import adam, apply_gradients, linear_decay, update_target
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample, Storage, Transition


class DQNState(NamedTuple):
    params: PyTree  # theta
    target_params: PyTree  # theta-
    opt_state: PyTree


class Successor(NamedTuple):
    """What a bootstrap may use of s', [B, A] each."""

    q: jax.Array  # Q(s', .; theta)
    target: jax.Array  # Q(s', .; theta-)
    pi: jax.Array  # the exploring policy, of theta


def maximum(config: Config, successor: Successor) -> tuple[jax.Array, jax.Array | float]:
    """V(s') = max_a' Q(s', a'; theta-): Q-learning and DQN (post, 2.3.3)."""
    return exploration.greedy(successor.target), 0.0


def double(config: Config, successor: Successor) -> tuple[jax.Array, jax.Array | float]:
    """V(s') = Q(s', argmax_a' Q(s', a'; theta); theta-): Double DQN (post, 2.8.3)."""
    return exploration.greedy(successor.q), 0.0


def expected(config: Config, successor: Successor) -> tuple[jax.Array, jax.Array | float]:
    """V(s') = E_pi[Q(s', a'; theta-)], pi the exploring policy: Expected SARSA."""
    return successor.pi, 0.0


def soft(config: Soft, successor: Successor) -> tuple[jax.Array, jax.Array | float]:
    """V(s') = alpha log sum_a' exp(Q(s', a'; theta-) / alpha): soft Q-learning (post, 4.1.1).

    As E_pi[Q] plus alpha times the entropy of pi = softmax(Q / alpha).
    """
    pi = exploration.boltzmann(successor.target, config.alpha)
    return pi, config.alpha * losses.entropy(pi)


def plain_reward(config: Config, batch: Transition, q: jax.Array) -> jax.Array:
    """r, as the environment gave it."""
    return batch.reward


def munchausen_reward(config: Munchausen, batch: Transition, q: jax.Array) -> jax.Array:
    """r + m [alpha log pi(a|s)], clipped: Munchausen RL (Vieillard et al. 2020, equation 2).

    Where a transition is of several steps, the term is that of the first action alone.
    """
    log_policy = losses.munchausen(q, batch.action, config.alpha, config.munchausen_min)
    return batch.reward + config.munchausen * log_policy


def epsilon_greedy(config: EpsilonGreedy, q: jax.Array, step: jax.Array) -> jax.Array:
    """A random action with probability epsilon, which falls over the run (post, section 1.4)."""
    return exploration.epsilon_greedy(q, exploration.annealed_epsilon(config, step))


def boltzmann(config: Soft, q: jax.Array, step: jax.Array) -> jax.Array:
    """softmax(Q / alpha) (post, section 4.1.1)."""
    return exploration.boltzmann(q, config.alpha)


def greedy(config: Config, q: jax.Array, step: jax.Array) -> jax.Array:
    """argmax_a Q(s, a): for networks that are noisy themselves."""
    return exploration.greedy(q)


def replay_storage(config: ReplayConfig, codec: Codec | None = None) -> Storage:
    """Images are stored once, other observations with their successors.

    Args:
        codec: how transitions are packed; by default a bit for each number of an observation
            where the environment declares `binary_observations`, and exact words elsewhere, or
            where a wrapper of one's own may change what is remembered.
    """
    env = envs.bind(config.env, config.env_params)
    kind = deduplicated if networks.convolutions(env.observation_space) else ring
    if codec is None:
        binary = env.binary_observations and set(config.wrappers) <= set(WRAPPERS.values())
        codec = records.bits(env) if binary else records.words
    return kind(config.capacity, config.num_envs, codec=codec)


def n_step_storage(config: NStep, codec: Codec | None = None) -> Storage:
    """Transitions of n steps."""
    return n_step(replay_storage(config, codec), config.n_step, config.gamma)


def uniform_replay(config: ReplayConfig, storage: Storage) -> Memory:
    """Every transition is as likely as any other (post, 2.3.2)."""
    return uniform(storage, config.batch_size)


def prioritized_replay(config: Prioritized, storage: Storage) -> Memory:
    """What surprised most comes most often (Schaul et al. 2016)."""
    return prioritized(
        storage,
        config.batch_size,
        config.priority_exponent,
        config.importance_exponent,
        config.total_steps,
    )


def dqn(
    config: ReplayConfig,
    *,
    network: Callable = networks.q_network,
    head: Callable = heads.scalar,
    bootstrap: Callable = maximum,
    reward: Callable = plain_reward,
    explore: Callable = epsilon_greedy,
    storage: Callable = replay_storage,
    memory: Callable = uniform_replay,
) -> tuple[Agent, Memory]:
    """Deep Q-learning with experience replay and a target network, out of the parts above.

    Raises:
        ConfigError: the environment's actions are continuous, or a part cannot be made.
    """
    env = envs.bind(config.env, config.env_params)
    if env.num_actions is None:
        raise ConfigError(f"DQN needs discrete actions, but {env.name} has continuous: use sac")
    meaning = head(config)
    model = network(config, env.observation_space, env.num_actions, meaning.num_outputs)
    features = networks.features(env.observation_space)
    optimizer = adam(linear_decay(config), config.max_grad_norm)

    def init(key: jax.Array, obs: jax.Array) -> DQNState:
        params = model.init(key, features(obs))
        return DQNState(params, jax.tree.map(jnp.copy, params), optimizer.init(params))

    def outputs(params: PyTree, obs: jax.Array, **keys: jax.Array) -> PyTree:
        noise = networks.draw_noise(keys["noise"], params) if "noise" in keys else {}
        return model.apply({**params, **noise}, features(obs), rngs=keys)

    def expectation(params: PyTree, obs: jax.Array, **keys: jax.Array) -> jax.Array:
        return meaning.expectation(outputs(params, obs, **keys))

    def q_values(state: DQNState, obs: jax.Array) -> jax.Array:
        return expectation(state.params, obs)

    def act(key: jax.Array, state: DQNState, obs: jax.Array, step: jax.Array) -> tuple:
        key_action, key_noise = jax.random.split(key)

        def noisy(key: jax.Array, obs: jax.Array) -> jax.Array:
            return expectation(state.params, obs[None], noise=key).squeeze(0)

        # each environment explores by a noise of its own
        q = jax.vmap(noisy)(jax.random.split(key_noise, obs.shape[0]), obs)
        return exploration.sample(key_action, explore(config, q, step)), ()

    def policy(key: jax.Array, state: DQNState, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype(jnp.int32)

    def update(key: jax.Array, state: DQNState, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition
        key_loss, key_online, key_target, key_tau, key_tau_target = jax.random.split(key, 5)
        q = expectation(state.params, batch.next_obs, noise=key_online)
        successor = Successor(
            q=q,
            target=expectation(state.target_params, batch.next_obs, noise=key_target),
            pi=explore(config, q, config.step_at(count)),
        )
        pi, bonus = bootstrap(config, successor)
        following = outputs(
            state.target_params, batch.next_obs, noise=key_target, tau=key_tau_target
        )
        earned = reward(config, batch, expectation(state.target_params, batch.obs))

        def backup(value: jax.Array) -> jax.Array:  # [B, K], the returns from s' on
            target = partial(losses.td_target, earned, batch.discount, config.gamma)
            return jax.vmap(target, 1, 1)(value + jnp.reshape(bonus, (-1, 1)))

        def loss(params: PyTree) -> tuple[jax.Array, tuple]:
            predicted = outputs(params, batch.obs, noise=key_loss, tau=key_tau)
            loss, priority, metrics = meaning.loss(predicted, batch.action, following, pi, backup)
            q = losses.select_action(meaning.expectation(predicted), batch.action).mean()
            return (sample.weight * loss).mean(), (priority, {"q": q, **metrics})

        (value, (priority, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
        target_params = update_target(
            params, state.target_params, config.tau, config.target_period, count
        )
        return DQNState(params, target_params, opt_state), priority, {"loss": value, **metrics}

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


dueling_network = partial(networks.q_network, stream=networks.Dueling)


def noisy_network(config: Noisy, *arguments: Any, **kinds: Any) -> nn.Module:
    """A Q-network of noisy layers; follow it greedily."""
    dense = partial(networks.NoisyDense, sigma=config.sigma)
    return networks.q_network(config, *arguments, dense=dense, **kinds)


double_dqn = partial(dqn, bootstrap=double)
dueling_dqn = partial(dqn, network=dueling_network)
noisy_dqn = partial(dqn, network=noisy_network, explore=greedy)
n_step_dqn = partial(dqn, storage=n_step_storage)
per_dqn = partial(dqn, memory=prioritized_replay)
expected_dqn = partial(dqn, bootstrap=expected)
munchausen_dqn = partial(dqn, bootstrap=soft, reward=munchausen_reward)


@struct.dataclass
class ReplayConfig(Config):
    """What all of the family share. Each part that needs more has a class with its fields."""

    warmup_steps: int = static(1_000)
    """Environment steps of uniformly random actions before learning begins."""
    batch_size: int = static(128)
    """Transitions per gradient update."""
    capacity: int = static(10_000)
    """Transitions the replay memory keeps; a multiple of num_envs x rollout_length."""
    hidden_sizes: tuple[int, ...] = static((64, 64))
    """Units of each hidden layer."""
    activation: str = static("relu")
    """Activation function, by its name in flax.linen."""
    compute_dtype: str = static("float32")
    """What hidden layers compute in, float32 or bfloat16; parameters are always float32."""
    learning_rate: float = 1e-3
    """Step size of Adam at first."""
    learning_rate_end: float = 1.0
    """Share of the step size that is left at the end, after falling in a straight line."""
    gamma: float = 0.99
    """Discount factor."""
    tau: float = 1.0
    """Share of theta that theta- takes over at each target update; 1 copies it."""
    target_period: int = 100
    """Gradient updates between two target updates."""
    max_grad_norm: float = float("inf")
    """Global norm that gradients are clipped to."""


@struct.dataclass
class EpsilonGreedy(ReplayConfig):
    """Fields of `epsilon_greedy`."""

    epsilon_start: float = 1.0
    """Probability of a random action at the first step."""
    epsilon_end: float = 0.05
    """Probability of a random action once the schedule has ended."""
    epsilon_fraction: float = 0.2
    """Share of total_steps over which epsilon falls, in a straight line."""


@struct.dataclass
class Scalar(ReplayConfig):
    """Fields of `heads.scalar`."""

    huber_delta: float = float("inf")
    """Where the loss turns from squared to linear; inf is the squared loss."""


@struct.dataclass
class Soft(ReplayConfig):
    """Fields of `soft` and `boltzmann`."""

    alpha: float = 0.03
    """Temperature."""


@struct.dataclass
class Munchausen(Soft):
    """Fields of `munchausen_reward`."""

    munchausen: float = 0.9
    """Share of alpha log pi(a|s) that is added to the reward."""
    munchausen_min: float = -1.0
    """Where alpha log pi(a|s) is cut off below."""


@struct.dataclass
class Noisy(ReplayConfig):
    """Fields of `noisy_network`."""

    sigma: float = static(0.5)
    """Noise of a layer's parameters at first, times the square root of its inputs."""


@struct.dataclass
class NStep(ReplayConfig):
    """Fields of `n_step_storage`."""

    n_step: int = static(3)
    """Steps of reward before bootstrapping."""


@struct.dataclass
class Prioritized(ReplayConfig):
    """Fields of `prioritized_replay`."""

    priority_exponent: float = 0.6
    """How much priorities count: 0 is uniform replay."""
    importance_exponent: float = 0.4
    """How much of the bias is corrected at first; it rises to 1 at the end of the run."""


@struct.dataclass
class DQNConfig(Scalar, EpsilonGreedy):
    """Configuration of DQN, Double DQN and dueling DQN."""

    algorithm: Callable = static(dqn)


@struct.dataclass
class NoisyDQNConfig(Noisy, Scalar):
    """Configuration of DQN with a noisy network."""

    algorithm: Callable = static(noisy_dqn)


@struct.dataclass
class NStepDQNConfig(NStep, DQNConfig):
    """Configuration of n-step DQN."""

    algorithm: Callable = static(n_step_dqn)


@struct.dataclass
class PrioritizedDQNConfig(Prioritized, DQNConfig):
    """Configuration of DQN with prioritised replay."""

    algorithm: Callable = static(per_dqn)


@struct.dataclass
class MunchausenDQNConfig(Munchausen, DQNConfig):
    """Configuration of Munchausen DQN."""

    algorithm: Callable = static(munchausen_dqn)
