"""Layers compared with flax and their definitions, and how networks are built from them."""

import re
from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import networks
from purejaxrl_sac.agents.distributional import implicit_network
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.networks import (
    MINATAR,
    MLP,
    NATURE,
    Conv,
    Dueling,
    ImplicitQuantileNetwork,
    Linear,
    NoisyDense,
    QNetwork,
    draw_noise,
    midpoints,
)
from purejaxrl_sac.networks.q_networks import cos_pi
from tests.conftest import quick, small

CONFIG = SimpleNamespace(
    hidden_sizes=(16, 8),
    activation="relu",
    compute_dtype="float32",
    num_quantiles=5,
    num_target_quantiles=5,
    num_policy_quantiles=5,
    cvar=1.0,
)
VECTOR, IMAGE = spaces.Box(-1, 1, (6,)), spaces.Box(0, 1, (10, 10, 4))


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "filters", "width", "stride"),
    (
        ((10, 10, 4), 16, 3, 1),
        ((9, 7, 2), 5, 3, 2),
        ((6, 6, 1), 3, 6, 1),
        ((36, 37, 4), 32, 8, 4),
        ((20, 20, 32), 64, 4, 2),
        ((9, 9, 64), 64, 3, 1),
    ),
)
def test_conv_equals_the_flax_convolution_without_padding(shape, filters, width, stride):
    x = random((2, *shape))
    ours = Conv(filters, width, stride)
    params = jax.jit(ours.init)(jax.random.key(1), x)["params"]["Dense_0"]
    bias = random((filters,), 2)
    theirs = nn.Conv(filters, (width, width), stride, padding="VALID")
    kernel = params["kernel"].reshape(width, width, shape[-1], filters)
    expected = jax.jit(theirs.apply)({"params": {"kernel": kernel, "bias": bias}}, x)
    y = jax.jit(ours.apply)({"params": {"Dense_0": {**params, "bias": bias}}}, x)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_conv_is_initialised_like_the_flax_convolution():
    x = random((1, 10, 10, 4))
    kernel = jax.jit(Conv(64, 3).init)(jax.random.key(1), x)["params"]["Dense_0"]["kernel"]
    theirs = jax.jit(nn.Conv(64, (3, 3)).init)(jax.random.key(1), x)["params"]["kernel"]
    assert kernel.size == theirs.size
    np.testing.assert_allclose(kernel.std(), theirs.std(), rtol=0.05)


def test_dueling_is_the_value_plus_centred_advantages():
    mlp, x = partial(MLP, (8,)), random((5, 6))
    network = Dueling(mlp, nn.Dense, num_actions=3, num_outputs=4)
    q, variables = jax.jit(network.init_with_output)(jax.random.key(1), x)
    params = variables["params"]
    assert set(params) == {"value", "advantage"}
    value, advantage = (
        np.asarray(jax.jit(Linear(mlp, nn.Dense, actions, 4).apply)({"params": params[name]}, x))
        for name, actions in (("value", 1), ("advantage", 3))
    )
    assert q.shape == advantage.shape == (5, 3, 4) and value.shape == (5, 1, 4)
    centred = advantage - advantage.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(q, value + centred, atol=1e-5)
    np.testing.assert_allclose(q.mean(1), value[:, 0], atol=1e-5)
    assert np.abs(advantage.mean(1)).max() > 0.01


def noisy(features=3, width=6, rows=4):
    layer, x = NoisyDense(features), random((rows, width))
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    params["sigma_b"] = params["sigma_b"] * 1.5  # to distinguish both

    @jax.jit
    def apply(x, key=None):
        noise = {} if key is None else draw_noise(key, {"params": params})
        return layer.apply({"params": params, **noise}, x)

    return apply, x, params


def test_noisy_dense_without_noise_is_dense():
    apply, x, params = noisy()
    np.testing.assert_allclose(apply(x), x @ params["mu_w"] + params["mu_b"], rtol=1e-5, atol=1e-6)


