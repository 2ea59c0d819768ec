"""Time to solution: the search of the fewest steps, rows and their page."""

import json
from pathlib import Path

import pytest

from scripts import benchmark_solution, record
from scripts.benchmark_solution import Task, Trained, alternate, fewest_steps
from scripts.pages import speed

TASK = Task("ppo", goal=475, steps=(10, 20, 30, 40, 50))


def learner(enough, library="", seconds=(4.0, 2.0)):
    """Training that solves the task with enough steps, and notes what it was asked."""
    asked = []

    def train(steps, root, cache):
        full = any(cache.iterdir())
        (cache / "program").touch()
        asked.append((steps, root, full))
        score = 480.0 if steps >= enough else 100.0
        return Trained(seconds[full], [0.0, score, score, 500.0], steps, library)

    return train, asked


@pytest.mark.parametrize("enough", (5, 10, 11, 30, 50))
def test_the_fewest_steps_are_found(enough, tmp_path):
    train, asked = learner(enough)
    assert fewest_steps(TASK, train, tmp_path) == min(n for n in TASK.steps if n >= enough)
    assert len(asked) <= 3 and {root for _, root, _ in asked} == {0}


def test_a_task_that_no_number_of_steps_solves(tmp_path):
    assert fewest_steps(TASK, learner(60)[0], tmp_path) is None
    (row,) = alternate(TASK, {"slow": learner(60)[0]}, rounds=2)
    assert row == {"solved": 0, "goal": 475, "rounds": 2, "library": "slow"}


def test_libraries_alternate_with_empty_and_full_caches_and_other_seeds():
    (ours, asked), (peer, asked_peer) = learner(30), learner(20, "peer 1", (40.0, 10.0))
    own, other = alternate(TASK, {"": ours, "peer": peer}, rounds=2)
    pairs = [(root, full) for root in (1, 2) for full in (False, True)]
    assert asked[-4:] == [(30, *pair) for pair in pairs]
    assert asked_peer[-4:] == [(20, *pair) for pair in pairs]
    figures = {"goal": 475, "rounds": 2, "value": 480.0, "solved": 2}
    assert own == {"steps": 30, "empty": 4.0, "full": 2.0, **figures}
    assert other == {"steps": 20, "empty": 40.0, "full": 10.0, "library": "peer 1", **figures}


def test_a_library_that_stops_by_itself_is_not_searched(monkeypatch):
    monkeypatch.setattr(benchmark_solution, "STOP_WHEN_SOLVED", ("peer",))
    train, asked = learner(20, "peer 1")
    (row,) = alternate(TASK, {"peer": train}, rounds=1)
    assert asked == [(50, 1, False), (50, 1, True)] and row["library"] == "peer 1"


def test_an_unknown_environment_and_a_command_that_fails_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_solution.main(["Acrobot-v1"])
    assert stopped.value.code == 2
    assert "no task is called Acrobot-v1: choose among CartPole-v1" in capsys.readouterr().err
    with pytest.raises(benchmark_solution.ConfigError, match="status 1 of: false x"):
        benchmark_solution.timed(["false", "x"], tmp_path)


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
    assert cells[0][1:9] == ["8", "30,000", "1 of 1", "490", "10.0", "", "5.0", ""]
    assert cells[1][0] == "peer 1: `ppo` CartPole-v1"
    assert cells[1][1:9] == ["8", "20,000", "1 of 1", "490", "25.0", "2.5", "20.0", "4.0"]
    assert cells[2][1:9] == ["8", "", "0 of 1", "", "", "", "", ""]
    (tmp_path / "speed.jsonl").write_text("")
    assert speed.solution() == []


@pytest.mark.slow
def test_our_command_solves_cartpole(tmp_path):
    trained = benchmark_solution.ours("CartPole-v1", 2, 20_000, 0, Path(tmp_path))
    assert len(trained.scores) == 2 and min(trained.scores) > 100 and not trained.library
