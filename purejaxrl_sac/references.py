"""Objects of one's own code by name: "file.py:name" and "package.module:name".

    prl.preset("fork.py:CautiousSACConfig", "Pendulum-v1")
    purejaxrl-sac train fork.py:CautiousSACConfig --env maze.py:Maze

A reference is imported where its user writes it, and nowhere else: what is read from a run is never
imported unless the reader names it again or trusts the run.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from purejaxrl_sac.config import ConfigError, unknown
from purejaxrl_sac.part_errors import described

_files: dict[str, str] = {}  # name of a module -> the file that it was imported from, as written
_imported: dict[str, Any] = {}  # reference -> its object
_made: dict[str, Any] = {}  # reference -> what the class or function that it names has made


def is_reference(text: object) -> bool:
    """Whether a text names an object of one's own code, or a file without the object in it."""
    return isinstance(text, str) and (":" in text or text.endswith(".py"))


def load(reference: str) -> Any:
    """The object that a reference names; its module is imported.

    The folder of a file is added to the end of `sys.path`, so that the file can import others of
    it; for modules, the current folder.

    Raises:
        ConfigError: there is no such file, module or name, or importing it fails.
    """
    where, name = _split(reference)
    if where.endswith(".py") and not name:
        raise _unnamed(where)
    if not where or not name:
        raise ConfigError(f"{reference!r} must be file.py:name or module:name")
    found = _file(where) if where.endswith(".py") else _module(where)
    for part in name.split("."):
        if not _guarded(reference, partial(hasattr, found, part)):
            public = [x for x in dir(found) if not x.startswith("_")]
            raise unknown(f"object of {where}", name, public, f"{where} does not define it")
        found = getattr(found, part)
    return _imported.setdefault(reference, found)


def make(reference: str) -> Any:
    """The object that a reference names, or what it returns if it is a class or a function.

    Raises:
        ConfigError: as for `load`, or calling it without arguments fails.
    """
    if reference not in _made:
        found = load(reference)
        if isinstance(found, type) or (callable(found) and not hasattr(found, "default_params")):
            found = _guarded(f"{reference}()", found)
        _made[reference] = found
    return _made[reference]


def known(value: Any) -> str | None:
    """The reference of an object that this process has imported; None if there is none.

    An object of an importable module has one too, unless it is of the program itself.
    """
    for given in (_imported, _made):
        for reference, found in given.items():
            if found is value:
                return reference
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module == "__main__":
        return None
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{_files.get(module, module)}:{name}" if found is value else None


def location(reference: str) -> str:
    """Where a reference would be imported from, as text; nothing is imported."""
    where = _split(reference)[0]
    try:
        return str(Path(where).resolve()) if where.endswith(".py") else f"module {where}"
    except (OSError, RuntimeError, ValueError):  # no path, or a loop of links
        return "nowhere"


def checksum(reference: str) -> str | None:
    """The CRC-32 of a reference's file, line endings apart; None for a module or a missing file."""
    where = _split(reference)[0]
    try:
        text = Path(where).read_text() if where.endswith(".py") else None
    except (OSError, ValueError):
        return None
    return None if text is None else f"{zlib.crc32(text.encode()):08x}"


def _split(reference: str) -> tuple[str, str]:
    """The file or module of a reference and the name in it, which a lone file does not have."""
    where, colon, name = reference.rpartition(":")
    return (where, name) if colon else (reference, "")


def _unnamed(where: str) -> ConfigError:
    """The error for a file without a name, with what the file defines; it is not imported."""
    try:
        statements = ast.parse(Path(where).read_text()).body
    except OSError:
        return _missing(where)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # importing it would fail
        statements = []
    kinds = (ast.ClassDef, ast.FunctionDef)
    names = [x.name for x in statements if isinstance(x, kinds) and not x.name.startswith("_")]
    defined = f" (it defines {', '.join(names)})" if names else ""
    return ConfigError(f"name what is in {where}, as {where}:Name{defined}")


def _missing(where: str) -> ConfigError:
    return ConfigError(f"there is no file {where}: name an existing one, as file.py:name")


def _file(where: str) -> ModuleType:
    try:
        path = Path(where).resolve()
        exists = path.is_file()
    except (OSError, RuntimeError, ValueError):  # no path, or a loop of links
        exists = False
    if not exists:
        raise _missing(where)
    name = path.stem
    if not name.isidentifier():
        raise ConfigError(
            f"{where} cannot be imported: rename it to an identifier, such as fork.py"
        )
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__file__", None) == str(path):
        return module
    other = importlib.util.find_spec(name) if module is None else module.__spec__
    if module is not None or (other and other.origin != str(path)):
        raise ConfigError(f"{where} has the name of another module, {name}: rename the file")
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None, "a loader of source files has a spec"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    _add_to_path(path.parent)
    try:
        _guarded(f"importing {where}", lambda: loader.exec_module(module))
    except ConfigError:
        del sys.modules[name]
        raise
    _files[name] = where
    return module


def _module(where: str) -> ModuleType:
    _add_to_path(Path.cwd())
    return _guarded(f"importing {where}", lambda: importlib.import_module(where))


def _add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _guarded(what: str, function: Callable[[], Any]) -> Any:
    """The result of user code, whose errors become one line."""
    try:
        return function()
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also SystemExit, which would end this program
        try:
            text = described(error)
        except Exception:  # an error without a text
            text = type(error).__name__
        raise ConfigError(f"{what} fails: {text}") from error
