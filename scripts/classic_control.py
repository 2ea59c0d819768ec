"""Near-optimal returns in classic control, by dynamic programming on grids of states.

    python scripts/classic_control.py
    python scripts/classic_control.py Pendulum-v1 --episodes 1000

Backward induction over the steps of an episode, with values interpolated between the points of a
grid, gives a policy that looks one step ahead. Its mean undiscounted return in episodes of gymnax
is the optimum, or a little less, because the grid is finite. With a discount below 1, it is the
undiscounted return of the policy that is optimal for that discount. The discounted return is
compared with the grid's value of the same start states.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from scripts import record
from scripts.options import Parser, count

LESS_VALUE = "discounted return, less the grid's value"


class Task(NamedTuple):
    """A grid of states and actions of an environment."""

    fields: tuple[str, str]  # of the environment's state
    grid: tuple[np.ndarray, np.ndarray]  # equally spaced values of each field
    actions: np.ndarray
    gammas: tuple[float, ...]


TASKS = {
    "MountainCar-v0": Task(
        ("position", "velocity"),
        (np.linspace(-1.2, 0.6, 601), np.linspace(-0.07, 0.07, 281)),
        np.arange(3),
        (1.0,),
    ),
    "MountainCarContinuous-v0": Task(
        ("position", "velocity"),
        (np.linspace(-1.2, 0.6, 151), np.linspace(-0.07, 0.07, 141)),
        np.linspace(-1, 1, 21),
        (0.99999, 0.9999, 0.995),  # with 1, interpolated values of not moving are too high
    ),
    "Pendulum-v1": Task(
        ("theta", "theta_dot"),  # angles have a period of 2 pi
        (np.linspace(-np.pi, np.pi, 360, endpoint=False), np.linspace(-8, 8, 241)),
        np.linspace(-2, 2, 17),
        (1.0, 0.99),
    ),
}


def returns(name: str, gamma: float, episodes: int, key: jax.Array) -> tuple[jax.Array, ...]:
    """Episodes of the policy that is optimal on the grid.

    Returns:
        undiscounted returns, discounted ones, and the grid's values of their first states, each
        [episodes].
    """
    task = TASKS[name]
    env, params = gymnax.make(name)
    actions = jnp.asarray(task.actions, jnp.float32 if task.actions.dtype == float else jnp.int32)
    _, any_state = env.reset_env(key, params)

    def state_at(x: jax.Array, y: jax.Array) -> Any:
        return any_state.replace(**dict(zip(task.fields, (x, y), strict=True)))

    def step(state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        """Next state, reward, and whether the episode goes on."""
        _, after, reward, _, _ = env.step_env(key, state, action, params)
        return after, jnp.float32(reward), jnp.float32(~env.is_terminated(after, params))

    def interpolated(values: jax.Array, state: Any) -> jax.Array:
        """Values between the points of the grid; indices are modulo its size, for angles."""
        indices = [
            (getattr(state, field) - axis[0]) / (axis[1] - axis[0])
            for field, axis in zip(task.fields, task.grid, strict=True)
        ]
        return map_coordinates(values, indices, order=1, mode="wrap")

    def q(values: jax.Array, transitions: tuple[Any, jax.Array, jax.Array]) -> jax.Array:
        state, reward, goes_on = transitions
        return reward + gamma * goes_on * interpolated(values, state)

    def of_actions(state: Any) -> tuple[Any, jax.Array, jax.Array]:
        return jax.vmap(partial(step, state))(actions)

    points = [jnp.asarray(x, jnp.float32).ravel() for x in np.meshgrid(*task.grid, indexing="ij")]
    on_grid = jax.jit(jax.vmap(of_actions))(jax.vmap(state_at)(*points))
    shape = tuple(map(len, task.grid))

    @jax.jit
    def backward_induction(on_grid: Any) -> tuple[jax.Array, jax.Array]:
        """Values of the first step, and those after each step in time."""

        def before(values: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return q(values, on_grid).max(-1).reshape(shape), values

        horizon = params.max_steps_in_episode
        return jax.lax.scan(before, jnp.zeros(shape), length=horizon, reverse=True)

    @jax.jit
    def episode(start: Any, later: jax.Array) -> tuple[jax.Array, jax.Array]:
        def act(carry: Any, values: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            state, running = carry
            choices = of_actions(state)
            best = q(values, choices).argmax()
            after, reward, goes_on = jax.tree.map(lambda x: x[best], choices)
            return (after, running * goes_on), running * reward

        _, rewards = jax.lax.scan(act, (start, jnp.float32(1)), later)
        return rewards.sum(), (gamma ** jnp.arange(len(rewards)) * rewards).sum()

    first, later = backward_induction(on_grid)
    starts = jax.vmap(lambda key: env.reset_env(key, params)[1])(jax.random.split(key, episodes))
    undiscounted, discounted = jax.lax.map(lambda x: episode(x, later), starts, batch_size=256)
    return undiscounted, discounted, interpolated(first, starts)


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", nargs="*", metavar="ENV", help=", ".join(TASKS))
    parser.add_argument("--episodes", type=count, default=100_000)
    record.add_record(parser, "theory")
    options = parser.parse_args()
    if unknown := [name for name in options.environments if name not in TASKS]:
        parser.error(f"no grid is known for {unknown[0]}: choose among {', '.join(TASKS)}")
    keep = record.keeper(options.record, "theory", ["scripts.classic_control", "gymnax"])

    for name in options.environments or TASKS:
        for gamma in TASKS[name].gammas:
            found = returns(name, gamma, options.episodes, jax.random.key(0))
            undiscounted, discounted, values = (np.asarray(x, float) for x in found)
            figures = {"return": undiscounted, LESS_VALUE: discounted - values}
            case = f"{name}, optimal on a grid with gamma {gamma}"
            for what, sampled in figures.items():
                error = sampled.std() / np.sqrt(options.episodes)
                print(f"{case}: {what} {sampled.mean():.3f} +- {error:.3f}")
                keep(f"{case}: {what}", sampled.mean(), error=round(error, 4))


if __name__ == "__main__":
    main()
