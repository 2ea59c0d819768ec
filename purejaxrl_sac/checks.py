"""Checks of what users pass to the public functions, and of what agents and networks return."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.config import Config, ConfigError, kind_of, shown
from purejaxrl_sac.part_errors import errors_of_parts, name_of_function, running
from purejaxrl_sac.types import Agent, Env, InitCarry, Metrics, Network, PyTree, TrainState

RESERVED = (  # names of what is recorded besides an algorithm's own metrics
    *("episodes", "returns", "lengths", "episode_return", "episode_length", "latest_return"),
    *("steps", "total_steps", "after", "seconds", "rate", "failed_step"),
    *("greedy_return", "exploring_return", "metrics", "evaluation"),
)


def check_key(key: jax.Array) -> None:
    """Raises ConfigError unless this is one typed PRNG key."""
    if not hasattr(key, "dtype") or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ConfigError(f"key is {shown(key)}, but must be a typed key: use jax.random.key(0)")
    if key.shape != ():
        raise ConfigError(f"key has shape {key.shape}, but must be one key: vmap over many")


def check_train_state(state: TrainState) -> None:
    """Raises ConfigError unless this is the state of a run."""
    if not isinstance(state, TrainState):
        raise ConfigError(
            f"state is {kind_of(state)}, but must be a TrainState, as init and run return it"
        )


def check_one_seed(state: TrainState) -> None:
    """Raises ConfigError if a state is one of several seeds, outside of a vmap."""
    if shape := getattr(getattr(state, "key", None), "shape", ()):
        raise ConfigError(
            f"state is of {' x '.join(map(str, shape))} seeds: take one, seed_state(state, 0), or"
            " vmap over all, see seed_axes"
        )


def check_state(config: Config, env: Env, agent: Agent, state: TrainState) -> None:
    """Raises ConfigError unless a state is one seed's, and its agent's one of this configuration.

    Others may have arrays of other shapes, which are read and written beyond their ends silently.
    """
    check_train_state(state)
    check_one_seed(state)
    space = env.observation_space
    own = jax.tree.leaves(state.env)  # policies may have been trained with another num_envs
    num_envs = jnp.shape(state.env.obs)[0] if own else config.num_envs
    obs = jax.ShapeDtypeStruct((num_envs, *space.shape), getattr(space, "dtype", jnp.float32))
    with errors_of_parts(config, *running(env)):
        key = jax.ShapeDtypeStruct((), state.key.dtype)
        expected = jax.eval_shape(agent.init, key, obs)
    check_shapes("agent", state.agent, expected)


def check_environments(config: Config, env: Env, state: TrainState) -> None:
    """Raises ConfigError unless a state has the environments of this configuration."""
    obs = getattr(state.env, "obs", ())  # of a run that was loaded without its environments
    spec = jax.ShapeDtypeStruct((config.num_envs, *env.observation_space.shape), jnp.float32)
    check_shapes("env.obs", obs, spec)


def check_shapes(part: str, found: PyTree, expected: PyTree) -> None:
    """Raises ConfigError unless a part of a state has the structure and shapes of another."""
    remedy = "the state is of another configuration, or of another environment"
    if jax.tree.leaves(expected) and not jax.tree.leaves(found):
        raise ConfigError(f"state.{part} is empty: load the run with whole=True to continue it")
    kinds = kind_of(found), kind_of(expected)  # a local class differs between calls
    if isinstance(found, tuple) and kinds[0] != kinds[1]:
        raise ConfigError(
            f"state.{part} is {kinds[0]}, but with this configuration it is {kinds[1]}: {remedy}"
        )
    has, must = (
        {
            path: f"has shape {[*map(int, jnp.shape(x))]}"  # of spaces, they may be NumPy's
            for path, x in jax.tree_util.tree_leaves_with_path(t)
        }
        for t in (found, expected)
    )
    for path in [*must, *has]:
        if has.get(path) != must.get(path):
            name = f"state.{part}{jax.tree_util.keystr(path)}"
            raise ConfigError(
                f"{name} {has.get(path, 'is missing')}, but with this configuration it"
                f" {must.get(path, 'is missing')}: {remedy}"
            )


def check_observations(env: Env, obs: jax.Array) -> jax.Array:
    """Observations as an array; ConfigError unless they are [N, *shape], of the right type."""
    obs = jnp.asarray(obs)
    found, shape = jnp.shape(obs), tuple(env.observation_space.shape)  # some are lists
    if found == shape:
        raise ConfigError(
            f"obs has shape {found}, which is one observation of {env.name}: add a leading axis, as"
            " obs[None]"
        )
    if found[1:] != shape or not found:
        expected = ", ".join(["N", *map(str, shape)])
        raise ConfigError(
            f"obs has shape {found}, but observations of {env.name} have shape [{expected}]"
        )
    if hasattr(env.observation_space, "n") and not jnp.issubdtype(obs.dtype, jnp.integer):
        raise ConfigError(f"obs is {obs.dtype}, but observations of {env.name} are integers")
    return obs


def check_actions(env: Env, action: jax.Array, num: int, what: str) -> None:
    """Raises ConfigError unless these are actions [N] or [N, D], in canonical units.

    Args:
        num: N.
        what: the beginning of the message, such as "action is".
    """
    dim = env.action_dim
    shape, dtype = ((num,), jnp.int32) if dim is None else ((num, dim), jnp.float32)
    check_actions_like(jax.ShapeDtypeStruct(shape, dtype), action, what)


def check_actions_like(expected: jax.ShapeDtypeStruct, action: jax.Array, what: str) -> None:
    """Raises ConfigError unless actions have this shape and are as integral as this type."""
    action = jnp.asarray(action)
    kind = jnp.integer if jnp.issubdtype(expected.dtype, jnp.integer) else jnp.floating
    found = jnp.result_type(action)
    if jnp.shape(action) != expected.shape or not jnp.issubdtype(found, kind):
        raise ConfigError(
            f"{what} {found}{[*jnp.shape(action)]}, but must be"
            f" {'integers' if kind is jnp.integer else 'floats'} of shape {[*expected.shape]}"
        )


def checked_agent(config: Config, env: Env, agent: Agent) -> Agent:
    """The agent, as its wrappers left it, with checks of what it returns where it is traced."""
    owner = name_of_function(config.algorithm)
    if config.wrappers:
        owner += f" with {', '.join(map(name_of_function, config.wrappers))}"

    def several(function: str, returned: Any, *names: str) -> Any:
        if isinstance(returned, tuple | list) and len(returned) == len(names):
            return returned
        raise ConfigError(
            f"{function} of {owner} returned {kind_of(returned)}, but must return"
            f" {', '.join(names)}"
        )

    def canonical(function: str, action: Any, obs: jax.Array) -> jax.Array:
        action = jnp.asarray(action)
        what = f"{function} of {owner} returned actions that are"
        check_actions(env, action, obs.shape[0], what)
        # networks may compute in bfloat16, but memories and environments have one type of actions
        return action.astype(jnp.int32 if env.action_dim is None else jnp.float32)

    def act(
        key: jax.Array, state: Any, obs: jax.Array, step: jax.Array, carry: Any
    ) -> tuple[jax.Array, PyTree, PyTree]:
        returned = agent.act(key, state, obs, step, carry)
        action, extras, carry = several("act", returned, "action", "extras", "carry")
        return canonical("act", action, obs), extras, carry

    def policy(key: jax.Array, state: Any, obs: jax.Array, carry: Any) -> tuple[jax.Array, PyTree]:
        returned = agent.policy(key, state, obs, carry)
        action, carry = several("policy", returned, "action", "carry")
        return canonical("policy", action, obs), carry

    def update(
        key: jax.Array, state: Any, sample: Any, count: jax.Array
    ) -> tuple[PyTree, jax.Array, Metrics]:
        returned = agent.update(key, state, sample, count)
        state, priority, metrics = several("update", returned, "state", "priority", "metrics")
        return state, priority, metrics

    return agent._replace(act=act, policy=policy, update=update)


def check_carry(init_carry: InitCarry, obs: jax.Array, carry: PyTree) -> None:
    """Raises ConfigError unless a carry has the shapes of `init_carry(N)`, for obs [N, ...].

    Others may broadcast, so that nothing else would fail.
    """
    num = jnp.shape(obs)[0]
    expected = jax.eval_shape(lambda: init_carry(num))
    if jax.tree.map(jnp.shape, carry) != jax.tree.map(jnp.shape, expected):
        raise ConfigError(
            f"the carry is not that of {num} episodes, one for each observation: begin with"
            f" policy.init_carry({num})"
        )


def check_priority(priority: jax.Array, shape: tuple[int, ...]) -> None:
    """Raises ConfigError unless these are priorities of this shape, one for each transition."""
    if jnp.shape(priority) != shape:
        raise ConfigError(
            f"an update returned priorities of shape {[*jnp.shape(priority)]}, but this memory"
            f" needs one for each transition of its sample, of shape {[*shape]}"
        )


class CheckedNetwork(NamedTuple):
    """A network whose outputs are checked when it is traced."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


