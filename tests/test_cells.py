"""Cells of the learning scoreboard: which are measured next, and by how much goals are missed."""

import json
import os
import re
import signal
import sys
import tomllib

import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.runs import plans
from purejaxrl_sac.presets import PRESETS
from scripts import benchmark_learning, cells, random_returns, record
from scripts.pages import learning as learning_page


def row(cell, seconds=10, **changes):
    """A row of a cell, as fresh as `record.stale` says."""
    values = {**cell._asdict(), "changed": {}, "train_seconds": seconds, "value": 1.0}
    values["episodes"] = -(-cell.episodes // cell.seeds) * cell.seeds
    return {**values, **changes}


@pytest.fixture
def current(monkeypatch):
    """Rows are stale only if they say so."""
    monkeypatch.setattr(record, "stale", lambda row: row.get("stale", False))


def test_every_cell_has_a_preset_and_valid_goals():
    every = cells.cells()
    assert len(set(every)) == len(every)
    assert {(name, env.partition("(")[0]) for name, env, *_ in every} <= PRESETS.keys()
    goals = cells.goals()
    assert goals.keys() == {cell[:2] for cell in every}
    assert goals["dqn", "CartPole-v1"] == (495, 450)
    assert goals["iqn", "CartPole-v1"] == (495, None)
    assert goals["sac", "Reacher-misc"] == (None, None)


def test_the_size_of_a_search_is_part_of_a_row(tmp_path):
    (tmp_path / "cells.toml").write_text('[here]\nalgorithms = ["dqn"]\ntried = { dqn = 3 }\n')
    assert cells.tried("dqn", "here", tmp_path / "cells.toml") == 3
    assert cells.tried("sac", "here", tmp_path / "cells.toml") is None
    assert cells.tried("dqn", "there", tmp_path / "cells.toml") is None
    for environment, entry in tomllib.loads(cells.CELLS.read_text()).items():
        for name, count in entry.get("tried", {}).items():
            assert name in entry["algorithms"] and count > 1, environment
    row = {"algorithm": "dqn", "environment": "CartPole-v1", "value": 500, "changed": {}}
    assert "the best of 3 configurations" in learning_page.limited({**row, "tried": 3})
    assert "configurations" not in learning_page.limited({**row, "tried": None})


def test_arguments_of_a_cell_are_those_of_the_script(monkeypatch):
    assert cells.Cell("dqn", "CartPole-v1").arguments() == ["dqn", "CartPole-v1"]
    found = cells.Cell("sac", "Pendulum-v1", 8, 60, 512).arguments()
    assert found == ["sac", "Pendulum-v1", "--seeds=8", "--root=60", "--episodes=512"]


def test_an_environment_may_have_parameters_of_its_own():
    config = cells.configuration("recurrent_ppo", "MemoryChain-bsuite(memory_length=30)")
    assert config.env.params.memory_length == 30 and config.env_params is None
    tuned = prl.preset("recurrent_ppo", "MemoryChain-bsuite")
    assert config.replace(env="MemoryChain-bsuite") == tuned
    assert plans.has_time_limit(config)  # known before compilation, for evaluations
    assert cells.configuration("dqn", "CartPole-v1") == prl.preset("dqn", "CartPole-v1")
    names = (f"MemoryChain-bsuite{x}" for x in ("", "(memory_length=30)"))
    assert len({record.code(["preset"], "recurrent_ppo", name) for name in names}) == 1
    with pytest.raises(prl.ConfigError, match="did you mean memory_length"):
        cells.configuration("recurrent_ppo", "MemoryChain-bsuite(memory_lenght=30)")


def test_a_cell_is_recognised_by_all_of_its_settings():
    cell = cells.Cell("dqn", "Catch-bsuite", seeds=30)
    assert cell.is_of(row(cell))  # 1,020 episodes: 34 for each seed
    for changes in ({"seeds": 8}, {"root": 21}, {"episodes": 60}, {"changed": {"tau": 1.0}}):
        assert not cell.is_of(row(cell, **changes))
    assert not cell.is_of(row(cell, algorithm="double_dqn"))
    assert cell.is_of(row(cell, seeds=60, episodes=2_040))  # more of both is enough


def test_missing_and_stale_cells_are_measured_the_cheapest_first(current, monkeypatch):
    slow, quick, none, done = (
        cells.Cell(name, env) for name, env in (("a", "X"), ("b", "X"), ("c", "Z"), ("d", "X"))
    )
    monkeypatch.setattr(cells, "cells", lambda: [slow, quick, none, done])
    rows = [row(done, 1), row(slow, 900, stale=True), row(quick, 5, stale=True)]
    assert cells.to_measure(rows) == [quick, none, slow]
    assert cells.to_measure(rows, ["X"]) == [quick, slow]
    assert cells.to_measure(rows, ["c"]) == [none]
    assert cells.to_measure([*rows, row(slow, 900)]) == [quick, none]  # the last row counts
    assert cells.expected_seconds(slow, rows) == cells.OVERHEAD + 900
    assert cells.expected_seconds(cells.Cell("e", "X", seeds=60), rows) == cells.OVERHEAD + 10
    with pytest.raises(prl.ConfigError, match=r"nothing: no .* of cells\.toml"):
        cells.to_measure(rows, ["nothing"])


def test_misses_are_distances_from_the_goals():
    goal = cells.Goal(495, 450)
    assert goal.missed({"value": 500, "worst": 450}) == {}
    assert goal.missed({"value": 490, "worst": 100}) == {"IQM": 5, "worst": 350}
    assert cells.Goal(-78).missed({"value": -80.5, "worst": -500}) == {"IQM": 2.5}
    assert goal.missed({"value": 500}) == {}  # older rows have no worst seed


def test_fill_measures_reports_and_stops(monkeypatch, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, pathlib, sys, time\n"
        "name, file, place = sys.argv[1], sys.argv[-3], pathlib.Path(sys.argv[-1])\n"
        "place.mkdir(parents=True)\n"
        "if name == 'slow': time.sleep(60)\n"
        "if name == 'broken': sys.exit('error: no such thing')\n"
        "print('x' * 200_000 + '\\rreturn 1.0', file=sys.stderr)\n"
        "pathlib.Path(file).write_text(json.dumps({'algorithm': name}) + '\\n')\n"
    )
    monkeypatch.setattr(cells, "SCRIPT", script)
    every = [cells.Cell(name, "X") for name in ("good", "broken", "slow", "later")]
    monkeypatch.setattr(cells, "to_measure", lambda rows, only: list(every))
    file = tmp_path / "rows.jsonl"
    assert cells.fill(file, minutes=0.1, jobs=1) == 1
    shown = capsys.readouterr().out
    assert "good X: return 1.0" in shown
    assert "broken X: failed with status 1: error: no such thing" in shown
    assert "stopped at the time limit: slow X" in shown and "not started: later X" in shown
    assert json.loads(file.read_text()) == {"algorithm": "good"}
    kept = sorted(path.name.split("-")[0] for path in (tmp_path / "unfinished").iterdir())
    assert kept == ["broken", "slow"]


def measured(path, monkeypatch, *arguments):
    """The row of a short cell."""
    words = [
        "q_learning",
        "frozen_lake_8x8",
        "--seeds=2",
        "--episodes=4",
        "--set",
        "total_steps=4000",
    ]
    monkeypatch.setattr(
        sys, "argv", ["benchmark_learning.py", *words, *arguments, f"--record={path}"]
    )
    benchmark_learning.main()
    return record.rows(path)[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rainbow", "Asterix-MinAtar"], (5, 20, 200)),
        (["ppo", "Asterix-MinAtar"], (5, 20, 200)),  # which the scoreboard does not have
        (["dqn", "PointRobot-misc", "--seeds", "3", "--root", "1"], (3, 1, 334)),
        (["q_learning", "frozen_lake"], (30, 20, 34)),
    ],
)
def test_numbers_of_a_cell_are_those_of_the_scoreboard(arguments, expected, monkeypatch):
    def planned(config, seeds, seed, episodes):
        raise prl.ConfigError(f"{(seeds, seed, episodes)}")

    monkeypatch.setattr(benchmark_learning, "plan", planned)
    monkeypatch.setattr(sys, "argv", ["benchmark_learning.py", *arguments])
    with pytest.raises(SystemExit, match=re.escape(f"error: {expected}")):
        benchmark_learning.main()


