"""DQN and R2D2 with recurrent networks: Q depends on the episode so far.

Sequences are replayed as in `recurrent_off_policy`. The value of each next observation uses the
carry after the step that led to it, also where the episode was truncated. The losses are those of
`dqn`, of the rows of the unrolled sequences.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration, heads, losses
from purejaxrl_sac.agents import dqn
from purejaxrl_sac.agents.common import number_of_actions
from purejaxrl_sac.agents.dqn import DQNConfig, DQNState
from purejaxrl_sac.agents.off_policy import backup_of, replay_storage
from purejaxrl_sac.agents.recurrent_off_policy import (
    PrioritizedSequences,
    SequenceReplay,
    after_burn_in,
    prioritized_replay,
    uniform_replay,
    warmed,
)
from purejaxrl_sac.agents.sequences import Remembered, flattened, newest, within_episodes
from purejaxrl_sac.checks import check_outputs
from purejaxrl_sac.config import ConfigError, static
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.networks import Dueling, features, recurrent_q_network
from purejaxrl_sac.optimize import decaying_adam, penalized, start
from purejaxrl_sac.returns import n_step_rows
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Bootstrap,
    Env,
    Explore,
    Loss,
    MakeHead,
    MakeMemory,
    MakeOptimizer,
    MakeRecurrentQNetwork,
    MakeStorage,
    Memory,
    Metrics,
    NextQ,
    NextReturn,
    Penalty,
    PyTree,
    Reward,
    Sample,
    Target,
    Transition,
)


@checks_parts
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
        ConfigError: the environment's actions are continuous; n_step is greater than 1 with
            `bootstrap=soft`, whose entropies in between are not stored; `rescaled_td_target` is
            used with a mean over actions; in updates, if the memory samples single transitions.
    """
    dqn.check_rescaled(target, bootstrap)
    if config.n_step > 1 and inspect.unwrap(bootstrap) is dqn.soft:
        raise ConfigError(
            f"n_step is {config.n_step}, but soft returns of several steps need the entropies in"
            " between, which sequences do not store: set n_step=1"
        )
    num_actions = number_of_actions("DQN", env)
    q_head = head(config)
    model = network(config, env.observation_space, num_actions, q_head.num_outputs)
    encode, optimize = features(env.observation_space), optimizer(config)
    sample_action = exploration.sampler(config)
    legal = partial(exploration.legal_values, env)

    def unroll(
        params: PyTree, carry: PyTree, start: jax.Array, obs: jax.Array
    ) -> tuple[PyTree, Any]:
        """Carries after each step [T, B, ...], and outputs of the rows [T x B]."""
        carries, outputs = model.apply(params, carry, encode(obs), start)
        check_outputs("network", outputs, obs.shape[0], ("B", num_actions, "K"))
        return carries, outputs

    def expectation(outputs: Any, obs: jax.Array) -> jax.Array:
        return legal(obs, q_head.expectation(outputs))

    def values(params: PyTree, carry: PyTree, obs: jax.Array) -> tuple[PyTree, jax.Array]:
        """Carry after one step, and Q(s, .) [N, A]."""
        carries, outputs = unroll(params, carry, within_episodes(1, obs.shape[0]), obs)
        return newest(carries), expectation(outputs, obs)

    def init(key: jax.Array, obs: jax.Array) -> DQNState:
        carry, begun = model.initial_carry(obs.shape[0]), within_episodes(1, obs.shape[0])
        params = model.init(key, carry, encode(obs), begun)
        copy = jax.tree.map(jnp.copy, params)
        return DQNState(params, copy, start(optimize, params).opt_state)

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
        before, (begun, batch, weight) = after_burn_in(config, sample)

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
        next_return, batch, weight = n_step(config, next_return, batch, weight, begun.shape)

        def outputs(params: PyTree, obs: jax.Array, /, **keys: jax.Array) -> Any:
            return unroll(params, carry, begun, obs)[1]

        r = reward(config, batch, expectation(delayed, batch.obs))
        backup = backup_of(config, target, batch, r)
        inputs = dqn.LossInputs(
            config, outputs, q_head, batch, weight, next_return, backup, keys, legal
        )
        return dqn.learn(config, optimize, penalized(loss, penalty), state, inputs, count)

    agent = Agent(init, act, policy, update, init_carry=model.initial_carry)
    return agent, memory(config, storage(config, env))


def n_step(
    config: RecurrentDQNFields,
    next_return: NextReturn,
    batch: Transition,
    weight: jax.Array,
    shape: tuple[int, ...],
) -> tuple[NextReturn, Transition, jax.Array]:
    """Returns and transitions of up to n steps inside the sequences, see `returns.n_step_rows`.

    A row has no weight where the last of its steps, from which it bootstraps, has none.

    Args:
        next_return, batch, weight: of one step, [T x B].
        shape: (T, B).
    """
    if config.n_step == 1:
        return next_return, batch, weight
    reward, discount, last = (x.reshape(shape) for x in (batch.reward, batch.discount, batch.last))
    reward, discount, final = n_step_rows(reward, discount, last, config.n_step, config.gamma)
    row = (final * shape[1] + jnp.arange(shape[1], dtype=jnp.int32)).reshape(-1)
    bonus = next_return.bonus if len(next_return.bonus) == 1 else next_return.bonus[row]
    next_return = NextReturn(
        jax.tree.map(lambda x: x[row], next_return.outputs),
        next_return.pi[row],
        bonus,
        next_return.key,
    )
    batch = batch._replace(reward=reward.reshape(-1), discount=discount.reshape(-1))
    return next_return, batch, jnp.where(weight[row] > 0, weight, 0)


r2d2 = partial(
    recurrent_dqn,
    network=partial(recurrent_q_network, stream=Dueling),
    bootstrap=dqn.double,
    target=losses.rescaled_td_target,
    memory=prioritized_replay,
)


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
