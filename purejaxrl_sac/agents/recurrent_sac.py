"""Soft Actor-Critic with a recurrent actor and recurrent critics (Ni et al. 2022).

Sequences are replayed as in `recurrent_off_policy`. The value of each next observation uses the
carries after the step that led to it, also where the episode was truncated. The losses are those of
`sac`, of the rows of the unrolled sequences.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.agents import sac
from purejaxrl_sac.agents.common import Layers, dimension_of_actions
from purejaxrl_sac.agents.off_policy import replay_storage
from purejaxrl_sac.agents.recurrent_off_policy import (
    SequenceReplay,
    after_burn_in,
    uniform_replay,
    warmed,
)
from purejaxrl_sac.agents.sac import SACFields, SACState
from purejaxrl_sac.agents.sequences import Remembered, flattened, newest, within_episodes
from purejaxrl_sac.checks import check_outputs
from purejaxrl_sac.config import static
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.networks import features, recurrent_actor, recurrent_critics
from purejaxrl_sac.noise import white
from purejaxrl_sac.optimize import penalized, start
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    CriticTarget,
    Env,
    Loss,
    MakeCritique,
    MakeMemory,
    MakeNoise,
    MakeOptimizer,
    MakeRecurrentActor,
    MakeRecurrentCritics,
    MakeStorage,
    Memory,
    Metrics,
    Penalty,
    PyTree,
    RecurrentNetwork,
    Sample,
    SoftActorLoss,
)


class Carries(NamedTuple):
    """The carries of SAC's networks, leading axis [B]."""

    actor: PyTree
    critic: PyTree


class History(NamedTuple):
    """What recurrent networks take in place of the features of T x B observations."""

    carry: Carries  # [B, ...]: before the first of T steps
    start: jax.Array  # [T, B] bool, as in `Sequences`
    obs: jax.Array  # [T x B, ...]: features


