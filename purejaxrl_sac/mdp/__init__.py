"""Finite Markov decision processes: from arrays, from maps, by name, and their exact solutions.

`make` builds an MDP from arrays, `from_map` a grid world from a text map, `pomdp.make` a partially
observable MDP. Those in `NAMED` and `NAMED_POMDPS` are also environments: `purejaxrl-sac train
q_learning --env cliff_walking`. `mdp.dynamic_programming` computes exact values of MDPs,
`mdp.beliefs` and `mdp.alpha_vectors` optimal ones of POMDPs, `mdp.controllers` those of policies
with a memory.
"""

from purejaxrl_sac.mdp.maps import LEFT_DOWN_RIGHT_UP, UP_RIGHT_DOWN_LEFT, from_map
from purejaxrl_sac.mdp.model import MDP, Grid, check_discount, check_policy, make, validate
from purejaxrl_sac.mdp.named import (
    NAMED,
    chain,
    cliff_walking,
    deep_sea,
    four_rooms,
    frozen_lake,
    garnet,
    maximization_bias,
    taxi,
)
from purejaxrl_sac.mdp.named_pomdps import (
    NAMED_POMDPS,
    memory_chain,
    t_maze,
    tiger,
    windowed_grid,
)
from purejaxrl_sac.mdp.pomdp import POMDP

__all__ = [
    "LEFT_DOWN_RIGHT_UP",
    "MDP",
    "NAMED",
    "NAMED_POMDPS",
    "POMDP",
    "UP_RIGHT_DOWN_LEFT",
    "Grid",
    "chain",
    "check_discount",
    "check_policy",
    "cliff_walking",
    "deep_sea",
    "four_rooms",
    "from_map",
    "frozen_lake",
    "garnet",
    "make",
    "maximization_bias",
    "memory_chain",
    "t_maze",
    "taxi",
    "tiger",
    "validate",
    "windowed_grid",
]
