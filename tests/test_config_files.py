"""Configuration files: what `train --config` reads, runs have beside them, and presets are."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, normalize, presets
from purejaxrl_sac.agents import ALGORITHMS, dqn
from purejaxrl_sac.cli import config_files
from purejaxrl_sac.cli.options import SweepOptions, TrainOptions
from purejaxrl_sac.cli.parsing import parse_with_preset
from purejaxrl_sac.experiment.runs import configuration
from purejaxrl_sac.presets import PRESETS
from tests.conftest import small

FILE = """
algorithm = "dqn"
env = "chain"
seeds = 3
learning_rate = 0.002
hidden_sizes = [8, 16]
normalize = ["rewards"]
[env_params]
max_steps_in_episode = 7
"""


def mine(config, env, agent):
    return agent


class Wrapped(prl.DQNConfig):
    wrappers: tuple = prl.static((normalize.rewards, mine))


def parsed(arguments, kind=TrainOptions):
    command, algorithm, *flags = config_files.expanded(arguments)
    return parse_with_preset(kind, command, algorithm, flags)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("experiment.toml").write_text(FILE)
    return "experiment.toml"


def test_flags_are_preferred_to_the_file_and_the_file_to_the_preset(file):
    options = parsed(["train", "--config", file, "--learning-rate", "0.5", "--gamma=0.8"])
    config = options.config
    assert (options.seeds, config.learning_rate, config.gamma) == (3, 0.5, 0.8)
    assert config.hidden_sizes == (8, 16) and config.env == "chain"
    assert config.wrappers == (normalize.rewards,)
    assert config.env_params.max_steps_in_episode == 7
    assert parsed(["train", f"--config={file}"]).config.learning_rate == 0.002
    other = parsed(
        ["train", "munchausen_dqn", "--config", file, "--env=CartPole-v1", "--env-params"]
    )
    assert other.config.env == "CartPole-v1" and other.config.learning_rate == 0.002
    tuned = prl.preset("munchausen_dqn", "CartPole-v1")
    assert other.config.total_steps == tuned.total_steps


@pytest.mark.parametrize("flags", [["--seeds=9"], ["--seeds", "9"]])
def test_a_flag_replaces_a_key(file, flags):
    assert parsed(["train", "--config", file, *flags]).seeds == 9


def test_a_short_form_of_a_flag_replaces_a_key(file):
    Path(file).write_text(FILE.replace("seeds = 3", "total_steps = 7_000"))
    assert parsed(["train", "--config", file]).config.total_steps == 7_000
    assert parsed(["train", "--config", file, "--steps=900"]).config.total_steps == 900


def test_other_command_lines_are_left_alone():
    for line in (["train", "dqn", "--seeds=2"], ["eval", "--config"], [], ["info", "x"]):
        assert config_files.expanded(line) == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*No such file"),
        ("x = [", "is not TOML"),
        ("env = 'chain'", "has no algorithm"),
        ("algorithm = 'dqn'\nseeds = 'x'", "x.toml: seeds is 'x', but must be a whole number"),
        ("algorithm = 'dqn'\ngamma = 2", "x.toml: gamma is 2.0, but must be between 0 and 1"),
        (
            "algorithm = 'dqn'\nlearning_rate = 'y'",
            "x.toml: learning_rate is 'y', but must be a number",
        ),
        ("algorithm = 'dqn'\n[x]\na = 1", "has a table x: tables are env_params"),
        ("algorithm = 'dqn'\nseeds = 2020-01-01", "is neither text nor a number"),
        ("algorithm = 'dqn'\nlearning_rte = 1", "did you mean learning_rate"),
        ("algorithm = 'dqn'\nseeds = false", "x.toml: seeds is false, but takes another value"),
        ("algorithm = 'dqn'\ngamma = false", "x.toml: gamma is false, but takes another value"),
        ("algorithm = 'dqn'\nnormalize = true", "normalize is true, but takes another value"),
        ("algorithm = 'dqn'\nquit = false", "did you mean quiet"),
        ("algorithm = 'a:b'\ngamma = false", "names code, a:b"),
        ("algorithm = 'dkn'", "did you mean dqn"),
        ("algorithm = 'fork.py:X'", r"names code, fork.py:X \(.*fork.py\): add --trust"),
        ("algorithm = 'dqn'\nlog = ['a:b']", r"names code, a:b \(module a\): add --trust"),
    ],
)
def test_files_that_cannot_be_used(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("x.toml").write_text(text)
    assert cli.main(["train", "--config", "x.toml"]) == 2
    error = capsys.readouterr().err

    assert re.search(message, error) and error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["x.toml"] * (text is not None)


def test_a_flag_is_named_as_it_was_given(tmp_path, capsys):
    (file := tmp_path / "x.toml").write_text("algorithm = 'dqn'\nseeds = 2")
    assert cli.main(["train", "--config", str(file), "--seeds", "x"]) == 2
    assert ": --seeds is 'x', but must be a whole number" in capsys.readouterr().err


def test_a_file_is_read_for_training_only(capsys):
    assert cli.main(["eval", "x", "--config", "y.toml"]) == 2
    assert "no flag is called --config" in capsys.readouterr().err


def test_the_json_of_a_run_is_no_configuration_file(tmp_path, capsys):
    (file := tmp_path / "config.json").write_text("{}")
    assert cli.main(["train", "--config", str(file)]) == 2
    assert "give the run directory, or its config.toml" in capsys.readouterr().err


def test_config_without_a_file(capsys):
    assert cli.main(["train", "dqn", "--config"]) == 2
    assert "--config needs a file" in capsys.readouterr().err


class Switched(prl.DQNConfig):
    on: bool = prl.static(True)
    off: bool = prl.static(False)


def test_true_and_false_are_values_of_switches(tmp_path):
    path = tmp_path / "x.toml"
    line = ["train", f"{__name__}:Switched", f"--config={path}"]
    for on, off in ((True, True), (True, False), (False, True), (False, False)):
        path.write_text(f"on = {str(on).lower()}\noff = {str(off).lower()}\nquiet = false\n")
        options = parsed(line)
        assert (options.config.on, options.config.off, options.running.quiet) == (on, off, False)
        assert parsed([*line, "--off", "--no-on"]).config.on is False
    path.write_text("quiet = true\ndry_run = true\n")
    options = parsed(line)
    assert options.running.quiet and options.dry_run


def test_wrappers_of_a_fork_remain_unless_others_are_given():
    def wrappers(*flags):
        found = parsed(["train", f"{__name__}:Wrapped", *flags]).config.wrappers
        return [x.__name__ for x in found]

    assert wrappers() == wrappers("--seeds=2") == ["rewards", "mine"]
    assert wrappers("--normalize", "observations") == ["observations"]
    other = ["--wrap", f"{__name__}:mine", "observations"]
    assert wrappers(*other) == ["rewards", "mine", "observations"]
    assert wrappers("--normalize", *other[:0], *other) == ["mine", "observations"]
    with pytest.raises(ConfigError, match="no wrapper is called observation: did you mean"):
        wrappers("--wrap", "observation")


def test_a_sweep_as_a_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(FILE + "[grid]\ngamma = [0.8, 0.9]\nhidden_sizes = [[4, 4], [8]]\n")
    options = parsed(["sweep", "--config", str(path)], SweepOptions)
    assert options.grid == ("gamma=0.8,0.9", "hidden_sizes=4x4,8")
    assert options.seeds == 3 and options.config.learning_rate == 0.002


@pytest.mark.parametrize(
    "config",
    [
        *(small(name) for name in ALGORITHMS),
        small("dqn", max_grad_norm=float("inf"), learning_rate=1e-7).replace(
            wrappers=(normalize.observations, normalize.rewards)
        ),
        small("dqn").replace(algorithm=partial(dqn.dqn, bootstrap=dqn.double)),
        small("dqn").replace(wrappers=(mine,)),
        small("dqn").replace(wrappers=(normalize.rewards, mine, normalize.observations)),
        small("dqn").replace(wrappers=(mine, normalize.rewards)),
        small("dqn").replace(wrappers=(normalize.rewards, normalize.observations, mine)),
        small("sac", actor_learning_rate=None),
    ],
    ids=lambda config: configuration.of_config(config)["algorithm"],
)
def test_a_configuration_is_read_back_from_its_file(config, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(configuration.text(configuration.of_config(config), "a comment"))
    found = parsed(["train", "--config", str(path), "--trust"]).config
    assert found.algorithm == config.algorithm or found.algorithm.keywords
    assert found.replace(algorithm=None) == config.replace(algorithm=None)


def test_a_run_is_repeated_from_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["train", "q_learning", "--env=chain", "--steps=240", "--seeds=2", "--episodes=4"]
    line += ["--env-params", "max_steps_in_episode=9", "--gamma=0.7", "--chunks=4", "--seed=5"]
    quiet = ["--quiet", "--no-cache"]
    assert cli.main([*line, *quiet, "--name=one"]) == 0
    assert cli.main(["train", "--config=runs/one", *quiet, "--name=two"]) == 0

    def written(name):
        rows = Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()
        rows = [json.loads(row) for row in rows]
        return [{k: x for k, x in row.items() if k not in ("seconds", "crc32")} for row in rows]

    assert written("one") == written("two")
    documents = [json.loads(Path(f"runs/{x}/config.json").read_text()) for x in ("one", "two")]
    assert documents[0] == documents[1]


def test_a_preset_is_printed_as_a_file(capsys, tmp_path):
    assert cli.main(["preset", "sac", "Pendulum-v1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# steps: 10k, greedy return (IQM): -")
    path = tmp_path / "sac.toml"
    path.write_text(text)
    assert parsed(["train", "--config", str(path)]).config == prl.preset("sac", "Pendulum-v1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["preset"], "give an algorithm and an environment"),
        (["preset", "--nothing"], "give an algorithm and an environment"),
        (["preset", "sac", "Pendulum-v1", "more"], "give an algorithm and an environment"),
        (["preset", "sack"], "did you mean sac"),
        (["preset", "sac", "Pendlum-v1"], "did you mean Pendulum-v1"),
    ],
)
def test_presets_that_are_not_there(line, message, capsys):
    assert cli.main(line) == 2
    assert message in capsys.readouterr().err


def test_presets_are_valid_files():
    for algorithm, env in PRESETS:
        assert algorithm in ALGORITHMS
        config = prl.preset(algorithm, env)
        assert config.env == env
        prl.build(config) if env != "brax" and not env.startswith("brax/") else None


def test_a_preset_of_one_environment_is_preferred_to_that_of_several(tmp_path):
    (tmp_path / "a.toml").write_text("env = 'x'\n[dqn]\nlayers = [1]\n")
    (tmp_path / "b.toml").write_text("env = ['x', 'y']\n[dqn]\ntau = 0.5\n")
    assert presets.read(tmp_path) == {("dqn", "x"): {"layers": (1,)}, ("dqn", "y"): {"tau": 0.5}}


def test_a_file_of_code_that_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("part_of_config_file.py").write_text("from purejaxrl_sac.agents.dqn import double\n")
    Path("x.toml").write_text(
        "algorithm = 'dqn'\n[parts]\nbootstrap = 'part_of_config_file.py:double'\n"
    )
    config = parsed(["train", "--config", "x.toml", "--trust"]).config
    assert config.algorithm.keywords == {"bootstrap": dqn.double}
    with pytest.raises(ConfigError, match="add --trust"):
        parsed(["train", "--config", "x.toml"])


@pytest.mark.parametrize(
    "text",
    [
        "algorithm = 'dqn'\n[parts]\n'bootstrap=evil_file.py:f' = 1",
        "algorithm = 'dqn'\n'env=evil_file.py:f' = true",
        "algorithm = 'dqn'\nseed = '--parts=bootstrap=evil_file.py:f'",
        "algorithm = 'dqn'\nname = '--wrap'\nlog = ['evil_file.py:f']",
        "algorithm = 'dqn'\n[measure]\nx = 'evil_file.py:f'",
        "algorithm = 'dqn'\n[parts]\nbootstrap = 'evil_file.py:f=x'",
        "algorithm = 'dqn'\npart = ['bootstrap=evil_file.py:f']",
        "algorithm = 'dqn'\nPARTS = ['bootstrap=evil_file.py:f']",
        "algorithm = 'dqn'\nenv = 'x=evil_file.py:f'",
        "algorithm = 'dqn'\nwrap = [{a = 'evil_file.py:f'}]",
        "algorithm = 07:32:00",
        "algorithm = 'dqn'\ntrust = true\nwrap = ['evil_file.py:f']",
        "algorithm = 'dqn'\nhelp = true",
        "algorithm = 'dqn'\n'a b' = 1",
        "algorithm = 'dqn'\nenv = 'evil\\u0000.py:f'",
        "x = " + "[" * 3_000,
    ],
)
def test_a_file_imports_nothing_unless_it_is_trusted(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("evil_file.py").write_text("open('harm.txt', 'w').close()\ndef f(*_): pass\n")
    Path("x.toml").write_text(text)
    assert cli.main(["train", "--config", "x.toml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not Path("harm.txt").exists()


def test_only_code_of_the_file_must_be_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("named_again.py").write_text("from purejaxrl_sac.agents.dqn import double, DQNConfig\n")
    Path("x.toml").write_text("algorithm = 'a.py:X'\nenv = 'b.py:Y'\nseeds = 3\nname = 'a:b'\n")
    line = ["train", "named_again.py:DQNConfig", "--config", "x.toml", "--env", "chain"]
    options = parsed(line)
    assert options.config.env == "chain" and (options.seeds, options.name) == (3, "a:b")
    Path("x.toml").write_text("algorithm = 'dqn'\n[range]\nlearning_rate = '1e-4:1e-2'\n")
    assert parsed(["sweep", "--config", "x.toml"], SweepOptions).range == (
        "learning_rate=1e-4:1e-2",
    )
    Path("x.toml").write_text("algorithm = 'dqn'\ntotal_steps = 2e6\ngamma = 1.0\n")
    assert parsed(["train", "--config", "x.toml"]).config.total_steps == 2_000_000


def test_wrappers_that_were_switched_off_stay_off(tmp_path):
    config = prl.preset("ppo", "Pendulum-v1")
    assert config.wrappers
    path = tmp_path / "x.toml"
    path.write_text(configuration.text(configuration.of_config(config.replace(wrappers=()))))
    assert parsed(["train", "--config", str(path)]).config.wrappers == ()


class Sampled(prl.DQNConfig):
    sample: float = prl.traced(0.5)


def test_a_file_serves_train_and_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = FILE.replace("seeds", "points = 4\neval_every = 9\nlanes = 6\ndry_run = true\nseeds")
    path = Path("both.toml")
    path.write_text(text + "[grid]\ngamma = [0.8, 0.9]\n")
    options = parsed(["train", "--config=both.toml"])
    assert (options.seeds, options.eval_every, options.dry_run) == (3, 9, True)
    assert cli.main(["sweep", "--config=both.toml"]) == 2
    assert "both.toml: dry_run is for train, not for sweep: remove it" in capsys.readouterr().err
    path.write_text(path.read_text().replace("dry_run = true", "dry_run = false"))
    options = parsed(["sweep", "--config=both.toml"], SweepOptions)
    assert (options.points, options.grid, options.running.lanes) == (4, ("gamma=0.8,0.9",), 6)
    path.write_text("sample = 0.25\n")  # an option of sweep, and a field
    fork = parsed(["train", f"{__name__}:Sampled", "--config=both.toml"])
    assert fork.config.sample == 0.25


NEAR = "sac has no field n_step (did you mean steps?), lerning_rate (did you mean learning_rate?)"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("n_step = 3\nlerning_rate = 0.1", NEAR),
        ("lerning_rate = 0.1", "sac has no field lerning_rate (did you mean learning_rate?): see"),
        ("qwxz = 1", "sac has no field qwxz: see purejaxrl-sac train sac --help"),
        ('dataset = "None"\nqwxz = 1', "sac has no field qwxz: see"),
    ],
)
def test_unknown_keys_are_named_with_their_file(keys, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(f'algorithm = "sac"\nsteps = 100\n{keys}\n')
    assert cli.main(["train", "--config=bad.toml"]) == 2
    assert capsys.readouterr().err.startswith(f"purejaxrl-sac: bad.toml: {message}")
    assert cli.main(["train", "dqn", "--config=bad.toml"]) == 2
    assert "bad.toml is of sac: dqn has no field" in capsys.readouterr().err
    Path("good.toml").write_text('algorithm = "sac"\nsteps = 2000\ndataset = "None"\n')
    assert parsed(["train", "--config", "good.toml"]).config.dataset is None
