"""`compile`: ahead-of-time compilation for devices that are not installed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

import purejaxrl_sac as prl
from purejaxrl_sac.envs import bind
from scripts import hlo, record, targets
from scripts.accelerators.work import (
    KINDS,
    Work,
    figures,
    kernel_figures,
    main_environment,
    main_works,
    programs,
)
from scripts.peers.environment import checked, peer_python

SCRIPT = Path(__file__).parents[1] / "accelerator.py"
WORKER = "PUREJAXRL_ACCELERATOR_TARGET"  # set in compiling subprocesses
PEERS = {"rejax": "rejax 0.1.3"}
PEER_WORKS = {
    "dqn": "CartPole-v1",
    "sac": "Pendulum-v1",
}  # that rejax supports, as one update
SEEDS = (1, 64, 1024)


@dataclasses.dataclass
class Compile:
    """Options of `compile`."""

    works: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    kind: str = "preset"
    seeds: tuple[int, ...] = ()
    peer: str | None = None
    peer_environment: Path = Path(tempfile.gettempdir()) / "purejaxrl-rejax-cuda12"
    record: Path = record.ACCELERATOR
    text: Path | None = None
    again: bool = False


def compile_(options: Compile, arguments: list[str]) -> int:
    """Compile what is not recorded, in a subprocess per target; the exit status.

    Args:
        arguments: the command line from which the options were parsed.

    Raises:
        ConfigError, TargetError: invalid input.
    """
    worker = os.environ.get(WORKER)
    works = chosen(options)
    if worker:
        return compile_for(targets.find(worker), works, options)
    found = wanted(options.targets)
    if options.peer and all(target.platform != "cuda" for target in found):
        raise prl.ConfigError(f"{options.peer} is compiled for GPUs: give --target h100")
    if options.peer and not peer_works(works):
        known = " and ".join(f"{name}:{env}" for name, env in PEER_WORKS.items())
        raise prl.ConfigError(f"{options.peer} is compared on {known}: name one of them")
    return max(compile_apart(target, works, options, arguments) for target in found)


def compile_apart(
    target: targets.Target, works: list[Work], options: Compile, arguments: list[str]
) -> int:
    """Compile for one target in a subprocess, which is restarted if the compiler crashes."""
    environment = {**targets.environment(target), WORKER: target.name}
    while True:
        command = [sys.executable, SCRIPT, *arguments, "--record", str(options.record)]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status >= 0:
            return status
        rows = [x.stamp("compile", target.name) for x in works]
        missing = [row for row in rows if not record.recorded(options.record, row)]
        if options.again or not missing:
            print(f"the compiler for {target.name} crashed", file=sys.stderr)
            return 1
        crash = f"the compiler crashed with signal {-status}"
        record.append(options.record, {**missing[0], "error": crash})


def peer_works(works: list[Work]) -> list[Work]:
    """The works that the peer supports, without duplicates."""
    found = [work for work in works if PEER_WORKS.get(work.algorithm) == work.environment]
    return list(dict.fromkeys(dataclasses.replace(work, kind="one update") for work in found))


def wanted(names: tuple[str, ...]) -> list[targets.Target]:
    """The targets with these names; by default all whose compiler is installed.

    Raises:
        TargetError: a name is unknown, or no compiler is installed for it.
    """
    if names:
        found = [targets.find(name) for name in names]
        for target in found:
            targets.require(target)
        return found
    found = [target for name in targets.names() if (target := targets.find(name)).installed]
    if not found:
        raise targets.TargetError(
            "no compiler for accelerators is installed:"
            ' pip install "purejaxrl_sac[cuda12]" for GPUs or "purejaxrl_sac[tpu]" for TPUs'
        )
    return found


def chosen(options: Compile) -> list[Work]:
    """The works to compile: `algorithm[:environment]` for each number of seeds, or the default.

    Raises:
        ConfigError: an algorithm, environment, kind, peer or number of seeds is invalid.
    """
    if options.kind not in KINDS:
        raise prl.ConfigError(f"no kind is called {options.kind}: use one of {', '.join(KINDS)}")
    if options.peer not in (None, *PEERS):
        raise prl.ConfigError(f"no peer is called {options.peer}: use {', '.join(PEERS)}")
    if min(options.seeds, default=1) < 1:
        raise prl.ConfigError(f"seeds is {min(options.seeds)}, but must be at least 1")
    if not options.works:
        return [work for seeds in options.seeds or (64,) for work in main_works(seeds)]
    found = []
    for text in options.works:
        algorithm, _, environment = text.partition(":")
        environment = environment or main_environment(algorithm)
        prl.default_config(algorithm)
        bind(environment)
        seeds = options.seeds or SEEDS
        found += [Work(algorithm, environment, options.kind, number) for number in seeds]
    return found


def compile_for(target: targets.Target, works: list[Work], options: Compile) -> int:
    """Compile works for one target in this process, and record a row for each."""
    status = 0
    for work in works:
        row = work.stamp("compile", target.name)
        if not options.again and record.recorded(options.record, row):
            continue
        try:
            row |= compiled_figures(target, work, options.text)
        except prl.ConfigError as error:
            print(f"{work.algorithm} on {work.environment}: {error}", file=sys.stderr, flush=True)
            status = 2
            continue
        except Exception as error:
            row |= {"error": record.one_line(error), **overflow(str(error))}
        record.append(options.record, row)
    if options.peer and target.platform == "cuda":
        for work in peer_works(works):
            status = max(status, peer(target, work, options))
    return status


def compiled_figures(target: targets.Target, work: Work, folder: Path | None) -> dict:
    """Figures of one work for one target; the HLO text is written to the folder."""
    _, run, _, state = programs(work)
    start_time = time.perf_counter()
    program = targets.compiled(target, run, state, donate=(0,))
    seconds = time.perf_counter() - start_time
    if folder:
        write_text(folder, target, work, program.as_text())
    return figures(work, program, seconds, target.platform == "cuda")


def overflow(message: str) -> dict:
    """Bytes of temporaries, from the message of a TPU compiler that ran out of memory."""
    found = re.search(r"HLO temporaries \((\d+\.\d+)G\)", message)
    return {"temp_bytes": round(float(found.group(1)) * 2**30)} if found else {}


def write_text(folder: Path, target: targets.Target, work: Work, text: str, peer: str = "") -> None:
    """Write the HLO text of a program to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{peer} {work.algorithm} {work.environment} {work.kind} {work.seeds} {target.name}"
    (folder / (name.strip().replace(" ", "_").replace("/", "_") + ".txt")).write_text(text)


