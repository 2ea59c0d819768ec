"""Texts of functions and environments: equal for equal ones, different for different ones."""

import dataclasses
import enum
import functools
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purejaxrl_sac import networks, normalize
from purejaxrl_sac.agents import ALGORITHMS, dqn, exported, q_learning
from purejaxrl_sac.experiment.runs import names, plans, record
from tests.conftest import small

CartPole = type(gymnax.make("CartPole-v1")[0])


class Mine(CartPole):
    """An environment with one attribute of any kind."""

    def __init__(self, value=None):
        super().__init__()
        self.value = value


class Plain:
    def __init__(self, x):
        self.x = x

    def go(self):
        return self.x

    def __call__(self):
        return self.x


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


@dataclasses.dataclass(frozen=True)
class Data:
    x: object


class Kind(enum.Enum):
    A = 1
    B = 2


def closure(x):
    return lambda: x


def local_class(x):
    class Inner:
        value = x

    return Inner()


PAIRS = {
    "numbers": (1, 2),
    "types of numbers": (1, 1.0),
    "long texts": ("a" * 100, "a" * 99 + "b"),
    "bytes": (b"a", b"b"),
    "complex": (1j, 2j),
    "ranges": (range(2), range(3)),
    "enums": (Kind.A, Kind.B),
    "sets": ({1, 2}, {1, 3}),
    "objects": (Plain(1), Plain(2)),
    "objects with slots": (Slotted(1), Slotted(2)),
    "dataclasses": (Data(1), Data(2)),
    "namespaces": (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    "arrays": (np.zeros(2), np.ones(2)),
    "arrays of other types": (np.zeros(2, np.int32), np.zeros(2, np.float32)),
    "arrays of objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "keys": (jax.random.key(0), jax.random.key(1)),
    "lists of environments": ([Mine(1)], [Mine(2)]),
    "functions in containers": ((len,), (sum,)),
    "functions in dictionaries": ({"a": len}, {"a": sum}),
    "classes in lists": ([int], [float]),
    "partial functions": ([partial(len, 1)], [partial(len, 2)]),
    "bound methods": (Plain(1).go, Plain(2).go),
    "callable objects": (Plain(1), Plain(2)),
    "closures": (closure(1), closure(2)),
    "constants of lambdas": (lambda: 1, lambda: 2),
    "names in lambdas": (lambda: len, lambda: sum),
    "compiled functions": (jax.jit(closure), closure),
    "functions of numpy": (jnp.add, jnp.multiply),
    "optimisers": (optax.adam(1e-3), optax.adam(1e-2)),
    "layers": (nn.Dense(8), nn.Dense(16)),
    "methods without a module": ([1].append, {}.get),
    "nested environments": (Mine(Mine(1)), Mine(Mine(2))),
    "keys of dictionaries": ({1: "a", "b": 2}, {1: "a", "b": 3}),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_different_attributes_have_different_texts(pair):
    one, other = map(Mine, PAIRS[pair])
    assert names.environment_name(one) != names.environment_name(other)
    first, second = (partial(dqn.dqn, part=x) for x in PAIRS[pair])
    assert names.function_name(first) != names.function_name(second)


EQUAL = {
    "arrays": (jnp.arange(3), np.arange(3, dtype=np.int32)),
    "numbers": (np.float64(0.5), 0.5),
    "dictionaries": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "sets": ({"x", "y", "z"}, {"z", "y", "x"}),
    "closures": (closure(1), closure(1)),
    "optimisers": (optax.adam(1e-3), optax.adam(1e-3)),
    "objects": (Plain([1, {"a": (2,)}]), Plain([1, {"a": (2,)}])),
}


@pytest.mark.parametrize("pair", EQUAL)
def test_equal_attributes_have_equal_texts(pair):
    one, other = map(Mine, EQUAL[pair])
    assert names.environment_name(one) == names.environment_name(other)


def test_texts_have_an_end_and_no_addresses():
    ring = []
    ring.append(ring)
    env = Mine(ring)
    env.itself, env.module, env.object = env, sys, object()
    found = names.environment_name(env)
    assert "..." in found and " at 0x" not in found and len(found) < 500
    assert len(names.environment_name(Mine("x" * 10_000))) < 200


def test_what_an_object_has_cached_does_not_count():
    class Cached(Mine):
        @functools.cached_property
        def table(self):
            return np.zeros(3)

    env = Cached(1)
    before = names.environment_name(env)
    assert env.table.shape == (3,)
    assert names.environment_name(env) == before


def texts():
    """Texts of values whose order or address in memory differs between processes."""
    values = [{"x", "y", "z"}, optax.adam(1e-3), nn.Dense(8), closure(1), Plain(2).go]
    return [names.environment_name(Mine(x)) for x in values]


def test_texts_are_equal_again_and_in_another_process():
    assert texts() == texts()
    code = "import sys, tests.conftest; sys.path.append('tests'); import test_names"
    run = [sys.executable, "-c", f"{code}; print(test_names.texts())"]
    other = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(texts())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_listed_algorithms_and_wrappers_have_their_names(name):
    config = small("q_learning").replace(algorithm=exported(name))
    assert record.config_to_dict(config)["algorithm"] == name
    assert names.function_name(normalize.rewards) == "rewards"


def test_an_algorithm_of_ones_own_is_not_the_one_of_its_name():
    def q_learning(config, env):
        return q_learning.q_learning(config, env)

    config = small("q_learning").replace(algorithm=q_learning)
    assert record.config_to_dict(config)["algorithm"] != "q_learning"


def test_composed_functions_are_shown_as_calls():
    algorithm = partial(dqn.dqn, bootstrap=dqn.double, network=networks.q_network)
    assert names.function_name(algorithm) == (
        "dqn(bootstrap=purejaxrl_sac.agents.dqn:double,"
        " network=purejaxrl_sac.networks.q_networks:q_network)"
    )
    omega = names.function_name(partial(q_learning.q_learning, omega=2))
    assert omega != names.function_name(partial(q_learning.sarsa, omega=2))


def test_short_names_have_parts_without_modules_and_addresses():
    critics = partial(networks.q_network, norm=partial(nn.LayerNorm, epsilon=1e-6), act=Plain(1))
    algorithm = partial(dqn.dqn, network=critics, sizes=(1, np.float32(2)), bootstrap=dqn.double)
    assert names.short_name(algorithm) == (
        "dqn(network=q_network(norm=LayerNorm(epsilon=1e-06), act=Plain), sizes=(1, 2.0),"
        " bootstrap=double)"
    )
    assert names.short_name(partial(len, "a" * 100)) == f"len('{'a' * 58}…)"
    ring = []
    ring.append(partial(len, ring))
    assert names.short_name(ring) == "(len(...))"


def test_titles_of_composed_algorithms_are_short():
    config = small("dqn")
    assert plans.title(config) == "dqn on CartPole-v1"
    part = partial(networks.q_network, norm=nn.LayerNorm)
    composed = config.replace(algorithm=partial(dqn.dqn, network=part))
    expected = "dqn(network=q_network(norm=LayerNorm)) on CartPole-v1"
    assert plans.title(composed) == expected
    many = partial(composed.algorithm, bootstrap=dqn.double, optimizer=optax.lion, more="x" * 50)
    found = plans.title(config.replace(algorithm=many))
    assert found.startswith(expected[:37]) and found.endswith("… on CartPole-v1")
    assert len(found) == plans.LONGEST_NAME + len(" on CartPole-v1")


def test_runs_of_the_format_before_are_read_with_their_names():
    firm = gymnax.make("FrozenLake-misc", is_slippery=False)[0]
    config = small("q_learning", env="FrozenLake-misc").replace(env=firm)
    old = record._with_old_names(config)
    assert (old["schema"], old["env"]) == (1, "FrozenLake-misc")
    record.check_equal(config, old, "run")
    with pytest.raises(record.ConfigError, match=r"gamma is 0\.5, but was 0\.99"):
        record.check_equal(config.replace(gamma=0.5), old, "run")
    plain = small("q_learning", env="FrozenLake-misc")
    old = {**record.config_to_dict(plain), "schema": 1}
    assert record.config_from_dict(old).gamma == plain.gamma


def test_long_texts_are_cut_to_where_they_differ():
    one, other = "a" * 300 + "b" + "c" * 300, "a" * 300 + "d" + "c" * 300
    found = names.differing(one, other)
    assert all(len(x) < 110 and x.startswith("...") and x.endswith("...") for x in found)
    assert "b" in found[0] and "d" in found[1]
    assert names.differing("x", "y") == ("x", "y")
