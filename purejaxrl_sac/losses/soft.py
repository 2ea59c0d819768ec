"""Maximum entropy reinforcement learning: soft values and the losses of SAC (post, section 4)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.losses.td import expected_value, least_value, select_action


def log_sum_exp(q: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = alpha log sum_a exp(Q(s, a) / alpha): the soft maximum (Haarnoja et al. 2017).

    It is E_pi[Q(s, a) - alpha log pi(a|s)] (post, 4.4) for pi = softmax(Q / alpha), and between
    max_a Q(s, a) and max_a Q(s, a) + alpha log A.

    Args:
        q: [B, A]; alpha: the temperature, above 0.
    """
    return alpha * jax.nn.logsumexp(q / alpha, axis=-1)


def importance_soft_value(
    q: jax.Array, log_density: jax.Array | float, alpha: jax.Array | float
) -> jax.Array:
    """V(s) = alpha log E_{a ~ q'}[ exp(Q(s, a) / alpha) / q'(a) ] (Haarnoja et al. 2017, eq. 10).

    Args:
        q: [B, K], of K actions drawn from a proposal q'.
        log_density: log q'(a), [B, K] or one for all.
        alpha: the temperature, above 0.
    """
    chex.assert_rank(q, 2)
    return alpha * (jax.nn.logsumexp(q / alpha - log_density, axis=-1) - jnp.log(q.shape[-1]))


def munchausen(
    q: jax.Array, action: jax.Array, alpha: jax.Array | float, least: jax.Array | float
) -> jax.Array:
    """alpha log pi(a|s) clipped to [least, 0], pi = softmax(Q / alpha) (Vieillard et al. 2020).

    Munchausen DQN adds a fraction of it to the reward (arXiv 2007.14430, equation 2).

    Args:
        q: [B, A]; action: [B]; alpha: the temperature; least: the lower bound, at most 0.
    """
    log_pi = jax.nn.log_softmax(q / alpha, axis=-1)
    return jnp.clip(alpha * select_action(log_pi, action), least, 0)


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = min_i Q_i(s, a) - alpha log pi(a|s) for a ~ pi (post, 4.4 and section 4.3.2).

    Args:
        q: [E, B], the ensemble's values of the sampled action; log_prob: [B].
    """
    chex.assert_rank([q, log_prob], [2, 1])
    return least_value(q) - alpha * log_prob


def discrete_soft_value(q: jax.Array, log_pi: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s)), exactly (post, 4.4).

    Args:
        q, log_pi: [B, A]; actions with log_pi = -inf contribute nothing.
    """
    chex.assert_rank([q, log_pi], 2)
    pi = jnp.exp(log_pi)
    return expected_value(q, pi) + alpha * (pi * surprise(log_pi)).sum(-1)


def surprise(log_pi: jax.Array) -> jax.Array:
    """-log pi(a|s), and 0 where pi(a|s) = 0: neither pi times it nor its gradient is nan there."""
    return jnp.where(log_pi > -jnp.inf, -log_pi, 0.0)


def soft_critic(q: jax.Array, target: jax.Array) -> jax.Array:
    """J_Q(theta_i) = E[1/2 (Q_i(s, a) - y)^2] per sample, summed over critics (post, 4.19).

    The target of the post's section 4.3.2 has the minimum of the target critics.

    Args:
        q: [E, B]; target: [B], the same for every critic.
    """
    chex.assert_rank([q, target], [2, 1])
    return 0.5 * jnp.square(q - target).sum(0)


def soft_actor(q: jax.Array, log_prob: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """J_pi(phi) = E[alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s))] (post, 4.21, 4.23).

    The minimum is that of the post's section 4.3.1; its equations have one critic.

    Args:
        q: [E, B], the ensemble's values of the reparameterised action; log_prob: [B].
    """
    return -soft_value(q, log_prob, alpha)


def temperature(
    alpha: jax.Array, log_prob: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """J(alpha) = E[-alpha log pi(a|s) - alpha H] per sample, H being the target entropy.

    See the post, sections 4.3.1 and 4.3.2; it has no number.

    Minimising it over alpha >= 0 is the dual of maximising the return subject to an entropy of
    at least H: alpha rises while the policy's entropy is below H and falls while it is above.

    Args:
        alpha: scalar; log_prob: [B]; target_entropy: scalar, in nats.
    """
    chex.assert_rank(log_prob, 1)
    return -alpha * jax.lax.stop_gradient(log_prob + target_entropy)


def entropy(probability: jax.Array) -> jax.Array:
    """-sum_k p_k log p_k; [..., K] to [...].

    Probabilities of 0 have no gradient; that of `jax.scipy.special.entr` there is infinite, and
    NaN in a softmax whose smallest probability is rounded to 0.
    """
    return -(probability * jnp.log(jnp.where(probability > 0, probability, 1))).sum(-1)


def median_distance(distance: jax.Array) -> jax.Array:
    """`jnp.median` of a symmetric matrix [K, K] of distances, from K (K - 1) / 2 sorted values.

    Of the K^2 entries in ascending order, the first K are zero (the diagonal), and those of pairs
    occur twice.
    """
    size = len(distance)
    pairs = jnp.sort(distance[np.triu_indices(size, k=1)])
    zero_and_pairs = jnp.concatenate([jnp.zeros(1, distance.dtype), pairs])
    middle = np.array([(size**2 - 1) // 2, size**2 // 2])
    return zero_and_pairs[np.maximum((middle - size) // 2 + 1, 0)].mean()


def svgd_direction(particles: jax.Array, score: jax.Array) -> jax.Array:
    """Direction of Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471).

    It moves particles towards regions of high density p and away from each other, [K, d]:

        phi(x_i) = 1/K sum_j [ k(x_j, x_i) grad log p(x_j) + grad_{x_j} k(x_j, x_i) ]

    with k(x, y) = exp(-|x - y|^2 / h) and h = median |x_i - x_j|^2 / log(K + 1). It is the
    direction of steepest descent of KL(q || p) in the unit ball of the kernel's RKHS.

    Args:
        particles: x, [K, d].
        score: grad log p at each of them, [K, d].
    """
    chex.assert_rank([particles, score], 2)
    chex.assert_equal_shape([particles, score])
    size = len(particles)
    difference = particles[:, None] - particles[None]  # [j, i, d]: x_j - x_i
    distance = jnp.square(difference).sum(-1)
    width = jnp.maximum(median_distance(distance) / jnp.log(size + 1.0), 1e-8)
    kernel = jnp.exp(-distance / width)
    repulsion = -2 / width * kernel[..., None] * difference
    return (jnp.einsum("ji,jd->id", kernel, score) + repulsion.sum(0)) / size
