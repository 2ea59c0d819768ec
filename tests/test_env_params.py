"""Parameters of environments in runs: they hold in training, evaluation and every later use."""

import json

import jax
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, envs
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.errors import StoppedError
from purejaxrl_sac.experiment.runs import lifecycle, record
from tests.conftest import small
from tests.test_runs import MORE, PLAN, SHORT, Recorder, same

DEFAULT = envs.make("CartPole-v1").default_params
CHANGED = DEFAULT.replace(max_steps_in_episode=7, length=1.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = small("dqn", env="CartPole-v1").replace(env_params=CHANGED)
    path = tmp_path_factory.mktemp("params") / "run"
    return prl.experiment.run(config, out=path, eval_every=60, eval_episodes=2, **PLAN)


def test_a_run_keeps_its_parameters(run):
    assert run.config.env_params == CHANGED and run.config.env == "CartPole-v1"
    assert np.nanmax(run.metrics["episode_length"]) <= 7
    assert np.nanmax(run.metrics["greedy_return"]) <= 7
    assert max(run.summary["greedy_returns"]) <= 7
    written = json.loads((run.path / "config.json").read_text())["config"]
    assert written["env"] == "CartPole-v1" and written["env_params"]["length"] == 1.5


def test_a_run_is_read_evaluated_and_extended_with_its_parameters(run, tmp_path):
    found = prl.experiment.load(run.path)
    assert found.config == run.config
    assert found.evaluate(16).max() <= 7
    assert cli.main(["render", str(run.path), "--out", str(tmp_path / "a.gif")]) == 0
    more = prl.experiment.resume(run.path, steps=MORE)
    assert more.config.env_params == CHANGED and np.nanmax(more.metrics["episode_length"]) <= 7
    other = run.config.replace(env_params=CHANGED.replace(length=1.0))
    with pytest.raises(ConfigError, match="env_params is"):
        prl.experiment.load(run.path, config=other)


def test_parameters_survive_json():
    config = small("dqn", env="CartPole-v1").replace(env_params=CHANGED)
    data = json.loads(json.dumps(record.config_to_dict(parameters.fixed(config))))
    assert record.config_from_dict(data) == config
    assert parameters.free(parameters.fixed(config)) == config
    default = small("dqn", env="CartPole-v1")
    assert parameters.fixed(default) is default


def test_parameters_change_the_dynamics():
    env = envs.bind(parameters.Parametrised("CartPole-v1", CHANGED))
    assert env.max_steps == 7 and env.name == "CartPole-v1"
    assert env.params.length == 1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lenght": 1.0}, "no parameter of CartPole-v1 is called lenght: did you mean length?"),
        ({"length": "long"}, "length of the environment is 'long', but must be like its default"),
        ({"length": True}, "length of the environment is True"),
        ({"max_steps_in_episode": 1.5}, "max_steps_in_episode of the environment is 1.5"),
        ({"max_steps_in_episode": float("inf")}, "max_steps_in_episode of the environment is inf"),
        ({"length": [1.0, 2.0]}, r"length of the environment is \[1.0, 2.0\]"),
    ],
)
def test_invalid_parameters_are_one_line(values, message):
    with pytest.raises(ConfigError, match=message):
        parameters.changed("CartPole-v1", values)


def test_parameters_have_the_types_of_the_defaults():
    found = parameters.changed("CartPole-v1", {"length": 2, "max_steps_in_episode": 9})
    assert (type(found.length), type(found.max_steps_in_episode)) == (float, int)
    names = [name for name in envs.names() if "Bandit" not in name]
    for name in names:
        default = envs.make(name).default_params
        written = record.to_json(default)
        again = parameters.changed(name, json.loads(json.dumps(written)))
        assert record.to_json(again) == written, name
        assert np.shape(default) == np.shape(again) if hasattr(default, "shape") else True


def test_parameters_on_the_command_line(capsys, monkeypatch):
    given = []
    monkeypatch.setattr(lifecycle, "run", lambda config, *_, **__: given.append(config))
    flags = ["--env", "CartPole-v1", "--env-params", "length=1.5", "max_steps_in_episode=7"]
    short = ["--steps=400", "--warmup-steps=100", "--capacity=400", "--batch-size=8"]
    assert cli.main(["train", "dqn", *flags, *short, "--quiet"]) == 0
    assert [config.env_params for config in given] == [CHANGED]
    for wrong in ("length", "lenght=1"):
        assert cli.main(["train", "dqn", *short, "--env-params", wrong]) == 2
        assert "length" in capsys.readouterr().err


def test_searches_and_sweeps_keep_parameters(tmp_path):
    config = small("dqn", env="CartPole-v1").replace(env_params=CHANGED)
    points = prl.experiment.points.grid(learning_rate=[1e-3, 1e-2])
    few = {"seeds": 1, "episodes": 4}
    found = prl.experiment.search.successive_halving(config, points, eta=2, first=1.0, **few)
    assert max(np.max(rung.scores) for rungs in found.rungs for rung in rungs) <= 7
    swept = prl.experiment.sweep.run(
        config, points, out=tmp_path / "sweep", chunks=3, fresh_seeds=1, **few
    )
    assert np.nanmax(swept.scores) <= 7
    batch = next((tmp_path / "sweep" / "batches").iterdir())
    assert prl.experiment.load(batch).config.env_params == CHANGED


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    config = small("dqn", env="CartPole-v1").replace(env_params=CHANGED)
    whole = prl.experiment.run(config, out=tmp_path / "whole", **SHORT)
    with pytest.raises(StoppedError):
        prl.experiment.run(config, out=tmp_path / "run", reporter=Recorder(2), **SHORT)
    resumed = prl.experiment.resume(tmp_path / "run")
    assert same(resumed.state, whole.state)
    kernels = [leaf for leaf in jax.tree.leaves(whole.state.agent.params) if leaf.ndim == 3]
    assert kernels and all((leaf[0] != leaf[1]).any() for leaf in kernels)  # two seeds
