"""The equations, one function each: no networks, no loops, no optimisers.

"Post" is "From Q-learning to Soft Actor Critic"; numbers in brackets are its equations.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def huber(error: jax.Array, delta: jax.Array | float) -> jax.Array:
    """1/2 e^2 where |e| <= delta, linear beyond (Huber 1964); delta = inf is the squared loss."""
    magnitude = jnp.abs(error)
    quadratic = jnp.minimum(magnitude, delta)
    return quadratic * (magnitude - 0.5 * quadratic)


def td_target(
    reward: jax.Array, discount: jax.Array, gamma: jax.Array | float, next_value: jax.Array
) -> jax.Array:
    """y = r + gamma V(s'), and y = r where the episode terminated (post, 1.2.1).

    Args:
        reward, discount, next_value: [B]; discount is 0 at terminations, 1 elsewhere.
    """
    chex.assert_equal_shape([reward, discount, next_value])
    return jax.lax.stop_gradient(reward + gamma * discount * next_value)


def max_bootstrap(q_online: jax.Array, q_target: jax.Array) -> jax.Array:
    """max_a' Q(s', a'; theta-): Q-learning and DQN (Mnih et al. 2015; post, 2.3.3).

    Args:
        q_online, q_target: Q(s', .) by the online and the target network, [B, A].
    """
    chex.assert_equal_shape([q_online, q_target])
    return q_target.max(-1)


def double_bootstrap(q_online: jax.Array, q_target: jax.Array) -> jax.Array:
    """Q(s', argmax_a' Q(s', a'; theta); theta-): Double DQN (van Hasselt 2016; post, 2.8.3).

    Args:
        q_online, q_target: Q(s', .) by the online and the target network, [B, A].
    """
    chex.assert_equal_shape([q_online, q_target])
    return select_action(q_target, q_online.argmax(-1))


def select_action(q: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a): picks action [B] out of q [B, A]."""
    chex.assert_equal_shape_prefix([q, action], action.ndim)
    return jnp.take_along_axis(q, action[..., None], axis=-1).squeeze(-1)


def expected_value(q: jax.Array, pi: jax.Array) -> jax.Array:
    """V(s) = E_pi[Q(s, a)] (post, section 1.1); actions never taken may have any value.

    Args:
        q, pi: [B, A]; pi are probabilities.
    """
    chex.assert_equal_shape([q, pi])
    return jnp.where(pi > 0, pi * q, 0).sum(-1)


def log_sum_exp(q: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = alpha log sum_a exp(Q(s, a) / alpha): the soft maximum (Haarnoja et al. 2017).

    It is E_pi[Q(s, a) - alpha log pi(a|s)] (post, 4.4) for pi = softmax(Q / alpha), and between
    max_a Q(s, a) and max_a Q(s, a) + alpha log A.

    Args:
        q: [B, A]; alpha: the temperature, above 0.
    """
    return alpha * jax.nn.logsumexp(q / alpha, axis=-1)


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = min_i Q_i(s, a) - alpha log pi(a|s) for a ~ pi (post, 4.4 and 4.3.2).

    Args:
        q: [E, B], the ensemble's values of the sampled action; log_prob: [B].
    """
    chex.assert_rank([q, log_prob], [2, 1])
    return q.min(0) - alpha * log_prob


def soft_critic(q: jax.Array, target: jax.Array) -> jax.Array:
    """J_Q(theta_i) = E[1/2 (Q_i(s, a) - y)^2] per sample, summed over critics (post, 4.19).

    Args:
        q: [E, B]; target: [B], the same for every critic.
    """
    chex.assert_rank([q, target], [2, 1])
    return 0.5 * jnp.square(q - target).sum(0)


def soft_actor(q: jax.Array, log_prob: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """J_pi(phi) = E[alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s))] (post, 4.21, 4.23).

    Args:
        q: [E, B], the ensemble's values of the reparameterised action; log_prob: [B].
    """
    return -soft_value(q, log_prob, alpha)


def temperature(
    alpha: jax.Array, log_prob: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """J(alpha) = E[-alpha log pi(a|s) - alpha H] per sample (post, 4.3.2), H the target entropy.

    Minimising it over alpha >= 0 is the dual of maximising the return subject to an entropy of
    at least H: alpha rises while the policy's entropy is below H and falls while it is above.

    Args:
        alpha: scalar; log_prob: [B]; target_entropy: scalar, in nats.
    """
    chex.assert_rank(log_prob, 1)
    return -alpha * jax.lax.stop_gradient(log_prob + target_entropy)