def test_noisy_dense_has_factorised_noise_around_its_mean():
    """E|e| = sqrt(2 / pi), so one unit's variance is s_w^2 |x|^2 2 / pi + s_b^2 sqrt(2 / pi)."""
    apply, x, params = noisy()
    keys = jax.random.split(jax.random.key(2), 20_000)
    y = jax.jit(jax.vmap(lambda key: apply(x, key)))(keys)
    spread = jnp.sqrt(2 / jnp.pi)
    s_w, s_b = params["sigma_w"][0, 0], params["sigma_b"][0]
    variance = s_w**2 * (x**2).sum(-1) * spread**2 + s_b**2 * spread
    expected = jnp.broadcast_to(variance[:, None], y.shape[1:])
    np.testing.assert_allclose(y.var(0), expected, rtol=0.08)
    error = (y.mean(0) - apply(x)) / jnp.sqrt(expected / len(keys))
    assert jnp.abs(error).max() < 5


def test_noisy_dense_adds_an_outer_product_of_rank_one():
    apply, _, params = noisy(features=5, width=7)
    rows = jnp.concatenate([jnp.zeros((1, 7)), jnp.eye(7)])  # the biases, and the weights
    noise = apply(rows, jax.random.key(4)) - apply(rows)
    weights = (noise[1:] - noise[0]) / params["sigma_w"]
    out = noise[0] / params["sigma_b"]
    singular = np.linalg.svd(np.asarray(weights), compute_uv=False)
    assert singular[0] > 0.1 and singular[1] < 1e-4 * singular[0]
    np.testing.assert_allclose(weights[0] / weights[0, 0], out / out[0], rtol=1e-3)


def test_one_draw_gives_independent_noise_to_every_layer():
    network = networks.q_network(CONFIG, VECTOR, 2, 4, stream=networks.Dueling, dense=NoisyDense)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 6)))
    noise = draw_noise(jax.random.key(1), params)
    layers = jax.tree.leaves(noise)
    assert sorted(len(layer) for layer in layers) == sorted([6 + 16, 16 + 8, 16 + 8, 8 + 4, 8 + 8])
    assert len(np.unique(np.concatenate(layers))) == sum(len(layer) for layer in layers)
    jaxpr = str(jax.make_jaxpr(lambda key: draw_noise(key, params))(jax.random.key(1)))
    assert jaxpr.count("random_bits") == 1
    plain = networks.q_network(CONFIG, VECTOR, 2, 4)
    plain = jax.jit(plain.init)(jax.random.key(0), jnp.zeros((1, 6)))
    assert draw_noise(jax.random.key(1), plain) == {"noise": {}}


def test_cos_pi_is_accurate_to_the_rounding_of_float32():
    x = np.concatenate([np.linspace(-64, 64, 400_001), np.arange(-64, 65) / 2]).astype("float32")
    computed = np.asarray(jax.jit(cos_pi)(x))
    np.testing.assert_allclose(computed, np.cos(np.pi * x.astype("float64")), atol=2e-7)
    assert np.abs(computed).max() <= 1 + 2e-7
    np.testing.assert_array_equal(cos_pi(jnp.float32([0.5, 1.5, 63.5])), 0)


def test_noise_is_a_transformed_standard_normal_computed_once():
    layer, x = NoisyDense(64), random((32, 128))
    params = jax.jit(layer.init)(jax.random.key(1), x)

    def apply(key, x):
        return layer.apply({**params, **draw_noise(key, params)}, x)

    key = jax.random.key(2)
    e = jax.jit(lambda key: jax.random.normal(key, (128 + 64,), jnp.float32))(key)
    drawn = jax.jit(draw_noise)(key, params)["noise"]["f"]
    np.testing.assert_array_equal(drawn, jnp.sign(e) * jnp.sqrt(jnp.abs(e)))
    compiled = jax.jit(apply).lower(key, x).compile().as_text()
    functions = [part for part in compiled.split("\n\n") if "erf_inv" in part]
    roots = [re.search(r"ROOT \S+ = f32\[([\d,]*)\]", part) for part in functions]
    shapes = {root.group(1) for root in roots if root}
    assert shapes == {"192"}, shapes  # not once for each row


