"""Works that are compiled or measured: their programs and figures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.presets import PRESETS
from scripts import hlo, record, targets

KINDS = ("one update", "preset")
SCOPES = ("update", "environment_step")
ONE_UPDATE = {
    "num_envs": 1,
    "rollout_length": 1,
    "noise_repeat": 1,
    "num_updates": 1,
    "num_epochs": 1,
    "warmup_steps": 256,
    "capacity": 10_000,
    "hidden_sizes": (64, 64),
    "total_steps": 2**30,
}


@dataclasses.dataclass(frozen=True)
class Work:
    """An algorithm on an environment, its size, and its number of seeds."""

    algorithm: str
    environment: str
    kind: Literal["one update", "preset"] = "preset"
    seeds: int = 1

    def config(self) -> prl.Config:
        """The configuration, with more total steps than any measurement takes.

        Raises:
            ConfigError: no algorithm has this name.
        """
        config = prl.preset(self.algorithm, self.environment)
        if self.kind == "preset":
            iterations = min(2**30 // config.steps_per_iteration, 2**30 // config.num_updates)
            return config.replace(total_steps=iterations * config.steps_per_iteration)
        config = prl.default_config(self.algorithm).replace(env=self.environment)
        batch = 256 if "sac" in self.algorithm or self.algorithm == "td3" else 128
        known = {field.name for field in dataclasses.fields(config)}
        changes = {**ONE_UPDATE, "batch_size": batch}
        return config.replace(**{name: x for name, x in changes.items() if name in known})

    def stamp(self, what: str, device: str) -> dict[str, Any]:
        """The origin of a row of this work, and the work.

        The row depends on the algorithm's code and, where the kind is preset, on its preset.
        """
        more = ["preset"] if self.kind == "preset" else []
        return {
            **stamp(what, device, self.algorithm, self.environment, more),
            **dataclasses.asdict(self),
        }

    def iterations(self) -> int:
        """Iterations per call of the program: a few milliseconds on a GPU."""
        config = self.config()
        return max(2, 400 // (config.num_updates + config.rollout_length))


def stamp(
    what: str, device: str, algorithm: str, environment: str, more: Sequence[str] = ("preset",)
) -> dict[str, Any]:
    """The origin of a row that depends on an algorithm's code, and on more."""
    depends = [*more, *record.algorithm_modules(algorithm)]
    return record.stamp(what, device, depends, algorithm=algorithm, environment=environment)


def main_environment(algorithm: str) -> str:
    """The default environment of an algorithm if it has a preset, else its first preset's.

    Raises:
        ConfigError: no algorithm has this name.
    """
    default = prl.default_config(algorithm).env
    tuned = [env for name, env in PRESETS if name == algorithm]
    return default if default in tuned or not tuned else tuned[0]


def main_works(seeds: int = 64) -> list[Work]:
    """One update of DQN and of SAC, and the main preset of every algorithm."""
    return [
        Work("dqn", "CartPole-v1", "one update", seeds),
        Work("sac", "Pendulum-v1", "one update", seeds),
        *(Work(name, main_environment(name), "preset", seeds) for name in ALGORITHMS),
    ]


def size(tree: Any) -> int:
    """Total bytes of the arrays of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def programs(work: Work) -> tuple[Callable, Callable, Any, Any]:
    """The functions init(keys) and run(state), and the shapes of keys and state.

    Raises:
        ConfigError: the configuration is invalid.
    """
    config, iterations = work.config(), work.iterations()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), work.seeds))
    one = jax.eval_shape(lambda: jax.random.key(0))
    axes = prl.seed_axes(jax.eval_shape(functools.partial(prl.init, config=config), one))
    init = jax.vmap(functools.partial(prl.init, config=config), out_axes=axes)

    def run(state: prl.TrainState) -> tuple[prl.TrainState, dict]:
        step = functools.partial(prl.run, config=config, iterations=iterations)
        return jax.vmap(step, (axes,), (axes, 0))(state)

    return init, run, keys, jax.eval_shape(init, keys)


def memory_figures(compiled: Any, seeds: int) -> dict:
    """Bytes of the state and of a program's temporaries."""
    used = compiled.memory_analysis()
    state, temporaries = used.argument_size_in_bytes, used.temp_size_in_bytes
    return {
        "state_bytes": state,
        "temp_bytes": temporaries,
        "bytes_per_seed": round((state + temporaries) / seeds),
    }


def kernel_figures(loop: hlo.Launches, updates: int = 1, steps: int = 1) -> dict:
    """Kernels of one iteration by named scope; a cond counts as its largest branch."""
    counts = hlo.by_scope(loop, SCOPES)
    return {
        "kernels": loop.total,
        "per_update": round(counts["update"] / updates, 1),
        "per_step": round(counts["environment_step"] / steps, 1),
        "outside": counts[""],
        "copies": loop.every_copy,
        "branches": [list(pair) for part in loop.walk() for pair in part.branches],
    }


def figures(work: Work, compiled: Any, seconds: float, kernels: bool = True) -> dict:
    """Figures of a compiled chunk.

    Args:
        seconds: compile time.
        kernels: whether to count kernels (programs for GPUs only).
    """
    found = {}
    if kernels:
        loop = hlo.iteration(hlo.launches(compiled.as_text()), work.iterations())
        config = work.config()
        found = kernel_figures(loop, config.num_updates, config.rollout_length)
    return {
        **found,
        **memory_figures(compiled, work.seeds),
        **targets.costs(compiled),
        "compile_seconds": round(seconds, 2),
    }
