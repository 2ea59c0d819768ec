"""DQN with a transformer over the numbers of an observation."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax

import purejaxrl_sac as prl


class Transformer(nn.Module):
    """[B, F] -> [B, A, 1]: every number of an observation is a token."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        position = self.param("position", nn.initializers.normal(0.1), (x.shape[-1], 16))
        tokens = nn.Dense(16)(x[..., None]) + position
        tokens += nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(tokens))
        tokens += nn.Dense(16)(nn.relu(nn.Dense(32)(nn.LayerNorm()(tokens))))
        return nn.Dense(self.num_actions)(tokens.mean(-2))[..., None]


def transformer(config: Any, space: Any, num_actions: int, num_outputs: int) -> nn.Module:
    return Transformer(num_actions)


transformer_dqn = partial(prl.dqn, network=transformer)
