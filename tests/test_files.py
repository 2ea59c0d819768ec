"""Documents of runs: checksums, types, links; what terminals show; arguments of wrong types."""

import errno
import io
import json
import math
import os
import random
import re
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli
from purejaxrl_sac.experiment.devices import mesh, processes, resources
from purejaxrl_sac.experiment.errors import RunWarning, one_line
from purejaxrl_sac.experiment.pictures import compare
from purejaxrl_sac.experiment.runs import display, engine, files, metric_rows, plans, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.tuning import points, sweep_plan
from purejaxrl_sac.experiment.tuning.search import lanes
from scripts import fuzz
from tests.conftest import small


class Note(TypedDict):
    schema: int
    name: str
    rate: float
    scores: list[float | None] | None
    nested: dict[str, Any]


NOTE: dict[str, Any] = {
    "schema": 1, "name": "a", "rate": 1, "scores": [0.5, None], "nested": {"gamma": 0.99, "x": []},
}  # fmt: skip


def written(path, document):
    files.write_document(path, document)
    return path


def refusal(path, kind=Note):
    with pytest.raises(ConfigError) as error:
        files.read_document(path, kind, 1)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_a_document_is_what_was_written(tmp_path):
    assert files.read_document(written(tmp_path / "a.json", NOTE), Note, 1) == NOTE


def test_documents_have_no_numbers_that_json_has_not(tmp_path):
    numbers = {"nested": {"nan": np.nan, "inf": (math.inf, -math.inf)}}
    path = written(tmp_path / "a.json", {**NOTE, **numbers})
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found["nested"] == {"nan": None, "inf": ["inf", "-inf"]}
    assert files.read_document(path, Note, 1)["nested"] == found["nested"]
    assert list(map(files.from_json, found["nested"]["inf"])) == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x["nested"].update(gamma=0.89), "nested.gamma was changed after it was written"),
        (lambda x: x.update(rate=2), "rate was changed"),
        (lambda x: x.update(more=2), "more was changed"),
        (lambda x: x.pop("name"), "has no field name"),
        (lambda x: x["nested"].pop("gamma"), "has no field nested.gamma"),
        (lambda x: x.pop("checksums"), "has no checksums"),
        (lambda x: x["checksums"].update(name="00000000"), "name was changed"),
        (lambda x: x.update(schema=2), "was written by another version of purejaxrl_sac (unknown)"),
    ],
)
def test_a_changed_document_is_refused_and_the_field_named(change, message, tmp_path):
    path = written(tmp_path / "a.json", NOTE)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name is 3, but must be a text"),
        ({"rate": True}, "rate is True, but must be a number"),
        ({"rate": 10**30}, "rate is 1000000000000000000000000000000, but must be a number"),
        ({"scores": [0.5, "x"]}, "scores: 1 is 'x', but must be a number"),
        ({"scores": 3}, "scores is 3, but must be a list"),
        ({"nested": [1]}, "nested is [1], but must be an object"),
        ({"more": 1}, "has an unknown field more"),
    ],
)
def test_every_field_has_its_type(changes, message, tmp_path):
    assert message in refusal(written(tmp_path / "a.json", {**NOTE, **changes}))


@pytest.mark.parametrize("text", ("", "[1]", "null", "{", "[" * 100_000, "1" * 5_000, "\udcff"))
def test_what_is_no_json_object_is_damaged(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text, errors="surrogateescape")
    assert "cannot be read, it is damaged" in refusal(path)


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "nothing"):
        assert "is not a file" in refusal(tmp_path / name)
    with pytest.raises(ConfigError, match="File name too long"):
        files.exists(tmp_path / ("x" * 5_000))


def test_every_flipped_bit_of_a_document_is_refused_or_harmless(tmp_path):
    path = written(tmp_path / "a.json", NOTE)
    content, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        path.write_bytes(fuzz.flip(content, rng))
        try:
            assert files.read_document(path, Note, 1) == NOTE  # a space became another one
        except ConfigError:
            refused += 1
    assert refused > 250


