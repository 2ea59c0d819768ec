"""Tuned hyperparameters of pairs (algorithm, environment): the TOML files beside this one.

A file has the name of an environment, or several that share their settings, as `env`, and a table
for each algorithm. A file of one environment is preferred to one of several.

The hyperparameters were tuned on other seeds than those of the recorded results, which stand above
each table; on MinAtar, on one or two of the games.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from purejaxrl_sac.normalize import WRAPPERS

Settings = dict[str, Any]  # field of a configuration -> value


def _read(path: Path) -> dict[tuple[str, str], Settings]:
    """(algorithm, environment) -> settings, of one file."""
    tables = tomllib.loads(path.read_text())
    env = tables.pop("env")
    envs = [env] if isinstance(env, str) else env
    return {(name, env): _settings(table) for env in envs for name, table in tables.items()}


def _settings(table: dict[str, Any]) -> Settings:
    found = {k: tuple(x) if isinstance(x, list) else x for k, x in table.items()}
    if "wrappers" in found:
        found["wrappers"] = tuple(WRAPPERS[name] for name in found["wrappers"])
    return found


def read(folder: Path) -> dict[tuple[str, str], Settings]:
    """(algorithm, environment) -> settings, of all files of a folder."""
    files = [_read(path) for path in sorted(folder.glob("*.toml"))]
    found: dict[tuple[str, str], Settings] = {}
    for file in sorted(files, key=lambda file: -len({env for _, env in file})):
        found |= file
    return found


PRESETS = read(Path(__file__).parent)
