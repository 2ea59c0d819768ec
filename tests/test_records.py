"""Packed records: exactness, size, and bits for declared environments only."""

import re
from functools import partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import minatar, spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import purejaxrl_sac as prl
from purejaxrl_sac import envs, normalize
from purejaxrl_sac.agents import dqn as parts
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.memory import records
from purejaxrl_sac.memory.storage import deduplicated, ring
from purejaxrl_sac.types import Transition
from tests.conftest import quick, small
from tests.probes import Probe, replayed, stored

GAMES = {
    "Asterix-MinAtar": minatar.MinAsterix,
    "Breakout-MinAtar": minatar.MinBreakout,
    "Freeway-MinAtar": minatar.MinFreeway,
    "Seaquest-MinAtar": minatar.MinSeaquest,
    "SpaceInvaders-MinAtar": minatar.MinSpaceInvaders,
}
DTYPES = ("float32", "int32", "uint32", "bool", "uint8", "int8", "int16", "float16", "bfloat16")
NAMES = [name for name in gymnax.registered_envs if name in GAMES]


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def raw(x):
    """Dtype, shape and bytes of an array."""
    x = np.ascontiguousarray(x)
    return x.dtype, x.shape, x.tobytes()


def noise(rng, shape, dtype):
    """Random bits, which include nan, inf and -0.0."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    dtype = jnp.dtype(dtype)
    return rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]


def spec_of(transition, axes):
    def one(x):
        return jax.ShapeDtypeStruct(x.shape[axes:], x.dtype)

    return jax.tree.map(one, transition)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_words_are_decoded_bit_for_bit(data):
    shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lead = data.draw(st.sampled_from([(), (3,), (2, 3)]))

    def field():
        dtype = data.draw(st.sampled_from(DTYPES))
        return noise(rng, (*lead, *data.draw(shapes)), dtype)

    transition = Transition(*[field() for _ in range(6)], {"a": field(), "b": (field(), ())})
    record = records.words(spec_of(transition, len(lead)))
    packed = jax.jit(record.encode)(transition)
    assert packed.dtype == jnp.uint32 and packed.shape == (*lead, record.words)
    restored = jax.jit(record.decode)(packed)
    assert jax.tree.structure(restored) == jax.tree.structure(transition)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(transition), strict=True):
        assert raw(ours) == raw(theirs)


def test_words_are_as_few_as_the_widths_allow():
    def words(**fields):
        none = dict.fromkeys(Transition._fields, ())
        fields = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (shape, dtype) in fields.items()}
        return records.words(Transition(**{**none, **fields})).words

    assert words(obs=((7,), jnp.float32)) == 7
    assert words(obs=((7,), jnp.bfloat16)) == 4
    assert words(obs=((7,), jnp.uint8)) == 2
    assert words(obs=((33,), bool)) == 2
    assert words(obs=((5,), jnp.uint8), next_obs=((3,), jnp.int8), last=((), bool)) == 3


def test_doubles_are_two_words():
    with jax.enable_x64(True):
        x = noise(np.random.default_rng(0), (4, 3), "float64")
        transition = Transition(x, *[np.zeros(4, bool)] * 5)
        record = records.words(spec_of(transition, 1))
        assert record.words == 7
        assert raw(record.decode(record.encode(jax.tree.map(jnp.asarray, transition))).obs) == raw(
            x
        )


@pytest.mark.parametrize("dtype", (jnp.complex64, jnp.int4))
def test_unsupported_dtypes_raise(dtype):
    spec = Transition(jax.ShapeDtypeStruct((3,), dtype), (), (), (), (), ())
    message = f"records cannot hold {jnp.dtype(dtype)} bit for bit"
    with pytest.raises(ConfigError, match=message) as error:
        records.words(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", (ring, deduplicated))
def test_storages_preserve_special_floats(kind):
    special = np.float32([np.nan, np.inf, -np.inf, -0.0, 1e-45, -1e-40, 3.4e38, 1 / 3])
    special = np.concatenate([special, np.uint32([0x7FC00001, 0xFF812345]).view(np.float32)])
    rollout = Transition(
        obs=np.stack([special, special[::-1]], -1)[:, None],
        action=np.zeros((10, 1), np.int32),
        reward=special[:, None],
        discount=np.ones((10, 1), np.float32),
        next_obs=np.stack([special, special[::-1]], -1)[:, None],
        last=np.ones((10, 1), bool),
    )
    rollout = jax.tree.map(jnp.asarray, rollout)
    storage = kind(20, 1)
    state = storage.init(jax.eval_shape(lambda: rollout))
    state = jax.jit(storage.add)(state, jnp.int32(0), rollout)
    read = stored(storage, state, 10)
    for ours, theirs in zip(read, rollout, strict=True):
        assert raw(ours) == raw(theirs) if len(ours) else theirs == ()


@pytest.mark.parametrize("name", quick(NAMES, "Asterix-MinAtar", "Breakout-MinAtar"))
def test_minatar_observations_are_zeros_and_ones(name):
    """In rollouts of random actions with resets: the declared classes are correct."""
    env = envs.bind(name)
    assert env.binary_observations and type(envs.make(name)) is GAMES[name]

    def actor(key, obs, step, carry):
        return env.random_action(key, 16), (), carry

    params = envs.make(name).default_params.replace(max_steps_in_episode=150)
    env = envs.bind(name, params)
    keys = jax.random.split(jax.random.key(0), (400, 17))
    _, (rollout, _) = jax.jit(
        lambda: envs.rollout(env, keys, env.reset(jax.random.key(1), 16), jnp.int32(0), actor)
    )()
    assert rollout.last.any()
    for obs in (rollout.obs, rollout.next_obs):
        assert set(np.unique(obs)) == {0, 1}
    assert np.asarray(rollout.action).max() == env.num_actions - 1
    record = records.bits(env)(spec_of(rollout, 2))
    restored = record.decode(jax.jit(record.encode)(rollout))
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(rollout), strict=True):
        assert raw(ours) == raw(theirs)


class Wrapper:
    """Forwards all attributes, as gymnax's wrappers do."""

    def __init__(self, env):
        self._env = env

    def __getattr__(self, name):
        return getattr(self._env, name)


