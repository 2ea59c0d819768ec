"""Configurations: the fields that all algorithms share, and how fields declare their bounds.

A field is declared static or traced, with its bounds,

    batch_size: int = static(128, at_least=1)
    gamma: float = traced(0.99, between=(0, 1))

and a class that redefines its default inherits both. Conditions between fields are checked by
`Config.check`, which subclasses extend.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Iterable
from numbers import Integral, Number, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_sac.types import Algorithm, Curriculum, Wrapper


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line that says what to do."""


def _is_number(x: Any) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool)


def _is_whole(x: Any) -> bool:
    return isinstance(x, Integral) and not isinstance(x, bool)


class Bounds(NamedTuple):
    """The values that a field accepts."""

    kind: type  # int: whole numbers; float: numbers; str: one of `one_of`; tuple: layer sizes
    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    one_of: tuple[str, ...] = ()
    infinite: bool = False  # whether inf is a value
    optional: bool = False  # whether None is a value

    def check(self, name: str, value: Any) -> None:
        """Raises ConfigError if the value of field `name` is out of bounds; tracers pass."""
        if isinstance(value, jax.core.Tracer) or (self.optional and value is None):
            return
        if self.kind is str:
            if not isinstance(value, str) or value not in self.one_of:
                raise unknown(name, value, self.one_of)
            return
        if self.kind is tuple:
            sizes: Iterable[Any] = value if isinstance(value, tuple | list) else [None]
            if not all(_is_whole(x) and int(x) > 0 for x in sizes):
                raise ConfigError(
                    f"{name} is {shown(value)}, but must be a tuple of whole numbers > 0"
                )
            return
        value = _plain(value)
        if not (_is_whole(value) if self.kind is int else _is_number(value)):
            what = "a whole number" if self.kind is int else "a number"
            raise ConfigError(f"{name} is {shown(value)}, but must be {what}")
        try:
            violated = self.violated(float(value))
        except OverflowError:
            violated = "finite"
        if violated:
            raise ConfigError(f"{name} is {shown(value)}, but must be {violated}")

    def violated(self, x: float) -> str:
        """The bound that a number violates; empty if it is within all of them."""
        if math.isnan(x):
            return "a number"
        two_sided = self.at_least > -math.inf and self.at_most < math.inf
        if two_sided and not self.at_least <= x <= self.at_most:
            return f"between {self.at_least} and {self.at_most}"
        if math.isinf(x) and not (x > 0 and self.infinite):
            return "finite"
        if x < self.at_least:
            return f"at least {self.at_least}" if self.at_least else "zero or more"
        if x > self.at_most:
            return f"at most {self.at_most}" if self.at_most else "zero or less"
        if x <= self.above:
            return f"greater than {self.above}" if self.above else "greater than zero"
        return f"less than {self.below}" if self.below <= x < math.inf else ""


def static(default: Any, *, between: tuple[float, float] | None = None, **bounds: Any) -> Any:
    """A field that decides shapes or code: part of the compiled program, not of its data.

    Args:
        between: the smallest and the largest value.
        **bounds: fields of `Bounds`, such as `at_least=1` or `one_of=("relu", "tanh")`. Where there
            are any, the kind of value follows from the default: int, float, str or a tuple of ints.
    """
    return struct.field(pytree_node=False, **_declared(default, between, bounds))


def traced(default: Any, *, between: tuple[float, float] | None = None, **bounds: Any) -> Any:
    """A field that is data of the compiled program: a number that `vmap` may sweep over.

    Arguments as for `static`.
    """
    return struct.field(**_declared(default, between, bounds))


def _declared(
    default: Any, between: tuple[float, float] | None, bounds: dict[str, Any]
) -> dict[str, Any]:
    if between is not None:
        bounds |= {"at_least": between[0], "at_most": between[1]}
    checked = Bounds(bounds.pop("kind", type(default)), **bounds) if bounds else None
    return {"default": default, "metadata": {"bounds": checked} if checked else {}}


