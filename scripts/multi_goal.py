"""Soft Q-learning's multimodal policy for four goals, compared with a deterministic policy.

    python scripts/multi_goal.py                  # writes multi_goal.png

The point mass of Haarnoja et al. 2017 (arXiv:1702.08165, figure 3) starts between four equally good
goals. Left: paths of soft Q-learning's policy from the centre, over the reward's distance term;
middle: Q(s, a) at the centre, with actions drawn from the sampler; right: the deterministic policy
of SAC with a small fixed temperature. Prints how often each seed ends at each goal, and how many
goals it reaches (in at least 2 % of episodes): from the exact centre, where a deterministic
policy has one action, and from random starts near it, where it may have one for each side.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import purejaxrl_sac as prl
from purejaxrl_sac.envs.multigoal import GOALS, MultiGoal, Params, goal_reached
from scripts import record
from scripts.options import Parser, count

NAMES = ("right", "left", "top", "bottom")
EPISODES = 200
SOFT, SAC = "soft Q-learning", "SAC, mean action"


def paths(
    config: prl.Config, state: prl.TrainState, key: jax.Array, start_std: float
) -> tuple[jax.Array, jax.Array]:
    """Positions [T + 1, EPISODES, 2], nan after an episode's end, and the goal of each, or -1."""
    config = config.replace(env_params=Params(start_std=start_std))
    played, running = prl.rollout_episodes(key, config, state, EPISODES)
    places = jnp.where(running[..., None], played.next_obs, jnp.nan)
    end = (running & played.last).argmax(0)
    goal = goal_reached(played.next_obs[end, jnp.arange(EPISODES)])
    return jnp.concatenate([played.obs[:1], places]), goal


def draw_paths(axes: Axes, places: np.ndarray, goal: np.ndarray, title: str) -> None:
    grid = np.linspace(-MultiGoal.size, MultiGoal.size, 141)
    x, y = np.meshgrid(grid, grid)
    distance = np.square(np.stack([x, y], -1)[..., None, :] - GOALS).sum(-1).min(-1)
    axes.contour(x, y, -distance, 20, cmap="Greys", linewidths=0.6)
    for path, end in zip(places[:, :60].swapaxes(0, 1), goal[:60], strict=True):
        axes.plot(*path.T, color=f"C{end}" if end >= 0 else "black", linewidth=0.8, alpha=0.7)
    axes.plot(*GOALS.T, "r*", markersize=10)
    axes.set(xlim=(-7, 7), ylim=(-7, 7), aspect="equal", title=title, xlabel="x", ylabel="y")


def draw_actions(axes: Axes, config: prl.Config, state: prl.TrainState) -> None:
    """Plot Q(0, a) over all actions, and actions drawn from the sampler."""
    grid = jnp.linspace(-1, 1, 61)
    x, y = jnp.meshgrid(grid, grid)
    action = jnp.stack([x.ravel(), y.ravel()], -1)
    q = prl.q_values(config, state, jnp.zeros_like(action), action)
    mesh = axes.contourf(x, y, q.reshape(x.shape), 24, cmap="viridis")
    axes.figure.colorbar(mesh, ax=axes, shrink=0.8, label="Q(0, a)")
    drawn = prl.policy(config, state)(jax.random.key(2), jnp.zeros((300, 2)))
    axes.plot(*drawn.T, "w.", markersize=3)
    axes.set(aspect="equal", title="Q(0, a) and sampled actions", xlabel="a_x", ylabel="a_y")


def main(arguments: list[str] | None = None) -> dict[str, list[int]]:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("multi_goal.png"))
    record.add_record(parser, "theory")
    options = parser.parse_args(arguments)
    modules = ["agents.continuous_soft_q", "agents.sac", "envs.multigoal", "train"]
    keep = record.keeper(options.record, "theory", modules)
    configs = {
        SOFT: prl.preset("continuous_soft_q", "multi_goal").replace(total_steps=options.steps),
        SAC: prl.preset("sac", "multi_goal").replace(
            total_steps=options.steps, alpha=0.1, alpha_learning_rate=0.0, capacity=20_000
        ),
    }
    figure = Figure(figsize=(14, 4.4), dpi=130, layout="constrained")
    left, centre, right = figure.subplots(1, 3)
    panels, reached = {SOFT: left, SAC: right}, {}
    for name, config in configs.items():
        keys = jax.random.split(jax.random.key(0), options.seeds)
        states, _ = jax.jit(jax.vmap(prl.make_train(config)))(keys)
        reached[name] = []
        for seed in range(options.seeds):
            state = jax.tree.map(lambda x, seed=seed: x[seed], states)
            for where, start_std in (("starts", 0.1), ("middle", 0.0)):
                places, goal = (
                    np.asarray(x) for x in paths(config, state, jax.random.key(1), start_std)
                )
                counts = [int((goal == end).sum()) for end in range(4)]
                goals = sum(count >= EPISODES // 50 for count in counts)
                frequencies = ", ".join(f"{end} {n}" for end, n in zip(NAMES, counts, strict=True))
                missed = EPISODES - sum(counts)
                print(f"{name}, seed {seed}, {where}: {frequencies}, none {missed}; goals {goals}")
            reached[name].append(goals)
            if seed == 0:
                draw_paths(panels[name], places, goal, name)
            if seed == 0 and name == SOFT:
                draw_actions(centre, config, state)
        keep(
            f"{name}: goals reached from the exact centre, the worst of {options.seeds} seeds",
            min(reached[name]),
        )
    figure.savefig(options.out)
    return reached


if __name__ == "__main__":
    main()
