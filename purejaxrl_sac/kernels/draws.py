"""One draw of random bits in place of a function's many, each of which takes time to compile.

The instructions of threefry are repeated in the compiled program for every call. The parameters of
SAC, eleven arrays with a key each, take 12 times as long to compile as the same numbers cut from
one draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

Key = jax.Array


def one_draw(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(key, *args)`, whose new keys and random numbers are cut from one draw with `key`.

    They have the distributions that they have in `function`, and are as independent, but other
    values. Loops and branches within `function` draw with their own keys, as they would without
    this, and so do numbers of other than 32 bits.
    """

    def from_one_draw(key: Key, /, *args: Any) -> Any:
        closed, spec = jax.make_jaxpr(function, return_shape=True)(key, *args)
        words = sum(_words(eqn) for eqn in _draws(closed.jaxpr))
        cuts = _Cuts(jax.random.bits(key, (_key_words(key.dtype) + words,), jnp.uint32))
        outputs = _evaluate(closed, [cuts.keys(key, ()), *jax.tree.leaves(args)], cuts)
        return jax.tree.unflatten(jax.tree.structure(spec), outputs)

    return from_one_draw


class _Cuts:
    """Consecutive parts of drawn bits; equal keys and shapes get the same part."""

    def __init__(self, bits: jax.Array) -> None:
        self.bits, self.used = bits, 0
        self.known: dict[tuple[int, str], tuple[Key, jax.Array]] = {}

    def numbers(self, shape: Sequence[int]) -> jax.Array:
        size = math.prod(shape)
        part = self.bits[self.used : self.used + size].reshape(shape)
        self.used += size
        return part

    def keys(self, like: Key, shape: Sequence[int]) -> Key:
        data = self.numbers((*shape, _key_words(like.dtype)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))

    def result(self, eqn: core.JaxprEqn, key: Key) -> jax.Array:
        draw = id(key), f"{eqn.primitive} {eqn.params}"
        if draw not in self.known:
            out: Any = eqn.outvars[0].aval
            part = self.keys(key, out.shape) if _is_split(eqn) else self.numbers(out.shape)
            self.known[draw] = key, part  # holds the key, so that its id is not reused
        return self.known[draw][1]


def _key_words(dtype: Any) -> int:
    """Words of a key, 2 for threefry."""
    spec = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype))
    return math.prod(spec.shape)


def _is_split(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name == "random_split"


def _is_draw(eqn: core.JaxprEqn) -> bool:
    is_bits = eqn.primitive.name == "random_bits" and eqn.params["bit_width"] == 32
    return is_bits or _is_split(eqn)


def _is_call(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in ("jit", "pjit")


def _words(eqn: core.JaxprEqn) -> int:
    out: Any = eqn.outvars[0].aval
    return math.prod(out.shape) * (_key_words(out.dtype) if _is_split(eqn) else 1)


def _draws(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    for eqn in jaxpr.eqns:
        if _is_draw(eqn):
            yield eqn
        elif _is_call(eqn):
            yield from _draws(eqn.params["jaxpr"].jaxpr)


def _evaluate(closed: core.ClosedJaxpr, args: Sequence[Any], cuts: _Cuts) -> list[Any]:
    """Evaluates a jaxpr, as in "Writing custom interpreters in JAX" of JAX's documentation."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if _is_draw(eqn):
            outputs = [cuts.result(eqn, inputs[0])]
        elif _is_call(eqn):
            outputs = _evaluate(eqn.params["jaxpr"], inputs, cuts)
        else:
            result = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
            outputs = result if eqn.primitive.multiple_results else [result]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
