"""Exact evaluation of runs on a finite MDP."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config
from purejaxrl_sac.evaluate import q_values
from purejaxrl_sac.experiment.pictures import value_maps
from purejaxrl_sac.experiment.runs.display import with_interval
from purejaxrl_sac.mdp import MDP
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.train import build, seed_axes
from purejaxrl_sac.types import TrainState


def finite_mdp(config: Config) -> MDP | None:
    """The MDP that is trained on, if it is finite and the agent learns action values."""
    from purejaxrl_sac.envs.tabular import exact

    _, agent, _ = build(config)
    if agent.q_values is None or config.env_params is not None:
        return None
    return exact(envs.make(config.env))


def learned_values(config: Config, state: TrainState, mdp: MDP) -> np.ndarray:
    """Q(s, a) of every seed, [seeds, S, A]."""
    states = jnp.arange(len(mdp.P))
    of_seeds = jax.vmap(lambda state: q_values(config, state, states), (seed_axes(state),))
    return np.asarray(jax.jit(of_seeds)(state))


def greedy_returns(config: Config, mdp: MDP, q: np.ndarray) -> np.ndarray:
    """Exact expected undiscounted return of the greedy policy within the time limit.

    Args:
        q: [..., S, A].

    Returns:
        [...], over the episodes' start distribution.
    """
    horizon = int(envs.bind(config.env).max_steps)

    def expected_return(q: jax.Array) -> jax.Array:
        pi = jax.nn.one_hot(q.argmax(-1), q.shape[-1])  # ties as in the agent: the first action
        return dp.finite_horizon_evaluation(mdp, 1.0, pi, horizon) @ mdp.start

    flat = jnp.asarray(q).reshape(-1, *q.shape[-2:])
    return np.asarray(jax.lax.map(expected_return, flat)).reshape(q.shape[:-2])


def optimal_return(config: Config, mdp: MDP) -> float:
    """`greedy_returns` of a policy that is optimal for the configuration's gamma."""
    # with gamma = 1 an action that never reaches the goal can tie with one that does
    q = np.asarray(dp.value_iteration(mdp, min(_gamma(config), 0.9999)))
    return float(greedy_returns(config, mdp, q))


def write_value_map(
    config: Config, state: TrainState, mdp: MDP, title: str, path: Path
) -> dict[str, str]:
    """Write `values.png`, the values averaged over seeds, into a run directory.

    Returns:
        rows of the run's summary: exact returns of the greedy policies and of an optimal one.
    """
    q = learned_values(config, state, mdp)
    value_maps.value_map(mdp, q.mean(0), f"{title}: mean of {len(q)} seeds", path / "values.png")
    return {
        "greedy return, exact, IQM [95 % interval]": with_interval(greedy_returns(config, mdp, q)),
        f"the same if optimal for gamma {_gamma(config):g}": f"{optimal_return(config, mdp):.4g}",
    }


def _gamma(config: Config) -> float:
    return float(getattr(config, "gamma", 1.0))
