"""Sorting networks against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac.kernels.sorting import ascending


@pytest.mark.parametrize("size", (1, 2, 3, 4, 5, 6, 7, 8, 9, 11))
def test_all_columns_of_zeros_and_ones_are_sorted(size):
    """By the zero-one principle, a network that sorts all of these sorts all inputs."""
    columns = (np.arange(2**size)[None] >> np.arange(size)[:, None]) & 1
    x = jnp.asarray(columns, jnp.float32)
    np.testing.assert_array_equal(ascending(x), np.sort(columns, axis=0))


def test_sorting_equals_numpy_with_ties_infinities_and_vmap():
    x = np.array(jax.random.normal(jax.random.key(0), (3, 125, 40)).round(1))
    x[:, 3], x[:, 7] = np.inf, -np.inf
    np.testing.assert_array_equal(jax.vmap(ascending)(jnp.asarray(x)), np.sort(x, axis=1))


def test_a_nan_propagates_only_within_its_column():
    x = jnp.arange(20.0).reshape(10, 2)[::-1].at[4, 0].set(jnp.nan)
    sorted_x = ascending(x)
    assert jnp.isnan(sorted_x[:, 0]).any()
    np.testing.assert_array_equal(sorted_x[:, 1], jnp.arange(1.0, 20.0, 2.0))
