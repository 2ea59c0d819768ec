"""Loggers: what they are given, that they are closed, and that their failures cost no run."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.pictures import compare
from purejaxrl_sac.experiment.runs import loggers, plans
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from tests.conftest import small
from tests.test_runs import SHORT, Recorder

TINY = small("q_learning", env="chain")


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


def progress(returns, failed_step, **evaluation):
    known = np.asarray(returns, float)
    values = dict.fromkeys(plans.Progress._fields)
    values |= {"episode_return": known, "episode_length": known * 2, "metrics": {}}
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


def test_a_service_is_told_the_configuration_and_the_end(service, tmp_path):
    path = tmp_path / "run"
    run = prl.experiment.run(TINY, out=path, loggers=[loggers.WeightsAndBiases], **SHORT)
    (started,) = service.started
    assert started["config"]["algorithm"] == "q_learning" and started["config"]["seeds"] == 2
    assert started["config"]["gamma"] == TINY.gamma
    assert [step for step, _ in service.rows] == run.metrics["steps"].tolist()
    assert service.finished == 1
    longer = TINY.total_steps * 2
    prl.experiment.resume(path, steps=longer, loggers=[loggers.WeightsAndBiases])
    prl.experiment.run(TINY, out=tmp_path / "new", loggers=[loggers.WeightsAndBiases], **SHORT)
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

    broken, rows, reporter = Broken(), [], Recorder()
    makers = [lambda *_: broken, lambda *_: rows.append]
    run = prl.experiment.run(TINY, out=tmp_path / "run", loggers=makers, reporter=reporter, **SHORT)
    assert run.summary is not None and len(rows) == 6 and broken.calls == 1
    said = [text for text in reporter.messages if "logger" in text]
    assert said == [
        "the logger Broken failed, the run goes on: no network",
        "the logger Broken failed, the run goes on: closed already",
    ]


def test_runs_of_different_lengths_are_marked(tmp_path):
    prl.experiment.run(TINY, out=tmp_path / "a", **SHORT)
    longer = TINY.replace(total_steps=480)
    prl.experiment.run(longer, out=tmp_path / "b", **SHORT)
    paths = [tmp_path / "a", tmp_path / "b"]
    with pytest.warns(RunWarning, match="different numbers of steps: a, 240 steps; b, 480 steps"):
        figure = compare.compare(paths, "episode_return", tmp_path / "c.png")
    texts = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert any("240 steps" in text for text in texts), texts


def test_scores_of_unfinished_runs_are_marked(tmp_path):
    for name in ("a", "b"):
        prl.experiment.run(TINY, out=tmp_path / name, **SHORT)
    (tmp_path / "b" / "summary.json").unlink()
    paths = [tmp_path / "a", tmp_path / "b"]
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
        prl.experiment.run(TINY, out=tmp_path / "a", loggers=[Log, broken], **SHORT)
    assert len(closed) == 1 and not (tmp_path / "a").exists()
    prl.experiment.run(TINY, out=tmp_path / "b", loggers=[Log], **SHORT)
    assert len(closed) == 2
