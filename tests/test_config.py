"""Invalid configurations raise one-line errors before compilation."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, heads, mdp, networks
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.agents.distributional import QRDQNConfig, c51, qr_dqn
from purejaxrl_sac.agents.dqn import dqn
from purejaxrl_sac.agents.off_policy import NStep, Prioritized
from purejaxrl_sac.config import bounds_of, kind_of, static_fields
from purejaxrl_sac.experiment.runs import record
from purejaxrl_sac.presets import PRESETS
from tests.conftest import small
from tests.probes import Counter


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0, but must be at least 1"),
        ({"rollout_length": -1}, "rollout_length is -1"),
        ({"batch_size": 2.5}, "batch_size is 2.5, but must be a whole number"),
        ({"batch_size": 97}, "batch_size 97 is larger than capacity 96"),
        ({"capacity": 100}, "capacity is 100, but must be a multiple .* = 12, for example 96"),
        ({"total_steps": 2**60}, "total_steps is 1152921504606846976, but must be between"),
        ({"total_steps": 3 * 2**31}, r"each environment may take fewer than 2\*\*31 steps"),
        ({"num_updates": 2**31}, r"2147483648 updates each are 2\*\*31 updates or more"),
        ({"total_steps": 30}, "total_steps is 30, but the warm-up and one iteration take 36"),
        ({"gamma": 1.5}, "gamma is 1.5, but must be between 0 and 1"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001, but must be zero or more"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, but must be a number"),
        ({"huber_delta": 0.0}, "huber_delta is 0.0, but must be greater than zero"),
        ({"warmup_steps": 20.0}, "warmup_steps is 20.0, but must be a whole number"),
        ({"capacity": 12 * 10**9}, "capacity is 12000000000, but must be less than"),
        ({"learning_rate": float("inf")}, "learning_rate is inf, but must be finite"),
        ({"target_period": 0}, "target_period is 0, but must be"),
        ({"target_period": 2.5}, "target_period is 2.5, but must be a whole number"),
        ({"hidden_sizes": (32, 0)}, "hidden_sizes is .* but must be a tuple of whole numbers"),
        ({"activation": "rellu"}, "no activation is called rellu: did you mean relu"),
    ],
)
def test_invalid_fields_raise_one_line(changes, message):
    refused(small("dqn", **changes), message)


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("c51", {"v_min": 3.0, "v_max": 3.0}, "v_min is 3.0, but must be less than v_max = 3.0"),
        ("rainbow", {"v_max": -1.0}, "v_min is 0.0, but must be less than v_max = -1.0"),
        ("c51", {"v_max": float("inf")}, "v_max is inf, but must be finite"),
        ("c51", {"num_atoms": 1}, "num_atoms is 1, but must be at least 2"),
        ("n_step_dqn", {"n_step": 0}, "n_step is 0, but must be at least 1"),
        ("n_step_dqn", {"n_step": 33}, "n_step is 33, but the memory stores 32 steps of each of 3"),
        ("per_dqn", {"priority_exponent": 1.1}, "priority_exponent is 1.1, but must be between"),
        ("rainbow", {"importance_exponent": -0.1}, "importance_exponent is -0.1, but must be"),
        ("qr_dqn", {"huber_delta": float("inf")}, "huber_delta is inf, but must be finite"),
        ("qr_dqn", {"num_quantiles": 0}, "num_quantiles is 0, but must be at least 1"),
        ("iqn", {"cvar": 0.0}, "cvar is 0.0, but must be greater than zero"),
        ("munchausen_dqn", {"munchausen_min": 0.1}, "munchausen_min is 0.1, but must be zero or"),
        ("munchausen_dqn", {"alpha": 0.0}, "alpha is 0.0, but must be greater than zero"),
        ("dqn", {"compute_dtype": "float61"}, "no compute_dtype is called float61: did you mean"),
        ("pqn", {"num_updates": 3, "num_epochs": 2}, "num_updates is 3, but must be num_epochs ="),
        ("pqn", {"num_updates": 5}, "a number of minibatches that divides .* = 12"),
    ],
)
def test_invalid_fields_of_every_algorithm_raise_one_line(algorithm, changes, message):
    refused(small(algorithm, **changes), message)


def test_a_cnn_rejects_flat_observations():
    network = partial(networks.q_network, layers=lambda space: networks.MINATAR)
    message = r"a CNN needs images \[H, W, C\], but observations are of shape \(4,\)"
    refused(small("dqn").replace(algorithm=partial(dqn, network=network)), message)


def test_a_part_names_the_fields_it_needs():
    refused(small("dqn").replace(algorithm=c51), "needs a field v_min, which a DQNConfig does not")


def test_an_algorithm_returns_an_agent_and_a_memory():
    for returned in (None, "agent", (1, 2, 3)):
        config = small("dqn").replace(algorithm=lambda config, env, it=returned: it)
        refused(config, f"returned {kind_of(returned)}, but must return")


def test_a_configuration_needs_an_algorithm():
    refused(NStep(), "an NStep has no algorithm: set algorithm=...")

    class Both(NStep, QRDQNConfig):
        pass

    assert Both().algorithm is qr_dqn
    prl.make_train(Both())


def test_defaults_are_those_of_the_first_base_that_declares_them():
    class Both(Prioritized, prl.REDQConfig):
        pass

    class Child(Both):
        tau: float = 0.5

    for config in (Both(), Child()):
        assert config.num_updates == type(config).num_updates == prl.REDQConfig.num_updates != 1
    assert bounds_of(Child)["num_updates"] == bounds_of(prl.Config)["num_updates"]


def test_a_new_default_of_a_static_field_is_static():
    class Mine(prl.DQNConfig):
        batch_size: int = 16

    assert "batch_size" in static_fields(Mine) and 16 not in jax.tree.leaves(Mine())
    refused(Mine(batch_size=0), "batch_size is 0, but must be at least 1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma": 0.5}, "Mine sets gamma without a type, .*: annotate it, as gamma: float = "),
        ({"kind": "a", "__annotations__": {"kind": str}}, r"kind .*: declare it as .* = static\("),
        ({"act": len, "__annotations__": {"act": object}}, r"act .* = static\("),
        ({"names": ("a",), "__annotations__": {"names": tuple}}, r"names .* = static\("),
    ],
)
def test_defaults_that_are_no_data_are_refused_with_the_class(fields, message):
    with pytest.raises(ConfigError, match=message):
        type("Mine", (prl.SACConfig,), fields)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_preset_is_valid(algorithm):
    for name, env in PRESETS:
        if name == algorithm:
            config = prl.preset(name, env)
            if env.startswith("brax/"):  # optional dependency
                config = config.replace(env="Pendulum-v1")
            prl.make_train(config)


def refused(config, message):
    for start in (prl.make_train, lambda c: prl.init(jax.random.key(0), c)):
        with pytest.raises(prl.ConfigError, match=message) as error:
            start(config)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("algorithm", "env"), [("sac", "CartPole-v1"), ("dqn", "Pendulum-v1")])
def test_unsupported_action_spaces_are_errors(algorithm, env):
    for start in (prl.make_train, lambda c: prl.init(jax.random.key(0), c)):
        with pytest.raises(prl.ConfigError, match=r"needs (continuous|discrete) actions.*: use"):
            start(prl.preset(algorithm, env))


def test_unknown_algorithms_get_a_suggestion():
    with pytest.raises(prl.ConfigError, match=r"did you mean double_dqn\?"):
        prl.preset("doubledqn")


def test_numpy_integers_are_accepted():
    import numpy as np

    prl.validate(small("dqn", batch_size=np.int64(8)))


def test_traced_values_are_not_validated():
    jax.eval_shape(lambda rate: prl.validate(small("dqn").replace(learning_rate=rate)), -1.0)
    jax.eval_shape(prl.init, jax.random.key(0), small("sac"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_configurations_survive_json(algorithm):
    import json

    config = small(algorithm, gamma=0.9)
    data = json.loads(json.dumps(record.config_to_dict(config), allow_nan=False))
    assert record.config_from_dict(data) == config
    assert data["algorithm"] == algorithm


def test_configurations_that_json_cannot_restore_are_errors():
    for name, value in (("env", Counter()), ("algorithm", lambda config, env: None)):
        data = record.config_to_dict(small("dqn").replace(**{name: value}))
        with pytest.raises(prl.ConfigError, match=f"its {name} is .*{name}="):
            record.config_from_dict(data)
    with pytest.raises(prl.ConfigError, match="another format"):
        record.config_from_dict({"schema": 0})


def test_presets_are_configured_for_their_environment():
    assert prl.preset("sac").env == "Pendulum-v1"
    assert prl.preset("dqn", "Acrobot-v1").env == "Acrobot-v1"
    env = Counter()
    assert prl.preset("dqn", env).env is env


def test_an_implicit_head_needs_its_network():
    algorithm = partial(dqn, head=heads.implicit_quantile)
    config = small("iqn").replace(algorithm=algorithm)
    with pytest.raises(ConfigError, match="needs a network that returns Quantiles"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_a_field_that_does_not_exist():
    for make in (prl.SACConfig, prl.preset("sac").replace):
        with pytest.raises(ConfigError, match="no field of SACConfig is called taau: did you mean"):
            make(taau=1)
    with pytest.raises(ConfigError, match="no field of DQNConfig is called"):
        prl.DQNConfig(**{"": 1})


def test_fields_of_ones_own_without_bounds_take_any_value():
    class Own(prl.SACConfig):
        count: int = 2
        floor: float = -math.inf
        goal: float | None = math.nan

    for changes in ({}, {"count": 3, "goal": None}, {"floor": jnp.zeros(3)}):
        prl.validate(Own(**changes))
    assert "count" not in bounds_of(Own)  # so that a run restores an int as an int


def test_a_configuration_with_a_constructor_of_its_own():
    class Own(prl.SACConfig):
        def __init__(self, width=16, **fields):
            super().__init__(hidden_sizes=(width, width), **fields)

    assert Own(width=8, tau=0.5).hidden_sizes == (8, 8)
    with pytest.raises(ConfigError, match="no field of SACConfig is called taau"):
        prl.SACConfig(**{"taau": 1})


def test_values_in_messages():
    values = (None, 3, "x", (1, 2), [1], jnp.zeros((2, 3)), prl.types.Index(0, 0), ValueError())
    texts = ("None", "3", "'x'", "a tuple of 2", "a list", "an array of shape [2, 3]", "an Index")
    assert tuple(map(kind_of, values)) == (*texts, "a ValueError")
    values = (mdp.chain(3), prl.PPOConfig(), spaces.Box(0, 1, (3,)), prl.PPOConfig)
    texts = ("an MDP", "a PPOConfig", "a Box", "the class PPOConfig")
    assert tuple(map(kind_of, values)) == texts
