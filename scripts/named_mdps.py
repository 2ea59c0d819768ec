"""Compare the named MDPs with independent implementations, and draw each.

    python scripts/named_mdps.py                          # writes named_mdps/*.png

Every transition of FrozenLake, CliffWalking and Taxi is compared with the tables of gymnasium's
toy_text environments; outcomes of gymnax's FrozenLake-misc and FourRooms-misc are counted over many
steps from every state and action.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import mdp as mdps
from purejaxrl_sac.experiment.pictures import value_maps
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import record
from scripts.options import Parser

TRIALS = 3_000  # per state and action
GYMNASIUM = {  # name -> gymnasium's id and arguments
    "frozen_lake": ("FrozenLake-v1", {"is_slippery": True}),
    "frozen_lake_8x8": ("FrozenLake-v1", {"is_slippery": True, "map_name": "8x8"}),
    "frozen_lake_not_slippery": ("FrozenLake-v1", {"is_slippery": False}),
    "frozen_lake_8x8_not_slippery": ("FrozenLake-v1", {"is_slippery": False, "map_name": "8x8"}),
    "cliff_walking": ("CliffWalking-v1", {}),
    "taxi": ("Taxi-v4", {}),
}


def gymnasium_tables(name: str) -> tuple[np.ndarray, ...]:
    """P, P x R, probability of termination (each [S, A, S]) and initial distribution [S]."""
    identity, arguments = GYMNASIUM[name]
    env = gymnasium.make(identity, **arguments).unwrapped
    num_states, num_actions = env.observation_space.n, env.action_space.n
    P, paid, ended = np.zeros((3, num_states, num_actions, num_states))
    for state, actions in env.P.items():
        for action, outcomes in actions.items():
            for probability, successor, reward, terminated in outcomes:
                P[state, action, successor] += probability
                paid[state, action, successor] += probability * reward
                ended[state, action, successor] += probability * terminated
    return P, paid, ended, np.asarray(env.initial_state_distrib)


def largest_difference(name: str) -> float:
    """Largest difference of an MDP from gymnasium's, over all non-terminal states."""
    mdp = mdps.NAMED[name][0]()
    P, paid, ended, start = gymnasium_tables(name)
    inner = ~mdp.terminal
    if name == "cliff_walking":  # cliff cells are never occupied
        letters = np.array([mdp.grid.rows[i][j] for i, j in mdp.grid.position])
        inner &= letters != "C"
    gaps = (
        mdp.P - P,
        mdp.P * mdp.R - paid,
        mdp.P * mdp.terminal - ended,
    )
    return max(np.abs(mdp.start - start).max(), *(np.abs(gap[inner]).max() for gap in gaps))


def frozen_lake_state(position: jax.Array) -> tuple:
    from gymnax.environments.misc.frozen_lake import EnvState

    return EnvState(time=0, position=position)


def counted(
    env: gymnax.environments.environment.Environment,
    to_state: Callable,
    from_obs: Callable,
    num_states: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes of `step_env` from every state and action of a gymnax environment.

    Args:
        to_state: index of our state -> gymnax's state.
        from_obs: gymnax's next state -> index of our state.

    Returns:
        frequency, mean reward (nan if never observed) and frequency of termination, each [S, A, S].
    """
    params, actions = env.default_params, env.num_actions

    def once(key: jax.Array, state: jax.Array, action: jax.Array) -> tuple:
        _, new, reward, terminated, _ = env.step_env(key, to_state(state), action, params)
        return from_obs(new), reward, terminated

    def outcomes(state: jax.Array, action: jax.Array) -> tuple:
        keys = jax.random.split(jax.random.key(0), TRIALS)
        successor, reward, terminated = jax.vmap(once, (0, None, None))(keys, state, action)
        zeros = jnp.zeros(num_states)
        add = lambda x: zeros.at[successor].add(x)  # noqa: E731, PLW0108
        return add(1.0), add(reward.astype(jnp.float32)), add(terminated.astype(jnp.float32))

    every = jax.vmap(jax.vmap(outcomes, (None, 0)), (0, None))
    seen, paid, ended = map(np.asarray, jax.jit(every)(jnp.arange(num_states), jnp.arange(actions)))
    with np.errstate(invalid="ignore"):
        return seen / TRIALS, paid / seen, ended / seen


def gymnax_frozen_lake(slippery: bool, name: str) -> tuple[mdps.MDP, tuple]:
    env = gymnax.make("FrozenLake-misc", map_name=name, is_slippery=slippery)[0]
    mdp = mdps.frozen_lake(int(name[0]), slippery)
    return mdp, counted(env, frozen_lake_state, lambda new: new.position, len(mdp.P))


def gymnax_four_rooms() -> tuple[mdps.MDP, tuple]:
    from gymnax.environments.misc.rooms import EnvState

    env, mdp = gymnax.make("FourRooms-misc")[0], mdps.four_rooms()
    cells = jnp.array(mdp.grid.position)
    goal = jnp.array([8, 9])
    number = jnp.zeros((13, 13), int).at[cells[:, 0], cells[:, 1]].set(jnp.arange(len(cells)))
    to_state = lambda s: EnvState(pos=cells[s], goal=goal, time=0)  # noqa: E731
    return mdp, counted(env, to_state, lambda new: number[new.pos[0], new.pos[1]], len(cells))


def compare(mdp: mdps.MDP, found: tuple) -> tuple[float, float, bool]:
    """Compare observed outcomes with an MDP, over non-terminal states.

    Returns:
        the largest error of a frequency in standard errors (infinite if a deterministic outcome
        differs), the largest error of a reward, and whether the same transitions terminate.
    """
    frequency, reward, ended = found
    inner = ~np.asarray(mdp.terminal)
    error = np.sqrt(mdp.P * (1 - mdp.P) / TRIALS)
    gap = np.abs(frequency - mdp.P)
    sigmas = np.where(error > 1e-6, gap / np.maximum(error, 1e-6), np.where(gap > 1e-6, np.inf, 0))
    seen = (frequency > 0) & inner[:, None, None]
    ends = (ended[seen] == np.broadcast_to(mdp.terminal, mdp.P.shape)[seen]).all()
    return float(sigmas[inner].max()), float(np.abs(reward - mdp.R)[seen].max()), bool(ends)


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("named_mdps"))
    record.add_record(parser, "theory")
    options = parser.parse_args()
    keep = record.keeper(options.record, "theory", ["mdp"])
    options.out.mkdir(parents=True, exist_ok=True)

    for name in GYMNASIUM:
        difference = largest_difference(name)
        print(f"{name:32} differs from gymnasium's table by {difference:.1e}")
        case = f"{name}: largest difference from gymnasium's table"
        keep(case, difference, 0.0, environment=name)
    counts = {
        f"FrozenLake {size}{'' if slippery else ', not slippery'}": gymnax_frozen_lake(
            slippery, size
        )
        for size in ("4x4", "8x8")
        for slippery in (True, False)
    }
    counts["FourRooms"] = gymnax_four_rooms()
    for name, (mdp, found) in counts.items():
        sigmas, gap, ends = compare(mdp, found)
        print(f"gymnax {name}: frequencies within {sigmas:.1f} standard errors, rewards within"
              f" {gap:.1e}, ends agree: {ends}")  # fmt: skip
    for name, (build, _) in mdps.NAMED.items():
        mdp = build()
        q = np.asarray(dp.value_iteration(mdp, 0.95))
        value_maps.value_map(
            mdp, q, f"{name}, optimal values, gamma 0.95", options.out / f"{name}.png"
        )
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
