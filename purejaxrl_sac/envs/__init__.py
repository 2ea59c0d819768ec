"""Environments: gymnax by name or by object, as vectorised pure functions."""

from purejaxrl_sac.envs.core import Env, bind, make, names, rollout

__all__ = ["Env", "bind", "make", "names", "rollout"]
