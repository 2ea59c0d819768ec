"""Checks of the parts that algorithms are given, by the contracts in `types`.

    @checks_parts
    def dqn(config, env, *, bootstrap: Bootstrap = maximum, ...): ...

A part that is not a function, or that returns anything other than its contract says, gets one line
with its name. Shapes are checked while parts are traced: wrong ones may broadcast, so that nothing
else would fail. Compiled programs do not change.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import UnionType
from typing import Any, NamedTuple, TypeVar, cast, get_args

import jax
import jax.numpy as jnp

from purejaxrl_sac import types
from purejaxrl_sac.config import ConfigError, kind_of, unknown
from purejaxrl_sac.types import (
    Agent,
    Critique,
    Env,
    Index,
    Memory,
    NextQ,
    NextReturn,
    Noise,
    QHead,
    Sample,
    Storage,
    Transition,
)

Built = TypeVar("Built", bound=Callable[..., tuple[Agent, Memory]])
Shape = tuple[int | str, ...]  # a text, such as "K", is any length: for messages only


class Part(NamedTuple):
    """A part of an algorithm, for messages."""

    name: str
    algorithm: str

    def error(self, what: str) -> ConfigError:
        """The error of a part that is or returns something else, such as "is 3, but ..."."""
        return ConfigError(f"the part {self.name} of {self.algorithm} {what}")

    def several(self, returned: Any, *names: str) -> Any:
        """What it returned, if that is a tuple of this many; `names` are what it must return."""
        if isinstance(returned, tuple | list) and len(returned) == len(names):
            return returned
        raise self.error(f"returned {kind_of(returned)}, but must return ({', '.join(names)})")

    def array(self, what: str, value: Any, *shapes: Shape) -> None:
        """Checks that it returned an array, or a number, of one of these shapes."""
        if not hasattr(value, "shape") and not isinstance(value, int | float):
            raise self.error(f"returned {kind_of(value)} as {what}, but must return an array")
        if jnp.shape(value) not in shapes:
            texts = (f"[{', '.join(map(str, shape))}]" for shape in shapes)
            expected = " or ".join("a scalar" if x == "[]" else f"shape {x}" for x in texts)
            raise self.error(
                f"returned {what} of shape {[*jnp.shape(value)]}, but must return {expected}"
            )

    def floating(self, what: str, value: Any, shape: Shape) -> None:
        """Checks that it returned floating-point numbers of this shape."""
        self.array(what, value, shape)
        if not jnp.issubdtype(dtype := jnp.result_type(value), jnp.floating):
            raise self.error(f"returned {what} of type {dtype}, but must return a float")

    def state(self, function: str, value: Any, given: Any) -> Any:
        """The state that a function of it returned, if it has the form of the one it was given."""

        def form(state: Any) -> Any:
            return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), state)

        if form(value) == form(given):
            return value
        what = kind_of(value) if type(value) is not type(given) else "a state of other arrays"
        raise self.error(f"returned {what} from {function}, but must return a state as it is given")

    def sample(self, function: str, value: Any) -> Sample:
        """What it returned from a function, if that is a sample with a weight for each row."""
        if not (isinstance(value, Sample) and isinstance(value.transition, Transition)):
            raise self.error(
                f"returned {kind_of(value)} from {function}, but must return a Sample of a"
                " Transition"
            )
        shape, weight = jnp.shape(value.transition.reward), jnp.shape(value.weight)
        if weight != shape[len(shape) - len(weight) :]:
            raise self.error(
                f"returned weights of shape {[*weight]} from {function}, but rewards of shape"
                f" {[*shape]}"
            )
        return value

    def metrics(self, value: Any) -> None:
        """Checks that it returned a dictionary of metrics."""
        if not (isinstance(value, dict) and all(isinstance(name, str) for name in value)):
            raise self.error(
                f"returned {kind_of(value)} as metrics, but must return a dictionary by name"
            )


def checks_parts(algorithm: Built) -> Built:
    """An algorithm whose keyword arguments are parts, with checks of those that it is given.

    Raises:
        ConfigError: when called, for a part that does not exist or is not a function; when a part
            is called, for what it returns.
    """
    parameters = inspect.signature(algorithm).parameters.values()
    contracts = {p.name: _contract(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}
    name = algorithm.__name__

    @functools.wraps(algorithm)
    def build(config: Any, env: Env, **parts: Any) -> tuple[Agent, Memory]:
        for part in parts:
            if part not in contracts:
                raise unknown(f"part of {name}", part, contracts)
        checked = {
            part: _checked(Part(part, name), contracts[part], function)
            for part, function in parts.items()
        }
        return algorithm(config, env, **checked)

    return cast(Built, build)


def _contract(annotation: Any) -> str:
    """The name of a contract, such as "Loss" or "Penalty | None", also of an evaluated one."""
    if isinstance(annotation, str):
        return annotation
    names = (
        "None" if x is type(None) else getattr(x, "__name__", str(x))
        for x in (get_args(annotation) if isinstance(annotation, UnionType) else [annotation])
    )
    return " | ".join(names)


def _checked(part: Part, contract: str, function: Any) -> Any:
    optional = contract.endswith(" | None")
    contract = contract.removesuffix(" | None")
    if optional and function is None:
        return None
    if not callable(function):
        see = f", see {contract} in purejaxrl_sac.types" if contract in vars(types) else ""
        raise part.error(f"is {kind_of(function)}, but must be a function{see}")
    check = CHECKS.get(contract)
    if check is None:
        return function

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return check(part, function(*args), *args)

    return call


# Each check takes the part, what it returned and what it was given, and returns what is used.


def _with_functions(what: str, *names: str) -> Callable[..., Any]:
    def check(part: Part, made: Any, *_: Any) -> Any:
        if not all(callable(getattr(made, name, None)) for name in names):
            raise part.error(
                f"returned {kind_of(made)}, but must return {what}, with {' and '.join(names)}"
            )
        return made

    return check


def _made(kind: Any) -> Callable[..., Any]:
    def check(part: Part, made: Any, *_: Any) -> Any:
        if not all(hasattr(made, field) for field in kind._fields):
            raise part.error(f"returned {kind_of(made)}, but must return a {kind.__name__}")
        return made

    return check


def _storage(part: Part, made: Any, config: Any, env: Env) -> Storage:
    storage: Storage = _made(Storage)(part, made)
    if storage.num_envs != config.num_envs:
        raise part.error(f"has num_envs={storage.num_envs}, but {config.num_envs} are trained with")
    rows, rest = divmod(storage.capacity, storage.num_envs)
    if rest or rows < 1:
        raise part.error(
            f"has capacity={storage.capacity}, but must have a multiple of num_envs,"
            f" {storage.num_envs}"
        )

    def add(state: Any, step: jax.Array, rollout: Transition) -> Any:
        return part.state("add", storage.add(state, step, rollout), state)

    def read(state: Any, step: jax.Array, index: Index) -> Sample:
        sample = part.sample("read", storage.read(state, step, index))
        part.array("weights from read", sample.weight, jnp.shape(sample.transition.reward))
        return sample

    return _replaced(storage, Storage, add=add, read=read)


def _memory(part: Part, made: Any, *_: Any) -> Memory:
    memory: Memory = _made(Memory)(part, made)

    def add(state: Any, step: jax.Array, rollout: Transition) -> Any:
        return part.state("add", memory.add(state, step, rollout), state)

    def sample(state: Any, draw: Any) -> Sample:
        return part.sample("sample", memory.sample(state, draw))

    def update_priorities(state: Any, sample: Sample, priority: jax.Array) -> Any:
        updated = memory.update_priorities(state, sample, priority)
        return part.state("update_priorities", updated, state)

    return _replaced(memory, Memory, add=add, sample=sample, update_priorities=update_priorities)


def _replaced(made: Any, kind: Any, **functions: Any) -> Any:
    """What a part made, with other functions; an object that is no tuple becomes one."""
    if not isinstance(made, kind):
        made = kind(*(getattr(made, field) for field in kind._fields))
    return made._replace(**functions)


def _noise(part: Part, made: Any, config: Any, action_dim: int) -> Noise:
    noise: Noise = _made(Noise)(part, made)

    def draw(key: jax.Array, shape: tuple[int, ...], carry: Any) -> tuple[jax.Array, Any]:
        drawn, carry = part.several(noise.draw(key, shape, carry), "noise [N, D]", "carry")
        part.array("noise", drawn, shape)
        return drawn, carry

    return cast(Noise, _replaced(noise, Noise, draw=draw))


def _critique(part: Part, made: Any, config: Any) -> Critique:
    critique: Critique = _made(Critique)(part, made)

    def next_return(key: jax.Array, q: jax.Array) -> jax.Array:
        returned = critique.next_return(key, q)
        columns = jnp.shape(returned)[1] if jnp.ndim(returned) == 2 else "K"
        part.array("next_return", returned, (q.shape[1], columns), ())
        return returned

    def loss(q: jax.Array, target: jax.Array) -> jax.Array:
        returned = critique.loss(q, target)
        part.array("the loss of each row", returned, q.shape[1:2])
        return returned

    def value(q: jax.Array) -> jax.Array:
        returned = critique.value(q)
        part.array("value", returned, q.shape[1:2])
        return returned

    return critique._replace(next_return=next_return, loss=loss, value=value)


def _head(part: Part, made: Any, config: Any) -> QHead:
    head: QHead = _made(QHead)(part, made)

    def expectation(outputs: Any) -> jax.Array:
        returned = head.expectation(outputs)
        if isinstance(outputs, jax.Array):
            part.array("expectation", returned, outputs.shape[:-1])
        return returned

    def loss(outputs: Any, action: jax.Array, next_return: NextReturn, backup: Any) -> Any:
        returned = head.loss(outputs, action, next_return, backup)
        rows, priority, metrics = part.several(returned, "loss [B]", "priority [B]", "metrics")
        part.array("the loss of each row", rows, action.shape)
        part.array("priorities", priority, action.shape)
        part.metrics(metrics)
        return returned

    return head._replace(expectation=expectation, loss=loss)


def _loss(part: Part, returned: Any, params: Any, inputs: Any) -> Any:
    loss, rest = part.several(returned, "loss", "(array [B], metrics)")
    array, metrics = part.several(rest, "array [B]", "metrics")
    part.floating("a loss", loss, ())
    if getattr(array, "ndim", 0):  # a scalar will do where nothing uses it
        part.array("(loss, (array, metrics)) with an array", array, inputs.batch.reward.shape)
    part.metrics(metrics)
    return returned


def _soft_actor_loss(part: Part, returned: Any, params: Any, inputs: Any) -> Any:
    _, (log_prob, _) = _loss(part, returned, params, inputs)
    part.array("log pi(a|s)", log_prob, inputs.batch.reward.shape)
    return returned


def _critic_target(part: Part, returned: Any, inputs: Any) -> Any:
    rows = inputs.batch.reward.shape
    columns = jnp.shape(returned)[1] if jnp.ndim(returned) == 2 else "K"
    part.array("targets", returned, rows, (*rows, columns))
    return returned


def _bootstrap(part: Part, returned: Any, config: Any, next_q: NextQ) -> Any:
    pi, bonus = part.several(returned, "policy [B, A]", "bonus")
    shape = next_q.online.shape
    part.array("a policy", pi, shape)
    part.array("a bonus", bonus, (), (1,), shape[:1], shape)
    return returned


def _explore(part: Part, returned: Any, config: Any, q: jax.Array, step: Any) -> Any:
    part.floating("a policy", returned, q.shape)
    return returned


def _reward(part: Part, returned: Any, config: Any, batch: Transition, q: jax.Array) -> Any:
    part.array("rewards", returned, batch.reward.shape)
    return returned


def _target(part: Part, returned: Any, reward: jax.Array, *_: Any) -> Any:
    part.array("targets", returned, reward.shape)
    return returned


def _of_rows(part: Part, returned: Any, config: Any, rows: jax.Array, *_: Any) -> Any:
    part.array("values", returned, rows.shape)
    return returned


_network = _with_functions("a network such as a flax module", "init", "apply")
_recurrent = _with_functions("a recurrent network", "init", "apply", "initial_carry")
CHECKS: dict[str, Callable[..., Any]] = {
    "MakeOptimizer": _with_functions("an optax transformation", "init", "update"),
    **dict.fromkeys(("MakeQNetwork", "MakeActor", "MakeCritics", "MakeValue"), _network),
    "MakeActorCritic": _network,
    **dict.fromkeys(("MakeRecurrentQNetwork", "MakeRecurrentActorCritic"), _recurrent),
    **dict.fromkeys(("MakeRecurrentActor", "MakeRecurrentCritics"), _recurrent),
    "MakeStorage": _storage,
    "MakeMemory": _memory,
    "MakeRolloutMemory": _memory,
    "MakeNoise": _noise,
    "MakeCritique": _critique,
    "MakeHead": _head,
    "Loss": _loss,
    "SoftActorLoss": _soft_actor_loss,
    "CriticTarget": _critic_target,
    "Bootstrap": _bootstrap,
    "Explore": _explore,
    "Reward": _reward,
    "Target": _target,
    "Objective": _of_rows,
    "ValueLoss": _of_rows,
}
"""Contract -> check of what a part returned; other contracts need only be functions."""