def test_noise_is_shared_in_a_batch_but_not_across_vmap():
    apply, x, _ = noisy()
    same = jnp.broadcast_to(x[0], x.shape)

    def draw(key, x):
        return apply(x, key)

    key = jax.random.key(3)
    y = draw(key, same)
    np.testing.assert_allclose(y, jnp.broadcast_to(y[0], y.shape), rtol=1e-6)
    np.testing.assert_array_equal(draw(key, same), y)
    rows = jax.vmap(draw)(jax.random.split(key, len(x)), same)
    assert len(np.unique(np.asarray(rows)[:, 0])) == len(x)


@pytest.mark.parametrize(("width", "features"), ((4, 2_000), (400, 50)))
def test_noisy_dense_is_initialised_as_in_fortunato_et_al(width, features):
    """mu ~ U(-1/sqrt p, 1/sqrt p) and sigma = 0.5/sqrt p, for p inputs."""
    x = jnp.zeros((1, width))
    params = jax.jit(NoisyDense(features).init)(jax.random.key(0), x)["params"]
    bound = 1 / np.sqrt(width)
    for name in ("mu_w", "mu_b"):
        mu = np.asarray(params[name])
        assert np.abs(mu).max() <= bound
        np.testing.assert_allclose(np.abs(mu).max(), bound, rtol=0.1)
        np.testing.assert_allclose(np.abs(mu).mean(), bound / 2, rtol=0.2)
        assert mu.min() < -0.8 * bound and mu.max() > 0.8 * bound
    for name in ("sigma_w", "sigma_b"):
        np.testing.assert_allclose(params[name], np.full(params[name].shape, bound / 2), rtol=1e-6)
    assert params["mu_w"].shape == (width, features) and params["mu_b"].shape == (features,)


def scaled_first_layer(variables, factor):
    """The same parameters, with those of the first layer scaled."""
    flat = jax.tree_util.tree_flatten_with_path(variables)[0]
    first = next(path for path, leaf in flat if leaf.ndim == 2 and leaf.shape[0] == 6)

    def scale(path, leaf):
        return leaf * factor if path[:-1] == first[:-1] else leaf

    return jax.tree_util.tree_map_with_path(scale, variables)


def test_layer_norm_makes_the_first_layer_scale_invariant():
    x = random((7, 6))
    changes = []
    for norm in (nn.LayerNorm, None):
        network = networks.q_network(CONFIG, VECTOR, 3, 1, norm=norm)
        variables = jax.jit(network.init)(jax.random.key(0), x)
        scaled = scaled_first_layer(variables, 50.0)
        before, after = (jax.jit(network.apply)(params, x) for params in (variables, scaled))
        changes.append(float(jnp.abs(after - before).max()))
    assert changes[0] < 1e-3 < 1 < changes[1]


def test_layer_norm_comes_before_every_activation():
    calls = []

    class Spy(nn.LayerNorm):
        def __call__(self, x):
            y = super().__call__(x)
            calls.append((x, y))
            return y

    for space, count in ((VECTOR, 2), (IMAGE, 3)):
        calls.clear()
        x = random((7, *space.shape))
        network = networks.q_network(CONFIG, space, 3, 1, norm=Spy)

        @jax.jit
        def normalized(key, x, network=network):
            network.init(key, x)
            return calls

        found = jax.device_get(normalized(jax.random.key(0), x))
        assert len(found) == count
        for before, y in found:
            assert (before < 0).any()
            np.testing.assert_allclose(y.mean(-1), 0, atol=1e-4)
            np.testing.assert_allclose(y.std(-1), 1, atol=0.05)


KINDS = {
    "plain": networks.q_network,
    "dueling": partial(networks.q_network, stream=Dueling),
    "noisy": partial(networks.q_network, dense=NoisyDense),
    "normalized": partial(networks.q_network, norm=nn.LayerNorm),
    "implicit": implicit_network,
}


def outputs(kind, space, num_outputs=1, call=jax.eval_shape, **changes):
    """Variables and outputs of a network; by default, their shapes."""
    config = SimpleNamespace(**{**vars(CONFIG), **changes})
    network = KINDS[kind](config, space, 3, num_outputs)
    x = random((7, *space.shape))
    y, variables = call(network.init_with_output, jax.random.key(1), x)
    return variables, y


def computed(function, *arguments):
    return jax.device_get(jax.jit(function)(*arguments))


