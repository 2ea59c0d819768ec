"""Tabular learning: Q-learning and its relatives (post, section 1).

All of them move Q(s, a) towards a target with learning rate beta (alpha in the post, which uses
alpha for the temperature from section 4 on),

    Q(s, a) <- Q(s, a) + beta [ r + gamma d V(s') - Q(s, a) ]                   (post, 1.2.2)

d being 0 where s' is terminal, else 1. They differ only in V:

    Q-learning             max_a' Q(s', a')                              (Watkins 1989)
    Double Q-learning      Q_B(s', argmax_a' Q_A(s', a'))                (van Hasselt 2010)
    SARSA                  Q(s', a'), a' the action taken next           (Rummery & Niranjan 1994)
    Expected SARSA         E_pi[Q(s', a')], pi the exploring policy      (van Seijen et al. 2009)
    soft Q-learning        alpha log sum_a' exp(Q(s', a') / alpha)       (Haarnoja et al. 2017)

The rate is beta(s, a) = learning_rate / n(s, a)^omega, n being the visits to (s, a): constant
for omega = 0, and Robbins and Monro's (post, section 1.5) for 1/2 < omega <= 1.

Where k transitions of an iteration update the same cell, it moves 1 - (1 - beta)^k of the way to
their mean target: the weight that k sequential updates would give them, exactly where beta is
constant, approximately where it decays (beta is then that of the middle of the k visits). All
transitions count, in any order, and updates of many parallel environments do not overshoot.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration, losses
from purejaxrl_sac.agents.common import EpsilonGreedy, check_independent_noise
from purejaxrl_sac.config import ConfigError, static, traced, unknown
from purejaxrl_sac.mdp import check_discount
from purejaxrl_sac.memory import latest, latest_with_next_action
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import (
    Agent,
    Env,
    Memory,
    Metrics,
    PyTree,
    Sample,
    Transition,
    memoryless,
)


class QTable(NamedTuple):
    q: jax.Array  # [K, S, A]: K independent estimates; -inf where an action does not exist
    visits: jax.Array  # [K, S, A] int32: number of updates of each cell


class NextTableQ(NamedTuple):
    """What a bootstrap may use of s'; B stands for [T, N]."""

    q: jax.Array  # [B, A] Q(s', .) of the table being updated
    other: jax.Array  # [B, A] Q(s', .) of the other table; the same one where there is one
    pi: jax.Array  # [B, A] the exploring policy at s'


class TableBootstrap(Protocol):
    def __call__(self, config: Any, next_q: NextTableQ, batch: Transition, /) -> jax.Array:
        """(config, NextTableQ, Transition [T, N]) -> V(s') [T, N]."""


class TableTargets(Protocol):
    def __call__(
        self, config: Any, batch: Transition, next_value: jax.Array, q: jax.Array, /
    ) -> jax.Array:
        """(config, Transition, V(s') [T, N], Q(s, .) [T, N, A]) -> targets [T, N]."""


class TableExplore(Protocol):
    def __call__(
        self, config: Any, q: jax.Array, visits: jax.Array, step: jax.Array, /
    ) -> jax.Array:
        """(config, Q(s, .) [B, A], visits [B, A], step) -> pi(.|s) [B, A]."""


EXPLORE: dict[str, TableExplore] = {
    "epsilon_greedy": lambda config, q, visits, step: exploration.epsilon_greedy(
        q, exploration.annealed_epsilon(config, step)
    ),
    "boltzmann": lambda config, q, visits, step: exploration.boltzmann(q, config.alpha),
    "ucb": lambda config, q, visits, step: exploration.upper_confidence(q, visits, config.bonus),
    "greedy": lambda config, q, visits, step: exploration.greedy(q),
}


def one_step(
    config: TabularConfig, batch: Transition, next_value: jax.Array, q: jax.Array
) -> jax.Array:
    """r + gamma d V(s')."""
    return losses.td_target(batch.reward, batch.discount, config.gamma, next_value)


