"""Errors in what users pass, and in parts of their own, are one line that says what to do."""

import inspect
import pickle
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnax.environments import spaces
from gymnax.environments.classic_control.cartpole import CartPole
from gymnax.wrappers.purerl import FlattenObservationWrapper

import purejaxrl_sac as prl
from purejaxrl_sac import (
    ConfigError,
    checks,
    contracts,
    heads,
    mdp,
    networks,
    normalize,
    optimize,
    types,
)
from purejaxrl_sac.agents import sac
from purejaxrl_sac.agents.off_policy import replay_storage, uniform_replay
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.experiment.runs import metric_rows, plans
from purejaxrl_sac.mdp import dynamic_programming
from purejaxrl_sac.networks import continuous
from purejaxrl_sac.train import TOTALS
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


def test_parts_of_sac_return_arrays_of_all_their_axes():
    def of_rows(config):
        return sac.minimum(config)._replace(next_return=lambda key, q: q.min(0))

    def of_environments(config, action_dim):
        return prl.types.Noise(lambda key, shape, carry: (jnp.zeros(shape[:1]), carry))

    cases = {
        r"next_return of shape \[8\], but must return shape \[8, K\] or a scalar": {
            "critique": of_rows
        },
        r"part noise of sac returned noise of shape \[1\], but .* shape \[1, 1\]": {
            "noise": of_environments
        },
    }
    for message, parts in cases.items():
        config = with_part("sac", **parts).replace(num_envs=1)
        with pytest.raises(ConfigError, match=message):
            jax.eval_shape(prl.make_train(config), jax.random.key(0))


class Sizes(nn.Module):
    """A network of any algorithm with outputs of given sizes, after a carry if it has a memory."""

    sizes: tuple[tuple[int, ...], ...]

    def initial_carry(self, num_envs):
        return jnp.zeros((num_envs, 1))

    @nn.compact
    def __call__(self, *inputs):
        obs = next(x for x in inputs if x.ndim == 2 and x.shape[-1] == 4)
        made = nn.Dense(1)(obs)
        outputs = [
            jnp.broadcast_to(made.reshape(-1, *[1] * len(n)), (len(obs), *n)) for n in self.sizes
        ]
        outputs = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return (inputs[0][None], outputs) if len(inputs) > 1 else outputs


@pytest.mark.parametrize(
    ("algorithm", "sizes", "message"),
    [
        ("a2c", ((3,), ()), r"\[(\d+), 3\] for \1 observations, but must return \[\1, 2\]"),
        ("ppo", ((1,), ()), r"\[(\d+), 1\] for \1 observations, but must return \[\1, 2\]"),
        ("a2c", ((2,), (1,)), r"\[(\d+), 1\] for \1 observations, but must return \[\1\]"),
        ("recurrent_a2c", ((2,), (1,)), r"\[(\d+), 1\] for \1 obs.* must return \[\1\]"),
        ("recurrent_ppo", ((3,), ()), r"\[(\d+), 3\] for \1 obs.* must return \[\1, 2\]"),
        ("recurrent_pqn", ((3, 1),), r"\[(\d+), 3, 1\] for \1 .* return \[\1, 2, 1\]"),
        ("recurrent_dqn", ((3, 1),), r"\[(\d+), 3, 1\] for \1 .* return \[\1, 2, K\]"),
    ],
)
def test_networks_of_actor_critics_and_with_memory(algorithm, sizes, message):
    config = with_part(algorithm, network=lambda *_: Sizes(sizes))
    with pytest.raises(ConfigError, match=f"part network returned an array of shape {message}"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_an_actor_returns_a_mean_for_each_dimension():
    config = with_part("sac", actor=lambda *_: TwoOutputs())
    with pytest.raises(
        ConfigError, match=r"part actor returned .* return 2 arrays of shape \[\d+, 1\]"
    ):
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
        ("critic_loss", without_aux, r"an array of shape \[\], but must return \(loss, \(array"),
        ("critic_loss", of_each_row, r"a loss of shape \[3\], but must return a scalar"),
        ("actor_loss", of_each_row, r"a loss of shape \[3\], but must return a scalar"),
    ],
)
def test_a_loss_is_a_scalar_and_more(part, loss, message):
    with pytest.raises(ConfigError, match=f"the part {part} of sac returned {message}"):
        jax.eval_shape(prl.make_train(with_part("sac", **{part: loss})), jax.random.key(0))


