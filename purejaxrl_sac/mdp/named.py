"""Well-known finite MDPs; those in `NAMED` are environments, too."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.mdp.maps import LEFT_DOWN_RIGHT_UP, from_map
from purejaxrl_sac.mdp.model import MDP, Grid, make

FROZEN_LAKE = {
    4: "SFFF FHFH FFFH HFFG",
    8: "SFFFFFFF FFFFFFFF FFFHFFFF FFFFFHFF FFFHFFFF FHHFFFHF FHFFHFHF FFFHFFFG",
}


def frozen_lake(size: int = 4, slippery: bool = True) -> MDP:
    """FrozenLake, 4 x 4 or 8 x 8: 1 for the goal, 0 otherwise; actions left, down, right, up.

    On slippery ice a move goes as meant or to either side, with probability 1/3 each. Gymnasium's
    FrozenLake-v1 and gymnax's FrozenLake-misc.
    """
    if size not in FROZEN_LAKE:
        raise ConfigError(f"there is no FrozenLake of size {size}: use 4 or 8, or from_map")
    turn = (1 / 3, 1 / 3, 0, 1 / 3) if slippery else (1, 0, 0, 0)
    return from_map(FROZEN_LAKE[size], turn=turn, moves=LEFT_DOWN_RIGHT_UP)


def cliff_walking() -> MDP:
    """The cliff of Sutton & Barto 2018, Example 6.6: -1 a step, -100 and back to start off it.

    Actions up, right, down, left. Gymnasium's CliffWalking-v1.
    """
    free = "." * 12
    rewards = {"S": -1.0, ".": -1.0, "G": -1.0, "C": -100.0}
    return from_map([free, free, free, "SCCCCCCCCCCG"], rewards=rewards)


FOUR_ROOMS = """
    #############
    #.....#.....#
    #.....#.....#
    #...........#
    #S....#.....#
    #.....#.....#
    ##.####.....#
    #.....###.###
    #.....#..G..#
    #.....#.....#
    #...........#
    #.....#.....#
    #############"""


def four_rooms() -> MDP:
    """Four rooms (Sutton, Precup & Singh 1999): 1 for the goal, 0 otherwise.

    Actions up, right, down, left, of which 2/3 go as meant and 1/9 each other way. Start and goal
    are those of gymnax's FourRooms-misc.
    """
    return from_map(FOUR_ROOMS, turn=(2 / 3, 1 / 9, 1 / 9, 1 / 9))


def taxi() -> MDP:
    """Taxi (Dietterich 2000): fetch the passenger at one of four stands, bring it to another.

    -1 a step, -10 for picking up or dropping off where that is wrong, 20 for the delivery, which
    ends the episode. Actions south, north, east, west, pick up, drop off. States are
    ((row x 5 + column) x 5 + passenger) x 4 + destination, passenger 4 being in the taxi.
    Gymnasium's Taxi-v4.
    """
    stands = ((0, 0), (0, 4), (4, 0), (4, 3))
    walls = {((i, j), (i, j + 1)) for i, j in ((0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2))}
    moves = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0), (0, 0))
    P, R = np.zeros((500, 6, 500)), np.full((500, 6), -1.0)
    start, terminal, position = np.zeros(500), np.zeros(500, bool), []
    for state in range(500):
        row, column, passenger, destination = np.unravel_index(state, (5, 5, 5, 4))
        cell = (int(row), int(column))
        position.append(cell)
        terminal[state] = passenger == destination
        start[state] = passenger < 4 and passenger != destination
        for action, (down, right) in enumerate(moves):
            target = (min(max(row + down, 0), 4), min(max(column + right, 0), 4))
            if (cell, target) in walls or (target, cell) in walls:
                target = cell
            rider = passenger
            if action == 4:
                if passenger < 4 and cell == stands[passenger]:
                    rider = 4
                else:
                    R[state, action] = -10
            if action == 5:
                if passenger == 4 and cell in stands:
                    rider = stands.index(cell)
                    R[state, action] = 20 if rider == destination else -1
                else:
                    R[state, action] = -10
            successor = np.ravel_multi_index((*target, rider, destination), (5, 5, 5, 4))
            P[state, action, successor] = 1
    grid = Grid(("R...G", ".....", ".....", ".....", "Y..B."), tuple(position), moves)
    return make(P, R, start=start / start.sum(), terminal=terminal, grid=grid)


def chain(length: int = 5, slip: float = 0.2) -> MDP:
    """The chain of Strens 2000: 10 for each stay at the far end, 2 for each return. Continuing.

    Action 0 goes forward for nothing, action 1 back to the beginning for 2; with probability
    `slip` the other one happens.
    """
    P, paid = np.zeros((2, length, 2, length))
    for state in range(length):
        for action in range(2):
            for happens, probability in ((action, 1 - slip), (1 - action, slip)):
                end = state == length - 1
                successor, reward = (min(state + 1, length - 1), 10.0 * end)
                if happens == 1:
                    successor, reward = 0, 2.0
                P[state, action, successor] += probability
                paid[state, action, successor] += probability * reward
    return make(P, np.divide(paid, P, out=np.zeros_like(P), where=P > 0))


