"""Records, transitions packed into a few 32-bit words, and the codecs that pack and unpack them.

A codec maps the shapes of one transition to a `Record`: the number of words, and functions from
transitions to words and back. Storages keep the words in one array, so that a write is one update
and a read one gather, however many fields a transition has.

`words` packs any transition exactly; `bits(env)` takes one bit per number if an environment
declares that its observations are zeros and ones. Pass your own codec to a storage,
`deduplicated(capacity, num_envs, codec=mine)`, or to an algorithm,
`partial(dqn, storage=partial(replay_storage, codec=mine))`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.types import Env, PyTree, Transition


class Record(NamedTuple):
    """How transitions of one shape are packed."""

    words: int  # W: 32-bit words per transition
    encode: Callable[[Any], jax.Array]  # Transition [...] -> uint32 [..., W]
    decode: Callable[[jax.Array], Transition]  # the inverse


# a Transition of shape structs, without leading axes -> Record; `deduplicated` passes one whose
# next_obs is ()
Codec = Callable[[Transition], Record]


def words(spec: Any) -> Record:
    """Packs every field exactly: 32-bit numbers in a word each, narrower ones several to a word.

    Args:
        spec: shape structs of one transition, or any other pytree of them.

    Raises:
        ConfigError: a dtype other than bool, and integers and floats of 8, 16, 32 or 64 bits.
    """
    return _record(jax.tree.map(_exact, spec))


def bits(env: Env) -> Codec:
    """Packs observations that the environment declares all 0 or 1 into one bit per number.

    `last` and `discount` take one bit each, a discrete action ceil(log2(A)) bits; the reward and
    `extras` are packed exactly, as by `words`.

    Raises:
        ConfigError: the environment does not declare `binary_observations`.
    """
    if not env.binary_observations:
        raise ConfigError(
            f"bits cannot hold the observations of {env.name}, which does not declare that they"
            " are zeros and ones: use records.words, or set binary_observations = True on it"
        )

    def codec(spec: Transition) -> Record:
        fields: Any = jax.tree.map(_exact, spec)  # a Transition of _Fields
        action = fields.action
        if env.num_actions is not None and jnp.issubdtype(spec.action.dtype, jnp.integer):
            action = _below(spec.action, int(env.num_actions))
        return _record(
            fields._replace(
                obs=jax.tree.map(_flag, spec.obs),
                next_obs=jax.tree.map(_flag, spec.next_obs),
                action=action,
                discount=_flag(spec.discount),
                last=_flag(spec.last),
            )
        )

    return codec


Leaf = jax.Array | jax.ShapeDtypeStruct  # of a transition of shape structs


@dataclasses.dataclass(frozen=True)
class _Field:
    """An array of a transition as numbers of a few bits; a leaf of a pytree."""

    width: int  # bits per number, a divisor of 32
    count: int  # numbers per transition
    encode: Callable[[jax.Array], jax.Array]  # [..., *shape] -> uint32 [..., count]
    decode: Callable[[jax.Array], jax.Array]  # the inverse


def _exact(leaf: Leaf) -> _Field:
    dtype, width = leaf.dtype, 0
    if jnp.issubdtype(dtype, jnp.bool_):
        return _flag(leaf)
    if jnp.issubdtype(dtype, jnp.integer):
        width = jnp.iinfo(dtype).bits
    elif jnp.issubdtype(dtype, jnp.floating):
        width = jnp.finfo(dtype).bits
    if width not in (8, 16, 32, 64):
        raise ConfigError(
            f"records cannot hold {dtype} bit for bit: only bool, and integers and floating-point"
            " numbers of 8, 16, 32 or 64 bits"
        )
    unsigned = jnp.dtype(f"uint{min(width, 32)}")
    inner = (*leaf.shape, 2) if width == 64 else leaf.shape

    def encode(x: jax.Array) -> jax.Array:
        numbers = jax.lax.bitcast_convert_type(x, unsigned)
        return _flat(numbers, len(inner)).astype(jnp.uint32)

    def decode(numbers: jax.Array) -> jax.Array:
        numbers = numbers.astype(unsigned).reshape(*numbers.shape[:-1], *inner)
        return jax.lax.bitcast_convert_type(numbers, dtype)

    return _Field(min(width, 32), math.prod(inner), encode, decode)


def _flag(leaf: Leaf) -> _Field:
    def encode(x: jax.Array) -> jax.Array:
        return _flat(x.astype(bool), len(leaf.shape)).astype(jnp.uint32)

    def decode(numbers: jax.Array) -> jax.Array:
        return numbers.reshape(*numbers.shape[:-1], *leaf.shape).astype(leaf.dtype)

    return _Field(1, math.prod(leaf.shape), encode, decode)


def _below(leaf: Leaf, limit: int) -> _Field:
    """Integers in [0, limit) as binary digits."""
    digits = np.arange(max(1, (limit - 1).bit_length()), dtype=np.uint32)
    size = math.prod(leaf.shape)

    def encode(x: jax.Array) -> jax.Array:
        numbers = _flat(x, len(leaf.shape)).astype(jnp.uint32)
        return _flat(numbers[..., None] >> digits & 1, 2)

    def decode(numbers: jax.Array) -> jax.Array:
        total = _sum(numbers[..., i :: len(digits)] << i for i in digits)
        return total.reshape(*numbers.shape[:-1], *leaf.shape).astype(leaf.dtype)

    return _Field(1, size * len(digits), encode, decode)


def _record(fields: PyTree) -> Record:
    """Concatenates the fields of each width, the widest first."""
    leaves: list[_Field]
    leaves, treedef = jax.tree.flatten(fields)
    groups = {
        width: [i for i, field in enumerate(leaves) if field.width == width]
        for width in sorted({field.width for field in leaves}, reverse=True)
    }
    counts = {width: sum(leaves[i].count for i in group) for width, group in groups.items()}
    sizes = [-(-count * width // 32) for width, count in counts.items()]

    def encode(transition: Transition) -> jax.Array:
        # checks that the structures agree
        arrays = jax.tree.leaves(jax.tree.map(lambda _, x: x, fields, transition))
        parts = []
        for width, group in groups.items():
            numbers = jnp.concatenate([leaves[i].encode(arrays[i]) for i in group], axis=-1)
            parts.append(_pack(numbers, width))
        return jnp.concatenate(parts, axis=-1)

    def decode(record: jax.Array) -> Transition:
        arrays: list[jax.Array | None] = [None] * len(leaves)
        start = 0
        for (width, group), size in zip(groups.items(), sizes, strict=True):
            numbers = _unpack(record[..., start : start + size], width, counts[width])
            start, first = start + size, 0
            for i in group:
                end = first + leaves[i].count
                arrays[i] = leaves[i].decode(numbers[..., first:end])
                first = end
        return jax.tree.unflatten(treedef, arrays)

    return Record(sum(sizes), encode, decode)


def _flat(x: jax.Array, axes: int) -> jax.Array:
    """Merges the last `axes` axes."""
    return x.reshape(*x.shape[: x.ndim - axes], -1)


def _pack(numbers: jax.Array, width: int) -> jax.Array:
    """uint32 [..., n] of numbers less than 2**width -> uint32 [..., ceil(n * width / 32)]."""
    if width == 32 or not numbers.shape[-1]:
        return numbers
    per_word = min(32 // width, numbers.shape[-1])
    padding = -numbers.shape[-1] % per_word
    numbers = jnp.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, padding)])
    return _sum(numbers[..., i::per_word] << i * width for i in range(per_word))


def _unpack(record: jax.Array, width: int, count: int) -> jax.Array:
    """The inverse of `_pack`: uint32 [..., W] -> uint32 [..., count or more], padding last."""
    if width == 32:
        return record
    shifts = np.arange(min(32 // width, count), dtype=np.uint32) * np.uint32(width)
    return _flat(record[..., None] >> shifts & np.uint32(2**width - 1), 2)


def _sum(parts: Iterable[jax.Array]) -> jax.Array:
    """Adds term by term: on a GPU, XLA fuses additions into their consumers, but no reduction."""
    return functools.reduce(jnp.add, parts)