def peer(target: targets.Target, work: Work, options: Compile) -> int:
    """Record a row of the peer for the same work, compiled in its own virtual environment."""
    row = work.stamp("compile", target.name)
    row |= {"library": PEERS[options.peer], "version": PEERS[options.peer], "code": ""}
    if not options.again and record.recorded(options.record, row):
        return 0
    python = peer_python(options.peer_environment, jax_package="jax[cuda12]")
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory) / "program.txt"
        request = {"algorithm": work.algorithm, "env": work.environment, "seeds": work.seeds}
        request |= {"iterations": 200, "warmup": 256, "capacity": 10_000}
        request |= {"batch_size": 256 if work.algorithm == "sac" else 128}
        request |= {"target": target.name, "text": str(text)}
        script = SCRIPT.parent / "peers" / "compile_training.py"
        command = [python, script, "rejax_training", json.dumps(request)]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if finished.returncode:
            print(f"rejax cannot compile {work.algorithm}: see its error above", file=sys.stderr)
            return 1
        if options.text:
            write_text(options.text, target, work, text.read_text(), options.peer)
        counts = kernel_figures(hlo.iteration(hlo.launches(text.read_text())))
    row |= {name: counts[name] for name in ("kernels", "copies", "branches")}
    answer = checked(json.loads(finished.stdout.splitlines()[-1]), {"jax": jax.__version__})
    record.append(options.record, row | answer)
    return 0
