"""Packed scans and layouts are exact."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac.kernels.packing import layout, packed_scan


@pytest.mark.parametrize("length", (1, 4))
def test_a_packed_scan_equals_a_scan(length):
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


def test_gradients_pass_through_a_packed_scan():
    def total(scan, w):
        def body(carry, x):
            return carry * w, {"a": carry * w, "n": x, "flag": carry > 2}

        carry, ys = scan(body, 1.0, jnp.arange(3))
        return ys["a"].sum() + carry

    ours = jax.grad(lambda w: total(packed_scan, w))(2.0)
    assert ours == jax.grad(lambda w: total(jax.lax.scan, w))(2.0) == 29


def test_outputs_that_cannot_be_packed_are_stacked():
    def body(carry, x):
        key = jax.random.fold_in(jax.random.key(0), x)
        return carry, {"key": key, "complex": 1j * x, "python": True, "half": jnp.bfloat16(2)}

    ours, theirs = (scan(body, 0, jnp.arange(3))[1] for scan in (packed_scan, jax.lax.scan))
    data = [jax.tree.map(jax.random.key_data, x.pop("key")) for x in (ours, theirs)]
    chex.assert_trees_all_equal(*data)
    chex.assert_trees_all_equal(ours, theirs)


def test_a_layout_preserves_every_bit():
    tree = {
        "float": jnp.array([[1.5, -0.0, jnp.nan], [jnp.inf, 1e-40, -3.0]]),
        "int": jnp.array([-(2**31), 7, 0x7F800001], jnp.int32),
        "bool": jnp.array([True, False, True]),
        "scalar": jnp.float32(2),
        "empty": jnp.zeros((0, 3), jnp.uint8),
    }
    packed = layout(jax.eval_shape(lambda: tree))
    decoded = packed.decode(packed.encode(tree))
    chex.assert_trees_all_equal_shapes_and_dtypes(decoded, tree)
    raw = [[np.asarray(x).tobytes() for x in jax.tree.leaves(t)] for t in (decoded, tree)]
    assert raw[0] == raw[1]
    many = jax.tree.map(lambda x: jnp.stack([x, x]), tree)
    chex.assert_trees_all_equal(packed.decode(jax.vmap(packed.encode)(many)), many)