def test_a_stopped_cell_is_continued_where_it_stopped(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    expected = measured(file, monkeypatch)
    kept = ["--directory", str(tmp_path / "kept")]
    on_chunk, stop = benchmark_learning.Reporter.on_chunk, iter([False] * 9 + [True])
    seen = []

    def stopped(self, progress):
        seen.append(progress.steps)
        on_chunk(self, progress)
        if next(stop, False):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(benchmark_learning.Reporter, "on_chunk", stopped)
    with pytest.raises(SystemExit, match="stopped"):
        measured(file, monkeypatch, *kept)
    assert len(seen) == 10
    continued = measured(file, monkeypatch, *kept)
    assert seen == sorted(set(seen))  # nothing was trained again
    number_of_chunks = len(seen)
    again = measured(file, monkeypatch, *kept)  # a finished run is read
    assert len(seen) == number_of_chunks
    for row in (continued, again):
        assert {**row, "train_seconds": expected["train_seconds"]} == expected
    with pytest.raises(SystemExit, match="has a run of other settings"):
        measured(file, monkeypatch, *kept, "--root=21")
    metrics = tmp_path / "kept" / "run" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(True)[:3]))
    with pytest.raises(SystemExit, match=r"rows after steps .* are missing .* no curve"):
        measured(file, monkeypatch, *kept)
    assert len(record.rows(file)) == 3
    with pytest.raises(SystemExit, match=r"has no stamp\.json of a run: give another"):
        measured(file, monkeypatch, "--directory", str(tmp_path))