def watkins(
    config: QLambdaConfig, batch: Transition, next_value: jax.Array, q: jax.Array
) -> jax.Array:
    """Watkins's Q(lambda): lambda-returns that end where an action was not greedy.

    Args:
        q: [T, N, A] Q(s, .) when the update begins.
    """
    greedy = losses.select_action(q, batch.action) == q.max(-1)
    continued = jnp.roll(greedy, -1, axis=0) & ~batch.last
    trace = config.trace_decay * continued.astype(jnp.float32)
    return lambda_returns(batch.reward, batch.discount, next_value, trace, config.gamma)


def tabular(
    config: TabularConfig,
    env: Env,
    bootstrap: TableBootstrap,
    *,
    tables: int = 1,
    targets: TableTargets = one_step,
    memory: Memory | None = None,
    explore: TableExplore | None = None,
) -> tuple[Agent, Memory]:
    """Temporal-difference learning of a table.

    Args:
        tables: K; if more than one, each transition updates a random one of them.
        memory: what updates learn from; `latest()` if not given.
        explore: None for the one in `EXPLORE` that the configuration names.

    Raises:
        ConfigError: observations are not a finite number of states, actions are continuous, the
            exploration has an unknown name, or gamma is 1 where episodes need not end.
    """
    num_states = getattr(env.observation_space, "n", None)
    if num_states is None or env.num_actions is None:
        kind = "observations" if num_states is None else "actions"
        raise ConfigError(
            f"a table needs finitely many states and actions, but {env.name} has continuous {kind}:"
            " use dqn or sac, or an environment such as frozen_lake"
        )
    from purejaxrl_sac.envs.frames import existing_actions  # imports gymnax

    mdp = getattr(env.game, "mdp", None)
    if config.env_params is None and mdp is not None:
        check_discount(mdp, config.gamma)
    legal = existing_actions(env, num_states)
    if explore is None:
        if config.exploration not in EXPLORE:
            raise unknown("exploration", config.exploration, EXPLORE)
        explore = EXPLORE[config.exploration]

    sample_action = exploration.sampler(config)

    def init(key: jax.Array, obs: jax.Array) -> QTable:
        shape = (tables, num_states, env.num_actions)
        q = jnp.where(legal, jnp.full(shape, config.initial_value, jnp.float32), -jnp.inf)
        return QTable(q, jnp.zeros(shape, jnp.int32))

    def q_values(state: QTable, obs: jax.Array) -> jax.Array:
        return state.q[:, obs].mean(0)

    def exploring(state: QTable, obs: jax.Array, step: jax.Array) -> jax.Array:
        return explore(config, q_values(state, obs), state.visits[:, obs].sum(0), step)

    def act(
        key: jax.Array, state: QTable, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        return sample_action(key, exploring(state, obs, step)), ()

    def policy(key: jax.Array, state: QTable, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype(jnp.int32)

    def update(
        key: jax.Array, state: QTable, sample: Sample, count: jax.Array
    ) -> tuple[QTable, jax.Array, Metrics]:
        batch = sample.transition
        table = jax.random.randint(key, batch.reward.shape, 0, tables) if tables > 1 else 0
        other = (table + 1) % tables
        pi = exploring(state, batch.next_obs, config.step_at(count))
        next_q = NextTableQ(state.q[table, batch.next_obs], state.q[other, batch.next_obs], pi)
        q = state.q[table, batch.obs]
        target = targets(config, batch, bootstrap(config, next_q, batch), q)
        taken = losses.select_action(q, batch.action)
        counted = (sample.weight > 0) & (taken > -jnp.inf)  # the warm-up takes illegal actions, too
        td_error = jnp.where(counted, target - taken, 0)

        cell = (table, batch.obs, batch.action)
        visits = state.visits.at[cell].add(counted.astype(jnp.int32))
        of_cell = visits[cell]
        n = jnp.maximum(of_cell, 1).astype(jnp.float32)
        # with a single transition, k is 1: to count it would cost a copy of the table
        new = of_cell - state.visits[cell]  # before rounding
        k = jnp.maximum(new, 1).astype(jnp.float32) if td_error.size > 1 else 1
        beta = config.learning_rate * (n - (k - 1) / 2) ** -config.omega
        share = -jnp.expm1(k * jnp.log1p(-beta)) / k  # the weight of each of the k
        q_table = state.q.at[cell].add(sample.weight * share * td_error)
        metrics = {"td_error": jnp.abs(td_error).mean(), "q": jnp.where(counted, taken, 0).mean()}
        return QTable(q_table, visits), jnp.abs(td_error), metrics

    return memoryless(init, act, policy, update, q_values), memory or latest()


def _sarsa(config: TabularConfig, next_q: NextTableQ, batch: Transition) -> jax.Array:
    # after a time limit no action was taken in s': the expectation is used instead
    expected = losses.expected_value(next_q.q, next_q.pi)
    return jnp.where(batch.last, expected, losses.select_action(next_q.q, batch.extras))


def sarsa(config: TabularConfig, env: Env) -> tuple[Agent, Memory]:
    """SARSA: updates are delayed by one step, until a' is known.

    Raises:
        ConfigError: as for `tabular`, or noise_repeat is not 1.
    """
    check_independent_noise("SARSA", config)
    return tabular(config, env, _sarsa, memory=latest_with_next_action())


def _maximum(config: TabularConfig, next_q: NextTableQ, batch: Transition) -> jax.Array:
    return next_q.q.max(-1)


def _double(config: TabularConfig, next_q: NextTableQ, batch: Transition) -> jax.Array:
    return losses.select_action(next_q.other, next_q.q.argmax(-1))


def _expected(config: TabularConfig, next_q: NextTableQ, batch: Transition) -> jax.Array:
    return losses.expected_value(next_q.q, next_q.pi)


def _soft(config: TabularConfig, next_q: NextTableQ, batch: Transition) -> jax.Array:
    return losses.log_sum_exp(next_q.q, config.alpha)


q_learning = partial(tabular, bootstrap=_maximum)
double_q_learning = partial(tabular, bootstrap=_double, tables=2)
expected_sarsa = partial(tabular, bootstrap=_expected)
soft_q_learning = partial(tabular, bootstrap=_soft)
q_lambda = partial(q_learning, targets=watkins)


class TabularConfig(EpsilonGreedy):
    """Configuration of tabular learning."""

    env: Any = static("FrozenLake-misc")
    """Environment with Discrete observations: a name, or any gymnax `Environment` object."""
    exploration: str = static("epsilon_greedy")
    """How to explore: epsilon_greedy, boltzmann (softmax(Q / alpha)), ucb or greedy."""
    learning_rate: float = traced(0.1, between=(0, 1))
    """Learning rate beta of a cell's first update."""
    omega: float = traced(0.0, at_least=0)
    """The learning rate decays as 1 / visits^omega: 0 is constant, Robbins-Monro is in (0.5, 1]."""
    gamma: float = traced(0.99, between=(0, 1))
    """Discount factor."""
    initial_value: float = traced(0.0, kind=float)
    """Initial Q(s, a); above the attainable returns it makes the agent try every action."""
    alpha: float = traced(0.1, above=0)
    """Temperature, of Boltzmann exploration and of soft Q-learning."""
    bonus: float = traced(1.0, at_least=0)
    """c, the width of the confidence bounds of ucb exploration; sqrt(2) in UCB1."""

    def check(self) -> None:
        super().check()
        if (visits := self.total_steps * self.num_updates) >= 2**31:
            raise ConfigError(
                f"a table may be updated {visits} times, but must count fewer than 2**31: lower"
                " total_steps or num_updates"
            )


class SoftQLearningConfig(TabularConfig):
    """Configuration of tabular soft Q-learning, which explores by its own soft policy."""

    exploration: str = static("boltzmann")
    """How to explore: epsilon_greedy, boltzmann (softmax(Q / alpha)), ucb or greedy."""
    alpha: float = 0.01
    """Temperature: the entropy bonus is up to alpha log A per step, and accumulates."""


class QLambdaConfig(TabularConfig):
    """Configuration of Watkins's Q(lambda), whose traces end at the end of a rollout."""

    rollout_length: int = static(16)
    """Steps each environment takes between learning phases: how far a trace reaches."""
    trace_decay: float = traced(0.8, between=(0, 1))
    """lambda: weight of the return over the next value; 0 is Q-learning."""
