"""Lanes over devices: equal numbers on any number of devices."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli
from purejaxrl_sac.experiment.devices import mesh
from purejaxrl_sac.experiment.runs import engine, plans
from tests.conftest import quick, small
from tests.test_runs import SHORT, TINY, metrics, same, stopped

# not CrossQ: it divides by standard deviations of batches, which enlarges rounding
DEEP = ("dqn", "per_dqn", "sac", "ppo", "rainbow", "pqn", "td3")


@pytest.mark.parametrize(
    ("lanes", "devices", "each"), [(8, 4, 2), (6, 4, 2), (5, 4, 2), (3, 4, 1), (1, 4, 1), (9, 2, 5)]
)
def test_no_more_devices_are_used_than_shorten_the_run(lanes, devices, each, monkeypatch):
    monkeypatch.setattr(mesh.jax, "devices", lambda: jax.local_devices()[:1] * devices)
    found = mesh.mesh_for(lanes)
    assert mesh.padded(lanes, found) == each * found.size < lanes + each
    assert found.size == -(-lanes // each)


def test_a_device_is_named_with_its_platform_where_that_says_more():
    assert mesh.device_name(mesh.mesh_for(2)) == "2 x cpu"
    card = SimpleNamespace(device_kind="NVIDIA H100", platform="gpu")
    of_cards = SimpleNamespace(devices=np.array([card] * 8), size=8)
    assert mesh.device_name(of_cards) == "8 x NVIDIA H100 (gpu)"


def test_lanes_are_padded_with_the_first_one_and_trimmed():
    two = mesh.mesh_for(4, 2)
    tree = {"x": jnp.arange(6.0).reshape(3, 2), "clock": jnp.int32(7), "key": keys(3)}
    filled = mesh.fill(tree, 3, two)
    assert len(filled["x"].sharding.device_set) == 2
    np.testing.assert_array_equal(filled["x"], [[0, 1], [2, 3], [4, 5], [0, 1]])
    assert filled["clock"] == 7 and same(filled["key"][3:], filled["key"][:1])
    assert same(mesh.trim(filled, 3, two), tree)


def keys(count):
    return jax.random.split(jax.random.key(1), count)


@pytest.mark.parametrize("algorithm", ["q_learning", *quick(DEEP)])
def test_a_lane_is_the_same_on_any_number_of_devices(algorithm):
    """To rounding; five lanes are padded to three per device."""
    config = TINY if algorithm == "q_learning" else small(algorithm)
    watched = {"eval_every": 80, "eval_episodes": 2} if algorithm == "q_learning" else {}
    plan = plans.plan(config, 5, chunks=3, episodes=4, **watched)
    one, two = (engine.train_seeds(plan, devices=devices) for devices in (1, 2))
    close(two.state, one.state)
    np.testing.assert_allclose(two.evaluation, one.evaluation, rtol=1e-5)
    assert two.evaluation.shape == (5, 4)
    for a, b in zip(one.history, two.history, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4), a[4:], b[4:])
        assert b.episode_return.shape == (5,)


def close(found, expected):
    def compare(a, b):
        assert a.shape == b.shape and a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    jax.tree.map(compare, found, expected)


def test_training_uses_no_collectives():
    plan = plans.plan(TINY, 4)
    programs = engine.compile_run(plan, mesh=mesh.mesh_for(4, 2))
    text = max(programs.chunks.items())[1].as_text()
    training = text[text.index("while") :].split("ENTRY")[0]
    words = ("all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
    assert "num_partitions=2" in text and not any(word in training for word in words)


@pytest.mark.parametrize(("before", "after"), [pytest.param(1, 2, marks=pytest.mark.slow), (2, 1)])
def test_a_run_is_resumed_on_another_number_of_devices(before, after, tmp_path):
    few = {"seeds": 3, "eval_every": 80}
    whole = prl.experiment.run(TINY, out=tmp_path / "whole", devices=1, **{**SHORT, **few})
    stopped(tmp_path / "run", TINY, devices=before, **few)
    run = prl.experiment.resume(tmp_path / "run", devices=after)
    assert same(run.state, whole.state)  # bit for bit, because tabular updates round alike
    assert metrics(run.path) == metrics(whole.path)
    assert run.summary["greedy_returns"] == whole.summary["greedy_returns"]
    assert run.summary["device"].startswith(f"{after} x")
    again = prl.experiment.load(run.path, whole=True)
    assert same(again.state, whole.state)
    expected = whole.evaluate(6, seed=5, devices=1)
    for devices in (1, 2):
        np.testing.assert_array_equal(again.evaluate(6, seed=5, devices=devices), expected)
    shutil.rmtree(run.path)


def test_variants_are_lanes_of_one_program():
    """Each variant equals a run of its own with the same seeds."""
    plan = plans.plan(TINY, 2, variants={"learning_rate": [0.1, 0.5, 0.9]})
    assert plan.lanes == 6 and plan.lane_config(3).learning_rate == 0.5
    together = engine.train_seeds(plan, devices=2)
    alone = engine.train_seeds(plans.plan(TINY.replace(learning_rate=0.5), 2), devices=1)
    close(jax.tree.map(lambda x: x[2:4], together.state.agent), alone.state.agent)
    q = together.state.agent.q
    assert not np.allclose(q[0], q[2]) and not np.allclose(q[2], q[4])


def test_keys_differ_between_seeds_and_uses_and_are_shared_by_variants():
    keys = plans.plan(TINY, 3, variants={"learning_rate": [0.1, 0.5]}).keys()
    data = np.stack([jax.random.key_data(x) for x in keys])  # [uses, lanes, 2]
    np.testing.assert_array_equal(data[:, :3], data[:, 3:])
    assert len(np.unique(data[:, :3].reshape(-1, 2), axis=0)) == 3 * 3


def test_bad_variants_are_refused():
    with pytest.raises(ConfigError, match="gamma is 2"):
        plans.plan(TINY, 2, variants={"gamma": [0.9, 2.0]})


def test_more_devices_than_available_are_refused(tmp_path, capsys):
    for flags in (["--devices=3"], ["--devices=0"]):
        out = ["--seeds=4", "--quiet", "--out", str(tmp_path / "run")]
        assert cli.main(["train", "q_learning", "--env=chain", *flags, *out]) == 2
        said = capsys.readouterr().err
        assert "but must be between 1 and 2 (on a CPU, --cpu-devices" in said
    with pytest.raises(ConfigError, match="too late for 3 CPU devices"):
        mesh.use_cpu_devices(3)
    with pytest.raises(ConfigError, match="between 1 and 1024"):
        mesh.use_cpu_devices(0)
    mesh.use_cpu_devices(2)  # unchanged
    assert not list(tmp_path.iterdir())


def test_the_command_line_splits_the_cpu_into_devices(tmp_path):
    """One per seed, before JAX is initialised and parameters are arrays."""
    flags = ["--env=chain", "--steps=300", "--seeds=3", "--cpu-devices=3", "--json"]
    command = [sys.executable, "-m", "purejaxrl_sac", "train", "q_learning", *flags]
    command += ["--episodes=4", "--out", str(tmp_path / "run")]
    command += ["--env-params", "max_steps_in_episode=50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "finished"
    assert prl.experiment.load(tmp_path / "run").summary["device"].startswith("3 x")


def test_a_chosen_number_of_devices_is_kept():
    """By `experiment.run`, in a process whose JAX is not initialised yet."""
    program = """
from purejaxrl_sac.experiment import mesh
import jax
mesh.use_cpu_devices(3)
mesh.use_all_cores(8)
print(len(jax.devices()))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
