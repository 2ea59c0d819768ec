"""Errors in what users pass, and in parts of their own, are one line that says what to do."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import spaces
from gymnax.environments.classic_control.cartpole import CartPole

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, mdp, networks
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.networks import continuous
from tests.conftest import small
from tests.probes import Probe


class TwoOutputs(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


def wrong(*_):
    return TwoOutputs()


@pytest.fixture(scope="module")
def trained():
    config = small("dqn")
    return config, jax.jit(prl.init)(jax.random.key(0), config)


def with_part(name, **parts):
    config = small(name)
    return config.replace(algorithm=partial(config.algorithm, **parts))


def test_a_network_with_the_wrong_output():
    config = with_part("ppo", network=wrong)
    with pytest.raises(ConfigError, match=r"fails on observations of shape \(.*networks") as error:
        prl.init(jax.random.key(0), config)
    assert "\n" not in str(error.value) and error.value.__cause__ is not None


class OneValue(nn.Module):
    """Like a critic of other libraries: [B, 1], which would broadcast to an ensemble of B."""

    @nn.compact
    def __call__(self, *inputs):
        return nn.Dense(1)(jnp.concatenate(inputs, -1))


@pytest.mark.parametrize("name", ["sac", "td3", "sac_v1"])
def test_critics_return_an_ensemble(name):
    config = with_part(name, critics=lambda config, space: OneValue())
    message = r"part critics returned .* \[(\d+), 1\] for \1 obs.* return \[E, \1\] or \[E, \1, K\]"
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("name", ["dqn", "pqn", "discrete_sac"])
def test_a_q_network_returns_a_value_for_each_action(name):
    config = with_part(name, network=lambda *_: OneValue())
    with pytest.raises(ConfigError, match=r"part network returned .* return \[\d+, 2, K\]"):
        jax.eval_shape(prl.init, jax.random.key(0), config)


def test_an_actor_returns_a_mean_for_each_dimension():
    config = with_part("sac", actor=lambda *_: TwoOutputs())
    with pytest.raises(ConfigError, match=r"part actor returned .* must return \[\d+, 1\]"):
        jax.eval_shape(prl.init, jax.random.key(0), config)


def test_networks_of_any_number_of_critics_are_accepted():
    def critics(config, space):
        return continuous.Critics(networks.twin_critics(config, space).torso, 5)

    jax.eval_shape(prl.make_train(with_part("sac", critics=critics)), jax.random.key(0))


def without_aux(params, inputs):
    return jnp.float32(0)


def of_each_row(params, inputs):
    return jnp.zeros(3), (jnp.zeros(3), {})


@pytest.mark.parametrize(
    ("part", "loss", "message"),
    [
        ("critic_loss", without_aux, r"without_aux returned a \w+, but must return a scalar"),
        ("critic_loss", of_each_row, r"of_each_row returned a loss of shape \(3,\)"),
        ("actor_loss", of_each_row, r"of_each_row returned a loss of shape \(3,\)"),
    ],
)
def test_a_loss_is_a_scalar_and_more(part, loss, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(prl.make_train(with_part("sac", **{part: loss})), jax.random.key(0))


@pytest.mark.parametrize(
    "key", [0, None, jax.random.PRNGKey(0), jax.random.split(jax.random.key(0))], ids=str
)
def test_keys_of_the_wrong_kind(key, trained):
    config, state = trained
    several = hasattr(key, "dtype") and key.dtype != jnp.uint32
    message = "key has shape" if several else "must be a typed key: use jax.random.key"
    for function in (
        lambda: prl.init(key, config),
        lambda: prl.make_train(config)(key),
        lambda: prl.evaluate(key, config, state, 2),
    ):
        with pytest.raises(ConfigError, match=message):
            function()


def test_legacy_keys_that_are_vmapped(trained):
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    with pytest.raises(ConfigError, match="must be a typed key"):
        jax.vmap(prl.make_train(trained[0]))(keys)


def acting(config, state, obs):
    """What takes observations."""
    key = jax.random.key(0)
    return (
        lambda: prl.policy(config, state)(key, obs),
        lambda: prl.exploring_policy(config, state)(key, obs),
        lambda: prl.q_values(config, state, obs),
    )


def test_observations_without_their_leading_axis(trained):
    config, state = trained
    obs, key = jnp.zeros(4), jax.random.key(0)
    for function in acting(config, state, obs):
        with pytest.raises(ConfigError, match=r"one observation of CartPole-v1.*obs\[None\]"):
            function()
    assert prl.policy(config, state)(key, obs[None]).shape == (1,)
    table = small("q_learning", env="chain")
    state = jax.jit(prl.init)(key, table)
    with pytest.raises(ConfigError, match="add a leading axis"):
        prl.policy(table, state)(key, jnp.int32(0))


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 5), (2, 3, 4)])
def test_observations_of_another_shape(trained, shape):
    for function in acting(*trained, jnp.zeros(shape)):
        with pytest.raises(ConfigError, match=r"observations of CartPole-v1 have shape \[N, 4\]"):
            function()


def test_a_shape_that_is_a_list_is_one(trained):
    class Listed(CartPole):
        def observation_space(self, params):
            return spaces.Box(-9.0, 9.0, [4])

    config, state = trained
    choose = prl.policy(config.replace(env=Listed()), state)
    assert choose(jax.random.key(0), jnp.zeros((2, 4))).shape == (2,)
    with pytest.raises(ConfigError, match="add a leading axis"):
        choose(jax.random.key(0), jnp.zeros(4))


@pytest.mark.parametrize("every", [0, -1, 1.5, "3"])
def test_groups_of_metrics_are_whole_numbers(every):
    with pytest.raises(ConfigError, match="every is"):
        prl.make_train(small("dqn"), every=every)(jax.random.key(0))


def test_metrics_in_groups():
    config = small("dqn", total_steps=503)
    every, groups = config.iterations, 50
    key = jax.random.key(0)
    state, metrics = jax.jit(prl.make_train(config))(key)
    same, grouped = jax.jit(prl.make_train(config, every=groups))(key)
    plain = [(x, y) for x, y in zip(*map(jax.tree.leaves, (state, same)), strict=True)]
    for x, y in plain:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = map(jax.random.key_data, (x, y))  # noqa: PLW2901
        assert (x == y).all()
    count = -(-every // groups)
    assert every % groups and all(x.shape == (count,) for x in grouped.values())
    for name in ("episodes", "returns", "lengths"):
        parts = [metrics[name][i * groups : (i + 1) * groups].sum() for i in range(count)]
        assert jnp.allclose(grouped[name], jnp.array(parts), rtol=1e-6)
    last = metrics["loss"][(count - 1) * groups :].mean()
    assert jnp.allclose(grouped["loss"][-1], last, rtol=1e-5)


def fails(*_, **__):
    raise KeyError("no such thing\nand more")


def closes_over_a_failure(*arguments):
    def init(*_):
        raise AttributeError("nothing here")

    network = wrong(*arguments)
    network.__class__ = type("Broken", (TwoOutputs,), {"init": init})
    return network


def takes_nothing():
    return None


def fails_in_update(params, inputs):
    return inputs.no_such_field


class BrokenSpaces(Tabular):
    def action_space(self, params=None):
        raise ZeroDivisionError("no actions")


class BrokenStep(Tabular):
    def step_env(self, key, state, action, params):
        return state.no_such_field


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": fails}, r"the part network of dqn fails while it is built: KeyError: .*types"),
        ({"network": takes_nothing}, "the part network of dqn fails .* takes 0 positional"),
        ({"head": takes_nothing}, "the part head of dqn fails .* TypeError"),
        ({"no_such_part": fails}, "DQNConfig fails while it is built: TypeError: .*no_such_part"),
        ({"wrappers": (fails,)}, "the wrapper fails fails while it is built: KeyError"),
        ({"wrappers": (takes_nothing,)}, "the wrapper takes_nothing fails while it is built"),
        ({"wrappers": (partial(fails, 1),)}, "the wrapper fails fails while it is built"),
        ({"algorithm": fails}, "fails fails while it is built: KeyError"),
        ({"env": BrokenSpaces(mdp.chain(3))}, "the environment BrokenSpaces fails .*no actions"),
    ],
)
def test_what_fails_while_it_is_built_is_named(changes, message):
    config = small("dqn")
    fields = {"algorithm", "wrappers", "env"}
    if not changes.keys() & fields:
        changes = {"algorithm": partial(config.algorithm, **changes)}
    config = config.replace(**changes)
    for function in (
        lambda: prl.build(config),
        lambda: prl.make_train(config),
        lambda: prl.init(jax.random.key(0), config),
        lambda: prl.experiment.run(config, out="never_written"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            function()
        assert "\n" not in str(error.value) and error.value.__cause__ is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": closes_over_a_failure}, "the part network of dqn fails on observations"),
        ({"loss": fails_in_update}, "the part loss of dqn fails on observations of shape"),
        ({"env": BrokenStep(mdp.chain(3))}, "the environment BrokenStep fails: .* in test_checks"),
    ],
)
def test_what_fails_in_a_run_is_named(changes, message):
    config = small("dqn")
    if "env" not in changes:
        changes = {"algorithm": partial(config.algorithm, **changes)}
    with pytest.raises(ConfigError, match=message):
        prl.make_train(config.replace(**changes))(jax.random.key(0))


def returns_no_metrics(params, inputs):
    return jnp.float32(0)


def returns_rows(params, inputs):
    return inputs.batch.reward, {}


def measures_rows(params, inputs):
    return jnp.float32(0), {"rows": inputs.batch.reward}


@pytest.mark.parametrize(
    ("penalty", "complaint"),
    (
        (returns_no_metrics, r"a penalty must return \(penalty, metrics\), a scalar and"),
        (returns_rows, r"a penalty must return \(penalty, metrics\), a scalar and"),
        (measures_rows, r"the metric rows of an update has shape \(8,\), but must be a scalar"),
    ),
)
def test_penalties_that_return_something_else(penalty, complaint):
    config = small("dqn")
    config = config.replace(algorithm=partial(config.algorithm, penalty=penalty))
    with pytest.raises(ConfigError, match=complaint) as error:
        jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert "\n" not in str(error.value)


class TwoRewards(Probe):
    def step_env(self, key, state, action, params):
        obs, state, reward, *rest = super().step_env(key, state, action, params)
        return obs, state, jnp.stack([reward, reward]), *rest


def test_an_environment_with_two_rewards():
    config = small("dqn", env=TwoRewards(lambda *_: 1.0, 3))
    complaint = r"Probe returned a reward of shape \(2,\) from step, but must .* shape \(\)"
    with pytest.raises(ConfigError, match=complaint) as error:
        jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert "\n" not in str(error.value)


def test_an_update_that_changes_its_state_is_told_what_differs():
    def algorithm(config, env):
        agent, memory = prl.dqn(config, env)

        def update(key, state, sample, count):
            state, priority, metrics = agent.update(key, state, sample, count)
            return (state,), priority, metrics

        return agent._replace(update=update), memory

    config = small("dqn").replace(algorithm=algorithm)
    with pytest.raises(ConfigError, match=r"but they differ: .*carry") as error:
        jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert "\n" not in str(error.value)
