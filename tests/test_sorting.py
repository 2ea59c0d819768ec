import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac.kernels.sorting import ascending


@pytest.mark.parametrize("size", (1, 2, 3, 4, 5, 6, 7, 8, 9, 11))
def test_every_column_of_zeros_and_ones_is_sorted_and_so_every_column(size):
    """The zero-one principle: a network that sorts all of these sorts all there is."""
    columns = (np.arange(2**size)[None] >> np.arange(size)[:, None]) & 1
    x = jnp.asarray(columns, jnp.float32)
    np.testing.assert_array_equal(ascending(x), np.sort(columns, axis=0))


def test_many_rows_equal_numpys_also_with_ties_infinities_and_seeds():
    x = np.array(jax.random.normal(jax.random.key(0), (3, 125, 40)).round(1))
    x[:, 3], x[:, 7] = np.inf, -np.inf
    np.testing.assert_array_equal(jax.vmap(ascending)(jnp.asarray(x)), np.sort(x, axis=1))


def test_a_nan_is_seen_in_its_column_and_in_no_other():
    x = jnp.arange(20.0).reshape(10, 2)[::-1].at[4, 0].set(jnp.nan)
    sorted_x = ascending(x)
    assert jnp.isnan(sorted_x[:, 0]).any()
    np.testing.assert_array_equal(sorted_x[:, 1], jnp.arange(1.0, 20.0, 2.0))
