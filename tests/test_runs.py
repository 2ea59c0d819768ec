"""Runs on disk: their files, and recovery from kills, signals, damage and full disks."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
from functools import cache, partial
from types import SimpleNamespace
from unittest import mock

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, networks, normalize
from purejaxrl_sac.agents import ALGORITHMS, dqn
from purejaxrl_sac.agents.q_learning import q_learning, sarsa
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.errors import (
    DamagedError,
    InsufficientMemoryError,
    RunError,
    RunWarning,
    StoppedError,
)
from purejaxrl_sac.experiment.pictures import compare, exact, plot, render, run_figures
from purejaxrl_sac.experiment.runs import (
    display,
    engine,
    files,
    metric_rows,
    names,
    plans,
    record,
    training,
)
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints, join_state, split_state
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.runs.interruptions import failures_as_run_errors
from purejaxrl_sac.experiment.runs.training import is_best
from purejaxrl_sac.train import TOTALS
from purejaxrl_sac.types import TrainState
from scripts import kill_test
from tests.conftest import quick, small

TINY = small("q_learning", env="chain")  # compiled in a second or two
PLAN = {"seeds": 2, "chunks": 6, "episodes": 4}
SHORT = {**PLAN, "checkpoint_minutes": 0}
EVALUATED = {**PLAN, "eval_every": 80}  # and one checkpoint, at the end
MORE = 348  # steps of an extended run: chunks of the same length


class Recorder(Reporter):
    """Records messages, and raises a signal after some chunks."""

    def __init__(self, stop_after=None, number=signal.SIGTERM):
        self.messages, self.chunks, self.stop_after, self.number = [], 0, stop_after, number

    def message(self, text):  # and, by default, warnings
        self.messages.append(text)

    def on_chunk(self, progress):
        self.chunks += 1
        if self.chunks == self.stop_after:
            signal.raise_signal(self.number)


def metrics(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: value for k, value in row.items() if k not in ("seconds", "crc32")} for row in rows]


def rewrite(path, **changes):
    """Changes fields of a run's `config.json`, and their checksums."""
    document = RunDirectory(path).read_document()
    files.write_document(path / "config.json", {**document, **changes})


def same(found, expected):
    """Bit for bit, keys included."""

    def plain(x):
        typed = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if typed else x)

    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(plain(a).tobytes() == plain(b).tobytes() for a, b in pairs)


def stopped(path, config, after=2, **changes):
    """A run that received a signal after some chunks."""
    with pytest.raises(StoppedError):
        prl.experiment.run(config, out=path, reporter=Recorder(after), **{**SHORT, **changes})


@pytest.fixture(scope="module")
def programs():
    """The programs of runs of TINY with evaluations, by their steps, each compiled once."""
    compile_run = engine.compile_run  # not that of `ready`
    plan = plans.plan(TINY, **PLAN, eval_every=80)

    @cache
    def compiled(steps):
        config = TINY.replace(total_steps=steps)
        return compile_run(plan._replace(config=config), evaluated=True)

    return compiled


@contextlib.contextmanager
def without_compilation(programs):
    with mock.patch.object(
        engine, "compile_run", lambda plan, *_, **__: programs(plan.config.total_steps)
    ):
        yield


@pytest.fixture
def ready(programs):
    """Runs of TINY with evaluations need not compile."""
    with without_compilation(programs):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, programs):
    """A finished run of two seeds, with evaluations; read-only."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    with without_compilation(programs):
        return prl.experiment.run(TINY, out=path, **EVALUATED, checkpoint_minutes=0)


@pytest.fixture(scope="module")
def deep():
    """The plan and the programs of runs with evaluations and with a replay memory."""
    plan = plans.plan(small("dqn", env="chain", capacity=120_000), **PLAN, eval_every=80)
    return plan, engine.compile_run(plan, evaluated=True)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it, to be damaged."""
    return RunDirectory(shutil.copytree(whole.path, tmp_path / "copy"))


def test_load_reads_what_run_wrote(whole):
    run = prl.experiment.load(whole.path, whole=True)
    assert run.config == whole.config and run.steps == run.plan.total == whole.steps
    assert same(run.state, whole.state)
    run = prl.experiment.load(whole.path)
    assert run.state.memory == () and same(run.state.agent, whole.state.agent)
    assert run.summary == whole.summary and run.greedy_returns.shape == (2,)
    assert run.greedy_returns.tolist() == run.summary["greedy_returns"]
    assert len(list((run.path / "checkpoints").glob("[0-9]*"))) == 2  # the default of keep
    for name, column in whole.metrics.items():
        np.testing.assert_array_equal(run.metrics[name], column, err_msg=name)
    assert run.metrics["td_error"].shape == (len(run.metrics["steps"]), 2)
    actions = run.policy(seed=1)(jax.random.key(0), jnp.zeros(5, int))
    assert actions.shape == (5,)
    frame = run.frame()
    last = frame[(frame.seed == 1) & (frame.steps == run.steps)]
    assert last["td_error"].item() == run.metrics["td_error"][-1, 1]
    for of_seed in (run.policy, run.seed_state, run.seed_config):
        with pytest.raises(ConfigError, match="there is no seed 2"):
            of_seed(2)
    with pytest.raises(ConfigError, match="give best or whole"):
        prl.experiment.load(whole.path, best=True, whole=True)


