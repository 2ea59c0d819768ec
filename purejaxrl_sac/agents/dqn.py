"""DQN and the parts of its family (post, section 2).

The Q-network is regressed on bootstrapped returns over a replay memory D (post, 2.6),

    L(theta) = E_D [ w l(Q(s, a; theta), y) ],    y = r + gamma d V(s'; theta, theta-),

theta- being a delayed copy of theta, and d 0 if s' is terminal, else 1. A bootstrap returns the
policy pi that is followed from s' on, and a bonus that is added to the return after each a':

    V(s') = sum_a' pi(a'|s') (Q(s', a'; theta-) + bonus(a'))

DQN (Mnih et al. 2015) follows the greedy policy of theta-, Double DQN (van Hasselt et al. 2016)
that of theta, so that theta- evaluates what theta selects. Where Q is a distribution, so is V: the
mixture over a' ~ pi(.|s'). Every part is a function, and every algorithm of the family is a
composition of such parts:

    rainbow = partial(dqn, network=..., head=heads.categorical, bootstrap=double, ...)

See `types` for the contracts of all parts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac import exploration, heads, losses
from purejaxrl_sac.agents.common import (
    EpsilonGreedy,
    Huber,
    QLayers,
    number_of_actions,
    value_network,
)
from purejaxrl_sac.agents.off_policy import (
    NStep,
    Prioritized,
    ReplayConfig,
    Targets,
    backup_of,
    n_step_storage,
    prioritized_replay,
    replay_storage,
    soft_n_step_storage,
    uniform_replay,
)
from purejaxrl_sac.config import Config, ConfigError, static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.networks import Dueling, NoisyDense, draw_noise, features, q_network
from purejaxrl_sac.optimize import (
    Learned,
    decaying_adam,
    gradient_step,
    joined,
    penalized,
    start,
    update_target,
)
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Backup,
    Bootstrap,
    Env,
    Explore,
    Loss,
    LossOutput,
    MakeHead,
    MakeMemory,
    MakeOptimizer,
    MakeQNetwork,
    MakeStorage,
    Memory,
    Metrics,
    Network,
    NextQ,
    NextReturn,
    Penalty,
    PyTree,
    QHead,
    Record,
    Reward,
    Sample,
    Scalar,
    Target,
    Transition,
    memoryless,
)


class DQNState(NamedTuple):
    params: PyTree  # theta
    target_params: PyTree  # theta-
    opt_state: PyTree


class Outputs(Protocol):
    def __call__(self, params: PyTree, obs: jax.Array, /, **keys: jax.Array) -> Any:
        """(theta, obs [B, ...], keys of `noise`, and of `tau` at s or `tau_target` at s') ->
        outputs [B, A, K], or a pytree.
        """


class Keys(NamedTuple):
    """A PRNG key for each use of randomness in an update."""

    loss: jax.Array
    online: jax.Array
    target: jax.Array
    tau: jax.Array
    tau_target: jax.Array
    next_action: jax.Array


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: Any
    outputs: Outputs
    head: QHead  # what the outputs mean
    batch: Transition  # [B]
    weight: jax.Array  # [B], or a scalar
    next_return: NextReturn
    backup: Backup
    keys: Keys
    legal: Callable[[jax.Array, jax.Array], jax.Array]  # (obs, Q(s, .)) -> -inf where illegal


def q_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """L(theta) = E_D[w l(Q(s, a; theta), y)] (post, 2.6), l being the head's."""
    head, batch, weight, keys = inputs.head, inputs.batch, inputs.weight, inputs.keys
    predicted = inputs.outputs(params, batch.obs, noise=keys.loss, tau=keys.tau)
    backup, next_return = inputs.backup, inputs.next_return
    row_loss, priority, metrics = head.loss(predicted, batch.action, next_return, backup)
    q = losses.select_action(head.expectation(predicted), batch.action).mean()
    loss = (weight * row_loss).mean()
    return loss, (priority, joined({"loss": loss, "q": q}, metrics))


def broadcast_bonus(bonus: Scalar, pi: jax.Array) -> jax.Array:
    """The bonus of a `Bootstrap` as [B, A], [B, 1] or [1, 1]."""
    return jnp.reshape(bonus, (-1, pi.shape[-1] if jnp.ndim(bonus) == 2 else 1))


def learn(
    config: QConfig,
    optimize: optax.GradientTransformation,
    loss: Loss,
    state: DQNState,
    inputs: LossInputs,
    count: jax.Array,
) -> tuple[DQNState, jax.Array, Metrics]:
    """A gradient step of theta, and the update of theta- where it is due."""
    learned = Learned(state.params, state.opt_state)
    (params, opt_state), _, (priority, metrics) = gradient_step(optimize, learned, loss, inputs)
    target_params = update_target(
        params, state.target_params, config.tau, config.target_period, count
    )
    return DQNState(params, target_params, opt_state), priority, metrics


def maximum(config: Config, next_q: NextQ) -> tuple[jax.Array, Scalar]:
    """V(s') = max_a' Q(s', a'; theta-): Q-learning and DQN (post, 2.3.3)."""
    return exploration.greedy(next_q.target), 0.0


def double(config: Config, next_q: NextQ) -> tuple[jax.Array, Scalar]:
    """V(s') = Q(s', argmax_a' Q(s', a'; theta); theta-): Double DQN (post, 2.8.3)."""
    return exploration.greedy(next_q.online), 0.0


def expected(config: Config, next_q: NextQ) -> tuple[jax.Array, Scalar]:
    """V(s') = E_pi[Q(s', a'; theta-)], pi the exploring policy: Expected SARSA."""
    return next_q.pi, 0.0


def soft(config: Soft, next_q: NextQ) -> tuple[jax.Array, Scalar]:
    """V(s') = alpha log sum_a' exp(Q(s', a'; theta-) / alpha): soft Q-learning (post, 4.1.1).

    As E_pi[Q(s', a') - alpha log pi(a'|s')] for pi = softmax(Q / alpha). Returns of n steps need
    the entropies in between, too: `soft_n_step_storage` with `record=policy_entropy` and
    `reward=soft_n_step_reward`.
    """
    log_pi = jax.nn.log_softmax(next_q.target / config.alpha)
    return jnp.exp(log_pi), config.alpha * losses.surprise(log_pi)


def plain_reward(config: Config, batch: Transition, q: jax.Array) -> jax.Array:
    """r, the reward of the environment."""
    return batch.reward


def munchausen_reward(config: Munchausen, batch: Transition, q: jax.Array) -> jax.Array:
    """r + m [alpha log pi(a|s)], clipped: Munchausen RL (Vieillard et al. 2020, equation 2).

    For n-step transitions, only the term of the first action is added.
    """
    log_policy = losses.munchausen(q, batch.action, config.alpha, config.munchausen_min)
    return batch.reward + config.munchausen * log_policy


def soft_n_step_reward(config: Soft, batch: Transition, q: jax.Array) -> jax.Array:
    """r + alpha H, H the entropies of the steps between s and s', for `soft_n_step_storage`."""
    return batch.reward + config.alpha * batch.extras


def nothing(config: Config, q: jax.Array) -> tuple[()]:
    """Nothing is stored with an action."""
    return ()


def policy_entropy(config: Soft, q: jax.Array) -> jax.Array:
    """H(pi(.|s)) [N] of pi = softmax(Q / alpha), for `soft_n_step_storage`."""
    return losses.entropy(exploration.boltzmann(q, config.alpha))


def epsilon_greedy(config: EpsilonGreedy, q: jax.Array, step: jax.Array) -> jax.Array:
    """A random action with probability epsilon, which decays with the clock (post, section 1.4)."""
    return exploration.epsilon_greedy(q, exploration.annealed_epsilon(config, step))


def boltzmann(config: Soft, q: jax.Array, step: jax.Array) -> jax.Array:
    """softmax(Q / alpha) (post, section 4.1.1)."""
    return exploration.boltzmann(q, config.alpha)


def greedy(config: Config, q: jax.Array, step: jax.Array) -> jax.Array:
    """argmax_a Q(s, a): for networks with noisy layers."""
    return exploration.greedy(q)


def check_rescaled(target: Target, bootstrap: Bootstrap) -> None:
    """Raises ConfigError for `rescaled_td_target` of a mean over actions, which it distorts."""
    mean = inspect.unwrap(bootstrap)
    if inspect.unwrap(target) is losses.rescaled_td_target and mean in (expected, soft):
        raise ConfigError(
            f"the part target, rescaled_td_target, needs the value of one action, but bootstrap,"
            f" {mean.__name__}, takes a mean: use maximum or double"
        )


@checks_parts
def dqn(
    config: QConfig,
    env: Env,
    *,
    network: MakeQNetwork = q_network,
    head: MakeHead = heads.scalar,
    bootstrap: Bootstrap = maximum,
    reward: Reward = plain_reward,
    target: Target = losses.td_target,
    explore: Explore = epsilon_greedy,
    record: Record = nothing,
    loss: Loss = q_loss,
    penalty: Penalty | None = None,
    optimizer: MakeOptimizer = decaying_adam,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """Deep Q-learning with experience replay and a target network, composed of the parts above.

    Raises:
        ConfigError: the environment's actions are continuous, a part does not return what its
            contract says, or `rescaled_td_target` is used with a mean over actions.
    """
    check_rescaled(target, bootstrap)
    num_actions = number_of_actions("DQN", env)
    q_head = head(config)
    model = value_network(config, env, num_actions, q_head.num_outputs, network)
    encode, optimize = features(env.observation_space), optimizer(config)
    sample_action = exploration.sampler(config)
    legal = partial(exploration.legal_values, env)

    def init(key: jax.Array, obs: jax.Array) -> DQNState:
        params = model.init(key, encode(obs))
        copy = jax.tree.map(jnp.copy, params)
        return DQNState(params, copy, start(optimize, params).opt_state)

    def outputs(params: PyTree, obs: jax.Array, /, **keys: jax.Array) -> Any:
        noise = draw_noise(keys["noise"], params) if "noise" in keys else {}
        return model.apply({**params, **noise}, encode(obs), rngs=keys)

    def expectation(params: PyTree, obs: jax.Array, **keys: jax.Array) -> jax.Array:
        q = q_head.expectation(outputs(params, obs, **keys))
        return legal(obs, q)

    def q_values(state: DQNState, obs: jax.Array) -> jax.Array:
        return expectation(state.params, obs)

    def act(
        key: jax.Array, state: DQNState, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        key_action, key_noise = jax.random.split(key)

        def noisy(key: jax.Array, obs: jax.Array) -> jax.Array:
            return expectation(state.params, obs[None], noise=key).squeeze(0)

        # each environment has its own noise sample
        q = jax.vmap(noisy)(jax.random.split(key_noise, obs.shape[0]), obs)
        return sample_action(key_action, explore(config, q, step)), record(config, q)

    def policy(key: jax.Array, state: DQNState, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype(jnp.int32)

    def update(
        key: jax.Array, state: DQNState, sample: Sample, count: jax.Array
    ) -> tuple[DQNState, jax.Array, Metrics]:
        batch, keys = sample.transition, Keys(*jax.random.split(key, len(Keys._fields)))
        # XLA computes equal outputs once, and drops those that the parts do not use
        q = expectation(state.params, batch.next_obs, noise=keys.online)
        next_q = NextQ(
            online=q,
            target=expectation(state.target_params, batch.next_obs, noise=keys.target),
            pi=explore(config, q, config.step_at(count)),
        )
        pi, bonus = bootstrap(config, next_q)
        next_outputs = outputs(
            state.target_params, batch.next_obs, noise=keys.target, tau_target=keys.tau_target
        )
        next_return = NextReturn(next_outputs, pi, broadcast_bonus(bonus, pi), keys.next_action)
        r = reward(config, batch, expectation(state.target_params, batch.obs))
        backup = backup_of(config, target, batch, r)
        inputs = LossInputs(
            config, outputs, q_head, batch, sample.weight, next_return, backup, keys, legal
        )
        return learn(config, optimize, penalized(loss, penalty), state, inputs, count)

    agent = memoryless(init, act, policy, update, q_values)
    return agent, memory(config, storage(config, env))


def noisy_network(
    config: Noisy, space: Any, num_actions: int, num_outputs: int, **kinds: Any
) -> Network:
    """A Q-network of noisy layers; use it with `greedy` exploration."""
    dense = partial(NoisyDense, sigma=config.sigma)
    return q_network(config, space, num_actions, num_outputs, dense=dense, **kinds)


dueling_network = partial(q_network, stream=Dueling)
double_dqn = partial(dqn, bootstrap=double)
dueling_dqn = partial(dqn, network=dueling_network)
noisy_dqn = partial(dqn, network=noisy_network, explore=greedy)
n_step_dqn = partial(dqn, storage=n_step_storage)
per_dqn = partial(dqn, memory=prioritized_replay)
expected_dqn = partial(dqn, bootstrap=expected)
soft_dqn = partial(dqn, bootstrap=soft, explore=boltzmann)
munchausen_dqn = partial(dqn, bootstrap=soft, reward=munchausen_reward)
n_step_soft_dqn = partial(
    soft_dqn, record=policy_entropy, storage=soft_n_step_storage, reward=soft_n_step_reward
)


class QConfig(ReplayConfig, QLayers, Targets):
    """Fields of the whole family; a part that needs more fields has its own class for them."""

    tau: float = 1.0
    """Step of the target parameters towards the learned ones at each target update; 1 copies."""
    target_period: int = 100
    """Gradient updates between two target updates."""


class Soft(QConfig):
    """Fields of `soft` and `boltzmann`."""

    alpha: float = traced(0.03, above=0)
    """Temperature."""


class Munchausen(Soft):
    """Fields of `munchausen_reward`."""

    munchausen: float = traced(0.9, between=(0, 1))
    """Fraction of alpha log pi(a|s) that is added to the reward."""
    munchausen_min: float = traced(-1.0, at_most=0)
    """Lower bound of alpha log pi(a|s)."""


class Noisy(QConfig):
    """Fields of `noisy_network`."""

    sigma: float = static(0.5, at_least=0)
    """Initial noise of a layer's parameters, before division by the square root of its inputs."""


class DQNConfig(QConfig, Huber, EpsilonGreedy):
    """Configuration of DQN, Double DQN, dueling DQN and DQN with the target of Expected SARSA."""

    algorithm: Algorithm = static(dqn)


class NoisyDQNConfig(Noisy, Huber):
    """Configuration of DQN with a noisy network."""

    algorithm: Algorithm = static(noisy_dqn)


class NStepDQNConfig(DQNConfig, NStep):
    """Configuration of n-step DQN."""

    algorithm: Algorithm = static(n_step_dqn)


class PrioritizedDQNConfig(DQNConfig, Prioritized):
    """Configuration of DQN with prioritised replay."""

    algorithm: Algorithm = static(per_dqn)


class SoftDQNConfig(Soft, Huber):
    """Configuration of soft DQN, which explores by its own soft policy."""

    algorithm: Algorithm = static(soft_dqn)


class MunchausenDQNConfig(Munchausen, DQNConfig):
    """Configuration of Munchausen DQN."""

    algorithm: Algorithm = static(munchausen_dqn)