def test_bfloat16_does_not_make_actions_equal():
    """Near 100, bfloat16 numbers are 1/2 apart."""
    config = SimpleNamespace(**{**vars(CONFIG), "compute_dtype": "bfloat16"})
    for stream in (networks.Linear, networks.Dueling):
        model = networks.q_network(config, VECTOR, 2, 1, stream=stream)
        x = jax.random.normal(jax.random.key(0), (64, 6))
        params = jax.tree.map(
            lambda leaf: leaf + 100.0 * (leaf.shape in {(1,), (2,)}),  # output biases
            jax.jit(model.init)(jax.random.key(1), x),
        )
        q = np.asarray(jax.jit(model.apply)(params, x)).squeeze(-1)
        assert 80 < q.mean() < 220
        assert (q[:, 0] != q[:, 1]).all()


def expect_bfloat16_in_computations_only(kind, space):
    plain, full = outputs(kind, space, call=computed)
    variables, half = outputs(kind, space, call=computed, compute_dtype="bfloat16")
    for leaf, other in zip(jax.tree.leaves(variables), jax.tree.leaves(plain), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)
    if kind == "implicit":
        full, half = full.value, half.value
    assert half.dtype == full.dtype == jnp.float32
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_used_in_computations_only(kind):
    expect_bfloat16_in_computations_only(kind, VECTOR)


@pytest.mark.parametrize("kind", quick(KINDS, "normalized"))
def test_bfloat16_is_used_in_computations_of_images_only(kind):
    expect_bfloat16_in_computations_only(kind, IMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_outputs_per_action(kind):
    count = 1 if kind == "implicit" else 4
    _, y = outputs(kind, VECTOR, count)
    assert (y.value if kind == "implicit" else y).shape == (7, 3, 5 if kind == "implicit" else 4)


def test_hidden_sizes_are_those_of_the_configuration():
    for sizes in ((), (16,), (16, 8), (16, 8, 4)):
        variables, _ = outputs("plain", VECTOR, 2, hidden_sizes=sizes)
        kernels = [leaf.shape for leaf in jax.tree.leaves(variables) if leaf.ndim == 2]
        expected = list(zip((6, *sizes), (*sizes, 6), strict=True))
        assert sorted(kernels) == sorted(expected)


def iqn(distortion=lambda fraction: fraction, num_quantiles=5):
    mlp = partial(MLP, (8,))
    network = ImplicitQuantileNetwork(
        MLP((16,)),
        Linear(mlp, nn.Dense, 3, 1),
        num_quantiles=num_quantiles,
        num_target_quantiles=3,
        num_policy_quantiles=num_quantiles,
        distortion=distortion,
    )
    x = random((7, 6))
    return network, jax.jit(network.init)(jax.random.key(1), x), x


def test_iqn_samples_different_fractions_for_every_row():
    network, variables, x = iqn(num_quantiles=64)
    apply = jax.jit(network.apply)
    quantiles = apply(variables, x, rngs={"tau": jax.random.key(2)})
    assert quantiles.value.shape == (7, 3, 64) and quantiles.fraction.shape == (7, 64)
    fraction = np.asarray(quantiles.fraction)
    assert (fraction >= 0).all() and (fraction < 1).all()
    assert len(np.unique(fraction)) > 440
    np.testing.assert_allclose(fraction.mean(), 0.5, atol=0.06)
    again = apply(variables, x, rngs={"tau": jax.random.key(3)})
    assert (again.fraction != quantiles.fraction).all()


def test_iqn_has_its_own_numbers_of_quantiles_for_loss_target_and_policy():
    config = {"num_quantiles": 2, "num_target_quantiles": 3, "num_policy_quantiles": 4}
    config = SimpleNamespace(**{**vars(CONFIG), **config, "cvar": 1.0})
    network, x = implicit_network(config, VECTOR, 3, 1), random((7, 6))
    variables = jax.eval_shape(network.init, jax.random.key(1), x)
    for number, rngs in ((2, ("tau",)), (3, ("tau_target",)), (4, ())):
        apply = partial(network.apply, rngs=dict.fromkeys(rngs, jax.random.key(2)))
        y = jax.eval_shape(apply, variables, x)
        assert y.value.shape == (7, 3, number) and y.fraction.shape == (7, number)


def test_iqn_without_a_key_uses_distorted_midpoints():
    np.testing.assert_allclose(midpoints(5), [0.1, 0.3, 0.5, 0.7, 0.9], rtol=1e-6)
    network, variables, x = iqn()
    plain = jax.jit(network.apply)(variables, x)
    expected = jnp.broadcast_to(midpoints(5), (7, 5))
    np.testing.assert_allclose(plain.fraction, expected)
    risk_averse, _, _ = iqn(lambda fraction: 0.25 * fraction)
    distorted = jax.jit(risk_averse.apply)(variables, x)
    np.testing.assert_allclose(distorted.fraction, 0.25 * expected)
    assert (distorted.value != plain.value).any()
    key = {"tau": jax.random.key(2)}  # fractions are not distorted in training
    sampled = (jax.jit(n.apply)(variables, x, rngs=key).fraction for n in (network, risk_averse))
    np.testing.assert_array_equal(*sampled)


def test_cvar_is_the_distortion_of_the_implicit_network():
    x = random((2, 6))
    config = SimpleNamespace(**{**vars(CONFIG), "cvar": 0.2})
    network = implicit_network(config, VECTOR, 3, 1)
    y, _ = jax.jit(network.init_with_output)(jax.random.key(0), x)
    np.testing.assert_allclose(y.fraction[0], 0.2 * midpoints(5), rtol=1e-6)


def test_iqn_values_by_their_definition():
    network, variables, x = iqn()
    params = variables["params"]
    y = jax.jit(network.apply)(variables, x, rngs={"tau": jax.random.key(2)})
    features = np.asarray(MLP((16,)).apply({"params": params["torso"]}, x))
    cosines = np.cos(np.pi * np.arange(64) * np.asarray(y.fraction)[..., None])
    dense = params["Dense_0"]
    embedding = np.maximum(cosines @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), 0)
    stream = Linear(partial(MLP, (8,)), nn.Dense, 3, 1)
    value = jax.jit(stream.apply)({"params": params["stream"]}, features[:, None] * embedding)
    np.testing.assert_allclose(y.value, value[..., 0].swapaxes(1, 2), atol=1e-5)


