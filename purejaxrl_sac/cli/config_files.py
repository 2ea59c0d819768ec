"""Configuration files: TOML whose contents precede the flags of a command."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from purejaxrl_sac import references
from purejaxrl_sac.agents import ALGORITHMS, configuration
from purejaxrl_sac.cli.options import EngineOptions, RunOptions, SweepOptions, TrainOptions
from purejaxrl_sac.config import ConfigError, shown

TABLES = ("env_params", "parts", "measure", "grid", "range")  # name -> value, as flags NAME=VALUE
CODE = ("env", "wrap", "curriculum", "parts", "measure", "log")  # flags whose values are imported


@contextlib.contextmanager
def keys_for_flags(arguments: list[str]) -> Iterator[None]:
    """Names the file in errors that begin with one of its keys, or with the flag of one."""
    try:
        yield
    except ConfigError as error:
        flag, _, text = str(error).partition(" ")
        name = flag.removeprefix("--").replace("-", "_")
        path = _file(arguments)
        if path is None or _is_given(name, arguments) or name not in read(path):
            raise
        raise ConfigError(f"{path}: {name} {text}") from error.__cause__


def _file(arguments: list[str]) -> Path | None:
    """The file of `--config FILE` of `train` or `sweep`; None if there is none."""
    if arguments[:1] not in (["train"], ["sweep"]):
        return None
    for word, following in itertools.pairwise([*arguments, ""]):
        name, _, value = word.partition("=")
        if name == "--config" and (value or following):
            return Path(value or following)
    return None


def expanded(arguments: list[str]) -> list[str]:
    """A command line with the contents of a file instead of `--config FILE`.

    What is given on the command line is preferred. Options of the other command, such as the grid
    of a sweep for `train`, are left out, so that a file can serve both.

    Args:
        arguments: `train` or `sweep`, an algorithm, unless the file has one, and flags; other
            command lines are returned as they are.

    Raises:
        ConfigError: the file cannot be read, or names code without `--trust`.
    """
    files = [x for x in arguments if x.partition("=")[0] == "--config"]
    if not files or arguments[0] not in ("train", "sweep"):
        return arguments
    command, *rest = arguments
    at = rest.index(files[0])
    name, _, value = rest.pop(at).partition("=")
    if not value and at == len(rest):
        raise ConfigError(f"{name} needs a file, such as {name} experiment.toml")
    path = Path(value or rest.pop(at))
    trusted = "--trust" in rest
    rest = [x for x in rest if x != "--trust"]
    contents = read(path)
    algorithm = contents.pop("algorithm", None)
    if algorithm is not None and not isinstance(algorithm, str):
        raise ConfigError(f"{path}: algorithm is {shown(algorithm)}, but must be a name")
    of_file = algorithm
    code = [] if algorithm is None else [algorithm]
    if rest and not rest[0].startswith("-"):
        algorithm, code, rest = rest[0], [], rest[1:]
    if algorithm is None:
        raise ConfigError(f"{path} has no algorithm: add one, or give it before --config")
    words = []
    switches = {}  # that the algorithm may have
    others = _of_the_other(command)
    for name, value in contents.items():
        _check_key(path, name)
        if name in others:
            continue
        if isinstance(value, bool) and name not in _options(bool_only=True):
            switches[name] = value
            continue
        found = list(_flag(path, name, value, rest))
        words += found
        if name in CODE:  # of "name=reference" in a table, what follows
            code += [x.partition("=")[2] if name in TABLES else x for x in found[1:]]
    _check_trusted(path, code, trusted)
    _check_fields(path, algorithm, contents, of_file)
    left_out = {name: x for name, x in contents.items() if name in others}
    words += _fields_among(path, algorithm, left_out, rest)
    for name, on in switches.items():
        if not _is_given(name, rest):
            words += _switch(path, algorithm, name, on)
    return [command, algorithm, *words, *rest]


def _check_trusted(path: Path, code: Collection[str], trusted: bool) -> None:
    """Raises ConfigError if a value of a file names code that is not trusted."""
    if not trusted and (named := [*filter(references.is_reference, code)]):
        places = ", ".join(f"{x} ({references.location(x)})" for x in named)
        raise ConfigError(f"{path} names code, {places}: add --trust to import it")


def _fields_among(
    path: Path, algorithm: str, left_out: dict[str, Any], given: list[str]
) -> Iterator[str]:
    """Flags of what is no option of this command, but a field of an algorithm of one's own.

    Raises:
        ConfigError: a sweep is to be a dry run.
    """
    config = None if algorithm in ALGORITHMS or not left_out else configuration(algorithm)
    for name, value in left_out.items():
        if hasattr(config, name):
            yield from _flag(path, name, value, given)
        elif name == "dry_run" and value:
            raise ConfigError(f"{path}: dry_run is for train, not for sweep: remove it")


def _options(*, bool_only: bool = False) -> set[str]:
    """The names of the options of `train` and `sweep`, apart from the algorithm's fields."""
    kinds = (TrainOptions, SweepOptions, RunOptions, EngineOptions)
    found = {field.name: field.type for kind in kinds for field in dataclasses.fields(kind)}
    return {name for name, kind in found.items() if kind == "bool" or not bool_only}


