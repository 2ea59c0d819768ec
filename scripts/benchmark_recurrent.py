"""Recurrent PPO compared with PureJaxRL's, and recurrent PQN: speed and kernels.

    python scripts/benchmark_recurrent.py                                # on this machine
    python scripts/benchmark_recurrent.py --purejaxrl CLONE              # its PPO beside ours
    python scripts/benchmark_recurrent.py --purejaxrl CLONE --target h100   # kernels, no GPU needed

Prints one JSON line per row, appended to `--record`. Both run the same work: CartPole, a rollout of
128 steps in each environment, 4 epochs of 4 minibatches of whole sequences, and a GRU of 128 units
between layers of 128; ours has further connections from the encoder to both heads. `value` is
environment steps per second over all seeds, the median over `--rounds` in which the programs
alternate; compilation is timed separately. With `--target`, it is kernels per iteration (a rollout
and its 16 updates), of programs that are compiled for a GPU. PureJaxRL's code is read from a clone
of its repository, in a virtual environment with the same version of jax.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

import purejaxrl_sac as prl
from scripts import hlo, record, targets
from scripts.benchmark_speed import continuing_timer, over_seeds
from scripts.options import Parser, count
from scripts.peers.environment import PUREJAXRL, Peer, checked, peer_python

ENVIRONMENT = "CartPole-v1"
ROLLOUT, EPOCHS, MINIBATCHES, SIZE = 128, 4, 4, 128
CELLS = ("gru", "min_gru")
COMPILED = 20  # iterations of programs that are compiled for a GPU
WORKER = "PUREJAXRL_RECURRENT_TARGET"  # set in the subprocess that compiles


def configuration(algorithm: str, cell: str, num_envs: int) -> prl.Config:
    """PureJaxRL's settings."""
    return prl.default_config(algorithm).replace(
        env=ENVIRONMENT,
        num_envs=num_envs,
        rollout_length=ROLLOUT,
        num_epochs=EPOCHS,
        num_updates=EPOCHS * MINIBATCHES,
        hidden_sizes=(SIZE, SIZE),
        cell=cell,
        memory_size=SIZE,
        total_steps=num_envs * ROLLOUT * 2**15,  # more than all rounds take
    )


def stamp(what: str, device: str, algorithm: str, cell: str, envs: int, seeds: int) -> dict:
    """The origin and the work of a row."""
    depends = record.algorithm_modules(algorithm)
    names = {"algorithm": algorithm, "environment": ENVIRONMENT}
    return {
        **record.stamp(what, device, depends, **names),
        **names,
        "cell": cell,
        "num_envs": envs,
        "seeds": seeds,
    }


