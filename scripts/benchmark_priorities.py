"""Cost of prioritised replay for different data structures of priorities.

    python scripts/benchmark_priorities.py
    python scripts/benchmark_priorities.py --capacities 1000000 --seeds 1 64   # on an accelerator

One operation is the work of an update of DQN: add one transition, draw a batch, write its new
priorities. `tree F` is this package's sum tree with F children per node (`tree 2` is the common
binary one), `cumsum` a cumulative sum over the whole buffer with a binary search, `gumbel` the top
k of perturbed priorities over the whole buffer. Prints one JSON line per row, appended to
`--record`: microseconds per
operation and seed, the median over rounds in which all structures alternate, and their ratio to
the default.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

from purejaxrl_sac.memory.sum_tree import FAN_OUT, draw_leaves, empty_tree, write_tree
from scripts import record
from scripts.options import Parser, count

FAN_OUTS = (2, 8, 16, 32, 64, 128, 256, 1_024)


def tree(fan_out: int) -> tuple[Callable, Callable, Callable]:
    """The functions (empty, draw, write) of the package's tree."""

    def draw(key: jax.Array, state: Any, batch: int) -> jax.Array:
        return draw_leaves(state, jax.random.uniform(key, (batch, len(state))), fan_out)[0]

    return partial(empty_tree, fan_out=fan_out), draw, partial(write_tree, fan_out=fan_out)


def cumulative_draw(key: jax.Array, state: jax.Array, batch: int) -> jax.Array:
    cumulative = state.cumsum()
    wanted = jax.random.uniform(key, (batch,)) * cumulative[-1]
    return jnp.searchsorted(cumulative, wanted, side="right").astype(jnp.int32)


def gumbel_draw(key: jax.Array, state: jax.Array, batch: int) -> jax.Array:
    return jax.lax.top_k(jnp.log(state) + jax.random.gumbel(key, state.shape), batch)[1]


def flat_write(state: jax.Array, leaf: jax.Array, value: jax.Array) -> jax.Array:
    return state.at[leaf].set(value)


STRUCTURES = {
    **{f"tree {fan_out}": tree(fan_out) for fan_out in FAN_OUTS},
    "cumsum": (jnp.zeros, cumulative_draw, flat_write),
    "gumbel": (jnp.zeros, gumbel_draw, flat_write),
}


def timer(name: str, capacity: int, seeds: int, batch: int, operations: int) -> Callable:
    """Compile; return a function that runs once and returns its seconds."""
    empty, draw, write = STRUCTURES[name]

    def operation(carry: tuple, count: jax.Array) -> tuple:
        key, state = carry
        key, key_draw, key_value = jax.random.split(key, 3)
        state = write(state, count[None] % capacity, jnp.ones(1))
        leaf = draw(key_draw, state, batch)
        state = write(state, leaf, jax.random.uniform(key_value, (batch,)))
        return (key, state), leaf[0]

    def run(key: jax.Array, state: Any) -> tuple:
        return jax.lax.scan(operation, (key, state), jnp.arange(operations))

    def initial(key: jax.Array) -> Any:
        return write(empty(capacity), jnp.arange(capacity), jax.random.uniform(key, (capacity,)))

    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.jit(jax.vmap(initial))(keys)
    compiled = jax.jit(jax.vmap(run), donate_argnums=1).lower(keys, state).compile()

    def once() -> float:
        nonlocal state
        start_time = time.perf_counter()
        (_, state), _ = jax.block_until_ready(compiled(keys, state))
        return time.perf_counter() - start_time

    once()
    return once


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--capacities", nargs="+", type=count, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seeds", nargs="+", type=count, default=[1, 8])
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=STRUCTURES)
    record.add_record(parser, "speed")
    options = parser.parse_args()
    stamp = record.stamp("priorities", depends=["memory.sum_tree"])
    for capacity in options.capacities:
        for seeds in options.seeds:
            timers, operations = {}, {}
            for name in options.structures:
                whole = not name.startswith("tree")  # slower: O(capacity) per operation
                operations[name] = max(3, 2_000_000 // (capacity * seeds)) if whole else 500
                timers[name] = timer(name, capacity, seeds, options.batch, operations[name])
            seconds: dict[str, list[float]] = {name: [] for name in timers}
            for _ in range(options.rounds):
                for name, once in timers.items():
                    seconds[name].append(once())
            us = {
                name: statistics.median(times) / operations[name] / seeds * 1e6
                for name, times in seconds.items()
            }
            default = us.get(f"tree {FAN_OUT}")
            for name, value in us.items():
                row = {"capacity": capacity, "seeds": seeds, "batch": options.batch}
                row |= {"kind": name, "value": round(value, 2)}
                row |= {"times": round(value / default, 2)} if default else {}
                record.append(options.record, {**stamp, **row})


if __name__ == "__main__":
    main()