def test_each_quantile_depends_on_its_own_fraction_only():
    network, variables, x = iqn()
    other, _, _ = iqn(lambda fraction: fraction.at[2].set(0.99))
    change = np.abs(np.subtract(*(jax.jit(n.apply)(variables, x).value for n in (network, other))))
    assert (change[..., 2] > 0).all()
    np.testing.assert_allclose(change[..., [0, 1, 3, 4]], jnp.zeros((7, 3, 4)), atol=1e-6)


@pytest.mark.parametrize("shape", ((4,), (4, 4), ()))
def test_a_cnn_needs_images(shape):
    space = spaces.Box(-1, 1, shape)
    with pytest.raises(ConfigError, match=r"a CNN needs images \[H, W, C\], but") as error:
        networks.torso(space, (8,), "relu", layers=lambda space: MINATAR)
    assert "\n" not in str(error.value) and str(shape) in str(error.value)


def test_a_cnn_rejects_discrete_observations():
    with pytest.raises(ConfigError, match="a CNN needs images"):
        networks.torso(spaces.Discrete(5), (8,), "relu", layers=lambda space: MINATAR)


def test_images_too_small_for_their_convolutions_raise():
    def torso(size, layers):
        space = spaces.Box(0, 1, (*size, 1))
        return networks.torso(space, (8,), "relu", layers=lambda space: layers)

    for size, layers in (((2, 2), MINATAR), ((35, 35), NATURE), ((84, 20), NATURE)):
        with pytest.raises(ConfigError, match="are too small for convolutions") as error:
            torso(size, layers)
        assert "\n" not in str(error.value) and str(size) in str(error.value)
    for size, layers in (((3, 3), MINATAR), ((36, 36), NATURE)):
        network = torso(size, layers)
        x = jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)
        assert jax.eval_shape(network.init_with_output, jax.random.key(0), x)[0].shape == (1, 8)


