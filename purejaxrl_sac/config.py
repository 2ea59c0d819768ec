"""The fields every algorithm's configuration shares, and their checks."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

from flax import struct


def static(default: Any) -> Any:
    """A field that decides shapes or code: part of the compiled program, not of its data."""
    return struct.field(pytree_node=False, default=default)


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line that says what to do."""


@struct.dataclass
class Config:
    """What every run needs to say.

    Fields made by `static` are shapes, counts and callables: changing one compiles a new
    program. All others are traced numbers: `vmap` over them is a hyperparameter sweep.
    """

    algorithm: Callable = static(None)
    """(config) -> (Agent, Memory); pass your own to fork an algorithm."""
    env: Any = static("CartPole-v1")
    """Environment: a name, or any gymnax `Environment` object."""
    env_params: object = None
    """Parameters of the environment (a traced pytree); None for its defaults."""
    total_steps: int = static(100_000)
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(1)
    """Parallel environments per seed."""
    rollout_length: int = static(1)
    """Steps each environment takes between learning phases."""
    noise_repeat: int = static(1)
    """Steps that the random numbers of exploration are held for; divides rollout_length."""
    num_updates: int = static(1)
    """Gradient updates in each learning phase."""
    warmup_steps: int = static(0)
    """Environment steps of uniformly random actions before learning begins."""
    wrappers: tuple[Callable, ...] = static(())
    """What the agent is wrapped in, the first innermost, such as `normalize.observations`."""

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps per iteration, over all parallel environments."""
        return self.num_envs * self.rollout_length

    @property
    def warmup_iterations(self) -> int:
        """Warm-up in whole iterations: `warmup_steps` rounded up to blocks."""
        return -(-self.warmup_steps // self.steps_per_iteration)

    @property
    def iterations(self) -> int:
        """Learning iterations that fit into `total_steps` after the warm-up."""
        return self.total_steps // self.steps_per_iteration - self.warmup_iterations

    def step_at(self, count: Any) -> Any:
        """Steps that each environment has taken when update `count` (from 0) is made."""
        iteration = self.warmup_iterations + count // self.num_updates + 1
        return iteration * self.rollout_length


ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "leaky_relu", "softplus", "sigmoid")
COMPUTE_DTYPES = ("float32", "bfloat16")
COUNTS = (
    "total_steps", "num_envs", "rollout_length", "noise_repeat", "num_updates", "batch_size",
    "capacity", "n_step", "num_atoms", "num_quantiles", "num_epochs", "num_particles",
    "num_actions", "policy_delay", "num_critics", "subset_size",
    "actor_width", "actor_blocks", "critic_width", "critic_blocks",
)  # fmt: skip
UNIT_INTERVAL = (
    "gamma", "tau", "epsilon_start", "epsilon_end", "epsilon_fraction", "trace_decay", "cvar",
    "priority_exponent", "importance_exponent", "munchausen", "learning_rate_end", "clip_ratio",
    "target_entropy_ratio", "target_entropy_ratio_end", "dropout_rate",
)  # fmt: skip
NON_NEGATIVE = (
    "learning_rate", "alpha_learning_rate", "warmup_steps", "omega", "bonus", "value_coef",
    "entropy_coef", "weight_decay", "exploration_noise", "target_noise", "target_noise_clip",
    "sigma", "num_dropped", "renorm_warmup",
)  # fmt: skip
FINITE = (
    "learning_rate", "alpha_learning_rate", "alpha", "target_entropy_per_dim", "omega", "bonus",
    "initial_value", "v_min", "v_max", "munchausen_min", "value_coef", "entropy_coef", "sigma",
    "weight_decay", "exploration_noise", "target_noise",
)  # fmt: skip
ABOVE_ZERO = ("alpha", "max_grad_norm", "huber_delta", "target_period", "cvar")


def unknown(kind: str, name: str, known: Iterable[str], otherwise: str = "") -> ConfigError:
    """The error for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else otherwise or f"choose from {', '.join(known)}"
    return ConfigError(f"no {kind} is called {name}: {hint}")


