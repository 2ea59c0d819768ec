"""Speed of the training loop compared with a lower bound and, optionally, with a peer.

    python scripts/benchmark_speed.py                     # the loop and its floor
    python scripts/benchmark_speed.py --peer rejax        # also the same work by rejax 0.1.3
    python scripts/benchmark_speed.py --seeds 1 64 1024   # on an accelerator
    python scripts/benchmark_speed.py --algorithms pqn    # the preset on Breakout-MinAtar
    python scripts/benchmark_speed.py --algorithms sac redq droq tqc --updates 20

Prints one JSON line per row, appended to `--record`. `value` is microseconds per iteration and
seed, the median over `--rounds`; an iteration is one environment step and one update (or
`--updates`), with networks of 64 x 64 (SimBa and CrossQ's critics have their own; an iteration of
PQN is a rollout and all its epochs). Compilation is timed separately. The floor is the same work
without the loop: environment and policy alone, plus updates alone on one fixed batch. All
measurements of a row, including the peer, alternate within each round, so that noise affects all of
them. Our run continues from round to round, like chunks of a long run; the peer restarts each time,
which costs it about one percent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac import envs
from scripts import record
from scripts.options import Parser, count
from scripts.peers.environment import Peer, peer_python

WARMUP = 256
PEER_LIMIT = 100_000  # rejax samples in O(capacity): larger buffers take minutes per row
WORK = {  # algorithm -> environment, batch size, timed iterations for one seed
    "dqn": ("CartPole-v1", 128, 4_000),
    "per_dqn": ("CartPole-v1", 128, 4_000),
    "c51": ("CartPole-v1", 128, 2_000),
    "qr_dqn": ("CartPole-v1", 128, 2_000),
    "rainbow": ("CartPole-v1", 128, 1_000),
    "sac": ("Pendulum-v1", 256, 1_000),
    "sac_v1": ("Pendulum-v1", 256, 1_000),
    "discrete_sac": ("CartPole-v1", 256, 1_000),
    "td3": ("Pendulum-v1", 256, 1_000),
    "redq": ("Pendulum-v1", 256, 400),
    "droq": ("Pendulum-v1", 256, 1_000),
    "tqc": ("Pendulum-v1", 256, 200),
    "crossq": ("Pendulum-v1", 256, 200),
    "simba": ("Pendulum-v1", 256, 100),
    "pqn": ("Breakout-MinAtar", 128, 5),
}
PEERS = ("dqn", "sac")  # supported by rejax


def configuration(algorithm: str, capacity: int, updates: int) -> prl.Config:
    env, batch_size, _ = WORK[algorithm]
    total_steps = 2**30  # more than all rounds take
    if algorithm == "pqn":
        return prl.preset(algorithm, env).replace(total_steps=total_steps)
    layers = {} if algorithm == "simba" else {"hidden_sizes": (64, 64)}
    return prl.default_config(algorithm).replace(
        env=env,
        batch_size=batch_size,
        capacity=capacity,
        warmup_steps=WARMUP,
        total_steps=total_steps,
        num_updates=updates,
        **layers,
    )


def over_seeds(function: Callable, seeds: int) -> Callable:
    """The function, vmapped over all arguments for several seeds."""
    return function if seeds == 1 else jax.vmap(function)


def timer(function: Callable, *arguments: Any) -> tuple[Callable[[], float], float]:
    """Compile; return a function that runs once and returns its seconds, and compile seconds."""
    start_time = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start_time

    def once() -> float:
        start_time = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        return time.perf_counter() - start_time

    once()
    return once, compile_seconds


def continuing_timer(function: Callable, state: Any) -> tuple[Callable[[], float], float]:
    """Like `timer`, but each call continues from the donated state of the previous one."""
    start_time = time.perf_counter()
    compiled = jax.jit(function, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - start_time

    def once() -> float:
        nonlocal state
        start_time = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state))
        return time.perf_counter() - start_time

    once()
    return once, compile_seconds


def ours(config: prl.Config, seeds: int, iterations: int) -> dict[str, tuple]:
    """Timers of the training loop and of the two parts of its floor."""
    env = envs.bind(config.env)
    _, agent, memory = prl.build(config)
    keys = jax.random.split(jax.random.key(0), seeds)
    keys = keys[0] if seeds == 1 else keys
    init = jax.jit(over_seeds(partial(prl.init, config=config), seeds))
    state = init(keys)

    def run(state: prl.TrainState) -> tuple[prl.TrainState, dict]:
        return prl.run(state, config, iterations)

    def environment(key: jax.Array, state: prl.TrainState) -> Any:
        """The rollouts of a run, without memory and updates."""

        def actor(key: jax.Array, obs: jax.Array, step: jax.Array, carry: Any) -> tuple:
            return agent.act(key, state.agent, obs, step, carry)

        keys = jax.random.split(key, (iterations * config.rollout_length, 1 + config.num_envs))
        env_state, (_, episodes) = envs.rollout(env, keys, state.env, jnp.int32(WARMUP), actor)
        return env_state, jax.tree.map(jnp.sum, episodes)

    def update(key: jax.Array, state: prl.TrainState) -> Any:
        """The updates of a run, on one fixed batch."""
        draw = memory.draw(key, state.memory, jnp.int32(WARMUP), 1)
        sample = memory.sample(state.memory, jax.tree.map(lambda x: x[0], draw))

        def body(agent_state: Any, xs: tuple) -> tuple:
            key, count = xs
            agent_state, _, metrics = agent.update(key, agent_state, sample, count)
            return agent_state, metrics

        updates = iterations * config.num_updates
        xs = (jax.random.split(key, updates), jnp.arange(updates))
        return jax.lax.scan(body, state.agent, xs)

    return {
        "run": continuing_timer(over_seeds(run, seeds), init(keys)),
        "environment": timer(over_seeds(environment, seeds), keys, state),
        "update": timer(over_seeds(update, seeds), keys, state),
    }


def prepare(peer: Peer, algorithm: str, seeds: int, capacity: int, iterations: int) -> tuple:
    """A timer of rejax's training, as `timer` returns it."""
    env, batch_size, _ = WORK[algorithm]
    compile_seconds = peer.request(
        algorithm=algorithm,
        env=env,
        batch_size=batch_size,
        seeds=seeds,
        capacity=capacity,
        warmup=WARMUP,
        iterations=iterations,
    )
    return peer.request, compile_seconds


