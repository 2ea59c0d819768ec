"""Exported policies equal the library's, in a process that cannot import the library."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import normalize
from purejaxrl_sac.experiment.export import LOADER, export_policy
from purejaxrl_sac.train import build
from tests.conftest import small
from tests.probes import CONTINUOUS, Counter, Probe

BATCHES = (1, 3, 17)
KEY = np.array([7, 2**31 + 11], np.uint32)


class Images(Probe):
    """Observations of type bool that a CNN sees."""

    def get_obs(self, state, params=None, key=None):
        return jnp.zeros((10, 10, 2), bool).at[state.time].set(True)

    def observation_space(self, params):
        return spaces.Box(0, 1, (10, 10, 2), jnp.bool_)


CASES = {
    "dqn": small("dqn"),
    "c51": small("c51"),
    "cnn": small("dqn", env="Breakout-MinAtar"),
    "cnn_bool": small("dqn", env=Images(lambda *_: 0.0), hidden_sizes=(8, 8)),
    "uint8": small("dqn", env=Counter(), hidden_sizes=(8, 8)),
    "a2c": small("a2c"),
    "ppo": small("ppo", wrappers=(normalize.observations,)),
    "sac": small("sac"),
    "simba": small("simba"),
    "discrete_sac": small("discrete_sac"),
    "crossq": small("crossq"),
    "td3": small("td3", env=Probe(lambda *_: 0.0, action_space=spaces.Box(10.0, 20.0, (1,)))),
    "q_learning": small("q_learning", env="FrozenLake-misc"),
    "exploring_sac": small("sac", env=Probe(lambda *_: 0.0, action_space=CONTINUOUS)),
    "exploring_pqn": small("pqn"),
}
FLOATS = ("sac", "simba", "crossq", "td3", "exploring_sac")


def policy_of(name):
    return prl.exploring_policy if name.startswith("exploring") else prl.policy


def made_up(config):
    """A state of random numbers; vectors, such as variances, are positive."""
    env, agent, _ = build(config)
    key, rng = jax.random.key(0), np.random.default_rng(3)
    env_state = jax.eval_shape(partial(env.reset, num_envs=config.num_envs), key)

    def numbers(x):
        drawn = rng.normal(size=x.shape)
        return jnp.asarray(drawn if x.ndim > 1 else 0.1 * np.abs(drawn), x.dtype)

    agent_state = jax.tree.map(numbers, jax.eval_shape(agent.init, key, env_state.obs))
    return prl.TrainState(key, np.int32(1), env_state, agent_state, ())


def observations(state):
    """[17, *obs_shape] of the environment's own type."""
    shape, dtype = (max(BATCHES), *state.env.obs.shape[1:]), state.env.obs.dtype
    rng = np.random.default_rng(1)
    if jnp.issubdtype(dtype, jnp.floating):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 256 if dtype == jnp.uint8 else 16, shape).astype(dtype)


NEEDED = ("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum")  # jax and its dependencies

# Runs every load.py as a program of its own, then acts with it at every batch size.
SCRIPT = """
import importlib.util, runpy, sys
from pathlib import Path

root = Path(sys.argv[1])
sys.path.append(str(root / "packages"))
for name in ("purejaxrl_sac", "flax", "gymnax", "optax", "distrax", "chex", "flatbuffers"):
    assert importlib.util.find_spec(name) is None, name

import numpy as np

for path in sorted((root / "out").iterdir()):
    print(path.name, end=" ")
    act = runpy.run_path(str(path / "load.py"), run_name="__main__")["act"]
    given = np.load(root / f"{path.name}.npz")
    obs, key = given["obs"], given["key"]
    actions = {str(n): act(obs[:n], key) for n in map(int, sys.argv[2:])}
    np.savez(path / "actions.npz", **actions, repeated=[act(obs), act(obs.tolist())])
"""