@pytest.mark.parametrize(
    ("loss", "found"),
    [(without_aux, r"an array of shape \[\]"), (of_each_row, r"a loss of shape \[3\]")],
)
def test_losses_of_gradient_steps_are_checked(loss, found):
    optimizer = optax.sgd(1.0)
    learned = optimize.start(optimizer, jnp.zeros(3))
    with pytest.raises(ConfigError, match=f"the loss {loss.__name__} returned {found}, but must"):
        optimize.gradient_step(optimizer, learned, loss, None)


def loss_with(array=None, metrics=None, of=jnp.float32):
    def loss(params, inputs):
        rows = inputs.batch.reward if array is None else array
        return of(0), (rows, {} if metrics is None else metrics)

    return loss


def critique_with(**functions):
    return lambda config: sac.minimum(config)._replace(**functions)


def head_with(**functions):
    return lambda config: heads.scalar(config)._replace(**functions)


def storage_with(**changes):
    def storage(config, env):
        made = replay_storage(config, env)
        return made._replace(**{name: change(made) for name, change in changes.items()})

    return storage


def memory_with(**changes):
    def memory(config, storage):
        made = uniform_replay(config, storage)
        return made._replace(**{name: change(made) for name, change in changes.items()})

    return memory


def reading(change):
    """A storage with a change of what it reads."""
    return storage_with(read=lambda made: lambda *args: change(made.read(*args)))


def sampling(change):
    """A memory with a change of its samples."""
    return memory_with(sample=lambda made: lambda *args: change(made.sample(*args)))


def column(sample):
    return sample._replace(weight=sample.weight[..., None])


def constant(value):
    return lambda made: lambda *_: value


ROW_LOSS = jnp.zeros((8, 1)), jnp.zeros(8), {}  # small configurations have batches of 8
MADE = (
    ("critic_optimizer", 1e-3, "is 0.001, but must be a function, see MakeOptimizer in"),
    ("critic_optimizer", lambda config: 1e-3, "returned 0.001, but must return an optax transform"),
    ("actor_optimizer", lambda config: None, "returned None, but must return an optax transform"),
    ("temperature_optimizer", lambda config: optax.adam, "returned a function, but must return"),
    ("critics", lambda *_: None, "returned None, but must return a network .* with init and apply"),
    ("actor", lambda *_: 3, "returned 3, but must return a network"),
    ("critique", lambda config: 3, "returned 3, but must return a Critique"),
    ("storage", lambda *_: (), "returned a tuple of 0, but must return a Storage"),
    ("memory", lambda *_: [], "returned a list, but must return a Memory"),
    ("storage", storage_with(num_envs=lambda _: 4), "has num_envs=4, but 3 are trained with"),
    ("storage", storage_with(capacity=lambda _: 95), "has capacity=95, but must have a multiple"),
    ("storage", storage_with(capacity=lambda _: 0), "has capacity=0, but must have a multiple"),
    ("noise", lambda *_: 1.0, "returned 1.0, but must return a Noise"),
    ("critic_loss", None, "is None, but must be a function, see Loss in purejaxrl_sac.types"),
)
TRACED = (
    (
        "sac",
        "critic_loss",
        loss_with(of=jnp.int32),
        "a loss of type int32, but must return a float",
    ),
    ("sac", "critic_loss", loss_with(jnp.zeros((8, 1))), r"of shape \[8, 1\], but .* shape \[8\]"),
    ("sac", "actor_loss", loss_with(metrics=3.0), "3.0 as metrics, but must return a dictionary"),
    (
        "sac",
        "critique",
        critique_with(loss=lambda q, y: q),
        r"the loss of each row of shape \[2, 8\]",
    ),
    ("sac", "critique", critique_with(value=lambda q: q), r"value of shape \[2, 8\]"),
    ("sac", "critique", critique_with(next_return=lambda key, q: q.min(0)), r"of shape \[8\], but"),
    (
        "dqn",
        "bootstrap",
        lambda config, q: q.pi,
        r"of shape \[8, 2\], but .*policy \[B, A\]",
    ),
    *(
        (name, part, make, message)
        for name in ("sac", "dqn")
        for part, make, message in (
            ("storage", reading(column), r"weights of shape \[2, 8, 1\] from read, but rewards"),
            (
                "storage",
                reading(lambda x: x._replace(weight=jnp.float32(1))),
                r"weights from read of shape \[\], but must return shape \[2, 8\]",
            ),
            ("storage", reading(lambda x: x.transition), "a Transition from read, but must return"),
            ("storage", storage_with(add=constant(None)), "None from add, but must return a state"),
            ("memory", sampling(column), r"weights of shape \[8, 1\] from sample, but rewards of"),
            ("memory", sampling(lambda x: x.transition), "a Transition from sample, but must"),
            ("memory", memory_with(add=constant(())), "a tuple of 0 from add, but must return a"),
            ("memory", memory_with(update_priorities=constant(None)), "None from update_priori"),
        )
    ),
    ("dqn", "bootstrap", lambda config, q: (q.pi[:, 0], 0.0), r"a policy of shape \[8\]"),
    ("dqn", "bootstrap", lambda config, q: (q.pi, jnp.ones((8, 1))), r"a bonus of shape \[8, 1\]"),
    ("dqn", "explore", lambda config, q, step: q.argmax(-1), r"a policy of shape \[3\], but"),
    ("dqn", "explore", lambda config, q, step: jnp.ones_like(q, int), "a policy of type int32"),
    ("dqn", "reward", lambda config, batch, q: q, r"rewards of shape \[8, 2\], but"),
    ("dqn", "target", lambda *_: jnp.zeros((8, 3)), r"targets of shape \[8, 3\], but"),
    ("dqn", "head", head_with(loss=lambda *_: ROW_LOSS), r"the loss of each row of shape \[8, 1\]"),
    ("dqn", "head", head_with(loss=lambda *_: 0), r"0, but must return \(loss \[B\], priority"),
    ("dqn", "head", head_with(expectation=lambda q: q), r"expectation of shape \[1, 2, 1\], but"),
)