def measure(options: argparse.Namespace) -> None:
    """Measure and record all rows."""
    python = peer_python(options.peer_environment) if options.peer else None
    peer = Peer(python, "rejax_training") if python else None
    for algorithm in options.algorithms:
        for seeds in options.seeds:
            for capacity in options.buffers if algorithm != "pqn" else [0]:
                timed = max(WORK[algorithm][2] // options.updates, 5)
                iterations = max(min(timed, 200), timed // (seeds if seeds < 16 else 16))
                config = configuration(algorithm, capacity, options.updates)
                names = {"algorithm": algorithm, "environment": config.env}
                preset = ["preset"] if algorithm == "pqn" else []
                depends = [*preset, *record.algorithm_modules(algorithm)]
                stamp = record.stamp("speed", depends=depends, **names)
                timers = ours(config, seeds, iterations)
                with_peer = peer is not None and algorithm in PEERS and capacity <= PEER_LIMIT
                if with_peer and options.updates == 1:
                    timers["peer"] = prepare(peer, algorithm, seeds, capacity, iterations)
                seconds: dict[str, list[float]] = {name: [] for name in timers}
                for _ in range(options.rounds):
                    for name, (once, _) in timers.items():
                        seconds[name].append(once())
                us = {
                    name: statistics.median(times) / iterations / seeds * 1e6
                    for name, times in seconds.items()
                }
                floor = us["environment"] + us["update"]
                extremes = min(seconds["run"]), max(seconds["run"])
                row = {
                    **stamp,
                    **names,
                    "seeds": seeds,
                    "buffer": capacity,
                    "updates": config.num_updates,
                    "value": round(us["run"], 2),
                    "range": [round(x / iterations / seeds * 1e6, 2) for x in extremes],
                    "floor_us": round(floor, 2),
                    "floor_ratio": round(us["run"] / floor, 3),
                    "us_per_update": round(us["run"] / config.num_updates, 2),
                    "steps_per_second": round(config.steps_per_iteration * 1e6 / us["run"]),
                    "compile_s": round(timers["run"][1], 2),
                }
                if "peer" in timers:
                    row["peer"] = "rejax 0.1.3"
                    row["peer_us"] = round(us["peer"], 2)
                record.append(options.record, row)


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--algorithms", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--seeds", nargs="+", type=count, default=[1, 8])
    parser.add_argument("--buffers", nargs="+", type=count, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--updates", type=count, default=1, help="per iteration")
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--peer", choices=["rejax"])
    parser.add_argument(
        "--peer-environment", type=Path, default=Path(tempfile.gettempdir()) / "purejaxrl-rejax"
    )
    record.add_record(parser, "speed")
    options = parser.parse_args()
    try:
        measure(options)
    except prl.ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
