"""Sweeps: points, batches, resumption, files and figures."""

import csv
import itertools
import json
import pickle
import shutil
import signal
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli, mdp
from purejaxrl_sac.cli.options import ResumeOptions
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import InsufficientMemoryError, RunWarning, StoppedError
from purejaxrl_sac.experiment.runs import engine, files, plans, record
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.tuning import (
    batches,
    points,
    sensitivity,
    sweep,
    sweep_plan,
    sweep_results,
)
from tests.conftest import small
from tests.test_runs import TINY, Recorder, rewrite

SHORT = {"seeds": 2, "chunks": 3, "episodes": 4}
RATES = points.grid(learning_rate=[0.1, 0.5, 0.9])
SELECTED = "its score on the seeds that selected it, IQM [95 % interval]"


def test_a_grid_has_every_combination_and_sobol_fills_the_range():
    assert points.grid(a=[1, 2], b=[3, 4])[1:3] == [{"a": 1, "b": 4}, {"a": 2, "b": 3}]
    scales = {"tau": points.log_uniform(1e-4, 1e-2), "gamma": points.uniform(0.9, 1.0)}
    found = points.sampled(points.sobol(16, 2, seed=3), **scales)
    tau = np.log10([point["tau"] for point in found])
    counts, _ = np.histogram(tau, 16, (-4, -2))
    assert counts.tolist() == [1] * 16  # a net: one sample in every sixteenth
    gamma, _ = np.histogram([point["gamma"] for point in found], 16, (0.9, 1.0))
    assert gamma.tolist() == [1] * 16
    assert points.random(4, 2, 1).tolist() == points.random(4, 2, 1).tolist()
    assert len(points.sobol(5, 3)) == 5
    with pytest.raises(ConfigError, match=r"shape \[5, 3\], but must be \[points, 2\]: a coordin"):
        points.sampled(points.sobol(5, 3), **scales)


def test_points_are_converted_and_grouped_by_program():
    config = small("dqn")
    texts = points.grid(num_envs=["3", "4"], target_period=["5", "1"], hidden_sizes=["8x8"])
    found = points.check_points(config, texts[::2] + texts[1::2])
    assert [point["num_envs"] for point in found] == [3, 3, 4, 4]
    assert found[0] == {"num_envs": 3, "target_period": 5, "hidden_sizes": (8, 8)}
    planned = sweep_plan.plan(config, found, seeds=2)
    assert list(planned.programs()) == [range(0, 2), range(2, 4)]
    assert (
        sweep_plan.compilation_note(planned)
        == "hidden_sizes and num_envs cannot vary within a program: 2 programs are compiled"
    )


class Penalised(prl.DQNConfig):
    penalty: float = prl.traced(1)
    mean: float = prl.traced(0.0)


def test_real_numbers_are_not_rounded_although_their_default_is_whole():
    given = points.grid(penalty=["0.25", 0.75, 2], gamma=["0.5"])
    found = points.check_points(Penalised(gamma=1), given)
    assert [(point["penalty"], point["gamma"]) for point in found] == [
        (0.25, 0.5),
        (0.75, 0.5),
        (2.0, 0.5),
    ]


def test_fields_with_the_name_of_a_column_are_refused():
    with pytest.raises(ConfigError, match="mean is a column of the results: give the field"):
        points.check_points(Penalised(), points.grid(mean=[0.5, 1.0]))


def test_samples_are_rounded_and_duplicates_are_reported():
    samples = points.sampled(points.sobol(16, 1), num_envs=points.uniform(0.6, 4.4))
    with pytest.warns(UserWarning, match="12 of 16 points repeat others: 4 are trained"):
        planned = sweep_plan.plan(small("dqn"), samples, seeds=2)
    assert {point["num_envs"] for point in planned.points} == {1, 2, 3, 4}


def test_fields_that_may_be_none_are_swept():
    config = small("sac")
    found = points.check_points(config, points.grid(actor_learning_rate=["1e-3", "None", 0.1]))
    assert [point["actor_learning_rate"] for point in found] == [1e-3, 0.1, None]
    planned = sweep_plan.plan(config, found)
    assert list(planned.programs()) == [range(0, 2), range(2, 3)]
    assert "actor_learning_rate cannot vary" in sweep_plan.compilation_note(planned)
    assert points.variants(config, found[:2]) == {"actor_learning_rate": [1e-3, 0.1]}
    assert points.variants(config, found[2:]) == {}
    assert sweep_plan.compilation_note(sweep_plan.plan(config, found[:2])) == ""
    with pytest.raises(ConfigError, match=r"is 'x', but takes values like 1\.0"):
        points.check_points(config, [{"actor_learning_rate": "x"}])


