"""Configurations as JSON data, and the versions that a result depends on."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

import purejaxrl_sac
from purejaxrl_sac import references
from purejaxrl_sac.agents import ALGORITHMS, configuration, default_config, name_of
from purejaxrl_sac.config import Config, ConfigError, bounds_of, kind_of, unknown, validate
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.runs import datasets, files, names, recipes
from purejaxrl_sac.normalize import WRAPPERS, wrapper
from purejaxrl_sac.types import Transition

CONFIG_FORMAT = 2  # 1 named environment objects, lambdas and composed functions less exactly
ADDED: dict[str, Any] = {"encoder_layers": 1, "start_carry": "stored"}  # fields that earlier
# versions did not write, with the values that describe their runs
SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_disable_jit",
)
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
IRRELEVANT = ("--xla_dump", "--xla_force_host_platform_device_count")  # flags: devices are recorded


def to_json(value: Any) -> Any:
    """Dataclasses, arrays and numbers as JSON data."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        value = np.asarray(value).tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value


def config_to_dict(config: Config) -> dict[str, Any]:
    """A configuration as JSON data, with the names of its algorithm, wrappers and environment.

    See `names.function_name` and `names.environment_name`. A dataset is shown as its checksum.

    Raises:
        ConfigError: a further field has a value that is neither data nor importable code.
    """
    config = parameters.free(config)
    name = names.function_name(config.algorithm)
    wrappers = [names.function_name(wrapper) for wrapper in config.wrappers]
    env = names.environment_name(config.env)
    plain = config.replace(algorithm=None, wrappers=(), env=env, curriculum=None, dataset=None)
    fields = {k: x for k, x in to_json(plain).items() if k not in ("curriculum", "dataset")}
    if config.curriculum is not None:
        fields["curriculum"] = names.function_name(config.curriculum)
    if config.dataset is not None:
        fields["dataset"] = datasets.checksum(cast(Transition, config.dataset))
    fields |= {"schema": CONFIG_FORMAT, "algorithm": name, "wrappers": wrappers}
    fields |= {k: names.function_name(x) for k, x in recipes.code_fields(config).items()}
    recipe = recipes.describe(config)
    importable = {**recipe.get("fields", {})} if recipe else {}
    for field, value in fields.items():
        if importable.get(field, "") is None or not _is_data(value):
            raise ConfigError(
                f"{field} is {kind_of(getattr(config, field))}, which a run cannot record: use"
                " numbers, texts, tuples of them, or a function or a class of an importable module"
            )
    return fields if recipe is None else {**fields, "recipe": recipe}


def _is_data(value: Any) -> bool:
    try:
        return bool(json.dumps(value))
    except TypeError:
        return False


def _with_old_names(config: Config) -> dict[str, Any]:
    """`config_to_dict` in format 1, which had less telling names of what has no listed one."""

    def path(function: Any, name: str = "") -> str:
        return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', name)}"

    config = parameters.free(config)
    name = name_of(config)
    listed = {wrapper: name for name, wrapper in WRAPPERS.items()}
    old: dict[str, Any] = {
        "schema": 1,
        "algorithm": name if name in ALGORITHMS else path(config.algorithm, name),
        "wrappers": [listed.get(wrapper) or path(wrapper) for wrapper in config.wrappers],
        "env": config.env if isinstance(config.env, str) else config.env.name,
    }
    return {**config_to_dict(config), **old}


class Given(NamedTuple):
    """What a reader of a run supplies of its configuration, because files cannot store code."""

    config: Config | None = None  # all of it
    algorithm: Any = None  # see `agents.configuration`
    env: Any = None  # an environment, or a reference
    wrappers: Any = None  # a sequence of wrappers, see `_wrappers`
    curriculum: Any = None  # a curriculum, or a reference
    trust: bool = False  # whether to import the references that the run has

    def check(self, config: Config, written: dict[str, Any], path: Path) -> None:
        """As `check_equal`, if anything was given or imported."""
        if self.trust or any(x is not None for x in self[:-1]):
            check_equal(config, written, path)


NOTHING = Given()