@pytest.mark.parametrize(("part", "value", "message"), MADE)
def test_what_a_part_is_and_makes(part, value, message):
    with pytest.raises(ConfigError, match=f"the part {part} of sac {message}") as error:
        prl.make_train(with_part("sac", **{part: value}))
    assert "\n" not in str(error.value)


def test_a_part_that_does_not_exist():
    for name, near in (("critc_loss", "did you mean critic_loss"), ("x", "choose from actor, cri")):
        with pytest.raises(ConfigError, match=f"no part of sac is called {name}: {near}"):
            prl.make_train(with_part("sac", **{name: wrong}))


@pytest.mark.parametrize(("algorithm", "part", "value", "message"), TRACED)
def test_what_a_part_returns(algorithm, part, value, message):
    config = with_part(algorithm, **{part: value})
    pattern = f"the part {part} of {algorithm} returned .*{message}"
    with pytest.raises(ConfigError, match=pattern) as error:
        jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert "\n" not in str(error.value)


def changing(function, change):
    """A wrapper around an agent of which one function returns something else."""

    def wrapper(config, env, agent):
        original = getattr(agent, function)
        return agent._replace(**{function: lambda *args: change(original(*args))})

    return wrapper


@pytest.mark.parametrize("name", ["dqn", "sac"])
@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (
            "policy",
            lambda x: x[0],
            r"returned an array of shape \[2.*\], but must return action, c",
        ),
        (
            "policy",
            lambda x: (x[0][..., None], x[1]),
            r"returned actions that are .*2.* of shape \[2",
        ),
        ("act", lambda x: x[:2], "returned a tuple of 2, but must return action, extras, carry"),
        (
            "act",
            lambda x: (x[0] > 0, *x[1:]),
            r"returned actions that are bool\[3.* (integers|floats) of",
        ),
        ("update", lambda x: x[:2], "returned a tuple of 2, but must return state, priority, metr"),
    ],
)
def test_what_an_agent_returns(name, function, change, message):
    config = small(name).replace(wrappers=(changing(function, change),))

    def train_and_evaluate(key):
        state, _ = prl.train(key, config)
        return prl.evaluate(key, config, state, 2)

    with pytest.raises(ConfigError, match=f"^{function} of {name} with wrapper {message}"):
        jax.eval_shape(train_and_evaluate, jax.random.key(0))