def test_lanes_of_a_field_that_is_none_train_as_alone(key):
    config = small("sac", total_steps=48)
    found = points.check_points(config, points.grid(actor_learning_rate=[1e-3, 0.1]))
    variants = points.variants(config, found)
    lanes, axes = plans.plan(points.at(config, found[0]), variants=variants).config_lanes(2)
    together, _ = jax.jit(jax.vmap(prl.train, (None, axes)))(key, lanes)
    alone, _ = jax.jit(prl.train)(key, points.at(config, found[1]))
    actors = (jax.tree.leaves(state.agent.actor.params) for state in (together, alone))
    for a, b in zip(*actors, strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6)
        assert not np.allclose(a[0], b, rtol=1e-2)


def test_an_infinite_limit_is_static_unless_it_is_swept():
    config = small("dqn")
    assert plans.plan(config, seeds=2).config_lanes(2)[0].max_grad_norm is None
    assert plans.plan(config.replace(max_grad_norm=0.5)).config_lanes(1)[0].max_grad_norm == 0.5
    plan = plans.plan(config, variants={"max_grad_norm": [0.1, float("inf")]})
    lanes, axes = plan.config_lanes(2)
    np.testing.assert_array_equal(lanes.max_grad_norm, [0.1, np.inf])
    assert axes.max_grad_norm == 0


