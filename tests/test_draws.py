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
from purejaxrl_sac.agents.off_policy import replay_storage
from purejaxrl_sac.kernels.draws import one_draw
from tests.conftest import init, small
from tests.probes import Probe, stored


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


def of_other_keys(key, seed, other):
    """Draws whose keys do not follow from `key` alone."""
    level = jax.random.randint(key, (), 0, 5)
    return {
        "constant": jax.random.normal(jax.random.key(7), (4,)),
        "split constant": jax.random.normal(jax.random.split(jax.random.key(7))[1], (4,)),
        "of data": jax.random.normal(jax.random.fold_in(jax.random.key(7), seed), (4,)),
        "an argument": jax.random.normal(jax.random.fold_in(other, 1), (4,)),
        "selected": jax.random.normal(jnp.where(seed > 2, other, other), (4,)),
        "level": (level, jax.random.normal(jax.random.key(level), (4,))),
    }


def test_draws_with_other_keys_are_unchanged():
    """Such as fixed payoffs of a bandit, or the level that a number in the state stands for."""
    key, seed, other = jax.random.key(0), jnp.int32(3), jax.random.key(1)
    found = jax.jit(one_draw(of_other_keys))(key, seed, other)
    level, numbers = found.pop("level")
    expected = of_other_keys(key, seed, other)
    del expected["level"]
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, name)
    np.testing.assert_array_equal(numbers, jax.random.normal(jax.random.key(level), (4,)))


def test_draws_that_are_equal_stay_equal():
    """As in `target = network.init(key, obs)` with the key of the network itself."""
    network, obs = nn.Sequential([nn.Dense(3), nn.Dense(2)]), jnp.zeros((1, 4))

    def draw(key):
        first, second = (network.init(key, obs)["params"] for _ in range(2))
        halves = [jax.random.normal(jax.random.split(key)[1], (4,)) for _ in range(2)]
        folded = [jax.random.normal(jax.random.fold_in(key, i), (4,)) for i in (5, 6)]
        return first, second, halves, folded

    first, second, halves, folded = jax.jit(one_draw(draw))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(*(x["kernel"][:2, :2] for x in first.values()))
    np.testing.assert_array_equal(*halves)
    assert len({float(x[0]) for x in (*halves, *folded)}) == 3


def test_numbers_of_keys_that_are_returned_are_theirs():
    """Such as those of a key in an environment's state, from which later steps draw again."""

    def reset(key):
        key, unused = jax.random.split(key)
        return key, jax.random.normal(jax.random.split(key)[0], (4,)), jax.random.normal(unused)

    key, numbers, _ = jax.jit(one_draw(reset))(jax.random.key(0))
    np.testing.assert_array_equal(numbers, jax.random.normal(jax.random.split(key)[0], (4,)))


@pytest.mark.parametrize("seed", (lambda level: 7, lambda level: level.astype(int)))
def test_environments_draw_with_their_own_keys_during_the_warm_up(seed):
    """Fixed payoffs of a bandit, and payoffs of the level that is a part of the state."""

    def payoffs(level):
        return jax.random.normal(jax.random.key(seed(level)), (2,))

    env = Probe(lambda level, time, action: payoffs(level)[action], 3, signs=(0.0, 1.0, 2.0))
    config = small("dqn", env=env)
    state = init(jax.random.key(0), config)
    rows = stored(replay_storage(config, prl.build(config)[0]), state.memory, state.step)
    known = np.stack([payoffs(jnp.float32(level)) for level in range(3)])
    levels = rows.obs[..., 0].astype(int)
    np.testing.assert_array_equal(rows.reward, known[levels, rows.action])
    assert len(np.unique(levels)) > 1 and len(np.unique(rows.action)) == 2
