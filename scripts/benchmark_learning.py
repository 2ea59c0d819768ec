"""Returns of an algorithm's preset on an environment, with published scores for comparison.

    python scripts/benchmark_learning.py double_dqn CartPole-v1 --seeds 30
    python scripts/benchmark_learning.py pqn Breakout-MinAtar --seeds 3 --set total_steps=1_000_000

Trains all seeds in one batch, evaluates each greedily from different start states, and prints one
JSON row: the interquartile mean over seeds with its 95 % bootstrap interval, the worst seed, and
published scores. The row and the learning curve are written to `--out`. The seeds differ from those
used to tune presets, which have `--root 0`.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.pictures.plot import learning_curve
from purejaxrl_sac.experiment.runs.engine import train_seeds
from purejaxrl_sac.experiment.runs.plans import Progress, has_time_limit, plan
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm

REFERENCES = {  # environment -> published scores, mean +- spread
    "CartPole-v1": "best possible 500; rl-zoo DQN 500 at 50k; CleanRL at 500k: DQN 498.4 +- 2.3,"
    " C51 491.1 +- 9.7, PQN 495.1 +- 6.9; PureJaxRL and Stoix DQN about 350 to 400 at 500k",
    "Acrobot-v1": "rl-zoo at 100k: DQN -76.6 +- 11.8, QR-DQN -69.1; CleanRL DQN -88.9;"
    " SLM-Lab discrete SAC at 300k: -92.6",
    "MountainCar-v0": "near-optimum -97.7; rl-zoo at 120k: DQN -100.8 +- 9.9, QR-DQN -106",
    "Pendulum-v1": "near-optimum -137.0; rl-zoo at 20k: SAC -157, TD3 -151.9, TQC -151.3;"
    " SLM-Lab CrossQ -145.7",
    "MountainCarContinuous-v0": "near-optimum 99.5; rl-zoo SAC with gSDE at 50k: 94.7",
    "Catch-bsuite": "best possible 1",
    "FourRooms-misc": "best possible 1",
    "Asterix-MinAtar": "at 10M: gymnax-blines PPO 15, PureJaxQL PQN about 71",
    "Breakout-MinAtar": "at 10M: gymnax-blines PPO 28, PureJaxRL PPO about 40",
    "Freeway-MinAtar": "at 10M: gymnax-blines PPO 58",
    "SpaceInvaders-MinAtar": "at 10M: gymnax-blines PPO 131",
}


def setting(text: str) -> tuple[str, Any]:
    """Parse `name=value` into a field and its value."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("algorithm")
    parser.add_argument("env")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=1_000, help="over all seeds")
    parser.add_argument("--root", type=int, default=20, help="seed of all random numbers")
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    options = parser.parse_args()
    try:
        config = prl.preset(options.algorithm, options.env).replace(**dict(options.set))
        episodes = -(-options.episodes // max(1, options.seeds))
        run = plan(config, options.seeds, seed=options.root, episodes=episodes)
        if not has_time_limit(config):
            raise prl.ConfigError(
                f"{options.env} has no time limit, so that greedy returns are undefined"
            )
    except (prl.ConfigError, TypeError) as error:
        sys.exit(f"error: {error}")

    start_time = time.perf_counter()

    def show(progress: Progress) -> None:
        with np.errstate(all="ignore"):
            latest = iqm(progress.latest_return[np.isfinite(progress.latest_return)])
        print(
            f"\r{progress.steps:>11,} steps  {progress.rate:>9,.0f} /s  return {latest:8.2f} "
            f" {time.perf_counter() - start_time:6.0f} s",
            end="", file=sys.stderr,
        )  # fmt: skip

    result = train_seeds(run, on_chunk=show)
    print(file=sys.stderr)
    scores = result.evaluation.mean(1)
    low, high = bootstrap_interval(scores)
    device = jax.devices()[0]
    row = {
        "algorithm": options.algorithm,
        "env": options.env,
        "steps": config.total_steps,
        "seeds": options.seeds,
        "episodes": episodes * options.seeds,
        "iqm": round(float(iqm(scores)), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
        "worst": round(float(scores.min()), 2),
        "median": round(float(np.median(scores)), 2),
        "best": round(float(scores.max()), 2),
        "training_iqm": round(float(iqm(result.history[-1].latest_return)), 2),
        "failed_seeds": int(result.history[-1].failed.sum()),
        "train_seconds": round(result.train_seconds),
        "device": f"{jax.device_count()} x {device.device_kind}",
        "changed": dict(options.set),
        "reference": REFERENCES.get(options.env, ""),
    }
    print(json.dumps(row))
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.algorithm}-{options.env}-{time.strftime('%Y%m%d-%H%M%S')}"
    (options.out / f"{name}.json").write_text(json.dumps(row, indent=2) + "\n")
    learning_curve(
        np.array([progress.steps for progress in result.history]),
        np.stack([progress.episode_return for progress in result.history], axis=1),
        f"{options.algorithm} on {options.env}",
        options.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