def test_convolutions_depend_on_the_observations():
    shapes = {(84, 84, 4): NATURE, (36, 40, 1): NATURE, (84, 35, 4): MINATAR, (10, 10, 4): MINATAR}
    for shape, layers in shapes.items():
        assert networks.convolutions(spaces.Box(0, 255, shape)) == layers
    for space in (VECTOR, spaces.Box(0, 1, (84, 84)), spaces.Discrete(7)):
        assert networks.convolutions(space) == ()


@pytest.mark.parametrize(
    ("shape", "message"),
    (
        ((84, 84), "without a channel axis"),
        ((3, 64, 64), "channels first"),
        ((4, 84, 84), "channels first"),
    ),
)
def test_images_of_other_layouts_raise(shape, message):
    with pytest.raises(ConfigError, match=message):
        networks.convolutions(spaces.Box(0, 255, shape, jnp.uint8))


def test_features_of_images_are_between_0_and_1():
    obs = jnp.array([[0, 51, 255]], jnp.uint8)
    encode = networks.features(spaces.Box(0, 255, (3,), jnp.uint8))
    np.testing.assert_allclose(encode(obs), [[0, 0.2, 1]], rtol=1e-6)
    same = networks.features(spaces.Box(0, 1, (3,), jnp.uint8))
    np.testing.assert_array_equal(same(obs), [[0, 51, 255]])


def test_atari_images_use_the_convolutions_of_nature():
    space = spaces.Box(0, 255, (84, 84, 4))
    config = SimpleNamespace(**{**vars(CONFIG), "hidden_sizes": (512,)})
    network = networks.q_network(config, space, 6, 1)
    x = jax.ShapeDtypeStruct((2, 84, 84, 4), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    kernels = sorted(leaf.shape for leaf in jax.tree.leaves(variables) if leaf.ndim == 2)
    expected = [(8 * 8 * 4, 32), (4 * 4 * 32, 64), (3 * 3 * 64, 64), (7 * 7 * 64, 512), (512, 6)]
    assert kernels == sorted(expected)
    assert jax.eval_shape(network.apply, variables, x).shape == (2, 6, 1)
    assert isinstance(network, QNetwork)


@pytest.mark.parametrize("shape", ((64, 64), (3, 128), (128, 2), (1, 1)))
def test_layers_are_initialised_orthogonally(key, shape):
    layer = networks.orthogonal(2.0)(shape[1])
    keys = jax.random.split(key, 16)
    kernels = jax.jit(jax.vmap(lambda key: layer.init(key, jnp.zeros((1, shape[0])))))(keys)
    x = np.asarray(kernels["params"]["kernel"], np.float64)
    assert x.shape == (16, *shape)
    gram = x @ x.swapaxes(1, 2) if shape[0] < shape[1] else x.swapaxes(1, 2) @ x
    np.testing.assert_allclose(gram, np.broadcast_to(4 * np.eye(min(shape)), gram.shape), atol=1e-4)
    assert len(np.unique(x[:, 0, 0].round(5))) == (2 if shape == (1, 1) else 16)


@pytest.mark.parametrize("algorithm", ("ppo", "a2c", "simba"))
def test_initialisation_uses_no_matrix_factorisation(algorithm):
    """See `networks.layers._orthogonal`."""
    config = small(algorithm)
    keys = jax.random.split(jax.random.key(0), 2)
    program = str(jax.make_jaxpr(jax.vmap(lambda key: prl.init(key, config)))(keys))
    assert "normal" in program or "erf_inv" in program
    assert not any(name in program for name in ("householder", "geqrf", " qr[", "lu[", "svd["))


@pytest.mark.parametrize("algorithm", ("dqn", "recurrent_dqn", "sac"))
def test_variables_that_are_not_parameters_are_refused(algorithm):
    network = {
        "dqn": networks.q_network,
        "recurrent_dqn": networks.recurrent_q_network,
        "sac": networks.twin_critics,
    }[algorithm]
    part = "critics" if algorithm == "sac" else "network"
    config = small(algorithm)
    normalized = partial(network, norm=lambda **_: networks.BatchRenorm(5))
    own = partial(config.algorithm, **{part: normalized})
    with pytest.raises(ConfigError, match="variables that are not parameters, batch_stats"):
        jax.eval_shape(prl.init, jax.random.key(0), config.replace(algorithm=own))