def test_infinite_values_are_read_as_they_were(tmp_path):
    found = points.grid(max_grad_norm=[float("inf"), 1.0])
    planned = sweep_plan.plan(small("dqn"), found, seeds=1)
    path = tmp_path / "sweep"
    sweep_plan.create(path, planned)
    assert sweep_plan.read(path).points == found
    (batch,) = batches.divide(path, planned)
    plan = plans.plan(batch.config, variants=batch.variants, **batch.options)
    directory = RunDirectory.create(batch.path)
    directory.write_plan(plan, 1, mesh_for(2, 1), {})
    assert directory.read_plan().variants == plan.variants == {"max_grad_norm": [float("inf"), 1.0]}
    batches._check_same(batch)
    for name in (path / "sweep.json", batch.path / "config.json"):
        json.loads(name.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            {"learning_rat": 1.0},
            "is called learning_rat: did you mean learning_rate",
        ),
        ({"env": "chain"}, "env cannot be swept: run one sweep for each"),
        ({"seed": 1}, "seed is no hyperparameter: all points have the same seeds"),
        ({"gamma": "two"}, "gamma is 'two', but takes values like"),
        ({"hidden_sizes": 0.5}, "hidden_sizes is 0.5, but takes values like"),
        ({"activation": 0.5}, "activation is 0.5, but takes values like"),
        ({"num_envs": "2.5"}, r"num_envs is '2.5', but takes values like"),
        ({"num_envs": 2.5}, r"num_envs is 2.5, but takes values like"),
        ({"gamma": 2.0}, "gamma is 2.0, but must be between 0 and 1"),
    ],
)
def test_invalid_points_are_rejected_before_anything_is_written(point, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sweep.run(small("dqn"), [point], out=tmp_path / "sweep", **SHORT)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep in two batches, which no test may modify."""
    return sweep.run(
        TINY, RATES, out=tmp_path_factory.mktemp("sweep") / "whole", max_lanes=4, **SHORT
    )


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_writes_tables_figures_and_the_best_run(whole):
    table = read_csv(whole.path / "table.csv")
    assert [float(row["learning_rate"]) for row in table] == [0.1, 0.5, 0.9]
    assert [row["failed"] for row in table] == ["0"] * 3
    assert float(table[whole.best]["iqm"]) == max(float(row["iqm"]) for row in table)
    assert len((whole.path / "seeds.csv").read_text().splitlines()) == 1 + 6
    assert sorted(x.name for x in (whole.path / "batches").iterdir()) == [
        "00000-00001",
        "00002-00002",
    ]
    for rate, scores in zip((0.1, 0.5, 0.9), whole.scores, strict=True):
        plan = plans.plan(TINY.replace(learning_rate=rate), 2, chunks=3, episodes=4)
        alone = engine.train_seeds(plan, devices=1).evaluation.mean(1)
        np.testing.assert_allclose(scores, alone, rtol=1e-6)
    assert (whole.path / "sensitivity.png").stat().st_size > 10_000


def test_the_best_point_is_retrained_with_fresh_seeds(whole):
    best = prl.experiment.load(whole.path / "best")
    assert best.config.learning_rate == whole.sweep.points[whole.best]["learning_rate"]
    assert best.plan.seed != whole.sweep.seed and best.plan.seeds == 2
    np.testing.assert_array_equal(best.summary["greedy_returns"], whole.fresh.astype(np.float32))
    summary = json.loads((whole.path / "summary.json").read_text())
    assert summary["best_on_fresh_seeds"]["mean"] == pytest.approx(whole.fresh.mean())


def test_a_stopped_sweep_is_resumed_with_equal_results(whole, tmp_path):
    path = tmp_path / "sweep"
    reporter = Recorder(stop_after=2)  # in the first batch
    with pytest.raises(StoppedError, match=r"sweep stopped"):
        sweep.run(TINY, RATES, out=path, max_lanes=4, reporter=lambda: reporter, **SHORT)
    assert sweep_results.describe(path)["points"] == "0 of 3 trained"
    reporter.stop_after += 2  # in the second one
    with pytest.raises(StoppedError):
        sweep.resume(path, max_lanes=4, reporter=lambda: reporter)
    assert sweep_results.describe(path)["points"] == "2 of 3 trained"
    found = sweep.resume(path, max_lanes=2)
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_array_equal(found.fresh, whole.fresh)
    assert (path / "table.csv").read_text() == (whole.path / "table.csv").read_text()


def test_a_batch_that_is_not_the_sweep_s_is_refused(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    batch = path / "batches" / "00002-00002"
    with pytest.raises(ConfigError, match=r"00002-00002 is a batch of a sweep, .* start a sweep"):
        prl.experiment.resume(batch, steps=100_000)
    assert sweep.resume(path).best == whole.best
    shutil.rmtree(path / "best")
    other = next(i for i in range(3) if i != whole.best)
    batches.train_here([batches.fresh_batch(path, whole.sweep, other)])
    with pytest.raises(ConfigError, match=r"best is not what .* its learning_rate is .* move it"):
        sweep.resume(path)
    shutil.rmtree(path / "best")
    batches.train_here([batches.fresh_batch(path, whole.sweep._replace(seed=5), whole.best)])
    with pytest.raises(ConfigError, match=r"best is not what .* seed is 1000008, not 1000003"):
        sweep.resume(path)
    (batch / "summary.json").write_text("junk")
    with pytest.raises(ConfigError, match=r"or move .*00002-00002 away, and resume the sweep"):
        sweep.resume(path)


def test_what_is_shown_of_a_sweep(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    summary = path / "summary.json"
    rows = sweep_results.describe(path)
    assert rows["best"] == f"learning_rate {whole.sweep.points[whole.best]['learning_rate']}"
    iqm = json.loads(summary.read_text())["best_on_fresh_seeds"]["iqm"]
    assert rows["its score with fresh seeds"].startswith(f"{iqm:.4g} [")
    for text in ("junk", summary.read_text().replace('"iqm"', '"mean"'), "{}"):
        summary.write_text(text)
        assert "damaged: resume writes it again" in sweep_results.describe(path)["results"]
    assert sweep.resume(path).best == whole.best
    assert sweep_results.describe(path) == rows


def test_a_figure_that_fails_costs_a_sweep_nothing(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    (path / "summary.json").unlink()
    (path / "sensitivity.png").unlink()
    (path / "sensitivity.png" / "x").mkdir(parents=True)
    with pytest.warns(RunWarning, match="figures of the scores were not drawn: .*directory"):
        sweep_results.write(whole._replace(path=path))
    assert sweep_results.describe(path)["status"] == "finished"


def test_diverged_seeds_are_counted(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    scores, fresh = whole.scores.copy(), np.full(2, np.nan)
    scores[whole.best, 1] = np.nan
    result = whole._replace(path=path, scores=scores, diverged=np.isnan(scores), fresh=fresh)
    result = result._replace(fresh_diverged=np.array([True, True]))
    sweep_results.write(result)
    for rows in (sweep_results.summary_rows(result), sweep_results.describe(path)):
        assert rows[SELECTED].endswith("(1 of 2 seeds diverged)")
        assert rows["its score with fresh seeds"] == "every seed diverged"


def test_a_single_score_has_no_interval(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    one = whole._replace(path=path, scores=whole.scores[:, :1], diverged=whole.diverged[:, :1])
    sweep_results.write(one)
    found = json.loads((path / "summary.json").read_text())["best"]
    assert found["low"] is found["high"] is None and found["mean"] == found["iqm"]
    for rows in (sweep_results.summary_rows(one), sweep_results.describe(path)):
        assert rows[SELECTED] == f"{found['iqm']:.4g}"
    table = read_csv(path / "table.csv")
    assert {(row["low"], row["high"]) for row in table} == {("nan", "nan")}


def test_seeds_without_a_finished_episode_have_not_diverged(whole):
    result = whole._replace(scores=np.full((3, 2), np.nan), best=None, fresh=None)
    assert [row["failed"] for row in result.table()] == [0, 0, 0]
    assert sweep_results.summary_rows(result)["best"] == "no finished episode"
    rows = sweep_results.summary_rows(whole._replace(fresh=np.full(2, np.nan)))
    assert rows["its score with fresh seeds"] == "no finished episode"
    result = result._replace(diverged=np.ones((3, 2), bool))
    assert sweep_results.summary_rows(result)["best"] == "every seed of every point diverged"


def test_devices_are_set_up_before_a_sweep_is_read(whole, capsys, monkeypatch):
    def stop(options, lanes):
        raise ConfigError(f"{lanes} lanes")

    monkeypatch.setattr(ResumeOptions, "set_up_devices", stop)
    monkeypatch.setattr(sweep_plan, "read", None)
    assert cli.main(["resume", str(whole.path)]) == 2
    assert capsys.readouterr().err == "purejaxrl-sac: 6 lanes\n"


def test_a_batch_that_was_moved_away_is_none(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    (path / "batches" / "00000-00001").rename(path / "batches" / "00000-00001.old")
    assert batches.existing(path) == [range(2, 3)]
    assert sweep_results.describe(path)["points"] == "1 of 3 trained"


def test_what_remains_is_trained_under_the_same_versions_and_settings(whole, tmp_path, monkeypatch):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    versions, settings = record.versions() | {"x": 1}, record.settings() | {"y": 2}
    monkeypatch.setattr(record, "versions", lambda: versions)
    monkeypatch.setattr(record, "settings", lambda: settings)
    assert sweep.resume(path).best == whole.best  # nothing remains
    shutil.rmtree(path / "batches" / "00002-00002")
    other = r"sweep was created with x unset \(here 1\), y unset \(here 2\)"
    with pytest.raises(ConfigError, match=f"{other}: restore them, or add --any-version"):
        sweep.resume(path)
    rewrite(path / "batches" / "00000-00001", device="9 x tpu")
    monkeypatch.setattr(batches, "train_batch", lambda *_, **__: None)
    with pytest.warns(UserWarning, match=rf"{other}, 9 x tpu \(here 2 x cpu\): numbers may differ"):
        sweep.resume(path, any_version=True)


def test_greedy_returns_are_not_compared_with_training_returns(whole, tmp_path, monkeypatch):
    path = shutil.copytree(whole.path, tmp_path / "sweep")
    batch = RunDirectory(path / "batches" / "00000-00001")
    batch.write_summary({**batch.read_summary(), "greedy_returns": None})
    with pytest.raises(ConfigError, match=r"00000-00001 has no greedy returns.* move .*away"):
        sweep.resume(path)
    with monkeypatch.context() as patch:
        patch.setattr(sweep_results, "has_time_limit", lambda _: False)
        assert sweep_results.lane_scores(batch.path, TINY)[0].shape == (4,)
    batch.summary.rename(batch.path / "old.json")  # as the message says
    np.testing.assert_array_equal(sweep.resume(path).scores, whole.scores)


def test_a_batch_names_what_its_configuration_leaves_out(whole):
    text = (whole.path / "batches" / "00000-00001" / "config.toml").read_text()
    assert "(several values of learning_rate: here the first)" in text.splitlines()[0]
    assert "several" not in (whole.path / "best" / "config.toml").read_text()


def test_what_a_sweep_is_not(whole, tmp_path, capsys):
    batch = str(whole.path / "batches" / "00000-00001")
    assert cli.main(["eval", batch]) == 2
    assert "several configurations (of learning_rate)" in capsys.readouterr().err
    assert cli.main(["train", "--config", str(whole.path), "--out", str(tmp_path / "run")]) == 2
    assert f"is a sweep, whose best run is {whole.path / 'best'}" in capsys.readouterr().err


def test_batches_fit_into_memory(tmp_path, monkeypatch):
    config = small("dqn")
    planned = sweep_plan.plan(config, points.grid(tau=list(np.linspace(0.1, 1, 10))), seeds=2)
    plan = plans.plan(config, 2)
    one = sum(resources.state_bytes(plan, engine.mesh_for(2)).values())
    monkeypatch.setattr(resources, "available", lambda: int(4.1 * one / resources.SWEEP_FRACTION))
    sizes = [len(batch.variants["tau"]) for batch in batches.divide(tmp_path, planned)]
    assert sizes == [4, 3, 3] or sizes == [4, 4, 2]
    (tmp_path / "batches" / "00002-00004").mkdir(parents=True)  # written on another machine
    found = [batch.variants["tau"] for batch in batches.divide(tmp_path, planned)]
    assert [len(taus) for taus in found] == [2, 3, 3, 2]
    assert list(itertools.chain(*found)) == [point["tau"] for point in planned.points]
    monkeypatch.setattr(resources, "available", lambda: one - 1)
    with pytest.raises(ConfigError, match="are free: lower"):
        batches.divide(tmp_path, planned)


def test_batches_are_halved_if_programs_need_more_memory_than_states(whole, tmp_path, monkeypatch):
    tried = []

    def check(programs, held=0):
        tried.append(programs)
        if len(tried) == 1:
            raise InsufficientMemoryError("too many")

    monkeypatch.setattr(resources, "check_programs", check)
    found = sweep.run(TINY, RATES[:2], out=tmp_path / "sweep", fresh_seeds=0, **SHORT)
    names = sorted(x.name for x in (tmp_path / "sweep" / "batches").iterdir())
    assert names == ["00000-00000", "00001-00001"] and len(tried) == 3
    np.testing.assert_array_equal(found.scores, whole.scores[:2])


def test_a_configuration_that_json_cannot_restore_is_passed_on():
    """An environment object is written as its name, which another environment may have."""
    config = TINY.replace(env=Tabular(mdp.chain(4), "chain", max_steps=100))
    assert batches._custom_config(config) is config and batches._custom_config(TINY) is None


def test_a_stop_can_be_pickled():
    stop = pickle.loads(pickle.dumps(StoppedError(Path("run"), 1200, signal.SIGTERM)))
    assert str(stop) == "run stopped at step 1,200 by SIGTERM"


def test_the_best_point_is_one_with_the_fewest_diverged_seeds():
    nan = np.nan
    assert sweep_results.best_point(np.array([[1.0, 2], [9, nan], [3, 4]])) == 2
    assert sweep_results.best_point(np.array([[nan, nan], [1, nan]])) == 1
    assert sweep_results.best_point(np.full((2, 2), nan)) is None
    statistics = sweep_results.score_statistics(np.array([1.0, nan, 3]), np.array([0, 1, 0]))
    assert statistics["failed"] == 1 and statistics["mean"] == 2 and statistics["worst"] == 1


def test_the_command_line_sweeps_static_and_traced_fields(tmp_path, capsys):
    flags = ["--env=chain", "--steps=240", "--seeds=2", "--episodes=4", "--chunks=2"]
    swept = ["--grid", "num-envs=3,4", "learning-rate=0.1,0.9", "--fresh-seeds=0"]
    out = ["--out", str(tmp_path / "sweep")]
    assert cli.main(["sweep", "q_learning", *flags, *swept, *out]) == 0
    printed = capsys.readouterr().out
    assert (
        "num_envs cannot vary within a program: 2 programs are compiled" in printed
        and "best" in printed
    )
    assert (tmp_path / "sweep" / "heatmap.png").exists()
    assert cli.main(["info", str(tmp_path / "sweep")]) == 0
    described = capsys.readouterr().out
    assert "4 of 4 trained" in described and "its score on the seeds" in described
    assert (
        cli.main(["resume", str(tmp_path / "sweep"), "--json"]) == 0
    )  # nothing remains to be trained
    assert json.loads(capsys.readouterr().out)["figures"]["points x seeds"] == "4 x 2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a sweep needs --grid"),
        (["--grid", "gamma"], "--grid takes NAME=VALUE,VALUE, not 'gamma'"),
        (["--range", "gamma=0.9"], "--range takes gamma=LOW:HIGH"),
        (
            ["--range", "gamma=0:1"],
            "gamma: 0 has no logarithm: start above zero, or append :linear",
        ),
        (["--range", "gamma=1:0.5:linear"], "gamma: a range goes from low to high"),
        (
            ["--range", "gamma=0.5:1.5"],
            "gamma=0.5:1.5 ends at 1.5, but must be between 0 and 1",
        ),
        (
            ["--range", "learning_rate=-1:1:linear"],
            "learning_rate=-1:1:linear starts at -1, but must be between 0 and 1",
        ),
        (["--range", "gamma=0.5:1:log"], "gamma=LOW:HIGH:linear, not gamma=0.5:1:log"),
        (["--range", "gamma=0.5:1", "--grid", "gamma=1"], "gamma is in --grid and in --range"),
        (["--range", "gamma=0.5:1", "--seed=-1"], "seed is -1, but must be between 0 and"),
        (["--grid", "gamma=0.9", "--points=4"], "--points is for --range, which is not given"),
        (["--grid", "gamma=0.9", "--sample=random"], "--sample is for --range"),
        (["--grid", "gama=0.9"], "did you mean gamma?"),
        (["--grid", "gamma=0.9,0.8,0.9"], "gamma has the value 0.9 twice: give each value once"),
        (["--grid", "gamma=0.9", "gamma=0.8"], "gamma is twice in --grid"),
        (["--grid", "initial-value=1", "initial_value=2"], "initial_value is twice in --grid"),
        (["--grid", "gamma=0.9", "--grid", "omega=0.5"], "--grid is given twice"),
        (["--grid", "gamma=0.9", "--lanes=7"], "lanes is 7, but a point takes 8"),
        (["--grid", "gamma=0.9", "--devices=9"], "devices is 9, but must be between 1 and 2"),
    ],
)
def test_invalid_sweeps_print_one_line(flags, message, tmp_path, capsys):
    out = ["--env=chain", "--out", str(tmp_path / "sweep")]
    assert cli.main(["sweep", "q_learning", *out, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_point_lies_within_its_panel():
    """Including an outlier, and values that several points share."""
    scores = np.array([[-1700.0, -1690], [-1690, -1710], [-850, -840], [-219, -168]])
    for values in ([1e-4, 1e-4, 1e-3, 1e-3], [0.9, 0.9, 0.95, 0.95], ["a", "a", "b", "b"]):
        axes = Figure().subplots()
        found = [{"field": x, "other": i % 2} for i, x in enumerate(values)]
        sensitivity.draw_sensitivity(axes, "field", found, scores, 3)
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == [str(x) for x in dict.fromkeys(values)]
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert len(dots) == 5  # the best is also circled
        assert all(left <= line.get_xdata()[0] <= right for line in dots)
        assert all(low <= line.get_ydata()[0] <= high for line in dots)
        assert len({line.get_xdata()[0] for line in dots}) == 4


@pytest.mark.parametrize("log", (False, True))
def test_points_that_share_a_value_are_moved_apart_symmetrically(log):
    """On a logarithmic axis by equal ratios, and without reaching the next value's points."""
    x = np.array([0.01, 0.1, 1.0, 0.1, 0.01, 0.1, 0.5])
    position = np.log if log else np.asarray
    moved = position(sensitivity.dodged(x, log))
    for value in set(x):
        places = moved[x == value]
        assert places.mean() == pytest.approx(position(value))
        np.testing.assert_allclose(np.diff(places), np.diff(places)[:1].repeat(len(places) - 1))
        assert (np.diff(places) > 0).all()
    assert (np.diff(np.sort(moved)) > 0.02 * np.ptp(position(x))).all()
    assert moved[x == 1] == position(1)


def test_the_points_of_one_value_are_moved_apart():
    np.testing.assert_allclose(sensitivity.dodged(np.ones(3), False), [0.97, 1, 1.03])


def test_only_points_that_differ_in_nothing_else_are_pooled():
    assert sensitivity.crossed("a", points.grid(a=[1, 2], b=[3, 4]))
    assert not sensitivity.crossed("a", points.grid(a=[1, 2, 3]))  # nothing to pool
    cube = points.sobol(4, 1)
    mixed = [{"a": x["a"], "b": b} for b in (0, 1) for x in points.sampled(cube, a=lambda u: u)]
    assert sensitivity.crossed("a", mixed) and sensitivity.crossed("b", mixed)
    pairs = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert not sensitivity.crossed("a", pairs)


def drawn(found, scores, *arguments):
    sensitivity.write_figures(found, scores, *arguments, diverged=np.isnan(scores))


def test_points_without_diverged_seeds_are_hollow_and_not_pooled(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(files, "write_figure", lambda path, figure: saved.append(figure))
    found = points.grid(tau=[0.1, 0.2, 0.3], gamma=[0.9, 0.99])
    scores = np.arange(48.0).reshape(6, 8)
    scores[4, :7], scores[5] = np.nan, np.nan
    drawn(found, scores, 3, tmp_path, "sac on Pendulum-v1")
    axes = saved[0].axes[0]
    dots = [line for line in axes.get_lines() if line.get_markersize() == 4]
    assert [line.get_markerfacecolor() for line in dots] == ["#0072B2"] * 4 + ["white"]
    (pooled,) = [line for line in axes.get_lines() if line.get_label() == "pooled by value"]
    assert pooled.get_xdata().tolist() == [0.1, 0.2]
    note = "hollow or missing: without diverged seeds"
    titles = [figure.get_suptitle().replace("\n", " ") for figure in saved]
    assert titles[0].endswith(f"intervals; {note}; 1 seed: no interval")
    assert titles[1] == f"sac on Pendulum-v1 (framed: the best point; {note})"
    assert len(saved[1].axes[0].patches) == 3  # of two hollow cells, and the best point
    sensitivity.write_figures(found, scores, 3, tmp_path, "", diverged=np.zeros((6, 8), bool))
    assert "without seeds that have no final score" in saved[2].get_suptitle().replace("\n", " ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(found, scores, 5, tmp_path, "")  # the best point has no value of a measure
    assert "best final score" not in [line.get_label() for line in saved[4].axes[0].get_lines()]


def test_sensitivity_says_what_intervals_of_few_seeds_mean(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(files, "write_figure", lambda path, figure: saved.append(figure))
    found = points.grid(tau=[0.1, 0.2])
    for seeds in (4, 8):
        scores = np.arange(2.0 * seeds).reshape(2, seeds)
        drawn(found, scores, None, tmp_path, "sac on Pendulum-v1")
    titles = [figure.get_suptitle().replace("\n", " ") for figure in saved]
    usual = "sac on Pendulum-v1: IQM, 95 % bootstrap intervals"
    assert titles == [f"{usual}; intervals of 4 seeds: about their range", usual]
    assert saved[0].axes[0].get_ylabel() == "final score"


def test_figures_of_categories_samples_and_missing_scores(tmp_path):
    rng = np.random.default_rng(0)
    cube = rng.random((20, 2))
    scales = {"tau": points.log_uniform(1e-4, 1e-1), "gamma": points.uniform(0.9, 1)}
    found = points.sampled(cube, **scales)
    drawn(found, rng.normal(size=(20, 4)), 3, tmp_path, "sac")
    assert {x.name for x in tmp_path.iterdir()} == {"sensitivity.png", "heatmap.png"}
    categories = points.grid(
        activation=["relu", "tanh"], hidden_sizes=[(8, 8), (16,)], tau=[0.1, 1.0]
    )
    drawn(categories, rng.normal(size=(8, 4)), None, tmp_path, "sac")
    one = tmp_path / "one"
    one.mkdir()
    drawn(found[:1], np.ones((1, 2)), 0, one, "dqn")
    drawn(found, np.full((20, 2), np.nan), None, one, "dqn")
    assert not list(one.iterdir())


def visited(state):
    return (state.agent.q != 0).sum()


def time_and_rate(state):
    return state.step * 1.0


MEASURES = {"visited": visited, "time": time_and_rate}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A finished sweep with measures, which no test may modify."""
    path = tmp_path_factory.mktemp("sweep") / "measured"
    return sweep.run(TINY, RATES, out=path, max_lanes=4, measure=MEASURES, **SHORT)


def test_a_sweep_measures_every_point(measured, whole):
    np.testing.assert_array_equal(measured.scores, whole.scores)
    path = measured.path
    for name in ("00000-00001", "00002-00002"):
        run = prl.experiment.load(path / "batches" / name)
        expected = [[float(visited(run.seed_state(i)))] for i in range(run.plan.lanes)]
        np.testing.assert_array_equal(run.metrics["visited"][-1:].T, expected)
        steps = run.metrics["steps"] / TINY.num_envs
        np.testing.assert_array_equal(run.metrics["time"].T, [steps] * run.plan.lanes)
        first = int(name[:5])
        found = measured.measures["visited"][first : first + run.plan.lanes // 2]
        np.testing.assert_array_equal(found.ravel(), run.metrics["visited"][-1])
    rows = read_csv(path / "seeds.csv")
    assert [float(row["visited"]) for row in rows] == measured.measures["visited"].ravel().tolist()
    for i, row in enumerate(read_csv(path / "table.csv")):
        values = measured.measures["visited"][i]
        expected = sweep_results.score_statistics(values, np.zeros(len(values)))
        assert [float(row[f"visited_{x}"]) for x in ("iqm", "low", "high")] == [
            expected[x] for x in ("iqm", "low", "high")
        ]
    for name in ("sensitivity.png", "sensitivity-visited.png", "sensitivity-time.png"):
        assert (path / name).stat().st_size > 10_000
    assert "visited" in prl.experiment.load(path / "best").metrics
    assert set(json.loads((path / "sweep.json").read_text())["measures"]) == {"visited", "time"}


def test_a_stopped_sweep_measures_again(measured, tmp_path):
    path = tmp_path / "sweep"
    reporter = Recorder(stop_after=2)
    options = {"max_lanes": 4, "reporter": lambda: reporter}
    with pytest.raises(StoppedError):
        sweep.run(TINY, RATES, out=path, measure=MEASURES, **options, **SHORT)
    reporter.stop_after = 100
    with pytest.raises(ConfigError, match="its measures are custom code"):
        sweep.resume(path, **options)
    with pytest.raises(ConfigError, match="measure has time, but the run has visited, time"):
        sweep.resume(path, measure={"time": time_and_rate}, **options)
    found = sweep.resume(path, measure=MEASURES, **options)
    for name in ("table.csv", "seeds.csv"):
        assert (path / name).read_text() == (measured.path / name).read_text()
    np.testing.assert_array_equal(found.measures["visited"], measured.measures["visited"])
    assert sweep.resume(path, trust=True).measures.keys() == MEASURES.keys()


def test_bad_measures_of_sweeps_are_one_line(tmp_path):
    def vector(state):
        return state.agent.q

    for name, function, message in (
        ("learning_rate", visited, "learning_rate is a column of the sweep already"),
        ("seed", visited, "seed is a column of the sweep already"),
        ("a", vector, "the measure a must return one number"),
        ("a", lambda state: state.nothing, "the measure a fails"),
        ("steps", visited, "steps is a metric already"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweep.run(TINY, RATES, out=tmp_path / "x", measure={name: function}, **SHORT)
    assert not list(tmp_path.iterdir())


def test_a_measure_without_its_last_row_is_missing(measured, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(measured.path, path)
    rows = path / "batches" / "00000-00001" / "metrics.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    with pytest.warns(UserWarning, match="are missing"):
        found = sweep_results.read_measure(path, measured.sweep, "visited")
    assert np.isnan(found[:2]).all() and (found[2] == measured.measures["visited"][2]).all()


MEASURE_OF_SWEEP = "def visited(state):\n    return (state.agent.q != 0).sum()\n"


def test_the_command_line_measures_sweeps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("measure_of_sweep.py").write_text(MEASURE_OF_SWEEP)
    line = ["sweep", "q_learning", "--env=chain", "--steps=240", "--seeds=2", "--episodes=4"]
    line += ["--chunks=2", "--grid", "gamma=0.8,0.9", "--fresh-seeds=0", "--no-cache", "--quiet"]
    measure = ["--measure", "visited=measure_of_sweep.py:visited"]
    assert cli.main([*line, *measure, "--out=sweep"]) == 0
    text = Path("sweep/table.csv").read_text()
    assert "visited_iqm" in text and Path("sweep/sensitivity-visited.png").exists()
    shutil.rmtree("sweep/batches")
    capsys.readouterr()
    resume = ["resume", "sweep", "--no-cache", "--quiet"]
    assert cli.main(resume) == 2
    assert "its measures are custom code, measure_of_sweep.py:visited" in capsys.readouterr().err
    assert cli.main([*resume, *measure]) == 0 and Path("sweep/table.csv").read_text() == text
    assert cli.main([*resume, "--trust"]) == 0