def test_no_write_follows_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("a.json", "a.json.part", "b.png", "metrics.jsonl"):
        (run / name).symlink_to(outside)
    (run / "inside").symlink_to(run / "c")  # harmless, wandb makes such links
    files.write_text(run / "a.json", "new")
    assert outside.read_text() == "mine" and (run / "a.json").read_text() == "new"
    assert files.links_outside(run) == [run / "b.png", run / "metrics.jsonl"]
    refused = pytest.raises(ConfigError, match="is a link that leads out of the run: remove it")
    with refused, RunDirectory(run).locked():
        pass
    assert not (run / "lock").exists()


def test_a_run_that_did_not_start_removes_only_its_own_files(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    for name in ("config.json", "config.toml", "lock", "events.out.tfevents.1.host.2.0"):
        (run.path / name).touch()
    (run.path / "checkpoints" / "5").mkdir(parents=True)
    (run.path / "notes.txt").write_text("mine")
    run.remove_if_unused()
    assert [x.name for x in run.path.iterdir()] == ["notes.txt"]
    (run.path / "notes.txt").unlink()
    run.remove_if_unused()
    assert not run.path.exists()


def test_seeds_with_nan_returns_are_named():
    failed = np.array([True, False, False])
    row = display.not_finite(np.array([np.nan, np.nan, 1.0]), failed)
    assert row == {"nan or infinite return, left out of those below": "seed 1"}
    assert display.not_finite(np.array([np.nan, 2.0, 1.0]), failed) == {}


@pytest.mark.parametrize("name", ["checkpoints", "best", "lock"])
def test_a_file_in_place_of_a_directory_is_named_before_training(name, tmp_path):
    path = tmp_path / name
    path.mkdir() if name == "lock" else path.write_text("")
    refused = pytest.raises(ConfigError, match=rf"{name} is (not )?a directory: move it away")
    with refused, RunDirectory(tmp_path).locked():
        pass


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────


def progress(steps, returns):
    return plans.Progress(
        steps=steps, total_steps=9, seconds=1.5, rate=1.0, episodes=np.ones(2, int),
        episode_return=np.array(returns, np.float32), episode_length=np.ones(2, np.float32),
        latest_return=np.zeros(2), metrics={}, evaluation={}, failed_step=np.array([-1, 2**33]),
    )  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    """A run directory with rows at four steps beyond an int32."""
    directory = RunDirectory.create(tmp_path / "run")
    steps = [2**32 + i for i in range(4)]
    for after, now in zip([0, *steps], steps, strict=False):
        metric_rows.append(directory.metrics, progress(now, [1.0, 2.0]), after)
    return directory, steps


def test_damaged_rows_are_left_out_and_named(rows):
    directory, steps = rows
    whole = directory.metrics.read_text()
    lines = whole.splitlines(keepends=True)

    def lost(*kept):
        directory.metrics.write_text("".join(kept))
        return directory.read_metrics(2, steps[-1]).lost

    first, second, third, last = lines
    assert lost(*lines) == [] and len(directory.read_metrics(2, steps[1]).rows) == 2
    assert lost(first, second.replace("1.0", "7.0"), third, last) == [(steps[0], steps[1])]
    assert lost(first, second[:9] + "\n", third, last) == [(steps[0], steps[1])]
    assert lost(second, last) == [(0, steps[0]), (steps[1], steps[2])]
    assert lost(first, first, second, first, third, last) == []  # repeated lines
    assert lost(first, second, third, last[:-1]) == [(steps[2], steps[3])]  # incomplete
    assert lost() == [(0, steps[3])]
    directory.metrics.unlink()
    assert directory.read_metrics(2, steps[3]).lost == [(0, steps[3])]
    assert directory.read_metrics(2).lost == []  # there is no checkpoint
    directory.metrics.write_text(whole)
    assert directory.read_metrics(3).rows == []  # rows of another number of seeds
    directory.metrics.write_text(first + "nonsense\n" + third + last)
    metric_rows.truncate(directory.metrics, 2, steps[2])
    assert directory.metrics.read_text() == first + third
    assert "4,294,967,296 to 4,294,967,297" in directory.read_metrics(2).warning


def test_steps_beyond_an_int32_are_resumed(rows):
    directory, steps = rows
    sizes = {"num_envs": 16, "rollout_length": 1, "num_updates": 1, "warmup_steps": 16}
    plan = plans.plan(small("dqn", total_steps=2**34, **sizes), 2)

    def newest():
        return metric_rows.history(directory.read_metrics(2, steps[-1]).rows, plan, steps[-1])[-1]

    last = newest()
    assert last.steps == steps[-1] and last.failed_step.tolist() == [-1, 2**33]
    directory.metrics.unlink()
    last = newest()
    assert last.steps == steps[-1] and last.seconds == 0 and np.isnan(last.latest_return).all()


# ── settings ────────────────────────────────────────────────────────────────────────────────────


def test_settings_that_decide_numbers_are_recorded(monkeypatch):
    before = record.settings()
    assert json.loads(json.dumps(before)) == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/x --xla_cpu_enable_fast_math=true")
    with jax.default_matmul_precision("float32"), jax.threefry_partitionable(False):
        found = record.settings()
    different = record.differences(before, found)
    assert len(different) == 3 and "jax_threefry_partitionable True (here False)" in different
    assert "jax_default_matmul_precision unset (here float32)" in different
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert record.differences({"optax": "1"}, {"optax": "1", "jax": "2"}) == ["jax unset (here 2)"]


# ── what is shown ───────────────────────────────────────────────────────────────────────────────

HOSTILE = "a\x1b[31mb\n[/]\u202ec\udc80$x_{$"


def test_a_log_file_has_a_line_each_minute_and_each_tenth():
    file, times = io.StringIO(), iter([0, 10, 60, 70, 100, 130, 140, 150, 160])
    reporter = display.ConsoleReporter(Console(file=file, width=200), lambda: next(times))
    reporter.config = small("dqn")
    reporter.on_compiled(10.0)  # at 10 seconds
    for steps in (1, 2, 3, 4, 20, 21, 1000):  # of 1000, at 60, 70, 100, ... seconds
        found = progress(steps, [1.0, 2.0])
        reporter.on_chunk(found._replace(total_steps=1000, failed_step=np.full(2, -1)))
    assert re.findall(r"step ([\d,]+)", file.getvalue()) == ["2", "4", "1,000"]


def test_hostile_text_does_not_reach_the_terminal(capsys):
    assert one_line(HOSTILE) == "a\\x1b[31mb\\n[/]\\u202ec\\udc80$x_{$"
    reporter = display.ConsoleReporter(display.Console(width=200))
    reporter.message(HOSTILE)
    reporter.warning(HOSTILE)
    display.Console(width=200).print(display.table(HOSTILE, {HOSTILE: HOSTILE}))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and shown.count(one_line(HOSTILE)) == 5
    assert cli.main([HOSTILE]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"purejaxrl-sac: no command is called {one_line(HOSTILE)}")
    (label,) = compare.labels([RunDirectory(f"x/{HOSTILE}").path])
    assert label == "]" + r"\u202ec\udc80\$x_{\$"  # no formula


def test_quiet_output_has_warnings(capsys):
    reporter = display.SummaryReporter(display.Console(width=200))
    reporter.message("resuming")
    reporter.warning("the checkpoint of step 3 is damaged")
    assert capsys.readouterr().out == "the checkpoint of step 3 is damaged\n"


@pytest.mark.parametrize("stdout", [None, object()])
def test_a_standard_output_that_is_no_file_is_no_terminal(stdout, monkeypatch):
    monkeypatch.setattr(display.sys, "stdout", stdout)
    assert not isinstance(display.default_reporter(), display.ConsoleReporter)


def test_a_warning_is_one_line_of_the_command(monkeypatch, capsys):
    def warn(*_):
        cli.warnings.warn(RunWarning("the newest checkpoint\nis damaged"), stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "info", warn)
    with cli.warnings.catch_warnings():
        cli.warnings.simplefilter("always")
        assert cli.main(["info"]) == 0
    assert capsys.readouterr().err == "purejaxrl-sac: the newest checkpoint\\nis damaged\n"


def test_output_to_a_full_device_is_one_line(monkeypatch, capsys):
    class Full:
        def write(self, text):
            pass

        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", Full())
    assert cli.main(["--version"]) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err == "purejaxrl-sac: No space left on device\n"


def test_output_of_another_encoding_shows_what_it_lacks_as_escapes(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setitem(cli.COMMANDS, "info", lambda *_: print("runs/é"))
    assert cli.main(["info"]) == 0
    assert output.buffer.getvalue() == b"runs/\\xe9\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "../x"], "name is '../x', but must be a name below runs/"),
        (["--name", "/abs"], "name is '/abs', but must be a name below runs/"),
        (["--name", ""], "name is '', but must be a name below runs/"),
        (["--out", "x" * 5_000], "cannot create .*: File name too long"),
        (["--checkpoint-minutes", "nan"], "checkpoint_minutes is nan, but must be a number"),
        (["--checkpoint-minutes", "-1"], "checkpoint_minutes is -1.0, but must be zero or more"),
        (["--keep", "0"], "keep is 0, but must be at least 1"),
        (["--episodes", "10000000000"], "the run needs .* evaluation .* lower episodes"),
        (["--seeds", "1000000000000"], "the run needs .* are free: lower"),
        (["--eval-every=100", "--eval-episodes=9999999999"], "the run needs .* lower episodes"),
        (["--cpu-devices", "1000000"], "cpu_devices is 1000000, but must be between 1 and 1024"),
    ],
)
def test_hostile_arguments_are_refused(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "compile_run", lambda *_: pytest.fail("compiled"))
    assert cli.main(["train", "q_learning", "--env=chain", *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(message, err)
    assert not list(tmp_path.iterdir())


def test_sweeps_and_processes_check_their_counts():
    with pytest.raises(ConfigError, match="points is 1000000000, but must be between 1 and 100000"):
        points.sobol(10**9, 2)
    with pytest.raises(ConfigError, match="points is 1000000, but must be between"):
        points.grid(a=range(1_000), b=range(1_000))
    with pytest.raises(ConfigError, match="join_timeout is 10000000000, but must be between"):
        processes.join(timeout=10**10)
    with pytest.raises(ConfigError, match="fresh_seeds is -1, but must be zero or more"):
        sweep_plan.plan(small("dqn"), [{"gamma": 0.9}], fresh_seeds=-1)


def test_an_evaluation_is_checked_before_it_is_compiled():
    plan = plans.plan(small("dqn"), 2)
    over = mesh.mesh_for(2, 1)
    resources.check_evaluation(plan, over, 1_000)
    with pytest.raises(ConfigError, match=r"the evaluation needs .*evaluation .* lower episodes"):
        resources.check_evaluation(plan, over, 10**10)
    program = engine.Program(jax.jit(lambda x: x + 1), (jnp.ones(3),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "available", lambda: 1)
        with pytest.raises(ConfigError, match="program needs 24 B at its peak, but 1 B are free"):
            resources.compile_evaluation(program, over)


# ── arguments in Python ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "seed is 1.5, but must be a whole number"),
        ({"seeds": True}, "seeds is True, but must be a whole number"),
        ({"episodes": 0}, "episodes is 0, but must be at least 1"),
        ({"chunks": "5"}, "chunks is '5', but must be a whole number"),
        ({"variants": {"learning_rate": []}}, "variants: learning_rate is .*, but must be a list"),
        ({"variants": {"learning_rate": 3}}, "variants: learning_rate is 3, but must be a list"),
        ({"variants": {"num_envs": [1]}}, "no traced field is called num_envs"),
        ({"variants": {"tau": [1.0], "gamma": [0.5, 1.0]}}, "lists of different lengths"),
        ({"variants": {"tau": [1.0, "x"]}}, "tau is 'x', but must be a number"),
        ({"variants": 3}, "variants is 3, but must be a dict of lists"),
    ],
)
def test_wrong_arguments_of_a_run_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plans.plan(small("dqn"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": "8"}, "seeds is '8', but must be a whole number"),
        ({"devices": "2"}, "devices is '2', but must be a whole number"),
        ({"devices": 1.5}, "devices is 1.5, but must be a whole number"),
        ({"measure": [len]}, "measure is .*, but must be a dict of functions"),
        ({"loggers": len}, "loggers is .*, but must be a list of factories"),
    ],
)
def test_arguments_of_a_run_in_python_have_their_types(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh, "is_initialized", lambda: False)
    monkeypatch.setattr(mesh, "use_cpu_devices", lambda count: None)
    with pytest.raises(ConfigError, match=message):
        prl.experiment.run(small("dqn"), out=tmp_path / "run", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_run_without_compilation_is_refused(tmp_path):
    with jax.disable_jit(), pytest.raises(ConfigError, match="jax_disable_jit is set: unset it"):
        prl.experiment.run(small("dqn"), out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_integers_of_numpy_and_jax_are_integers():
    config = small("dqn", num_envs=np.int64(3), batch_size=jnp.int32(8), hidden_sizes=[8])
    assert config == small("dqn") and hash(config.batch_size) and type(config.num_envs) is int
    plan = plans.plan(config, np.int64(2), seed=jnp.uint32(3), variants={"tau": np.array([0.5, 1])})
    assert json.loads(json.dumps(plan[1:])) == [2, 3, plan.chunk, 128, 0, 32, {"tau": [0.5, 1.0]}]


def test_an_array_in_a_static_field_does_not_spoil_later_configurations():
    for name in ("hidden_sizes", "num_envs", "activation", "env"):
        with pytest.raises(ConfigError, match=f"{name} is an array, but must be a Python value"):
            small("dqn").replace(**{name: np.zeros(2)})
    with pytest.raises(ConfigError, match="env_params is 3, but must be an EnvParams"):
        prl.build(small("dqn", env_params=3))
    jax.eval_shape(prl.make_train(small("dqn")), jax.random.key(0))


def test_an_evaluation_needs_an_episode():
    with pytest.raises(ConfigError, match="episodes is 0, but must be at least 1"):
        prl.evaluate(jax.random.key(0), small("dqn"), prl.TrainState(*[None] * 5), 0)


def test_json_without_a_field_or_with_another_is_refused():
    data = record.config_to_dict(small("dqn", max_grad_norm=None))
    assert record.config_from_dict(data).max_grad_norm is None
    for changes, message in (
        ({"gama": 1}, "no field of the configuration is called gama: did you mean gamma"),
        ({"gamma": "x"}, "gamma is 'x', but must be a number"),
        ({"num_envs": 2.5}, "num_envs is 2.5, but must be a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            record.config_from_dict({**data, **changes})
    del data["gamma"]
    with pytest.raises(ConfigError, match="the configuration has no field gamma"):
        record.config_from_dict(data)


@pytest.mark.parametrize("algorithm", ("recurrent_pqn", "recurrent_sac", "dqn"))
def test_fields_that_earlier_versions_did_not_write_have_the_values_of_their_runs(algorithm):
    config = small(algorithm)
    config = config.replace(**{x: y for x, y in record.ADDED.items() if hasattr(config, x)})
    written = record.config_to_dict(config)
    assert [x for x in record.ADDED if x in written] == {
        "recurrent_pqn": ["encoder_layers"],
        "recurrent_sac": ["encoder_layers", "start_carry"],
        "dqn": [],
    }[algorithm]
    earlier = {name: value for name, value in written.items() if name not in record.ADDED}
    assert record.config_from_dict(earlier) == config
    record.check_equal(config, earlier, Path("run"))
    if "encoder_layers" in written:
        other = config.replace(encoder_layers=0)
        with pytest.raises(ConfigError, match="encoder_layers is 0, but was 1"):
            record.check_equal(other, earlier, Path("run"))


# ── diverged seeds ──────────────────────────────────────────────────────────────────────────────


def test_a_diverged_point_is_never_the_best():
    nan = math.nan
    assert lanes.highest(np.array([nan, 1.0, math.inf, 3.0, -math.inf])) == 3
    assert lanes.highest(np.array([nan, -math.inf])) is None


def test_reported_means_leave_diverged_seeds_out():
    last = progress(8, [5.0, 100.0])
    assert display.means(last)["episode_return"] == 5.0  # seed 1 has diverged


def printed(reporter):
    return " ".join(reporter.console.file.getvalue().split())


def console_reporter():
    reporter = display.ConsoleReporter(Console(width=80, file=io.StringIO()))
    reporter.config = small("dqn")
    return reporter


def test_intervals_are_equal_during_training_and_after_it():
    """Those of 500 and of 2,000 resamples differ."""
    rng = np.random.default_rng(0)
    scores = {"latest_return": rng.normal(-100, 80, 9), "failed_step": np.full(9, -1)}
    greedy = {"greedy_return": rng.normal(-100, 80, 9)}
    last = progress(9, np.zeros(9))._replace(**scores, evaluation=greedy)
    reporter = console_reporter()
    reporter.on_chunk(last)
    result = plans.Result(None, [last], greedy["greedy_return"][:, None], 1.0, 1.0)
    rows = display.summary(small("dqn"), result)
    shown = (rows[f"{name} return, IQM [95 % interval]"] for name in ("latest training", "greedy"))
    assert "return {}, greedy {}".format(*shown) in printed(reporter)


def test_progress_of_a_sweep_says_what_its_returns_are_of():
    reporter = console_reporter()
    plan = plans.plan(small("dqn"), seeds=1, variants={"gamma": [0.9, 0.99]})
    reporter.on_start(plan, "a sweep", "cpu")
    reporter.on_chunk(progress(9, [1.0, 2.0])._replace(failed_step=np.full(2, -1)))
    assert "0 s left, return of all points 0 [0, 0]" in printed(reporter)


def test_progress_before_an_episode_has_finished():
    reporter = console_reporter()
    reporter.on_chunk(progress(9, [0.0, 0.0])._replace(latest_return=np.full(2, np.nan)))
    assert "0 s left, no finished episode yet" in printed(reporter)


def test_the_time_left_of_a_resumed_run_is_that_at_its_present_rate():
    """50 s for 10 steps before it was stopped, and 5 s afterwards; then another run."""
    seconds_left, shown = display.SecondsLeft(), progress(9, [1.0, 2.0])
    chunks = [
        shown._replace(steps=steps, seconds=seconds, rate=2 * steps / seconds, total_steps=100)
        for steps, seconds in ((20, 100.0), (30, 105.0), (40, 110.0), (10, 2.0), (20, 3.0))
    ]
    assert [seconds_left(chunk) for chunk in chunks] == [400, 35, 30, 18, 8]


def test_the_path_of_a_run_is_printed_in_one_line(tmp_path):
    reporter, path = console_reporter(), tmp_path / ("x" * 90)
    reporter.on_finished("a run", {"figures": {"seeds": "2"}}, path)
    assert f"written to {path}\n" in reporter.console.file.getvalue()


def test_tables_show_long_paths_whole():
    console = Console(width=60, file=io.StringIO())
    console.print(display.table("a run", {"written to": f"runs/{'x' * 90}"}))
    assert console.file.getvalue().count("x") == 90
