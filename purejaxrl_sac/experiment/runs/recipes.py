"""How the code of a configuration is imported again: references, as JSON data of a run.

A recipe is written where a configuration has code that the package does not list: a class of
configurations, an algorithm, an environment object, a wrapper or a curriculum. It is imported only
where its reader trusts it.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterator
from typing import Any, TypedDict

from purejaxrl_sac import references
from purejaxrl_sac.agents import ALGORITHMS, default_config, exported, listed_base
from purejaxrl_sac.config import Config, ConfigError, static_fields
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.runs import files, names
from purejaxrl_sac.normalize import WRAPPERS


class Extras(TypedDict, total=False):
    """References that only some configurations have."""

    curriculum: Any  # as `function` takes it
    fields: dict[str, Any]  # further static fields that are code -> each as `function` takes it


class Recipe(Extras):
    """References of a configuration's code; null where there is none."""

    config: str | None  # its class
    algorithm: Any  # as `function` takes it
    env: str | None
    wrappers: list[Any]  # each as `function` takes it
    files: dict[str, str | None]  # reference -> checksum of its file


EMPTY: Recipe = {"config": None, "algorithm": None, "env": None, "wrappers": [], "files": {}}


def describe(config: Config) -> Recipe | None:
    """The recipe of a configuration; None if the package lists all of its code.

    A part that no reference names is null: it must be given again.
    """
    algorithm, base = _described(config.algorithm), listed_base(config.algorithm)
    listed = base is not None and type(config) is type(default_config(base))
    wrapped = {*config.wrappers} - {*WRAPPERS.values()}
    plain = config.curriculum is None and isinstance(config.env, str)
    if listed and algorithm == base and not wrapped and plain:
        return None
    recipe: Recipe = {
        "config": None if listed else references.known(type(config)),
        "algorithm": algorithm,
        "env": config.env if isinstance(config.env, str) else _environment(config.env),
        "wrappers": [_described(wrapper) for wrapper in config.wrappers],
        "files": {},
    }
    if config.curriculum is not None:
        recipe["curriculum"] = _described(config.curriculum)
    if code := code_fields(config):
        recipe["fields"] = {name: _described(x) for name, x in code.items()}
    recipe["files"] |= {x: references.checksum(x) for x in sorted(set(named(recipe)))}
    return recipe


def code_fields(config: Config) -> dict[str, Any]:
    """The static fields that are functions or classes, apart from those that all runs have."""
    names = [x for x in static_fields(type(config)) if x not in static_fields(Config)]
    return {name: x for name in names if callable(x := getattr(config, name))}


def named(recipe: object) -> Iterator[str]:
    """The references of a recipe."""
    if references.is_reference(recipe):
        yield str(recipe)
    elif isinstance(recipe, dict | list):
        for part in recipe.values() if isinstance(recipe, dict) else recipe:
            yield from named(part)


def warn_of_changes(recipe: Recipe) -> None:
    """Warns of files that have changed since the recipe was written."""
    for reference, checksum in recipe.get("files", {}).items():
        if checksum is not None and references.checksum(reference) != checksum:
            where = reference.rpartition(":")[0]
            text = f"{where} has changed since the run was created: numbers may differ"
            warnings.warn(RunWarning(text), stacklevel=2)


def function(described: Any) -> Any:
    """The function of a recipe; its references are imported.

    Raises:
        ConfigError: it cannot be imported.
    """
    if isinstance(described, str):
        if described in ALGORITHMS:
            return exported(described)
        return WRAPPERS[described] if described in WRAPPERS else references.load(described)
    if not (isinstance(described, dict) and {"function", "args", "keywords"} <= described.keys()):
        raise ConfigError("no reference names this function: give it again")
    files.check(described["args"], list[dict[str, Any]], "args")
    files.check(described["keywords"], dict[str, dict[str, Any]], "keywords")
    args = [_restored(x) for x in described["args"]]
    keywords = {name: _restored(x) for name, x in described["keywords"].items()}
    return functools.partial(function(described["function"]), *args, **keywords)


def _environment(env: Any) -> str | None:
    """The reference of an environment, or of its class if that makes an equal one."""
    known, kind = references.known(env), references.known(type(env))
    if known is not None or kind is None:
        return known
    try:
        made = names.environment_name(type(env)())
    except Exception:  # code of one's own, which may need arguments
        return None
    return kind if made == names.environment_name(env) else None


def _described(value: Any) -> Any:
    """A function as a listed name, a reference, or a call of one with arguments; else None."""
    if (known := names.listed_name(value) or references.known(value)) is not None:
        return known
    if not isinstance(value, functools.partial):
        return None
    described = {
        "function": _described(value.func),
        "args": [_argument(x) for x in value.args],
        "keywords": {name: _argument(x) for name, x in value.keywords.items()},
    }
    missing = [described["function"], *described["args"], *described["keywords"].values()]
    return None if None in missing else described


def _argument(value: Any) -> Any:
    if callable(value):
        described = _described(value)
        return None if described is None else {"code": described}
    try:
        return {"value": value} if json.loads(json.dumps(value)) == value else None
    except (TypeError, ValueError):
        return None


def _restored(argument: Any) -> Any:
    if not isinstance(argument, dict) or argument.keys() not in ({"code"}, {"value"}):
        raise ConfigError("the recipe has an argument that is neither code nor a value")
    return function(argument["code"]) if "code" in argument else argument["value"]
