"""What the outputs of a Q-network mean: the expected return, a histogram or quantiles of it.

A head is a function config -> QHead: the number of outputs of each action, the expectation Q(s, a)
of the distribution they describe, and the loss against the backed-up distribution at s'. That is
the mixture over a' ~ pi(.|s') of the returns after a'. `scalar` and `categorical` mix exactly;
quantiles of a mixture are not the mixture of quantiles, so that the quantile heads draw a' for each
row: the expected loss is that against the mixture.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration, losses
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.networks import Quantiles, midpoints
from purejaxrl_sac.optimize import finite
from purejaxrl_sac.types import Backup, Metrics, NextReturn, QHead


def scalar(config: Any) -> QHead:
    """The expected return itself, by a Huber or (delta = inf) squared loss."""

    def loss(
        outputs: jax.Array, action: jax.Array, next_return: NextReturn, backup: Backup
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        value = mix(next_return.pi, next_return.outputs + next_return.bonus[..., None])
        td_error = (backup(value) - chosen(outputs, action)).squeeze(-1)
        return losses.huber(td_error, config.huber_delta), jnp.abs(td_error), {}

    return QHead(1, lambda outputs: outputs.squeeze(-1), loss)


def categorical(config: Any) -> QHead:
    """C51: probabilities of `num_atoms` fixed returns (Bellemare et al. 2017, arXiv 1707.06887).

    Its priority is the loss minus its minimum, KL(target || prediction), as in Rainbow (Hessel et
    al. 2018). Its metrics are the smallest and the largest expected target: outside v_min .. v_max
    the support cannot represent them.
    """
    atoms = jnp.linspace(config.v_min, config.v_max, config.num_atoms, dtype=jnp.float32)

    def loss(
        outputs: jax.Array, action: jax.Array, next_return: NextReturn, backup: Backup
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        probability = next_return.pi[..., None] * jax.nn.softmax(next_return.outputs)  # [B, A, K]
        if next_return.bonus.shape[-1] == 1:  # the same returns after all actions: mix them first
            probability = probability.sum(1, keepdims=True)
        value = jnp.broadcast_to(atoms + next_return.bonus[..., None], probability.shape)
        probability, value = (x.reshape(len(x), -1) for x in (probability, value))
        value = backup(value)
        target = losses.categorical_projection(value, probability, atoms)
        cross_entropy = losses.cross_entropy(chosen(outputs, action), target)
        expected = (probability * value).sum(-1)
        metrics = {"target_min": expected.min(), "target_max": expected.max()}
        return cross_entropy, cross_entropy - losses.entropy(target), metrics

    return QHead(config.num_atoms, lambda outputs: jax.nn.softmax(outputs) @ atoms, loss)


def _check_huber_delta(config: Any) -> None:
    """Refuses the default of classes whose first base is not one of quantiles: its loss is 0."""
    if finite(config.huber_delta) is None:
        raise ConfigError(
            f"huber_delta is {config.huber_delta}, but must be finite for quantiles: set it, or let"
            " Quantile be the first base of the configuration, as of QRDQNConfig"
        )


def quantile(config: Any) -> QHead:
    """QR-DQN: quantiles of the return at K midpoints (Dabney et al. 2018, arXiv 1710.10044).

    Raises:
        ConfigError: huber_delta is infinite.
    """
    _check_huber_delta(config)
    fraction = midpoints(config.num_quantiles)

    def loss(
        outputs: jax.Array, action: jax.Array, next_return: NextReturn, backup: Backup
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        target = backup(drawn(next_return, next_return.outputs))
        return _regress(config, chosen(outputs, action), fraction, target)

    return QHead(config.num_quantiles, lambda outputs: outputs.mean(-1), loss)


def implicit_quantile(config: Any) -> QHead:
    """IQN: quantiles at the fractions that the network returns (Dabney et al. 2018, 1806.06923).

    Raises:
        ConfigError: huber_delta is infinite; when used, if the network does not return `Quantiles`.
    """
    _check_huber_delta(config)

    def checked(outputs: Quantiles) -> Quantiles:
        if not isinstance(outputs, Quantiles):
            raise ConfigError(
                "implicit_quantile needs a network that returns Quantiles:"
                " network=agents.distributional.implicit_network"
            )
        return outputs

    def loss(
        outputs: Quantiles, action: jax.Array, next_return: NextReturn, backup: Backup
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        target = backup(drawn(next_return, next_return.outputs.value))
        return _regress(config, chosen(outputs.value, action), outputs.fraction, target)

    return QHead(1, lambda outputs: checked(outputs).value.mean(-1), loss)


def mix(pi: jax.Array, outputs: jax.Array) -> jax.Array:
    """sum_a pi(a|s) Q(s, a); [B, A, K] to [B, K]."""
    return (pi[..., None] * outputs).sum(-2)


def drawn(next_return: NextReturn, quantiles: jax.Array) -> jax.Array:
    """The quantiles of an action a' ~ pi(.|s'), with its bonus; [B, A, K] to [B, K]."""
    action = exploration.sample(next_return.key, next_return.pi)
    return chosen(quantiles + next_return.bonus[..., None], action)


def chosen(outputs: jax.Array, action: jax.Array) -> jax.Array:
    """The outputs of action [B]; [B, A, K] to [B, K]."""
    return jax.vmap(losses.select_action, (-1, None), -1)(outputs, action)


def _regress(
    config: Any, quantiles: jax.Array, fraction: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array, Metrics]:
    loss = losses.quantile_huber(quantiles, fraction, target, config.huber_delta)
    return loss, jnp.abs(target.mean(-1) - quantiles.mean(-1)), {}