def test_evaluations_during_training_share_start_states_and_save_the_best_policy(deep, tmp_path):
    plan, programs = deep
    changes = {"learning_rate": 0.0, "epsilon_end": 0.0, "epsilon_fraction": 0.0}
    with mock.patch.object(engine, "compile_run", return_value=programs):
        config = plan.config.replace(**changes)
        run = prl.experiment.run(config, out=tmp_path / "run", **EVALUATED)
    greedy = run.metrics["greedy_return"]
    known = greedy[np.isfinite(greedy).all(1)]
    assert len(known) == 3 and (known == known[0]).all()  # at 80, 160 and 240 steps
    explored = run.metrics["exploring_return"]
    np.testing.assert_array_equal(explored[np.isfinite(explored).all(1)], known)
    best = prl.experiment.load(run.path, best=True)
    assert best.steps == run.metrics["steps"][np.isfinite(greedy).all(1)][0]
    assert best.policy()(jax.random.key(0), jnp.zeros(3, int)).shape == (3,)
    fresh = best.evaluate(6, seed=1)
    assert fresh.shape == (2, 6) and (fresh != run.evaluate(6, seed=2)).any()


def test_no_two_uses_of_a_seed_share_a_key(whole, monkeypatch):
    found = [*whole.plan.keys()]

    def evaluated(keys, *_, **__):
        found.append(keys)
        return np.zeros((2, 4))

    monkeypatch.setattr(engine, "evaluate_lanes", evaluated)
    whole.evaluate(4, seed=whole.plan.seed)
    roots = plans.streams(plans.key_from_seed(whole.plan.seed))
    found += [key[None] for key in (*roots, plans.key_from_seed(whole.plan.seed))]
    rows = np.concatenate([jax.random.key_data(key) for key in found])
    assert len(found) == 3 + 1 + 6 and len(np.unique(rows, axis=0)) == len(rows)


def test_a_run_is_shown_without_its_arrays(whole, copy):
    greedy = display.with_interval(np.array(whole.summary["greedy_returns"]))
    expected = f"<Run {whole.path}: q_learning on chain, 2 seeds, {whole.steps} steps, greedy"
    assert repr(whole) == str(whole) == f"{expected} return {greedy}>"
    copy.summary.unlink()
    unfinished = prl.experiment.load(copy.path)
    assert repr(unfinished).endswith(f"2 seeds, {whole.steps} steps>")
    with pytest.raises(ConfigError, match="has not finished, so it has no greedy returns yet"):
        _ = unfinished.greedy_returns
    plan = whole.plan._replace(variants={"gamma": [0.5, 0.9]})
    assert "chain, 2 variants x 2 seeds, " in repr(whole._replace(plan=plan))


def test_chunks_without_an_episode_keep_the_latest_return(tmp_path):
    plan = plans.plan(TINY, 2)

    def chunk(state, config, keys, due):
        totals = {"episodes": [2, 0], "returns": [6.0, 0.0], "lengths": [8, 0]}
        totals["finite"] = [plan.chunk] * 2
        return state, {name: np.array(x) for name, x in totals.items()}

    programs = engine.Programs(None, {plan.chunk: chunk}, 0.0, mesh_for(2, 1))
    start = plans.Progress(**dict.fromkeys(plans.Progress._fields))._replace(
        seconds=1.0, latest_return=np.array([1.0, 5.0]), failed_step=np.full(2, -1),
        episode_return=np.full(2, np.nan),
    )  # fmt: skip
    step = TINY.warmup_iterations * TINY.rollout_length
    state = TrainState((), np.int32(step), (), (), ())
    _, progress = next(engine.run_chunks(plan, programs, state, start))
    np.testing.assert_array_equal(progress.latest_return, [3, 5])
    directory = RunDirectory.create(tmp_path / "run")
    metric_rows.append(directory.metrics, progress, after=0)
    ((row,), _) = directory.read_metrics(lanes=2)
    assert row["episodes"] == [2, 0] and row["episode_length"] == [4, None]
    assert row["episode_return"] == [3, None]


def test_the_best_policy_has_the_highest_interquartile_mean():
    def progress(scores):
        blank = dict.fromkeys(plans.Progress._fields)
        found = {} if scores is None else {"greedy_return": np.array(scores)}
        failed_step = np.array([-1, -1, -1, -1, 7])
        return plans.Progress(**{**blank, "evaluation": found, "failed_step": failed_step})

    before = [progress(None), progress([0.0, 1, 2, 100, 0]), progress([np.nan] * 5)]
    assert not is_best(progress(None), before)
    assert not is_best(progress([1.0, 1, 2, 50, 99]), before)  # 1.5, as before; the last diverged
    assert is_best(progress([0.0, 2, 2, 3, 0]), before)


@pytest.mark.parametrize("algorithm", quick(("per_dqn", "sac", "a2c"), "per_dqn"))
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(algorithm, tmp_path):
    wrappers = {"wrappers": (normalize.observations,)} if algorithm == "sac" else {}
    env = {"env": "maximization_bias"} if algorithm == "per_dqn" else {}
    config = small(algorithm, **env, **wrappers)
    programs = engine.compile_run(plans.plan(config, **PLAN), evaluated=True)
    with mock.patch.object(engine, "compile_run", return_value=programs):
        whole = prl.experiment.run(config, out=tmp_path / "whole", **SHORT)
        stopped(tmp_path / "run", config)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"config.json", "config.toml", "lock", "metrics.jsonl", "checkpoints"}
    run = prl.experiment.resume(tmp_path / "run", checkpoint_minutes=0)
    assert same(run.state, whole.state)
    assert metrics(run.path) == metrics(whole.path)
    assert run.summary["greedy_returns"] == whole.summary["greedy_returns"]


STATES = (  # of different types
    "q_learning", "dqn", "per_dqn", "r2d2", "pqn", "ppo", "recurrent_a2c", "continuous_soft_q",
    "sac", "recurrent_sac", "discrete_sac", "sac_v1", "crossq", "simba", "td3",
)  # fmt: skip


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, *STATES))
def test_every_state_is_restored_from_its_checkpoint(algorithm, tmp_path):
    plan = plans.plan(small(algorithm), 2)
    rng = np.random.default_rng(0)

    def fill(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(rng.integers(0, 9, (*x.shape, 2), np.uint32))
        return rng.integers(0, 2, x.shape).astype(x.dtype)

    like = engine.shapes(plan)
    state = jax.device_put(jax.tree.map(fill, like))
    checkpoints = Checkpoints(tmp_path / "kept", keep=1)
    checkpoints.save(10, 2, **split_state(state))
    checkpoints.wait()
    found = join_state(**checkpoints.restore(10, 2, **split_state(like)))
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert same(found, state)
    assert all(
        a.dtype == b.dtype and a.shape == b.shape
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True)
    )