def validate(config: Config) -> None:
    """Checks every field that can be checked before anything is compiled.

    Traced fields are checked where they are plain numbers (a tracer has no value yet).

    Raises:
        ConfigError: one line, with the field, its value and the way out.
    """
    if config.algorithm is None:
        raise ConfigError(f"a {type(config).__name__} has no algorithm: give it one, algorithm=...")
    names = [field.name for field in dataclasses.fields(config)]
    numbers = {
        name: value
        for name in names
        if isinstance(value := getattr(config, name), Real) and not isinstance(value, bool)
    }

    def require(condition: Callable[[float], bool], fields: tuple[str, ...], what: str) -> None:
        for name in fields:
            if name in numbers and not condition(numbers[name]):
                raise ConfigError(f"{name} is {numbers[name]}, but must be {what}")

    for name in (*COUNTS, "warmup_steps", "num_dropped", "renorm_warmup"):
        if name in names and not isinstance(getattr(config, name), Integral):
            raise ConfigError(f"{name} is {getattr(config, name)!r}, but must be a whole number")
    require(lambda x: x >= 1, COUNTS, "at least 1")
    require(lambda x: not math.isnan(x), tuple(numbers), "a number")
    require(lambda x: 0 <= x <= 1, UNIT_INTERVAL, "between 0 and 1")
    require(lambda x: x >= 0, NON_NEGATIVE, "zero or more")
    require(lambda x: x > 0, ABOVE_ZERO, "greater than zero")
    require(math.isfinite, FINITE, "finite")
    require(lambda x: x <= 0, ("munchausen_min",), "zero or less")
    require(lambda x: x % 1 == 0, ("target_period",), "a whole number")
    require(lambda x: x < 2**31, ("capacity",), "less than 2**31: lower it")
    if config.total_steps // config.num_envs >= 2**31:
        raise ConfigError("each environment may take less than 2**31 steps: lower total_steps")

    if getattr(config, "compute_dtype", "float32") not in COMPUTE_DTYPES:
        raise unknown("compute_dtype", config.compute_dtype, COMPUTE_DTYPES)
    require(lambda x: x < 1, ("dropout_rate",), "less than 1: some units must stay")
    for name in {"hidden_sizes", "critic_hidden_sizes"} & set(names):
        sizes = getattr(config, name)
        if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
            raise ConfigError(f"{name} is {sizes}, but every layer needs a unit, a whole number")
    if "activation" in names and config.activation not in ACTIVATIONS:
        raise unknown("activation", config.activation, ACTIVATIONS)
    _check_counts(config)
    if "v_min" in numbers and "v_max" in numbers and config.v_min >= config.v_max:
        raise ConfigError(f"v_min is {config.v_min}, but must be less than v_max = {config.v_max}")
    if getattr(config, "num_atoms", 2) < 2:
        raise ConfigError("num_atoms is 1, but a distribution needs at least 2")
    if "num_quantiles" in names and not math.isfinite(numbers.get("huber_delta", 1)):
        raise ConfigError("huber_delta is inf, but quantiles need a finite one, for example 1")


def _check_counts(config: Config) -> None:
    """What static numbers must be to each other."""
    names = [field.name for field in dataclasses.fields(config)]
    if config.iterations < 1:
        needed = (config.warmup_iterations + 1) * config.steps_per_iteration
        raise ConfigError(
            f"total_steps is {config.total_steps}, but the warm-up and one iteration take"
            f" {needed}: raise total_steps, or lower warmup_steps, num_envs or rollout_length"
        )
    if config.rollout_length % config.noise_repeat:
        raise ConfigError(
            f"hold is {config.hold}, but must divide rollout_length = {config.rollout_length}"
        )
    if "capacity" in names:
        if config.capacity % config.steps_per_iteration:
            raise ConfigError(
                f"capacity is {config.capacity}, but must be a multiple of num_envs x"
                f" rollout_length = {config.steps_per_iteration}, for example"
                f" {max(1, round(config.capacity / config.steps_per_iteration)) * config.steps_per_iteration}"
            )
        if config.batch_size > config.capacity:
            raise ConfigError(
                f"batch_size {config.batch_size} is larger than capacity {config.capacity}:"
                " lower batch_size or raise capacity"
            )
        rows = config.capacity // config.num_envs
        if getattr(config, "n_step", 1) > rows:
            raise ConfigError(
                f"n_step is {config.n_step}, but the memory keeps {rows} steps of each of"
                f" {config.num_envs} environments: lower n_step or raise capacity"
            )
    if "num_epochs" in names:
        minibatches = config.num_updates // config.num_epochs
        if config.num_updates % config.num_epochs or config.steps_per_iteration % minibatches:
            raise ConfigError(
                f"num_updates is {config.num_updates}, but must be num_epochs = {config.num_epochs}"
                f" times a number of minibatches that divides num_envs x rollout_length ="
                f" {config.steps_per_iteration}"
            )
