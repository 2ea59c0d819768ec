"""The squashed Gaussian policy of SAC."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp


def squashed_gaussian(mean: jax.Array, log_std: jax.Array) -> distrax.Transformed:
    """a = tanh(mean + std * eps), eps ~ N(0, I) (Haarnoja et al. 2018, appendix C; post, 4.22).

    Use `sample_and_log_prob` alone: it corrects for tanh at the Gaussian sample, where
    log(1 - tanh^2) is exact, while `log_prob(action)` has to invert tanh and is nan or infinite
    near |a| = 1. Log-probabilities are densities of actions in [-1, 1]; in an environment's
    units (high - low) / 2 per dimension is to be taken off in logs.

    Args:
        mean, log_std: [B, action_dim].
    """
    gaussian = distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))
    return distrax.Transformed(gaussian, distrax.Block(distrax.Tanh(), 1))
