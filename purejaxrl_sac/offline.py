"""Learning from a fixed dataset of transitions, without stepping the environment.

    dataset = prl.record_dataset(key, config, state, episodes=100)
    config = prl.offline(prl.preset("dqn", "CartPole-v1"), dataset)
    state, metrics = jax.jit(prl.train)(key, config)

The dataset is traced data of the configuration. `agents.conservative` has penalties on the values
of actions that it lacks.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.checks import check_one_seed
from purejaxrl_sac.config import Config, ConfigError, kind_of, validate
from purejaxrl_sac.evaluate import PolicyFactory, exploring_policy, rollout_episodes
from purejaxrl_sac.memory.fixed import FIELDS
from purejaxrl_sac.train import build
from purejaxrl_sac.types import Env, TrainState, Transition, store_unchanged

AnyConfig = TypeVar("AnyConfig", bound=Config)


class Dataset(Transition):
    """Transitions to learn from, leading axis [R], which are printed as types and shapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        fields = (f"{name}={_short(x)}" for name, x in self._asdict().items() if name != "extras")
        return f"Dataset({', '.join(fields)})"


def _short(x: Any) -> str:
    """Such as float32[1000,4]; None for the axes of `vmap`."""
    if not hasattr(x, "dtype"):
        return repr(x)
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def offline(config: AnyConfig, dataset: Transition) -> AnyConfig:
    """The configuration that learns from a dataset.

    The environment is used for its spaces and for evaluation. An iteration makes `num_updates`
    updates, and counts as one step of one environment in `total_steps` and in schedules.

    Args:
        dataset: leading axis [R]; actions in canonical units, see `envs.core`; no `extras`.

    Raises:
        ConfigError: the algorithm does not learn from single transitions of a replay memory, or
            the dataset does not fit the environment.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"config is {kind_of(config)}, but must be a configuration")
    for field, what in (("n_step", "n-step returns"), ("priority_exponent", "priorities")):
        if hasattr(config, field):
            raise ConfigError(f"{type(config).__name__} learns with {what}: not from a dataset yet")
    if not hasattr(config, "batch_size"):
        raise ConfigError(
            f"{type(config).__name__} learns from its own rollouts: use an algorithm with a replay"
            " memory, such as dqn or sac"
        )
    env = envs.bind(config.env, config.env_params)
    _check(env, dataset)
    found = config.replace(dataset=_typed(env, dataset), **FIELDS)
    if build(found)[1].process_rollout is not store_unchanged:
        raise ConfigError(
            f"{type(config).__name__} processes rollouts, of which there are none: use an algorithm"
            " that stores them unchanged, such as dqn or sac"
        )
    return found


def record_dataset(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int,
    *,
    policy: PolicyFactory = exploring_policy,
    max_steps: int | None = None,
) -> Dataset:
    """The transitions of episodes that a policy plays, as a dataset; not to be jitted.

    Arguments and errors as for `evaluate`.

    Returns:
        transitions with leading axis [R], the total length of the episodes, and actions in
        canonical units.
    """
    validate(config)
    check_one_seed(state)
    env = envs.bind(config.env, config.env_params)
    play = jax.jit(
        lambda key, config, state: rollout_episodes(
            key, config, state, episodes, policy=policy, max_steps=max_steps
        )
    )
    transitions, running = play(key, config, state)
    chosen = jax.tree.map(lambda x: x[np.asarray(running)], transitions._replace(extras=()))
    rows = Dataset(*chosen)
    if env.num_actions is not None:
        return rows._replace(action=rows.action.astype(jnp.int32))
    space = env.game.action_space(env.params)
    action, low, high = (jnp.asarray(x, jnp.float32) for x in (rows.action, space.low, space.high))
    span = jnp.where(high > low, high - low, 1)  # a component of one value is recorded as 0
    canonical = jnp.where(high > low, 2 * (action - low) / span - 1, 0)
    return rows._replace(action=canonical.reshape(len(canonical), -1))


def _typed(env: Env, dataset: Transition) -> Dataset:
    """The dataset without extras, in the types of `Transition`: NumPy's numbers have 64 bits."""
    rows = Dataset(*map(jnp.asarray, dataset[:-1]))
    return rows._replace(
        action=rows.action.astype(jnp.float32 if env.num_actions is None else jnp.int32),
        reward=rows.reward.astype(jnp.float32),
        discount=rows.discount.astype(jnp.float32),
    )


def _shape(name: str, values: Any) -> Any:
    try:
        return np.shape(values)
    except ValueError:
        raise ConfigError(f"{name} of the dataset has rows of different lengths") from None


def _check(env: Env, dataset: Transition) -> None:
    """Raises ConfigError if a dataset is not of an environment."""
    if not isinstance(dataset, Transition):
        raise ConfigError(f"dataset is {kind_of(dataset)}, but must be a Transition")
    rows = len(dataset.reward) if np.ndim(dataset.reward) == 1 else 0
    if rows == 0:
        raise ConfigError("the dataset has no rows: its fields need one leading axis [R]")
    shape = env.observation_space.shape
    action = () if env.num_actions is not None else (env.action_dim,)
    wanted = {"obs": shape, "next_obs": shape, "action": action, "discount": (), "last": ()}
    for name, inner in wanted.items():
        found = _shape(name, getattr(dataset, name))
        if found != (rows, *inner):
            raise ConfigError(
                f"{name} of the dataset has shape {found}, but must be {(rows, *inner)} for"
                f" {env.name}"
            )
    kinds = {"reward": "fiu", "discount": "fiu", "last": "b", "obs": "fiub", "next_obs": "fiub"}
    kinds["action"] = "iu" if env.num_actions is not None else "f"
    words = {"fiu": "numbers", "fiub": "numbers", "b": "booleans", "iu": "integers", "f": "floats"}
    for name, accepted in kinds.items():
        found = np.asarray(getattr(dataset, name))
        if found.dtype.kind not in accepted:
            raise ConfigError(
                f"{name} of the dataset has the type {found.dtype}, but must be {words[accepted]}"
            )
    discount = np.asarray(dataset.discount)
    if not ((discount >= 0) & (discount <= 1)).all():
        raise ConfigError("discount of the dataset must be within 0 and 1: 0 where it terminated")
    states = getattr(env.observation_space, "n", None)
    for name in ("obs", "next_obs"):
        found = np.asarray(getattr(dataset, name))
        if states is not None and not ((found >= 0) & (found < states)).all():
            raise ConfigError(f"{name} of the dataset must be within 0 and {states - 1}")
    actions = np.asarray(dataset.action)
    least, most = (0, env.num_actions - 1) if env.num_actions is not None else (-1, 1)
    if actions.min() < least or actions.max() > most:
        raise ConfigError(
            f"actions of the dataset are {actions.min():g} to {actions.max():g}, but must be within"
            f" {least} and {most}: in canonical units, as `record_dataset` returns them"
        )
    for name in ("obs", "next_obs", "reward", "action"):
        values = np.asarray(getattr(dataset, name))
        with np.errstate(over="ignore"):  # where float64 is beyond float32
            finite = np.isfinite(values.astype(np.float32)).all()
        if not finite:
            raise ConfigError(f"{name} of the dataset has values that are not finite: remove them")
