"""Overestimation of DQN and Double DQN, from the exact values of their policies (post, 2.8.2).

    python scripts/overestimation_dqn.py                  # writes overestimation_dqn.png

The environment is a random MDP with noisy rewards that can be solved exactly. Plots, over a run,
the means over states of max_a Q(s, a; theta), of the true value of its greedy policy, and of the
optimal value. Overestimation is the first minus the second. The two algorithms differ only in their
bootstrap. Prints averages over the last fifth of the run, as interquartile means over seeds with
95 % bootstrap intervals.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import purejaxrl_sac as prl
from purejaxrl_sac import exploration, mdp
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import record
from scripts.options import Parser, count

GAMMA, STATES, ACTIONS, NOISE = 0.9, 20, 10, 3.0
ALGORITHMS = {"dqn": "tab:orange", "double_dqn": "tab:blue"}


def noisy_mdp() -> mdp.MDP:
    """A garnet MDP whose rewards have a standard deviation of `NOISE`."""
    garnet = mdp.garnet(jax.random.key(7), STATES, ACTIONS, branching=3)
    return garnet.replace(noise=jnp.full((STATES, ACTIONS), NOISE))


def configuration(algorithm: str, total_steps: int) -> prl.Config:
    return prl.default_config(algorithm).replace(
        env=Tabular(noisy_mdp(), name="noisy garnet", max_steps=50),
        total_steps=total_steps,
        num_envs=5,
        num_updates=5,
        capacity=2_000,
        batch_size=64,
        learning_rate=1e-3,
        gamma=GAMMA,
        target_period=50,
        epsilon_end=0.1,
    )


def measure(config: prl.Config, seeds: int, points: int) -> tuple[np.ndarray, ...]:
    """Steps [points + 1], and estimated and true values [seeds, points + 1]."""
    model = noisy_mdp()

    def values(state: prl.TrainState) -> tuple[jax.Array, jax.Array]:
        q = prl.q_values(config, state, jnp.arange(STATES))
        truth = dp.policy_evaluation(model, GAMMA, exploration.greedy(q))
        return q.max(-1).mean(), truth.mean()

    train = partial(prl.train_with_eval, config=config, measure=values, points=points)
    keys = jax.random.split(jax.random.key(0), seeds)
    steps, (estimate, truth) = jax.jit(jax.vmap(train, out_axes=(None, 0)))(keys)
    return np.asarray(steps), np.asarray(estimate), np.asarray(truth)


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float, float]]:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=count, default=30)
    parser.add_argument("--steps", type=count, default=30_000)
    parser.add_argument("--points", type=count, default=40)
    parser.add_argument("--out", type=Path, default=Path("overestimation_dqn.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args(arguments)
    keep = record.keeper(options.record, "theory", record.algorithm_modules("dqn"))
    figure = Figure(figsize=(6.4, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    found = {}
    for algorithm, color in ALGORITHMS.items():
        config = configuration(algorithm, options.steps)
        steps, estimate, truth = measure(config, options.seeds, options.points)
        name = algorithm.replace("_", " ").replace("dqn", "DQN")
        for values, style, what in ((estimate, "-", "estimates"), (truth, "--", "true values")):
            axes.fill_between(steps, *bootstrap_interval(values), color=color, alpha=0.25)
            axes.plot(steps, iqm(values), style, color=color, label=f"{name} {what}")
        tail = (estimate - truth)[:, -max(1, options.points // 5) :].mean(1)
        low, high = bootstrap_interval(tail)
        found[algorithm] = (float(iqm(tail)), float(low), float(high))
        print(f"{name}: overestimation {iqm(tail):.2f} [{low:.2f}, {high:.2f}]")
        interval = [round(float(low), 2), round(float(high), 2)]
        keep(
            f"{name}: overestimation on a noisy MDP, {options.seeds} seeds, IQM",
            iqm(tail),
            interval=interval,
        )
    best = float(dp.value_iteration(noisy_mdp(), GAMMA).max(-1).mean())
    axes.axhline(best, color="black", linewidth=0.8, label="optimal")
    axes.set(xlabel="environment steps", ylabel="value, mean over states")
    axes.set_title(f"{STATES} states, {ACTIONS} actions, rewards with noise of {NOISE:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(options.out)
    return found


if __name__ == "__main__":
    main()
