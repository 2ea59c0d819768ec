"""Recurrent networks: torsos that remember the running episode, as parts.

A recurrent torso maps a sequence to features of all that an episode has shown so far:

    (carry [B, ...], x [T, B, F], start [T, B]) -> carries [T, B, ...], features [T, B, H]

Where `start` is true, the carry becomes the initial one before the step, so that the features of an
episode, and their gradients, do not depend on the episodes before it. The carries are those after
each step. A single step is T = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.networks.actor_critic import ActorCritic
from purejaxrl_sac.networks.continuous import GaussianActor
from purejaxrl_sac.networks.layers import MakeLayer, MakeNorm, _orthogonal, orthogonal
from purejaxrl_sac.networks.q_networks import q_network
from purejaxrl_sac.networks.torsos import MLP, MakeConvolutions, convolutions, torso
from purejaxrl_sac.types import MakeRecurrentTorso, PyTree, RecurrentTorso

if TYPE_CHECKING:
    from purejaxrl_sac.distributions import ActionDistribution


class Unrolled(nn.Module):
    """A recurrent cell of flax, step by step."""

    cell: nn.RNNCellBase

    @nn.nowrap
    def initial_carry(self, batch: int) -> PyTree:
        """B -> the cell's own initial carry, leading axis [B]."""
        return self.cell.initialize_carry(jax.random.key(0), (batch, 1))

    def __call__(self, carry: PyTree, x: jax.Array, start: jax.Array) -> tuple[PyTree, jax.Array]:
        """See `RecurrentTorso`."""
        initial = self.initial_carry(x.shape[1])

        def step(
            cell: nn.RNNCellBase, carry: PyTree, xs: tuple[jax.Array, jax.Array]
        ) -> tuple[PyTree, tuple[PyTree, jax.Array]]:
            x, start = xs
            carry = jax.tree.map(lambda x, y: jnp.where(start[:, None], x, y), initial, carry)
            carry, features = cell(carry, x)
            return carry, (carry, features)

        unroll = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        carries: tuple[PyTree, jax.Array] = unroll(self.cell, carry, (x, start))[1]
        return carries


def gru(size: int) -> Unrolled:
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) of H = `size` units."""
    return Unrolled(nn.GRUCell(size, recurrent_kernel_init=partial(_orthogonal, scale=1.0)))


def lstm(size: int) -> Unrolled:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) of H = `size` units."""
    return Unrolled(
        nn.OptimizedLSTMCell(size, recurrent_kernel_init=partial(_orthogonal, scale=1.0))
    )


