"""Trees of small arrays as one array of 32-bit words, exactly.

A loop that writes one array per output launches one kernel for each of them on an accelerator; of
a packed output it launches one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac.types import PyTree


def pack(tree: PyTree) -> jax.Array:
    """All leaves side by side, [words] uint32: bits are kept as they are.

    Leaves narrower than 32 bits take a word for each number.
    """
    words = [_words(x).reshape(-1) for x in map(jnp.asarray, jax.tree.leaves(tree))]
    return jnp.concatenate(words) if words else jnp.zeros(0, jnp.uint32)


def unpack(words: jax.Array, spec: PyTree) -> PyTree:
    """The inverse of `pack`, over any leading axes: [..., words] to leaves [..., *shape].

    Args:
        spec: the tree that was packed, or its shapes and dtypes.
    """
    leaves, structure = jax.tree.flatten(spec)
    found, start = [], 0
    for leaf in leaves:
        dtype = jnp.dtype(leaf.dtype)
        shape = (*leaf.shape, dtype.itemsize // 4) if dtype.itemsize > 4 else leaf.shape
        size = math.prod(shape)
        part = words[..., start : start + size].reshape(*words.shape[:-1], *shape)
        found.append(_numbers(part, dtype))
        start += size
    return jax.tree.unflatten(structure, found)


def packed_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    *,
    lead: tuple[int, ...] = (),
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, exactly, whose smallest outputs are written as one array while it runs.

    Args:
        lead: outputs of this shape, one number for each environment for example, are packed.
    """
    spec: PyTree = None

    def packed(carry: PyTree, x: PyTree) -> tuple[PyTree, tuple]:
        nonlocal spec
        carry, y = body(carry, x)
        spec = jax.eval_shape(lambda: y)
        small, large = _by_shape(y, lead)
        flat = jax.tree.map(lambda leaf: jnp.reshape(leaf, -1), small)
        return carry, (jax.vmap(pack)(flat).reshape(*lead, -1), large)

    carry, (words, large) = jax.lax.scan(packed, init, xs, length)
    small, _ = _by_shape(spec, lead)
    number = [jax.ShapeDtypeStruct((), leaf.dtype) for leaf in small]
    found, others = iter(unpack(words, number)), iter(large)
    ys = [next(found if leaf.shape == lead else others) for leaf in jax.tree.leaves(spec)]
    return carry, jax.tree.unflatten(jax.tree.structure(spec), ys)


def _by_shape(tree: PyTree, lead: tuple[int, ...]) -> tuple[list, list]:
    leaves = jax.tree.leaves(tree)
    small = [leaf for leaf in leaves if jnp.shape(leaf) == lead]
    return small, [leaf for leaf in leaves if jnp.shape(leaf) != lead]


def _words(x: jax.Array) -> jax.Array:
    if x.dtype.itemsize >= 4:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    narrow = x if x.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(x, _narrow(x.dtype))
    return narrow.astype(jnp.uint32)


def _numbers(words: jax.Array, dtype: Any) -> jax.Array:
    if dtype == jnp.bool_:
        return words != 0
    narrow = words if dtype.itemsize >= 4 else words.astype(_narrow(dtype))
    return jax.lax.bitcast_convert_type(narrow, dtype)


def _narrow(dtype: Any) -> Any:
    return jnp.uint8 if dtype.itemsize == 1 else jnp.uint16
