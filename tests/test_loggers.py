"""Loggers: what they are given, that they are closed, and that their failures cost no run."""

import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.pictures import compare
from purejaxrl_sac.experiment.runs import engine, loggers, plans
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from tests.test_compare import RETURNS, fake_run
from tests.test_runs import PLAN, TINY, Recorder, stopped


@pytest.fixture(autouse=True, scope="module")
def programs():
    """All runs are of one plan: their programs are compiled once."""
    found = engine.compile_run(plans.plan(TINY, **PLAN), evaluated=True)
    with mock.patch.object(engine, "compile_run", return_value=found):
        yield


class Service:
    """In place of the module `wandb`: records what it is given."""

    def __init__(self):
        self.started, self.rows, self.finished = [], [], 0

    def init(self, **arguments):
        self.started.append(arguments)
        return self

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self):
        self.finished += 1


@pytest.fixture
def service(monkeypatch):
    found = Service()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=found.init))
    return found


def progress(returns, failed_step, latest=None, **evaluation):
    known = np.asarray(returns, float)
    values = dict.fromkeys(plans.Progress._fields)
    values |= {"episode_return": known, "episode_length": known * 2, "metrics": {}}
    values["latest_return"] = known if latest is None else np.asarray(latest, float)
    values |= {"failed_step": np.asarray(failed_step), "evaluation": evaluation}
    return plans.Progress(**values)


def test_returns_are_logged_with_iqm_and_interval_over_healthy_seeds():
    returns = [1.0, 2.0, np.nan, 4.0, 5.0, 100.0]
    greedy = np.arange(6.0)
    found = loggers.scalars(progress(returns, [-1] * 5 + [3], greedy_return=greedy))
    known = np.array([1.0, 2.0, 4.0, 5.0])
    low, high = bootstrap_interval(known)
    assert found["episode_return"] == 3 and found["episode_return_iqm"] == float(iqm(known))
    assert (found["episode_return_low"], found["episode_return_high"]) == (low, high)
    assert found["episode_length"] == 6
    assert found["greedy_return_iqm"] == float(iqm(greedy[:5]))
    assert "episode_return_iqm" not in loggers.scalars(progress([np.nan], [-1]))


def test_seeds_whose_episodes_go_on_count_with_their_latest_return():
    latest = [500.0, 500.0, 500.0, 10.0]
    found = loggers.scalars(progress([np.nan] * 3 + [10.0], [-1] * 4, latest))
    assert found["episode_return"] == 10
    assert found["episode_return_iqm"] == float(iqm(np.array(latest))) == 500
    assert found["episode_return_low"] == 10
    alone = loggers.scalars(progress([10.0], [-1]))
    assert alone["episode_return_iqm"] == 10 and "episode_return_low" not in alone


def test_a_service_is_told_the_configuration_and_the_end(service, tmp_path):
    path, makers = tmp_path / "run", [loggers.WeightsAndBiases]
    stopped(path, TINY, loggers=makers)
    (started,) = service.started
    assert started["config"]["algorithm"] == "q_learning" and started["config"]["seeds"] == 2
    assert started["config"]["gamma"] == TINY.gamma
    assert len(service.rows) == 2 and service.finished == 1
    run = prl.experiment.resume(path, loggers=makers)
    assert [step for step, _ in service.rows] == run.metrics["steps"].tolist()
    assert service.finished == 2
    prl.experiment.run(TINY, out=tmp_path / "new", loggers=makers, **PLAN)
    first, resumed, new = (arguments["id"] for arguments in service.started)
    assert first == resumed != new


def test_a_logger_that_fails_costs_no_run(tmp_path):
    class Broken:
        calls = 0

        def __call__(self, progress):
            self.calls += 1
            raise ConnectionError("no network\nand more")

        def close(self):
            raise OSError("closed already")

    line = Broken.__call__.__code__.co_firstlineno + 2
    broken, rows, reporter = Broken(), [], Recorder()
    makers = [lambda *_: broken, lambda *_: rows.append]
    run = prl.experiment.run(TINY, out=tmp_path / "run", loggers=makers, reporter=reporter, **PLAN)
    assert run.summary is not None and len(rows) == 6 and broken.calls == 1
    said = [text for text in reporter.messages if "logger" in text]
    assert said == [
        f"the logger Broken failed, the run goes on: {text} in test_loggers.py, line {line}"
        for text, line in (
            ("ConnectionError: no network", line),
            ("OSError: closed already", line + 3),
        )
    ]
    with pytest.warns(RunWarning, match="the logger Broken failed, .*: no network"):
        prl.experiment.run(
            TINY, out=tmp_path / "silent", loggers=makers[:1], progress=False, **PLAN
        )


def test_runs_of_different_lengths_are_marked(tmp_path):
    paths = [fake_run(tmp_path / "a"), fake_run(tmp_path / "b", steps=(100, 400, 900))]
    with pytest.warns(RunWarning, match="different numbers of steps: a, 1,600 steps; b, 900 ste"):
        figure = compare.compare(paths, "episode_return", tmp_path / "c.png")
    texts = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert any("1,600 steps" in text for text in texts), texts


def test_scores_of_unfinished_runs_are_marked(tmp_path):
    paths = [fake_run(tmp_path / "a"), fake_run(tmp_path / "b", RETURNS * np.nan)]
    (tmp_path / "b" / "summary.json").unlink()
    with pytest.warns(RunWarning, match="b has no finished episode, and therefore no score"):
        compare.compare(paths, "episode_return", tmp_path / "c.png")


def test_loggers_are_closed_whatever_happens(tmp_path):
    closed = []

    class Log:
        def __init__(self, *_):
            pass

        def __call__(self, progress):
            pass

        def close(self):
            closed.append(self)

    def broken(*_):
        raise prl.ConfigError("no such service")

    with pytest.raises(prl.ConfigError, match="no such service"):
        prl.experiment.run(TINY, out=tmp_path / "a", loggers=[Log, broken], **PLAN)
    assert len(closed) == 1 and not (tmp_path / "a").exists()
    prl.experiment.run(TINY, out=tmp_path / "b", loggers=[Log], **PLAN)
    assert len(closed) == 2
