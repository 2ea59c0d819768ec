"""Networks: what maps observations to numbers. No losses, no loops."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.types import PyTree

Activation = Callable[[jax.Array], jax.Array]


def no_norm() -> Activation:
    """The norm of a network without one."""
    return lambda x: x


class MLP(nn.Module):
    """[..., F] -> [..., hidden_sizes[-1]]."""

    hidden_sizes: Sequence[int]
    activation: Activation = nn.relu
    dense: Callable[..., nn.Module] = nn.Dense
    norm: Callable[[], Activation] = no_norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.hidden_sizes:
            x = self.activation(self.norm()(self.dense(size)(x)))
        return x


class Conv(nn.Module):
    """A convolution as one matrix product over patches: [B, H, W, C] -> [B, H', W', features].

    The same numbers as `nn.Conv` without padding, and 1.5 to 2.5 times as fast on a CPU where
    seeds are vmapped: a convolution with kernels of their own for each seed is slow there.
    """

    features: int
    width: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def across(size: int, offset: int) -> slice:
            return slice(offset, size - self.width + offset + 1, self.stride)

        height, breadth = x.shape[1:3]
        patches = [
            x[:, across(height, i), across(breadth, j)]
            for i in range(self.width)
            for j in range(self.width)
        ]
        return nn.Dense(self.features, dtype=self.dtype)(jnp.concatenate(patches, axis=-1))


class Dropout(nn.Module):
    """Dropout where there is a "dropout" key, nothing where there is none."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)


LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)
"""flax's, with the variance of centred values."""


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, arXiv 1702.03275) over the leading axis of [B, F].

    It learns, from the batch and with running statistics alike, where the collection
    "batch_stats" may change; elsewhere it normalises by the running statistics. Its first
    `warmup` batches are plain batch normalisation.
    """

    warmup: int
    momentum: float = 0.99
    epsilon: float = 1e-3
    r_max: float = 3.0
    d_max: float = 5.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        seen = self.variable("batch_stats", "seen", jnp.zeros, ())
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        std = jnp.sqrt(var.value + self.epsilon)
        if not self.is_mutable_collection("batch_stats") or self.is_initializing():
            return scale * (x - mean.value) / std + bias
        batch_mean, batch_var = x.mean(0), x.var(0)
        batch_std = jnp.sqrt(batch_var + self.epsilon)
        warm = seen.value >= self.warmup
        r = jnp.where(warm, jnp.clip(batch_std / std, 1 / self.r_max, self.r_max), 1.0)
        shift = jnp.clip((batch_mean - mean.value) / std, -self.d_max, self.d_max)
        d = jnp.where(warm, shift, 0.0)
        r, d = jax.lax.stop_gradient((r, d))
        keep = self.momentum
        mean.value = keep * mean.value + (1 - keep) * jax.lax.stop_gradient(batch_mean)
        var.value = keep * var.value + (1 - keep) * jax.lax.stop_gradient(batch_var)
        seen.value = seen.value + 1
        return scale * ((x - batch_mean) / batch_std * r + d) + bias


class Residual(nn.Module):
    """[..., F] -> [..., width]: SimBa's residual feed-forward blocks (Lee et al. 2024).

    A linear embedding, x + MLP(LayerNorm(x)) with an inner layer of 4 x width per block, and a
    LayerNorm at the end.
    """

    width: int
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kaiming = nn.initializers.he_normal()
        x = orthogonal(1.0)(self.width)(x)
        for _ in range(self.blocks):
            y = nn.Dense(4 * self.width, kernel_init=kaiming)(LayerNorm()(x))
            x = x + nn.Dense(self.width, kernel_init=kaiming)(nn.relu(y))
        return LayerNorm()(x)


class CNN(nn.Module):
    """Convolutions over images: [B, H, W, C] -> [B, F]; follow it with an MLP."""

    layers: Sequence[tuple[int, int, int]]  # filters, width of the kernel, stride
    activation: Activation = nn.relu
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[[], Activation] = no_norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for filters, width, stride in self.layers:
            x = self.activation(self.norm()(self.conv(filters, width, stride)(x)))
        return flat(x)


class NoisyDense(nn.Module):
    """A linear layer with factorised Gaussian noise (Fortunato et al. 2018, arXiv 1706.10295).

    y = (mu_w + sigma_w * f(e) f(e')^T) x + mu_b + sigma_b * f(e'),   f(e) = sgn(e) sqrt|e|

    The noise e is a variable of the collection "noise", see `draw_noise`, and the same for all
    rows of a call. Without that collection there is none.
    """

    features: int
    dtype: Any = None
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        bound = width**-0.5

        def around_zero(key: jax.Array, shape: Sequence[int]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        deviation = nn.initializers.constant(self.sigma * bound)
        mu_w = self.param("mu_w", around_zero, (width, self.features))
        mu_b = self.param("mu_b", around_zero, (self.features,))
        sigma_w = self.param("sigma_w", deviation, (width, self.features))
        sigma_b = self.param("sigma_b", deviation, (self.features,))
        dtype = self.dtype or jnp.float32
        x, mu_w, mu_b, sigma_w, sigma_b = (
            value.astype(dtype) for value in (x, mu_w, mu_b, sigma_w, sigma_b)
        )
        y = x @ mu_w + mu_b
        if not self.has_variable("noise", "f"):
            return y
        noise = self.get_variable("noise", "f").astype(dtype)
        into, out = noise[:width], noise[width:]
        return y + ((x * into) @ sigma_w + sigma_b) * out


def draw_noise(key: jax.Array, params: PyTree) -> PyTree:
    """Noise for every `NoisyDense` of a network, as a collection: `{**params, **draw_noise(...)}`.

    Drawn at once, because each call of a random number generator costs as much as a small layer.

    Returns:
        {"noise": ...} with f(e), [inputs + outputs] for each layer; empty where none is noisy.
    """
    layers = [
        (path[:-1], sum(x.shape))
        for path, x in flatten_dict(params["params"]).items()
        if path[-1] == "sigma_w"
    ]
    sizes = [size for _, size in layers]
    noise = jax.random.normal(key, (sum(sizes),))
    noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
    parts = jnp.split(noise, list(itertools.accumulate(sizes))[:-1])
    named = {(*path, "f"): part for (path, _), part in zip(layers, parts, strict=False)}
    return {"noise": unflatten_dict(named)}


class Linear(nn.Module):
    """K numbers for each of A actions: [..., F] -> [..., A, K].

    The output layer is of float32 whatever the others are: near 100, bfloat16 has steps of 1/2,
    and most actions would be equal.
    """

    mlp: Callable[[], nn.Module]
    dense: Callable[..., nn.Module]
    num_actions: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        z = self.dense(self.num_actions * self.num_outputs, dtype=jnp.float32)(self.mlp()(x))
        return z.reshape(*x.shape[:-1], self.num_actions, self.num_outputs)


class Dueling(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a'), from a stream each (Wang et al. 2016, eq. 9)."""

    mlp: Callable[[], nn.Module]
    dense: Callable[..., nn.Module]
    num_actions: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        value = Linear(self.mlp, self.dense, 1, self.num_outputs, name="value")(x)
        advantage = Linear(
            self.mlp, self.dense, self.num_actions, self.num_outputs, name="advantage"
        )(x)
        return value + advantage - advantage.mean(-2, keepdims=True)


class QNetwork(nn.Module):
    """[B, *obs_shape] -> [B, A, K]: a torso and a stream on it."""

    torso: nn.Module
    stream: nn.Module
    dense: Callable[..., nn.Module] = nn.Dense  # for networks with layers of their own

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.stream(self.torso(x))


class Quantiles(NamedTuple):
    value: jax.Array  # [B, A, K]: the return's quantiles
    fraction: jax.Array  # [B, K]: at these fractions tau, in (0, 1)


class ImplicitQuantileNetwork(nn.Module):
    """[B, *obs_shape] -> Quantiles at K random fractions (Dabney et al. 2018, arXiv 1806.06923).

    The torso's features are multiplied by relu(Dense(cos(pi i tau))), i = 0 .. 63. Without a
    "tau" key, fractions are the midpoints of K equal parts, distorted by `distortion`: the
    expectation over them is what the policy maximises.
    """

    torso: nn.Module
    stream: nn.Module  # with one output per action
    dense: Callable[..., nn.Module] = nn.Dense
    num_quantiles: int = 32
    distortion: Activation = lambda fraction: fraction

    @nn.compact
    def __call__(self, x: jax.Array) -> Quantiles:
        features = self.torso(x)
        shape = (features.shape[0], self.num_quantiles)
        if self.has_rng("tau"):
            fraction = jax.random.uniform(self.make_rng("tau"), shape)
        else:
            fraction = self.distortion(midpoints(self.num_quantiles))[None]  # the same in all rows
        cosines = jnp.cos(jnp.pi * jnp.arange(64) * fraction[..., None])
        embedding = nn.relu(self.dense(features.shape[-1])(cosines))
        value = self.stream(features[:, None] * embedding).squeeze(-1)  # [B, K, A]
        return Quantiles(value.swapaxes(1, 2), jnp.broadcast_to(fraction, shape))


def midpoints(count: int) -> jax.Array:
    """The middles of `count` equal parts of [0, 1]."""
    return (jnp.arange(count) + 0.5) / count


class Head(nn.Module):
    """A linear layer on a torso: [B, ...] -> [B, num_outputs]."""

    torso: nn.Module
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.num_outputs)(self.torso(x))


