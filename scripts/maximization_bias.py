"""The maximisation bias of Q-learning and Double Q-learning (post, section 2.8.2).

    python scripts/maximization_bias.py                   # writes maximization_bias.png

Sutton & Barto 2018, Example 6.7 and Figure 6.5: the frequency of action `left` in A in each of 300
episodes, averaged over 10,000 seeds in one batch; the optimum is 5 %. The book gives no numbers for
its figure; the reference is the same experiment with ten actions in B, simulated 20,000 times by
independent code.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import purejaxrl_sac as prl
from scripts import record
from scripts.options import Parser, count

EPISODES = 300
REFERENCE = {  # % left at episodes 100, 200, 300
    "q_learning": (46.0, 15.7, 12.1),
    "double_q_learning": (9.3, 7.6, 6.8),
}


def share_of_left(
    algorithm: str, key: jax.Array, seeds: int, compiler_options: dict | None = None
) -> tuple[np.ndarray, float, float]:
    """The fraction of seeds that went left in each episode.

    Returns:
        fractions [EPISODES], compile seconds and run seconds.
    """
    config = prl.default_config(algorithm).replace(
        env="maximization_bias",
        total_steps=2 * EPISODES,  # an episode has one step (right) or two (left)
        learning_rate=0.1,
        gamma=1.0,
        epsilon_start=0.1,
        epsilon_end=0.1,
    )
    train = prl.make_train(config)

    def went_left(key: jax.Array) -> jax.Array:
        _, metrics = train(key)
        episode = jnp.cumsum(metrics["episodes"]) - 1  # index of the episode that ends in this step
        ended = jnp.where(metrics["episodes"] > 0, episode, EPISODES)
        return jnp.zeros(EPISODES).at[ended].set(metrics["lengths"] == 2, mode="drop")

    share = jax.jit(
        lambda keys: jax.vmap(went_left)(keys).mean(0), compiler_options=compiler_options
    )
    keys = jax.random.split(key, seeds)
    start_time = time.perf_counter()
    program = share.lower(keys).compile()
    compiled = time.perf_counter()
    left = np.asarray(program(keys))
    return left, compiled - start_time, time.perf_counter() - compiled


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=count, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("maximization_bias.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", record.algorithm_modules("q_learning"))

    figure = Figure(figsize=(6.4, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for color, (algorithm, reference) in zip(("tab:red", "tab:green"), REFERENCE.items()):
        left, compile_s, run_s = share_of_left(algorithm, jax.random.key(0), options.seeds)
        print(f"{algorithm}: compiled in {compile_s:.1f} s, {options.seeds:,} seeds x {EPISODES}"
              f" episodes in {run_s:.1f} s")  # fmt: skip
        for episode, expected in zip((100, 200, 300), reference):
            measured = left[episode - 1]
            error = 100 * np.sqrt(measured * (1 - measured) * (1 / options.seeds + 1 / 20_000))
            print(f"  episode {episode}: {100 * measured:5.2f} % left, reference {expected:4.1f},"
                  f" standard error of the difference {error:.2f}")  # fmt: skip
            keep(
                f"{algorithm}, maximisation bias: % left at episode {episode},"
                f" {options.seeds:,} seeds",
                100 * measured,
                expected,
                error=round(float(error), 2),
            )
        print(f"  peak {100 * left.max():.1f} % at episode {left.argmax() + 1}")
        label = algorithm.replace("_", "-")
        axes.plot(np.arange(1, EPISODES + 1), 100 * left, color=color, label=label, linewidth=1.3)
        axes.plot((100, 200, 300), reference, "o", color=color, markerfacecolor="none")
    axes.plot([], [], "o", color="0.3", markerfacecolor="none", label="reference simulation")
    axes.axhline(5, color="0.5", linewidth=0.8, linestyle="--", label="optimal, 5 %")
    axes.set(
        xlabel="episode",
        ylabel="% left actions from A",
        title=f"Maximisation bias, {options.seeds:,} seeds",
        xlim=(1, EPISODES),
        ylim=(0, 100),
    )
    axes.legend(frameon=False)
    figure.savefig(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