class Config(struct.PyTreeNode):
    """Fields of every run.

    Fields made by `static` are shapes, counts, names, callables and the numbers that networks are
    built from: changing one compiles a new program. All others are traced: numbers, over which a
    `vmap` is a hyperparameter sweep, and pytrees.
    """

    algorithm: Algorithm = static(None)
    """(config, env) -> (Agent, Memory); pass your own to fork an algorithm."""
    env: Any = static("CartPole-v1")
    """Environment: a name, or any gymnax `Environment` object."""
    env_params: object = None
    """Parameters of the environment (a traced pytree); None for its defaults."""
    curriculum: Curriculum | None = static(None)
    """(params, progress) -> parameters of the environment for the next rollout, see `curriculum`;
    None for `env_params` throughout. Evaluation always uses `env_params`."""
    dataset: object = None
    """Transitions to learn from instead of the environment's (a traced pytree), see `offline`."""
    total_steps: int = static(100_000, between=(1, 2**53))
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(1, at_least=1)
    """Parallel environments per seed."""
    rollout_length: int = static(1, at_least=1)
    """Steps each environment takes between learning phases."""
    noise_repeat: int = static(1, at_least=1)
    """Steps for which the exploration noise is kept; divides rollout_length. On-policy: 1."""
    num_updates: int = static(1, at_least=1)
    """Gradient updates in each learning phase."""
    warmup_steps: int = static(0, at_least=0)
    """Environment steps of uniformly random actions before learning starts."""
    wrappers: tuple[Wrapper, ...] = static(())
    """Wrappers of the agent, the innermost first, such as `normalize.observations`."""
    normalization_limit: float = traced(10.0, above=0)
    """Standard deviations that the wrappers of `normalize` clip to."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Each field is inherited from the first class of the MRO that declares it.

        Dataclasses prefer those that an earlier base inherits to those that a later one declares,
        so inherited fields are declared again while the dataclass is made. What a new default does
        not say, such as whether the field is static, is inherited too.

        Raises:
            ConfigError: a default has no type, or can be no data of a program.
        """
        declared = inspect.get_annotations(cls)
        inherited = _inherited_fields(cls)
        for name, base in inherited.items():
            if name in vars(cls) and name not in declared:
                kind = getattr(base.type, "__name__", base.type)
                raise ConfigError(
                    f"{cls.__name__} sets {name} without a type, which changes no field: annotate"
                    f" it, as {name}: {kind} = ..."
                )
            setattr(cls, name, _redeclared(base, vars(cls).get(name, base)))
        cls.__annotations__ = {name: x.type for name, x in inherited.items()} | declared
        super().__init_subclass__(**options)
        cls.__annotations__ = declared
        for name in inherited.keys() - declared.keys():
            delattr(cls, name)
        _check_traceable(cls, declared)

    if not TYPE_CHECKING:  # which knows the fields

        def __new__(cls, *_: Any, **fields: Any) -> Any:
            """Raises ConfigError for a field that does not exist, also in `replace`."""
            known = _arguments(cls)
            for name in fields:
                if known is not None and name not in known:
                    raise unknown(f"field of {cls.__name__}", name, known)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        """Makes static fields hashable: Python's numbers for NumPy's and JAX's, tuples for lists.

        Left in a static field, an array would make every later comparison of configurations fail.

        Raises:
            ConfigError: a static field is an array of several values.
        """
        for name in static_fields(type(self)):
            value = getattr(self, name)
            plain = tuple(value) if isinstance(value, list) else _plain(value)
            if _is_array(plain):
                raise ConfigError(
                    f"{name} is an array, but must be a Python value: vmap sweeps traced fields"
                )
            if plain is not value:
                object.__setattr__(self, name, plain)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps per iteration, over all parallel environments."""
        return self.num_envs * self.rollout_length

    @property
    def warmup_iterations(self) -> int:
        """Warm-up in whole iterations: `warmup_steps`, rounded up."""
        return -(-self.warmup_steps // self.steps_per_iteration)

    @property
    def iterations(self) -> int:
        """Learning iterations that fit into `total_steps` after the warm-up."""
        return self.total_steps // self.steps_per_iteration - self.warmup_iterations

    def step_at(self, count: Any) -> Any:
        """Steps that each environment has taken when update `count` (from 0) is made."""
        iteration = self.warmup_iterations + count // self.num_updates + 1
        return iteration * self.rollout_length

    def check(self) -> None:
        """Checks conditions between fields; each field is within its own bounds already.

        Raises:
            ConfigError: one line, with the fields, their values and the remedy.
        """
        if self.iterations < 1:
            needed = (self.warmup_iterations + 1) * self.steps_per_iteration
            raise ConfigError(
                f"total_steps is {self.total_steps}, but the warm-up and one iteration take"
                f" {needed}: raise total_steps, or lower warmup_steps, num_envs or rollout_length"
            )
        if self.total_steps // self.num_envs >= 2**31:
            raise ConfigError("each environment may take fewer than 2**31 steps: lower total_steps")
        if self.iterations * self.num_updates >= 2**31:
            raise ConfigError(
                f"{self.iterations} iterations of {self.num_updates} updates each are 2**31 updates"
                " or more: lower total_steps or num_updates, or raise num_envs or rollout_length"
            )
        if self.rollout_length % self.noise_repeat:
            raise ConfigError(
                f"noise_repeat is {self.noise_repeat}, but must divide rollout_length ="
                f" {self.rollout_length}"
            )


def _inherited_fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a class's bases, each of the first base of the MRO that declares it."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__[1:]):
        fields: dict[str, Any] = vars(base).get("__dataclass_fields__", {})
        found |= {name: field for name, field in fields.items() if name in vars(base)}
    return found


def _redeclared(base: dataclasses.Field[Any], given: Any) -> Any:
    """A field with a new default or what `static` or `traced` says, and otherwise as `base`."""
    if not isinstance(given, dataclasses.Field):
        given = dataclasses.field(default=given)
    return dataclasses.field(
        default=given.default,
        default_factory=given.default_factory,
        metadata={**base.metadata, **given.metadata},
    )


def _check_traceable(kind: type[Any], names: Iterable[str]) -> None:
    """Raises ConfigError if a field of these names has a default that must be static."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in set(names) & fields.keys() - {*static_fields(kind)}:
        default = fields[name].default
        data = Number | np.ndarray | np.generic | jax.Array | type(dataclasses.MISSING)
        if not all(isinstance(x, data) for x in jax.tree.leaves(default)):
            raise ConfigError(
                f"{name} of {kind.__name__} is {kind_of(default)}, which can be no data of a"
                f" compiled program: declare it as {name}: ... = static(...)"
            )


