"""Well-known finite MDPs; those in `NAMED` are also environments."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import ConfigError, number, whole_number
from purejaxrl_sac.mdp.maps import LEFT_DOWN_RIGHT_UP, from_map
from purejaxrl_sac.mdp.model import MDP, Grid, make

FROZEN_LAKE = {
    4: "SFFF FHFH FFFH HFFG",
    8: "SFFFFFFF FFFFFFFF FFFHFFFF FFFFFHFF FFFHFFFF FHHFFFHF FHFFHFHF FFFHFFFG",
}


def frozen_lake(size: int = 4, slippery: bool = True) -> MDP:
    """FrozenLake, 4 x 4 or 8 x 8: reward 1 at the goal; actions left, down, right, up.

    On slippery ice the agent moves in the intended direction or to either side, with probability
    1/3 each. Gymnasium's FrozenLake-v1 and gymnax's FrozenLake-misc.
    """
    size = whole_number("size", size)
    if size not in FROZEN_LAKE:
        raise ConfigError(f"there is no FrozenLake of size {size}: use 4 or 8, or from_map")
    turn = (1 / 3, 1 / 3, 0, 1 / 3) if slippery else (1, 0, 0, 0)
    return from_map(FROZEN_LAKE[size], turn=turn, moves=LEFT_DOWN_RIGHT_UP)


def cliff_walking() -> MDP:
    """Cliff walking (Sutton & Barto 2018, Example 6.6).

    -1 per step; -100 for stepping off the cliff, which leads back to the start. Actions up, right,
    down, left. Gymnasium's CliffWalking-v1.
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
    """Four rooms (Sutton, Precup & Singh 1999): reward 1 at the goal, 0 otherwise.

    Actions up, right, down, left move in the intended direction with probability 2/3, in each other
    direction with 1/9. Start and goal are those of gymnax's FourRooms-misc.
    """
    return from_map(FOUR_ROOMS, turn=(2 / 3, 1 / 9, 1 / 9, 1 / 9))


def taxi() -> MDP:
    """Taxi (Dietterich 2000): pick up a passenger at one of four stands, drop off at another.

    -1 per step, -10 for illegal pick-ups and drop-offs, 20 for the delivery, which ends the
    episode. Actions south, north, east, west, pick up, drop off. States are
    ((row x 5 + column) x 5 + passenger) x 4 + destination; passenger 4 is in the taxi.
    Gymnasium's Taxi-v4.
    """
    stands = ((0, 0), (0, 4), (4, 0), (4, 3))
    walls = {((i, j), (i, j + 1)) for i, j in ((0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2))}
    moves = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0), (0, 0))
    P, R = np.zeros((500, 6, 500)), np.full((500, 6), -1.0)
    start, terminal, position = np.zeros(500), np.zeros(500, bool), []
    for state in range(500):
        row, column, passenger, destination = map(int, np.unravel_index(state, (5, 5, 5, 4)))
        cell = (row, column)
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
    """The chain of Strens 2000, a continuing task.

    Action 0 moves forward for a reward of 0, or of 10 in the last state, which it does not leave;
    action 1 returns to the first state for 2. With probability `slip` the other action is executed.

    Raises:
        ConfigError: length is not a whole number of at least 1, or slip is not a probability.
    """
    length = whole_number("length", length, at_least=1)
    slip = number("slip", slip, at_least=0, at_most=1)
    P, expected = np.zeros((2, length, 2, length))
    for state in range(length):
        for action in range(2):
            for executed, probability in ((action, 1 - slip), (1 - action, slip)):
                end = state == length - 1
                successor, reward = (min(state + 1, length - 1), 10.0 * end)
                if executed == 1:
                    successor, reward = 0, 2.0
                P[state, action, successor] += probability
                expected[state, action, successor] += probability * reward
    return make(P, np.divide(expected, P, out=np.zeros_like(P), where=P > 0))


def deep_sea(size: int = 10) -> MDP:
    """Deep sea (Osband et al. 2020): only `size` moves to the right in a row reach the treasure.

    Every move goes one row down. Action 1 also goes right, for a reward of -0.01 / size, action 0
    left, for 0; the treasure, a reward of 1, is in the bottom right corner. States are
    row x size + column; the last state is terminal. gymnax's DeepSea-bsuite, where action 1 is
    always right.

    Raises:
        ConfigError: size is not a whole number of at least 1.
    """
    size = whole_number("size", size, at_least=1)
    end = size * size
    P, R = np.zeros((end + 1, 2, end + 1)), np.zeros((end + 1, 2))
    for row in range(size):
        for column in range(size):
            for action in range(2):
                state = row * size + column
                next_column = min(max(column + 2 * action - 1, 0), size - 1)
                successor = end if row == size - 1 else (row + 1) * size + next_column
                P[state, action, successor] = 1
                R[state, action] = -0.01 / size * action
    R[end - 1, 1] += 1
    rows = tuple("S" + "." * (size - 1) if i == 0 else "." * size for i in range(size))
    position = (*((i, j) for i in range(size) for j in range(size)), (-1, -1))
    return make(P, R, terminal=[end], grid=Grid(rows, position, ((1, -1), (1, 1))))


def maximization_bias(actions: int = 10, mean: float = -0.1, std: float = 1.0) -> MDP:
    """The example of maximization bias (Sutton & Barto 2018, Example 6.7).

    In state 0, action 0 (left) leads to state 1 and action 1 (right) to the end, both for a reward
    of 0. In state 1, each of `actions` actions leads to the end for a reward of N(mean, std^2).
    State 2 is terminal.

    Raises:
        ConfigError: there are fewer than two actions, or mean or std is not a number.
    """
    actions = whole_number("actions", actions, at_least=2)
    mean, std = number("mean", mean), number("std", std, at_least=0)
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

    Every (s, a) leads to `branching` different states; their probabilities are the lengths into
    which uniform points divide [0, 1]. r(s, a) is N(0, 1), and episodes start in every
    non-terminal state with equal probability. It can be vmapped over keys.

    Args:
        terminal: number of terminal states, which are the last ones.

    Raises:
        ConfigError: more branches than states, only terminal states, or no whole numbers.
    """
    states = whole_number("states", states, at_least=1)
    actions = whole_number("actions", actions, at_least=1)
    branching = whole_number("branching", branching)
    terminal = whole_number("terminal", terminal)
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
    is_terminal = jnp.arange(states) >= states - terminal
    P = jnp.where(is_terminal[:, None, None], jnp.eye(states)[:, None], P)
    r = jnp.where(is_terminal[:, None], 0, r)
    return MDP(
        P=P,
        R=jnp.broadcast_to(r[:, :, None], P.shape),
        start=jnp.where(is_terminal, 0, 1 / (states - terminal)),
        terminal=is_terminal,
        noise=jnp.zeros((states, actions)),
        legal=jnp.ones((states, actions), bool),
    )


# name -> constructor, time limit in steps
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
