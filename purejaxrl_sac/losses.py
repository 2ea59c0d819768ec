"""The equations, one function each: no networks, no loops, no optimisers.

"Post" is "From Q-learning to Soft Actor Critic"; numbers in brackets are its equations.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from purejaxrl_sac.kernels import quantile_regression


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


def select_action(q: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a): picks action [B] out of q [B, A], exactly.

    As a masked sum, whose gradient is a product: that of an indexed read is a scatter.
    """
    chex.assert_equal_shape_prefix([q, action], action.ndim)
    taken = action[..., None] == jnp.arange(q.shape[-1])
    return jnp.where(taken, q, 0).sum(-1)


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
    """[alpha log pi(a|s)] clipped to least .. 0, pi = softmax(Q / alpha) (Vieillard et al. 2020).

    Munchausen DQN adds a share of it to the reward (arXiv 2007.14430, equation 2).

    Args:
        q: [B, A]; action: [B]; alpha: the temperature; least: the lower bound, below 0.
    """
    log_pi = jax.nn.log_softmax(q / alpha, axis=-1)
    return jnp.clip(alpha * select_action(log_pi, action), least, 0)


def categorical_projection(value: jax.Array, probability: jax.Array, atoms: jax.Array) -> jax.Array:
    """Shares each value's probability between the atoms beside it (Bellemare et al. 2017, eq. 7).

    Values beyond the support count as its ends; between them, the expectation is kept.

    Args:
        value, probability: [B, L], a distribution over any values.
        atoms: [K], evenly spaced and rising.

    Returns:
        probabilities of the atoms, [B, K].
    """
    chex.assert_equal_shape([value, probability])
    chex.assert_rank(atoms, 1)
    share = (jnp.clip(value, atoms[0], atoms[-1]) - atoms[0]) / (atoms[-1] - atoms[0])
    position = share * (len(atoms) - 1)
    distance = jnp.abs(position[:, None, :] - jnp.arange(len(atoms))[:, None])
    shares = jnp.clip(1 - distance, 0, 1) * probability[:, None, :]
    return jax.lax.stop_gradient(shares.sum(-1))


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_k target_k log softmax(logits)_k; [B, K] and [B, K] to [B]."""
    chex.assert_equal_shape([logits, target])
    return -(target * jax.nn.log_softmax(logits)).sum(-1)


def entropy(probability: jax.Array) -> jax.Array:
    """-sum_k p_k log p_k; [..., K] to [...]."""
    return jax.scipy.special.entr(probability).sum(-1)


def quantile_huber(
    quantiles: jax.Array, fraction: jax.Array, target: jax.Array, kappa: jax.Array | float
) -> jax.Array:
    """Quantile regression, smoothed near zero (Dabney et al. 2018, arXiv 1710.10044, eq. 10).

    With u_ij = target_j - theta_i, the sum over i and mean over j of

        |tau_i - 1{u_ij < 0}| huber(u_ij, kappa) / kappa.

    Values and slopes of all pairs are summed in one pass, and no array of pairs is stored. The
    gradient, to `quantiles` alone, is exact; a second one would be zero.

    Args:
        quantiles: theta, [B, K]; fraction: tau, [K] or [B, K]; target: [B, L].
        kappa: above 0.
    """
    chex.assert_rank([quantiles, target], 2)
    theta = jax.lax.stop_gradient(quantiles)
    value, slope = quantile_regression.sums(
        theta, jnp.broadcast_to(fraction, theta.shape), jax.lax.stop_gradient(target), kappa
    )
    return (value - slope * (quantiles - theta)).sum(-1) / target.shape[1]


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = min_i Q_i(s, a) - alpha log pi(a|s) for a ~ pi (post, 4.4 and 4.3.2).

    Args:
        q: [E, B], the ensemble's values of the sampled action; log_prob: [B].
    """
    chex.assert_rank([q, log_prob], [2, 1])
    return q.min(0) - alpha * log_prob


def discrete_soft_value(q: jax.Array, log_pi: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """V(s) = sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s)), exactly (post, 4.4).

    Args:
        q, log_pi: [B, A]; log_pi may be -inf, where an action counts for nothing.
    """
    chex.assert_rank([q, log_pi], 2)
    pi = jnp.exp(log_pi)
    surprise = jnp.where(pi > 0, -log_pi, 0.0)  # not -log pi, whose gradient is nan at pi = 0
    return expected_value(q, pi) + alpha * (pi * surprise).sum(-1)


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


def svgd_direction(particles: jax.Array, score: jax.Array) -> jax.Array:
    """Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471).

    Where to move each particle for all of them to become samples of p, and stay apart.

        phi(x_i) = 1/K sum_j [ k(x_j, x_i) grad log p(x_j) + grad_{x_j} k(x_j, x_i) ]

    with k(x, y) = exp(-|x - y|^2 / h) and h = median |x_i - x_j|^2 / log(K + 1). It is the
    steepest descent of KL(q || p) among functions of unit norm in the kernel's space.

    Args:
        particles: x, [K, d].
        score: grad log p at each of them, [K, d].
    """
    chex.assert_rank([particles, score], 2)
    chex.assert_equal_shape([particles, score])
    size = len(particles)
    difference = particles[:, None] - particles[None]  # [j, i, d]: x_j - x_i
    distance = jnp.square(difference).sum(-1)
    width = jnp.maximum(jnp.median(distance) / jnp.log(size + 1.0), 1e-8)
    kernel = jnp.exp(-distance / width)
    repulsion = -2 / width * kernel[..., None] * difference
    return (jnp.einsum("ji,jd->id", kernel, score) + repulsion.sum(0)) / size