class MinGRU(nn.Module):
    """Minimal GRU, a linear recurrence with gates of the input (Feng et al. 2024, 2410.01201).

    h_t = (1 - z_t) h_{t-1} + z_t c_t,    z_t = sigmoid(W_z x_t + b_z),    c_t = W_c x_t + b_c

    All steps at once, by an associative scan of depth log T: for long sequences. The biases of the
    gates are such that units forget at rates 1 / tau, tau = 2 .. `longest` in equal ratios.
    """

    size: int  # H
    longest: float = 100.0  # steps

    @nn.nowrap
    def initial_carry(self, batch: int) -> jax.Array:
        """B -> zeros [B, H]."""
        return jnp.zeros((batch, self.size), jnp.float32)

    @nn.compact
    def __call__(
        self, carry: jax.Array, x: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `RecurrentTorso`."""
        z = nn.sigmoid(nn.Dense(self.size, bias_init=self._rates, name="gate")(x))
        added = z * nn.Dense(self.size, name="candidate")(x)
        kept = jnp.where(start[..., None], 0, 1 - z)
        added = added.at[0].add(kept[0] * carry)

        def compose(
            first: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            return then[0] * first[0], then[0] * first[1] + then[1]

        h = jax.lax.associative_scan(compose, (kept, added))[1]
        return h, h

    def _rates(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        tau = jnp.geomspace(2.0, self.longest, self.size, dtype=jnp.float32)
        return -jnp.log(tau - 1)


TORSOS: dict[str, Callable[[int], RecurrentTorso]] = {"gru": gru, "lstm": lstm, "min_gru": MinGRU}
"""The recurrent torsos by the names that configurations use: H -> RecurrentTorso."""


def named_torso(config: Any) -> RecurrentTorso:
    """The torso called `config.cell`, of `config.memory_size` units."""
    return TORSOS[config.cell](config.memory_size)


class Recurrent(nn.Module):
    """An encoder, a recurrent torso, and a stream that sees the outputs of both.

    The stream need not get the current observation out of the memory (the shortcut of Ni et al.
    2022, arXiv 2110.05038). It and the encoder are memoryless: they see T x B rows, time by time.
    """

    encoder: nn.Module  # [T x B, *obs_shape] -> [T x B, F]
    stream: nn.Module  # [T x B, H + F] -> outputs [T x B, ...]
    dense: MakeLayer = nn.Dense  # as `QNetwork` has it; unused here
    memory: Any = None  # RecurrentTorso

    @nn.nowrap
    def initial_carry(self, batch: int) -> PyTree:
        """B -> the torso's initial carry, leading axis [B]."""
        return self.memory.initial_carry(batch)

    def __call__(
        self, carry: PyTree, x: jax.Array, start: jax.Array, *more: jax.Array
    ) -> tuple[PyTree, PyTree]:
        """(carry [B, ...], x [T x B, *obs_shape], start [T, B], further inputs of the stream) ->
        carries [T, B, ...], outputs [T x B, ...].
        """
        encoded = self.encoder(x)
        carries, past = self.memory(carry, encoded.reshape(*start.shape, -1), start)
        seen = jnp.concatenate([past.reshape(x.shape[0], -1), encoded], -1)
        return carries, self.stream(seen, *more)


def layers_of_encoder(config: Any) -> int:
    """Number of hidden layers before a recurrent torso: `encoder_layers`, at most all but the last.

    The others follow it. Their input is the output of the torso and of the encoder and, in critics,
    the action.
    """
    return max(0, min(config.encoder_layers, len(config.hidden_sizes) - 1))


def around_memory(config: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The hidden layers before a recurrent torso, and those after it."""
    before = layers_of_encoder(config)
    return config.hidden_sizes[:before], config.hidden_sizes[before:]


def recurrent_actor_critic(
    config: Any,
    space: Any,
    distribution: ActionDistribution,
    *,
    memory: MakeRecurrentTorso = named_torso,
    layers: MakeConvolutions = convolutions,
) -> Recurrent:
    """Actor and critic with a shared memory, see `around_memory`; each has its own layers after it.

    Args:
        config: hidden_sizes, encoder_layers, activation, and what `memory` needs.
        space: gymnax observation space.
        distribution: the distribution of the policy; it builds the head.
        memory: the recurrent torso.
        layers: the convolutions, as in `torso`.
    """
    before, after = around_memory(config)
    dense = orthogonal(2**0.5)
    encoder = torso(space, before, config.activation, layers=layers, dense=dense)
    actor, critic = (MLP(after, getattr(nn, config.activation), dense) for _ in range(2))
    return Recurrent(
        encoder, ActorCritic(actor, critic, distribution.head()), memory=memory(config)
    )


def recurrent_actor(
    config: Any,
    space: Any,
    action_dim: int,
    *,
    memory: MakeRecurrentTorso = named_torso,
    layers: MakeConvolutions = convolutions,
) -> Recurrent:
    """`gaussian_actor` with a recurrent torso, see `around_memory`.

    Args:
        config: hidden_sizes, encoder_layers, activation, log_std_min, log_std_max, and what
            `memory` needs.
        space: gymnax observation space.
        action_dim: D.
        memory, layers: as for `recurrent_actor_critic`.
    """
    before, after = around_memory(config)
    encoder = torso(space, before, config.activation, layers=layers)
    mlp = MLP(after, getattr(nn, config.activation))
    stream = GaussianActor(mlp, action_dim, config.log_std_min, config.log_std_max)
    return Recurrent(encoder, stream, memory=memory(config))


class ActionValue(nn.Module):
    """Q of what has been seen and of an action: ([B, F], [B, D]) -> [B], or [B, K]."""

    mlp: nn.Module
    num_outputs: int | None = None  # K; None for [B]

    @nn.compact
    def __call__(self, seen: jax.Array, action: jax.Array) -> jax.Array:
        hidden = self.mlp(jnp.concatenate([seen, action], -1))
        z: jax.Array = nn.Dense(self.num_outputs or 1)(hidden)
        return z.squeeze(-1) if self.num_outputs is None else z


class RecurrentCritics(nn.Module):
    """An ensemble of E independent critics, each with an encoder and a memory of its own.

    Parameters have a leading axis [E]; carries are [B, E, ...].
    """

    critic: Recurrent  # whose stream is an `ActionValue`
    size: int = 2

    @nn.nowrap
    def initial_carry(self, batch: int) -> PyTree:
        """B -> the initial carries of all critics, leading axes [B, E]."""
        carry = self.critic.initial_carry(batch)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x[:, None], (batch, self.size, *x.shape[1:])), carry
        )

    @nn.compact
    def __call__(
        self, carry: PyTree, x: jax.Array, start: jax.Array, action: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        """(carry [B, E, ...], x [T x B, *obs_shape], start [T, B], action [T x B, D]) -> carries
        [T, B, E, ...], outputs [E, T x B] or [E, T x B, K].
        """

        def one(
            critic: Recurrent, carry: PyTree, x: jax.Array, action: jax.Array
        ) -> tuple[PyTree, jax.Array]:
            outputs: tuple[PyTree, jax.Array] = critic(carry, x, start, action)
            return outputs

        ensemble = nn.vmap(
            one,
            in_axes=(1, None, None),
            out_axes=(2, 0),
            axis_size=self.size,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        outputs: tuple[PyTree, jax.Array] = ensemble(self.critic, carry, x, action)
        return outputs


def recurrent_critics(
    config: Any,
    space: Any,
    *,
    size: int = 2,
    num_outputs: int | None = None,
    memory: MakeRecurrentTorso = named_torso,
    layers: MakeConvolutions = convolutions,
) -> RecurrentCritics:
    """Independent recurrent critics; the layers after the memory see the action.

    Args:
        config: hidden_sizes, encoder_layers, activation, and what `memory` needs.
        space: gymnax observation space.
        size: E.
        num_outputs: K; None for outputs [E, T x B].
        memory, layers: as for `recurrent_actor_critic`.
    """
    before, after = around_memory(config)
    encoder = torso(space, before, config.activation, layers=layers)
    stream = ActionValue(MLP(after, getattr(nn, config.activation)), num_outputs)
    return RecurrentCritics(Recurrent(encoder, stream, memory=memory(config)), size)


def recurrent_q_network(
    config: Any,
    space: Any,
    num_actions: int,
    num_outputs: int,
    *,
    memory: MakeRecurrentTorso = named_torso,
    norm: MakeNorm | None = None,
    **parts: Any,
) -> Recurrent:
    """`q_network` with a recurrent torso before its stream.

    Args:
        config, space, num_actions, num_outputs, norm, **parts: as for `q_network`; and
            encoder_layers and what `memory` needs.
        memory: the recurrent torso.
    """
    network = partial(Recurrent, memory=memory(config))
    built = q_network(
        config,
        space,
        num_actions,
        num_outputs,
        network=network,
        before=layers_of_encoder(config),
        norm=norm,
        **parts,
    )
    assert isinstance(built, Recurrent)
    return built
