"""What there is: `list`, of algorithms, environments and presets with scores; and `preset`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from purejaxrl_sac import references
from purejaxrl_sac.agents import ALGORITHMS, base_name, default_config, preset
from purejaxrl_sac.agents import configuration as configuration_of
from purejaxrl_sac.cli import parts
from purejaxrl_sac.cli.parsing import env_name
from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.presets import PRESETS

LIST_USAGE = """\
purejaxrl-sac list                 the algorithms, and where they have presets
purejaxrl-sac list ALGORITHM       presets, scores and parts; or file.py:Class
purejaxrl-sac list ENVIRONMENT     the presets of all algorithms for it
purejaxrl-sac list --presets       all presets, with their recorded scores
purejaxrl-sac list --envs          all environments"""
PRESET_USAGE = """\
purejaxrl-sac preset ALGORITHM [ENVIRONMENT]    print a configuration file

for example
  purejaxrl-sac preset sac Pendulum-v1 > experiment.toml
  purejaxrl-sac train --config experiment.toml --learning-rate 1e-3"""
SCORE = "score: interquartile mean over seeds of the greedy return after so many steps"


def show(arguments: list[str]) -> None:
    """Print a list.

    Args:
        arguments: none, an algorithm, an environment, or one of the flags in `LIST_USAGE`.

    Raises:
        ConfigError: no algorithm or environment has this name, or there are more arguments.
    """
    match arguments:
        case []:
            algorithms()
        case ["--help" | "-h"]:
            print(LIST_USAGE)
        case ["--presets"]:
            presets(PRESETS)
        case ["--envs" | "--environments"]:
            environments()
        case [name] if name in ALGORITHMS or references.is_reference(name):
            algorithm(name)
        case [name]:
            environment(name)
        case _:
            raise ConfigError(
                f"list takes one name, but was given {' '.join(arguments)}: see"
                " purejaxrl-sac list --help"
            )


def algorithms() -> None:
    """Print the algorithms, each with an environment of its presets and the number of others."""
    table = _columns("algorithm", "what it is", "presets (+ more)")
    for name, (_, _, description) in ALGORITHMS.items():
        purpose = re.sub(r" \([^()]* \d{4}\)$", "", description)  # without its source
        table.add_row(name, purpose, _where(name))
    _print(table)
    print()
    print(LIST_USAGE)


def _where(name: str) -> str:
    """The environments of an algorithm's presets: one, and the number of the others."""
    envs = [env for algorithm, env in PRESETS if algorithm == name]
    if not envs:
        return "-"
    default = default_config(name).env
    first = default if default in envs else min(envs)
    return first + (f" +{len(envs) - 1}" if len(envs) > 1 else "")


def algorithm(name: str) -> None:
    """Print what an algorithm is, its presets and its parts."""
    config = preset(name)
    listed = ALGORITHMS[name][2] if name in ALGORITHMS else _first_line(type(config))
    print(f"{name}: {listed}")
    base = base_name(config)
    found = [key for key in PRESETS if key[0] == base]
    default = env_name(config.env)
    if found and base == name:
        presets(found)
    elif found:
        print(f"its presets are those of {base}, except for fields whose defaults it changes, for")
        print(", ".join(env for _, env in found))
    else:
        print(f"it has no presets; its default environment is {default}")
    if described := parts.described(config.algorithm):
        print("\nits parts, other ones by --parts PART=file.py:name:")
        for part in described:
            print(f"  {part}")
    env = default if (base, default) in PRESETS or not found else min(found)[1]
    print(f"\ntrain it: purejaxrl-sac train {name} --env {env}")
    print(f"its flags: purejaxrl-sac train {name} --help")


def _first_line(kind: type[Config]) -> str:
    """The first line of a class's own docstring, or the class that it is derived from."""
    text = inspect.getdoc(kind) or ""
    if not text or text.startswith(f"{kind.__name__}("):  # which dataclasses write
        text = f"derived from {kind.__mro__[1].__name__}"
    return text.partition("\n")[0]