def test_killed_and_resumed_runs_equal_an_uninterrupted_one():
    """SIGKILL at random times, during writes, and while the process starts."""
    assert kill_test.main(["--kills", "3", "--only", "q_learning"]) == 0


@pytest.mark.slow
def test_a_killed_fork_of_ones_own_goes_on():
    assert kill_test.main(["--kills", "3", "--only", "fork"]) == 0


def flip(path, rng):
    """Flips a bit in the largest file, which holds the arrays."""
    files = [file for file in path.rglob("*") if file.is_file()]
    file = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("damage", ("flip", "truncate", "delete", "seal"))
def test_a_damaged_checkpoint_is_skipped_with_a_message(damage, whole, copy):
    (copy.path / "summary.json").unlink()  # as if killed before the end
    newest = max(copy.checkpoints.iterdir(), key=lambda path: int(path.name))
    if damage == "flip":
        flip(newest, random.Random(0))
    elif damage == "truncate":
        for file in (newest / "rest").rglob("*"):
            if file.is_file():
                os.truncate(file, file.stat().st_size // 2)
    elif damage == "delete":
        shutil.rmtree(newest / "rest" / "d")
    else:
        (newest / "crc32.json").write_text('{"check/metadata": null}')
    reporter = Recorder()
    run = prl.experiment.resume(copy.path, reporter=reporter)
    assert "is damaged" in reporter.messages[0] and "resuming from step" in reporter.messages[1]
    assert str(copy.path / "damaged") in reporter.messages[0]
    assert same(run.state, whole.state)
    assert metrics(copy.path) == metrics(whole.path)
    assert list((copy.path / "damaged").iterdir())


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("{}", "its checksums are damaged"),
        ("[1]", "its checksums are damaged"),
        ({"steps": 3}, "it is that of step 3"),
        ({"checksums": {}}, "the checksum differs"),
    ],
)
def test_a_checkpoint_whose_check_was_changed_is_damaged(check, message, whole, tmp_path):
    """Where the checksums of its files were changed, too."""
    path = shutil.copytree(whole.path / "checkpoints" / "240", tmp_path / "240")
    if not isinstance(check, str):
        written = json.loads((path / "check" / "metadata").read_text())
        del written["crc32"]
        check = json.dumps(written | check | {"crc32": files.checksum(written | check)})
    (path / "check" / "metadata").write_text(check)
    (path / "crc32.json").write_text(json.dumps(files.contents(path, ("policy", "check"))))
    like = {"policy": split_state(engine.shapes(whole.plan))["policy"]}
    with pytest.raises(DamagedError, match=message):
        Checkpoints(tmp_path).restore(240, 2, **like)


def test_no_path_of_the_machine_is_in_a_run_directory(whole):
    for file in whole.path.rglob("*"):
        assert file.is_dir() or str(whole.path.parent).encode() not in file.read_bytes(), file


def test_every_flipped_bit_is_detected(whole, tmp_path):
    like = split_state(engine.shapes(whole.plan))
    newest = whole.path / "checkpoints" / str(whole.steps)
    rng = random.Random(1)
    for trial in range(12):
        path = tmp_path / f"{trial}"
        shutil.copytree(newest, path / "1")
        flip(path / "1", rng)
        checkpoints = Checkpoints(path)
        try:
            found = join_state(**checkpoints.restore(1, 2, **like))
            assert same(found, whole.state)
        except DamagedError:
            pass
        checkpoints.close()


@pytest.mark.usefixtures("ready")
def test_a_run_whose_checkpoints_are_all_damaged_is_not_changed(whole, copy):
    copy.summary.unlink()
    for path in copy.checkpoints.iterdir():
        flip(path, random.Random(2))
    before = sorted(copy.path.rglob("*"))
    why = r"no checkpoint of .* can be read .*to train it from the start, move .*/checkpoints away"
    with pytest.raises(ConfigError, match=why):
        prl.experiment.resume(copy.path)
    assert sorted(copy.path.rglob("*")) == before and metrics(copy.path) == metrics(whole.path)
    files.write_document(copy.summary, whole.summary)  # now finished
    why = r"has no intact checkpoint: .*, move .*/checkpoints and .*/summary.json away, then run"
    with pytest.raises(ConfigError, match=why):
        prl.experiment.load(copy.path, whole=True)
    shutil.rmtree(copy.checkpoints)
    copy.summary.unlink()
    reporter = Recorder()
    run = prl.experiment.resume(copy.path, reporter=reporter)
    assert reporter.messages[0] == "no checkpoint: starting over"
    assert same(run.state, whole.state)
    assert metrics(copy.path) == metrics(whole.path)


@pytest.mark.usefixtures("ready")
def test_an_incomplete_last_line_of_metrics_is_rewritten(whole, copy):
    copy.summary.unlink()
    os.truncate(copy.metrics, copy.metrics.stat().st_size - 9)
    shutil.rmtree(copy.checkpoints / str(whole.steps))
    prl.experiment.resume(copy.path)
    assert metrics(copy.path) == metrics(whole.path)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("damage", ("delete", "flip"))
