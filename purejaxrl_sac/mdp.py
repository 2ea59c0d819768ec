"""Finite Markov decision processes as arrays (post, section 1.1), and the well-known ones.

S is the number of states, A the number of actions. `make` builds an MDP from arrays of your own,
`from_map` a grid world from its picture; the named ones are in `NAMED`, each an environment too:
`purejaxrl-sac train q_learning --env cliff_walking`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_sac.config import ConfigError, static

Array = jax.Array | np.ndarray


class Grid(NamedTuple):
    """How to draw an MDP whose states are places on a map."""

    rows: tuple[str, ...]  # the map, a letter per cell
    position: tuple[tuple[int, int], ...]  # [S] (row, column) of each state; (-1, -1) is nowhere
    moves: tuple[tuple[int, int], ...]  # [A] (rows, columns) that each action is meant to move


@struct.dataclass
class MDP:
    """A finite MDP: a pytree of arrays, so `vmap` over stacked MDPs works."""

    P: Array
    """P(s' | s, a), [S, A, S]; terminal states lead to themselves."""
    R: Array
    """Expected reward of the transition (s, a, s'), [S, A, S]."""
    start: Array
    """Probability that an episode begins in s, [S]."""
    terminal: Array
    """Where episodes end, [S] bool; the value of these states is 0."""
    noise: Array
    """Standard deviation of Gaussian noise on the reward, [S, A]."""
    legal: Array
    """Which actions exist, [S, A] bool; a missing one has value -inf and does nothing. In
    terminal states all do."""
    grid: Grid | None = static(None)
    """How to draw it; None if it is not a map."""

    @property
    def r(self) -> Array:
        """r(s, a), the expected reward, [S, A]."""
        return (self.P * self.R).sum(-1)


def make(
    P: Array,
    R: Array,
    *,
    start: Array | int = 0,
    terminal: Array | Sequence[int] = (),
    noise: Array | float = 0.0,
    legal: Array | None = None,
    grid: Grid | None = None,
) -> MDP:
    """A checked MDP of arrays in float64, which JAX takes in its own precision.

    Args:
        P: [S, A, S]; rows of terminal states and of missing actions may be anything.
        R: [S, A, S], or [S, A] where the reward does not depend on the successor.
        start: [S] probabilities, or the one state in which every episode begins.
        terminal: [S] bool, or the terminal states' indices.
        noise: standard deviation of the reward's Gaussian noise; broadcasts to [S, A].
        legal: [S, A] bool; None if every action exists everywhere.
        grid: how to draw it.

    Raises:
        ConfigError: the arrays are not an MDP.
    """
    try:
        P, R, noise = (np.array(x, np.float64) for x in (P, R, noise))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"P, R and noise must be arrays of numbers: {error}") from None
    if P.ndim != 3 or P.shape[0] != P.shape[2]:
        raise ConfigError(f"P has shape {P.shape}, but must be [S, A, S]")
    num_states, num_actions, _ = P.shape
    R = R[:, :, None] if R.shape == (num_states, num_actions) else R
    if R.shape not in (P.shape, (num_states, num_actions, 1)):
        raise ConfigError(
            f"R has shape {R.shape}, but must be [S, A] or [S, A, S] for {num_states} states and"
            f" {num_actions} actions, like P"
        )
    R = np.array(np.broadcast_to(R, P.shape))

    terminal = np.asarray(terminal)
    if terminal.dtype == bool and terminal.shape != (num_states,):
        raise ConfigError(f"terminal has shape {terminal.shape}, but must be {(num_states,)}")
    if terminal.dtype != bool:
        if terminal.size and not np.issubdtype(terminal.dtype, np.integer):
            raise ConfigError("terminal must be indices of states, or [S] bool")
        if terminal.size and (terminal.min() < 0 or terminal.max() >= num_states):
            raise ConfigError(
                f"terminal has state {terminal.max()}, but the states are 0 to {num_states - 1}"
            )
        terminal = np.isin(np.arange(num_states), terminal)
    shape = (num_states, num_actions)
    legal = np.ones(shape, bool) if legal is None else np.array(legal, bool)
    if legal.shape != shape:
        raise ConfigError(f"legal has shape {legal.shape}, but must be {shape}")
    legal[terminal] = True  # whatever is done there, nothing happens
    if noise.shape not in ((), shape):
        raise ConfigError(f"noise has shape {noise.shape}, but must be a number or {shape}")
    if np.ndim(start) == 0:
        if not isinstance(start, Integral):
            raise ConfigError(f"start is {start!r}, but must be a state's number, or [S]")
        if not 0 <= start < num_states:
            raise ConfigError(f"start is state {start}, but the states are 0 to {num_states - 1}")
        start = np.arange(num_states) == start
    idle = terminal[:, None] | ~legal
    P[idle] = np.broadcast_to(np.eye(num_states)[:, None], P.shape)[idle]
    R[idle] = 0
    mdp = MDP(
        P=P,
        R=R,
        start=np.asarray(start, np.float64),
        terminal=terminal,
        noise=np.where(idle, 0, np.broadcast_to(noise, legal.shape)).astype(np.float64),
        legal=legal,
        grid=grid,
    )
    validate(mdp)
    return mdp


