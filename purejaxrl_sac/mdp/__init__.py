"""Finite Markov decision processes: from arrays, from maps, by name, and their exact solutions.

`make` builds an MDP from arrays, `from_map` a grid world from a text map. Those in `NAMED` are also
environments: `purejaxrl-sac train q_learning --env cliff_walking`. `mdp.dynamic_programming`
computes exact values.
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

__all__ = [
    "LEFT_DOWN_RIGHT_UP",
    "MDP",
    "NAMED",
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
    "taxi",
    "validate",
]
