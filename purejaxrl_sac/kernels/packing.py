"""Packs small arrays into one: on accelerators, each array that a loop writes costs a launch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.memory.records import words
from purejaxrl_sac.types import PyTree


class Layout(NamedTuple):
    """How pytrees of one structure are packed into vectors."""

    size: int
    encode: Callable[[PyTree], jax.Array]  # leaves [..., *shape] -> float32 [..., size]
    decode: Callable[[jax.Array], PyTree]  # the inverse


def layout(spec: PyTree) -> Layout:
    """Packs pytrees into vectors of float32, exactly: other dtypes are bitcast.

    Gradients pass through leaves of float32 only.

    Args:
        spec: shapes and dtypes of one pytree, as returned by `jax.eval_shape`.

    Raises:
        ConfigError: a dtype that `records.words` cannot pack.
    """
    leaves: list[jax.ShapeDtypeStruct]
    leaves, structure = jax.tree.flatten(spec)
    others = [leaf for leaf in leaves if leaf.dtype != jnp.float32]
    record = words(others) if others else None
    sizes = [math.prod(leaf.shape) for leaf in leaves if leaf.dtype == jnp.float32]

    def encode(tree: PyTree) -> jax.Array:
        # checks that the structures agree
        arrays = jax.tree.leaves(jax.tree.map(lambda _, x: x, spec, tree))
        pairs = list(zip(arrays, leaves, strict=True))
        parts = [
            x.reshape(*x.shape[: x.ndim - len(leaf.shape)], -1)
            for x, leaf in pairs
            if leaf.dtype == jnp.float32
        ]
        if record:
            packed = record.encode([x for x, leaf in pairs if leaf.dtype != jnp.float32])
            parts.append(jax.lax.bitcast_convert_type(packed, jnp.float32))
        return jnp.concatenate(parts, axis=-1)

    def decode(vector: jax.Array) -> PyTree:
        rest = jax.lax.bitcast_convert_type(vector[..., sum(sizes) :], jnp.uint32)
        decoded = iter(record.decode(rest) if record else ())
        arrays, start = [], 0
        for leaf in leaves:
            if leaf.dtype != jnp.float32:
                arrays.append(next(decoded))
                continue
            part = vector[..., start : start + math.prod(leaf.shape)]
            arrays.append(part.reshape(*vector.shape[:-1], *leaf.shape))
            start += math.prod(leaf.shape)
        return jax.tree.unflatten(structure, arrays)

    return Layout(sum(sizes) + (record.words if record else 0), encode, decode)


def packed_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    *,
    lead: tuple[int, ...] = (),
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` that packs its smallest outputs into one array in the loop.

    Args:
        lead: outputs of this shape, for example one number per environment, are packed if they are
            float32, 32-bit integers or bool.
    """
    spec: PyTree = None

    def packed(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        nonlocal spec
        carry, y = body(carry, x)
        y = jax.tree.map(jnp.asarray, y)
        spec = jax.eval_shape(lambda: y)
        small, large = _by_size(y, lead)
        return carry, (layout(_numbers(small)).encode(small) if small else (), large)

    carry, (vectors, large) = jax.lax.scan(packed, init, xs, length)
    small, _ = _by_size(spec, lead)
    unpacked = iter(layout(_numbers(small)).decode(vectors) if small else ())
    others = iter(large)
    ys = [next(unpacked if _is_small(x, lead) else others) for x in jax.tree.leaves(spec)]
    return carry, jax.tree.unflatten(jax.tree.structure(spec), ys)


Leaf = jax.Array | jax.ShapeDtypeStruct


def _is_small(leaf: Leaf, lead: tuple[int, ...]) -> bool:
    packable = leaf.dtype in (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_)
    return leaf.shape == lead and packable


def _by_size(tree: PyTree, lead: tuple[int, ...]) -> tuple[list[Leaf], list[Leaf]]:
    """The leaves that are packed, and all others."""
    leaves = jax.tree.leaves(tree)
    small = [leaf for leaf in leaves if _is_small(leaf, lead)]
    return small, [leaf for leaf in leaves if not _is_small(leaf, lead)]


def _numbers(leaves: list[Leaf]) -> list[jax.ShapeDtypeStruct]:
    """Shape structs of one number of each leaf."""
    return [jax.ShapeDtypeStruct((), leaf.dtype) for leaf in leaves]
