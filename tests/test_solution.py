"""Time to solution: the search of the fewest steps, rows and their page."""

import json

import jax
import pytest

from scripts import benchmark_solution, benchmark_speed, phases, record
from scripts.benchmark_solution import Task, Trained, alternate, fewest_steps
from scripts.pages import speed
from scripts.peers import environment

TASK = Task("ppo", goal=475, episodes=9, steps=(10, 20, 30, 40, 50))


def learner(enough, seconds=(4.0, 2.0), asked=None, name=""):
    """Training that solves the task with enough steps, and notes what it was asked."""
    asked = [] if asked is None else asked

    def train(steps, root, cache):
        full = any(cache.iterdir())
        (cache / "program").touch()
        asked.append((name, steps, root, full))
        score = 480.0 if steps >= enough else 100.0
        return Trained(seconds[full], [0.0, score, score, 500.0], steps)

    return train, asked


@pytest.mark.parametrize("enough", (5, 10, 11, 30, 50))
def test_the_fewest_steps_are_found(enough, tmp_path):
    train, asked = learner(enough)
    assert fewest_steps(TASK, train, tmp_path) == min(n for n in TASK.steps if n >= enough)
    assert len(asked) <= 3 and {root for _, _, root, _ in asked} == {0}


def test_a_task_that_no_number_of_steps_solves(tmp_path):
    assert fewest_steps(TASK, learner(60)[0], tmp_path) is None
    (row,) = alternate(TASK, {"rejax": learner(60)[0]}, rounds=2)
    assert row == {"solved": 0, "goal": 475, "episodes": 9, "rounds": 2, "library": "rejax 0.1.3"}


def test_libraries_alternate_with_empty_and_full_caches_and_other_seeds():
    ours, asked = learner(30)
    peer, _ = learner(20, (40.0, 10.0), asked, "rejax")
    own, other = alternate(TASK, {"": ours, "rejax": peer}, rounds=2)
    assert asked[-8:] == [
        (name, steps, root, full)
        for root in (1, 2)
        for name, steps in (("", 30), ("rejax", 20))
        for full in (False, True)
    ]
    figures = {"goal": 475, "episodes": 9, "rounds": 2, "value": 480.0, "solved": 2}
    assert own == {"steps": 30, "empty": 4.0, "full": 2.0, **figures}
    assert other == {"steps": 20, "empty": 40.0, "full": 10.0, "library": "rejax 0.1.3", **figures}


def test_a_library_that_stops_by_itself_is_not_searched():
    train, asked = learner(20)
    (row,) = alternate(TASK, {"sbx": train}, rounds=1)
    assert [x[1:] for x in asked] == [(50, 1, False), (50, 1, True)]
    assert row["library"] == "sbx-rl 0.28.0"


@pytest.mark.parametrize("failing", (0, 2), ids=("in the search", "in the second round"))
def test_a_library_that_fails_is_left_out_and_costs_no_other_row(failing, capsys):
    def fails(steps, root, cache):
        if root == failing:
            raise benchmark_solution.ConfigError("status 1 of: it")
        return Trained(1.0, [500.0] * 4, steps)

    (row,) = alternate(TASK, {"": learner(30)[0], "rejax": fails}, rounds=2)
    assert row["solved"] == 2 and "library" not in row
    assert capsys.readouterr().err == "rejax is left out: status 1 of: it\n"


@pytest.mark.parametrize(
    ("scores", "enough"),
    (
        ([0.0, 480.0, 480.0, 500.0], True),
        ([400.0, 460.0, 480.0, 500.0], False),
        ([None, 480.0, 480.0, 500.0], False),  # diverged
    ),
)
def test_an_environment_is_solved_by_the_interquartile_mean(scores, enough):
    assert benchmark_solution.solved(TASK, Trained(1.0, scores, 10)) is enough