def test_a_run_is_resumed_without_lost_metrics(damage, whole, copy):
    copy.summary.unlink()
    lines = copy.metrics.read_text().splitlines(keepends=True)
    if damage == "delete":
        copy.metrics.unlink()
    else:
        copy.metrics.write_text("".join([lines[0], lines[1].replace("1", "2"), *lines[2:]]))
    reporter = Recorder()
    with pytest.warns(RunWarning, match=r"metrics.jsonl: rows after steps .* are missing"):
        run = prl.experiment.resume(copy.path, reporter=reporter)
    assert "are missing or damaged; the run goes on without them" in reporter.messages[0]
    assert same(run.state, whole.state)
    assert run.summary["greedy_returns"] == whole.summary["greedy_returns"]
    assert "missing" in copy.describe()["metrics.jsonl"]
    kept = [] if damage == "delete" else [lines[0], *lines[2:]]
    assert "".join(kept) == (copy.metrics.read_text() if kept else "")


def test_links_are_refused_before_anything_is_written(copy, tmp_path):
    copy.summary.unlink()
    (tmp_path / "curve.png").write_text("mine")
    (copy.path / "curve.png").unlink()
    (copy.path / "curve.png").symlink_to(tmp_path / "curve.png")
    with pytest.raises(ConfigError, match=r"curve.png is a link that leads out of the run"):
        prl.experiment.resume(copy.path)
    assert (tmp_path / "curve.png").read_text() == "mine"