def commit(clone: Path) -> str:
    """The commit of a clone.

    Raises:
        ConfigError: it is no clone of PureJaxRL.
    """
    found = subprocess.run(
        ["git", "-C", clone, "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode or not (clone / "purejaxrl" / "ppo_rnn.py").exists():
        raise prl.ConfigError(f"{clone} is not a clone of PureJaxRL: need purejaxrl/ppo_rnn.py")
    return found.stdout.strip()


def request(clone: Path, envs: int, seeds: int, iterations: int) -> dict[str, Any]:
    """A work of `peers/purejaxrl_training.py`."""
    return {
        "clone": str(clone.resolve()),
        "env": ENVIRONMENT,
        "seeds": seeds,
        "num_envs": envs,
        "rollout_length": ROLLOUT,
        "iterations": iterations,
    }


def state_of(config: prl.Config, seeds: int) -> tuple[Any, jax.Array]:
    """The function that initialises all seeds, and its argument."""
    keys = jax.random.split(jax.random.key(0), seeds)
    return over_seeds(lambda key: prl.init(key, config), seeds), keys[0] if seeds == 1 else keys


def speed(options: argparse.Namespace, peer: Peer | None, envs: int, seeds: int) -> None:
    """Record the rows of one size, measured in turns."""
    iterations = max(2, options.steps // (envs * ROLLOUT * seeds))
    timers: dict[tuple[str, str], tuple] = {}
    rows = {}
    for algorithm in options.algorithms:
        for cell in options.cells:
            config = configuration(algorithm, cell, envs)
            init, keys = state_of(config, seeds)
            rows[algorithm, cell] = stamp("recurrent speed", "", algorithm, cell, envs, seeds)

            def run(state: prl.TrainState, config: prl.Config = config) -> Any:
                return prl.run(state, config, iterations)

            run = over_seeds(run, seeds)
            timers[algorithm, cell] = continuing_timer(run, jax.jit(init)(keys))
    if peer:
        fields = request(options.purejaxrl, envs, seeds, iterations)
        timers["peer", ""] = (peer.request, peer.request(**fields))
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in timers}
    for _ in range(options.rounds):
        for name, (once, _) in timers.items():
            seconds[name].append(once())
    steps = iterations * envs * ROLLOUT * seeds
    rates = {name: steps / statistics.median(times) for name, times in seconds.items()}
    for (algorithm, cell), row in rows.items():
        row["value"] = round(rates[algorithm, cell])
        row["compile_s"] = round(timers[algorithm, cell][1], 2)
        if peer and algorithm == "recurrent_ppo":
            row |= {"peer": f"PureJaxRL {commit(options.purejaxrl)}"}
            row |= {"peer_value": round(rates["peer", ""])}
            row |= {"peer_compile_s": round(timers["peer", ""][1], 2)}
        record.append(options.record, row)


def kernels(options: argparse.Namespace, target: targets.Target, envs: int, seeds: int) -> None:
    """Record kernels per iteration of programs compiled for a target."""
    theirs = {}
    if options.purejaxrl:
        theirs = {
            "peer": f"PureJaxRL {commit(options.purejaxrl)}",
            "peer_value": peer_kernels(options, target, envs, seeds),
        }
    for algorithm in options.algorithms:
        for cell in options.cells:
            config = configuration(algorithm, cell, envs)
            init, keys = state_of(config, seeds)
            state = jax.eval_shape(init, keys)
            row = stamp("recurrent kernels", target.name, algorithm, cell, envs, seeds)

            def run(state: prl.TrainState, config: prl.Config = config) -> Any:
                return prl.run(state, config, COMPILED)

            program = targets.compiled(target, over_seeds(run, seeds), state, donate=(0,))
            row["value"] = hlo.iteration(hlo.launches(program.as_text()), COMPILED).total
            record.append(options.record, row | (theirs if algorithm == "recurrent_ppo" else {}))


def peer_kernels(options: argparse.Namespace, target: targets.Target, envs: int, seeds: int) -> int:
    """PureJaxRL's kernels per iteration."""
    directory = options.peer_environment.with_name(options.peer_environment.name + "-cuda12")
    python = peer_python(directory, PUREJAXRL, "jax[cuda12]")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "program.txt"
        fields = request(options.purejaxrl, envs, seeds, COMPILED)
        fields |= {"target": target.name, "text": str(text)}
        script = Path(__file__).parent / "peers" / "compile_training.py"
        command = [python, script, "purejaxrl_training", json.dumps(fields)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        checked(json.loads(done.stdout.splitlines()[-1]), {"jax": jax.__version__})
        return hlo.iteration(hlo.launches(text.read_text()), COMPILED).total


def check(options: argparse.Namespace) -> None:
    """Raises ConfigError unless all sizes can be measured."""
    for envs in options.envs:
        if envs % MINIBATCHES:
            raise prl.ConfigError(
                f"--envs is {envs}, but must be a multiple of {MINIBATCHES}, the minibatches of"
                " whole sequences"
            )


def main() -> int:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    algorithms = ("recurrent_ppo", "recurrent_pqn")
    parser.add_argument("--algorithms", nargs="+", default=algorithms, choices=algorithms)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--envs", nargs="+", type=count, default=[4, 64])
    parser.add_argument("--seeds", nargs="+", type=count, default=[1, 8])
    parser.add_argument("--steps", type=count, default=65_536, help="per timed run, over all seeds")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--target", help="compile for this GPU in place of timing")
    parser.add_argument("--purejaxrl", type=Path, metavar="CLONE", help="of its repository")
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--peer-environment", type=Path, default=temporary / "purejaxrl-peer")
    record.add_record(parser, "speed")
    options = parser.parse_args()
    try:
        check(options)
        if options.purejaxrl:
            commit(options.purejaxrl)
        if options.target and not os.environ.get(WORKER):
            target = targets.find(options.target)
            targets.require(target)
            environment = {**targets.environment(target), WORKER: target.name}
            command = [sys.executable, *sys.argv]
            return subprocess.run(command, env=environment, check=False).returncode
        peer = None
        if options.purejaxrl and not options.target:
            peer = Peer(peer_python(options.peer_environment, PUREJAXRL), "purejaxrl_training")
        for envs in options.envs:
            for seeds in options.seeds:
                if options.target:
                    kernels(options, targets.find(options.target), envs, seeds)
                else:
                    speed(options, peer, envs, seeds)
    except (prl.ConfigError, targets.TargetError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