def deep_sea(size: int = 10) -> MDP:
    """Deep sea (Osband et al. 2020): only `size` right moves in a row find the treasure.

    One step down per move; action 1 goes right for -0.01 / size, action 0 left for nothing, and
    the treasure of 1 lies in the bottom right corner. State row x size + column; the last state
    is the end. gymnax's DeepSea-bsuite, with action 1 as right everywhere.
    """
    end = size * size
    P, R = np.zeros((end + 1, 2, end + 1)), np.zeros((end + 1, 2))
    for row in range(size):
        for column in range(size):
            for action in range(2):
                state = row * size + column
                beside = min(max(column + 2 * action - 1, 0), size - 1)
                successor = end if row == size - 1 else (row + 1) * size + beside
                P[state, action, successor] = 1
                R[state, action] = -0.01 / size * action
    R[end - 1, 1] += 1
    rows = tuple("S" + "." * (size - 1) if i == 0 else "." * size for i in range(size))
    position = (*((i, j) for i in range(size) for j in range(size)), (-1, -1))
    return make(P, R, terminal=[end], grid=Grid(rows, position, ((1, -1), (1, 1))))


def maximization_bias(actions: int = 10, mean: float = -0.1, std: float = 1.0) -> MDP:
    """Sutton & Barto 2018, Example 6.7: from state 0, right ends, left leads to noisy losses.

    State 0 has action 0 (left, to state 1) and 1 (right, to the end), both for 0. In state 1
    each of `actions` actions ends the episode for a reward of N(mean, std^2). State 2 is the end.
    """
    P, R = np.zeros((3, actions, 3)), np.zeros((3, actions))
    P[0, 0, 1] = P[0, 1:, 2] = P[1, :, 2] = 1
    R[1] = mean
    legal = np.ones((3, actions), bool)
    legal[0, 2:] = False
    noise = np.zeros((3, actions))
    noise[1] = std
    return make(P, R, terminal=[2], noise=noise, legal=legal)


def garnet(
    key: jax.Array, states: int = 20, actions: int = 4, branching: int = 3, terminal: int = 0
) -> MDP:
    """A random MDP (Archibald et al. 1995): GARNET(states, actions, branching).

    Every (s, a) leads to `branching` different states, with probabilities cut by uniform points;
    r(s, a) is N(0, 1), and episodes start anywhere. Pure in the key: vmap it for many.

    Args:
        terminal: how many states, the last ones, are terminal.

    Raises:
        ConfigError: more branches than states, or nothing but terminal states.
    """
    if not 1 <= branching <= states or not 0 <= terminal < states:
        raise ConfigError(
            f"a garnet of {states} states cannot have branching {branching} and {terminal} terminal"
        )
    key_successor, key_cut, key_reward = jax.random.split(key, 3)
    keys = jax.random.split(key_successor, (states, actions))

    def choose(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, states)[:branching]

    successor = jax.vmap(jax.vmap(choose))(keys)
    cuts = jax.random.uniform(key_cut, (states, actions, branching - 1))
    ends = jnp.zeros((states, actions, 1))
    probability = jnp.diff(jnp.concatenate([ends, jnp.sort(cuts), ends + 1], -1))
    P = (jax.nn.one_hot(successor, states) * probability[..., None]).sum(-2)
    r = jax.random.normal(key_reward, (states, actions))
    over = jnp.arange(states) >= states - terminal
    P = jnp.where(over[:, None, None], jnp.eye(states)[:, None], P)
    r = jnp.where(over[:, None], 0, r)
    return MDP(
        P=P,
        R=jnp.broadcast_to(r[:, :, None], P.shape),
        start=jnp.where(over, 0, 1 / (states - terminal)),
        terminal=over,
        noise=jnp.zeros((states, actions)),
        legal=jnp.ones((states, actions), bool),
    )


# name -> how it is made, its time limit in steps
NAMED: dict[str, tuple[Callable[[], MDP], int]] = {
    "frozen_lake": (frozen_lake, 100),
    "frozen_lake_8x8": (lambda: frozen_lake(8), 200),
    "frozen_lake_not_slippery": (lambda: frozen_lake(slippery=False), 100),
    "frozen_lake_8x8_not_slippery": (lambda: frozen_lake(8, slippery=False), 200),
    "cliff_walking": (cliff_walking, 200),
    "taxi": (taxi, 200),
    "four_rooms": (four_rooms, 500),
    "chain": (chain, 100),
    "deep_sea": (deep_sea, 100),
    "maximization_bias": (maximization_bias, 10),
    "garnet": (lambda: garnet(jax.random.key(0)), 100),
}
