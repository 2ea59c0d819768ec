"""A packed scan is a scan."""

import chex
import jax
import jax.numpy as jnp
import pytest

from purejaxrl_sac.packing import packed_scan


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