def link_packages(directory):
    """A directory of packages with jax only."""
    directory.mkdir()
    for name in NEEDED:
        for entry in Path(importlib.util.find_spec(name).origin).parents[1].glob(f"{name}*"):
            if entry.name.split("-")[0].split(".")[0] == name:
                (directory / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The directory of all exports, their states, and what the loaders printed."""
    root = tmp_path_factory.mktemp("export")
    states = {name: made_up(config) for name, config in CASES.items()}
    for name, state in states.items():
        export_policy(CASES[name], state, root / "out" / name, policy=policy_of(name))
        np.savez(root / f"{name}.npz", obs=observations(state), key=KEY)
    link_packages(root / "packages")
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, root, *map(str, BATCHES)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return root / "out", states, done.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_process_without_the_library_acts_the_same(exported, name):
    root, states, _ = exported
    state, obs = states[name], observations(states[name])
    choose = policy_of(name)(CASES[name], state)
    key = jax.random.wrap_key_data(jnp.asarray(KEY), impl="threefry2x32")
    every_size = jax.jit(lambda key, obs: [choose(key, obs[:size]) for size in BATCHES])
    actions = np.load(root / name / "actions.npz")
    for size, expected in zip(BATCHES, every_size(key, obs), strict=True):
        found = actions[str(size)]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if name in FLOATS:  # two programs round differently
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, expected)
    assert len(np.unique(actions["17"])) > 1, "a constant policy would show nothing"


@pytest.mark.parametrize("name", CASES)
def test_the_document_describes_inputs_and_outputs(exported, name):
    root, states, _ = exported
    about = json.loads((root / name / "policy.json").read_text())
    obs, actions = observations(states[name]), np.load(root / name / "actions.npz")
    assert about["observation"] == {"shape": list(obs.shape[1:]), "dtype": str(obs.dtype)}
    assert about["action"]["shape"] == list(actions["17"].shape[1:])
    assert about["action"]["dtype"] == str(actions["17"].dtype)
    assert np.all(actions["17"] >= about["action"]["low"])
    assert np.all(actions["17"] <= about["action"]["high"])
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["versions"]["jax"] == jax.__version__
    # stochastic policies differ between calls without a key
    assert about["stochastic"] == name.startswith("exploring")
    assert np.array_equal(*actions["repeated"]) == (not about["stochastic"])


def test_documents_name_algorithm_environment_and_bounds(exported):
    root, *_ = exported

    def about(name):
        document = json.loads((root / name / "policy.json").read_text())
        bounds = document["action"]["low"], document["action"]["high"]
        environment = document["environment"].split("(")[0]  # without attributes of an object
        return document["algorithm"], environment, *bounds

    assert about("sac") == ("sac", "Pendulum-v1", [-2.0], [2.0])
    assert about("td3") == ("td3", "tests.probes:Probe", [10.0], [20.0])
    assert about("uint8") == ("dqn", "tests.probes:Counter", 0, 2)
    assert about("q_learning") == ("q_learning", "FrozenLake-misc", 0, 3)


def test_a_loader_run_as_a_program_prints_one_action(exported):
    root, states, printed = exported
    zeros = np.zeros((1, *states["sac"].env.obs.shape[1:]), np.float32)
    action = prl.policy(CASES["sac"], states["sac"])(jax.random.key(0), zeros)
    line = next(line for line in printed.splitlines() if line.startswith("sac "))
    np.testing.assert_allclose(float(line[len("sac [[") : -2]), action[0, 0], rtol=1e-5)
    assert len(printed.splitlines()) == len(CASES)


def refused(*arguments, **keywords):
    """The one-line error of an export."""
    with pytest.raises(prl.ConfigError) as caught:
        export_policy(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_of_an_export_are_one_line(exported, tmp_path):
    config, state = CASES["sac"], exported[1]["sac"]
    assert "exists already" in refused(config, state, tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert "exists already" in refused(config, state, file)
    assert "cannot create" in refused(config, state, file / "below")
    new = tmp_path / "new"
    seeds = state._replace(key=jax.random.split(state.key, 5))
    assert "an axis of 5 seeds" in refused(config, seeds, new)
    assert "state is a DQNState, but must be a TrainState" in refused(
        CASES["dqn"], made_up(CASES["dqn"]).agent, new
    )
    assert "did you mean cuda?" in refused(config, state, new, platforms=("cpu", "cud"))
    fixed = refused(config, state, new, policy=lambda *_: lambda key, obs: jnp.zeros(len(obs)))
    assert "batches of any size" in fixed
    assert not new.exists()


def test_an_incomplete_export_is_removed(exported, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    said = refused(CASES["sac"], exported[1]["sac"], tmp_path / "new")
    assert said.endswith("No space left on device")
    assert not (tmp_path / "new").exists()


def test_the_seed_that_the_error_suggests_can_be_exported(key, tmp_path):
    config = CASES["q_learning"]
    one = made_up(config)
    agent = jax.tree.map(lambda x: np.stack([x, x]), one.agent)  # as restored from disk
    state = prl.TrainState(jax.random.split(key), one.step, (), agent, ())
    assert "seed_state(state, 0)" in refused(config, state, tmp_path / "new")
    export_policy(config, prl.seed_state(state, 0), tmp_path / "new", platforms=("cpu",))
    assert json.loads((tmp_path / "new" / "policy.json").read_text())["platforms"] == ["cpu"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("policy.json", b'"dtype": "float32"', b'"dtype": "float16"', "was changed after it was"),
        ("policy.json", b'"format": 2', b'"format": 1', "has another format than this load.py"),
        ("policy.stablehlo", b"a", b"b", "was changed after it was written: export"),
    ],
)
def test_a_changed_export_is_refused(name, old, new, message, tmp_path):
    """By the loader alone, before the program is compiled."""
    program, document = b"a program", {"format": 2, "observation": {"dtype": "float32"}}
    document["crc32"] = zlib.crc32(json.dumps(document, sort_keys=True).encode() + program)
    for file, content in (
        ("policy.json", json.dumps(document).encode()), ("policy.stablehlo", program),
        ("load.py", LOADER.encode()),
    ):  # fmt: skip
        (tmp_path / file).write_bytes(content)
    path = tmp_path / name
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        runpy.run_path(str(tmp_path / "load.py"))


def test_a_policy_with_a_carry(tmp_path):
    """Its arrays are inputs and outputs of the program; an episode begins without them."""
    config = small("recurrent_ppo", cell="lstm", memory_size=6)
    state = made_up(config)
    export_policy(config, state, tmp_path / "out")
    loaded = runpy.run_path(str(tmp_path / "out" / "load.py"))
    choose = prl.policy(config, state)
    key, carry, given = jax.random.key(0), choose.init_carry(3), None
    for i in range(4):
        obs = np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32)
        expected, carry = choose(key, obs, carry)
        found, given = loaded["act"](obs, KEY, given)
        np.testing.assert_array_equal(found, expected)
        for x, y in zip(jax.tree.leaves(carry), given, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    about = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert [array["shape"] for array in about["carry"]] == [[6]] * 2
    assert all(x.shape == (5, 6) for x in loaded["initial_carry"](5))
    for others in ([], loaded["initial_carry"](1), [np.zeros(6)] * 2, [0, 1]):
        with pytest.raises(ValueError, match="no carry of 3 episodes: see initial_carry"):
            loaded["act"](obs, KEY, others)
    for others in (0.5, obs[0], obs[:, :2]):
        with pytest.raises(ValueError, match=r"must have shape \[B, 4\]"):
            loaded["act"](others, KEY)
    first = loaded["act"](obs, KEY)[0]
    np.testing.assert_array_equal(first, choose(key, obs, choose.init_carry(3))[0])


def test_a_policy_of_observations_of_64_bits(tmp_path):
    """Of a run with jax_enable_x64, loaded without it."""
    config = small("sac")
    with jax.enable_x64(True):
        state = made_up(config)
        obs = observations(state)
        export_policy(config, state, tmp_path / "out")
        expected = prl.policy(config, state)(jax.random.key(0), obs)
    assert obs.dtype == np.float64
    act = runpy.run_path(str(tmp_path / "out" / "load.py"))["act"]
    np.testing.assert_allclose(act(obs), expected, rtol=1e-5)
    assert jnp.zeros(1).dtype == np.float32


def test_a_random_carry_is_refused(tmp_path):
    config = small("dqn")

    def forgetful(config, state):
        policy = prl.policy(config, state)
        return prl.Policy(policy.step, lambda n: jax.random.normal(jax.random.key(0), (n, 2)))

    with pytest.raises(prl.ConfigError, match="carry is random"):
        export_policy(config, made_up(config), tmp_path / "out", policy=forgetful)
    assert not (tmp_path / "out").exists()