@functools.cache
def _arguments(kind: type[Any]) -> tuple[str, ...] | None:
    """The names of what a class is constructed from; None if it takes any."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # without self
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return None if takes_any else tuple(p.name for p in parameters)


def whole_number(name: str, value: Any, **bounds: Any) -> int:
    """An argument as an int; NumPy's and JAX's integers are whole numbers, booleans are not.

    Args:
        **bounds: fields of `Bounds`.

    Raises:
        ConfigError: it is not a whole number, out of bounds, or traced.
    """
    _check_known(name, value)
    Bounds(int, **bounds).check(name, value)
    return int(value)


def number(name: str, value: Any, **bounds: Any) -> float:
    """An argument as a float; NumPy's and JAX's scalars are numbers, booleans are not.

    Args:
        **bounds: fields of `Bounds`.

    Raises:
        ConfigError: it is not a number, out of bounds, or traced.
    """
    _check_known(name, value)
    Bounds(float, **bounds).check(name, value)
    return float(value)


def _check_known(name: str, value: Any) -> None:
    if isinstance(value, jax.core.Tracer):
        raise ConfigError(
            f"{name} is traced, but is a static number: pass it by functools.partial or as one of"
            " jit's static_argnames"
        )


def unknown(kind: str, name: object, known: Iterable[str], otherwise: str = "") -> ConfigError:
    """The error for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else otherwise or f"choose from {', '.join(known)}"
    plain = isinstance(name, str) and name.strip() and name.isprintable()
    called = name if plain else shown(name)
    return ConfigError(f"no {kind} is called {called}: {hint}")


