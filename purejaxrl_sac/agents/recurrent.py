"""On-policy algorithms that remember: A2C, PPO and PQN with recurrent networks.

The losses are those of the memoryless algorithms, of the T x B rows of the unrolled sequences.

The torso is the field `cell`, or any other part:

    partial(recurrent_ppo, network=partial(recurrent_actor_critic, memory=lambda config: lstm(32)))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp

from purejaxrl_sac import distributions, exploration
from purejaxrl_sac.agents import a2c, pqn
from purejaxrl_sac.agents.a2c import (
    ActorCriticConfig,
    Choice,
    actor_critic_loss,
    check_actor_critic,
    check_log_prob,
    constant,
    decaying_rmsprop,
    policy_gradient,
    squared_error,
    standardized,
    unnormalized,
    whole_rollout,
)
from purejaxrl_sac.agents.common import Epochs, check_independent_noise, number_of_actions
from purejaxrl_sac.agents.ppo import PPOConfig, clipped_surrogate, clipped_value_loss
from purejaxrl_sac.agents.ppo import decaying_adam as ppo_adam
from purejaxrl_sac.agents.pqn import PQNConfig, q_loss
from purejaxrl_sac.agents.sequences import (
    RecurrentCell,
    Remembered,
    flattened,
    newest,
    sequences_of,
    within_episodes,
)
from purejaxrl_sac.checks import check_outputs
from purejaxrl_sac.config import ConfigError, static
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import ActionDistribution
from purejaxrl_sac.memory import sequences
from purejaxrl_sac.networks import (
    LayerNorm,
    features,
    recurrent_actor_critic,
    recurrent_q_network,
)
from purejaxrl_sac.optimize import Learned, decaying_adam, gradient_step, start
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    Loss,
    MakeOptimizer,
    MakeRecurrentActorCritic,
    MakeRecurrentQNetwork,
    MakeRolloutMemory,
    Memory,
    Metrics,
    Objective,
    PyTree,
    Sample,
    Schedule,
    Transition,
    ValueLoss,
)


def with_targets(
    config: Any, rollout: Transition, next_value: jax.Array
) -> tuple[jax.Array, Remembered]:
    """The lambda-returns G [T, N] of V(next_obs) [T x N], and the extras without `next_carry`."""
    trace = config.trace_decay * (~rollout.last).astype(jnp.float32)
    next_value = next_value.reshape(rollout.reward.shape)
    target = lambda_returns(rollout.reward, rollout.discount, next_value, trace, config.gamma)
    return target, rollout.extras._replace(next_carry=())


@checks_parts
def recurrent_a2c(
    config: RecurrentA2CConfig,
    env: Env,
    *,
    network: MakeRecurrentActorCritic = recurrent_actor_critic,
    distribution: Callable[[Env], ActionDistribution] = distributions.default,
    objective: Objective = policy_gradient,
    value_loss: ValueLoss = squared_error,
    normalize: Callable[[jax.Array], jax.Array] = unnormalized,
    normalize_rollout: Callable[[jax.Array], jax.Array] = unnormalized,
    schedule: Schedule = constant,
    loss: Loss = actor_critic_loss,
    optimizer: MakeOptimizer = decaying_rmsprop,
    memory: MakeRolloutMemory = whole_rollout,
) -> tuple[Agent, Memory]:
    """`a2c.actor_critic` with a recurrent network; the same parts, and a memory of sequences.

    Raises:
        ConfigError: noise_repeat is not 1; in updates, if the memory samples single transitions.
    """
    check_independent_noise("an actor-critic", config)
    action_distribution = distribution(env)
    model = network(config, env.observation_space, action_distribution)
    encode, optimize = features(env.observation_space), optimizer(config)

    def unroll(
        params: PyTree, carry: PyTree, start: jax.Array, obs: jax.Array
    ) -> tuple[PyTree, tuple[distrax.Distribution, jax.Array]]:
        """Carry after the last step, and pi(.|s) and V(s) of the rows [T x B]."""
        carries, (outputs, value) = model.apply(params, carry, encode(obs), start)
        check_actor_critic(env, distribution, outputs, value, obs.shape[0])
        outputs = exploration.legal_values(env, obs, outputs)
        return newest(carries), (action_distribution.distribution(outputs), value)

    def init(key: jax.Array, obs: jax.Array) -> Learned:
        carry, begun = model.initial_carry(obs.shape[0]), within_episodes(1, obs.shape[0])
        return start(optimize, model.init(key, carry, encode(obs), begun))

    def act(
        key: jax.Array, state: Learned, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        after, (pi, value) = unroll(state.params, carry, within_episodes(1, obs.shape[0]), obs)
        sample, log_prob = pi.sample_and_log_prob(seed=key)
        check_log_prob(log_prob, obs.shape[0])
        extras = Remembered(Choice(sample, log_prob, value), carry, after)
        return action_distribution.action(sample), extras, after

    def policy(
        key: jax.Array, state: Learned, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        carry, (pi, _) = unroll(state.params, carry, within_episodes(1, obs.shape[0]), obs)
        return action_distribution.action(pi.mode()), carry

    def process_rollout(state: Learned, rollout: Transition) -> tuple[Learned, Transition]:
        obs, carry = flattened((rollout.next_obs, rollout.extras.next_carry))
        _, (_, next_value) = unroll(state.params, carry, within_episodes(1, obs.shape[0]), obs)
        target, extras = with_targets(config, rollout, next_value)
        advantage = normalize_rollout(target - extras.choice.value)
        choice = extras.choice._replace(advantage=advantage, target=target)
        return state, rollout._replace(extras=extras._replace(choice=choice), next_obs=())

    def update(
        key: jax.Array, state: Learned, sample: Sample, count: jax.Array
    ) -> tuple[Learned, jax.Array, Metrics]:
        carry, begun, batch, weight = sequences_of(sample)

        def apply(params: PyTree, obs: jax.Array) -> tuple[distrax.Distribution, jax.Array]:
            return unroll(params, carry, begun, obs)[1]

        advantage = normalize(batch.extras.advantage)
        inputs = a2c.LossInputs(
            schedule(config, count), apply, objective, value_loss, batch, advantage, weight
        )
        state, _, (priority, metrics) = gradient_step(optimize, state, loss, inputs)
        return state, priority, metrics

    agent = Agent(init, act, policy, update, None, process_rollout, model.initial_carry)
    return agent, memory(config, env)


def epochs(config: Any, env: Env) -> Memory:
    """Passes over the rollout, each in newly shuffled minibatches of sequences."""
    return sequences(config.num_epochs, config.num_minibatches, config.length_of_sequences)


recurrent_ppo = partial(
    recurrent_a2c,
    objective=clipped_surrogate,
    value_loss=clipped_value_loss,
    normalize=standardized,
    optimizer=ppo_adam,
    memory=epochs,
)


normalized_network = partial(recurrent_q_network, norm=LayerNorm)


@checks_parts
def recurrent_pqn(
    config: RecurrentPQNConfig,
    env: Env,
    *,
    network: MakeRecurrentQNetwork = normalized_network,
    optimizer: MakeOptimizer = decaying_adam,
    memory: MakeRolloutMemory = epochs,
) -> tuple[Agent, Memory]:
    """`pqn` with a recurrent network: Q(s, .) depends on the episode so far.

    It has no `q_values`, which are of single observations.

    Raises:
        ConfigError: the environment's actions are continuous; in updates, if the memory samples
            single transitions.
    """
    num_actions = number_of_actions("PQN", env)
    model = network(config, env.observation_space, num_actions, 1)
    encode, optimize = features(env.observation_space), optimizer(config)
    sample_action = exploration.sampler(config)

    def unroll(
        params: PyTree, carry: PyTree, start: jax.Array, obs: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        """Carry after the last step, and Q(s, .) of the rows [T x B]."""
        carries, q = model.apply(params, carry, encode(obs), start)
        check_outputs("network", q, obs.shape[0], ("B", num_actions, 1))
        return newest(carries), q.squeeze(-1)

    def values(params: PyTree, carry: PyTree, obs: jax.Array) -> tuple[PyTree, jax.Array]:
        """Carry after one step, and Q(s, .) [N, A], -inf where actions are illegal."""
        carry, q = unroll(params, carry, within_episodes(1, obs.shape[0]), obs)
        return carry, exploration.legal_values(env, obs, q)

    def init(key: jax.Array, obs: jax.Array) -> Learned:
        carry, begun = model.initial_carry(obs.shape[0]), within_episodes(1, obs.shape[0])
        return start(optimize, model.init(key, carry, encode(obs), begun))

    def act(
        key: jax.Array, state: Learned, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        epsilon = exploration.annealed_epsilon(config, step)
        after, q = values(state.params, carry, obs)
        pi = exploration.epsilon_greedy(q, epsilon)
        return sample_action(key, pi), Remembered((), carry, after), after

    def policy(
        key: jax.Array, state: Learned, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        carry, q = values(state.params, carry, obs)
        return q.argmax(-1).astype("int32"), carry

    def process_rollout(state: Learned, rollout: Transition) -> tuple[Learned, Transition]:
        obs, carry = flattened((rollout.next_obs, rollout.extras.next_carry))
        _, next_q = values(state.params, carry, obs)
        target, extras = with_targets(config, rollout, next_q.max(-1))
        return state, rollout._replace(extras=extras._replace(choice=target), next_obs=())

    def update(
        key: jax.Array, state: Learned, sample: Sample, count: jax.Array
    ) -> tuple[Learned, jax.Array, Metrics]:
        carry, begun, batch, weight = sequences_of(sample)

        def q(params: PyTree, obs: jax.Array) -> jax.Array:
            return unroll(params, carry, begun, obs)[1]

        inputs = pqn.LossInputs(config, q, batch, weight)
        state, _, (priority, metrics) = gradient_step(optimize, state, q_loss, inputs)
        return state, priority, metrics

    agent = Agent(init, act, policy, update, None, process_rollout, model.initial_carry)
    return agent, memory(config, env)


class SequenceEpochs(Epochs):
    """Fields of several epochs of minibatches of sequences."""

    sequence_length: int | None = static(None, kind=int, at_least=1, optional=True)
    """Steps of each sequence that is learned from, gradients included; None: rollout_length."""

    @property
    def length_of_sequences(self) -> int:
        """Steps of each sequence."""
        return self.sequence_length or self.rollout_length

    def check(self) -> None:
        super().check()
        length = self.length_of_sequences
        if self.rollout_length % length:
            raise ConfigError(
                f"sequence_length is {length}, but must divide rollout_length ="
                f" {self.rollout_length}"
            )
        number = self.steps_per_iteration // length
        if number % self.num_minibatches:
            raise ConfigError(
                f"num_updates / num_epochs = {self.num_minibatches} minibatches do not divide the"
                f" {number} sequences of a rollout: lower num_updates or sequence_length, or raise"
                " num_envs"
            )


class RecurrentA2CConfig(ActorCriticConfig, RecurrentCell):
    """Configuration of recurrent A2C."""

    algorithm: Algorithm = static(recurrent_a2c)
    rollout_length: int = static(32)
    """Steps of each environment between learning phases, through which gradients flow."""


class RecurrentPPOConfig(PPOConfig, SequenceEpochs, RecurrentCell):
    """Configuration of recurrent PPO."""

    algorithm: Algorithm = static(recurrent_ppo)


class RecurrentPQNConfig(PQNConfig, SequenceEpochs, RecurrentCell):
    """Configuration of recurrent PQN."""

    algorithm: Algorithm = static(recurrent_pqn)
