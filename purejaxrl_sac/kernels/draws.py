"""One draw of random bits in place of a function's many, each of which takes time to compile.

The instructions of threefry are repeated in the compiled program for every call. The parameters of
SAC, eleven arrays with a key each, take 12 times as long to compile as the same numbers cut from
one draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

Key = jax.Array


def one_draw(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(key, *args)`, whose new keys and random numbers are cut from one draw with `key`.

    They have the distributions that they have in `function`, and are as independent, but other
    values; equal draws with keys that follow from `key` in the same way are equal. These are drawn
    as in `function`: numbers of keys that do not follow from `key` alone, such as constants, keys
    in `args` and keys that depend on data; those of keys that are returned; those of loops and
    branches; and numbers of other than 32 bits.
    """

    def from_one_draw(key: Key, /, *args: Any) -> Any:
        closed, spec = jax.make_jaxpr(function, return_shape=True)(key, *args)
        leaves, names = jax.tree.leaves(args), _Names()
        draws = names.draws(closed, len(leaves))
        words = sum(_words(eqn) for eqn in _draws(closed.jaxpr))
        cuts = _Cuts(jax.random.bits(key, (_key_words(key.dtype) + words,), jnp.uint32), draws)
        outputs = _evaluate(closed, [cuts.keys(key, ()), *leaves], cuts)
        return jax.tree.unflatten(jax.tree.structure(spec), outputs)

    return from_one_draw


class _Draw(NamedTuple):
    """A draw with a key that follows from the key, and this key, by their names."""

    name: int
    key: int


class _Names:
    """Numbers of expressions in constants and the key, equal for equal ones; None: of data."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}
        self.sources: dict[int, tuple[int, ...]] = {}  # of keys that follow from the key
        self.found: list[_Draw | None] = []

    def draws(self, closed: core.ClosedJaxpr, num_args: int) -> list[int | None]:
        """The names of all draws in their order, None for those that are not to be replaced."""
        key = self._name("key", sources=())
        returned = set(self._outputs(closed, [key, *[None] * num_args])) - {None}

        @cache
        def is_returned(key: int) -> bool:
            return key in returned or any(map(is_returned, self.sources[key]))

        return [None if x and is_returned(x.key) else x and x.name for x in self.found]

    def _name(self, *expression: Hashable, sources: tuple[int, ...] | None = None) -> int:
        name = self.known.setdefault(expression, len(self.known))
        if sources is not None:
            self.sources[name] = sources
        return name

    def _outputs(self, closed: core.ClosedJaxpr, inputs: Sequence[int | None]) -> list[int | None]:
        """The names of a jaxpr's outputs."""
        jaxpr = closed.jaxpr
        names: dict[Any, int | None] = dict(zip(jaxpr.invars, inputs, strict=True))
        names.update(zip(jaxpr.constvars, map(self._constant, closed.consts), strict=True))

        def read(atom: Any) -> int | None:
            return self._constant(atom.val) if isinstance(atom, core.Literal) else names[atom]

        for eqn in jaxpr.eqns:
            found = [read(atom) for atom in eqn.invars]
            if _is_call(eqn):
                outputs = self._outputs(eqn.params["jaxpr"], found)
            else:
                outputs = [self._output(eqn, i, found) for i in range(len(eqn.outvars))]
            if _is_draw(eqn):
                draw = None
                if (key := found[0]) is not None and key in self.sources:
                    draw = _Draw(self._name(*_kind(eqn), 0, key), key)
                self.found.append(draw)
            names.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _constant(self, value: Any) -> int | None:
        if isinstance(value, jax.core.Tracer):
            return None
        if _is_key(jnp.result_type(value)):
            return self._name("constant", id(value))
        known = np.asarray(value)
        return self._name("constant", str(known.dtype), known.shape, known.tobytes())

    def _output(self, eqn: core.JaxprEqn, index: int, inputs: Sequence[int | None]) -> int | None:
        """A key that follows from the key, a constant, or None."""
        if any(name is None for name in inputs):
            return None
        keys = [
            name for atom, name in zip(eqn.invars, inputs, strict=True) if _is_key(_dtype(atom))
        ]
        own = tuple(name for name in keys if name in self.sources)
        if not own:
            return self._name(*_kind(eqn), index, *inputs)
        if len(own) < len(keys) or not _is_key(_dtype(eqn.outvars[index])):
            return None
        return self._name(*_kind(eqn), index, *inputs, sources=own)


class _Cuts:
    """Consecutive parts of drawn bits; the same draws get the same part."""

    def __init__(self, bits: jax.Array, draws: Sequence[int | None]) -> None:
        self.bits, self.used = bits, 0
        self.draws, self.known = iter(draws), dict[int, jax.Array]()

    def numbers(self, shape: Sequence[int]) -> jax.Array:
        size = math.prod(shape)
        part = self.bits[self.used : self.used + size].reshape(shape)
        self.used += size
        return part

    def keys(self, like: Key, shape: Sequence[int]) -> Key:
        data = self.numbers((*shape, _key_words(like.dtype)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))

    def result(self, eqn: core.JaxprEqn, key: Key) -> jax.Array | None:
        """What replaces the next draw, None if nothing does."""
        if (name := next(self.draws)) is None:
            return None
        if name not in self.known:
            out: Any = eqn.outvars[0].aval
            cut = self.keys(key, out.shape) if _is_split(eqn) else self.numbers(out.shape)
            self.known[name] = cut
        elif _is_split(eqn):
            self.used += _words(eqn)  # which later draws do not get: their numbers are kept
        return self.known[name]


def _key_words(dtype: Any) -> int:
    """Words of a key, 2 for threefry."""
    spec = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype))
    return math.prod(spec.shape)


def _is_split(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name == "random_split"


def _is_draw(eqn: core.JaxprEqn) -> bool:
    is_bits = eqn.primitive.name == "random_bits" and eqn.params["bit_width"] == 32
    return is_bits or _is_split(eqn)


def _kind(eqn: core.JaxprEqn) -> tuple[str, str]:
    return str(eqn.primitive), str(eqn.params)


def _dtype(atom: Any) -> Any:
    return jnp.result_type(atom.val) if isinstance(atom, core.Literal) else atom.aval.dtype


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


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
        cut = cuts.result(eqn, inputs[0]) if _is_draw(eqn) else None
        if cut is not None:
            outputs = [cut]
        elif _is_call(eqn):
            outputs = _evaluate(eqn.params["jaxpr"], inputs, cuts)
        else:
            result = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
            outputs = result if eqn.primitive.multiple_results else [result]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
