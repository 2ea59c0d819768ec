"""Off-policy algorithms that remember: DQN, R2D2 and SAC with recurrent networks.

A replay memory stores sequences (`memory.sequence_replay`), each with the carry that the agent had
before its first step. That carry is of older parameters, so that the first `burn_in` steps of a
sequence only bring it up to date, for each network with its own parameters and without gradients;
the steps after them are learned from (Kapturowski et al. 2019, R2D2, section 3). The value of each
next observation uses the carry after the step that led to it, also where the episode was truncated.

The losses are those of `dqn` and `sac`, of the rows of the unrolled sequences.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration, heads, losses
from purejaxrl_sac.agents import dqn, sac
from purejaxrl_sac.agents.common import (
    Layers,
    dimension_of_actions,
    number_of_actions,
)
from purejaxrl_sac.agents.dqn import DQNConfig, DQNState
from purejaxrl_sac.agents.off_policy import Prioritized, ReplayConfig, replay_storage
from purejaxrl_sac.agents.sac import SACFields, SACState
from purejaxrl_sac.agents.sequences import (
    RecurrentCell,
    Remembered,
    flattened,
    newest,
    sequences_of,
    within_episodes,
)
from purejaxrl_sac.config import ConfigError, static, traced
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.memory import prioritized_sequences, sequence_storage, uniform_sequences
from purejaxrl_sac.networks import (
    Dueling,
    features,
    recurrent_actor,
    recurrent_critics,
    recurrent_q_network,
)
from purejaxrl_sac.noise import white
from purejaxrl_sac.optimize import decaying_adam, penalized, start
from purejaxrl_sac.returns import n_step_rows
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Bootstrap,
    Env,
    Explore,
    Loss,
    MakeCritique,
    MakeHead,
    MakeMemory,
    MakeNoise,
    MakeOptimizer,
    MakeRecurrentActor,
    MakeRecurrentCritics,
    MakeRecurrentQNetwork,
    MakeStorage,
    Memory,
    Metrics,
    NextQ,
    NextReturn,
    Penalty,
    PyTree,
    RecurrentNetwork,
    Reward,
    Sample,
    Storage,
    Target,
    Transition,
)


class BurnIn(NamedTuple):
    """The steps of sequences before those that are learned from."""

    carry: PyTree  # [B, ...]: stored before their first steps
    start: jax.Array  # [burn_in, B] bool, as in `Sequences`
    batch: Transition  # [burn_in x B]


class Replayed(NamedTuple):
    """The steps of sequences that are learned from, T of each."""

    start: jax.Array  # [T, B] bool, as in `Sequences`
    batch: Transition  # [T x B]
    weight: jax.Array  # [T x B]


def after_burn_in(sample: Sample, burn_in: int) -> tuple[BurnIn, Replayed]:
    """Splits a sample of sequences.

    Raises:
        ConfigError: the memory samples single transitions.
    """
    carry, start, batch, weight = sequences_of(sample)
    row = burn_in * start.shape[1]
    before, after = (
        jax.tree.map(lambda x, s=s: x[s], batch) for s in (slice(row), slice(row, None))
    )
    return BurnIn(carry, start[:burn_in], before), Replayed(start[burn_in:], after, weight[row:])


def uniform_replay(config: SequenceReplay, storage: Storage) -> Memory:
    """Samples every sequence with the same probability."""
    length = config.sequence_length
    sequences = sequence_storage(storage, length)
    return uniform_sequences(sequences, config.batch_size, length, config.rollout_length)


def prioritized_replay(config: PrioritizedSequences, storage: Storage) -> Memory:
    """Samples sequences in proportion to powers of their priorities."""
    length = config.sequence_length
    return prioritized_sequences(
        sequence_storage(storage, length),
        config.batch_size,
        length,
        config.rollout_length,
        config.priority_exponent,
        config.importance_exponent,
        config.priority_of_maximum,
        config.total_steps,
    )


def recurrent_dqn(
    config: RecurrentDQNFields,
    env: Env,
    *,
    network: MakeRecurrentQNetwork = recurrent_q_network,
    head: MakeHead = heads.scalar,
    bootstrap: Bootstrap = dqn.maximum,
    reward: Reward = dqn.plain_reward,
    target: Target = losses.td_target,
    explore: Explore = dqn.epsilon_greedy,
    loss: Loss = dqn.q_loss,
    penalty: Penalty | None = None,
    optimizer: MakeOptimizer = decaying_adam,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """`dqn` with a recurrent network: Q(s, .) depends on the episode so far.

    The same parts, except that networks and heads get no keys, as noisy layers would need. Targets
    are of `n_step` steps inside the sequence. It has no `q_values`, which are of single
    observations.

    Raises:
        ConfigError: the environment's actions are continuous; in updates, if the memory samples
            single transitions.
    """
    num_actions = number_of_actions("DQN", env)
    q_head = head(config)
    model = network(config, env.observation_space, num_actions, q_head.num_outputs)
    encode, optimize = features(env.observation_space), optimizer(config)
    sample_action = exploration.sampler(config)

    def unroll(
        params: PyTree, carry: PyTree, start: jax.Array, obs: jax.Array
    ) -> tuple[PyTree, Any]:
        """Carries after each step [T, B, ...], and outputs of the rows [T x B]."""
        outputs: tuple[PyTree, Any] = model.apply(params, carry, encode(obs), start)
        return outputs

    def expectation(outputs: Any, obs: jax.Array) -> jax.Array:
        return exploration.legal_values(env, obs, q_head.expectation(outputs))

    def values(params: PyTree, carry: PyTree, obs: jax.Array) -> tuple[PyTree, jax.Array]:
        """Carry after one step, and Q(s, .) [N, A]."""
        carries, outputs = unroll(params, carry, within_episodes(1, obs.shape[0]), obs)
        return newest(carries), expectation(outputs, obs)

    def init(key: jax.Array, obs: jax.Array) -> DQNState:
        carry, begun = model.initial_carry(obs.shape[0]), within_episodes(1, obs.shape[0])
        params = model.init(key, carry, encode(obs), begun)
        return DQNState(params, jax.tree.map(jnp.copy, params), optimize.init(params))

    def act(
        key: jax.Array, state: DQNState, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        after, q = values(state.params, carry, obs)
        return sample_action(key, explore(config, q, step)), Remembered((), carry), after

    def policy(
        key: jax.Array, state: DQNState, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        carry, q = values(state.params, carry, obs)
        return q.argmax(-1).astype(jnp.int32), carry

    def update(
        key: jax.Array, state: DQNState, sample: Sample, count: jax.Array
    ) -> tuple[DQNState, jax.Array, Metrics]:
        keys = dqn.Keys(*jax.random.split(key, len(dqn.Keys._fields)))
        before, (begun, batch, weight) = after_burn_in(sample, config.burn_in)

        def unrolled(params: PyTree) -> tuple[PyTree, Any, Any]:
            """Carry after the burn-in, and outputs at s and at s'."""
            carry = warmed(model, params, before.carry, before, encode(before.batch.obs))
            carries, outputs = unroll(params, carry, begun, batch.obs)
            single = within_episodes(1, begun.size)
            return carry, outputs, unroll(params, flattened(carries), single, batch.next_obs)[1]

        carry, _, following = unrolled(state.params)
        _, delayed, next_outputs = unrolled(state.target_params)
        q = expectation(following, batch.next_obs)
        next_q = NextQ(
            online=q,
            target=expectation(next_outputs, batch.next_obs),
            pi=explore(config, q, config.step_at(count)),
        )
        pi, bonus = bootstrap(config, next_q)
        bonus = dqn.broadcast_bonus(bonus, pi)
        next_return = NextReturn(next_outputs, pi, bonus, keys.next_action)
        next_return, batch = n_step(config, next_return, batch, begun.shape)

        def outputs(params: PyTree, obs: jax.Array, /, **keys: jax.Array) -> Any:
            return unroll(params, carry, begun, obs)[1]

        r = reward(config, batch, expectation(delayed, batch.obs))
        backup = dqn.backup_of(config, target, batch, r)
        inputs = dqn.LossInputs(config, outputs, q_head, batch, weight, next_return, backup, keys)
        return dqn.learn(config, optimize, penalized(loss, penalty), state, inputs, count)

    agent = Agent(init, act, policy, update, init_carry=model.initial_carry)
    return agent, memory(config, storage(config, env))


