"""SAC and its variants on Brax, compared with Brax's SAC for the same steps, updates and networks.

    python scripts/benchmark_brax.py hopper/spring --peer
    python scripts/benchmark_brax.py hopper/spring --algorithms sac redq droq --updates 16
    python scripts/benchmark_brax.py hopper/spring --algorithms tqc --set num_critics=2
    python scripts/benchmark_brax.py hopper/spring --algorithms droq --directory hopper

Needs the extra `brax`. Prints a JSON line per algorithm, appended to `--record`: returns of greedy
episodes of 1,000 steps, as IQM over seeds with its 95 % bootstrap interval, and training seconds
per seed without compilation. With `--directory` the runs of this package are kept there, and the
same command continues one that was stopped. All algorithms make `--updates` updates of 256
transitions after each step of 16 environments, normalise observations and have a target entropy of
-1/2 nat per dimension if they learn a temperature. REDQ and DroQ update their actors with every
update here. SimBa and CrossQ's critics keep their own networks, and SimBa its own learning rate.

Brax fills its replay memory with the untrained policy, this package with uniform actions; Brax
starts all episodes of an environment from the state of the first one. Its seeds are trained
sequentially, ours in one batch. Brax 0.14's trainer calls `jax.device_put_replicated`, which was
removed from JAX: it is defined here for one device.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import normalize
from purejaxrl_sac.experiment import errors
from purejaxrl_sac.experiment.runs.plans import plan
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from scripts import record
from scripts.benchmark_learning import setting, trained
from scripts.options import Parser, count

EPISODES, LENGTH = 64, 1_000
ALGORITHMS = ("sac", "redq", "droq", "tqc", "simba", "crossq", "td3")
PEER = "brax.training sac"
SHARED = {
    "num_envs": 16,
    "warmup_steps": 8_000,
    "batch_size": 256,
    "hidden_sizes": (64, 64),
    "alpha_learning_rate": 3e-4,  # Brax's, which cannot be changed there
    "gamma": 0.99,
    "tau": 0.005,
    "target_entropy_per_dim": -0.5,  # the same
}


def configuration(algorithm: str, env: str, options: argparse.Namespace) -> prl.Config:
    config = prl.default_config(algorithm)
    fields = {
        **SHARED,
        "env": env,
        "total_steps": options.steps,
        "capacity": options.steps,
        "num_updates": options.updates,
        "wrappers": (normalize.observations,),
        "learning_rate": options.learning_rate,
    }
    if algorithm == "simba":  # its own are part of the algorithm
        del fields["wrappers"], fields["learning_rate"]
    if algorithm in ("redq", "droq"):
        fields["policy_delay"] = 1
    fields |= options.set
    known = {field.name for field in dataclasses.fields(config)}
    return config.replace(**{name: value for name, value in fields.items() if name in known})


def ours(
    config: prl.Config, seeds: int, root: int, folder: Path, stamp: dict
) -> tuple[dict, np.ndarray, float]:
    """The stamp, greedy returns per seed and seconds of training per seed of a run."""
    wanted = plan(config, seeds, seed=root, episodes=EPISODES)
    run, history, stamp = trained(wanted, folder, stamp)
    return stamp, run.greedy_returns, history[-1].seconds / seeds


def brax(env: str, options: argparse.Namespace, stamp: dict) -> tuple[dict, np.ndarray, float]:
    """The stamp, greedy returns per seed and seconds of training per seed of Brax's SAC."""
    from brax import envs
    from brax.training.agents.sac import networks, train

    def replicated(tree: Any, devices: list) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)

    jax.device_put_replicated = replicated
    task, *backend = env.split("/")[1:]
    scores, speeds = [], []

    def progress(step: int, metrics: dict) -> None:
        if step > 0:
            speeds.append(float(metrics["training/sps"]))

    for seed in range(options.seeds):
        *_, metrics = train.train(
            envs.get_environment(task, **({"backend": backend[0]} if backend else {})),
            num_timesteps=options.steps,
            episode_length=LENGTH,
            num_envs=SHARED["num_envs"],
            num_eval_envs=EPISODES,
            learning_rate=options.learning_rate,
            discounting=SHARED["gamma"],
            seed=options.root + seed,
            batch_size=SHARED["batch_size"],
            num_evals=11,  # the first of ten parts includes compilation
            normalize_observations=True,
            max_devices_per_host=1,
            reward_scaling=options.reward_scaling,
            tau=SHARED["tau"],
            min_replay_size=SHARED["warmup_steps"],
            max_replay_size=options.steps,
            grad_updates_per_step=options.updates,
            deterministic_eval=True,
            network_factory=partial(
                networks.make_sac_networks, hidden_layer_sizes=SHARED["hidden_sizes"]
            ),
            progress_fn=progress,
        )
        scores.append(float(metrics["eval/episode_reward"]))
    steady = [speed for i, speed in enumerate(speeds) if i % 10]
    learning = options.steps - SHARED["warmup_steps"]
    return stamp, np.array(scores), learning / float(np.median(steady))


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("env", help="TASK or TASK/BACKEND, such as hopper/spring")
    parser.add_argument("--algorithms", nargs="*", default=["sac"], choices=ALGORITHMS)
    parser.add_argument("--peer", action="store_true", help="also train Brax's SAC")
    parser.add_argument("--steps", type=count, default=200_000)
    parser.add_argument("--updates", type=count, default=8, help="per 16 environment steps")
    parser.add_argument("--seeds", type=count, default=5)
    parser.add_argument("--root", type=int, default=20, help="seed of all random numbers")
    parser.add_argument("--reward-scaling", type=float, default=1.0, help="for Brax's SAC")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="not for SimBa")
    parser.add_argument("--set", nargs="*", default=[], type=setting, metavar="NAME=VALUE")
    parser.add_argument("--directory", type=Path, help="of the runs, to continue those in it")
    record.add_record(parser, "learning")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    env = f"brax/{options.env}"
    options.steps -= options.steps % SHARED["num_envs"]
    options.set = dict(options.set)
    try:
        configs = {name: configuration(name, env, options) for name in options.algorithms}
        for config in configs.values():
            prl.make_train(config)
        known = {field.name for config in configs.values() for field in dataclasses.fields(config)}
        if unknown := options.set.keys() - known:
            raise prl.ConfigError(f"none of the algorithms has {', '.join(sorted(unknown))}")
    except (prl.ConfigError, TypeError) as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.directory or Path(temporary)
        work = {
            name: partial(ours, config, options.seeds, options.root, folder / name)
            for name, config in configs.items()
        }
        if options.peer:
            work[PEER] = partial(brax, env, options)
        try:
            for name, measure in work.items():
                depends = ["normalize", "envs.brax", "evaluate", "experiment.runs.engine"]
                depends += record.algorithm_modules(name)
                stamp = record.stamp("learning", depends=depends)
                append(options, env, name, configs.get(name), *measure(stamp))
        except (prl.ConfigError, errors.RunError, errors.StoppedError) as error:
            sys.exit(f"error: {error}")


def append(
    options: argparse.Namespace,
    env: str,
    name: str,
    config: prl.Config | None,
    stamp: dict,
    scores: np.ndarray,
    seconds: float,
) -> None:
    """Record the scores of one algorithm."""
    low, high = bootstrap_interval(scores)
    row = {
        **stamp,
        **({"library": "brax 0.14.2"} if name == PEER else {}),
        "algorithm": "sac" if name == PEER else name,
        "environment": env,
        "kind": "equal updates",
        "steps": options.steps,
        "updates": options.updates * (options.steps - SHARED["warmup_steps"]) // SHARED["num_envs"],
        "learning_rate": getattr(config, "learning_rate", options.learning_rate),
        "reward_scaling": options.reward_scaling if name == PEER else 1.0,
        "changed": {} if name == PEER else options.set,
        "seeds": options.seeds,
        "root": options.root,
        "episodes": EPISODES * options.seeds,
        "value": round(float(iqm(scores)), 1),
        "interval": [round(float(low), 1), round(float(high), 1)],
        "worst": round(float(scores.min()), 1),
        "scores": [round(float(score), 1) for score in np.sort(scores)],
        "seconds_per_seed": round(seconds, 1),
    }
    record.append(options.record, row)


if __name__ == "__main__":
    main()
