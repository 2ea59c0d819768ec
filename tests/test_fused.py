"""The fused DQN update compared with the unfused one, in Pallas' interpreter.

Both sum the same products in different orders. The distance is ‖fused - unfused‖ divided by
‖unfused - initial‖. Tolerances are 1e-6 for the gradients (Adam's first moment after one update),
and 1e-4 for the parameters after one update and after ten, because Adam normalises each gradient,
which amplifies the rounding errors of the smallest.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax.tree_utils import tree_get

import purejaxrl_sac as prl
from purejaxrl_sac import heads, losses, normalize
from purejaxrl_sac.agents import dqn as parts
from purejaxrl_sac.kernels import fused_dqn
from purejaxrl_sac.train import build
from purejaxrl_sac.types import Sample, Transition
from tests.conftest import quick, small
from tests.probes import Counter

SEEDS = 3
FUSED = partial(fused_dqn.dqn_update, interpret=True)
SIZES = {"CartPole-v1": (4, 2), "Acrobot-v1": (6, 3)}  # size of observations, actions
VARIANTS = {
    "squared": {},
    "everything": {
        "hidden_sizes": (24, 40, 17), "batch_size": 100, "env": "Acrobot-v1", "huber_delta": 0.3,
        "tau": 0.5, "target_period": 3, "activation": "tanh", "algorithm": parts.double_dqn,
        "max_grad_norm": 0.05, "learning_rate_end": 0.1, "total_steps": 1_010, "gamma": 0.9,
    },
    "three actions": {"env": "Acrobot-v1"},
    "one layer": {"hidden_sizes": (32,)},
    "wide": {"hidden_sizes": (128, 64), "env": "Acrobot-v1"},
    "no layer": {"hidden_sizes": (), "target_period": 1},
    "odd sizes": {"hidden_sizes": (24, 40, 17), "batch_size": 100},
    "huber": {"huber_delta": 0.3},
    "polyak": {"tau": 0.05, "target_period": 1},
    "polyak, every third": {"tau": 0.5, "target_period": 3},
    "tanh": {"activation": "tanh"},
    "double": {"algorithm": parts.double_dqn, "env": "Acrobot-v1"},
    "clipped": {"max_grad_norm": 0.05},
    "decay": {"learning_rate_end": 0.1, "total_steps": 1_010, "gamma": 0.9},
}  # fmt: skip


def configured(**changes):
    defaults = {"hidden_sizes": (64, 64), "target_period": 4, "learning_rate": 3e-3}
    return prl.default_config("dqn").replace(**{**defaults, **changes})


def samples(config, count):
    """`count` batches per seed, with some terminal transitions and some weights of 0."""
    features, actions = SIZES[config.env]
    rng = np.random.default_rng(7)
    shape = (count, SEEDS, config.batch_size)
    transition = Transition(
        obs=rng.standard_normal((*shape, features), np.float32),
        action=rng.integers(actions, size=shape, dtype=np.int32),
        reward=rng.standard_normal(shape, np.float32),
        discount=(rng.random(shape) < 0.8).astype(np.float32),
        next_obs=rng.standard_normal((*shape, features), np.float32),
        last=np.zeros(shape, bool),
    )
    return Sample(transition, np.float32(np.maximum(0, rng.uniform(-0.2, 1, shape))))


def initial(config):
    """States of all seeds, with independent target networks."""
    init = jax.jit(jax.vmap(build(config)[1].init, (0, None)))
    keys = jax.random.split(jax.random.key(0), 2 * SEEDS)
    obs = jnp.zeros((1, SIZES[config.env][0]))
    other = init(keys[SEEDS:], obs).params
    return init(keys[:SEEDS], obs)._replace(target_params=other)


def updated(config, state, batches):
    """States after each of several updates of all seeds, and the other outputs of these."""
    update = jax.vmap(build(config)[1].update, (0, 0, 0, None))
    keys = jax.random.split(jax.random.key(1), SEEDS)

    def step(state, xs):
        state, *out = update(keys, state, *xs)
        return state, (state, out)

    counts = jnp.arange(len(batches.weight))
    return jax.jit(partial(jax.lax.scan, step))(state, (batches, counts))[1]


def distance(a, b, start):
    a, b, start = (np.concatenate([*map(np.ravel, jax.tree.leaves(x))]) for x in (a, b, start))
    return np.linalg.norm(a - b) / np.linalg.norm(b - start)


def compare(config, wrapper=FUSED):
    start, batches = initial(config), samples(config, 10)
    unfused, fused = (
        jax.tree.map(np.asarray, updated(config.replace(wrappers=wrappers), start, batches))
        for wrappers in ((), (wrapper,))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(fused, unfused)
    for count in (1, 10):
        (a, a_out), (b, b_out) = (
            jax.tree.map(lambda x, n=count - 1: x[n], tree) for tree in (fused, unfused)
        )
        assert distance(a.params, b.params, start.params) < 1e-4
        mu, expected, zero = (tree_get(x.opt_state, "mu") for x in (a, b, start))
        assert distance(mu, expected, zero) < (1e-6 if count == 1 else 1e-4)
        if count >= config.target_period:
            assert distance(a.target_params, b.target_params, start.target_params) < 1e-4
        else:
            chex.assert_trees_all_equal(a.target_params, start.target_params)
        chex.assert_trees_all_close(a.opt_state, b.opt_state, rtol=1e-3, atol=1e-6)
        chex.assert_trees_all_close(a_out, b_out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", quick(VARIANTS, "squared", "everything", "wide", "no layer"))
def test_the_fused_update_equals_the_unfused_one(name):
    compare(configured(**VARIANTS[name]))


def test_batches_may_be_processed_in_blocks():
    config = configured(batch_size=100, hidden_sizes=(32,), huber_delta=0.5)
    compare(config, partial(FUSED, block=32))


def test_bytes_are_divided_by_their_maximum():
    config = configured(env=Counter(), hidden_sizes=(32,), batch_size=16)
    key, zeros = jax.random.key(0), jnp.zeros(16)
    obs, next_obs = jax.random.randint(key, (2, 16, 2), 0, 256).astype(jnp.uint8)
    batch = Transition(obs, zeros.astype(int), zeros + 1, zeros + 1, next_obs, zeros > 0)
    unfused, fused = (build(config.replace(wrappers=wrappers))[1] for wrappers in ((), (FUSED,)))
    start = jax.jit(unfused.init)(key, obs)
    sample = Sample(batch, zeros + 1)
    a, b = (jax.jit(agent.update)(key, start, sample, 0)[0].params for agent in (fused, unfused))
    assert distance(a, b, start.params) < 1e-4


def test_one_seed_and_one_weight_for_all():
    config = configured()
    start, batch = (
        jax.tree.map(lambda x: np.asarray(x)[0], x) for x in (initial(config), samples(config, 1))
    )
    batch = Sample(jax.tree.map(lambda x: x[0], batch.transition), jnp.float32(0.5))
    arguments = (jax.random.key(0), start, batch, jnp.int32(3))
    unfused, fused = (
        jax.jit(build(config.replace(wrappers=wrappers))[1].update)(*arguments)
        for wrappers in ((), (FUSED,))
    )
    assert distance(fused[0].params, unfused[0].params, start.params) < 1e-4
    chex.assert_trees_all_close(fused[0].target_params, fused[0].params, rtol=1e-6)


def test_hyperparameters_may_be_traced():
    """As in a sweep over their values."""
    config = configured()
    start, batches = initial(config), samples(config, 1)
    batch = jax.tree.map(lambda x: x[0], batches)
    names = ("learning_rate", "gamma", "tau", "huber_delta", "max_grad_norm")
    values = [jnp.array([1e-3, 2e-3, 3e-3]), *(jnp.array([0.1, 0.5, 0.9]),) * 4]

    def step(wrappers, state, batch, *values):
        changed = config.replace(
            **dict(zip(names, values, strict=True)), target_period=1, wrappers=wrappers
        )
        return build(changed)[1].update(jax.random.key(0), state, batch, jnp.int32(0))

    unfused, fused = (
        jax.jit(jax.vmap(partial(step, wrappers)))(start, batch, *values)
        for wrappers in ((), (FUSED,))
    )
    for name in ("params", "target_params"):
        a, b = getattr(fused[0], name), getattr(unfused[0], name)
        assert distance(a, b, getattr(start, name)) < 1e-4


@pytest.mark.parametrize("algorithm", quick(["dqn", "per_dqn", "n_step_dqn"], "dqn"))
def test_fused_and_unfused_agents_can_resume_each_other(algorithm):
    """Each computes one half of a run."""
    config = small(algorithm, hidden_sizes=(32,), max_grad_norm=float("inf"))
    keys = jax.random.split(jax.random.key(0), 2)
    start = jax.jit(jax.vmap(prl.init, (0, None)))(keys, config)

    @jax.jit
    def half(state, config):
        return jax.vmap(lambda state: prl.run(state, config, config.iterations // 2))(state)

    def trained(*wrappers):
        first, second = (config.replace(wrappers=w) for w in wrappers)
        return half(half(start, first)[0], second)

    unfused = trained((), ())
    for fused in (trained((FUSED,), ()), trained((), (FUSED,))):
        chex.assert_trees_all_equal_shapes_and_dtypes(fused, unfused)
        chex.assert_trees_all_close(
            fused[0].agent.params, unfused[0].agent.params, rtol=1e-3, atol=1e-4
        )


def test_other_platforms_than_cuda_use_the_unfused_update():
    config = configured()
    start, batches = initial(config), samples(config, 2)
    unfused = updated(config, start, batches)
    chex.assert_trees_all_equal(
        updated(config.replace(wrappers=(fused_dqn.dqn_update,)), start, batches), unfused
    )


def test_nan_propagates():
    config = configured(huber_delta=1.0, wrappers=(FUSED,))
    start, batches = initial(config), samples(config, 1)
    batches.transition.reward[0, 0, 3] = np.nan
    state, (priority, metrics) = updated(config, start, batches)
    state = jax.tree.map(lambda x: x[0], state)
    assert np.isnan(metrics["loss"][0, 0]) and np.isnan(priority[0, 0, 3])
    for leaf in jax.tree.leaves(state.params):
        assert np.isnan(leaf[0]).any() and np.isfinite(leaf[1:]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": parts.munchausen_dqn}, "bootstrap=maximum or double"),
        ({"algorithm": parts.expected_dqn}, "bootstrap=maximum or double"),
        ({"algorithm": parts.dueling_dqn}, "network=q_network"),
        (
            {"algorithm": partial(parts.dqn, target=losses.rescaled_td_target)},
            "needs target=td_target",
        ),
        (
            {"algorithm": partial(parts.dqn, penalty=lambda params, inputs: None)},
            "needs penalty=None",
        ),
        (
            {"algorithm": lambda config, env: parts.double_dqn(config, env, head=heads.scalar)},
            "needs dqn or a partial of it",
        ),
        ({"activation": "elu"}, "needs relu or tanh"),
        ({"compute_dtype": "bfloat16"}, "needs float32"),
        ({"env": "Breakout-MinAtar"}, "observations that are vectors"),
        ({"hidden_sizes": (512, 128)}, "lower hidden_sizes"),
    ],
)
def test_unsupported_configurations_raise(changes, message):
    config = configured(**changes, wrappers=(fused_dqn.dqn_update,))
    if changes.get("algorithm") is parts.munchausen_dqn:
        config = prl.default_config("munchausen_dqn").replace(wrappers=(fused_dqn.dqn_update,))
    with pytest.raises(prl.ConfigError, match=message) as error:
        build(config)
    assert "\n" not in str(error.value)


def test_dqn_update_must_be_the_first_wrapper():
    config = configured(wrappers=(normalize.observations, FUSED))
    with pytest.raises(prl.ConfigError, match="first of the wrappers"):
        jax.eval_shape(partial(prl.train, config=config), jax.random.key(0))
    config = configured(wrappers=(FUSED, normalize.observations))
    jax.eval_shape(partial(prl.train, config=config), jax.random.key(0))


def test_layers_are_ordered_by_number():
    sizes = tuple(range(16, 28))
    config = small("dqn", env="CartPole-v1", hidden_sizes=sizes)
    _, agent, _ = build(config)
    state = jax.eval_shape(agent.init, jax.random.key(0), jnp.zeros((1, 4)))
    layers = fused_dqn._learner(state)[0].params
    assert [layer["kernel"].shape for layer in layers] == list(
        zip((4, *sizes), (*sizes, 2), strict=True)
    )


@pytest.mark.parametrize("options", ({"block": 48}, {"block": 8}, {"num_warps": 3}))
def test_sizes_of_the_kernel_must_be_powers_of_two(options):
    config = small("dqn", env="CartPole-v1")
    with pytest.raises(prl.ConfigError, match="power of two"):
        build(config.replace(wrappers=(partial(fused_dqn.dqn_update, **options),)))
