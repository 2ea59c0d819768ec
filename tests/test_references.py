"""Forks in files of their own: named on the command line, trained, and read only if trusted."""

import json
import re
import shutil
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, normalize, references
from purejaxrl_sac.agents import base_name, dqn
from purejaxrl_sac.agents.q_learning import q_learning
from purejaxrl_sac.cli import parts
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.runs import configuration, measures, names, plans, recipes, record
from purejaxrl_sac.presets import PRESETS
from purejaxrl_sac.train import build
from tests.conftest import small

FORK = '''
"""Q-learning with a bonus, on a corridor of one's own."""
from functools import partial
import jax, jax.numpy as jnp
from PIL import Image
import purejaxrl_sac as prl
from purejaxrl_sac import mdp
from purejaxrl_sac.agents.q_learning import q_learning
from purejaxrl_sac.envs.tabular import Tabular
from helper_of_fork import BONUS

def optimistic(config: prl.TabularConfig, env, *, bonus=BONUS):
    agent, memory = q_learning(config, env)
    def init(key, obs):
        state = agent.init(key, obs)
        return jax.tree.map(lambda x: x + bonus if x.dtype == jnp.float32 else x, state)
    return agent._replace(init=init), memory

class OptimisticConfig(prl.TabularConfig):
    algorithm: object = prl.static(optimistic)
    gamma: float = 0.8
    weight: float = prl.traced(0.5, at_least=0)

class Corridor(Tabular):
    def __init__(self):
        super().__init__(mdp.chain(4), "corridor", 20)
    def paint(self, scene, t):
        return Image.new("RGB", (80, 40), "white")

def identity(config, env, agent):
    return agent

def clock(state):
    return state.step * 1.0

def broken(state):
    return state.nothing

def nothing(*_):
    return None

def vector(state):
    return jnp.zeros(3)

class Log:
    def __init__(self, directory, steps):
        self.path = directory / "log.txt"
    def __call__(self, progress, state):
        with self.path.open("a") as file:
            file.write(f"{progress.steps} {int(state.step)}\\n")
'''
TRAIN = ["--steps=240", "--num-envs=2", "--seeds=2", "--episodes=4", "--chunks=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a fork, and its finished run."""
    folder = tmp_path_factory.mktemp("fork")
    (folder / "fork_of_q.py").write_text(FORK)
    (folder / "helper_of_fork.py").write_text("BONUS = 0.25\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["train", "fork_of_q.py:OptimisticConfig", "--env=fork_of_q.py:Corridor"]
        arguments += ["--wrap", "fork_of_q.py:identity", "--weight=2", "--name=run", *TRAIN]
        arguments += ["--measure", "clock=fork_of_q.py:clock", "--log", "fork_of_q.py:Log"]
        assert cli.main([*arguments, "--quiet", "--no-cache"]) == 0
    return folder


@pytest.fixture
def forgotten(folder, monkeypatch):
    """The folder, in a process that has imported nothing of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [x for x in sys.path if x != str(folder)])
    for cache in (references._files, references._imported, references._made):
        cache.clear()
    for module in ("fork_of_q", "helper_of_fork"):
        sys.modules.pop(module, None)
    return folder


def test_a_fork_is_trained_from_the_command_line(folder):
    document = json.loads((folder / "runs" / "run" / "config.json").read_text())
    config, recipe = document["config"], document["config"]["recipe"]
    assert config["weight"] == 2 and config["gamma"] == 0.8
    assert config["algorithm"] == "fork_of_q:optimistic"
    assert recipe["config"] == "fork_of_q.py:OptimisticConfig"
    assert recipe["env"] == "fork_of_q.py:Corridor"
    assert recipe["wrappers"] == ["fork_of_q.py:identity"]
    rows = (folder / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    clocks = [json.loads(row)["clock"] for row in rows]
    steps = [json.loads(row)["steps"] / 2 for row in rows]  # of each environment
    assert clocks == [[x, x] for x in steps]
    log = (folder / "runs" / "run" / "log.txt").read_text().split()
    assert [float(x) for x in log[1::2]] == steps


COMMANDS = {
    "eval": ["eval", "runs/run", "--episodes=8"],
    "export": ["export", "runs/run", "--out=policy"],
    "render": ["render", "runs/run", "--out=episode.gif"],
    "resume": ["resume", "runs/longer", "--steps=480", "--quiet", "--no-cache"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_is_read_only_with_trust(command, forgotten, capsys):
    if command == "resume":
        shutil.copytree("runs/run", "runs/longer")
    assert cli.main(COMMANDS[command]) == 2
    error = capsys.readouterr().err
    place = f"in {forgotten / 'fork_of_q.py'}: to import it, add --trust"
    assert "code, fork_of_q.py:" in error and place in error
    assert "--trust" in error and error.count("\n") == 1
    assert not {"fork_of_q", "helper_of_fork"} & sys.modules.keys()
    assert cli.main([*COMMANDS[command], "--trust"]) == 0
    assert "fork_of_q" in sys.modules
    if command == "resume":
        row = json.loads(Path("runs/longer/metrics.jsonl").read_text().splitlines()[-1])
        assert row["steps"] == 480 and row["clock"] == [240, 240]


@pytest.mark.parametrize("command", [["info", "runs/run"], ["plot", "runs/run", "--out=x.png"]])
def test_what_needs_no_code_imports_none(command, forgotten, capsys):
    assert cli.main(command) == 0
    assert "fork_of_q" not in sys.modules
    if command[0] == "info":
        out = capsys.readouterr().out
        assert re.search(r"code\W+fork_of_q.py:Corridor,\W+fork_of_q.py:OptimisticC", out)
        assert "'keywords'" not in out


def test_the_documented_algorithm_has_the_presets_of_sac(tmp_path, monkeypatch):
    text = (Path(prl.__file__).parent / "experiment" / "README.md").read_text()
    section = text.split("\n## Code of your own\n")[1].split("\n## ")[0]
    (tmp_path / "lion.py").write_text(section.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    flags = ["--env=Pendulum-v1", "--decay=0.5"]
    config = cli.parse_with_preset(cli.TrainOptions, "train", "lion.py:LionSACConfig", flags).config
    known = prl.preset("sac", "Pendulum-v1")
    assert (config.learning_rate, config.total_steps) == (known.learning_rate, known.total_steps)
    assert (config.gamma, config.decay) == (0.98, 0.5) and known.gamma == 0.99
    build(config)


def test_a_run_is_read_where_its_code_is_named_again(forgotten, capsys):
    given = ["--algorithm=fork_of_q.py:OptimisticConfig", "--env=fork_of_q.py:Corridor"]
    assert cli.main(["eval", "runs/run", *given]) == 2
    error = capsys.readouterr().err
    assert "its wrappers are custom code" in error and "with --wrap (wrappers=...)" in error
    wrap = ["--wrap", "fork_of_q.py:identity"]
    commands = COMMANDS | {"export": ["export", "runs/run", "--out=other_policy"]}
    commands["render"] = ["render", "runs/run", "--out=other.gif"]
    for name in ("eval", "render", "export"):
        assert cli.main([*commands[name], *given, *wrap]) == 0
    assert cli.main(["eval", "runs/run", *given, "--wrap", "fork_of_q.py:nothing"]) == 2
    assert "wrappers is ['fork_of_q:nothing'], but was" in capsys.readouterr().err
    shutil.copytree("runs/run", "runs/again")
    resume = ["resume", "runs/again", "--steps=480", "--quiet", "--no-cache", *given, *wrap]
    assert cli.main(resume) == 2
    assert "its measures are custom code" in capsys.readouterr().err
    assert cli.main([*resume, "--measure", "time=fork_of_q.py:clock"]) == 2
    assert "measure has time, but the run has clock" in capsys.readouterr().err
    assert cli.main([*resume, "--measure", "clock=fork_of_q.py:clock"]) == 0
    row = json.loads(Path("runs/again/metrics.jsonl").read_text().splitlines()[-1])
    assert row["steps"] == 480 and row["clock"] == [240, 240]
    parts = ("OptimisticConfig", "Corridor", "identity")
    kind, corridor, identity = (references.load(f"fork_of_q.py:{name}") for name in parts)
    code = {"algorithm": kind, "env": corridor()}
    run = prl.experiment.load("runs/run", **code, wrappers=[identity])
    trusted = prl.experiment.load("runs/run", trust=True)
    assert (run.evaluate(4) == trusted.evaluate(4)).all()
    with pytest.raises(ConfigError, match=r"wrappers is .*, but was"):
        prl.experiment.load("runs/run", **code, wrappers=[])
    with pytest.raises(ConfigError, match=r"field of the configuration is called weight"):
        prl.experiment.load("runs/run", algorithm="q_learning", trust=True)
    with pytest.raises(ConfigError, match=r"env is chain"):
        prl.experiment.load("runs/run", env="chain", trust=True)


def test_own_wrappers_stay_between_those_of_the_package():
    wrappers = (normalize.rewards, plain_wrapper, normalize.observations)
    config = small("dqn").replace(wrappers=wrappers)
    data = json.loads(json.dumps(record.config_to_dict(config)))
    reference = data["recipe"]["wrappers"][1]
    for given in ([reference], config.wrappers, ["rewards", reference, "observations"]):
        found = record.config_from_dict(data, record.Given(wrappers=given))
        assert [x.__name__ for x in found.wrappers] == ["rewards", "plain_wrapper", "observations"]
    two = record.config_from_dict(data, record.Given(wrappers=[reference, reference]))
    with pytest.raises(ConfigError, match="wrappers is"):
        record.check_equal(two, data, Path("run"))


def plain_wrapper(config, env, agent):
    return agent


def test_a_changed_file_is_named(forgotten):
    shutil.copytree(forgotten, forgotten.parent / "changed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(forgotten.parent / "changed")
        with Path("fork_of_q.py").open("a") as file:
            file.write("# a change\n")
        changed = "fork_of_q.py has changed since the run was created"
        with pytest.warns(RunWarning, match=changed):
            prl.experiment.load("runs/run", trust=True)
        parts = ("OptimisticConfig", "Corridor", "identity")
        kind, corridor, identity = (references.load(f"fork_of_q.py:{name}") for name in parts)
        with pytest.warns(RunWarning, match=changed):
            prl.experiment.load("runs/run", algorithm=kind, env=corridor(), wrappers=[identity])


def test_a_hostile_run_imports_nothing(forgotten):
    Path("evil.py").write_text("open('harm.txt', 'w').close()\n")
    shutil.copytree("runs/run", "runs/evil", dirs_exist_ok=True)
    path = Path("runs/evil/config.json")
    document = json.loads(path.read_text())
    document.pop("checksums")
    config = document["config"]
    config["recipe"] |= {"config": "evil.py:X", "env": "evil.py:X", "algorithm": "evil.py:x"}
    document["measures"] = {"clock": "evil.py:x"}
    for name in ("algorithm", "env"):
        config[name] = "evil.py:X"
    config["wrappers"] = ["evil.py:x"]
    from purejaxrl_sac.experiment.runs import files

    files.write_document(path, document)
    for command in (["eval"], ["resume"], ["info"], ["plot"], ["render"], ["export"]):
        cli.main([*command, "runs/evil"])
    assert not Path("harm.txt").exists() and "evil" not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": ["a"]},
        {"wrappers": 5},
        {"wrappers": [None]},
        {"gamma": 10**400},
        {"recipe": 5},
        {"recipe": {"config": ["a"]}},
        {"recipe": {"config": "a\0.py:x", "algorithm": "x.py:y"}},
        {"recipe": {"algorithm": {"function": "dqn", "args": 5, "keywords": {}}}},
    ],
    ids=str,
)
@pytest.mark.parametrize("trust", [False, True])
def test_damaged_recipes_are_one_line(changes, trust, forgotten):
    document = json.loads(Path("runs/run/config.json").read_text())["config"]
    inner = changes.get("recipe")
    if isinstance(inner, dict):
        changes = {"recipe": document["recipe"] | inner}
    with pytest.raises(ConfigError) as error:
        record.config_from_dict({**document, **changes}, record.Given(trust=trust))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--log", "fork_of_q.py:broken"], "the logger broken cannot be made"),
        (["--log", "fork_of_q.py:nothing"], "the logger nothing is None, but must be"),
        (["--wrap", "fork_of_q.py:nothing"], "a wrapper returned None"),
        (["--wrap", "fork_of_q.py:broken"], "the wrapper broken fails while it is built"),
    ],
)
def test_loggers_and_wrappers_that_fail(flags, message, forgotten, capsys):
    line = ["train", "q_learning", "--env=chain", "--quiet", "--no-cache", "--out=none", *TRAIN]
    assert cli.main([*line, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("none").exists()


def test_a_fork_is_swept_stopped_and_resumed(forgotten, capsys):
    arguments = ["sweep", "fork_of_q.py:OptimisticConfig", "--env=fork_of_q.py:Corridor", *TRAIN]
    arguments += ["--grid", "weight=1,2", "gamma=0.8,0.9", "--fresh-seeds=0", "--lanes=4"]
    arguments += ["--out=runs/sweep", "--quiet", "--no-cache"]
    assert cli.main(arguments) == 0
    whole = Path("runs/sweep/table.csv").read_text()
    for name in ("table.csv", "sensitivity.png"):
        Path("runs/sweep", name).unlink()
    shutil.rmtree(sorted(Path("runs/sweep/batches").iterdir())[-1])
    assert cli.main(["resume", "runs/sweep", "--quiet", "--no-cache"]) == 2
    assert "--trust" in capsys.readouterr().err
    assert cli.main(["resume", "runs/sweep", "--quiet", "--no-cache", "--trust"]) == 0
    assert Path("runs/sweep/table.csv").read_text() == whole


def test_parts_are_named_on_the_command_line(forgotten, capsys):
    arguments = ["train", "dqn", "--env=chain", "--dry-run", "--no-cache", "--steps=2000"]
    part = "bootstrap=purejaxrl_sac.agents.dqn:double"
    assert cli.main([*arguments, "--parts", part]) == 0
    assert "dqn(bootstrap=double) on chain" in capsys.readouterr().out
    assert cli.main([*arguments, "--parts", part.replace("bootstrap", "bootstap")]) == 2
    assert "did you mean bootstrap? (its parts are network, head, " in capsys.readouterr().err
    assert cli.main([*arguments, "--parts", "loss=fork_of_q.py:BONUS"]) == 2
    assert "loss is 0.25, but must be a function" in capsys.readouterr().err
    assert cli.main([*arguments, "--parts", "network=fork_of_q.py:clock"]) == 2
    error = capsys.readouterr().err
    assert "the part network of dqn fails while it is built" in error and error.count("\n") == 1
    config = cli.parse_with_preset(cli.TrainOptions, "train", "dqn", ["--parts", part]).config
    assert config.algorithm.keywords == {"bootstrap": dqn.double}


NAMELESS = (
    ["train", "fork_of_q.py"],
    ["train", "q_learning", "--env", "fork_of_q.py"],
    ["train", "q_learning", "--env=chain", "--wrap", "fork_of_q.py"],
    ["train", "q_learning", "--env=chain", "--curriculum", "fork_of_q.py"],
    ["train", "q_learning", "--env=chain", "--parts", "targets=fork_of_q.py"],
    ["train", "q_learning", "--env=chain", "--measure", "a=fork_of_q.py", "--out=none"],
    ["train", "q_learning", "--env=chain", "--log", "fork_of_q.py", "--out=none"],
    ["eval", "runs/run", "--algorithm", "fork_of_q.py"],
)


@pytest.mark.parametrize("arguments", NAMELESS, ids=" ".join)
def test_a_file_without_a_name_is_read_and_not_imported(arguments, forgotten, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "fork_of_q.py:Name (it defines optimistic, OptimisticConfig, Corridor, " in error
    assert "fork_of_q" not in sys.modules and error.count("\n") == 1


def test_a_part_that_does_not_exist_names_all_that_do():
    with pytest.raises(ConfigError, match="no part of sac is called network: its parts are actor,"):
        cli.parse_with_preset(cli.TrainOptions, "train", "sac", ["--parts", "network=a.py:b"])
    with pytest.raises(ConfigError, match="no part of simba is called a: it has no parts"):
        cli.parse_with_preset(cli.TrainOptions, "train", "simba", ["--parts", "a=a.py:b"])


def test_parts_are_listed_with_types_and_defaults(forgotten, capsys):
    assert parts.described(dqn.double_dqn)[2] == "bootstrap: Bootstrap = double"
    actor = "gaussian_actor(norm=LayerNorm(use_fast_variance=False))"
    assert f"actor: MakeActor = {actor}" in parts.described(prl.fast_sac)
    tabular = parts.described(q_learning)  # without the number of tables
    assert [x.partition(":")[0] for x in tabular] == ["bootstrap", "targets", "memory", "explore"]
    assert parts.described(prl.simba) == parts.described(lambda config, env, *, bonus=1: 0) == []
    found = parts.described(prl.sac)
    assert found[1] == "critics: MakeCritics = twin_critics" and len(found) == 13
    assert cli.main(["list", "sac"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[2:] in found] == [f"  {text}" for text in found]


def test_the_parts_of_one_s_own_class_are_listed(forgotten, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "import purejaxrl_sac as prl\nclass MineConfig(prl.SACConfig):\n    pass\n"
    Path("mine.py").write_text(text)
    assert cli.main(["list", "mine.py:MineConfig"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine.py:MineConfig: derived from SACConfig"
    assert "  critics: MakeCritics = twin_critics" in lines
    assert "train it: purejaxrl-sac train mine.py:MineConfig --env Pendulum-v1" in lines


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_help_lists_the_parts_of_the_algorithm(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "sac", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "those of sac, with their types and defaults: actor: MakeActor = gaussian" in shown
    assert all(text in shown for text in parts.described(prl.sac))


def test_an_optimizer_of_optax_is_no_part():
    flags = ["--parts", "critic_optimizer=optax:lion"]
    with pytest.raises(
        ConfigError, match=r"write `def lion\(config\): return optax.lion\(config\."
    ):
        cli.parse_with_preset(cli.TrainOptions, "train", "sac", flags)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.py:x", "there is no file nowhere.py"),
        ("fork_of_q.py:OptimistConfig", "did you mean OptimisticConfig"),
        ("no_such_module_at_all:x", "importing no_such_module_at_all fails: ModuleNotFoundError"),
        ("json.py:x", "has the name of another module, json"),
        ("bad_syntax.py:x", "importing bad_syntax.py fails: SyntaxError"),
        ("raises.py:x", "importing raises.py fails: ZeroDivisionError: .* in raises.py, line 1$"),
        ("leaves.py:x", "importing leaves.py fails: SystemExit: 0"),
        ("my.fork.py:x", "rename it"),
        (".py:x", "there is no file|rename it"),
        ("loop.py:x", "there is no file loop.py"),
        ("a\0.py:x", "there is no file"),
        ("a" * 5_000 + ".py:x", "there is no file"),
        ("fork_of_q.py:BONUS.y", "fork_of_q.py"),
        (":x", "must be file.py:name or module:name"),
        ("fork_of_q.py:", "fork_of_q.py, as fork_of_q.py:Name .it defines optimistic, Optimis"),
        ("fork_of_q.py", "fork_of_q.py, as fork_of_q.py:Name .it defines optimistic, Optimis"),
        ("nowhere.py", "there is no file nowhere.py"),
        ("a\0.py", "name what is in|there is no file"),
        ("raises.py", "name what is in raises.py, as raises.py:Name$"),
        ("bad_syntax.py", "name what is in bad_syntax.py, as bad_syntax.py:Name$"),
    ],
)
def test_a_reference_that_cannot_be_imported(reference, message, forgotten):
    Path("json.py").write_text("x = 1\n")
    Path("bad_syntax.py").write_text("x = = 1\n")
    Path("raises.py").write_text("x = 1 / 0\n")
    Path("leaves.py").write_text("raise SystemExit(0)\n")
    Path("my.fork.py").write_text("x = 1\n")
    Path("loop.py").unlink(missing_ok=True)
    Path("loop.py").symlink_to("loop.py")
    with pytest.raises(ConfigError, match=message) as error:
        references.load(reference)
    assert "\n" not in str(error.value)
    assert not {"bad_syntax", "raises"} & sys.modules.keys()


def test_the_preset_of_a_fork_is_that_of_its_base(forgotten):
    config = prl.preset("fork_of_q.py:OptimisticConfig", "cliff_walking")
    assert type(config).__name__ == "OptimisticConfig" and config.env == "cliff_walking"

    class Mine(prl.DQNConfig):
        tau: float = 0.5

    tuned, mine = prl.preset("dqn", "CartPole-v1"), prl.preset(Mine(), "CartPole-v1")
    assert mine == Mine(env="CartPole-v1")  # an object is taken as it is
    mine = prl.preset(Mine, "CartPole-v1")
    assert mine.tau == 0.5 != tuned.tau and mine.total_steps == tuned.total_steps
    double = prl.preset(dqn.double_dqn, "CartPole-v1")
    assert double == prl.preset("double_dqn", "CartPole-v1")


@pytest.mark.parametrize(
    ("name", "part"),
    [("redq", "noise"), ("tqc", "critique"), ("ppo", "schedule"), ("rainbow", "head")],
)
def test_forks_of_composed_algorithms_have_their_presets(name, part):
    env = next(env for algorithm, env in PRESETS if algorithm == name)
    mine, tuned = partial(getattr(prl, name), **{part: print}), prl.preset(name, env)

    class Fork(type(tuned)):
        algorithm: prl.Algorithm = prl.static(mine)

    for given in (mine, Fork):
        found = prl.preset(given, env)
        assert base_name(found) == name and found.algorithm is mine
        assert all(getattr(found, x) == y for x, y in vars(tuned).items() if x != "algorithm")


def test_the_configuration_of_an_algorithm_of_ones_own():
    def annotated(config: prl.TabularConfig, env):
        return q_learning(config, env)

    def plain(config, env):
        return q_learning(config, env)

    assert type(prl.preset(annotated)) is prl.TabularConfig
    with pytest.raises(ConfigError, match="annotate its first parameter"):
        prl.preset(plain)
    with pytest.raises(ConfigError, match="must be a function or a Config"):
        prl.preset(3)


@pytest.mark.parametrize(
    "algorithm",
    [
        partial(dqn.dqn, bootstrap=dqn.double, weights=None),
        partial(partial(dqn.dqn, bootstrap=dqn.double), loss=dqn.q_loss),
        dqn.double_dqn,
    ],
)
def test_a_composed_algorithm_is_described_and_restored(algorithm):
    described = json.loads(json.dumps(recipes._described(algorithm)))
    restored = recipes.function(described)
    assert names.function_name(restored) == names.function_name(algorithm)


class CodeConfig(prl.TabularConfig):
    algorithm: prl.Algorithm = prl.static(q_learning)
    shape: Any = prl.static(jnp.tanh)
    kind: Any = prl.static(jnp.float32)
    layers: Any = prl.static(((16, 3), (8, 2)))


def test_fields_that_are_code_are_recorded_by_reference():
    config = CodeConfig(env="chain", shape=jnp.sin)
    data = json.loads(json.dumps(record.config_to_dict(config)))
    assert record.config_from_dict(data, record.Given(trust=True)) == config
    again = record.Given(algorithm=CodeConfig)
    with pytest.raises(ConfigError, match=r"its shape is custom code, jax.numpy:sin, .*config="):
        record.config_from_dict(data, again)
    defaults = CodeConfig(env="chain")
    assert record.config_from_dict(record.config_to_dict(defaults), again) == defaults
    contents = tomllib.loads(configuration.text(configuration.of_config(config)))
    assert contents["shape"] == "jax.numpy:sin" and "kind" not in contents
    for value in (lambda x: x, object()):
        with pytest.raises(ConfigError, match=r"shape is an? .*, which a run cannot record"):
            record.config_to_dict(config.replace(shape=value))


def test_what_no_reference_names_must_be_given(tmp_path):
    def mine(config, env):
        return q_learning(config, env)

    config = small("q_learning", env="chain").replace(algorithm=mine)
    data = json.loads(json.dumps(record.config_to_dict(config)))
    assert data["recipe"]["algorithm"] is None
    for trust in (False, True):
        with pytest.raises(ConfigError, match="no reference names: pass algorithm="):
            record.config_from_dict(data, record.Given(trust=trust))


@pytest.mark.parametrize(
    ("name", "measure", "message"),
    [
        ("a b", "clock", "must be an identifier"),
        ("x", "broken", "the measure x fails: .*nothing"),
        ("x", "vector", "must return one number"),
        ("x", "BONUS", "the measure x fails"),
        ("greedy_return", "clock", "is a metric already"),
    ],
)
def test_bad_measures(name, measure, message, forgotten):
    plan = plans.plan(small("q_learning", env="chain"), 2)
    function = references.load(f"fork_of_q.py:{measure}")
    with pytest.raises(ConfigError, match=message):
        measures.Measures({name: function}, plan, mesh_for(2, 1))


def test_a_measure_does_not_replace_a_metric(tmp_path):
    config, taken = small("q_learning", env="chain"), {"td_error": lambda state: 1.0 * state.step}
    with pytest.raises(ConfigError, match="td_error is a metric already"):
        prl.experiment.run(config, out=tmp_path / "run", measure=taken, episodes=2)


def test_measures_of_a_run_that_is_resumed():
    written = {"clock": None}
    assert measures.measured_again({}, None, False) == {}
    with pytest.raises(ConfigError, match="no reference names: pass measure="):
        measures.measured_again(written, None, True)
    with pytest.raises(ConfigError, match="but the run has clock: give the same"):
        measures.measured_again(written, {"other": np.sum}, False)