def test_a_finished_run_is_extended(whole, copy):
    with pytest.raises(ConfigError, match="add --steps"):
        prl.experiment.resume(copy.path)
    with pytest.raises(
        ConfigError,
        match="and 100 is not more than the 240 that the run has: give more",
    ):
        prl.experiment.resume(copy.path, steps=100)
    reporter = Recorder()
    run = prl.experiment.resume(copy.path, steps=MORE + 2, reporter=reporter)
    assert f"total_steps is {MORE + 2}, but an iteration takes 12: {MORE}" in reporter.messages[1]
    assert run.steps == MORE and metrics(copy.path)[: len(whole.metrics["steps"])] == metrics(
        whole.path
    )
    assert prl.experiment.load(copy.path).config.total_steps == MORE + 2
    kept = json.loads((copy.path / "summary-240.json").read_text())
    assert kept.items() >= whole.summary.items()


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("ready")
def test_an_extension_that_was_killed_while_it_started_can_be_repeated(whole, copy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_plan", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prl.experiment.resume(copy.path, steps=MORE)
    assert prl.experiment.resume(copy.path).steps == 240
    with monkeypatch.context() as patch:
        patch.setattr(metric_rows, "truncate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prl.experiment.resume(copy.path, steps=MORE)
    assert prl.experiment.resume(copy.path, steps=MORE).steps == MORE


@pytest.mark.usefixtures("ready")
def test_damaged_last_lines_of_metrics_are_rewritten(whole, copy):
    copy.summary.unlink()
    shutil.rmtree(copy.checkpoints / str(whole.steps))  # back to the previous checkpoint
    with copy.metrics.open("r+b") as file:
        file.seek(-40, os.SEEK_END)
        file.write(b"\0" * 30 + b"\xff\n{")
    prl.experiment.resume(copy.path)
    assert metrics(copy.path) == metrics(whole.path)


@pytest.mark.usefixtures("ready")
def test_the_best_policy_in_the_metrics_is_always_on_disk(whole, copy):
    """Also for a run that is stopped after every chunk."""
    best = prl.experiment.load(whole.path, best=True)
    path = copy.path.with_name("again")
    stopped(path, TINY, after=1, eval_every=80)
    while not (path / "summary.json").exists():
        try:
            prl.experiment.resume(path, reporter=Recorder(1))
        except StoppedError:
            continue
    again = prl.experiment.load(path, best=True)
    assert again.steps == best.steps and same(again.state, best.state)
    shutil.rmtree(path / "best")
    with pytest.raises(ConfigError, match="has no intact checkpoint"):
        prl.experiment.load(path, best=True)


@pytest.mark.usefixtures("ready")
def test_a_best_policy_from_after_the_checkpoint_is_replaced(whole, copy):
    """It may be of another trajectory, on other devices or under other versions."""
    copy.summary.unlink()
    shutil.rmtree(copy.checkpoints / str(whole.steps))
    shutil.rmtree(copy.best)
    shutil.copytree(max(copy.checkpoints.iterdir()), copy.best / str(whole.steps))
    prl.experiment.resume(copy.path)
    assert same(prl.experiment.load(copy.path, best=True).state.agent, whole.state.agent)


def test_a_checkpoint_of_another_device_is_read(whole, copy):
    for file in copy.checkpoints.rglob("_sharding"):
        text = file.read_text()
        assert '\\"id\\": 1}' in text
        file.write_text(text.replace('\\"id\\": ', '\\"id\\": 7'))
    for path in copy.checkpoints.iterdir():
        seal = files.contents(path, ("policy", "rest", "check"))
        (path / "crc32.json").write_text(json.dumps(seal))
    assert same(prl.experiment.load(copy.path, whole=True).state, whole.state)


def test_a_failure_of_the_machine_is_not_reported_as_damage(copy, monkeypatch):
    copy.summary.unlink()

    def exhausted(*_, **__):
        raise MemoryError("no memory")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", exhausted)
    before = sorted(copy.path.rglob("*"))
    with pytest.raises(RunError, match=r"no memory.*from its checkpoint of step 240"):
        prl.experiment.resume(copy.path)
    assert sorted(copy.path.rglob("*")) == before


@pytest.mark.usefixtures("ready")
def test_the_directory_of_a_run_that_was_killed_before_it_had_a_plan_can_be_used(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "lock").touch()
    assert prl.experiment.run(TINY, out=path, **EVALUATED).steps == 240


@pytest.mark.parametrize("name", ["a[1]", "a\\1", "a\udcff", "a[1]/run"])
def test_a_path_that_checkpoints_cannot_be_written_to_is_refused(name, whole, tmp_path):
    with pytest.raises(ConfigError, match="with which checkpoints cannot be written"):
        prl.experiment.run(TINY, out=tmp_path / name)
    assert not list(tmp_path.iterdir())
    shutil.copytree(whole.path, tmp_path / name)
    with pytest.raises(ConfigError, match="with which checkpoints cannot be written"):
        prl.experiment.resume(tmp_path / name, steps=MORE)


@pytest.mark.parametrize("name", ["config.toml", "dataset.npz"])
def test_a_directory_with_a_file_of_its_user_is_not_used(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        prl.experiment.run(TINY, out=tmp_path, loggers=[lambda *_: None])
    assert (tmp_path / name).read_text() == "mine"


def test_load_warns_of_damage(whole, copy):
    flip(copy.checkpoints / str(whole.steps), random.Random(0))
    with pytest.warns(UserWarning, match="the newest checkpoint is damaged"):
        assert prl.experiment.load(copy.path, whole=True).steps < whole.steps


@pytest.mark.usefixtures("ready")
def test_an_incomplete_checkpoint_is_removed(whole, copy):
    copy.summary.unlink()
    newest = copy.checkpoints / str(whole.steps)
    half = newest.rename(copy.checkpoints / f"{whole.steps}.orbax-checkpoint-tmp-1")
    run = prl.experiment.resume(copy.path)
    assert same(run.state, whole.state) and not half.exists()


@pytest.mark.usefixtures("ready")
def test_the_requested_number_of_checkpoints_is_kept(copy):
    with pytest.raises(ConfigError, match="keep is 0"):
        prl.experiment.resume(copy.path, steps=MORE, keep=0)
    before = {path.name for path in copy.checkpoints.iterdir()}
    assert len(before) == 2
    changes = {"keep": 3, "checkpoint_minutes": 0}
    with pytest.raises(StoppedError):
        prl.experiment.resume(copy.path, steps=MORE, reporter=Recorder(2), **changes)
    assert len(list(copy.checkpoints.iterdir())) == 3
    prl.experiment.resume(copy.path, checkpoint_minutes=0)
    assert len(list(copy.checkpoints.iterdir())) == 3


def test_a_second_writer_is_refused(copy):
    with copy.locked(), pytest.raises(ConfigError, match="being written by another process"):
        prl.experiment.resume(copy.path, steps=MORE)
    assert copy.describe()["status"] == "finished"
    with copy.locked():
        assert copy.describe()["status"] == "running"
        assert prl.experiment.load(copy.path).steps == 240  # reading needs no lock
        shutil.rmtree(copy.checkpoints)
        with pytest.raises(ConfigError, match="is training and has no checkpoint yet: try again"):
            prl.experiment.load(copy.path)


@pytest.mark.usefixtures("ready")
def test_other_versions_are_refused_unless_allowed(copy):
    settings = record.settings() | {"jax_threefry_partitionable": False, "XLA_FLAGS": "--fast"}
    rewrite(copy.path, versions=record.versions() | {"optax": "0.0.1"}, settings=settings)
    other = r"optax 0\.0\.1 .*, jax_threefry_partitionable False \(here True\), XLA_FLAGS --fast"
    with pytest.raises(ConfigError, match=f"{other} .* --any-version"):
        prl.experiment.resume(copy.path, steps=MORE)
    assert prl.experiment.load(copy.path).steps == 240
    reporter = Recorder()
    prl.experiment.resume(copy.path, steps=MORE, any_version=True, reporter=reporter)
    assert "numbers may differ" in reporter.messages[0]
    other = pytest.raises(ConfigError, match="holds arrays of other shapes or types")
    with jax.default_prng_impl("rbg"), other:
        prl.experiment.load(copy.path)
    rewrite(copy.path, schema=3)
    with pytest.raises(ConfigError, match="was written by another version"):
        prl.experiment.load(copy.path)


def test_not_a_run(tmp_path, copy):
    with pytest.raises(ConfigError, match="is not a run: it does not exist"):
        prl.experiment.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"is not a run: it has no config\.json"):
        prl.experiment.load(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"it is a sweep, whose runs are in .*batches$"):
        prl.experiment.load(tmp_path)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"is not a run: it is a sweep, whose best run is .*best$"
    ):
        prl.experiment.load(tmp_path)
    (copy.path / "config.json").write_text('{"schema": 3, "con')
    with pytest.raises(ConfigError, match=r"config\.json cannot be read, it is damaged: restore"):
        prl.experiment.load(copy.path)


def test_a_run_without_a_checkpoint(copy):
    shutil.rmtree(copy.checkpoints)
    before = metrics(copy.path), (copy.path / "config.json").read_text()
    why = "is finished and has no checkpoint: to train it from the start, move .*/summary.json away"
    with pytest.raises(ConfigError, match=why):
        prl.experiment.resume(copy.path, steps=MORE)
    assert (metrics(copy.path), (copy.path / "config.json").read_text()) == before
    with pytest.raises(
        ConfigError, match="has no intact checkpoint: to train it from the start, move"
    ):
        prl.experiment.load(copy.path)


def test_a_custom_algorithm_is_resumed_with_its_config(tmp_path):
    from purejaxrl_sac.agents.q_learning import q_learning

    def mine(config, env):
        return q_learning(config, env)

    config = TINY.replace(algorithm=mine)
    stopped(tmp_path / "run", config, seeds=1)
    with pytest.raises(ConfigError, match="no reference names: pass algorithm="):
        prl.experiment.resume(tmp_path / "run")
    with pytest.raises(ConfigError, match="is not the one"):
        prl.experiment.resume(tmp_path / "run", config=config.replace(gamma=0.5))
    assert prl.experiment.resume(tmp_path / "run", config=config).steps == 240


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_signals_stop_after_the_chunk(number, tmp_path):
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=f"stopped at step .* by {number.name}") as stop:
        prl.experiment.run(TINY, out=tmp_path / "run", reporter=Recorder(2, number), **EVALUATED)
    assert stop.value.signal == number and signal.getsignal(number) == before
    kept = prl.experiment.load(tmp_path / "run")
    assert kept.steps == stop.value.steps < kept.plan.total
    assert metrics(kept.path)[-1]["steps"] == kept.steps


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("when", ("last chunk", "evaluation", "pictures"))
def test_a_run_that_is_stopped_before_its_evaluation_says_so(when, tmp_path, whole, monkeypatch):
    def stop(*args, **named):
        signal.raise_signal(signal.SIGTERM)

    if when != "last chunk":
        where = (engine, "final_evaluation") if when == "evaluation" else (plot, "run_curve")
        monkeypatch.setattr(*where, stop)
    before = signal.getsignal(signal.SIGTERM)
    path = tmp_path / "run"
    reporter = Recorder(len(metrics(whole.path)) if when == "last chunk" else None)
    with pytest.raises(StoppedError) as stop_of_run:
        prl.experiment.run(TINY, out=path, reporter=reporter, **EVALUATED)
    assert signal.getsignal(signal.SIGTERM) == before
    error = stop_of_run.value
    assert error.trained and error.steps == 240 and error.signal == signal.SIGTERM
    assert "training is complete" in error.advice and f"resume {path}" in error.advice
    assert RunDirectory(path).describe()["status"].startswith("trained, but not evaluated")
    monkeypatch.undo()
    found = prl.experiment.resume(path)
    assert found.summary["greedy_returns"] == whole.summary["greedy_returns"]
    assert (path / "curve.png").exists()