@pytest.mark.parametrize("name", ("rejax", "sbx"))
def test_what_a_peer_is_asked_and_what_is_subtracted(name, tmp_path, monkeypatch):
    commands, other = [], {}

    def timed(command, cache):
        commands.append(command)
        answer = {"scores": [1.0], "steps": 7, "aside": 20.0, **phases.origin(), **other}
        return 50.0, f"a line\n{json.dumps(answer)}\n"

    monkeypatch.setattr(benchmark_solution, "timed", timed)
    found = benchmark_solution.peer(name, "python", "CartPole-v1", 8, 30_000, 3, tmp_path)
    assert found == Trained(30.0, [1.0], 7)
    ((python, worker, text),) = commands
    request, task = json.loads(text), benchmark_solution.TASKS["CartPole-v1"]
    common = {"algorithm": "ppo", "environment": "CartPole-v1", "seeds": 8, "root": 3}
    counts = {"steps": list(task.steps), "goal": 475} if name == "sbx" else {"steps": 30_000}
    assert request == {**common, "episodes": 64, **counts}
    assert python == "python" and worker.name == f"{name}_solution.py" and worker.exists()
    for field in ("jax", "device"):
        other = {field: "another"}
        with pytest.raises(benchmark_solution.ConfigError, match=f"{field} of the peer is another"):
            benchmark_solution.peer(name, "python", "CartPole-v1", 8, 30_000, 3, tmp_path)


def test_an_unknown_environment_and_a_command_that_fails_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_solution.main(["Acrobot-v1"])
    assert stopped.value.code == 2
    assert "no task is called Acrobot-v1: choose among CartPole-v1" in capsys.readouterr().err
    with pytest.raises(benchmark_solution.ConfigError, match="status 1 of: false x"):
        benchmark_solution.timed(["false", "x"], tmp_path)


@pytest.mark.parametrize("script", (benchmark_solution, benchmark_speed))
def test_a_folder_of_peers_that_cannot_be_made_is_one_line(script, monkeypatch, capsys):
    words = ["--peers", "rejax", "--peer-environments", "/proc/none"]
    if script is benchmark_speed:
        words = ["--peer", "rejax", "--peer-environment", "/proc/none"]
    monkeypatch.setattr("sys.argv", ["script.py", *words])
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(script.main())
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("cannot create /proc/none") and message.count("\n") == 1


def test_an_interrupted_installation_is_made_again(tmp_path, monkeypatch):
    installed = []

    def run(command, check):
        installed.append(command)
        if len(installed) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(environment.venv, "create", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        environment.peer_python(tmp_path)
    for _ in range(2):
        assert environment.peer_python(tmp_path) == tmp_path / "bin" / "python"
    assert len(installed) == 2 and f"jax=={jax.__version__}" in installed[1]


def test_a_worker_that_fails_is_one_line(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nread line\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    worker = environment.Peer(tmp_path / "python", "rejax_training")
    with pytest.raises(benchmark_solution.ConfigError, match="cannot be measured: see its error"):
        worker.request(seeds=1)


def test_the_table_has_ratios_to_our_command(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    work = {"what": "solution", "algorithm": "ppo", "environment": "CartPole-v1", "seeds": 8}
    work |= {"device": "cpu", "version": "1", "rounds": 1, "goal": 475}
    solved = {"value": 490.0, "solved": 1}
    rows = [
        {**work, "steps": 30_000, "empty": 10.0, "full": 5.0, **solved},
        {**work, "library": "peer 1", "steps": 20_000, "empty": 25.0, "full": 20.0, **solved},
        {**work, "library": "other 2", "solved": 0},
    ]
    (tmp_path / "speed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = speed.solution()[-1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0][1:10] == ["cpu", "8", "30,000", "1 of 1", "490", "10.0", "", "5.0", ""]
    assert cells[1][0] == "peer 1: `ppo` CartPole-v1"
    assert cells[1][1:10] == ["cpu", "8", "20,000", "1 of 1", "490", "25.0", "2.5", "20.0", "4.0"]
    assert cells[2][1:10] == ["cpu", "8", "", "0 of 1", "", "", "", "", ""]
    (tmp_path / "speed.jsonl").write_text("")
    assert speed.solution() == []


@pytest.mark.slow
def test_our_command_solves_cartpole(tmp_path):
    task = benchmark_solution.TASKS["CartPole-v1"]
    trained = benchmark_solution.ours("CartPole-v1", 8, 100_000, 0, tmp_path)
    assert len(trained.scores) == 8 and benchmark_solution.solved(task, trained)
