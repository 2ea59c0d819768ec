"""Environments: gymnax by name or by object, as vectorised pure functions."""

from purejaxrl_sac.envs.core import Actor, bind, make, names, rollout
from purejaxrl_sac.types import Env

__all__ = ["Actor", "Env", "bind", "make", "names", "rollout"]