def config_from_dict(data: dict[str, Any], given: Given = NOTHING) -> Config:
    """The inverse of `config_to_dict`, except for a dataset.

    Only references that are given or trusted are imported.

    Raises:
        ConfigError: another version wrote the data; it has an environment object, a custom
            algorithm, wrapper or curriculum, which must be given or trusted; or these are not those
            written.
    """
    if data.get("schema") not in (1, CONFIG_FORMAT):
        raise ConfigError(f"the configuration has another format than {CONFIG_FORMAT}")
    if given.config is not None:
        return given.config.replace(total_steps=data["total_steps"])
    recipe: recipes.Recipe = data.get("recipe", recipes.EMPTY)
    files.check(recipe, recipes.Recipe, "recipe")
    kinds: dict[str, Any] = {"algorithm": str, "env": str, "wrappers": list[str]}
    for name, kind in {**kinds, "curriculum": str | None}.items():
        files.check(data.get(name), kind, name)
    if given.trust or any(x is not None for x in given[:-1]):
        recipes.warn_of_changes(recipe)
    config = _algorithm(data, recipe, given)
    code: dict[str, Any] = {
        "env": _env(data, recipe, given),
        "wrappers": _wrappers(data, recipe, given),
        "curriculum": _curriculum(data, recipe, given),
    }
    apart = ("schema", "algorithm", "recipe", "dataset", *code)
    data = {name: value for name, value in data.items() if name not in apart}
    if data.get("env_params") is not None:
        files.check(data["env_params"], dict[str, Any], "env_params")
        data["env_params"] = parameters.changed(code["env"], data["env_params"])
    code_of_fields = recipe.get("fields", {})
    kinds = {name: bounds.kind for name, bounds in bounds_of(type(config)).items()}
    fields = {f.name for f in dataclasses.fields(config)} - {*apart}
    data = {name: value for name, value in ADDED.items() if name in fields} | data
    if missing := fields - data.keys():
        raise ConfigError(f"the configuration has no field {min(missing)}")
    for name, value in data.items():
        if name not in fields:
            raise unknown("field of the configuration", name, sorted(fields))
        if name in code_of_fields:
            data[name] = _field(config, name, value, code_of_fields[name], given)
        elif isinstance(value, list):
            data[name] = _tuples(value)
        elif kinds.get(name) is float and (value in parameters.INFINITE or isinstance(value, int)):
            with contextlib.suppress(OverflowError):  # `validate` refuses it
                data[name] = float(value)
    config = config.replace(**data, **code)
    validate(config)
    return config


def _algorithm(data: dict[str, Any], recipe: recipes.Recipe, given: Given) -> Config:
    """The default configuration of the algorithm."""
    name, kind = data.get("algorithm"), recipe["config"]
    if given.algorithm is not None:
        return configuration(given.algorithm)
    if name in ALGORITHMS and kind is None:
        return default_config(name)
    described = recipe["algorithm"]
    _check_trusted("algorithm", name, described and [described, kind], given)
    function = recipes.function(described)
    return references.load(kind)(algorithm=function) if kind else configuration(function)


def _env(data: dict[str, Any], recipe: recipes.Recipe, given: Given) -> Any:
    name = data.get("env")
    if given.env is not None:
        return references.make(given.env) if references.is_reference(given.env) else given.env
    if not references.is_reference(name):
        return name
    _check_trusted("env", name, recipe["env"], given)
    return references.make(str(recipe["env"]))


def _wrappers(data: dict[str, Any], recipe: recipes.Recipe, given: Given) -> tuple[Any, ...]:
    """All wrappers.

    Those given are all of them, the innermost first; but where they are as many references as the
    run has wrappers of one's own, those of the package are between them as before.
    """
    written = data.get("wrappers", [])
    if given.wrappers is not None:
        found = [x if callable(x) else wrapper(x) for x in given.wrappers]
        own = [name not in WRAPPERS for name in written]
        if all(map(references.is_reference, given.wrappers)) and sum(own) == len(found):
            rest = iter(found)
            found = [WRAPPERS[name] if name in WRAPPERS else next(rest) for name in written]
        return tuple(found)
    if set(written) <= set(WRAPPERS):
        return tuple(WRAPPERS[name] for name in written)
    described = recipe["wrappers"] or [None]
    missing = None in described
    _check_trusted("wrappers", ", ".join(written), None if missing else described, given)
    return tuple(map(recipes.function, described))