def checked(
    part: str, network: Network, *shapes: tuple[int | str, ...], arrays: int = 1
) -> Network:
    """The network that a part returned; its outputs must have one of some shapes.

    Arguments as for `check_outputs`.
    """

    def apply(variables: Any, /, *inputs: Any, **options: Any) -> Any:
        outputs = network.apply(variables, *inputs, **options)
        check_outputs(part, outputs, inputs[0].shape[0], *shapes, arrays=arrays)
        return outputs

    return CheckedNetwork(network.init, apply)


def check_outputs(
    part: str, outputs: Any, batch: int, *shapes: tuple[int | str, ...], arrays: int = 1
) -> None:
    """Raises ConfigError unless a network's outputs have one of some shapes.

    Wrong ones may broadcast, so that nothing else would fail.

    Args:
        part: its name, for the message.
        batch: the number of observations.
        shapes: of the first output; "B" is the batch, and another name any length.
        arrays: the number of outputs, of which the others must broadcast to the first.
    """
    expected = [tuple(batch if n == "B" else n for n in shape) for shape in shapes]
    found = [jnp.shape(x) for x in jax.tree.leaves(outputs)[:arrays]]
    fits = len(found) == arrays and any(_fits(found[0], shape) for shape in expected)
    if not (fits and all(_broadcasts(shape, found[0]) for shape in found)):
        several = f"{arrays} arrays of shape " if arrays > 1 else ""
        texts = (f"[{', '.join(map(str, shape))}]" for shape in expected)
        raise ConfigError(
            f"the network of the part {part} returned"
            f" {'an array' if len(found) == 1 else 'arrays'} of shape"
            f" {' and '.join(str([*x]) for x in found)} for {batch} observations, but must"
            f" return {several}{' or '.join(texts)}"
        )


def _fits(found: tuple[int, ...], shape: tuple[int | str, ...]) -> bool:
    pairs = zip(found, shape, strict=False)
    return len(found) == len(shape) and all(isinstance(n, str) or n == m for m, n in pairs)


def _broadcasts(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    pairs = zip(reversed(found), reversed(shape), strict=False)
    return len(found) <= len(shape) and all(n in (1, m) for n, m in pairs)


def check_metrics(metrics: Metrics) -> None:
    """Raises ConfigError unless all metrics of an update are scalars with names of their own."""
    for name, value in metrics.items():
        if name in RESERVED:
            raise ConfigError(
                f"a metric of an update is called {name}, which a run records itself: rename it"
            )
        if not isinstance(value, jax.Array | np.ndarray | Real):
            raise ConfigError(
                f"the metric {name} of an update is {kind_of(value)}, but must be a scalar"
            )
        if jnp.shape(value) != ():
            raise ConfigError(
                f"the metric {name} of an update has shape {jnp.shape(value)}, but must be a"
                " scalar: return its mean"
            )
