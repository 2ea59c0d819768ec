"""The public names: typed, imported when they are needed, and documented."""

import dataclasses
import functools
import inspect
import re
import subprocess
import sys
import typing
from collections import defaultdict
from pathlib import Path

import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import agents
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.config import Bounds, Config

ROOT = Path(__file__).parent.parent


def in_a_fresh_interpreter(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fresh_interpreter_has_every_public_name_and_imports_nothing_expensive_before():
    code = """
import sys, purejaxrl_sac as prl
from purejaxrl_sac.agents import listed_base, name_of
heavy = {"distrax", "gymnax", "matplotlib", "orbax", "scipy", "tensorflow_probability", "tyro"}
print(sorted(heavy & set(sys.modules)), "purejaxrl_sac.agents.sac" in sys.modules)
config = prl.preset("rainbow", "CartPole-v1")
print(name_of(config), listed_base(config.algorithm), "distrax" in sys.modules)
for name in prl.__all__:
    getattr(prl, name)
for name in prl.experiment.__all__:
    if name not in ("cluster",):
        getattr(prl.experiment, name)
assert set(prl.__all__) <= set(dir(prl))
print(prl.SACConfig().tau, prl.networks.MLP.__name__, prl.experiment.plot.__name__)
"""
    imported, of_rainbow, named = in_a_fresh_interpreter(code).splitlines()
    assert imported == "[] False"
    assert of_rainbow == "rainbow rainbow False"  # DQN has no use for what SAC imports
    assert named.startswith("0.005 MLP purejaxrl_sac.experiment")


def test_variants_are_the_modules_with_algorithms_of_another_module():
    found = defaultdict(set)
    for name, (module, *_) in ALGORITHMS.items():
        algorithm = agents.exported(name)
        of = getattr(algorithm, "func", algorithm).__module__.rpartition(".")[2]
        if of != module:
            found[of].add(module)
        assert agents.listed_base(algorithm) == name
        assert agents.listed_base(functools.partial(algorithm, mine=1)) == name
    own = type("Own", (), {"__module__": None, "__call__": lambda self, config, env: None})
    assert agents.listed_base(own()) is None
    assert found == {module: set(others) for module, others in agents.VARIANTS.items()}


def test_an_unknown_name_is_an_attribute_error():
    for module in (prl, prl.experiment):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_every_public_name_is_documented():
    text = (ROOT / "purejaxrl_sac" / "README.md").read_text()
    section = text.split("## Public names\n")[1].split("\n## ")[0]
    missing = [name for name in prl.__all__ if f"`{name}`" not in section]
    assert not missing
    quoted = {word for word in section.split("`")[1::2] if word.isidentifier()}
    assert quoted <= set(prl.__all__) | set(prl.experiment.__all__)


@pytest.mark.parametrize("function", (agents.default_config, agents.preset))
def test_named_algorithms_are_typed_by_their_configuration(function):
    """An editor knows the fields of `preset("sac")`: one overload for each configuration class."""
    found = {}
    for overload in typing.get_overloads(function):
        annotations = inspect.get_annotations(overload)
        names, returned = annotations["algorithm"], annotations["return"].removeprefix("prl.")
        if names.startswith("Literal"):
            for name in names.removeprefix("Literal[").removesuffix("]").split(","):
                found[name.strip(" \n\"'")] = returned
    assert found == {name: config for name, (_, config, _) in ALGORITHMS.items()}
    for name, config in found.items():
        assert type(function(name)).__name__ == config


def test_every_field_of_every_configuration_is_documented():
    source = functools.cache(inspect.getsource)
    for kind in {type(agents.default_config(name)) for name in ALGORITHMS}:
        for field in dataclasses.fields(kind):
            if field.name == "algorithm":  # the class's docstring states it
                continue
            places = [x for x in kind.__mro__ if field.name in vars(x).get("__annotations__", {})]
            documented = rf'\n    {field.name}: [^\n]*(\n        [^\n]*\n    \))?\n    """'
            assert re.search(documented, source(places[0])), (
                f"{places[0].__name__}.{field.name} has no docstring"
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": "0.9"}, "gamma is '0.9', but must be a number"),
        ({"tau": None}, "tau is None, but must be a number"),
        ({"learning_rate": [1e-3]}, r"learning_rate is \[0.001\], but must be a number"),
        ({"num_envs": True}, "num_envs is True, but must be a whole number"),
        ({"batch_size": "8"}, "batch_size is '8', but must be a whole number"),
        ({"hidden_sizes": 5}, "hidden_sizes is 5, but must be a tuple"),
        ({"activation": 3}, "no activation is called 3: choose from relu"),
        ({"gamma": "np.float32(1.5)"}, "gamma is 1.5, but must be between 0 and 1"),
        ({"gamma": "jnp.float32(1.5)"}, "gamma is 1.5, but must be between 0 and 1"),
        ({"learning_rate": "jnp.float32(-1)"}, "learning_rate is -1.0, but must be zero or more"),
        ({"gamma": "np.array([0.9, 0.8])"}, "gamma is array.*, but must be a number"),
    ],
)
def test_wrong_values_get_one_line(changes, message):
    import jax.numpy as jnp
    import numpy as np

    values = {
        k: eval(v, {"np": np, "jnp": jnp}) if isinstance(v, str) and "(" in v else v
        for k, v in changes.items()
    }
    with pytest.raises(prl.ConfigError, match=message) as error:
        prl.validate(prl.default_config("dqn").replace(**values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "violated"),
    [(-0.1, "between 0 and 1"), (1.1, "between 0 and 1"), (0, "greater than zero"), (0.5, "")],
)
def test_closed_and_open_bounds_combine(value, violated):
    assert Bounds(float, at_least=0, at_most=1, above=0).violated(value) == violated


def test_a_name_that_is_no_string_gets_one_line():
    config = prl.default_config("q_learning").replace(exploration=3)
    with pytest.raises(prl.ConfigError, match="no exploration is called 3: choose from"):
        prl.build(config)


def test_bounds_are_inherited_where_a_default_is_redefined():
    class Mine(prl.SACConfig):
        tau: float = 0.1
        batch_size: int = prl.static(32)

    with pytest.raises(prl.ConfigError, match="tau is 2, but must be between 0 and 1"):
        prl.validate(Mine(tau=2))
    with pytest.raises(prl.ConfigError, match="batch_size is 0, but must be at least 1"):
        prl.validate(Mine(batch_size=0))
    assert Mine().batch_size == 32 and Mine().replace(tau=0.2).tau == 0.2


def test_config_names_no_field_of_another_module():
    """The bounds of a field are declared with it."""
    source = inspect.getsource(sys.modules[Config.__module__])
    own = {field.name for field in dataclasses.fields(Config)}
    for name in ALGORITHMS:
        for field in dataclasses.fields(type(agents.default_config(name))):
            if field.name not in own:
                assert f'"{field.name}"' not in source
                assert f".{field.name}\n" not in source