@pytest.mark.parametrize(("name", "dtype"), [("dqn", "uint8"), ("sac", "bfloat16")])
def test_actions_of_other_types_are_converted(name, dtype):
    """As they come from networks that compute in them; a memory has those of the warm-up."""

    def convert(returned):
        return returned[0].astype(dtype), *returned[1:]

    def first(key, state):
        return prl.policy(config, state)(key, state.env.obs)

    wrappers = tuple(changing(function, convert) for function in ("act", "policy"))
    config = small(name).replace(wrappers=wrappers)
    key = jax.random.key(0)
    state, _ = jax.eval_shape(prl.make_train(config), key)
    assert jax.eval_shape(first, key, state).dtype == (jnp.int32 if name == "dqn" else jnp.float32)


def test_every_contract_of_a_part_is_known():
    unchecked = {"Record", "MakeNorm", "NoiseScale", "Penalty", "Schedule"}
    for name in ("sac", "recurrent_sac", "dqn", "recurrent_dqn", "pqn", "td3", "crossq", "sac_v1"):
        parameters = inspect.signature(getattr(prl, name)).parameters.values()
        kinds = {str(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}
        contracts_ = {kind.removesuffix(" | None") for kind in kinds}
        assert contracts_ - unchecked <= contracts.CHECKS.keys(), name
        in_types = {kind for kind in contracts_ if kind != "MakeNorm" and "[" not in kind}
        assert in_types <= vars(types).keys(), name


def test_parts_of_an_algorithm_with_evaluated_annotations_are_checked():
    def mine(config, env, *, critic_loss, penalty=None):
        return prl.sac(config, env, critic_loss=critic_loss, penalty=penalty)

    mine.__annotations__ = {"critic_loss": types.Loss, "penalty": types.Penalty | None}
    build = contracts.checks_parts(mine)
    env = prl.envs.bind("Pendulum-v1")
    with pytest.raises(
        ConfigError, match=r"critic_loss of mine is 3, .* see Loss in purejaxrl_sac"
    ):
        build(prl.SACConfig(), env, critic_loss=3)
    with pytest.raises(ConfigError, match=r"penalty of mine is 3, .* see Penalty in purejaxrl_sac"):
        build(prl.SACConfig(), env, critic_loss=without_aux, penalty=3)
    build(prl.SACConfig(), env, critic_loss=without_aux, penalty=None)
    config = prl.SACConfig(algorithm=partial(build, critic_loss=of_each_row))
    with pytest.raises(ConfigError, match=r"critic_loss of mine returned a loss of shape \[3\]"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("name", ("sac", "td3", "discrete_sac"))
def test_a_target_has_one_row_for_each_transition(name):
    config = with_part(name, critic_target=lambda inputs: jnp.zeros((5, 3)))
    message = (
        rf"critic_target of {name} returned targets of shape \[5, 3\], .* \[8\] or .* \[8, 3\]"
    )
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("name", ("sac", "discrete_sac"))
def test_the_loss_of_a_soft_actor_returns_log_probabilities(name):
    def actor_loss(params, inputs):
        return jnp.float32(0), (jnp.float32(0), {})

    with pytest.raises(ConfigError, match=rf"actor_loss of {name} returned log pi.* of shape \[\]"):
        jax.eval_shape(prl.make_train(with_part(name, actor_loss=actor_loss)), jax.random.key(0))


class MadeByClass(tuple):
    """A class as a part, whose objects have the fields of a memory."""

    def __new__(cls, config, storage):
        found = super().__new__(cls, uniform_replay(config, storage))
        for name in prl.types.Memory._fields:
            setattr(found, name, getattr(uniform_replay(config, storage), name))
        return found


class NamedCritique(sac.Critique):
    mine = 3.0


class StateIndependentActor(nn.Module):
    """A Gaussian whose standard deviation is one parameter for each dimension of actions."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x), self.param("log_std", nn.initializers.zeros, (1,))


class Keyed(NamedTuple):
    inner: Any
    key: Any
    count: Any


def storage_with_a_key(config, env):
    """A storage whose state has more than arrays of numbers."""
    made = replay_storage(config, env)

    def add(state, step, rollout):
        key = jax.random.split(state.key)[0]
        return Keyed(made.add(state.inner, step, rollout), key, state.count + 1)

    return made._replace(
        init=lambda rollout: Keyed(made.init(rollout), jax.random.key(0), 0),
        add=add,
        read=lambda state, *args: made.read(state.inner, *args),
    )


def one_hot(config, next_q):
    return next_q.online == next_q.online.max(-1, keepdims=True), jnp.zeros(1)


def in_lists(params, inputs):
    assert inputs.networks.critique.mine == 3.0
    return [jnp.bfloat16(0), [jnp.float32(0), {"x": 1.0, "y": np.float32(2)}]]


@pytest.mark.parametrize(
    ("algorithm", "parts"),
    (
        ("sac", {"actor": lambda *_: StateIndependentActor()}),
        ("sac", {"critique": lambda c: NamedCritique(*sac.minimum(c)), "critic_loss": in_lists}),
        ("dqn", {"bootstrap": jax.jit(one_hot, static_argnums=0), "memory": MadeByClass}),
        ("dqn", {"storage": storage_with_a_key}),
        ("td3", {"noise_scale": lambda config, step: jnp.array([0.1])}),
        ("a2c", {"objective": lambda config, log_prob, *_: -log_prob}),
    ),
)
def test_parts_that_fit_in_another_form(algorithm, parts):
    jax.eval_shape(prl.make_train(with_part(algorithm, **parts)), jax.random.key(0))


def test_objectives_are_of_rows():
    for value in (None, jnp.float32(0)):
        config = with_part("a2c", objective=lambda *_, value=value: value)
        with pytest.raises(ConfigError, match="the part objective of actor_critic returned"):
            jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("value", [None, {"a": 1.0}, "b"])
def test_metrics_are_numbers(value):
    config = with_part("sac", critic_loss=loss_with(metrics={"mine": value}))
    with pytest.raises(ConfigError, match=r"the metric mine of an update is .*, but must be"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_priorities_are_one_for_each_transition():
    for priority in (jnp.float32(1), jnp.ones(3)):

        def fork(config, env, priority=priority):
            agent, memory = prl.per_dqn(config, env)

            def update(*args):
                state, _, metrics = agent.update(*args)
                return state, priority, metrics

            return agent._replace(update=update), memory

        config = small("per_dqn").replace(algorithm=fork)
        with pytest.raises(ConfigError, match=r"priorities of shape \[3?\], but .* shape \[8\]"):
            jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("name", ["returns", "episode_return", "steps", "greedy_return"])
def test_metrics_do_not_take_the_names_of_what_is_recorded(name):
    config = with_part("sac", critic_loss=loss_with(metrics={name: jnp.float32(5)}))
    with pytest.raises(ConfigError, match=f"called {name}, which a run records itself: rename it"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_all_names_that_are_recorded_are_reserved():
    columns = {*metric_rows.SCALARS, *metric_rows.PER_LANE, *plans.EVALUATED_POLICIES}
    assert {*TOTALS, *plans.Progress._fields, *columns} <= {*checks.RESERVED}


def test_metrics_of_two_losses_have_different_names():
    config = with_part("sac", actor_loss=loss_with(metrics={"q": jnp.float32(5)}))
    with pytest.raises(ConfigError, match="two metrics of an update are called q: rename one"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


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


def test_sizes_of_a_shape_may_be_numbers_of_numpy():
    """As those of gymnax's own wrapper are."""
    config = small("dqn", env=FlattenObservationWrapper(gymnax.make("Breakout-MinAtar")[0]))
    state, _ = jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert state.env.obs.shape == (3, 400)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda key, config, state, n: prl.run(state, config, n), "iterations"),
        (lambda key, config, state, n: prl.train_with_eval(key, config, len, n), "points"),
        (prl.evaluate, "episodes"),
        (lambda key, config, state, n: prl.evaluate(key, config, state, max_steps=n), "max_steps"),
        (lambda key, config, state, n: prl.train(key, config, n), "every"),
    ],
)
def test_counts_are_static_whole_numbers(trained, function, name):
    config, state = trained
    key = jax.random.key(0)
    for value in (2.5, -1, "x", True, None if name == "points" else [1]):
        with pytest.raises(ConfigError, match=rf"^{name} is .*, but must be "):
            function(key, config, state, value)
    with pytest.raises(ConfigError, match=f"^{name} is traced, but is a static number"):
        jax.jit(lambda n: function(key, config, state, n))(3)


