"""Well-known finite POMDPs; those in `NAMED_POMDPS` are also environments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from purejaxrl_sac.config import ConfigError, number, whole_number
from purejaxrl_sac.mdp.maps import UP_RIGHT_DOWN_LEFT
from purejaxrl_sac.mdp.model import MDP, Grid
from purejaxrl_sac.mdp.model import make as make_mdp
from purejaxrl_sac.mdp.named import four_rooms
from purejaxrl_sac.mdp.pomdp import POMDP, make, observe_actions


def t_maze(length: int = 10) -> POMDP:
    """The T-maze (Bakker 2001): a cue in the first cell says where to turn, `length` moves later.

    Actions up, right, down, left. At the junction, the turn that was cued gives 4 and the other
    one -0.1; both end the episode. Not to move costs -0.1, all else 0. Observations are 0 and 1 in
    the first cell (the goal is up, down), 2 in the corridor and 3 at the junction and the end.
    States are goal x (length + 1) + cell, and last the end. The map has a maze for each goal.

    The optimal value is 4 gamma^length. Without memory, the turn is a guess: 1.95 gamma^length.

    Raises:
        ConfigError: length is not a whole number of at least 1.
    """
    length = whole_number("length", length, at_least=1)
    cells = length + 1
    end = 2 * cells
    P, R = np.zeros((end + 1, 4, end + 1)), np.zeros((end + 1, 4))
    O = np.zeros((end + 1, 4))
    for goal in range(2):
        for cell in range(cells):
            state = goal * cells + cell
            O[state, goal if cell == 0 else 2 + (cell == length)] = 1
            for action, (down, right) in enumerate(UP_RIGHT_DOWN_LEFT):
                target = min(max(cell + right, 0), length)
                successor = goal * cells + target
                if cell == length and down:
                    successor = end
                    R[state, action] = 4.0 if down == (-1, 1)[goal] else -0.1
                elif target == cell:
                    R[state, action] = -0.1
                P[state, action, successor] = 1
    O[end, 3] = 1
    start = np.isin(np.arange(end + 1), (0, cells)) / 2
    corridor, arm, goal_arm = "S" + "." * length, "#" * length + ".", "#" * length + "G"
    rows = (goal_arm, corridor, arm, "#" * cells, arm, corridor, goal_arm)
    position = (*((row, cell) for row in (1, 5) for cell in range(cells)), (-1, -1))
    grid = Grid(rows, position, UP_RIGHT_DOWN_LEFT)
    return make(make_mdp(P, R, start=start, terminal=[end], grid=grid), O)


def tiger(
    accuracy: float = 0.85, listen: float = -1.0, treasure: float = 10.0, eaten: float = -100.0
) -> POMDP:
    """The tiger (Kaelbling, Littman & Cassandra 1998): listen, or open one of two doors.

    States are the tiger's door, left or right. Actions listen, open left, open right; observations
    are a roar from the left or from the right, correct with probability `accuracy` after listening
    and uniform otherwise. After a door was opened, the tiger is behind either with equal
    probability: a continuing task.

    Args:
        accuracy: probability that the tiger is heard behind its door.
        listen: reward of listening.
        treasure: reward of the door without the tiger.
        eaten: reward of the tiger's door.

    Raises:
        ConfigError: accuracy is not a probability, or a reward is not a number.
    """
    accuracy = number("accuracy", accuracy, at_least=0, at_most=1)
    listen, treasure, eaten = (
        number(name, reward)
        for name, reward in (("listen", listen), ("treasure", treasure), ("eaten", eaten))
    )
    P = np.full((2, 3, 2), 0.5)
    P[:, 0] = np.eye(2)
    R = np.array([[listen, eaten, treasure], [listen, treasure, eaten]])
    O = np.full((3, 2, 2), 0.5)
    O[0] = [[accuracy, 1 - accuracy], [1 - accuracy, accuracy]]
    return make(make_mdp(P, R, start=np.full(2, 0.5)), O, initial=np.full((2, 2), 0.5))


def memory_chain(length: int = 5) -> POMDP:
    """The memory chain (Osband et al. 2020): after `length` steps, say the bit that was shown.

    The last of length + 1 actions gives 1 if it is the bit and -1 otherwise; all else gives 0.
    Observations are 0 and 1 (the bit), then the time, and last the end. Like bsuite's and gymnax's
    MemoryChain-bsuite of one bit, each step returns the observation of the state before it: the bit
    is seen at times 0 and 1, and t - 1 at time t. States are bit x (length + 1) + time, and last
    the end.

    The optimal value is gamma^length. Without memory it is 0, except for length 1, where the bit is
    still seen when it is asked for.

    Raises:
        ConfigError: length is not a whole number of at least 1.
    """
    length = whole_number("length", length, at_least=1)
    end = 2 * (length + 1)
    P, R = np.zeros((end + 1, 2, end + 1)), np.zeros((end + 1, 2))
    O = np.zeros((end + 1, length + 2))
    for bit in range(2):
        for time in range(length + 1):
            state = bit * (length + 1) + time
            P[state, :, end if time == length else state + 1] = 1
            O[state, bit if time < 2 else time] = 1
        R[state] = np.where(np.arange(2) == bit, 1, -1)
    O[end, length + 1] = 1
    start = np.isin(np.arange(end + 1), (0, length + 1)) / 2
    return make(make_mdp(P, R, start=start, terminal=[end]), O)


def windowed_grid(mdp: MDP, epsilon: float = 0.0) -> POMDP:
    """A grid world of which only the 3 x 3 cells around the agent are seen.

    Goals, holes, cliffs and walls are seen; starts look like free cells and what is off the map
    like walls. Observations are the different windows, numbered in the order of states.

    Args:
        mdp: an MDP with a grid.
        epsilon: probability with which an observation is replaced by a uniformly random one.

    Raises:
        ConfigError: the MDP has no grid, or epsilon is not a probability.
    """
    if mdp.grid is None:
        raise ConfigError("a windowed grid needs an MDP with a map: see mdp.from_map")
    epsilon = number("epsilon", epsilon, at_least=0, at_most=1)
    free = str.maketrans("SF", "..")
    width = len(mdp.grid.rows[0])
    # two rows and columns of walls, because a position off the map is (-1, -1)
    rows = ["#" * (width + 4)] * 2
    rows += [f"##{row.translate(free)}##" for row in mdp.grid.rows] + rows
    windows = [
        "".join(row[j + 1 : j + 4] for row in rows[i + 1 : i + 4]) for i, j in mdp.grid.position
    ]
    indices = {window: z for z, window in enumerate(dict.fromkeys(windows))}
    seen = np.eye(len(indices))[[indices[window] for window in windows]]
    return make(mdp, (1 - epsilon) * seen + epsilon / len(indices))


# name -> constructor, time limit in steps
NAMED_POMDPS: dict[str, tuple[Callable[[], POMDP], int]] = {
    "t_maze": (t_maze, 100),
    "t_maze_5": (partial(t_maze, 5), 100),
    "t_maze_20": (partial(t_maze, 20), 200),
    "tiger": (tiger, 100),
    "tiger_with_actions": (lambda: observe_actions(tiger()), 100),
    "memory_chain": (memory_chain, 100),
    "windowed_rooms": (lambda: windowed_grid(four_rooms()), 500),
}
