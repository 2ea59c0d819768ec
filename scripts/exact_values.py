"""Exact values of well-known MDPs by three methods (post, sections 1.2, 1.3 and 4.1.1).

    python scripts/exact_values.py                        # writes exact_values.png

Compares value iteration, policy iteration and a linear solve for the optimal policy with published
or hand-derived numbers, and soft value iteration with soft policy iteration; computes the success
rate of an optimal policy with and without a time limit.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

from purejaxrl_sac import losses
from purejaxrl_sac import mdp as mdps
from purejaxrl_sac.experiment.pictures import value_maps
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import record
from scripts.options import Parser

KNOWN = {  # (MDP, gamma) -> V* of the start state
    ("frozen_lake", 0.99): 0.5420259,
    ("frozen_lake", 0.95): 0.180472,
    ("frozen_lake", 0.9): 0.068891,
    ("cliff_walking", 1.0): -13.0,
    ("cliff_walking", 0.99): -12.2479,
}
SOFT_FROZEN_LAKE = 2.471032  # gamma 0.99, alpha 0.1, terminal values 0


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("exact_values.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", ["mdp", "mdp.dynamic_programming"])

    for (name, gamma), known in KNOWN.items():
        mdp = mdps.NAMED[name][0]()
        start = int(np.argmax(mdp.start))
        by_values = dp.value_iteration(mdp, gamma)[start].max()
        print(f"{name:14} gamma {gamma:<5} V*(s0): value iteration {by_values:.7f}", end="")
        if gamma < 1:
            q, pi = dp.policy_iteration(mdp, gamma)
            solved = dp.policy_evaluation(mdp, gamma, pi)[start]
            print(f", policy iteration {q[start].max():.7f}, solve {solved:.7f}", end="")
        print(f", known {known}")
        keep(f"V*(s0) of {name}, gamma {gamma}", by_values, known, environment=name)

    mdp = mdps.frozen_lake()
    soft = dp.soft_value_iteration(mdp, 0.99, 0.1)
    _, qs = dp.soft_policy_iteration(mdp, 0.99, 0.1, rounds=50)
    print(f"soft FrozenLake, gamma 0.99, alpha 0.1: value iteration"
          f" {losses.log_sum_exp(soft, 0.1)[0]:.6f}, policy iteration"
          f" {losses.log_sum_exp(qs[-1], 0.1)[0]:.6f}, known {SOFT_FROZEN_LAKE}")  # fmt: skip
    keep(
        "soft V*(s0) of frozen_lake, gamma 0.99, alpha 0.1",
        losses.log_sum_exp(soft, 0.1)[0],
        SOFT_FROZEN_LAKE,
    )
    q, pi = dp.policy_iteration(mdp, 0.99)
    print(f"FrozenLake, success of the policy optimal for gamma 0.99: without a time limit"
          f" {dp.policy_evaluation(mdp, 1.0, pi)[0]:.4f} (14/17 = {14 / 17:.4f}), within 100 steps"
          f" {dp.finite_horizon_evaluation(mdp, 1.0, pi, 100)[0]:.4f}")  # fmt: skip

    many = jax.vmap(mdps.garnet)(jax.random.split(jax.random.key(0), 100))
    with jax.enable_x64(True):  # single precision is limited to relative errors of 1e-6
        many = jax.tree.map(lambda x: np.asarray(x, float) if x.dtype.kind == "f" else x, many)
        by_values = jax.vmap(lambda mdp: dp.value_iteration(mdp, 0.99))(many)
        by_policy, pi = jax.vmap(lambda mdp: dp.policy_iteration(mdp, 0.99))(many)
        solved = jax.vmap(lambda mdp, pi: dp.policy_evaluation(mdp, 0.99, pi))(many, pi)
        print(f"100 random MDPs in double precision: value against policy iteration differ by"
              f" {np.abs(by_values - by_policy).max():.1e}, the solve by"
              f" {np.abs(solved - by_policy.max(-1)).max():.1e}")  # fmt: skip
    value_maps.value_map(mdp, q, "FrozenLake, optimal values, gamma 0.99", options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