def test_a_state_of_several_seeds_is_refused_outside_of_a_vmap(trained):
    config, _ = trained
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.jit(jax.vmap(prl.init, (0, None)))(keys, config)
    obs = jnp.zeros((3, 4))
    uses = (
        lambda state: prl.run(state, config, 1)[0].step,
        lambda state: prl.evaluate(keys[0], config, state, 2, max_steps=3),
        lambda state: prl.policy(config, state)(keys[0], obs),
        lambda state: prl.exploring_policy(config, state)(keys[0], obs),
        lambda state: prl.q_values(config, state, obs),
    )
    for use in uses:
        with pytest.raises(ConfigError, match=r"^state is of 2 seeds: take one, seed_state"):
            use(states)

    def used(state):
        return [use(state) for use in uses]

    of_one, of_both = jax.jit(used)(prl.seed_state(states, 1)), jax.jit(jax.vmap(used))(states)
    for one, both in zip(of_one, of_both, strict=True):
        np.testing.assert_allclose(one, both[1], rtol=1e-5)


@pytest.mark.parametrize("every", [0, -1, 1.5, "3"])
def test_groups_of_metrics_are_whole_numbers(every):
    with pytest.raises(ConfigError, match="every is"):
        prl.make_train(small("dqn"), every=every)(jax.random.key(0))


