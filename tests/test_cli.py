"""The command line."""

import ast
import contextlib
import dataclasses
import errno
import inspect
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import purejaxrl_sac as prl
from purejaxrl_sac import cli
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.cli import parsing
from purejaxrl_sac.cli.options import TrainOptions
from purejaxrl_sac.experiment import export
from purejaxrl_sac.experiment.pictures import render
from purejaxrl_sac.experiment.runs import display, engine, files, loading, plans, record
from purejaxrl_sac.experiment.statistics import iqm
from purejaxrl_sac.presets import PRESETS
from tests.conftest import small

FORKS = Path(__file__).parent / "forks"
SHORT = ["--steps=400", "--warmup-steps=100", "--capacity=400", "--batch-size=8", "--episodes=16"]
CHAIN = [*SHORT, "--env=chain", "--hidden-sizes", "8", "8"]


def failing(capsys, *arguments):
    """The line on standard error, after checking that it is one line and that the status is 2."""
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and out == ""
    return err


def test_train_writes_a_complete_run(tmp_path, capsys):
    out = tmp_path / "deep" / "run"
    arguments = ["train", "double_dqn", "--env", "CartPole-v1", "--seeds", "3", *SHORT]
    assert cli.main([*arguments, "--out", str(out), "--learning-rate", "2e-3", "--no-cache"]) == 0
    shown = capsys.readouterr().out
    for words in ("compiled in", "environment steps/s", "s left", "return", "greedy return"):
        assert words in shown
    document = json.loads((out / "config.json").read_text())
    config = record.config_from_dict(document["config"])
    assert config.learning_rate == 2e-3 and config.hidden_sizes == (64, 64)
    assert document["seeds"] == 3 and document["versions"]["jax"] == jax.__version__
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["steps"] == 400 and len(rows[-1]["loss"]) == 3
    assert [row["steps"] for row in rows] == sorted({row["steps"] for row in rows})
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["greedy_returns"]) == 3 and summary["failed_step"] == {}
    assert Image.open(out / "curve.png").size[0] > 500
    run = prl.experiment.load(out)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(run.state.agent))


@pytest.mark.parametrize("v_max", (2.0, 200.0))
def test_returns_outside_the_support_are_reported_with_their_range(tmp_path, capsys, v_max):
    arguments = [
        "train",
        "c51",
        *SHORT,
        "--chunks=5",
        "--v-max",
        str(v_max),
        "--learning-rate",
        "0.01",
    ]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    outside = v_max < 100
    shown = " ".join(capsys.readouterr().out.split())
    assert ("outside v_min .. v_max = 0 .. 2: widen it" in shown) == outside
    if outside:  # targets are r + gamma E[Z], and E[Z] cannot pass v_max
        low, high = map(float, re.search(r"returns of (\S+) to (\S+), and", shown).groups())
        assert 0 <= low <= high and 2 < high <= 1 + 0.99 * 2 + 1e-3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert ("warning" in summary["figures"]) == outside


