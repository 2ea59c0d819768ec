"""The contracts: transitions, agents, memories, environments, and the parts that form an agent.

Functions of a contract are Protocols whose docstrings give the shapes of their arrays, or callables
with a comment. Their parameters are positional: implementations choose their own names.

Shapes: T is the rollout length, N the number of parallel environments, B a batch, G the number of
updates per iteration, A the number of discrete actions, D the dimension of continuous ones, K the
number of outputs of a network per action (or per critic), E the number of critics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax

if TYPE_CHECKING:
    import optax

    from purejaxrl_sac.distributions import ActionDistribution

PyTree = Any
Scalar = jax.Array | float
Metrics = dict[str, jax.Array]


class Transition(NamedTuple):
    """One step of experience; leading axes [T, N] in a rollout and [B] in a batch."""

    obs: jax.Array  # [..., *obs_shape], in the environment's own dtype
    action: jax.Array  # [...] int32 if discrete, else [..., D] in [-1, 1]
    reward: jax.Array  # [...] float32
    discount: jax.Array  # [...] float32: 0 where the episode TERMINATED, 1 elsewhere; in samples
    # of k steps gamma^(k-1) instead of 1, see `memory.storage.n_step`
    next_obs: Any  # [..., *obs_shape]: the true next observation, before any auto-reset; arbitrary
    # where discount is 0 in samples of images, whose storage keeps each once; () where
    # `Agent.process_rollout` has removed it because no update needs it
    last: jax.Array  # [...] bool: terminated or truncated, the last transition of its episode
    extras: Any = ()  # what `Agent.act` stores with an action (log-probabilities, values, carries)


class Index(NamedTuple):
    """Identifies transitions: step `time` of environment `env`, arrays of any shape [...].

    It is not checked: of a storage of R rows at the clock `step`, step - R <= time < step.
    """

    time: jax.Array  # [...] int32, counted by the clock `TrainState.step`
    env: jax.Array  # [...] int32, 0 <= env < N


class Sample(NamedTuple):
    """What a memory passes to `Agent.update`."""

    transition: Transition  # leading axes [B] from a replay memory, [T, N] from `latest`
    weight: jax.Array  # loss weight of each row: of the shape of the rewards, or its last axes
    index: Any = ()  # where the rows are stored, for `Memory.update_priorities`
    rewards: jax.Array | None = None  # [B, n]: the rewards that `transition.reward` is the
    # discounted sum of, for agents that transform each; None where it is one reward


class EnvState(NamedTuple):
    """N parallel environments between two steps."""

    state: PyTree  # the environment's own state, leading axis [N]
    obs: jax.Array  # [N, *obs_shape]: the observation that the next action is chosen from
    episode_return: jax.Array  # [N] float32: undiscounted return of the running episode so far
    episode_length: jax.Array  # [N] int32: its steps so far
    carry: PyTree = ()  # the agent's memory of the running episodes, leading axis [N]


class TrainState(NamedTuple):
    """The complete state of a run: a run can be resumed from it and its configuration."""

    key: jax.Array  # typed PRNG key
    step: jax.Array  # int32: steps taken by each environment, warm-up included; see `seed_axes`
    env: EnvState
    agent: PyTree
    memory: PyTree


# --- agents ---------------------------------------------------------------------------------------


class AgentInit(Protocol):
    def __call__(self, key: jax.Array, obs: jax.Array, /) -> PyTree:
        """(key, obs [N, *obs_shape]) -> state."""


class Act(Protocol):
    def __call__(
        self, key: jax.Array, state: Any, obs: jax.Array, step: jax.Array, carry: Any, /
    ) -> tuple[jax.Array, PyTree, PyTree]:
        """(key, state, obs [N, ...], step, carry [N, ...]) -> action [N, ...], extras, carry."""


class GreedyPolicy(Protocol):
    def __call__(
        self, key: jax.Array, state: Any, obs: jax.Array, carry: Any, /
    ) -> tuple[jax.Array, PyTree]:
        """(key, state, obs [N, ...], carry [N, ...]) -> action [N, ...], carry."""


class Update(Protocol):
    def __call__(
        self, key: jax.Array, state: Any, sample: Sample, count: jax.Array, /
    ) -> tuple[PyTree, jax.Array, Metrics]:
        """(key, state, Sample, updates made before) -> state, priority, scalar metrics.

        The priority has the leading axes of the sample, [B] or [T, N]; memories without priorities
        ignore it.
        """


class ProcessRollout(Protocol):
    def __call__(self, state: Any, rollout: Transition, /) -> tuple[PyTree, Transition]:
        """(state, rollout [T, N]) -> state, rollout [T, N] as the memory stores it."""


class InitCarry(Protocol):
    def __call__(self, num_envs: int, /) -> PyTree:
        """N -> carry at the beginning of an episode, leading axis [N]."""


class ActWithoutCarry(Protocol):
    def __call__(
        self, key: jax.Array, state: Any, obs: jax.Array, step: jax.Array, /
    ) -> tuple[jax.Array, PyTree]:
        """`Act` of an agent without a carry: action [N, ...], extras."""


class PolicyWithoutCarry(Protocol):
    def __call__(self, key: jax.Array, state: Any, obs: jax.Array, /) -> jax.Array:
        """`GreedyPolicy` of an agent without a carry: action [N, ...]."""


def store_unchanged(state: PyTree, rollout: Transition) -> tuple[PyTree, Transition]:
    """`Agent.process_rollout` of an agent that stores its rollouts as they are."""
    return state, rollout


def no_carry(num_envs: int) -> tuple[()]:
    """`Agent.init_carry` of an agent without a memory of its episode."""
    return ()


class Agent(NamedTuple):
    """An algorithm as pure functions. `state` is any pytree that `init` returns.

    The carry is an agent's memory of the running episode, such as the state of a recurrent network.
    It is passed to `act` and `policy`, returned by them, reset where an episode ends, and part of
    the train state; `act` adds it to `extras` if updates need it. Agents without one are built by
    `memoryless`.

    In the warm-up `act` is called, too, but a uniformly random action takes the place of its own. A
    carry or extras that depend on the action, such as the previous action or log pi(a|s), are then
    those of an action that was not taken: set warmup_steps=0, or let the environment observe the
    previous action, as `tiger_with_actions` does.
    """

    init: AgentInit
    act: Act  # the exploring policy
    policy: GreedyPolicy  # the policy to evaluate and deploy
    update: Update
    q_values: Callable[..., jax.Array] | None = None  # (state, obs [N, ...]) -> Q(s, .) [N, A], or
    # (state, obs, action [N, D]) -> Q(s, a) [N] of continuous actions; None if the agent has none
    process_rollout: ProcessRollout = store_unchanged  # once per rollout, before it is stored:
    # computes targets, advantages and running statistics
    init_carry: InitCarry = no_carry


def memoryless(
    init: AgentInit,
    act: ActWithoutCarry,
    policy: PolicyWithoutCarry,
    update: Update,
    q_values: Callable[..., jax.Array] | None = None,
    process_rollout: ProcessRollout = store_unchanged,
) -> Agent:
    """An agent whose actions depend only on the current observation."""

    def act_with_carry(
        key: jax.Array, state: PyTree, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        action, extras = act(key, state, obs, step)
        return action, extras, carry

    def policy_with_carry(
        key: jax.Array, state: PyTree, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        return policy(key, state, obs), carry

    return Agent(init, act_with_carry, policy_with_carry, update, q_values, process_rollout)


def enclosing(agent: Agent) -> Agent:
    """The agent on states that hold its own as their field `agent`, to be changed by a wrapper.

    `act`, `policy` and `q_values` are those of `agent`. The wrapper replaces `init` and `update`,
    and `process_rollout` where the agent has its own.
    """

    def act(
        key: jax.Array, state: Any, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        return agent.act(key, state.agent, obs, step, carry)

    def policy(
        key: jax.Array, state: Any, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        return agent.policy(key, state.agent, obs, carry)

    def q_values(state: Any, obs: jax.Array, *action: jax.Array) -> jax.Array:
        assert agent.q_values is not None
        return agent.q_values(state.agent, obs, *action)

    return agent._replace(act=act, policy=policy, q_values=agent.q_values and q_values)


class Algorithm(Protocol):
    def __call__(self, config: Any, env: Env, /) -> tuple[Agent, Memory]:
        """(config, env) -> (Agent, Memory); raises ConfigError if the two are incompatible."""


class Wrapper(Protocol):
    def __call__(self, config: Any, env: Env, agent: Agent, /) -> Agent:
        """(config, env, Agent) -> Agent, such as `normalize.observations`."""


class Curriculum(Protocol):
    def __call__(self, params: Any, progress: jax.Array, /) -> Any:
        """(the environment's parameters, progress in [0, 1), traced) -> parameters of the same
        type and shapes for the next rollout, see `curriculum`.
        """


# --- environments ---------------------------------------------------------------------------------


class EnvReset(Protocol):
    def __call__(self, key: jax.Array, num_envs: int, /) -> EnvState:
        """(key, N) -> EnvState at the beginning of N episodes."""


class EnvStep(Protocol):
    def __call__(
        self, keys: jax.Array, state: EnvState, action: jax.Array, /
    ) -> tuple[EnvState, Transition, Metrics]:
        """(keys [N], EnvState, action [N, ...] in the environment's units) -> EnvState, Transition
        [N], and `episodes`, `returns` and `lengths` of the episodes that ended, [N] each.
        """


class RandomAction(Protocol):
    def __call__(self, key: jax.Array, num_envs: int, /) -> jax.Array:
        """(key, N) -> actions [N, ...], uniform, in canonical units."""


class Env(NamedTuple):
    """An environment with its parameters bound, as pure functions over N copies.

    Agents use canonical units: discrete actions are int32 in [0, A), continuous ones float32
    vectors [D] in [-1, 1].
    """

    reset: EnvReset
    step: EnvStep
    to_env: Callable[[jax.Array], jax.Array]  # canonical actions [N, ...] -> environment's units
    random_action: RandomAction
    observation_space: Any  # gymnax space
    num_actions: int | None  # A, where actions are discrete
    action_dim: int | None  # D, where they are continuous
    name: str
    max_steps: Any  # the time limit in steps; None if there is none, a tracer if params are traced
    game: Any = None  # the gymnax environment
    params: Any = None  # its parameters
    binary_observations: bool = False  # it declares that observations consist of 0s and 1s
    legal_actions: Callable[[jax.Array], jax.Array] | None = None  # obs [B, ...] -> bool [B, A];
    # None if it does not declare that actions can be illegal

    def __hash__(self) -> int:  # parameters may be arrays, which are not hashable
        return hash((self.reset, self.step))


# --- memories -------------------------------------------------------------------------------------


class MemoryInit(Protocol):
    def __call__(self, rollout: Transition, /) -> PyTree:
        """Shape structs of a rollout [T, N] -> empty state."""


class MemoryAdd(Protocol):
    def __call__(self, state: Any, step: jax.Array, rollout: Transition, /) -> PyTree:
        """(state, step before the rollout, rollout [T, N]) -> state."""


class MemoryDraw(Protocol):
    def __call__(self, key: jax.Array, state: Any, step: jax.Array, num_updates: int, /) -> PyTree:
        """(key, state, step, G) -> draws, leading axis [G]: what G updates can sample at once."""


class MemorySample(Protocol):
    def __call__(self, state: Any, draw: Any, /) -> Sample:
        """(state, one draw) -> Sample."""


class UpdatePriorities(Protocol):
    def __call__(self, state: Any, sample: Sample, priority: jax.Array, /) -> PyTree:
        """(state, Sample, priority [B]) -> state."""


def no_priorities(state: PyTree, sample: Sample, priority: jax.Array) -> PyTree:
    """`Memory.update_priorities` of a memory without priorities."""
    return state


class Memory(NamedTuple):
    """A replay memory or rollout buffer as pure functions.

    The position of writes and the fill level follow from `step`, the clock, which is the same for
    every seed of a vmapped run and therefore never batched.
    """

    init: MemoryInit
    add: MemoryAdd
    draw: MemoryDraw
    sample: MemorySample
    update_priorities: UpdatePriorities = no_priorities


class StorageRead(Protocol):
    def __call__(self, state: Any, step: jax.Array, index: Index, /) -> Sample:
        """(state, step, Index [...]) -> Sample [...]; weight 0 where a part is overwritten."""


class Storage(NamedTuple):
    """Where a replay memory stores transitions, and how it reads them; see `Memory` on `step`.

    Rows are overwritten in turn: of R rows, those of times step - R .. step - 1 exist.
    """

    init: MemoryInit
    add: MemoryAdd
    read: StorageRead
    capacity: int  # transitions stored, over all parallel environments: R x N
    num_envs: int  # N


# --- parts of agents ------------------------------------------------------------------------------


class MakeOptimizer(Protocol):
    def __call__(self, config: Any, /) -> optax.GradientTransformation:
        """config -> any optax transformation."""


class MakeStorage(Protocol):
    def __call__(self, config: Any, env: Env, /) -> Storage:
        """(config, env) -> Storage."""


class MakeMemory(Protocol):
    def __call__(self, config: Any, storage: Storage, /) -> Memory:
        """(config, Storage) -> Memory."""


class MakeRolloutMemory(Protocol):
    def __call__(self, config: Any, env: Env, /) -> Memory:
        """(config, env) -> Memory of an on-policy algorithm."""


LossOutput = tuple[jax.Array, tuple[jax.Array, Metrics]]
"""Loss (a float32 scalar), (array [B] such as priorities or log-probabilities, scalar metrics)."""


class Loss(Protocol):
    def __call__(self, params: PyTree, inputs: Any, /) -> LossOutput:
        """(parameters, the algorithm's `LossInputs`) -> loss, (priority [B], metrics). Losses of
        actors may return any array in place of priorities.
        """


class SoftActorLoss(Protocol):
    def __call__(self, params: PyTree, inputs: Any, /) -> LossOutput:
        """(parameters, the algorithm's `LossInputs`) -> loss, (log pi(a|s) [B], metrics)."""


class CriticTarget(Protocol):
    def __call__(self, inputs: Any, /) -> jax.Array:
        """The algorithm's `LossInputs`, whose `target` is () -> target y of the critics: [B], or
        [B, K] where their outputs are distributions.
        """


class Penalty(Protocol):
    def __call__(self, params: PyTree, inputs: Any, /) -> tuple[jax.Array, Metrics]:
        """(parameters of the critics, the algorithm's `LossInputs`) -> penalty, metrics."""


class Network(Protocol):
    """A network as functions of its variables, such as a flax module."""

    def init(self, rngs: jax.Array, /, *inputs: Any) -> PyTree:
        """(key, inputs) -> variables, among them `params`."""

    def apply(self, variables: Any, /, *inputs: Any, rngs: Any = None, mutable: Any = False) -> Any:
        """(variables, inputs) -> outputs, or (outputs, new variables) where some are mutable."""


class MakeQNetwork(Protocol):
    def __call__(self, config: Any, space: Any, num_actions: int, num_outputs: int, /) -> Network:
        """(config, observation space, A, K) -> network: features [B, ...] -> outputs [B, A, K]."""


class MakeActor(Protocol):
    def __call__(self, config: Any, space: Any, action_dim: int, /) -> Network:
        """(config, observation space, D) -> network: features [B, ...] -> mean, log std [B, D]; of
        a deterministic actor, the action [B, D]; of a sampler, (features, noise [B, D]) -> [B, D].
        """


class MakeCritics(Protocol):
    def __call__(self, config: Any, space: Any, /) -> Network:
        """(config, observation space) -> network: (features [B, ...], action [B, D]) -> [E, B] or
        [E, B, K]. Every parameter has a leading axis [E], by which gradients are clipped
        separately for each critic.
        """


class MakeValue(Protocol):
    def __call__(self, config: Any, space: Any, /) -> Network:
        """(config, observation space) -> network: features [B, ...] -> V(s) [B, 1]."""


class MakeActorCritic(Protocol):
    def __call__(self, config: Any, space: Any, distribution: ActionDistribution, /) -> Network:
        """(config, observation space, ActionDistribution) -> network: features [B, ...] -> the
        actor's outputs, and V(s) [B].
        """


class RecurrentTorso(Protocol):
    """A module whose features depend on what the running episode has shown so far."""

    def __call__(self, carry: Any, x: jax.Array, start: jax.Array, /) -> tuple[PyTree, jax.Array]:
        """(carry [B, ...], x [T, B, F], start [T, B] bool) -> carries after each step [T, B, ...],
        features [T, B, H]. Where `start`, the carry is set to the initial one before the step.
        """

    def initial_carry(self, batch: int, /) -> PyTree:
        """B -> the carry at the beginning of an episode, leading axis [B]."""


class MakeRecurrentTorso(Protocol):
    def __call__(self, config: Any, /) -> RecurrentTorso:
        """config -> RecurrentTorso."""


class RecurrentNetwork(Network, Protocol):
    """A network whose inputs are carry [B, ...], rows of T x B observations, and start [T, B]; it
    returns carries after each step [T, B, ...] and outputs of T x B rows. Rows are ordered by time.
    """

    def initial_carry(self, batch: int, /) -> PyTree:
        """B -> the carry at the beginning of an episode, leading axis [B]."""


class MakeRecurrentQNetwork(Protocol):
    def __call__(
        self, config: Any, space: Any, num_actions: int, num_outputs: int, /
    ) -> RecurrentNetwork:
        """(config, observation space, A, K) -> network with outputs [T x B, A, K]."""


class MakeRecurrentActor(Protocol):
    def __call__(self, config: Any, space: Any, action_dim: int, /) -> RecurrentNetwork:
        """(config, observation space, D) -> network with outputs mean, log std [T x B, D]."""


class MakeRecurrentCritics(Protocol):
    def __call__(self, config: Any, space: Any, /) -> RecurrentNetwork:
        """(config, observation space) -> network with a fourth input, actions [T x B, D], and
        outputs [E, T x B] or [E, T x B, K]; every parameter has a leading axis [E].
        """


class MakeRecurrentActorCritic(Protocol):
    def __call__(
        self, config: Any, space: Any, distribution: ActionDistribution, /
    ) -> RecurrentNetwork:
        """(config, observation space, ActionDistribution) -> network whose outputs are the actor's
        and V(s) [T x B].
        """


class Objective(Protocol):
    def __call__(
        self, config: Any, log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, /
    ) -> jax.Array:
        """(config, log pi(a|s) [B], log pi_old(a|s) [B], A [B]) -> J_pi of each row, [B]."""


class ValueLoss(Protocol):
    def __call__(
        self, config: Any, value: jax.Array, old_value: jax.Array, target: jax.Array, /
    ) -> jax.Array:
        """(config, V(s) [B], V_old(s) [B], G [B]) -> squared error of each row, [B]; J_V is half
        their weighted mean.
        """


class Schedule(Protocol):
    def __call__(self, config: Any, count: jax.Array, /) -> Any:
        """(config, updates made before) -> the configuration that the loss of this update uses."""


class DrawNoise(Protocol):
    def __call__(
        self, key: jax.Array, shape: tuple[int, ...], carry: Any, /
    ) -> tuple[jax.Array, PyTree]:
        """(key, (N, D), carry [N, ...]) -> noise [N, D], each number N(0, 1), and carry."""


class Noise(NamedTuple):
    """Exploration noise of continuous actions, which may be correlated in time."""

    draw: DrawNoise
    init_carry: InitCarry = no_carry


class MakeNoise(Protocol):
    def __call__(self, config: Any, action_dim: int, /) -> Noise:
        """(config, D) -> Noise."""


class NoiseScale(Protocol):
    def __call__(self, config: Any, step: jax.Array, /) -> Scalar:
        """(config, step of each environment) -> standard deviation of the noise on actions."""


class Target(Protocol):
    def __call__(
        self, reward: jax.Array, discount: jax.Array, gamma: Scalar, next_value: jax.Array, /
    ) -> jax.Array:
        """(reward [B], discount [B], gamma, V(s') [B]) -> target y [B], such as `td_target`."""


class Backup(Protocol):
    def __call__(self, next_return: jax.Array, /) -> jax.Array:
        """Returns from s' on, [B, K] -> returns from s on, [B, K]."""


class NextReturn(NamedTuple):
    """What the loss of a head may use of the return from s' on."""

    outputs: Any  # at s', of theta-
    pi: jax.Array  # [B, A]: the policy that is followed from s' on
    bonus: jax.Array  # [B, A]: added to the returns after each action; [B, 1] or [1, 1] if equal
    key: jax.Array  # for heads that draw a' ~ pi(.|s')


class HeadLoss(Protocol):
    def __call__(
        self, outputs: Any, action: jax.Array, next_return: NextReturn, backup: Backup, /
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """(outputs at s, action [B], NextReturn, Backup) -> loss [B], priority [B], metrics."""


class QHead(NamedTuple):
    """What the outputs of a Q-network mean: [B, A, K], or a pytree of the network's own."""

    num_outputs: int  # K
    expectation: Callable[[Any], jax.Array]  # outputs -> Q(s, .) [B, A]
    loss: HeadLoss


class MakeHead(Protocol):
    def __call__(self, config: Any, /) -> QHead:
        """config -> QHead."""


class NextQ(NamedTuple):
    """What a bootstrap may use of s', [B, A] each."""

    online: jax.Array  # Q(s', .; theta)
    target: jax.Array  # Q(s', .; theta-)
    pi: jax.Array  # the exploring policy, of theta


class Bootstrap(Protocol):
    def __call__(self, config: Any, next_q: NextQ, /) -> tuple[jax.Array, Scalar]:
        """(config, NextQ) -> the policy pi(.|s') [B, A] that is followed from s' on, and the bonus
        that is added to the return after each a' ([B, A]), or after all of them ([B] or a scalar).
        """


class Reward(Protocol):
    def __call__(self, config: Any, batch: Transition, q: jax.Array, /) -> jax.Array:
        """(config, Transition [B], Q(s, .; theta-) [B, A]) -> reward [B]."""


class Record(Protocol):
    def __call__(self, config: Any, q: jax.Array, /) -> PyTree:
        """(config, Q(s, .) [N, A]) -> what is stored with the action, leading axis [N]."""


class Explore(Protocol):
    def __call__(self, config: Any, q: jax.Array, step: jax.Array, /) -> jax.Array:
        """(config, Q(s, .) [N, A], step of each environment) -> pi(.|s) [N, A]."""


class Critique(NamedTuple):
    """What the outputs of an ensemble of critics mean, [E, B] or [E, B, K]."""

    next_return: Callable[[jax.Array, jax.Array], jax.Array]  # (key, Q-(s', a')) -> the returns
    # from s' on, [B, K]; K is 1 unless critics learn distributions
    loss: Callable[[jax.Array, jax.Array], jax.Array]  # (Q(s, a), target [B, K]) -> loss per row,
    # summed over critics, [B]
    value: Callable[[jax.Array], jax.Array]  # Q(s, a) -> the value the actor maximises, [B]


class MakeCritique(Protocol):
    def __call__(self, config: Any, /) -> Critique:
        """config -> Critique."""