class Critics(nn.Module):
    """Q_1 .. Q_E(s, a): independent critics as one batched product, [E, B] (or [E, B, K]) out.

    Observation and action go side by side into each critic's own torso. Parameters have a
    leading axis [E].

    Args:
        num_outputs: K; None for a single number, without an axis of its own.
    """

    torso: nn.Module
    size: int = 2
    num_outputs: int | None = None

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([obs.reshape(obs.shape[0], -1), action], axis=-1)
        # one input per critic, so that every product, backwards too, is batched over critics
        x = jnp.broadcast_to(x, (self.size, *x.shape))
        rngs = {"params": True, "dropout": True}
        axes = {"params": 0, "batch_stats": 0}
        head = nn.vmap(Head, variable_axes=axes, split_rngs=rngs)
        z = head(self.torso, self.num_outputs or 1)(x)
        return z.squeeze(-1) if self.num_outputs is None else z


class Sampler(nn.Module):
    """f(xi; s): noise [B, action_dim] to samples [B, action_dim] of any distribution."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array, noise: jax.Array) -> jax.Array:
        x = jnp.concatenate([flat(obs), noise], axis=-1)
        return nn.Dense(self.action_dim)(self.torso(x))


class DeterministicActor(nn.Module):
    """mu(s) = tanh(...), [B, action_dim]."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.action_dim)(self.torso(obs)))


class GaussianActor(nn.Module):
    """pi(a|s) before squashing: mean and log standard deviation, each [B, action_dim]."""

    torso: nn.Module
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.Dense(2 * self.action_dim)(self.torso(obs))
        mean, log_std = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)


def orthogonal(scale: float) -> Callable[..., nn.Module]:
    """Dense layers that start orthogonal, which on-policy methods are known to need."""
    return partial(nn.Dense, kernel_init=partial(_orthogonal, scale=scale))


def _orthogonal(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *, scale: float
) -> jax.Array:
    """`scale` times a matrix [n, m] with orthonormal rows or columns, all equally likely.

    The polar factor of a Gaussian matrix, by the iteration of Newton and Schulz, which makes every
    singular value 1. Not by QR: on a CPU it waits for threads of the pool that it runs in, and as
    many of them side by side as there are cores wait for ever (jaxlib 0.10).
    """
    x = jax.random.normal(key, (max(shape), min(shape)), dtype)
    x = x / jnp.linalg.norm(x)
    x = jax.lax.fori_loop(0, 40, lambda _, x: 1.5 * x - 0.5 * x @ (x.T @ x), x)
    return scale * (x if shape[0] >= shape[1] else x.T)


class Logits(nn.Module):
    """[B, F] -> [B, A], almost zero at first: every action is as likely as any other."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return orthogonal(0.01)(self.num_actions)(x)


class Gaussian(nn.Module):
    """[B, F] -> mean and log standard deviation, [B, action_dim] each; the latter a constant."""

    action_dim: int
    log_std: float = 0.0  # at first

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = orthogonal(0.01)(self.action_dim)(x)
        at_first = nn.initializers.constant(self.log_std)
        log_std = self.param("log_std", at_first, (self.action_dim,))
        return mean, jnp.broadcast_to(log_std, mean.shape)


class ActorCritic(nn.Module):
    """[B, *obs_shape] -> the actor's outputs, and V(s) [B]. The torsos may be one and the same."""

    actor_torso: nn.Module
    critic_torso: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple:
        value = orthogonal(1.0)(1)(self.critic_torso(obs))
        return self.head(self.actor_torso(obs)), value.squeeze(-1)


def features(space: Any) -> Callable[[jax.Array], jax.Array]:
    """What networks see of an observation: one-hot where it is Discrete, float32 elsewhere.

    Observations stay in the environment's own dtype everywhere else, the memory included.
    """
    if hasattr(space, "n"):
        return lambda obs: jax.nn.one_hot(obs, space.n)
    return lambda obs: obs.astype(jnp.float32)


def flat(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B, F]."""
    return x.reshape(x.shape[0], -1)


MINATAR = ((16, 3, 1),)
"""The convolution of Young & Tian 2019, "MinAtar", section 3."""
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""The convolutions of Mnih et al. 2015, for images of 36 x 36 and more."""


def convolutions(space: Any) -> Sequence[tuple[int, int, int]]:
    """The usual ones for a gymnax observation space: none unless it is of images [H, W, C]."""
    if hasattr(space, "n") or len(space.shape) != 3:
        return ()
    return NATURE if min(space.shape[:2]) >= 36 else MINATAR


