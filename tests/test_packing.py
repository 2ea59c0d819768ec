"""Packed words give back every bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac.packing import pack, packed_scan, unpack

TREE = {
    "float": jnp.array([[1.5, -0.0, jnp.nan], [jnp.inf, 1e-40, -3.0]]),
    "int": jnp.array([-(2**31), 7], jnp.int32),
    "bool": jnp.array([True, False, True]),
    "byte": jnp.arange(250, 256, dtype=jnp.uint8).reshape(2, 3),
    "half": jnp.array([1.5, -jnp.inf], jnp.bfloat16),
    "scalar": jnp.float32(2),
    "empty": jnp.zeros((0, 3)),
}


def bits(tree):
    return jax.tree.map(lambda x: np.asarray(x).tobytes(), tree)


def test_every_bit_comes_back():
    found = unpack(pack(TREE), TREE)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, TREE)
    assert bits(found) == bits(TREE)


def test_leading_axes_are_kept():
    many = jax.tree.map(lambda x: jnp.stack([x, x[::-1] if x.ndim else x + 1]), TREE)
    words = jax.vmap(pack)(many)
    assert words.ndim == 2 and words.dtype == jnp.uint32
    assert bits(unpack(words, TREE)) == bits(many)


def test_nothing_has_no_words():
    assert pack(()).shape == (0,)
    assert unpack(pack({}), {}) == {}


@pytest.mark.parametrize("length", (1, 4))
def test_a_packed_scan_is_a_scan(length):
    def body(carry, x):
        return carry + x, {"sum": carry, "x": x, "even": x % 2 == 0, "row": jnp.full(2, x)}

    xs = jnp.arange(length)
    chex.assert_trees_all_equal(packed_scan(body, 0, xs), jax.lax.scan(body, 0, xs))


def test_a_packed_scan_writes_one_array():
    def body(carry, _):
        return carry + 1, {"a": carry * 1.0, "b": carry, "c": carry > 2}

    jaxpr = jax.make_jaxpr(lambda: packed_scan(body, 0, length=5))()
    (scan,) = [e for e in jaxpr.eqns if str(e.primitive) == "scan"]
    assert [v.aval.shape for v in scan.outvars[scan.params["num_carry"] :]] == [(5, 3)]


def test_outputs_of_a_leading_shape_are_packed():
    def body(carry, x):
        row = jnp.arange(3) + x
        return carry + x, (row, {"large": jnp.ones((3, 2)) * x, "flag": row > 2}, carry)

    def packed(xs):
        return packed_scan(body, 0, xs, lead=(3,))

    xs = jnp.arange(4)
    chex.assert_trees_all_equal(packed(xs), jax.lax.scan(body, 0, xs))
    (scan,) = [e for e in jax.make_jaxpr(packed)(xs).eqns if str(e.primitive) == "scan"]
    shapes = {v.aval.shape for v in scan.outvars[scan.params["num_carry"] :]}
    assert shapes == {(4, 3, 2), (4,)}
