"""Several processes of one run, over gloo: equal numbers, and clear errors."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from jax._src.clusters import cloud_tpu_cluster

import purejaxrl_sac as prl
from purejaxrl_sac import ConfigError, cli
from purejaxrl_sac.experiment.devices import processes
from tests.test_runs import metrics, same

CONFIG = prl.preset("q_learning", "chain").replace(total_steps=60_000)
PLANNED = {"seeds": 3, "chunks": 30, "episodes": 4}
FLAGS = ["--env=chain", "--steps=60000", "--seeds=3", "--chunks=30", "--episodes=4"]


@pytest.fixture
def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(port, process, processes, *command):
    joined = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    joined += [f"--process={process}", "--cpu-devices=1", "--json", "--join-timeout=90"]
    words = [sys.executable, "-m", "purejaxrl_sac", *command, *joined]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def together(port, processes, *command):
    """Runs a command in several processes, and checks their exit statuses."""
    begun = [start(port, i, processes, *command) for i in range(processes)]
    said = [process.communicate(timeout=300)[1] for process in begun]
    assert [process.returncode for process in begun] == [0] * processes, said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run in one process, on one device; read-only."""
    out = tmp_path_factory.mktemp("hosts") / "whole"
    return prl.experiment.run(CONFIG, out=out, devices=1, **PLANNED)


def check_equal(path, whole):
    run = prl.experiment.load(path, whole=True)
    assert same(run.state, whole.state)
    for found, expected in zip(metrics(path), metrics(whole.path), strict=True):
        for name, values in expected.items():  # means are summed in another order
            np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)
    assert run.summary["greedy_returns"] == whole.summary["greedy_returns"]


def killed(port, path, victim=1):
    """A run of two processes, one of which is killed after a checkpoint."""
    command = ["train", "q_learning", *FLAGS, "--out", str(path), "--checkpoint-minutes=0"]
    begun = [start(port, i, 2, *command) for i in (0, 1)]
    end = time.monotonic() + 240
    while not any(found.name.isdigit() for found in (path / "checkpoints").glob("*")):
        assert begun[0].poll() is None and time.monotonic() < end, begun[0].communicate()
        time.sleep(0.01)
    begun[victim].send_signal(signal.SIGKILL)
    begun[victim].communicate()
    left = begun[1 - victim]
    said = left.communicate(timeout=300)[1]
    ours = "another process of this run was lost: the last checkpoint is intact" in said
    assert left.returncode == 1 if ours else victim == 0 and "another task died" in said  # XLA's
    assert not (path / "summary.json").exists()


def test_the_loss_of_a_process_is_reported_and_one_process_can_resume(whole, port, tmp_path):
    killed(port, tmp_path / "run")
    prl.experiment.resume(tmp_path / "run")
    check_equal(tmp_path / "run", whole)


@pytest.mark.slow
def test_three_processes_resume_a_run_of_two(whole, port, tmp_path):
    killed(port, tmp_path / "run", victim=0)  # the coordinator
    together(port + 1, 3, "resume", str(tmp_path / "run"))
    check_equal(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_sweep_is_equal_in_two_processes(port, tmp_path):
    flags = ["--env=chain", "--steps=3000", "--seeds=2", "--chunks=2", "--episodes=4"]
    command = ["sweep", "q_learning", *flags, "--grid", "learning-rate=0.1,0.5,0.9", "--out"]
    together(port, 2, *command, str(tmp_path / "two"))
    words = [sys.executable, "-m", "purejaxrl_sac", *command, str(tmp_path / "one"), "--json"]
    subprocess.run(words, check=True, capture_output=True)
    one, two = ((tmp_path / name / "table.csv").read_text() for name in ("one", "two"))
    assert one == two
    one, two = (json.loads((tmp_path / x / "summary.json").read_text()) for x in ("one", "two"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "differing"),
    [
        (["train"], ["--gamma=0.9", "--gamma=0.8"]),
        (["train"], ["--name=a", "--name=b"]),
        (["sweep", "--grid=gamma=0.9,0.8"], ["--fresh-seeds=0", "--fresh-seeds=1"]),
    ],
)
def test_processes_with_different_arguments_are_refused(
    command, differing, port, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out = [] if "--name=a" in differing else ["--out=run"]
    (name, *more), flags = command, [*FLAGS, *out]
    begun = [start(port, i, 2, name, "q_learning", *flags, *more, differing[i]) for i in (0, 1)]
    for process in begun:
        assert "processes 1 and process 0 were started with different" in process.communicate()[1]
        assert process.returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_several_processes_need_a_name_for_their_directory(port, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = [start(port, i, 2, "train", "q_learning", *FLAGS) for i in (0, 1)]
    assert all("give --name or --out" in process.communicate()[1] for process in begun)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("process", "status", "message"),
    [
        (1, 2, "did not answer within 1 s"),
        (0, 1, "not all 2 processes connected to 127.0.0.1"),
    ],
)
def test_joining_times_out(process, status, message, port, tmp_path):
    out = ["--out", str(tmp_path / "run"), "--join-timeout=1"]
    begun = start(port, process, 2, "train", "q_learning", *FLAGS)
    begun.kill()
    begun.communicate()
    words = [*begun.args, *out]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, None), "give all three or none"),
        (("host:1", 2, 2), "process is 2, but must be between 0 and 1"),
        (("host", 2, 0), "takes HOST:PORT, not 'host'"),
        (("host:99999", 2, 1), "takes HOST:PORT, not 'host:99999'"),
    ],
)
def test_bad_addresses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        processes.join(*arguments)


def test_policies_are_evaluated_by_one_process(capsys):
    assert cli.main(["eval", "run", "--coordinator=host:1", "--processes=2", "--process=0"]) == 2
    assert "coordinator" in capsys.readouterr().err


def test_joining_twice_is_joining_once(monkeypatch):
    monkeypatch.setattr(processes, "is_distributed", lambda: True)
    processes.join("127.0.0.1:1", 2, 1, timeout=1)


def test_a_port_in_use_is_refused():
    found = socket.create_server(("", 0))
    port = found.getsockname()[1]
    with found, pytest.raises(ConfigError, match=f"port {port} is not available"):
        processes.join(f"127.0.0.1:{port}", 2, 0)


def test_the_number_of_processes_is_detected(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TPU_"))]:
        monkeypatch.delenv(name)
    assert processes.expected() is None
    processes.join()  # does nothing for a single process
    batch = {"JOB_ID": "7", "NTASKS": "4", "PROCID": "0", "LOCALID": "0"}
    for name, value in batch.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert processes.expected() is None  # a batch script, outside of srun
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-4]")
    assert processes.expected() == 4
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert processes.expected() is None
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # no request to the metadata server
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c")
    assert processes.expected() == 3


def test_a_single_process_needs_no_communication():
    assert processes.is_single() and processes.is_first() and not processes.is_distributed()
    assert (
        processes.any_of(True, False) == [True, False]
        and processes.sum_uint32(2**32 - 1) == 2**32 - 1
    )
    assert processes.minimum(7) == 7 and processes.gather(np.arange(3)).shape == (1, 3)
    processes.check_equal("anything")
    with pytest.raises(ConfigError, match="as it is"):
        processes.on_first(lambda: (_ for _ in ()).throw(ConfigError("as it is")))
    assert processes.lost_process(ValueError("Gloo all-reduce failed")) is None