def test_a_run_is_continued_with_the_code_of_its_start_alone(tmp_path):
    stamp = {"code": "a", "version": "0.8.0", "commit": "b"}
    assert benchmark_learning.started(tmp_path / "run", stamp) == stamp
    later = {**stamp, "version": "0.8.1"}
    assert benchmark_learning.started(tmp_path / "run", later) == stamp
    with pytest.raises(prl.ConfigError, match=r"run of other code \(0\.8\.0, b\): move it away"):
        benchmark_learning.started(tmp_path / "run", {**stamp, "code": "c"})
    (tmp_path / "config.json").touch()  # a run of an earlier version of this script
    with pytest.raises(prl.ConfigError, match=r"has no stamp\.json"):
        benchmark_learning.started(tmp_path, stamp)
    with pytest.raises(prl.ConfigError, match=r"cannot write .*: Not a directory"):
        benchmark_learning.started(tmp_path / "config.json" / "run", stamp)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--record", "{folder}"], "is a folder: pass a file"),
        (["--record", "{folder}/file/rows.jsonl"], "cannot be written"),
        (["--minutes", "nan"], "nan is not a positive number"),
        (["--dir", "x"], "unrecognized arguments: --dir x"),
    ],
)
def test_options_are_checked_before_anything_is_measured(
    words, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    words = [word.format(folder=tmp_path) for word in words]
    monkeypatch.setattr(sys, "argv", ["benchmark_learning.py", "dqn", "CartPole-v1", *words])
    with pytest.raises(SystemExit) as error:
        benchmark_learning.main()
    shown = capsys.readouterr().err
    assert error.value.code == 2 and message in shown and shown.count("\n") == 1


def test_a_cell_that_another_process_measures_has_not_failed(monkeypatch, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit('error: x is being written by another process')")
    monkeypatch.setattr(cells, "SCRIPT", script)
    monkeypatch.setattr(cells, "to_measure", lambda rows, only: [cells.Cell("dqn", "X")])
    assert cells.fill(tmp_path / "rows.jsonl", minutes=1) == 0
    assert "dqn X: error: x is being written by another process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an algorithm and an environment, or pass --fill"),
        (["dqn"], "name an algorithm and an environment, or pass --fill"),
        (["dqn", "--fill"], "--fill measures many cells: choose them by --only"),
        (["--fill", "--seeds", "3"], "--fill measures cells as they are: leave --seeds out"),
        (["--fill", "--set", "tau=1"], "--fill measures cells as they are: leave --set out"),
        (
            ["dqn", "CartPole-v1("],
            "CartPole-v1( has no closing parenthesis: quote NAME(FIELD=VALUE)",
        ),
        (["--fill", "--jobs", "0"], "jobs is 0, but must be at least 1"),
        (["--fill", "--only", "nothing"], "nothing: no algorithm or environment of cells.toml"),
    ],
)
def test_invalid_command_lines_are_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark_learning.py", *arguments])
    with pytest.raises(SystemExit) as error:
        benchmark_learning.main()
    assert str(error.value) == f"error: {message}"


def test_a_curve_keeps_the_return_of_seeds_in_the_middle_of_an_episode():
    def chunk(steps, *latest):
        latest = np.array(latest, np.float32)
        shared = dict.fromkeys(plans.Progress._fields)
        ended = np.full(len(latest), np.nan, np.float32)  # no episode ended in this chunk
        return plans.Progress(
            **{**shared, "steps": steps, "episode_return": ended, "latest_return": latest}
        )

    history = [chunk(100, 20, np.nan), chunk(200, 20, 40), chunk(300, 0.0123, 0.0121)]
    found = benchmark_learning.curve(history)
    assert found["steps"] == [200, 300]
    assert found["value"] == [30, 0.0122]


def test_random_returns_of_an_environment_with_parameters(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    arguments = ["MountainCar-v0(max_steps_in_episode=7)", "--episodes=2", f"--record={path}"]
    monkeypatch.setattr(sys, "argv", ["random_returns.py", *arguments])
    random_returns.main()
    (row,) = record.rows(path)
    assert (row["environment"], row["value"]) == ("MountainCar-v0(max_steps_in_episode=7)", -7)


@pytest.mark.parametrize("name", ["Pendulum", "MountainCar-v0(steps=7)"])
def test_unknown_environments_of_random_returns_are_refused(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["random_returns.py", "CartPole-v1", name])
    with pytest.raises(SystemExit) as stopped:
        random_returns.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("no ")
