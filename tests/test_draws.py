"""`one_draw`: the distributions of a function's random numbers, from one call of the generator."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import purejaxrl_sac as prl
from purejaxrl_sac.kernels.draws import one_draw
from tests.conftest import small


def several(key):
    """Numbers of several distributions and shapes, each with its own key or with a repeated one."""
    first, second, third = jax.random.split(key, 3)
    return {
        "normal": jax.random.normal(first, (300, 20)),
        "again": jax.random.normal(first, (300, 20)),
        "uniform": jax.vmap(jax.random.uniform)(jax.random.split(second, 6_000)),
        "integers": jax.random.randint(third, (6_000,), 0, 4),
        "loop": jax.lax.map(
            jax.random.uniform, jax.random.split(jax.random.fold_in(key, 5), 6_000)
        ),
        "key": jax.random.uniform(key, (6_000,)),
    }


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(one_draw(several))(jax.random.key(3))


def test_distributions_are_unchanged(drawn):
    """Kolmogorov-Smirnov and chi-squared tests of 6,000 numbers each."""
    assert stats.kstest(drawn["normal"].ravel(), "norm").pvalue > 1e-3
    for name in ("uniform", "loop", "key"):
        assert stats.kstest(np.asarray(drawn[name]), "uniform").pvalue > 1e-3, name
    assert stats.chisquare(np.bincount(drawn["integers"], minlength=4)).pvalue > 1e-3


def test_numbers_are_independent_unless_their_keys_are_equal(drawn):
    np.testing.assert_array_equal(drawn["normal"], drawn["again"])
    normal = stats.norm.cdf(np.asarray(drawn["normal"])).ravel()
    rows = np.stack([normal, *(np.asarray(drawn[x], float) for x in
                               ("uniform", "integers", "loop", "key"))])  # fmt: skip
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(6_000)


def test_seeds_are_independent_and_the_same_with_and_without_vmap():
    keys = jax.random.split(jax.random.key(0), 50)
    draw = one_draw(lambda key, shift: jax.random.normal(key, (200,)) + shift)
    lanes = jax.vmap(draw, (0, None))(keys, 1.0)
    np.testing.assert_array_equal(lanes[7], draw(keys[7], 1.0))
    correlations = np.corrcoef(lanes)[np.triu_indices(50, 1)]
    assert stats.kstest(correlations * np.sqrt(200), "norm").pvalue > 1e-3


@pytest.mark.parametrize("impl", ("threefry2x32", "rbg"))
def test_keys_of_any_kind_are_cut(impl):
    def draw(key):
        left, right = jax.random.split(key)
        return jax.random.bits(left, (4,), jnp.uint8), jax.random.uniform(right, (3,)), left

    numbers, uniform, left = one_draw(draw)(jax.random.key(0, impl=impl))
    assert numbers.dtype == jnp.uint8  # drawn with their own key
    np.testing.assert_array_equal(numbers, jax.random.bits(left, (4,), jnp.uint8))
    assert uniform.shape == (3,)
    assert jax.random.key_impl(left) == jax.random.key_impl(jax.random.key(0, impl=impl))


@pytest.mark.parametrize("algorithm", ("dqn", "simba"))
def test_initialisation_draws_once_and_twice_per_warm_up_step(algorithm):
    """Each draw is about 200 instructions in the compiled program."""
    config = small(algorithm, rollout_length=1)
    program = jax.jit(partial(prl.init, config=config)).lower(jax.random.key(0)).compile()
    # the loop of threefry carries its two lists of rotations
    assert len(re.findall(r"u32\[4\]\S*, u32\[4\]\S*\) while\(", program.as_text())) == 3


def test_parameters_have_the_distribution_of_their_initialisers():
    """Moments and orthogonality of a network with four kinds of layers, over 20 seeds."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(50)(x)
            x = prl.networks.layers.orthogonal(2.0)(40)(x)
            x = nn.Dense(30, kernel_init=nn.initializers.he_uniform())(x)
            return prl.networks.layers.NoisyDense(20)(x)

    init = one_draw(Network().init)
    params = jax.vmap(init, (0, None))(jax.random.split(jax.random.key(1), 20), jnp.zeros((1, 60)))
    layers = params["params"]
    lecun = np.asarray(layers["Dense_0"]["kernel"])
    np.testing.assert_allclose(lecun.std(), np.sqrt(1 / 60), rtol=0.01)
    np.testing.assert_allclose(lecun.mean(), 0, atol=4 * np.sqrt(1 / 60 / lecun.size))
    scale = np.sqrt(1 / 60) / 0.87962566  # of the normal before it is truncated
    assert stats.kstest(lecun.ravel() / scale, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
    square = np.asarray(layers["Dense_1"]["kernel"])
    np.testing.assert_allclose(square.mT @ square, np.tile(4 * np.eye(40), (20, 1, 1)), atol=1e-4)
    uniform = np.asarray(layers["Dense_2"]["kernel"])
    bound = np.sqrt(6 / 40)
    assert stats.kstest(uniform.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    noisy = np.asarray(layers["NoisyDense_0"]["mu_w"])
    bound = np.sqrt(1 / 30)
    assert stats.kstest(noisy.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
