"""Flags to options."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

import tyro

from purejaxrl_sac.agents import ALGORITHMS, preset
from purejaxrl_sac.cli.options import NewRunOptions, Normalization
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.normalize import WRAPPERS

STYLE = (tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff)

SYNONYMS = {  # of other libraries -> flags
    "--lr": "--learning-rate",
    "--batch": "--batch-size",
    "--buffer-size": "--capacity",
    "--discount": "--gamma",
    "--environment": "--env",
    "--env-id": "--env",
    "--layers": "--hidden-sizes",
    "--num-seeds": "--seeds",
    "--n-envs": "--num-envs",
    "--polyak": "--tau",
    "--timesteps": "--total-steps",
    "--total-timesteps": "--total-steps",
    "--learning-starts": "--warmup-steps",
}

NORMALIZATIONS: tuple[Normalization, ...] = ("observations", "rewards")

Options = TypeVar("Options")
NewOptions = TypeVar("NewOptions", bound=NewRunOptions)


def parse(
    kind: type[Options], command: str, flags: list[str], default: Options | None = None
) -> Options:
    """Parse the flags of a command into its options.

    Args:
        kind: the dataclass of the options.
        command: what precedes the flags, for messages.
        default: values of the flags that are not given; None for those of `kind`.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong type.
    """
    program, messages = f"purejaxrl-sac {command}", io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            if default is None:
                return tyro.cli(kind, prog=program, args=flags, config=STYLE)
            return tyro.cli(kind, prog=program, args=flags, config=STYLE, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        lines = (line.strip("╭╮╰╯│─ ") for line in messages.getvalue().splitlines())
        errors = [line for line in lines if line and not line.startswith("For full helptext")]
        raise ConfigError(f"{'; '.join(errors[1:])} (see {program} --help)") from None


def check_algorithm(name: str) -> None:
    """Raises ConfigError where a flag stands in place of an algorithm, or the case is wrong."""
    if name.startswith("-"):
        raise ConfigError(
            f"name an algorithm before {name}, for example train dqn --env CartPole-v1;"
            " purejaxrl-sac list shows all of them and their environments"
        )
    listed = name.lower().replace("-", "_")
    if name not in ALGORITHMS and listed in ALGORITHMS:
        raise ConfigError(f"no algorithm is called {name}: did you mean {listed}?")


def whole(text: str) -> str:
    """`1e6` as `1000000`; every other text as it is."""
    if not re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", text):
        return text
    value = Decimal(text)
    return str(int(value)) if value == value.to_integral_value() else text


def parse_with_preset(
    kind: type[NewOptions], command: str, algorithm: str, flags: list[str]
) -> NewOptions:
    """`parse` the flags of `train` or `sweep`; defaults are the preset's, which `--env` selects.

    Raises:
        ConfigError: an unknown algorithm or flag, or a value of the wrong type.
    """
    check_algorithm(algorithm)
    split = (flag.split("=", 1) if flag.startswith("--") else [flag] for flag in flags)
    flags = ["--total-steps" if part == "--steps" else part for parts in split for part in parts]
    flags = [whole(flag) for flag in flags]
    for before, flag in itertools.pairwise([command, *flags]):
        if flag in SYNONYMS:
            raise ConfigError(f"no flag is called {flag}: did you mean {SYNONYMS[flag]}?")
        if before in ("--hidden-sizes", "--critic-hidden-sizes") and "," in flag:
            numbers = " ".join(flag.strip("()[]").split(","))
            raise ConfigError(f"{before} is {flag}: separate numbers by spaces: {before} {numbers}")
    for flag in ("--grid", "--range"):
        if flags.count(flag) > 1:  # tyro would use the last one only
            raise ConfigError(f"{flag} is given twice: give it once, with all fields")
    envs = [value for flag, value in itertools.pairwise(flags) if flag == "--env"]
    config = preset(algorithm, envs[-1] if envs else None)
    default = kind(
        config=config,
        normalize=tuple(name for name in NORMALIZATIONS if WRAPPERS[name] in config.wrappers),
    )
    options = parse(kind, f"{command} {algorithm}", flags, default)
    config = options.config.replace(
        wrappers=tuple(WRAPPERS[name] for name in options.normalize),
        env_params=environment_parameters(options.config.env, options.env_params),
    )
    return dataclasses.replace(options, config=config)


def environment_parameters(env: str, settings: Sequence[str]) -> Any:
    """The parameters of an environment from texts NAME=VALUE; None if there are none.

    Raises:
        ConfigError: a text is not of this form, or there is no such parameter.
    """
    if not settings:
        return None
    values = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"env_params is {text}, but must be NAME=VALUE, such as length=0.7")
        try:
            values[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            values[name] = value
    return parameters.changed(env, values)