@checks_parts
def recurrent_sac(
    config: RecurrentSACConfig,
    env: Env,
    *,
    actor: MakeRecurrentActor = recurrent_actor,
    critics: MakeRecurrentCritics = recurrent_critics,
    critique: MakeCritique = sac.minimum,
    critic_target: CriticTarget = sac.soft_target,
    critic_loss: Loss = sac.critic_loss,
    actor_loss: SoftActorLoss = sac.actor_loss,
    penalty: Penalty | None = None,
    actor_optimizer: MakeOptimizer = sac.default_actor_optimizer,
    critic_optimizer: MakeOptimizer = sac.default_critic_optimizer,
    temperature_optimizer: MakeOptimizer = sac.default_temperature_optimizer,
    noise: MakeNoise = white,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """`sac` with a recurrent actor and recurrent critics; the same parts, without dropout.

    Actor and critics remember separately (Ni et al. 2022, arXiv 2110.05038); critics see the action
    whose value they return after their memory. It has no `q_values`, which are of single
    observations.

    Raises:
        ConfigError: the environment's actions are discrete; in updates, if the memory samples
            single transitions.
    """
    action_dim = dimension_of_actions("SAC", env, alternative="recurrent_dqn")
    encode = features(env.observation_space)
    actor_net = actor(config, env.observation_space, action_dim)
    critic_net = critics(config, env.observation_space)
    draw_noise, init_noise = noise(config, action_dim)

    def sample_action(key: jax.Array, params: PyTree, seen: Any) -> tuple[jax.Array, jax.Array]:
        _, moments = actor_net.apply(params, seen.carry.actor, seen.obs, seen.start)
        check_outputs("actor", moments, len(seen.obs), ("B", action_dim), arrays=2)
        return squashed_gaussian(*moments).sample_and_log_prob(seed=key)

    def critic(
        params: PyTree, seen: Any, action: jax.Array, dropout: jax.Array | None = None
    ) -> jax.Array:
        q: jax.Array = critic_net.apply(params, seen.carry.critic, seen.obs, seen.start, action)[1]
        check_outputs("critics", q, len(seen.obs), ("E", "B"))
        return q

    networks = sac.Networks(sample_action, critic, critique(config))
    learner = sac.Learner(
        networks=networks,
        optimize_actor=actor_optimizer(config),
        optimize_critic=critic_optimizer(config),
        optimize_temperature=temperature_optimizer(config),
        critic_target=critic_target,
        critic_loss=penalized(critic_loss, penalty),
        actor_loss=actor_loss,
        target_entropy=config.target_entropy_per_dim * action_dim,
    )

    def init_carry(num_envs: int) -> tuple[Carries, PyTree]:
        carries = Carries(*(x.initial_carry(num_envs) for x in (actor_net, critic_net)))
        return carries, init_noise(num_envs)

    def init(key: jax.Array, obs: jax.Array) -> SACState:
        key_actor, key_critic = jax.random.split(key)
        (carry, _), begun = init_carry(obs.shape[0]), within_episodes(1, obs.shape[0])
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        critic_params = critic_net.init(key_critic, carry.critic, encode(obs), begun, action)
        actor_params = actor_net.init(key_actor, carry.actor, encode(obs), begun)
        return SACState(
            actor=start(learner.optimize_actor, actor_params),
            critic=start(learner.optimize_critic, critic_params),
            target_params=jax.tree.map(jnp.copy, critic_params),
            log_alpha=start(learner.optimize_temperature, jnp.log(jnp.float32(config.alpha))),
        )

    def act(
        key: jax.Array, state: SACState, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        carry, noise_carry = carry
        inputs = encode(obs), within_episodes(1, obs.shape[0])
        actor, (mean, log_std) = actor_net.apply(state.actor.params, carry.actor, *inputs)
        epsilon, noise_carry = draw_noise(key, mean.shape, noise_carry)
        action = jnp.tanh(mean + jnp.exp(log_std) * epsilon)
        critic, _ = critic_net.apply(state.critic.params, carry.critic, *inputs, action)
        after = Carries(newest(actor), newest(critic))
        return action, Remembered((), carry), (after, noise_carry)

    def policy(
        key: jax.Array, state: SACState, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        carries, noise_carry = carry
        inputs = encode(obs), within_episodes(1, obs.shape[0])
        after, (mean, _) = actor_net.apply(state.actor.params, carries.actor, *inputs)
        return jnp.tanh(mean), (carries._replace(actor=newest(after)), noise_carry)

    def update(
        key: jax.Array, state: SACState, sample: Sample, count: jax.Array
    ) -> tuple[SACState, jax.Array, Metrics]:
        before, (begun, batch, weight) = after_burn_in(config, sample)
        obs, next_obs, earlier = map(encode, (batch.obs, batch.next_obs, before.batch.obs))

        def warmed_critic(params: PyTree) -> PyTree:
            action = before.batch.action
            return warmed(critic_net, params, before.carry.critic, before, earlier, action)

        def after_each_step(
            network: RecurrentNetwork, params: PyTree, carry: PyTree, *more: jax.Array
        ) -> PyTree:
            return flattened(network.apply(params, carry, obs, begun, *more)[0])

        params, target_params = state.actor.params, state.target_params
        carry = Carries(
            warmed(actor_net, params, before.carry.actor, before, earlier),
            warmed_critic(state.critic.params),
        )
        next_carry = Carries(
            after_each_step(actor_net, params, carry.actor),
            after_each_step(critic_net, target_params, warmed_critic(target_params), batch.action),
        )
        seen: Any = History(carry, begun, obs)
        next_seen: Any = History(next_carry, within_episodes(1, begun.size), next_obs)
        batch = batch._replace(obs=seen, next_obs=next_seen)
        keys = sac.Keys(*jax.random.split(key, len(sac.Keys._fields)))
        return sac.learn(config, learner, state, batch, weight, keys, count)

    agent = Agent(init, act, policy, update, init_carry=init_carry)
    return agent, memory(config, storage(config, env))


class RecurrentSACConfig(SequenceReplay, SACFields, Layers):
    """Configuration of recurrent SAC."""

    algorithm: Algorithm = static(recurrent_sac)
