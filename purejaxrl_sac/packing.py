"""Loops that write many small outputs as one array: on an accelerator, one launch for all."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from purejaxrl_sac.records import words
from purejaxrl_sac.types import PyTree


def packed_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    *,
    lead: tuple[int, ...] = (),
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, exactly, whose smallest outputs are one array while it runs.

    Args:
        lead: outputs of this shape, one number for each environment for example, are packed.
    """
    spec: PyTree = None

    def packed(carry: PyTree, x: PyTree) -> tuple[PyTree, tuple]:
        nonlocal spec
        carry, y = body(carry, x)
        spec = jax.eval_shape(lambda: y)
        small, large = _by_shape(y, lead)
        return carry, (words(_numbers(small)).encode(small) if small else (), large)

    carry, (record, large) = jax.lax.scan(packed, init, xs, length)
    small, _ = _by_shape(spec, lead)
    found = iter(words(_numbers(small)).decode(record) if small else ())
    others = iter(large)
    ys = [next(found if leaf.shape == lead else others) for leaf in jax.tree.leaves(spec)]
    return carry, jax.tree.unflatten(jax.tree.structure(spec), ys)


def _by_shape(tree: PyTree, lead: tuple[int, ...]) -> tuple[list, list]:
    leaves = jax.tree.leaves(tree)
    small = [leaf for leaf in leaves if jnp.shape(leaf) == lead]
    return small, [leaf for leaf in leaves if jnp.shape(leaf) != lead]


def _numbers(leaves: list) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((), jnp.result_type(leaf)) for leaf in leaves]
