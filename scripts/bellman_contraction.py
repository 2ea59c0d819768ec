"""Bellman operators contract by gamma in the sup norm (post, section 1.3).

    python scripts/bellman_contraction.py                 # writes bellman_contraction.png

Computes the largest ||T Q1 - T Q2|| / ||Q1 - Q2|| over random MDPs and pairs Q1, Q2 for the
optimality, expectation and soft operators, and plots the convergence of value iteration to Q* and
of the soft Q* to the hard one as the temperature tends to zero.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from purejaxrl_sac import losses
from purejaxrl_sac import mdp as mdps
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import record
from scripts.options import Parser, count

GAMMA, ALPHA = 0.9, 0.5


def operators(mdp: mdps.MDP, pi: jax.Array) -> dict:
    """Operators on Q [S, A] by name."""
    return {
        "optimality": lambda q: dp.optimality(mdp, GAMMA, q),
        "expectation": lambda q: dp.expectation(mdp, GAMMA, pi, q),
        "soft optimality": lambda q: dp.soft_optimality(mdp, GAMMA, ALPHA, q),
        "soft expectation": lambda q: dp.soft_expectation(mdp, GAMMA, ALPHA, pi, q),
    }


def ratios(key: jax.Array) -> dict[str, jax.Array]:
    """||T Q1 - T Q2|| / ||Q1 - Q2|| of each operator, for one random MDP, policy and pair.

    Half of the pairs differ by a constant, which is the worst case.
    """
    keys = jax.random.split(key, 5)
    mdp = mdps.garnet(keys[0])
    pi = jax.random.dirichlet(keys[1], jnp.ones(4), (20,))
    q1 = 10 * jax.random.normal(keys[2], (20, 4))
    constant = jax.random.bernoulli(keys[3])
    q2 = q1 + jnp.where(constant, 1.0, 10 * jax.random.normal(keys[4], (20, 4)))
    gap = jnp.abs(q1 - q2).max()
    return {name: jnp.abs(T(q1) - T(q2)).max() / gap for name, T in operators(mdp, pi).items()}


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=count, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("bellman_contraction.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", ["mdp", "mdp.dynamic_programming"])

    found = jax.jit(jax.vmap(ratios))(jax.random.split(jax.random.key(0), options.pairs))
    for name, values in found.items():
        print(f"{name:17} largest ratio {values.max():.6f}, mean {values.mean():.3f},"
              f" gamma {GAMMA}")  # fmt: skip
        keep(f"{name} operator: largest ratio of {options.pairs:,} pairs", values.max(), GAMMA)

    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    mdp = mdps.frozen_lake()
    for gamma in (0.8, 0.9, 0.99):
        exact, q, gaps = dp.value_iteration(mdp, gamma), jnp.zeros((16, 4)), []
        for _ in range(60):
            gaps.append(float(jnp.abs(q - exact).max()))
            q = dp.optimality(mdp, gamma, q)
        (line,) = left.semilogy(gaps, label=f"gamma {gamma}")
        left.semilogy(gaps[0] * gamma ** np.arange(60), ":", color=line.get_color())
    left.set(xlabel="applications of T", ylabel="||Q - Q*||", title="value iteration, FrozenLake")
    left.set_ylim(1e-6, 2)
    left.legend(frameon=False, title="dotted: upper bound")

    alphas = jnp.logspace(-3, 0.5, 30)
    soft = jax.vmap(lambda alpha: dp.soft_value_iteration(mdp, GAMMA, alpha))(alphas)
    hard = dp.value_iteration(mdp, GAMMA)
    value = jax.vmap(losses.log_sum_exp)(soft, alphas)[:, 0]
    right.loglog(alphas, value - hard[0].max(), label="soft V*(s0) - V*(s0)")
    right.loglog(alphas, alphas * np.log(4) / (1 - GAMMA), ":", label="alpha log A / (1 - gamma)")
    right.set(xlabel="temperature alpha", title="soft and hard optimal values")
    right.legend(frameon=False)
    print(f"soft V*(s0) at alpha {alphas[0]:.3f}: {value[0]:.6f}, hard {hard[0].max():.6f}")
    figure.savefig(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