def warmed(
    network: RecurrentNetwork, params: PyTree, carry: PyTree, before: BurnIn, *inputs: jax.Array
) -> PyTree:
    """The carry [B, ...] after the burn-in. Losses do not compute it, so that it has no gradient.

    Args:
        carry: the network's own part of the stored one.
        inputs: the network's inputs in the burn-in: observations [burn_in x B], and further ones.
    """
    if not len(before.start):
        return carry
    obs, *more = inputs
    return newest(network.apply(params, carry, obs, before.start, *more)[0])


def n_step(
    config: RecurrentDQNFields, following: NextReturn, batch: Transition, shape: tuple[int, ...]
) -> tuple[NextReturn, Transition]:
    """Returns and transitions of up to n steps inside the sequences, see `returns.n_step_rows`.

    Args:
        following, batch: of one step, [T x B].
        shape: (T, B).
    """
    if config.n_step == 1:
        return following, batch
    reward, discount, last = (x.reshape(shape) for x in (batch.reward, batch.discount, batch.last))
    reward, discount, final = n_step_rows(reward, discount, last, config.n_step, config.gamma)
    row = (final * shape[1] + jnp.arange(shape[1], dtype=jnp.int32)).reshape(-1)
    bonus = following.bonus if len(following.bonus) == 1 else following.bonus[row]
    following = NextReturn(
        jax.tree.map(lambda x: x[row], following.outputs), following.pi[row], bonus, following.key
    )
    return following, batch._replace(reward=reward.reshape(-1), discount=discount.reshape(-1))


