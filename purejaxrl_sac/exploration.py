"""Exploration with discrete actions: policies pi(a|s) from Q(s, .), and sampling from them.

A value of -inf marks an action that does not exist: no policy takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac.types import Env


def linear_schedule(
    start: jax.Array | float, end: jax.Array | float, fraction: jax.Array | float
) -> jax.Array:
    """Linear interpolation from `start` to `end`, clipped at both ends."""
    return start + (end - start) * jnp.clip(fraction, 0, 1)


def annealed_epsilon(config: Any, step: jax.Array) -> jax.Array:
    """Epsilon at `step` of each environment: linear decay over epsilon_fraction of total_steps."""
    decay_steps = config.epsilon_fraction * (config.total_steps / config.num_envs)
    progress = step.astype(jnp.float32) / jnp.maximum(decay_steps, 1)
    return linear_schedule(config.epsilon_start, config.epsilon_end, progress)


def sample(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """An action for each environment, drawn independently.

    Args:
        probabilities: [N, A], up to a factor.

    Returns:
        actions, [N] int32; never one whose probability is 0.
    """
    return inverse_cdf(
        probabilities, jax.random.uniform(key, probabilities.shape[:-1], probabilities.dtype)
    )


def sample_temporally_extended(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """As `sample`, but with a repeated key the random actions of `epsilon_greedy` are repeated.

    pi is a mixture of the uniform policy, of weight A min_a pi(a|s), and the rest. One random
    number selects the component and another one the action. For `epsilon_greedy`, the weight is
    epsilon and the rest is greedy: while a key is repeated, either one random action is repeated,
    or every action is greedy. With fixed durations, this is temporally extended epsilon-greedy
    (Dabney et al. 2021, arXiv 2006.01782, where durations are random).
    """
    possible = probabilities > 0
    least = jnp.where(possible, probabilities, jnp.inf).min(-1, keepdims=True)
    rest = jnp.where(possible, probabilities - least, 0)
    u, v = jax.random.uniform(key, (2, *probabilities.shape[:-1]), probabilities.dtype)
    weight = jnp.where(possible, least, 0).sum(-1)
    uniform = u * (weight + rest.sum(-1)) < weight
    return inverse_cdf(jnp.where(uniform[..., None], possible.astype(rest.dtype), rest), v)


def inverse_cdf(probabilities: jax.Array, u: jax.Array) -> jax.Array:
    """The first action of positive probability whose cumulative probability exceeds u.

    Rounded cumulative sums may differ between two actions of which the second has probability 0;
    the larger of them is therefore not sufficient.

    Args:
        probabilities: [N, A], up to a factor.
        u: [N], in [0, 1).

    Returns:
        actions, [N] int32.
    """
    possible = probabilities > 0
    cumulative = jnp.where(possible, probabilities.cumsum(-1), 0)
    reached = cumulative > (u * cumulative.max(-1))[..., None]
    return reached.argmax(-1).astype(jnp.int32)


def sampler(config: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`sample`, or `sample_temporally_extended` where noise_repeat repeats keys."""
    return sample if config.noise_repeat == 1 else sample_temporally_extended


def legal_values(env: Env, obs: jax.Array, values: jax.Array) -> jax.Array:
    """Values or logits [B, A], -inf where the action is illegal; obs are the environment's."""
    if env.legal_actions is None:
        return values
    return jnp.where(env.legal_actions(obs), values, -jnp.inf)


def number_of_legal_actions(env: Env, obs: jax.Array, num_actions: int) -> jax.Array | float:
    """The number of legal actions in each state, [B], or `num_actions` where all are legal."""
    if env.legal_actions is None:
        return float(num_actions)
    return env.legal_actions(obs).sum(-1).astype(jnp.float32)


def random_action(env: Env, key: jax.Array, obs: jax.Array) -> jax.Array:
    """Uniformly random actions, of the legal ones if they are discrete; [N, ...] to [N, ...]."""
    if env.legal_actions is None:
        return env.random_action(key, len(obs))
    return sample(key, env.legal_actions(obs).astype(jnp.float32))


def greedy(q: jax.Array) -> jax.Array:
    """All probability on argmax_a Q(s, a), split evenly between ties; [..., A] to [..., A]."""
    # none is best if a compiler rounds q differently in the comparison, see `networks.Dueling`
    best = (q == q.max(-1, keepdims=True)).astype(q.dtype)
    return best / best.sum(-1, keepdims=True)


def epsilon_greedy(q: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """A random action with probability epsilon, else argmax_a Q(s, a) (post, section 1.4).

    Args:
        q: [..., A].

    Returns:
        probabilities, [..., A].
    """
    legal = (q > -jnp.inf).astype(q.dtype)
    return epsilon * legal / legal.sum(-1, keepdims=True) + (1 - epsilon) * greedy(q)


def boltzmann(q: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """pi(a|s) = exp(Q(s, a) / alpha) / Z(s): the energy-based policy (post, section 4.1.1).

    Args:
        q: [..., A].
        alpha: the temperature.

    Returns:
        probabilities, [..., A].
    """
    return jax.nn.softmax(q / alpha, axis=-1)


def upper_confidence(q: jax.Array, visits: jax.Array, bonus: jax.Array | float) -> jax.Array:
    """Greedy in Q(s, a) + c sqrt(ln N(s) / N(s, a)): UCB1 (Auer et al. 2002).

    Untried actions come first.

    Args:
        q, visits: [..., A].
        bonus: c; sqrt(2) in UCB1, for returns in [0, 1].

    Returns:
        probabilities, [..., A].
    """
    total = visits.sum(-1, keepdims=True)
    width = jnp.sqrt(jnp.log(jnp.maximum(total, 1)) / jnp.maximum(visits, 1))
    optimistic = jnp.where(visits == 0, jnp.inf, q + bonus * width)
    return greedy(jnp.where(q > -jnp.inf, optimistic, -jnp.inf))