def _of_the_other(command: str) -> set[str]:
    """The options of `sweep` that `train` does not have, or the other way round."""
    kinds: dict[str, tuple[type[Any], ...]] = {
        "train": (TrainOptions, RunOptions),
        "sweep": (SweepOptions, EngineOptions),
    }
    own = {field.name for kind in kinds[command] for field in dataclasses.fields(kind)}
    return _options() - own


def _switch(path: Path, algorithm: str, name: str, value: bool) -> list[str]:
    """A true or false field of an algorithm's configuration as a flag; none for its default.

    Raises:
        ConfigError: what has this name is not true or false.
    """
    config = configuration(algorithm)
    default = getattr(config, name, None)
    flag = name.replace("_", "-")
    if isinstance(default, bool):
        return [] if value is default else [f"--{flag}" if value else f"--no-{flag}"]
    if name in _options() or hasattr(config, name):
        raise ConfigError(f"{path}: {name} is {str(value).lower()}, but takes another value")
    return [f"--{flag}"]  # which there is not: the parser suggests another


def _is_given(name: str, flags: Sequence[str]) -> bool:
    """Whether a key is on the command line as well."""
    ends = ("--" + name.replace("_", "-"), "--no-" + name.replace("_", "-"))
    return any(x.partition("=")[0] in ends for x in flags)


def _check_fields(path: Path, algorithm: str, names: Collection[str], of_file: str | None) -> None:
    """Raises ConfigError for keys that are no options, nor fields of a listed algorithm."""
    if algorithm not in ALGORITHMS:  # an algorithm of one's own is not imported yet
        return
    fields = {field.name for field in dataclasses.fields(configuration(algorithm))}
    known = {*fields, *_options(), "steps"}
    if unknown := [name for name in names if name not in known]:
        whose = f"{path} is of {of_file}" if of_file not in (None, algorithm) else path
        near = [(name, difflib.get_close_matches(name, known, n=1)) for name in unknown]
        texts = (f"{name} (did you mean {found[0]}?)" if found else name for name, found in near)
        raise ConfigError(
            f"{whose}: {algorithm} has no field {', '.join(texts)}: see purejaxrl-sac train"
            f" {algorithm} --help"
        )


def _check_key(path: Path, name: str) -> None:
    """Raises ConfigError for a key that cannot be a flag of an experiment."""
    if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ("config", "help", "trust"):
        raise ConfigError(f"{path} has a key {shown(name)}, which is no flag: remove it")


def read(path: Path) -> dict[str, Any]:
    """The contents of a file, or of `config.toml` in a run directory.

    Raises:
        ConfigError: it does not exist or is not TOML.
    """
    if (path / "sweep.json").exists():
        from purejaxrl_sac.experiment.runs.directory import sweep_note

        raise ConfigError(f"{path} is not a file or a run: it {sweep_note(path)}")
    path = path / "config.toml" if path.is_dir() else path
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        hint = ": give the run directory, or its config.toml" if path.name == "config.json" else ""
        raise ConfigError(f"{path} is not TOML: {error}{hint}") from None


def _flag(path: Path, name: str, value: Any, given: list[str]) -> Iterator[str]:
    """A key as a flag and its values; nothing if it is given on the command line."""
    if _is_given(name, given) or value is False:
        return
    yield "--" + name.replace("_", "-")
    if isinstance(value, dict):
        if name not in TABLES:
            raise ConfigError(f"{path} has a table {name}: tables are {', '.join(TABLES)}")
        for key, x in value.items():
            _check_key(path, key.replace("env_params.", "", 1))
            if name == "env_params" and isinstance(x, bool | list):
                yield f"{key}={x}"  # a literal
            else:
                several = isinstance(x, list) and name == "grid"
                yield f"{key}={','.join(map(_text, x)) if several else _text(x)}"
    elif isinstance(value, list):
        yield from map(_text, value)
    elif name == "dataset" and value != "None":
        yield str((path if path.is_dir() else path.parent) / _text(value))
    elif value is not True:
        yield _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):  # layers in a grid, as 64x64
        return "x".join(map(_text, value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{shown(value)} is neither text nor a number: correct the file")
    if isinstance(value, str) and value.startswith("-"):
        raise ConfigError(f"{shown(value)} begins like a flag: correct the file")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    try:
        return str(value)
    except ValueError:  # thousands of digits
        raise ConfigError("a number has too many digits: correct the file") from None