def static_fields(kind: type[Any]) -> list[str]:
    """The names of a configuration's static fields."""
    fields = dataclasses.fields(kind)
    return [field.name for field in fields if not field.metadata.get("pytree_node", True)]


def traced_fields(config: Config) -> set[str]:
    """The fields that may differ between lanes of one program: numbers that are not static."""
    static = static_fields(type(config))
    names = (field.name for field in dataclasses.fields(config) if field.name not in static)
    return {name for name in names if isinstance(getattr(config, name), Real)}


def in_32_bits(config: Config) -> Config:
    """The configuration with numbers of 64 bits rounded to 32, with which agents compute."""
    fields = (field.name for field in dataclasses.fields(config))
    values = {name: getattr(config, name) for name in fields}
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    rounded = {
        name: value.astype(narrow[value.dtype])
        for name, value in values.items()
        if getattr(value, "dtype", None) in narrow and not getattr(value, "weak_type", False)
    }
    return config.replace(**rounded) if rounded else config


def _is_array(value: Any) -> bool:
    concrete = not isinstance(value, jax.core.Tracer)
    return concrete and isinstance(value, np.ndarray | np.generic | jax.Array)


def _plain(value: Any) -> Any:
    """NumPy's and JAX's scalars as Python's; other values unchanged."""
    if not _is_array(value) or value.ndim:
        return value
    extended = jnp.issubdtype(value.dtype, jax.dtypes.extended)  # such as PRNG keys
    return value if extended else value.item()


def shown(value: object) -> str:
    """A value as text of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_of(value: object) -> str:
    """What a value is, for messages: 3, None, a tuple of 2, an array of shape [4], an MDP."""
    if value is None or isinstance(value, str | Real):
        return shown(value)
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {[*value.shape]}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    size = f" of {len(value)}" if type(value) is tuple else ""
    vowels = "AEFHILMNORSX" if name[:2].isupper() else "AEIOUaeiou"  # initialisms are spelt out
    return f"{'an' if name[0] in vowels else 'a'} {name}{size}"


def bounds_of(kind: type[Any]) -> dict[str, Bounds]:
    """The bounds of all fields of a configuration class."""
    declared = {field.name: field.metadata.get("bounds") for field in dataclasses.fields(kind)}
    return {name: bounds for name, bounds in declared.items() if bounds}


def validate(config: Config) -> None:
    """Checks every field that can be checked before anything is compiled.

    Traced fields are checked where they are concrete (a tracer has no value yet).

    Raises:
        ConfigError: one line, with the field, its value and the remedy.
    """
    if not isinstance(config, Config) or not dataclasses.is_dataclass(config):
        raise ConfigError(
            f"config is {kind_of(config)}, but must be a Config: use default_config('sac')"
        )
    if config.algorithm is None:
        raise ConfigError(f"{kind_of(config)} has no algorithm: set algorithm=...")
    if not callable(config.algorithm):
        raise ConfigError(f"algorithm is {shown(config.algorithm)}, but must be a function")
    if not (isinstance(config.wrappers, tuple) and all(map(callable, config.wrappers))):
        raise ConfigError(f"wrappers is {shown(config.wrappers)}, but must be a tuple of functions")
    if not (config.curriculum is None or callable(config.curriculum)):
        raise ConfigError(f"curriculum is {shown(config.curriculum)}, but must be a function")
    for name, bounds in bounds_of(config.__class__).items():
        bounds.check(name, getattr(config, name))
    config.check()