class Subclass(minatar.MinBreakout):
    pass


class Signs(Probe):
    """Observations (sign > 0, time > 0), as float32."""

    binary_observations = True

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.sign > 0, state.time > 0]).astype(jnp.float32)


class Property(Signs):
    binary_observations = property(lambda self: True)


def test_binary_observations_must_be_declared():
    declared = Signs(lambda *_: 1.5, horizon=3)
    assert envs.bind(declared).binary_observations
    for env in (
        Subclass(),
        Wrapper(envs.make("Breakout-MinAtar")),
        Wrapper(declared),
        Property(lambda *_: 1.5, horizon=3),
        envs.make("CartPole-v1"),
        envs.make("DeepSea-bsuite"),
    ):
        bound = envs.bind(env)
        assert not bound.binary_observations
        with pytest.raises(ConfigError, match=re.escape(bound.name)) as error:
            records.bits(bound)
        assert "\n" not in str(error.value) and "binary_observations = True" in str(error.value)


def memory_of(config):
    return jax.eval_shape(partial(prl.init, config=config), jax.random.key(0)).memory


def test_only_declared_environments_are_packed_into_bits(key):
    config = small("dqn", env=Signs(lambda sign, time, action: 1 / 3, horizon=3))
    state, _ = jax.jit(prl.train)(key, config)
    found = replayed(config, state)
    assert state.memory.words.shape == (96, 2)  # the reward, and 2 + 2 + 1 + 1 + 1 bits
    assert found.obs.dtype == jnp.float32 and set(np.unique(found.obs)) == {0, 1}
    assert (found.reward == np.float32(1 / 3)).all()
    wrapped = memory_of(config.replace(wrappers=(lambda config, env, agent: agent,)))
    assert wrapped.words.shape == (96, 8)  # it might change stored transitions
    known = memory_of(config.replace(wrappers=(normalize.rewards,)))
    assert known.words.shape == (96, 2)
    plain = memory_of(small("dqn", env=Probe(lambda *_: 0.0, horizon=3)))
    assert plain.words.shape == (96, 8)


@pytest.mark.parametrize("algorithm", quick(("dqn", "n_step_dqn", "per_dqn"), "n_step_dqn"))
def test_training_on_bits_equals_training_on_words(algorithm, key):
    """Breakout, with a memory that wraps around and truncated episodes."""
    params = envs.make("Breakout-MinAtar").default_params.replace(max_steps_in_episode=7)
    config = small(algorithm, env="Breakout-MinAtar", total_steps=360)
    exact = partial(parts.replay_storage, codec=records.words)
    if algorithm == "n_step_dqn":
        exact = partial(parts.n_step_storage, codec=records.words)
    words = config.replace(algorithm=partial(config.algorithm, storage=exact))
    trained = [jax.jit(prl.train)(key, c.replace(env_params=params)) for c in (config, words)]
    for ours, theirs in zip(
        jax.tree.leaves((trained[0][0].agent, trained[0][1])),
        jax.tree.leaves((trained[1][0].agent, trained[1][1])),
        strict=True,
    ):
        if algorithm == "per_dqn":  # fused differently, with other rounding errors
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        else:
            assert raw(ours) == raw(theirs)


