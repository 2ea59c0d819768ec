"""Convergence of tabular algorithms to their exact fixed points (post, section 1.5).

    python scripts/tabular_convergence.py                 # writes tabular_convergence.png

Learning rates are 1 / visits^omega, which satisfies the Robbins-Monro conditions. Q-learning and
Double Q-learning are compared with Q*, soft Q-learning with the soft Q*, and SARSA with a fixed
epsilon with the exact values of the policy that is epsilon-greedy in them, by the maximum error
over (s, a) relative to the largest value. SARSA with epsilon decaying to 0 stops exploring, so
that only the value of the initial states is compared with V*. Prints means over seeds and their
standard errors.
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
from matplotlib.ticker import EngFormatter, NullFormatter

import purejaxrl_sac as prl
from purejaxrl_sac import exploration
from purejaxrl_sac import mdp as mdps
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import record
from scripts.options import Parser, count

GAMMA, ALPHA, EPSILON = 0.9, 0.1, 0.3
ENVIRONMENTS = ("frozen_lake", "chain", "garnet")
UNIFORM = {"epsilon_start": 1.0, "epsilon_end": 1.0}  # uniformly random actions
VARIANTS = {  # name -> algorithm, changes of its configuration
    "Q-learning": ("q_learning", UNIFORM),
    "Double Q-learning": ("double_q_learning", UNIFORM),
    "soft Q-learning": (
        "soft_q_learning",
        {**UNIFORM, "exploration": "epsilon_greedy", "alpha": ALPHA},
    ),
    "SARSA": ("sarsa", {"epsilon_start": EPSILON, "epsilon_end": EPSILON}),
    "SARSA, epsilon to 0": (
        "sarsa",
        {"epsilon_start": 1.0, "epsilon_end": 0.0, "epsilon_fraction": 0.9},
    ),
}


def fixed_point(variant: str, mdp: mdps.MDP) -> np.ndarray:
    """The fixed point [S, A] of a variant."""
    if variant == "soft Q-learning":
        return np.asarray(dp.soft_value_iteration(mdp, GAMMA, ALPHA))
    if variant == "SARSA":
        zeros = jnp.zeros(mdp.legal.shape)
        return np.asarray(
            dp.fixed_point(
                lambda q: dp.expectation(mdp, GAMMA, exploration.epsilon_greedy(q, EPSILON), q),
                zeros,
            )
        )
    return np.asarray(dp.value_iteration(mdp, GAMMA))


def errors(
    variant: str,
    env: str,
    steps: int,
    seeds: int,
    points: int = 20,
    omega: float = 0.6,
    compiler_options: dict | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors during training.

    Returns:
        environment steps [points + 1], errors [points + 1, seeds].
    """
    algorithm, changes = VARIANTS[variant]
    config = prl.default_config(algorithm).replace(
        env=env,
        total_steps=steps,
        num_envs=8,
        gamma=GAMMA,
        learning_rate=1.0,
        omega=omega,
        **changes,
    )
    mdp = mdps.NAMED[env][0]()
    exact = fixed_point(variant, mdp)
    states, terminal, scale = jnp.arange(len(exact)), jnp.asarray(mdp.terminal), np.abs(exact).max()

    def error(state: prl.TrainState) -> jax.Array:
        q = prl.q_values(config, state, states)
        if variant == "SARSA, epsilon to 0":
            return jnp.abs((q.max(-1) - exact.max(-1)) @ mdp.start) / scale
        return jnp.where(terminal[:, None], 0, jnp.abs(q - exact)).max() / scale

    train = partial(prl.train_with_eval, config=config, measure=error, points=points)
    keys = jax.random.split(jax.random.key(0), seeds)
    learn = jax.vmap(train, out_axes=(None, 0))
    taken, found = jax.jit(learn, compiler_options=compiler_options)(keys)
    return np.asarray(taken), np.asarray(found).T


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=count, default=64)
    parser.add_argument("--steps", type=count, default=800_000)
    parser.add_argument("--out", type=Path, default=Path("tabular_convergence.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", record.algorithm_modules("q_learning"))

    figure = Figure(figsize=(10, 3.6), dpi=150, layout="constrained")
    for axes, env in zip(figure.subplots(1, len(ENVIRONMENTS), sharey=True), ENVIRONMENTS):
        for variant in VARIANTS:
            steps, found = errors(variant, env, options.steps, options.seeds)
            mean = found.mean(1)
            standard_error = found.std(1, ddof=1) / np.sqrt(options.seeds)
            summary = ", ".join(
                f"{step / 1000:.0f}k {m:.4f} +- {e:.4f}"
                for step, m, e in zip(steps[5::5], mean[5::5], standard_error[5::5])
            )
            print(f"{env:12} {variant:20} {summary}", flush=True)
            for point in (len(steps) // 4, -1):
                keep(
                    f"{variant} on {env}: error / largest value after {steps[point]:,} steps,"
                    f" {options.seeds} seeds",
                    mean[point],
                    error=round(float(standard_error[point]), 4),
                    environment=env,
                )
            axes.plot(steps[1:], mean[1:], label=variant)
            low, high = mean - 2 * standard_error, mean + 2 * standard_error
            axes.fill_between(steps[1:], low[1:], high[1:], alpha=0.3)
        axes.set(xscale="log", yscale="log", xlabel="environment steps", title=env)
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.2)
    figure.axes[0].set_ylabel("error / largest value")
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
