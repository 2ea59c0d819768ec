"""What can be said exactly about a run on a finite MDP, and its pictures."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config
from purejaxrl_sac.evaluate import q_values
from purejaxrl_sac.experiment.pictures import draw
from purejaxrl_sac.experiment.runs.display import with_interval
from purejaxrl_sac.mdp import MDP
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.train import build, seed_axes
from purejaxrl_sac.types import TrainState


def finite_mdp(config: Config) -> MDP | None:
    """The MDP that a configuration trains on, if it is finite, known and has values to learn."""
    from purejaxrl_sac.envs.tabular import exact

    _, agent, _ = build(config)
    if agent.q_values is None or config.env_params is not None:
        return None
    return exact(envs.make(config.env))


def learned_values(config: Config, state: TrainState, mdp: MDP) -> np.ndarray:
    """Q(s, a) of every seed, [seeds, S, A]."""
    states = jnp.arange(len(mdp.P))
    seeds = jax.vmap(lambda state: q_values(config, state, states), (seed_axes(state),))
    return np.asarray(jax.jit(seeds)(state))


def greedy_returns(config: Config, mdp: MDP, q: np.ndarray) -> np.ndarray:
    """The expected undiscounted return of the greedy policy within the time limit, exactly.

    Args:
        q: [..., S, A].

    Returns:
        [...], over the episodes' start distribution.
    """
    horizon = int(envs.bind(config.env).max_steps)

    def earned(q: jax.Array) -> jax.Array:
        pi = jax.nn.one_hot(q.argmax(-1), q.shape[-1])  # the first of equals, as the agent does
        return dp.finite_horizon_evaluation(mdp, 1.0, pi, horizon) @ mdp.start

    flat = jnp.asarray(q).reshape(-1, *q.shape[-2:])
    return np.asarray(jax.lax.map(earned, flat)).reshape(q.shape[:-2])


def optimal_return(config: Config, mdp: MDP) -> float:
    """What a policy that is optimal for the configuration's gamma earns, likewise."""
    # at 1, some of the actions that tie for the best lead nowhere; just below, none does
    q = np.asarray(dp.value_iteration(mdp, min(float(config.gamma), 0.9999)))
    return float(greedy_returns(config, mdp, q))


def report(config: Config, state: TrainState, mdp: MDP, title: str, path: Path) -> dict[str, str]:
    """Draws `values.png`, of the seeds' mean.

    Returns:
        rows for the summary: what the greedy policies are worth, and what could be had.
    """
    q = learned_values(config, state, mdp)
    draw.values(mdp, q.mean(0), f"{title}: mean of {len(q)} seeds", path / "values.png")
    gamma = float(config.gamma)
    return {
        "greedy return, exact, IQM [95 % interval]": with_interval(greedy_returns(config, mdp, q)),
        f"the same if optimal for gamma {gamma:g}": f"{optimal_return(config, mdp):.4g}",
    }