r2d2 = partial(
    recurrent_dqn,
    network=partial(recurrent_q_network, stream=Dueling),
    bootstrap=dqn.double,
    target=losses.rescaled_td_target,
    memory=prioritized_replay,
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


def recurrent_sac(
    config: RecurrentSACConfig,
    env: Env,
    *,
    actor: MakeRecurrentActor = recurrent_actor,
    critics: MakeRecurrentCritics = recurrent_critics,
    critique: MakeCritique = sac.minimum,
    critic_loss: Loss = sac.critic_loss,
    actor_loss: Loss = sac.actor_loss,
    penalty: Penalty | None = None,
    actor_optimizer: MakeOptimizer = sac.default_actor_optimizer,
    critic_optimizer: MakeOptimizer = sac.default_critic_optimizer,
    temperature_optimizer: MakeOptimizer = sac.default_temperature_optimizer,
    noise: MakeNoise = white,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """`sac` with a recurrent actor and recurrent critics; the same parts.

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
    optimizers = actor_optimizer(config), critic_optimizer(config), temperature_optimizer(config)
    draw_noise, init_noise = noise(config, action_dim)

    def sample_action(key: jax.Array, params: PyTree, seen: Any) -> tuple[jax.Array, jax.Array]:
        _, moments = actor_net.apply(params, seen.carry.actor, seen.obs, seen.start)
        return squashed_gaussian(*moments).sample_and_log_prob(seed=key)

    def critic(
        params: PyTree, seen: Any, action: jax.Array, dropout: jax.Array | None = None
    ) -> jax.Array:
        q: jax.Array = critic_net.apply(params, seen.carry.critic, seen.obs, seen.start, action)[1]
        return q

    networks = sac.Networks(sample_action, critic, critique(config))
    learner = sac.Learner(
        networks,
        optimizers,
        (penalized(critic_loss, penalty), actor_loss),
        config.target_entropy_per_dim * action_dim,
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
            actor=start(optimizers[0], actor_params),
            critic=start(optimizers[1], critic_params),
            target_params=jax.tree.map(jnp.copy, critic_params),
            log_alpha=start(optimizers[2], jnp.log(jnp.float32(config.alpha))),
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
        before, (begun, batch, weight) = after_burn_in(sample, config.burn_in)
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
        keys = sac.Keys(*jax.random.split(key, 6))
        return sac.learn(config, learner, state, batch, weight, keys, count)

    agent = Agent(init, act, policy, update, init_carry=init_carry)
    return agent, memory(config, storage(config, env))


class SequenceReplay(ReplayConfig, RecurrentCell):
    """Fields of replay of sequences."""

    rollout_length: int = static(10)
    """Steps each environment takes between learning phases. Sequences begin where rollouts do."""
    sequence_length: int = static(20, at_least=1)
    """Steps of each sequence, with those of the burn-in; a multiple of rollout_length."""
    burn_in: int = static(0, at_least=0)
    """First steps of each sequence that only bring its carry up to date."""
    batch_size: int = static(32)
    """Sequences per gradient update."""
    num_updates: int = static(10)
    """Gradient updates in each learning phase."""

    def check(self) -> None:
        if self.dataset is not None:
            raise ConfigError(
                "recurrent algorithms replay sequences with the carries before them, which a"
                " dataset of transitions does not have: use dqn or sac"
            )
        super().check()
        length, envs = self.sequence_length, self.num_envs
        if self.burn_in >= length:
            raise ConfigError(
                f"burn_in is {self.burn_in}, but must be less than sequence_length = {length}, of"
                " which it is a part"
            )
        if length % self.rollout_length:
            raise ConfigError(
                f"sequence_length is {length}, but must be a multiple of rollout_length ="
                f" {self.rollout_length}, because sequences begin where rollouts do"
            )
        for name in ("capacity", "warmup_steps"):
            if getattr(self, name) < length * envs:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, but must be at least sequence_length x"
                    f" num_envs = {length * envs}, so that there is a sequence to learn from"
                )


class PrioritizedSequences(SequenceReplay, Prioritized):
    """Fields of `prioritized_replay` of sequences."""

    priority_of_maximum: float = traced(0.9, between=(0, 1))
    """Weight of the largest priority of a sequence's steps; 1 minus it is that of their mean."""


class RecurrentDQNFields(SequenceReplay, DQNConfig):
    """Fields of `recurrent_dqn`."""

    n_step: int = static(1, at_least=1)
    """Steps of reward before bootstrapping, inside a sequence."""

    def check(self) -> None:
        super().check()
        steps = self.sequence_length - self.burn_in
        if self.n_step > steps:
            raise ConfigError(
                f"n_step is {self.n_step}, but must be at most the {steps} steps of a sequence"
                " after its burn-in: lower n_step or burn_in, or raise sequence_length"
            )


class RecurrentDQNConfig(RecurrentDQNFields):
    """Configuration of recurrent DQN."""

    algorithm: Algorithm = static(recurrent_dqn)


class R2D2Config(RecurrentDQNFields, PrioritizedSequences):
    """Configuration of R2D2."""

    algorithm: Algorithm = static(r2d2)
    burn_in: int = static(10)
    """First steps of each sequence that only bring its carry up to date."""
    n_step: int = static(3)
    """Steps of reward before bootstrapping, inside a sequence."""


class RecurrentSACConfig(SequenceReplay, SACFields, Layers):
    """Configuration of recurrent SAC."""

    algorithm: Algorithm = static(recurrent_sac)
    env: Any = static("Pendulum-v1")
    """Environment: a name, or any gymnax `Environment` object."""
    total_steps: int = static(20_000)
    """Environment steps over all parallel environments, warm-up included."""
    capacity: int = static(100_000)
    """Transitions the replay memory stores; a multiple of num_envs x rollout_length."""