@pytest.mark.usefixtures("ready")
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, whole, capfd):
    """Simulates a full disk by a limit on file sizes."""

    class Fill(Recorder):
        def on_chunk(self, progress):
            self.chunks += 1
            if self.chunks == 3:
                size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(RunError, match="resume it from its checkpoint of step"):
            prl.experiment.run(
                TINY, out=tmp_path / "run", reporter=Fill(), **EVALUATED, checkpoint_minutes=0
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert capfd.readouterr() == ("", "")  # orbax's own threads print nothing
    run = prl.experiment.resume(tmp_path / "run")
    assert same(run.state, whole.state)
    assert metrics(run.path) == metrics(whole.path)


def test_a_disk_without_free_inodes_is_reported_before_orbax_writes(tmp_path, monkeypatch):
    disk = os.statvfs(tmp_path)
    full = os.statvfs_result([*disk[:5], 100, 25, 25, *disk[8:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(OSError, match="could not be written: No space left on device"):
        Checkpoints(tmp_path / "new" / "checkpoints", keep=1).save(1, 1, policy=jnp.zeros(1))
    assert not list(tmp_path.iterdir())


def test_a_failure_states_what_there_is_to_resume(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")

    def advice():
        with pytest.raises(RunError) as error, failures_as_run_errors(directory):
            raise OSError(28, "No space left on device")
        return str(error.value).split("(No space left on device): ")[1]

    (directory.checkpoints / "80.orbax-checkpoint-tmp").mkdir(parents=True)
    assert advice() == "fix the cause and run it again, nothing was trained"
    (directory.path / "sweep.json").touch()
    assert advice() == "fix the cause and resume it"
    (directory.path / "sweep.json").unlink()
    directory.metrics.write_text("{}")
    assert advice() == "fix the cause and resume it"
    (directory.checkpoints / "40").mkdir()
    assert advice() == "fix the cause and resume it from its checkpoint of step 40"


def test_a_run_that_never_started_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="keep is 0"):
        prl.experiment.run(TINY, out=tmp_path / "a", **{**SHORT, "keep": 0})
    with pytest.raises(ConfigError):
        prl.experiment.run(small("dqn", gamma=2.0), out=tmp_path / "a", **SHORT)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot create"):
        prl.experiment.run(small("dqn"), out=tmp_path / "file" / "b", **SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_does_not_fit_is_refused_with_the_numbers(tmp_path, monkeypatch, deep):
    config = small("dqn", capacity=12 * 10**8)
    with pytest.raises(ConfigError, match=r"memory .* GiB.* are free: lower capacity"):
        prl.experiment.run(config, out=tmp_path / "run", **SHORT)
    plan, programs = deep
    needed = resources.program_bytes(programs)
    assert needed > sum(resources.state_bytes(plan, programs.mesh).values())
    monkeypatch.setattr(resources, "available", lambda: needed)
    resources.check_programs(programs)
    monkeypatch.setattr(resources, "available", lambda: needed - 1)
    with pytest.raises(ConfigError, match="at its peak"):
        resources.check_programs(programs)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("fault", ["estimated", "actual"])
def test_an_evaluation_that_does_not_fit_does_not_cost_the_run(tmp_path, monkeypatch, fault):
    free = iter((2**40, 2**40, 0))  # before compilation, after it and after training
    monkeypatch.setattr(resources, "available", lambda: next(free, 0))
    if fault == "actual":
        monkeypatch.setattr(resources, "available", lambda: 2**40)
        full = mock.Mock(side_effect=jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: full\n..."))
        monkeypatch.setattr(engine, "final_evaluation", full)
    reporter = Recorder()
    run = prl.experiment.run(TINY, out=tmp_path / "run", reporter=reporter, **EVALUATED)
    warning, _ = reporter.messages
    cause = "KiB at its peak, but" if fault == "estimated" else "RESOURCE_EXHAUSTED: full"
    assert cause in warning and f"eval {tmp_path / 'run'} with fewer --episodes than" in warning
    assert run.summary["greedy_returns"] is None and run.steps == run.plan.total
    monkeypatch.undo()
    assert np.isfinite(prl.experiment.load(run.path).evaluate(2)).all()


def test_a_run_of_several_configurations_is_not_to_be_evaluated(tmp_path, monkeypatch):
    full = mock.Mock(side_effect=InsufficientMemoryError("full"))
    monkeypatch.setattr(resources, "check_final_evaluation", full)
    reporter, directory = Recorder(), RunDirectory(tmp_path)
    plan = plans.plan(TINY, variants={"gamma": [0.5, 0.9]})
    assert training._evaluate(directory, plan, None, None, reporter) is None
    assert f"(full): where more memory is free, move {directory.summary}" in reporter.messages[0]


def test_a_run_allocates_its_replay_memory_once(deep):
    plan, programs = deep
    replay = resources.state_bytes(plan, programs.mesh)["memory"]
    assert replay < resources.program_bytes(programs) < 1.05 * replay


def test_the_step_at_which_a_seed_diverged_is_recorded():
    """With fake metrics of three chunks: seed 1 is nan from the fourth iteration on."""
    config = small("q_learning")
    plan = plans.plan(config, 3)._replace(chunk=config.iterations // 2)
    length, made = plan.chunk, iter((plan.chunk, 0))

    def chunk(state, *_):
        finite = np.array([length, 3 if length == next(made) else 0, length])
        figures = dict.fromkeys(TOTALS, np.ones(3))
        loss = np.where(finite < length, np.nan, 1)
        return state, {"finite": finite, "loss": loss, **figures}

    chunks = dict.fromkeys((length, config.iterations % length), chunk)
    programs = engine.Programs(None, chunks, 0, mesh_for(3, 1))
    step = jnp.int32(config.warmup_iterations * config.rollout_length)
    state = prl.TrainState(None, step, None, None, None)
    history = [progress for _, progress in engine.run_chunks(plan, programs, state)]
    expected = [-1, plan.steps(4), -1]
    for progress in history:
        assert progress.failed_step.tolist() == expected
        assert progress.failed.tolist() == [False, True, False]


def test_the_compiled_program_detects_divergence(deep, tmp_path):
    plan, programs = deep
    with mock.patch.object(engine, "compile_run", return_value=programs):
        config = plan.config.replace(learning_rate=1e30)
        run = prl.experiment.run(config, out=tmp_path / "run", **EVALUATED)
    found = run.summary["failed_step"]
    assert found.keys() == {"0", "1"} and all(24 < step <= 240 for step in found.values())
    assert "left out" in next(name for name in run.summary["figures"] if "nan" in name)
    assert run.summary["greedy_returns"] == [None, None]
    assert not list(run.path.glob("*.png")) and not list(run.path.glob("*.gif"))
    found = prl.experiment.load(run.path)
    assert found.failed.all() and np.isnan(found.evaluate(3)).all()
    with pytest.raises(ConfigError, match=r"every seed of .* has diverged: leave it out"):
        compare.compare([run.path], "loss", tmp_path / "a.png")


def test_the_run_loop_counts_beyond_an_int32():
    """A run of 2^34 steps, of which seed 1 diverges in the second chunk; nothing is computed."""
    sizes = {"num_envs": 16, "rollout_length": 1, "num_updates": 1, "warmup_steps": 16}
    config = small("dqn", total_steps=2**34, **sizes)
    plan = plans.plan(config, seeds=2, chunks=4)
    mesh = mesh_for(1, 1)
    ones = np.ones(2, np.int32)

    def program(length, state, configs, keys, due):
        second = int(state.step) // length == 1  # the warm-up is one iteration
        finite = np.array([length, 5 if second else length], np.int32)
        metrics = {"episodes": ones, "returns": ones, "lengths": ones, "finite": finite}
        return state._replace(step=state.step + length), metrics

    lengths = plans.chunk_lengths(config.iterations, plan.chunk)
    chunks = {length: partial(program, length) for length in lengths}
    programs = engine.Programs(None, chunks, 0.0, mesh)
    state = prl.TrainState((), np.int64(config.warmup_iterations), (), (), ())
    *_, (_, last) = engine.run_chunks(plan, programs, state)
    assert plan.chunk * config.steps_per_iteration < 2**31
    assert last.steps == plan.total == 2**34
    np.testing.assert_array_equal(last.failed_step, [-1, 16 * (1 + plan.chunk + 6)])


class Reversed(type(prl.envs.make("CartPole-v1"))):
    """A user's own environment, whose `name` is still CartPole-v1."""


@pytest.mark.parametrize("name", ("CartPole-v1", "FrozenLake-misc", "Breakout-MinAtar", "taxi"))
def test_an_environment_equal_to_a_named_one_has_its_name(name):
    assert names.environment_name(name) == name
    assert names.environment_name(prl.envs.make(name)) == name
    if "-" in name:
        assert names.environment_name(gymnax.make(name)[0]) == name


def test_other_environments_are_named_by_class_and_attributes():
    firm = gymnax.make("FrozenLake-misc", is_slippery=False)[0]
    found = names.environment_name(firm)
    assert found.startswith("gymnax.environments.misc.frozen_lake:FrozenLake(")
    assert "is_slippery=False" in found
    again = gymnax.make("FrozenLake-misc", is_slippery=False)[0]
    assert names.environment_name(again) == found
    other = gymnax.make("FrozenLake-misc", is_slippery=False)[0]
    other.desc = other.desc.at[0, 1].set(2)
    assert names.environment_name(other) != found
    assert names.environment_name(Reversed()).startswith(f"{__name__}:Reversed(")
    deep = [gymnax.make("DeepSea-bsuite", size=size)[0] for size in (8, 10)]
    assert len({*map(names.environment_name, deep)}) == 2


def test_functions_are_named_with_their_parts():
    double, expected = (partial(dqn.dqn, bootstrap=x) for x in (dqn.double, dqn.expected))
    assert names.function_name(double) == "dqn(bootstrap=purejaxrl_sac.agents.dqn:double)"
    assert names.function_name(double) != names.function_name(expected)
    nested = partial(double, network=partial(networks.q_network, norm=networks.LayerNorm))
    found = names.function_name(nested)
    assert found.startswith("dqn(bootstrap=purejaxrl_sac.agents.dqn:double, network=")
    assert "norm=" in found and "0x" not in found
    assert names.function_name(normalize.observations) == "observations"
    assert len({*map(names.function_name, (lambda: 1, len, sum))}) == 3
    assert names.function_name(partial(q_learning, a=1)) != names.function_name(partial(sarsa, a=1))
    weights = [partial(dqn.dqn, weights=np.full(2, x)) for x in (0.0, 1.0)]
    assert len({*map(names.function_name, weights)}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "FrozenLake-misc"}, r"env is FrozenLake-misc, but was gymnax.*:FrozenLake\("),
        ({"env": gymnax.make("FrozenLake-misc", is_slippery=True)[0]}, "env is FrozenLake-misc"),
        ({"gamma": 0.5}, "gamma is 0.5, but was 0.99"),
        (
            {"algorithm": partial(q_learning, omega=2)},
            r"algorithm is .*omega=2\), but was q_learning",
        ),
    ],
)
def test_a_run_goes_on_only_with_its_own_environment_and_algorithm(changes, message, firm):
    path, config = firm
    for read in (prl.experiment.load, prl.experiment.resume):
        with pytest.raises(ConfigError, match=message):
            read(path, config=config.replace(**changes))


@pytest.fixture(scope="module")
def firm(tmp_path_factory):
    """A run on an environment object, and its configuration."""
    path = tmp_path_factory.mktemp("firm") / "run"
    env = gymnax.make("FrozenLake-misc", is_slippery=False)[0]
    config = small("q_learning", env="FrozenLake-misc").replace(env=env)
    prl.experiment.run(config, out=path, **PLAN)
    return path, config


def test_a_run_on_an_environment_object_is_read_with_it(firm):
    path, config = firm
    with pytest.raises(ConfigError, match=r"env is .*pass"):
        prl.experiment.load(path)
    assert prl.experiment.load(path, config=config).evaluate(8).shape == (2, 8)


@pytest.mark.usefixtures("ready")
def test_a_run_that_cannot_be_drawn_says_so(tmp_path):
    reporter = Recorder()
    run = prl.experiment.run(TINY, out=tmp_path / "run", reporter=reporter, **EVALUATED)
    text = "no episode.gif: the environment chain has no method paint(scene, t)"
    assert reporter.messages == [text] and not (run.path / "episode.gif").exists()


@pytest.mark.usefixtures("ready")
def test_a_picture_that_fails_costs_no_result(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AttributeError("no such thing\nand more")

    for module, name in ((plot, "run_curve"), (render, "episode"), (exact, "finite_mdp")):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr(run_figures, "_is_drawable", lambda config: True)
    reporter = Recorder()
    run = prl.experiment.run(TINY, out=tmp_path / "run", reporter=reporter, **EVALUATED)
    assert run.summary is not None and run.summary["steps"] == run.plan.total
    failed = [text for text in reporter.messages if "was not drawn" in text]
    names = ("curve.png", "values.png", "episode.gif")
    expected = [f"{tmp_path / 'run' / name} was not drawn: no such thing" for name in names]
    assert failed == expected


def test_curves_leave_diverged_seeds_out_and_keep_the_numbers_of_others(tmp_path, monkeypatch):
    for module, name in ((run_figures, "_of_seeds"), (run_figures, "policy_state")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(exact, "finite_mdp", lambda config: None)
    figures = []
    monkeypatch.setattr(files, "write_figure", lambda path, figure: figures.append(figure))
    failed, returns = np.arange(5) == 1, np.arange(10.0).reshape(2, 5)
    history = [
        SimpleNamespace(steps=100 * (i + 1), failed=failed, episode_return=returns[i])
        for i in range(2)
    ]
    result = SimpleNamespace(history=history, state=None)
    run_figures.write_figures(tmp_path, plans.plan(TINY, 5), result, print, print)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    shown = list(dict.fromkeys(line.split(",")[3] for line in lines[1:]))
    assert shown == ["IQM", "seed 0", "seed 2", "seed 3", "seed 4"]
    legend = figures[0].axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "IQM, 95 % interval (4 of 5 seeds)"
    assert legend.get_title().get_text() == "intervals of 4 seeds: about their range"


def test_the_episode_is_compiled_while_training_runs(tmp_path, monkeypatch):
    """Before the training ends; it is drawn as without."""
    compiled, drawn = [], []
    compile_episode, episode = run_figures.compile_episode, render.episode

    def compiling(config):
        compiled.append(compile_episode(config))
        return compiled[-1]

    def drawing(*arguments, rollout):
        assert compiled == [rollout] and isinstance(rollout, jax.stages.Compiled)
        drawn.append(arguments)
        return episode(*arguments, rollout=rollout)

    monkeypatch.setattr(run_figures, "compile_episode", compiling)
    monkeypatch.setattr(render, "episode", drawing)
    config = small("q_learning", env="frozen_lake")
    run = prl.experiment.run(config, 1, out=tmp_path / "run", reporter=Recorder(), chunks=6)
    *arguments, path = drawn[0]
    episode(*arguments, tmp_path / "again.gif")
    assert (
        (tmp_path / "again.gif").read_bytes()
        == path.read_bytes()
        == (run.path / "episode.gif").read_bytes()
    )


def test_an_episode_that_cannot_be_drawn_is_not_compiled(monkeypatch):
    assert run_figures.compile_episode(small("q_learning", env="maximization_bias")) is None
    monkeypatch.setattr(render, "rollout_program", lambda config: 1 / 0)
    assert run_figures.compile_episode(small("q_learning", env="frozen_lake")) is None
