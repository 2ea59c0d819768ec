"""Overestimation by the maximum of noisy values (post, section 2.8.1).

    python scripts/overestimation.py                      # writes overestimation.png

m actions have the true value 0 and estimates with independent errors. The mean of the largest
estimate (single estimator: Q-learning's target) is compared with closed forms, and with the second
estimate of the action that is best by the first (double estimator: Double Q-learning's target),
which is unbiased here. Errors are uniform on [-1, 1], where E[max] = (m - 1) / (m + 1) (Thrun &
Schwartz 1993), and standard normal, where E[max] is an integral. Also prints the bound of van
Hasselt et al. 2016 (arXiv:1509.06461), Theorem 1: estimates with a mean squared error of C, whose
errors sum to 0, have a maximum of at least sqrt(C / (m - 1)).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import integrate, stats

from purejaxrl_sac import losses
from scripts import record
from scripts.options import Parser, count

ACTIONS = (2, 3, 5, 10, 20, 50)
ERRORS = {
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-1, maxval=1),
    "normal": jax.random.normal,
}


def expected_maximum(kind: str, m: int) -> float:
    """The exact E[max of m errors]."""
    if kind == "uniform":
        return (m - 1) / (m + 1)
    density = lambda x: x * m * stats.norm.pdf(x) * stats.norm.cdf(x) ** (m - 1)  # noqa: E731
    return integrate.quad(density, -10, 10)[0]


def estimate(key: jax.Array, kind: str, m: int, trials: int) -> dict[str, tuple[float, float]]:
    """Mean and standard error of the targets of both estimators; the true value is 0."""
    q, other = ERRORS[kind](key, (2, trials, m))
    targets = {
        "single": q.max(-1),
        "double": losses.select_action(other, q.argmax(-1)),
    }
    return {
        name: (float(value.mean()), float(value.std() / np.sqrt(trials)))
        for name, value in targets.items()
    }


def smallest_overestimation(key: jax.Array, m: int, trials: int) -> tuple[float, float]:
    """The minimum of max Q / sqrt(C / (m - 1)) over random estimates whose errors sum to 0.

    Returns:
        the minimum, and the ratio of the estimates that attain the bound.
    """
    q = jax.random.normal(key, (trials, m))
    q -= q.mean(-1, keepdims=True)
    tight = jnp.full((1, m), jnp.sqrt(1 / (m - 1))).at[0, 0].set(-jnp.sqrt(m - 1.0))
    ratio = lambda q: q.max(-1) / jnp.sqrt(jnp.square(q).mean(-1) / (m - 1))  # noqa: E731
    return float(ratio(q).min()), float(ratio(tight)[0])


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=count, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("overestimation.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", ["losses"])

    figure = Figure(figsize=(8, 3.6), dpi=150, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ERRORS):
        exact = [expected_maximum(kind, m) for m in ACTIONS]
        found = [estimate(jax.random.key(m), kind, m, options.trials) for m in ACTIONS]
        for m, truth, row in zip(ACTIONS, exact, found):
            (single, error), (double, double_error) = row["single"], row["double"]
            print(f"{kind:8} m = {m:2}: exact {truth:.4f}, single {single:.4f} +- {error:.4f},"
                  f" double {double:+.4f} +- {double_error:.4f}")  # fmt: skip
            estimators = {"single": (single, truth, error), "double": (double, 0.0, double_error)}
            for name, (value, expected, spread) in estimators.items():
                case = f"{name} estimator, {kind} errors, {m} actions"
                keep(case, value, expected, error=round(spread, 4))
        axes.plot(ACTIONS, exact, color="tab:red", label="single, exact")
        axes.plot(ACTIONS, [r["single"][0] for r in found], "o", color="tab:red", label="single")
        axes.plot(ACTIONS, [r["double"][0] for r in found], "s", color="tab:green", label="double")
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(xscale="log", xlabel="actions", title=f"{kind} errors", xticks=ACTIONS)
        axes.set_xticklabels(ACTIONS)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("target (true value 0)")
    figure.axes[0].legend(frameon=False, fontsize=8)
    for m in ACTIONS[1:]:
        smallest, tight = smallest_overestimation(jax.random.key(m), m, options.trials)
        print(f"bound    m = {m:2}: smallest max Q / bound {smallest:.3f}, attained {tight:.3f}")
    figure.savefig(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