@pytest.mark.parametrize("length", (1, 4))
def test_deduplicated_bits_equal_a_ring_of_words(length):
    """Time limits, terminations and wrap-around, for rollouts of one row and of several."""
    env, num_envs, rows = envs.bind("Breakout-MinAtar"), 3, 16
    rng = np.random.default_rng(0)
    storages = (deduplicated(rows * 3, 3, rows * 3, records.bits(env)), ring(rows * 3, 3))
    adds = [jax.jit(storage.add) for storage in storages]
    states, before, was_last, truncations = None, None, None, 0
    for step in range(0, 5 * rows, length):
        shape = (length, num_envs)
        obs, following = rng.integers(0, 2, (2, *shape, 10, 10, 4)).astype(np.float32)
        last = rng.random(shape) < 0.4
        terminated = last & (rng.random(shape) < 0.5)
        if states is not None:
            obs[0] = np.where(was_last[:, None, None, None], obs[0], before)
        for t in range(1, length):
            obs[t] = np.where(last[t - 1][:, None, None, None], obs[t], following[t - 1])
        before, was_last = following[-1], last[-1]
        rollout = Transition(
            obs,
            rng.integers(0, 3, shape).astype(np.int32),
            rng.normal(size=shape).astype(np.float32),
            1 - terminated.astype(np.float32),
            following,
            last,
        )
        rollout = jax.tree.map(jnp.asarray, rollout)
        if states is None:
            states = [s.init(jax.eval_shape(lambda r=rollout: r)) for s in storages]
        states = [
            add(state, jnp.int32(step), rollout) for add, state in zip(adds, states, strict=True)
        ]
        if step + length < rows or step % 8:  # compiles for one shape only
            continue
        ours, theirs = (
            stored(storage, state, step + length)
            for storage, state in zip(storages, states, strict=True)
        )
        not_terminated = theirs.discount > 0
        truncations += (theirs.last & not_terminated).sum()
        assert raw(ours.next_obs[not_terminated]) == raw(theirs.next_obs[not_terminated])
        for name in ("obs", "action", "reward", "discount", "last"):
            assert raw(getattr(ours, name)) == raw(getattr(theirs, name)), name
    assert truncations > 0


@pytest.mark.parametrize("capacity", (100_000, 1_000_000))
def test_a_frame_of_breakout_takes_at_most_64_bytes(capacity):
    """The whole replay memory of a seed, boundaries included."""
    memory = memory_of(prl.preset("dqn", "Breakout-MinAtar").replace(capacity=capacity))
    assert size(memory) <= 64 * capacity
    assert memory.boundary.shape[0] == capacity // 16


@pytest.mark.parametrize("kind", (ring, deduplicated))
@pytest.mark.parametrize("seeds", (None, 4))
def test_a_write_is_one_update_slice(kind, seeds):
    storage = kind(16_000, 4)
    shape = (1, 4)
    image, number = jnp.zeros((*shape, 10, 10, 4)), jnp.zeros(shape)
    rollout = Transition(image, number.astype(jnp.int32), number, number, image, number > 0)
    state = storage.init(jax.eval_shape(lambda: rollout))
    add = storage.add
    if seeds:
        state, rollout = jax.tree.map(lambda x: jnp.stack([x] * seeds), (state, rollout))
        add = jax.vmap(add, (0, None, 0))
    jaxpr = str(jax.make_jaxpr(add)(state, jnp.int32(0), rollout))
    assert jaxpr.count("dynamic_update_slice") == 1
    assert jaxpr.count("scatter[") == (
        kind is deduplicated
    )  # the boundaries, a sixteenth of the rows


def test_custom_codecs(key):
    """A codec for rewards that are multiples of 1/16."""

    def codec(spec):
        rest = records.words(spec._replace(reward=()))

        def encode(x):
            packed = rest.encode(x._replace(reward=()))
            return jnp.concatenate([packed, (x.reward * 16).astype(jnp.uint32)[..., None]], -1)

        def decode(record):
            reward = record[..., -1].astype(jnp.float32) / 16
            return rest.decode(record[..., :-1])._replace(reward=reward)

        return records.Record(rest.words + 1, encode, decode)

    storage = partial(parts.replay_storage, codec=codec)
    config = small("dqn").replace(algorithm=partial(parts.dqn, storage=storage))
    plain = jax.jit(prl.train)(key, small("dqn"))[0]
    ours = jax.jit(prl.train)(key, config)[0]
    found = stored(storage(config, envs.bind(config.env)), ours.memory, ours.step)
    assert (found.reward == replayed(small("dqn"), plain).reward).all()
    for a, b in zip(jax.tree.leaves(ours.agent), jax.tree.leaves(plain.agent), strict=True):
        assert raw(a) == raw(b)


def test_bits_of_discrete_actions():
    env = envs.bind(Signs(lambda *_: 0.0, horizon=3))
    number = jax.ShapeDtypeStruct((), jnp.float32)
    spec = Transition((), jax.ShapeDtypeStruct((), jnp.int32), (), number, (), number)
    for count, words in ((2, 1), (2**30, 1), (2**30 + 1, 2)):
        env = env._replace(num_actions=count)
        record = records.bits(env)(spec)
        assert record.words == words
        action = jnp.int32([0, 1, count - 1, count // 2])
        flags = jnp.float32([0, 1, 1, 0])
        rollout = Transition((), action, (), flags, (), 1 - flags)
        restored = record.decode(record.encode(rollout))
        assert raw(restored.action) == raw(action) and raw(restored.discount) == raw(flags)
    assert spaces.Discrete(2).n == envs.bind(Signs(lambda *_: 0.0)).num_actions