def test_metrics_in_groups():
    config = small("q_learning", env="maximization_bias", total_steps=503)
    every, groups = config.iterations, 7
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
        assert metrics[name].sum() != 0
    last = metrics["td_error"][(count - 1) * groups :].mean()
    assert jnp.allclose(grouped["td_error"][-1], last, rtol=1e-5)


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


SMALLER = {"hidden_sizes": (4,), "capacity": 24}
OF_THE_STATE = r"with this configuration it (has shape|is)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": (16,)}, rf"state\.agent\.params.* {OF_THE_STATE}"),
        ({"hidden_sizes": (4, 4)}, r"state\.agent\.params.* is missing, but with this"),
        ({"env": "Acrobot-v1"}, rf"state\.agent\.params.* {OF_THE_STATE}"),
        ({"capacity": 48}, rf"state\.memory.* has shape \[24, .*\], but {OF_THE_STATE} \[48"),
        ({"capacity": 12}, rf"state\.memory.* has shape \[24, .*\], but {OF_THE_STATE} \[12"),
        ({"num_envs": 6}, rf"state\.env\.obs has shape \[3, 4\], but {OF_THE_STATE} \[6, 4\]"),
    ],
)
def test_a_state_of_another_configuration_is_refused(changes, message):
    """Its arrays would be read and written beyond their ends, which JAX does silently."""
    config = small("dqn", **SMALLER)
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    other = config.replace(**changes)
    with pytest.raises(ConfigError, match=message) as error:
        jax.eval_shape(partial(prl.run, config=other, iterations=1), state)
    assert "\n" not in str(error.value)
    jax.eval_shape(partial(prl.run, config=config, iterations=1), state)


def test_policies_need_a_state_of_their_configuration():
    config, other = small("dqn", **SMALLER), small("q_learning")
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    for function in (prl.policy, prl.exploring_policy):
        with pytest.raises(ConfigError, match=r"state\.agent is a DQNState, but with this .* QTab"):
            function(other, state)
        with pytest.raises(ConfigError, match="state is a DQNState, but must be a TrainState"):
            function(config, state.agent)
        function(config.replace(capacity=48, total_steps=480), state)  # which it does not use
    with pytest.raises(ConfigError, match=r"state\.agent\.params.* has shape"):
        prl.q_values(config.replace(hidden_sizes=(5,)), state, jnp.zeros((1, 4)))
    with pytest.raises(ConfigError, match="state is None, but must be a TrainState"):
        prl.evaluate(jax.random.key(0), config, None, 1)


def test_a_state_without_its_memory_cannot_continue():
    config = small("dqn", **SMALLER)
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    for kept in (state._replace(env=(), memory=()), state._replace(memory=())):
        with pytest.raises(ConfigError, match=r"is empty: load the run with whole=True"):
            jax.eval_shape(partial(prl.run, config=config, iterations=1), kept)


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        (jnp.zeros((2, 4)), jnp.zeros(2), r"action is float32\[2\], but must be integers of shape"),
        (jnp.zeros((2, 4)), jnp.zeros((2, 1), int), r"action is int32\[2, 1\], but must be"),
        (jnp.zeros((2, 4)), jnp.zeros(1, int), r"action is int32\[1\], .* of shape \[2\]"),
        ([[0.0] * 3], None, r"obs has shape \(1, 3\)"),
    ],
)
def test_values_of_actions_that_do_not_fit(obs, action, message, trained):
    config, state = trained
    with pytest.raises(ConfigError, match=message):
        prl.q_values(config, state, obs, action)