def validate(mdp: MDP) -> None:
    """Checks that probabilities are probabilities and that episodes can begin.

    Raises:
        ConfigError: one line, with the state and action at fault.
    """
    P, R, start = np.asarray(mdp.P), np.asarray(mdp.R), np.asarray(mdp.start)
    terminal, legal = np.asarray(mdp.terminal), np.asarray(mdp.legal)
    num_states = len(P)
    for name, array, shape in (
        ("start", start, (num_states,)),
        ("terminal", terminal, (num_states,)),
        ("legal", legal, P.shape[:2]),
    ):
        if array.shape != shape:
            raise ConfigError(f"{name} has shape {array.shape}, but must be {shape}, like P")
    wrong = ~np.isclose(P.sum(-1), 1, atol=1e-5) | ~(P >= 0).all(-1)
    if wrong.any():
        state, action = np.argwhere(wrong)[0]
        row = P[state, action]
        raise ConfigError(
            f"P[{state}, {action}] sums to {row.sum():.6g} with smallest entry {row.min():.3g}, but"
            " must be probabilities that sum to 1"
        )
    if not np.isfinite(R).all():
        raise ConfigError("rewards must be finite numbers")
    noise = np.asarray(mdp.noise)
    if not (np.isfinite(noise).all() and (noise >= 0).all()):
        raise ConfigError("noise must be finite and zero or more: it is a standard deviation")
    if not (np.isclose(start.sum(), 1, atol=1e-5) and (start >= 0).all()):
        raise ConfigError(
            f"start sums to {start.sum():.6g}, but must be probabilities that sum to 1: episodes"
            " need a state to begin in"
        )
    if (start[terminal] > 0).any():
        state = np.flatnonzero((start > 0) & terminal)[0]
        raise ConfigError(f"state {state} is a start and terminal at once: choose another start")
    if mdp.grid is not None and len(mdp.grid.position) != num_states:
        raise ConfigError(f"grid has {len(mdp.grid.position)} positions for {num_states} states")
    stuck = ~legal.any(-1)
    if stuck.any():
        raise ConfigError(f"state {np.flatnonzero(stuck)[0]} has no legal action: give it one")


def check_discount(mdp: MDP, gamma: Any, pi: Array | None = None) -> None:
    """Checks that values are finite: gamma < 1, or a terminal state in reach of every state.

    What is traced has no value yet and passes.

    Args:
        pi: [S, A], to ask it of this policy rather than of any.

    Raises:
        ConfigError: gamma is 1 and some state never gets to a terminal one, or gamma is not in
            [0, 1].
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, gamma, pi))):
        return
    gamma = np.max(gamma)
    if not 0 <= gamma <= 1:
        raise ConfigError(f"gamma is {gamma}, but must be between 0 and 1")
    if gamma < 1 or np.ndim(mdp.P) > 3:
        return
    allowed = np.asarray(mdp.legal) if pi is None else np.asarray(pi) > 0
    edges = ((np.asarray(mdp.P) > 0) & allowed[:, :, None]).any(1)
    lost = ~_reaches(edges, np.asarray(mdp.terminal))
    if lost.any():
        who = "no terminal state can be reached" if pi is None else "the policy never terminates"
        raise ConfigError(
            f"gamma is 1, but from state {np.flatnonzero(lost)[0]} {who}, so that values diverge:"
            " lower gamma"
        )


def check_policy(mdp: MDP, pi: Array) -> None:
    """Checks that pi [S, A] is a policy of this MDP; what is traced passes.

    Raises:
        ConfigError: one line that says why not.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, pi))):
        return
    pi, legal = np.asarray(pi), np.asarray(mdp.legal)
    if pi.shape != legal.shape:
        raise ConfigError(f"pi has shape {pi.shape}, but must be {legal.shape}")
    if not ((pi >= 0).all() and np.allclose(pi.sum(-1), 1, atol=1e-4)):
        raise ConfigError("every row of pi must be probabilities that sum to 1")
    if (pi[~legal] > 0).any():
        state, action = np.argwhere((pi > 0) & ~legal)[0]
        raise ConfigError(f"pi takes action {action} in state {state}, where it does not exist")


