"""Flags to options."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from typing import TypeVar

import tyro

from purejaxrl_sac.agents import preset
from purejaxrl_sac.cli.options import NewRunOptions, Normalization
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.normalize import WRAPPERS

STYLE = (tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff)

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


def parse_with_preset(
    kind: type[NewOptions], command: str, algorithm: str, flags: list[str]
) -> NewOptions:
    """`parse` the flags of `train` or `sweep`; defaults are the preset's, which `--env` selects.

    Raises:
        ConfigError: an unknown algorithm or flag, or a value of the wrong type.
    """
    split = (flag.split("=", 1) if flag.startswith("--") else [flag] for flag in flags)
    flags = ["--total-steps" if part == "--steps" else part for parts in split for part in parts]
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
    wrappers = tuple(WRAPPERS[name] for name in options.normalize)
    return dataclasses.replace(options, config=options.config.replace(wrappers=wrappers))