def test_observations_may_be_lists_and_states_are_integers(trained):
    config, state = trained
    rows = [[0.1, 0.2, 0.3, 0.4]]
    expected = prl.policy(config, state)(jax.random.key(0), jnp.array(rows))
    assert prl.policy(config, state)(jax.random.key(0), rows) == expected
    with pytest.raises(ConfigError, match=r"key is .*, but must be a typed key"):
        prl.policy(config, state)(0, rows)
    config = small("q_learning")
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    with pytest.raises(ConfigError, match=r"obs is float32, but observations of .* are integers"):
        prl.policy(config, state)(jax.random.key(0), jnp.array([1.5]))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda n: jnp.full(n, 0.7),
            r"the policy returned actions that are float32\[2\], but must",
        ),
        (lambda n: jnp.zeros((), int), r"actions that are int32\[\], but must be integers"),
        (lambda n: jnp.ones((n, 1), int), r"actions that are int32\[2, 1\], but must be integers"),
    ],
)
def test_actions_of_a_policy_that_do_not_fit(action, message, trained):
    config, state = trained
    play = partial(prl.evaluate, jax.random.key(0), config, state, 2, max_steps=2)
    with pytest.raises(ConfigError, match=message):
        play(policy=lambda config, state: lambda key, obs: action(len(obs)))


def test_a_policy_is_made_by_a_function_of_configuration_and_state(trained):
    config, state = trained
    for policy in (prl.policy(config, state), lambda config, state: jnp.zeros(2, int), 3):
        with pytest.raises(ConfigError, match=r"policy must be a function \(config, state\) ->"):
            prl.evaluate(jax.random.key(0), config, state, 2, policy=policy)


@pytest.mark.parametrize(
    ("space", "name"), [("action_space", "action_space"), ("observation_space", "observation")]
)
def test_spaces_without_elements(space, name):
    env = Probe(lambda *_: 1.0, 3)
    setattr(env, space, lambda params: spaces.Box(-1, 1, (0,)))
    with pytest.raises(ConfigError, match=rf"the {name}.* has shape \(0,\), which has no elem"):
        prl.build(small("sac", env=env))


def test_parameters_of_another_environment_with_the_same_name():
    params = prl.envs.make("CartPole-v1").default_params
    config = small("sac").replace(env_params=params)
    with pytest.raises(ConfigError, match=r"env_params is .*cartpole's, but must be .*pendulum's"):
        prl.build(config)


@pytest.mark.parametrize(
    "solve",
    [
        lambda env: dynamic_programming.value_iteration(env, 0.9),
        lambda env: dynamic_programming.policy_evaluation(env, 0.9, jnp.ones((3, 2)) / 2),
        lambda env: dynamic_programming.finite_horizon_evaluation(env, 0.9, jnp.ones((3, 2)), 2),
    ],
)
def test_an_mdp_is_not_its_environment(solve):
    with pytest.raises(ConfigError, match="mdp is a Tabular, but must be an MDP: use its field"):
        solve(Tabular(mdp.chain(3)))


def test_a_run_without_jit_needs_no_warm_up():
    config = small("q_learning", warmup_steps=0, total_steps=12)
    with jax.disable_jit():
        eager = prl.init(jax.random.key(0), config)
    chex.assert_trees_all_equal_shapes(eager, prl.init(jax.random.key(0), config))


def test_metrics_of_a_run_without_jit_may_be_one_group():
    config = small("q_learning", warmup_steps=0, total_steps=24)
    expected = prl.train(jax.random.key(0), config, every=1_000)
    with jax.disable_jit():
        eager = prl.train(jax.random.key(0), config, every=1_000)
    chex.assert_trees_all_close(eager[1], expected[1], rtol=1e-5)
    assert eager[1]["episodes"].shape == (1,)


