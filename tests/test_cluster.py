"""A sweep on a local Ray cluster."""

import os
import signal
import time

import numpy as np
import psutil
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.devices import cluster
from purejaxrl_sac.experiment.devices.mesh import cores
from purejaxrl_sac.experiment.runs.display import Reporter
from purejaxrl_sac.experiment.tuning import points, sweep, sweep_plan

ray = pytest.importorskip("ray")
RATES = points.grid(learning_rate=[0.1, 0.3, 0.5, 0.9])
SHORT = {"seeds": 2, "chunks": 40, "episodes": 4}
CONFIG = prl.preset("q_learning", "chain").replace(total_steps=60_000)


@pytest.fixture
def two_workers():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def working():
    """The workers that train a batch."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.cmdline()[:1] == ["ray::_train"]]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_batch_of_a_killed_worker_is_resumed_in_another(how, two_workers, tmp_path):
    """The results equal those of a sweep in this process."""
    path, seen = tmp_path / "sweep", []

    class Killer(Reporter):
        def message(self, text):
            seen.append(text)

    def engine(batches, **options):
        if len(batches) > 1:  # not for the fresh seeds of the best point
            import threading

            threading.Thread(target=kill, args=(batches,)).start()
        cluster.train_on_ray(batches, reporter=Killer, **options)

    def kill(batches):
        while not any((b.path / "metrics.jsonl").exists() for b in batches):
            time.sleep(0.01)
        (victim, *_) = working()
        seen.append(victim.pid)
        os.kill(victim.pid, how)

    assert cluster.slots() == 2
    plan = {**SHORT, "max_lanes": 4, "checkpoint_minutes": 0}
    found = sweep.run(CONFIG, RATES, out=path, engine=engine, **plan)
    assert any(isinstance(said, int) for said in seen), "no worker was killed"
    assert len([said for said in seen if "batch" in str(said)]) == 3
    expected = sweep.run(CONFIG, RATES, out=tmp_path / "here", **plan)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
    np.testing.assert_allclose(found.fresh, expected.fresh, rtol=1e-6)


@pytest.mark.slow
def test_errors_of_workers_are_raised_here(two_workers, tmp_path):
    made = sweep_plan.plan(CONFIG, RATES, seeds=2)
    sweep_plan.create(tmp_path / "sweep", made)
    with pytest.raises(
        prl.ConfigError, match=f"devices is 99, but must be between 1 and {min(1, cores())}"
    ):
        sweep.train_remaining(
            tmp_path / "sweep", made, engine=lambda b, **o: cluster.train_on_ray(b, devices=99)
        )
    with pytest.raises(
        prl.ConfigError, match="needs 64 CPUs and 0 GPUs, but no host has that many"
    ):
        cluster.train_on_ray([], cpus=64)
    with pytest.raises(prl.ConfigError, match="needs at least 1 CPU"):
        cluster.slots(cpus=0)
    assert not list(tmp_path.glob("sweep/batches/*/metrics.jsonl"))