def _curriculum(data: dict[str, Any], recipe: recipes.Recipe, given: Given) -> Any:
    name = data.get("curriculum")
    if given.curriculum is not None:
        again = given.curriculum
        return references.load(again) if references.is_reference(again) else again
    if name is None:
        return None
    described = recipe.get("curriculum")
    _check_trusted("curriculum", name, described, given)
    return recipes.function(described)


def _field(config: Config, name: str, text: object, described: Any, given: Given) -> Any:
    """The code of a further field: the default, if it has this text, else what the run names."""
    default = getattr(config, name, None)
    if callable(default) and names.function_name(default) == text:
        return default
    _check_trusted(name, text, described, given, again="pass config=...")
    return recipes.function(described)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_trusted(field: str, name: object, recipe: object, given: Given, again: str = "") -> None:
    """Raises ConfigError unless the code of a field has references, and is trusted.

    Args:
        again: how to give the code again, for the message.
    """
    flag = {"wrappers": "wrap"}.get(field, field)
    if not (found := sorted(set(recipes.named(recipe)))):
        raise ConfigError(f"its {field} is {name}, which no reference names: pass {field}=...")
    if not given.trust:
        own = [x for x in found if not x.startswith("purejaxrl_sac.")] or found
        places = " and ".join(sorted({references.location(x) for x in own}))
        verb = "are" if field == "wrappers" else "is"
        raise ConfigError(
            f"its {field} {verb} custom code, {', '.join(own)}, in {places}: to import it, add"
            f" --trust (trust=True), or {again or f'name it again with --{flag} ({field}=...)'}"
        )


def check_equal(config: Config, written: dict[str, Any], path: Path) -> None:
    """Raises ConfigError with the first field in which a configuration is not the one written."""
    found = _with_old_names(config) if written.get("schema") == 1 else config_to_dict(config)
    written = {name: value for name, value in ADDED.items() if name in found} | written
    for name in dict.fromkeys((*written, *found)):
        if name == "recipe":  # the same code may be named in several ways
            continue
        if found.get(name) != written.get(name):
            here, there = names.differing(str(found.get(name)), str(written.get(name)))
            raise ConfigError(
                f"the config given is not the one that {path} was created with: {name} is {here},"
                f" but was {there}"
            )


def config_with_dataset(written: dict[str, Any], given: Given, path: Path) -> Config:
    """As `config_from_dict`, with the dataset of a file if there was one and none is given.

    Raises:
        ConfigError: as for `config_from_dict`, or the dataset is not the one written.
    """
    config = config_from_dict(written, given)
    if "dataset" in written and config.dataset is None:
        config = config.replace(dataset=datasets.load(path))
        if datasets.checksum(datasets.read(path)) != written["dataset"]:
            raise ConfigError(
                f"{path} is not the dataset that the run was created with: restore it"
            )
    return config


def settings() -> dict[str, bool | int | str | None]:
    """The settings of JAX and XLA that decide numbers, beside versions and devices."""
    found: dict[str, Any] = {name: getattr(jax.config, name) for name in SETTINGS}
    for name in VARIABLES:
        flags = sorted(x for x in os.environ.get(name, "").split() if not x.startswith(IRRELEVANT))
        found[name] = " ".join(flags)
    return found


def differences(written: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """'optax 0.2.6 (here 0.2.7)' for every version or setting that is not the one written."""
    return [
        f"{name} {_shown(written.get(name))} (here {_shown(here.get(name))})"
        for name in dict.fromkeys((*written, *here))
        if written.get(name) != here.get(name)
    ]


def check_versions(path: Path, document: Mapping[str, Any], any_version: bool) -> list[str]:
    """The `differences` of versions and settings from those in a document of a run or a sweep.

    Raises:
        ConfigError: there are some, and they are not allowed.
    """
    other = differences(document["versions"], versions())
    if "settings" in document:  # which earlier sweeps did not write
        other += differences(document["settings"], settings())
    if other and not any_version:
        raise ConfigError(
            f"{path} was created with {', '.join(other)}: restore them, or add --any-version to"
            " resume with numbers that may differ"
        )
    return other


def _shown(value: object) -> str:
    return "unset" if value in (None, "") else str(value)


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    packages = ("jax", "jaxlib", "flax", "optax", "gymnax", "distrax", "numpy")
    found = {"purejaxrl_sac": purejaxrl_sac.__version__}  # what runs, not what was installed once
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str | None:
    """The git commit of the working directory, with + if files differ from it; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