@pytest.mark.parametrize("algorithm", ("q_learning", "double_q_learning", "q_lambda", "sac"))
def test_configurations_can_be_pickled(algorithm):
    config = prl.default_config(algorithm)
    again = pickle.loads(pickle.dumps(config))
    assert again.replace(algorithm=config.algorithm) == config


@pytest.mark.parametrize(
    ("limit", "steps"),
    [(5, 5), (5.0, 5), (np.float32(5), 5), (jnp.float32(5), 5), (4.5, 5), (np.inf, None)],
)
def test_time_limits_may_be_floats(limit, steps):
    params = prl.envs.make("Pendulum-v1").default_params.replace(max_steps_in_episode=limit)
    assert prl.build(small("sac").replace(env_params=params))[0].max_steps == steps


def test_episodes_have_at_least_one_step():
    params = prl.envs.make("Pendulum-v1").default_params.replace(max_steps_in_episode=0)
    with pytest.raises(ConfigError, match=r"max_steps_in_episode of .* is 0, but must be at least"):
        prl.build(small("sac").replace(env_params=params))


def test_a_class_of_states_may_be_made_anew_in_each_call():
    def algorithm(config, env):
        class State(NamedTuple):
            agent: Any

        agent, memory = prl.dqn(config, env)

        def update(key, state, sample, count):
            after, priority, metrics = agent.update(key, state.agent, sample, count)
            return state._replace(agent=after), priority, metrics

        return agent._replace(
            init=lambda key, obs: State(agent.init(key, obs)),
            act=lambda key, state, *rest: agent.act(key, state.agent, *rest),
            policy=lambda key, state, *rest: agent.policy(key, state.agent, *rest),
            update=update,
        ), memory

    config = small("dqn", **SMALLER).replace(algorithm=algorithm)
    jax.eval_shape(prl.train, jax.random.key(0), config)
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    play = partial(prl.evaluate, config=config, episodes=2, max_steps=2)
    jax.eval_shape(lambda key, state: play(key, state=state), jax.random.key(0), state)


def test_policies_are_evaluated_with_another_number_of_environments():
    config = small("dqn", **SMALLER).replace(wrappers=(normalize.rewards,))
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    prl.policy(config.replace(num_envs=6), state)


def test_shapes_of_keys_are_those_of_their_implementation():
    def algorithm(config, env):
        agent, memory = prl.q_learning(config, env)
        return agent._replace(init=lambda key, obs: (agent.init(key, obs), key)), memory

    config = small("q_learning").replace(algorithm=algorithm)
    env, agent, _ = prl.build(config)
    key = jax.random.key(0, impl="rbg")
    obs = jnp.zeros(config.num_envs, int)
    state = prl.TrainState(key, jnp.int32(0), (), agent.init(key, obs), ())
    checks.check_state(config, env, agent, state)


def test_actions_of_a_policy_may_be_booleans_or_lists(trained):
    config, state = trained
    play = partial(prl.evaluate, jax.random.key(0), config, state, 2, max_steps=20)
    found = [
        play(policy=lambda config, state, act=act: lambda key, obs: act(obs))
        for act in (lambda obs: obs[:, 0] > -9, lambda obs: [1, 1], lambda obs: jnp.ones(2, int))
    ]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])
    own = prl.Policy(lambda key, obs, carry: (jnp.full(2, 7.5), carry), lambda num: ())
    with pytest.raises(ConfigError, match=r"the policy returned actions that are float32\[2\]"):
        play(policy=lambda config, state: own)


class FloatStates(Probe):
    def observation_space(self, params):
        return spaces.Discrete(2)

    def get_obs(self, state, *rest):
        return jnp.float32(0)


def test_states_of_a_discrete_space_are_integers():
    with pytest.raises(ConfigError, match=r"observations that are float32, .* return integers"):
        prl.build(small("dqn", env=FloatStates(lambda *_: 1.0, 3)))


def test_configurations_and_states_in_the_wrong_place(trained):
    config, state = trained
    key = jax.random.key(0)
    for call in (prl.evaluate, prl.rollout_episodes, prl.record_dataset):
        with pytest.raises(ConfigError, match="config is a TrainState, but must be a Config"):
            call(key, state, config, 2)
    for call in (prl.seed_axes, lambda x: prl.seed_state(x, 0)):
        with pytest.raises(ConfigError, match="state is None, but must be a TrainState"):
            call(None)