def test_a_finite_mdp_has_a_value_map_and_exact_returns(tmp_path, capsys):
    for env, pictures in (("FrozenLake-misc", 2), ("maximization_bias", 1)):
        out = tmp_path / env
        arguments = ["train", "q_learning", "--env", env, "--steps", "1000", "--chunks", "1"]
        assert cli.main([*arguments, "--quiet", "--episodes", "8", "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        assert "greedy return, exact" in shown and "optimal for gamma" in shown
        assert Image.open(out / "values.png").size[0] > 500
        assert (out / "episode.gif").exists() == (pictures == 2)
        if pictures == 2:
            assert Image.open(out / "episode.gif").n_frames > 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, made by the command line."""
    out = tmp_path_factory.mktemp("cli") / "demo"
    flags = ["--steps=1500", "--seeds=2", "--episodes=8", "--eval-every=600", "--eval-episodes=4"]
    flags += ["--chunks=5"]
    assert cli.main(["train", "q_learning", "--env=cliff_walking", *flags, "--out", str(out)]) == 0
    return out


def test_info_shows_configuration_and_status(run, capsys):
    assert cli.main(["info", str(run)]) == 0
    shown = capsys.readouterr().out
    for words in ("q_learning", "cliff_walking", "finished", "1,500 of 1,500", "step 1,500"):
        assert words in shown


@pytest.mark.parametrize("flags", ([], ["--best"], ["--policy", "exploring"]))
def test_eval_evaluates_every_seed(flags, run, capsys):
    assert cli.main(["eval", str(run), "--episodes=7", "--json", *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["episodes_per_seed"] == 7 and len(document["returns"]) == 2
    assert cli.main(["eval", str(run), "--episodes=7", *flags]) == 0
    shown = capsys.readouterr().out
    assert "IQM [95 % interval]" in shown and "2 x 7" in shown


def test_seeds_of_variants_are_shown_with_their_own_configurations(monkeypatch):
    plan = plans.plan(small("c51"), 2, variants={"v_max": [50.0, 90.0]})
    run = loading.Run(Path("run"), plan, 0, (), {"steps": np.zeros(0)}, None)
    monkeypatch.setattr(loading, "load", lambda *_, **__: run)
    monkeypatch.setattr(loading.Run, "seed_state", lambda run, seed: seed)
    given = []
    monkeypatch.setattr(render, "episode", lambda key, *found: given.append(found))
    monkeypatch.setattr(export, "export_policy", lambda *found: given.append(found))
    for command in ("render", "export"):
        assert cli.main([command, "run", "--seed-index=2", "--out=x.gif"]) == 0
    assert [(config.v_max, state) for config, state, _ in given] == [(90.0, 2)] * 2


def test_eval_leaves_diverged_seeds_out_and_names_them(run, capsys, monkeypatch):
    monkeypatch.setattr(loading.Run, "failed", np.array([True, False]))
    assert cli.main(["eval", str(run), "--episodes=2", "--json"]) == 0
    assert [x is None for x in json.loads(capsys.readouterr().out)["returns"]] == [True, False]
    assert cli.main(["eval", str(run), "--episodes=2"]) == 0
    shown = capsys.readouterr().out
    assert "left out of the returns below" in shown and "seed 0" in shown and "nan," not in shown


def test_plot_compares_runs(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    out = tmp_path / "compared.png"
    assert cli.main(["plot", str(run), str(other), "--out", str(out)]) == 0
    assert Image.open(out).size[0] > 1_000
    capsys.readouterr()
    error = failing(capsys, "plot", str(run), "--out", str(out))
    assert "exists already" in error
    document = json.loads((other / "config.json").read_text())
    del document["checksums"]
    document["config"]["env"] = "chain"
    files.write_document(other / "config.json", document)
    error = failing(capsys, "plot", str(run), str(other), "--out", str(tmp_path / "b.png"))
    assert "runs on chain and cliff_walking cannot be compared" in error
    error = failing(capsys, "plot", str(run), "--metric", "los", "--out", str(tmp_path / "b.png"))
    assert "has no metric los: it has " in error


def test_render_writes_an_episode(run, tmp_path, capsys):
    out = tmp_path / "walk.gif"
    assert cli.main(["render", str(run), "--seed-index=1", "--out", str(out)]) == 0
    assert Image.open(out).n_frames > 1
    capsys.readouterr()
    assert "there is no seed 2" in failing(capsys, "render", str(run), "--seed-index=2")


def test_export_writes_a_policy_that_runs_alone(run, tmp_path, capsys):
    out = tmp_path / "policy"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    done = subprocess.run([sys.executable, str(out / "load.py")], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_diverged_seed_is_exported_only_if_it_is_chosen(run, capsys, monkeypatch):
    from purejaxrl_sac.experiment import export
    from purejaxrl_sac.experiment.runs import loading

    written = []
    monkeypatch.setattr(export, "export_policy", lambda config, state, out: written.append(out))
    monkeypatch.setattr(loading.Run, "failed", np.array([True, False]))
    assert cli.main(["export", str(run)]) == 0 and capsys.readouterr().err == ""
    assert cli.main(["export", str(run), "--seed-index=0"]) == 0
    assert [out.name for out in written] == ["policy-1", "policy-0"]
    assert f"seed 0 of {run} has diverged" in capsys.readouterr().err
    monkeypatch.setattr(loading.Run, "failed", np.array([True, True]))
    for command in ("export", "render"):
        assert "has diverged: choose one by --seed-index" in failing(capsys, command, str(run))


def test_resume_extends_a_finished_run(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert "is finished: add --steps" in failing(capsys, "resume", str(copy))
    assert cli.main(["resume", str(copy), "--steps=1800", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == {"event": "remark", "text": "resuming from step 1,500"}
    assert [event["event"] for event in events[1:3]] == ["compiled", "chunk"]
    assert events[-1]["event"] == "finished" and events[-2]["steps"] == 1_800
    written = json.loads((copy / "summary.json").read_text())
    returns = written["greedy_returns"]
    assert events[-1]["steps"] == 1_800 and events[-1]["greedy_returns"] == returns
    assert events[-1]["greedy_return_iqm"] == pytest.approx(iqm(np.array(returns)))
    low, high = events[-1]["greedy_return_interval"]
    assert low <= events[-1]["greedy_return_iqm"] <= high


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("resume", "is not a run: it does not exist"),
        ("eval", "is not a run"),
        ("plot", "is not a run"),
        ("render", "is not a run"),
        ("export", "is not a run"),
        ("info", "is not a run"),
    ],
)
def test_commands_need_a_run(command, message, capsys, tmp_path):
    assert message in failing(capsys, command, str(tmp_path / "nothing"))


def test_dry_run_reports_memory_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "dqn", *CHAIN, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "state: memory" in shown and "free" in shown and "compilation" in shown
    assert cli.main(["train", "dqn", *CHAIN, "--dry-run", "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["event"] == "dry_run" and "state: memory" in event["figures"]
    assert not list(tmp_path.iterdir())


def test_training_without_a_preset_says_so(tmp_path, capsys):
    def printed(*arguments):
        out = ["--out", str(tmp_path / "-".join(arguments))]
        assert cli.main(["train", "q_learning", *arguments, "--total-steps=200", *out]) == 0
        return [x for x in capsys.readouterr().out.splitlines() if " preset " in x]

    note = "q_learning has no preset for chain: what is not given has its default"
    assert printed("--env=chain") == [note]
    assert printed("--env=chain", "--quiet") == printed("--env=chain", "--json") == []
    assert printed("--env=frozen_lake") == []


def test_a_configuration_without_a_preset_says_so(capsys):
    assert cli.main(["preset", "iqn", "Acrobot-v1"]) == 0
    assert capsys.readouterr().out.startswith("# no preset: the defaults of iqn\n")
    assert cli.main(["preset", "sac", "multi_goal"]) == 0  # tuned, and not measured
    assert capsys.readouterr().out.startswith("algorithm =")


def test_no_configuration_is_printed_that_training_refuses(capsys):
    assert cli.main(["preset", "dqn", "Pendulum-v1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "DQN needs discrete actions, but Pendulum-v1 has continuous ones" in output.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--log=wandbb"], "did you mean wandb?"),
        (["--measure=norm"], "--measure takes NAME=file.py:name"),
        (["--name=../a"], "must be a name below runs/"),
    ],
)
def test_a_dry_run_refuses_what_training_refuses(flags, message, capsys):
    assert message in failing(capsys, "train", "dqn", *CHAIN, "--dry-run", *flags)


def test_names_are_directories_under_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--env=chain", "--steps=300", "--quiet", "--episodes=4"]
    assert cli.main(["train", "q_learning", *flags, "--name", "mine"]) == 0
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()
    capsys.readouterr()
    assert "exists already" in failing(capsys, "train", "q_learning", *flags, "--name", "mine")
    both = ["--name", "a", "--out", "b"]
    assert "give one of them" in failing(capsys, "train", "q_learning", *flags, *both)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_has_its_own_exit_status(number, status, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(display.SummaryReporter, "on_chunk", lambda *_: signal.raise_signal(number))
    flags = ["--env=chain", "--steps=300", "--quiet", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "q_learning", *flags]) == status
    err = capsys.readouterr().err
    assert "continue with purejaxrl-sac resume" in err and err.count("\n") == 1


def test_a_run_whose_output_is_closed_can_be_resumed(tmp_path, capsys, monkeypatch):
    flags = ["--env=chain", "--total-steps=20000", "--chunks=400", "--episodes=8"]
    command = [sys.executable, "-m", "purejaxrl_sac", "train", "q_learning", *flags]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        while "  step " not in process.stdout.readline():
            pass
        process.stdout.close()  # as `head` does
        error = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "by SIGPIPE: continue with purejaxrl-sac resume" in error and error.count("\n") == 1
    assert loading.load(tmp_path / "run").steps > 0

    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr(display.JsonReporter, "on_chunk", closed)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # to have it again
    out = ["--json", "--out", str(tmp_path / "json")]
    assert cli.main(["train", "q_learning", *flags, *out]) == 128 + signal.SIGPIPE
    assert loading.load(tmp_path / "json").steps > 0


def test_a_disk_failure_has_its_own_exit_status(tmp_path, capsys, monkeypatch):
    from purejaxrl_sac.experiment.runs import metric_rows

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metric_rows, "append", full)
    flags = ["--env=chain", "--steps=300", "--quiet", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "q_learning", *flags]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_an_existing_directory_is_not_modified(tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    error = failing(capsys, "train", "dqn", *SHORT, "--out", str(tmp_path))
    assert "exists already" in error
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command is called trian"),
        (["train", "sacc"], "did you mean sac?"),
        (["train", "dqn", "--env", "CartPole"], "did you mean CartPole-v1?"),
        (["train", "sac", "--env", "CartPole-v1"], "SAC needs continuous actions"),
        (["train", "dqn", "--env", "Pendulum-v1"], "DQN needs discrete actions"),
        (["train", "q_learning", "--env", "CartPole-v1"], "needs finitely many states"),
        (["train", "sarsa", "--env", "chain", "--gamma", "1"], "values diverge"),
        (["train", "q_learning", "--exploration", "ubc"], "did you mean ucb?"),
        (["train", "dqn", "--batch-size", "99999"], "is larger than capacity"),
        (["train", "dqn", "--capacity", "10001"], "must be a multiple of"),
        (["train", "dqn", "--steps", "100"], "total_steps is 100, but the warm-up"),
        (["train", "dqn", "--num-envs", "0"], "num_envs is 0"),
        (["train", "dqn", "--seeds", "0"], "must be at least 1"),
        (["train", "dqn", "--seed", "-1"], "seed is -1, but must be between"),
        (["train", "dqn", "--seed", "4294967296"], "seed is 4294967296, but must be"),
        (["train", "dqn", "--gamma", "high"], "--gamma"),
        (["train", "dqn", "--target-period", "1.5"], "--target-period"),
        (["train", "dqn", "--gama", "0.9"], "--gama"),
        (["train", "dqn", "--log", "paper"], "paper"),
        (["train", "dqn", "--capacity", "100000000000"], "must be less than 2147483648"),
        (["train", "dqn", "--eval-every", "-1"], "eval_every is -1, but must be zero or more"),
        (["train", "dqn", "--chunks", "0"], "chunks is 0"),
        (["list", "Pendulum"], "no algorithm or environment is called Pendulum: did you mean"),
        (["list", "dqm"], "no algorithm or environment is called dqm: did you mean dqn?"),
        (["list", "dqn", "sac"], "list takes one name, but was given dqn sac"),
        (["train", "SAC"], "no algorithm is called SAC: did you mean sac?"),
        (["train", "double-dqn"], "no algorithm is called double-dqn: did you mean double_dqn?"),
        (["train", "--env", "CartPole-v1"], "name an algorithm before --env"),
        (["train", "--env", "CartPole-v1", "dqn"], "name the algorithm first: train dqn --env ..."),
        (["sweep", "--env", "X", "a.py:B"], "name the algorithm first: sweep a.py:B --env ..."),
        (["sweep", "--env", "a.py:B"], "name an algorithm before --env"),
        (["sac", "--seeds", "8"], "no command is called sac: did you mean train sac?"),
        (["train", "sac", "--lr", "1e-3"], "no flag is called --lr: did you mean --learning-rate?"),
        (["train", "sac", "--lr=1e-3"], "no flag is called --lr: did you mean --learning-rate?"),
        (["train", "dqn", "--hidden-sizes", "64,32"], "by spaces: --hidden-sizes 64 32"),
        (["train", "dqn", "--hidden-sizes"], "--hidden-sizes needs at least one number"),
        (["train", "dqn", "--hidden-sizes", "--seeds", "2"], "needs at least one number"),
        (["train", "crossq", "--critic-hidden-sizes"], "needs at least one number"),
        (["train", "dqn", "--wrap"], "--wrap needs at least one value"),
        (["sweep", "dqn", "--grid"], "--grid needs at least one value"),
        (["plot", "a", "--labels", "--log-x"], "--labels needs at least one value"),
        (["train", "dqn", "--config", "x.toml", "--hidden-sizes"], "at least one number"),
        (["train", "dqn", "--total-steps", "1.5e0"], "--total-steps"),
    ],
)
def test_invalid_input_prints_one_line_and_writes_nothing(arguments, message, capsys, tmp_path):
    if arguments[0] == "train":
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert message in failing(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_flags_that_remove_values_need_none():
    parsing.check_values(["train", "ppo", "--normalize", "--seeds", "2"])
    parsing.check_values(["train", "--config=x.toml", "--wrap", "--env-params"])


def test_a_missing_value_prints_one_line(capsys):
    assert "--env" in failing(capsys, "train", "dqn", "--env")


def test_a_missing_logger_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = str(tmp_path / "run")
    error = failing(capsys, "train", "dqn", *SHORT, "--log", "tensorboard", "--out", out)
    assert "pip install 'purejaxrl_sac[log]'" in error
    assert not list(tmp_path.iterdir())


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    out = tmp_path / "run"
    flags = ["--log", "tensorboard", "--out", str(out), "--quiet"]
    assert cli.main(["train", "dqn", *CHAIN, *flags]) == 0
    assert list(out.glob("events.out.tfevents.*"))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == prl.__version__


def test_unwritable_directory(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = failing(capsys, "train", "dqn", *SHORT, "--out", str(tmp_path / "file" / "run"))
    assert "cannot create" in error


@pytest.mark.parametrize("arguments", ([], ["--help"], ["train"], ["train", "--help"]))
def test_help(arguments, capsys):
    assert cli.main(arguments) == 0
    assert "  train ALGORITHM [--env NAME]" in capsys.readouterr().out


@pytest.mark.parametrize("command", [*cli.COMMANDS, "train sac"])
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command.split(), "--help"])
    assert exit_.value.code == 0
    assert (
        f"purejaxrl-sac {command.split()[0]} " in capsys.readouterr().out.split("options")[0][20:]
    )


def test_every_field_is_a_flag_with_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "sac", "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for field in ("learning-rate", "num-envs", "tau", "total-steps", "hidden-sizes", "seeds"):
        assert f"--{field}" in shown
    assert "Discount factor." in shown and "NAME=VALUE" in shown


def test_docstrings_of_flags_are_one_line():
    """The help of a flag would break at the ends of their lines."""
    folder = Path(cli.__file__).parents[1]
    for path in [folder / "cli" / "options.py", *(folder / "agents").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            body = node.body if isinstance(node, ast.ClassDef) else []
            for field, text in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert text.lineno == text.end_lineno, (path, text.lineno)


def test_help_and_flags_do_not_import_environments():
    code = (
        "import sys; from purejaxrl_sac.cli import TrainOptions, main, parse_with_preset;"
        "main(['--help']); parse_with_preset(TrainOptions, 'train', 'sac', ['--seeds', '3']);"
        "sys.exit('gymnax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("options", [cli.TrainOptions, cli.SweepOptions])
def test_defaults_are_those_of_python(options):
    from purejaxrl_sac.experiment.runs import lifecycle
    from purejaxrl_sac.experiment.tuning import sweep

    function = {"TrainOptions": lifecycle.run, "SweepOptions": sweep.run}[options.__name__]
    python = {name: x.default for name, x in inspect.signature(function).parameters.items()}
    flags = {field.name: field.default for field in dataclasses.fields(options)}
    both = flags.keys() & python.keys() - {"points"}  # a number, and the points themselves
    counts = {name for name in both if isinstance(flags[name], int)}
    assert counts >= {"seed", "chunks", "episodes"}
    assert {x: flags[x] for x in counts} == {x: python[x] for x in counts}


def test_help_states_what_affects_results():
    assert "Only the number of devices affects" in cli.options.RunOptions.__doc__


def test_module_is_the_command(capsys):
    done = subprocess.run(
        [sys.executable, "-m", "purejaxrl_sac", "train", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "no algorithm is called nothing" in done.stderr


def test_layers_are_written_as_in_grids_too():
    for layers in (["32x16"], ["32", "16"]):
        options = parsing.parse_with_preset(
            TrainOptions, "train", "dqn", ["--hidden-sizes", *layers, "--seeds", "3"]
        )
        assert options.config.hidden_sizes == (32, 16) and options.seeds == 3


def listed(capsys, *arguments):
    """The lines that `list` prints."""
    assert cli.main(["list", *arguments]) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_list_fits_on_a_screen(capsys):
    lines = listed(capsys)
    assert len(lines) <= 50
    first = [line.split()[0] for line in lines[1 : len(ALGORITHMS) + 1]]
    assert first == list(ALGORITHMS)
    assert "dqn                Deep Q-network                            CartPole-v1 +10" in lines


def test_list_of_an_algorithm_has_its_presets_with_scores(capsys):
    lines = listed(capsys, "ppo")
    assert lines[0] == "ppo: Proximal policy optimisation (Schulman et al. 2017)"
    (line,) = [x for x in lines if x.startswith("ppo  ") and " CartPole-v1 " in x]
    assert line.split()[-4:] == ["200k", "500", "500", "30"]
    assert not any("Pendulum-v1 " in x for x in listed(capsys, "dqn"))
    assert "train it: purejaxrl-sac train dqn --env CartPole-v1" in listed(capsys, "dqn")
    assert any("it has no presets" in x for x in listed(capsys, "fast_sac"))


def test_list_of_a_fork_has_the_presets_that_it_is_trained_with(capsys):
    lines = listed(capsys, f"{FORKS}/cautious_sac.py:CautiousSACConfig")
    assert "its presets are those of sac" in lines[1] and "Pendulum-v1" in lines[2]
    assert "  critic_target: CriticTarget = cautious_target" in lines
    lines = listed(capsys, f"{FORKS}/scaled_sac.py:scaled_sac")
    assert lines[1] == "it has no presets; its default environment is Pendulum-v1"


def test_list_of_an_environment_has_its_spaces_and_presets(capsys):
    lines = listed(capsys, "t_maze")
    assert lines[0].startswith("t_maze: observations are one number, 4 actions, at most 100 steps")
    shown = {line.split()[0] for line in lines if line.split()[1:2] == ["t_maze"]}
    assert shown == {name for name, env in PRESETS if env == "t_maze"} >= {"ppo", "r2d2"}
    assert any("no algorithm has a preset" in x for x in listed(capsys, "tiger"))
    assert any(line.startswith("sac ") for line in listed(capsys, "brax/ant/spring"))


def test_everything_can_be_listed(capsys):
    lines = listed(capsys, "--presets")
    assert {tuple(line.split()[:2]) for line in lines[1:-1]} == {*PRESETS}
    from purejaxrl_sac import envs

    lines = listed(capsys, "--envs")
    assert {*envs.names(), "brax/ant/spring"} <= {line.split()[0] for line in lines}


PAGES = (
    *([], ["list"], ["list", "--help"], ["list", "--presets"], ["list", "--envs"]),
    *(["preset", "--help"], ["sweep"], ["train", "sac", "--help"], ["sweep", "dqn", "--help"]),
    *([command, "--help"] for command in cli.COMMANDS),
)


@pytest.mark.parametrize("arguments", PAGES, ids=" ".join)
def test_help_and_lists_fit_into_80_columns(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        cli.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines and [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e6", "1000000"), ("2.5E+3", "2500"), ("1e-3", "1e-3"), ("1.5e0", "1.5e0"), ("e6", "e6")],
)
def test_whole_numbers_may_have_exponents(text, expected):
    assert parsing.whole(text) == expected


def test_steps_and_capacity_may_have_exponents():
    flags = ["--total-steps=3e4", "--capacity", "1e4", "--tau", "1e-2"]
    config = cli.parse_with_preset(cli.TrainOptions, "train", "dqn", flags).config
    assert (config.total_steps, config.capacity, config.tau) == (30_000, 10_000, 0.01)


def test_names_are_no_counts(run, capsys):
    flags = ["--name", "1e6", "--out=2e3", "--seeds=1e1"]
    options = cli.parse_with_preset(TrainOptions, "train", "dqn", flags)
    assert (options.name, options.out, options.seeds) == ("1e6", Path("2e3"), 10)
    found = parsing.with_counts(["1e3", "--episodes", "1e3", "--steps=4e3", "--out=1e3"])
    assert list(found) == ["1e3", "--episodes", "1000", "--steps=4000", "--out=1e3"]
    assert "1,000 is not more than the 1,500" in failing(capsys, "resume", str(run), "--steps=1e3")


@pytest.mark.parametrize(
    ("command", "flags", "lanes"),
    [
        ("train", ["--env-params", "nothing=1", "--seeds=3"], 3),
        ("train", ["--dataset=nothing.npz"], 1),
        ("sweep", ["--env-params", "x=1", "--grid", "tau=0.1,0.2", "gamma=0,1", "--seeds=3"], 12),
        ("sweep", ["--dataset=x.npz", "--grid", "tau=0.1,0.2", "--range", "gamma=0.1:1"], 512),
    ],
)
def test_devices_are_set_up_before_arrays_are_made(command, flags, lanes, capsys, monkeypatch):
    def stop(options, lanes):
        raise prl.ConfigError(f"{lanes} lanes")

    monkeypatch.setattr(cli.options.RunOptions, "set_up_devices", stop)
    assert failing(capsys, command, "dqn", *flags) == f"purejaxrl-sac: {lanes} lanes\n"


def test_synonyms_are_no_flags():
    fields = {
        field.name for name in ALGORITHMS for field in dataclasses.fields(prl.default_config(name))
    }
    flags = {f"--{name.replace('_', '-')}" for name in fields}
    assert not flags & parsing.SYNONYMS.keys()
    assert {*parsing.SYNONYMS.values()} <= flags | {"--seeds", "--env"}


def test_the_environment_flag_selects_the_preset():
    options = cli.parse_with_preset(cli.TrainOptions, "train", "sac", ["--env=Pendulum-v1"])
    assert options.config.total_steps == 10_000
    flags = ["--env", "CartPole-v1", "--env", "Catch-bsuite", "--steps=7000", "--tau", "0.5"]
    options = cli.parse_with_preset(cli.TrainOptions, "train", "dqn", flags)
    assert options.config.capacity == 16_000  # Catch's preset, not CartPole's
    assert options.config.env == "Catch-bsuite"
    assert (options.config.total_steps, options.config.tau) == (7_000, 0.5)
    assert options.config.algorithm.__name__ == "dqn"


@pytest.mark.parametrize(("iterations", "chunks"), [(980, 50), (997, 50), (1, 9), (7, 3)])
def test_chunks_cover_the_run_with_at_most_two_programs(iterations, chunks):
    lengths = plans.chunk_lengths(iterations, plans.chunk_length(iterations, chunks))
    assert sum(lengths) == iterations and len(set(lengths)) <= 2
    assert len(lengths) <= 2 * chunks + 1


def test_chunked_run_is_the_plain_run(key):
    config = small("dqn", env="maximization_bias")
    plan = plans.plan(config, 2, chunks=4, episodes=3)
    result = engine.train_seeds(plan, devices=1)  # more devices round differently
    keys = jax.random.split(jax.random.split(key)[0], 2)
    state, metrics = jax.jit(jax.vmap(prl.train, (0, None)))(keys, config)
    for ours, plain in zip(
        jax.tree.leaves(result.state.agent), jax.tree.leaves(state.agent), strict=True
    ):
        # a plan's numbers are arguments of its program, not constants, which round differently
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-7)
    assert result.evaluation.shape == (2, 3)
    loss = np.mean([chunk.metrics["loss"] for chunk in result.history], axis=0)
    for total in ("episodes", "returns", "lengths"):
        assert metrics[total].sum() > 0
    episodes = np.array([chunk.episodes for chunk in result.history])
    np.testing.assert_array_equal(episodes.sum(0), metrics["episodes"].sum(1))
    lengths = np.array([chunk.episode_length for chunk in result.history])
    found = np.where(episodes > 0, episodes * lengths, 0).sum(0)
    np.testing.assert_allclose(found, metrics["lengths"].sum(1), rtol=1e-5)
    assert config.iterations % plan.chunk == 0  # so that all chunks have equal weight
    np.testing.assert_allclose(loss, metrics["loss"].mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train sac --learning-rate abc", "--learning-rate is 'abc', but must be a number"),
        ("train sac --learning-rate=abc", "--learning-rate is 'abc', but must be a number"),
        ("train sac --hidden-sizes a 3", "--hidden-sizes is 'a 3', but must be whole numbers"),
        ("eval run --episodes=x", "--episodes is 'x', but must be a whole number"),
        ("eval run --policy x", "--policy is 'x', but must be exploring or greedy"),
        ("plot a --columns 3", "--columns is '3', but must be 1 or 2 or None"),
        ("plot a --size 3", "--size is '3', but must be two numbers or None"),
        ("train sac --devices x", "--devices is 'x', but must be a whole number or all"),
        ("train sac --keep x", "--keep is 'x', but must be a whole number or None"),
        ("train sac --env", "--env needs a value (see purejaxrl-sac train sac --help)"),
        ("info", "info needs the path of a run: purejaxrl-sac info PATH"),
        ("eval --episodes 3", "eval needs the path of a run: purejaxrl-sac eval PATH"),
        ("train sac --gama=1", "no flag is called --gama: did you mean --gamma?"),
        (
            "train sac --learning-rat 1",
            "no flag is called --learning-rat: did you mean --learning-rate?",
        ),
        (
            "train sac --target-entropi 1",
            "no flag is called --target-entropi: did you mean --target-entropy-per-dim?",
        ),
        (
            f"train td3 --alpha 1 --alpha-learning-rate {'1' * 20} --alphas 2",
            "no flag is called --alpha: see purejaxrl-sac train td3 --help",
        ),
        ("train sac --set tau=0.1", "no flag is called --set: each field has one, such as --gamma"),
        ("compare a b", "no command is called compare: use plot RUN RUN ..."),
        ("train sac --qwxz 1", "no flag is called --qwxz: see purejaxrl-sac train sac --help"),
        (
            "train sac Pendulum-v1 --seeds 2",
            "Pendulum-v1 is an environment: give it as --env Pendulum-v1",
        ),
        ("train sac brax/ant/spring", "brax/ant/spring is an environment: give it as --env"),
        ("info a b", "'b' is neither a flag nor the value of one (see purejaxrl-sac info --help)"),
        ("sweep sac --grid lr=0.1", "no hyperparameter is called lr: did you mean learning_rate?"),
        ("sweep sac --range n-envs=1:2", "no hyperparameter is called n_envs: did you mean num_"),
        ("sweep sac --grid gama=1", "no hyperparameter is called gama: did you mean gamma?"),
    ],
)
@pytest.mark.parametrize("columns", ["80", "40"])
def test_wrong_flags_are_one_line(arguments, message, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    error = failing(capsys, *arguments.split())
    assert error.startswith(f"purejaxrl-sac: {message}")
    if message.endswith(("number", "PATH", "?")):
        assert error.strip().endswith(message)