def _reaches(edges: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which states [S] a path along edges [S, S] leads from into targets [S]."""
    while True:
        wider = targets | (edges & targets).any(1)
        if (wider == targets).all():
            return targets
        targets = wider


LEFT_DOWN_RIGHT_UP = ((0, -1), (1, 0), (0, 1), (-1, 0))
UP_RIGHT_DOWN_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))
LETTERS = "S start, . or F free, G goal and H hole (both terminal), C cliff (back to start), # wall"


def from_map(
    rows: str | Sequence[str],
    *,
    rewards: Mapping[str, float] | None = None,
    turn: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    moves: Sequence[tuple[int, int]] = UP_RIGHT_DOWN_LEFT,
) -> MDP:
    """A grid world from its picture.

    The letters are S (a start; uniform over several), `.` or F (free), G (goal) and H (hole),
    where episodes end, C (cliff: pays its reward and leads back to the start) and # (wall, no
    state). Moves into walls or off the map stay where they are. States are numbered row by row.

    Args:
        rewards: letter -> reward of a move that ends on it; {"G": 1} if not given, others 0.
        turn: [4], probability that the move made is that of action (a + i) % 4.
        moves: [4], (rows, columns) of each action, in rotational order.

    Raises:
        ConfigError: the picture or the probabilities make no sense.
    """
    rows = _checked_map(rows)
    rewards = {"G": 1.0} if rewards is None else rewards
    for letter in rewards:
        if letter not in set("S.FGHC"):
            raise ConfigError(f"rewards has the letter {letter!r}: use {LETTERS}")
    cells = [(i, j) for i, row in enumerate(rows) for j, x in enumerate(row) if x != "#"]
    letters = np.array([rows[i][j] for i, j in cells])
    starts = letters == "S"
    if np.shape(moves) != (4, 2):
        raise ConfigError(f"moves has shape {np.shape(moves)}, but must be four (rows, columns)")
    if np.shape(turn) != (4,) or min(turn) < 0 or not np.isclose(sum(turn), 1):
        raise ConfigError(f"turn is {turn}, but must be four probabilities that sum to 1")

    number = {cell: state for state, cell in enumerate(cells)}
    num_states = len(cells)
    start = starts / starts.sum()
    P, paid = np.zeros((2, num_states, 4, num_states))
    for state, (i, j) in enumerate(cells):
        for action in range(4):
            for probability, (down, right) in zip(
                turn, np.roll(moves, -action, axis=0), strict=True
            ):
                successor = number.get((i + down, j + right), state)
                reward = rewards.get(letters[successor], 0.0)
                landing = start if letters[successor] == "C" else np.eye(num_states)[successor]
                P[state, action] += probability * landing
                paid[state, action] += probability * landing * reward
    terminal = np.isin(letters, ("G", "H"))
    edges = (P > 0).any(1) & ~terminal[:, None]
    goals = letters == "G"
    lost = starts & ~_reaches(edges, goals) & goals.any()
    if lost.any():
        i, j = cells[np.flatnonzero(lost)[0]]
        raise ConfigError(f"no G can be reached from the S in row {i}, column {j}: open the way")
    R = np.divide(paid, P, out=np.zeros_like(P), where=P > 0)
    grid = Grid(rows, tuple(cells), tuple(map(tuple, moves)))
    return make(P, R, start=start, terminal=terminal, grid=grid)


def _checked_map(rows: str | Sequence[str]) -> tuple[str, ...]:
    try:
        rows = tuple(rows.split() if isinstance(rows, str) else ("".join(row) for row in rows))
    except TypeError:
        raise ConfigError(f"the map must be text, or a list of its rows: use {LETTERS}") from None
    if not rows:
        raise ConfigError(f"the map is empty: use {LETTERS}")
    if len({len(row) for row in rows}) != 1:
        lengths = sorted({len(row) for row in rows})
        raise ConfigError(f"the map has rows of {lengths} letters: make all of one length")
    for i, row in enumerate(rows):
        for letter in row:
            if letter not in set("S.FGHC#"):
                raise ConfigError(f"row {i} of the map has the letter {letter!r}: use {LETTERS}")
    if "S" not in "".join(rows):
        raise ConfigError("the map has no S: episodes need a place to start")
    return rows


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