def torso(
    space: Any,
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    layers: Callable[[Any], Sequence[tuple[int, int, int]]] = convolutions,
    dense: Callable[..., nn.Module] = nn.Dense,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[[], Activation] = no_norm,
) -> nn.Module:
    """The usual torso for a gymnax observation space: [B, *obs_shape] -> [B, F].

    Args:
        layers: space -> the convolutions before the MLP; (), and observations are flattened.

    Raises:
        ConfigError: convolutions on observations that are not images, or are too small.
    """
    activate = getattr(nn, activation)
    mlp = MLP(tuple(hidden_sizes), activate, dense, norm)
    if not (filters := tuple(layers(space))):
        return nn.Sequential([flat, mlp])
    shape = getattr(space, "shape", ())
    if hasattr(space, "n") or len(shape) != 3:
        raise ConfigError(
            f"a CNN needs images [H, W, C], but observations are of shape {shape}: leave the"
            " convolutions out"
        )
    size = min(shape[:2])
    for _, width, stride in filters:
        size = (size - width) // stride + 1
    if size < 1:
        raise ConfigError(f"images of {shape[:2]} are too small for convolutions {filters}")
    return nn.Sequential([CNN(filters, activate, conv, norm), mlp])


def critic_torso(
    space: Any, hidden_sizes: Sequence[int], activation: str, **parts: Callable
) -> nn.Module:
    """`torso` for observations that have an action beside them, as those of `Critics`.

    Raises:
        ConfigError: observations are images, which no action can be laid beside.
    """
    if convolutions(space):
        raise ConfigError(
            f"critics of continuous actions need observations that are vectors, not images of shape"
            f" {space.shape}: flatten them in an environment of your own, or use a2c or ppo"
        )
    return torso(space, hidden_sizes, activation, **parts)


def separate(
    config: Any,
    space: Any,
    policy: Any,
    *,
    layers: Callable[[Any], Sequence[tuple[int, int, int]]] = convolutions,
) -> nn.Module:
    """Actor and critic that share nothing.

    Args:
        config: hidden_sizes and activation.
        policy: a `distributions.Policy`.
        layers: the convolutions, as in `torso`.
    """
    kinds = {"dense": orthogonal(2**0.5), "layers": layers}
    torsos = [torso(space, config.hidden_sizes, config.activation, **kinds) for _ in range(2)]
    return ActorCritic(*torsos, policy.head())


def shared(config: Any, space: Any, policy: Any) -> nn.Module:
    """Actor and critic on one torso; arguments as for `separate`."""
    kinds = {"dense": orthogonal(2**0.5)}
    both = torso(space, config.hidden_sizes, config.activation, **kinds)
    return ActorCritic(both, both, policy.head())


def usual_actor_critic(config: Any, space: Any, policy: Any) -> nn.Module:
    """`shared` with convolutions for images of 36 x 36 and more, `separate` MLPs elsewhere.

    On MinAtar's 10 x 10, MLPs learned as much from a step as convolutions, at a third of the cost.
    """
    if convolutions(space) == NATURE:
        return shared(config, space, policy)
    return separate(config, space, policy, layers=lambda space: ())


def q_network(
    config: Any,
    space: Any,
    num_actions: int,
    num_outputs: int,
    *,
    stream: type[nn.Module] = Linear,
    network: Callable[..., nn.Module] = QNetwork,
    dense: Callable[..., nn.Module] = nn.Dense,
    norm: Callable[..., Activation] | None = None,
    layers: Callable[[Any], Sequence[tuple[int, int, int]]] = convolutions,
) -> nn.Module:
    """Builds a network for Q(s, .) from its parts; the stream has the last hidden layer.

    Args:
        config: hidden_sizes, activation and compute_dtype, in which the hidden layers compute;
            parameters and the output layer are always float32.
        stream: `Linear` or `Dueling`.
        network: how torso and stream go together.
        dense: `nn.Dense` or `NoisyDense`.
        norm: before every activation, such as `LayerNorm`.
        layers: the convolutions, as in `torso`.
    """
    dtype = jnp.dtype(config.compute_dtype)
    dense = partial(dense, dtype=dtype)
    conv = partial(Conv, dtype=dtype)
    norm = partial(norm, dtype=dtype) if norm else no_norm
    below, last = config.hidden_sizes[:-1], config.hidden_sizes[-1:]
    kinds = {"dense": dense, "norm": norm}
    features = torso(space, below, config.activation, layers=layers, conv=conv, **kinds)
    mlp = partial(MLP, tuple(last), getattr(nn, config.activation), **kinds)
    return network(features, stream(mlp, dense, num_actions, num_outputs), dense)