def environment(name: str) -> None:
    """Print what an environment is, and the presets for it.

    Raises:
        ConfigError: it does not exist; the message has the nearest name.
    """
    from purejaxrl_sac import envs

    known = [*envs.names(), *(env for _, env in PRESETS)]
    if name not in known:
        raise unknown("algorithm or environment", name, [*ALGORITHMS, *known], "see --help")
    found = [key for key in PRESETS if key[1] == name]
    try:
        print(f"{name}: {_spaces(name)}")
    except ConfigError as error:  # Brax is not installed
        print(error)
    if found:
        presets(found)
    else:
        print("no algorithm has a preset for it: train any with its defaults")


def _spaces(name: str) -> str:
    """Observations, actions and the time limit of an environment, in words."""
    from purejaxrl_sac import envs

    env = envs.bind(name)
    shape = "x".join(map(str, env.observation_space.shape))
    observations = f"observations of shape {shape}" if shape else "observations are one number"
    discrete = env.num_actions is not None
    actions = f"{env.num_actions} actions" if discrete else f"actions of {env.action_dim} numbers"
    limit = f"at most {env.max_steps:,} steps" if env.max_steps else "no time limit"
    return f"{observations}, {actions}, {limit}"


def presets(chosen: Iterable[tuple[str, str]]) -> None:
    """Print presets, given as (algorithm, environment), with their recorded scores."""
    recorded, listed = scores(), list(ALGORITHMS)
    table = _columns("algorithm", "environment", "steps", "score", "worst seed", "seeds")
    for name, env in sorted(chosen, key=lambda x: (listed.index(x[0]), x[1])):
        table.add_row(name, env, *score_cells(recorded.get(f"{name} {env}")))
    _print(table)
    print(SCORE)


def environments() -> None:
    """Print all environments, with the number of algorithms that have a preset for them."""
    from purejaxrl_sac import envs

    tuned = [env for _, env in PRESETS]
    table = _columns("environment", "presets")
    for name in dict.fromkeys([*envs.names(), *tuned]):
        table.add_row(name, str(tuned.count(name) or ""))
    _print(table)
    print("also brax/NAME/BACKEND, with the extra brax; or your own: --env file.py:Name")


def print_preset(named: list[str]) -> None:
    """Print the configuration of an algorithm on an environment as TOML, with its recorded score.

    A comment says so if there is no preset, and the configuration has the defaults.

    Args:
        named: the algorithm and, unless it is the algorithm's own, the environment.

    Raises:
        ConfigError: there is no such algorithm or environment, or they do not go together.
    """
    from purejaxrl_sac.experiment.runs import configuration
    from purejaxrl_sac.train import build

    if named in (["--help"], ["-h"]):
        print(PRESET_USAGE)
        return
    if not 1 <= len(named) <= 2 or named[0].startswith("-"):
        raise ConfigError("give an algorithm and an environment, such as preset sac Pendulum-v1")
    config = preset(*named)
    build(config)  # checks it
    score = list(score_cells(scores().get(f"{named[0]} {config.env}")))
    names = ("steps", "greedy return (IQM)", "worst", "seeds")
    found = ", ".join(f"{name}: {x}" for name, x in zip(names, score, strict=False) if x)
    if not found and config == configuration_of(named[0]).replace(env=config.env):
        found = f"no preset: the defaults of {named[0]}"
    print(configuration.text(configuration.of_config(config), found), end="")


def scores() -> dict[str, Any]:
    """The recorded score of each preset, by "algorithm environment"."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("scores.json").read_text())
    return found


def score_cells(found: dict[str, Any] | None) -> Iterator[str]:
    """Cells of a recorded score: steps, score, worst seed and seeds."""
    if found is not None:
        yield (
            f"{found['steps'] / 1_000:.3g}k"
            if found["steps"] < 1e6
            else f"{found['steps'] / 1e6:g}M"
        )
        yield f"{found['value']:.4g}"
        yield f"{found['worst']:.4g}" if "worst" in found else ""
        yield str(found["seeds"])


def _columns(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _print(table: Table) -> None:
    """Print a table in full, also where it is wider than the terminal."""
    console = Console()
    wanted = console.measure(table, options=console.options.update(width=200)).maximum
    console.print(table, width=max(console.width, wanted), crop=False)
