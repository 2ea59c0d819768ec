"""Rows of figures: what was measured, with which command, and on which code.

A row is one JSON line of a file in `scripts/results/`. Besides its figures it has

* `what`: the kind of figure, such as "learning" or "speed";
* `command`, `version`, `commit` (with a + if files were changed since), `device`, `jax`, `flags`
  (XLA's) and `date`;
* `depends` and `code`: the modules that it was measured with, and a digest of them and of all
  modules of the package that they import.

A row is stale if that code has changed. Comments and docstrings are not code. Rows without
`depends` are older than 0.8.0, and therefore stale.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import purejaxrl_sac as prl
from scripts import phases

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "purejaxrl_sac"
FOLDER = ROOT / "scripts" / "results"
ACCELERATOR = FOLDER / "accelerator.jsonl"
SAME = (
    *("what", "library", "algorithm", "environment", "kind", "seeds"),
    *("device", "jax", "code", "flags"),
)
IGNORED = {"type_comment", "type_ignores", "type_params", "kind"}  # differ between Pythons


# --- the code of a row ---


def code(depends: Iterable[str], algorithm: str = "", environment: str = "") -> str:
    """A digest of modules and of everything in the package that they import.

    Args:
        depends: module names without the package's, such as `agents.sac`. "core" is all of them
            outside of `experiment` and `cli`, "preset" that of the algorithm and environment.

    Raises:
        ConfigError: there is no such module.
    """
    return _digest(frozenset(depends), algorithm, environment)


@functools.cache
def _digest(roots: frozenset[str], algorithm: str, environment: str) -> str:
    digest = hashlib.sha256()
    if "core" in roots:
        roots |= frozenset(core())
    if "preset" in roots:
        digest.update(_preset(algorithm, environment).encode())
    for name in sorted(closure(roots - {"core", "preset"})):
        digest.update(f"{name}\n{_parsed(name)[0]}\n".encode())
    return digest.hexdigest()[:12]


@functools.cache
def core() -> tuple[str, ...]:
    """All modules of the package outside of `experiment` and `cli`."""
    files = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = {".".join(file.parts).removesuffix(".__init__") for file in files}
    outside = ("__init__", "__main__", "experiment", "cli")
    return tuple(sorted(name for name in names if name.split(".")[0] not in outside))


def algorithm_modules(name: str) -> list[str]:
    """The modules that training with a named algorithm depends on."""
    from purejaxrl_sac.agents import ALGORITHMS

    return [f"agents.{ALGORITHMS[name][0]}", "train"] if name in ALGORITHMS else []


def closure(roots: Iterable[str]) -> set[str]:
    """Modules of the package that these import, directly or not, but `presets`, and themselves."""
    found: set[str] = set()
    left = list(roots)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _parsed(name)[1] - {"presets"}  # data: those of a row have their own digest
    return found


@functools.cache
def _parsed(name: str) -> tuple[str, frozenset[str]]:
    """The syntax tree of a module as text, and the modules of the package that it imports."""
    path = _path(name)
    if path is None:
        raise prl.ConfigError(f"the package has no module {name}")
    tree = ast.parse(path.read_text())
    return repr(_syntax(tree)), frozenset(_imports(tree))


def _path(name: str) -> Path | None:
    file = PACKAGE.joinpath(*name.split("."))
    candidates = (file.with_suffix(".py"), file / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _syntax(node: object) -> object:
    """A syntax tree as nested tuples, without docstrings, and equal for all versions of Python."""
    if isinstance(node, list):
        documented = [x for x in node if not _is_text(x)]
        return tuple(map(_syntax, documented))
    if not isinstance(node, ast.AST):
        return node
    fields = ((x, y) for x, y in ast.iter_fields(node) if y not in (None, []) and x not in IGNORED)
    return (type(node).__name__, *((x, _syntax(y)) for x, y in fields))


def _is_text(node: object) -> bool:
    """Whether a statement is only a text, as docstrings of modules, functions and fields are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports(node: ast.AST) -> Iterator[str]:
    """Names of the package's modules that are imported, except for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").startswith(PACKAGE.name):
            module = child.module.removeprefix(PACKAGE.name).lstrip(".")
            for alias in child.names:
                whole = f"{module}.{alias.name}".lstrip(".")
                if _path(whole):
                    yield whole
                elif module:
                    yield module
        yield from _imports(child)


def _preset(algorithm: str, environment: str) -> str:
    """The preset of an algorithm and environment as text."""
    from purejaxrl_sac.presets import PRESETS

    def named(value: object) -> object:
        if isinstance(value, tuple):
            return [named(x) for x in value]
        return getattr(value, "__qualname__", value)

    found = PRESETS.get((algorithm, environment), {})
    return repr(sorted((name, named(value)) for name, value in found.items()))


@functools.cache
def commit() -> str:
    """The commit of the sources and tests, with a + if they have been changed since."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
    changed = git(["git", "status", "--porcelain", PACKAGE.name, "tests"]).stdout.strip()
    return head + "+" * bool(head and changed)


# --- rows ---


def stamp(
    what: str,
    device: str = "",
    depends: Sequence[str] = ("core",),
    *,
    algorithm: str = "",
    environment: str = "",
) -> dict:
    """The origin of a row.

    Args:
        device: by default the devices of this process.
        depends, algorithm, environment: see `code`.
    """
    import jax

    return {
        "what": what,
        "device": device or phases.device(),
        "jax": jax.__version__,
        "version": prl.__version__,
        "commit": commit(),
        "depends": sorted(depends),
        "code": code(depends, algorithm, environment),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "date": time.strftime("%Y-%m-%d"),
        "command": command(sys.argv),
    }


def command(argv: Sequence[str]) -> str:
    """The command line without `--record`, with the script's path in the repository."""
    script = Path(argv[0])
    inside = script.resolve().is_relative_to(ROOT)
    arguments = [str(script.resolve().relative_to(ROOT)) if inside else script.name]
    skip = False
    for word in argv[1:]:
        skip, skipped = word == "--record", skip
        if not (skip or (skipped and word.endswith(".jsonl")) or word.startswith("--record=")):
            arguments.append(word)
    return shlex.join(["python", *arguments])


def stale(row: dict) -> bool:
    """Whether the code of a row has changed since it was measured."""
    if "depends" not in row:
        return True
    names = row.get("algorithm", ""), row.get("environment", "")
    try:
        return row["code"] != code(row["depends"], *names)
    except prl.ConfigError:  # a module was moved
        return True


def rows(record: Path) -> list[dict]:
    """All rows of a record, the oldest first.

    Raises:
        ConfigError: the path is a folder, or a line is not JSON.
    """
    if record.is_dir():
        raise prl.ConfigError(f"{record} is a folder: pass a file to --record")
    if not record.exists():
        return []
    found = []
    for number, line in enumerate(record.read_text().splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise prl.ConfigError(
                f"line {number} of {record} is not JSON: correct or remove it"
            ) from None
    return found


def identity(row: dict) -> tuple:
    """The fields that identify a figure; of equal rows, the last one counts."""
    return tuple(row.get(name) for name in SAME)


def recorded(record: Path, row: dict) -> bool:
    """Whether a row of the same identity is recorded."""
    return any(identity(old) == identity(row) for old in rows(record))


def append(record: Path | None, row: dict, *, show: bool = True) -> None:
    """Append a row to the file if there is one, and print it."""
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a") as file:
            file.write(json.dumps(row) + "\n")
    if show:
        print(json.dumps(row), flush=True)


def keeper(record: Path | None, what: str, depends: Sequence[str]) -> Callable[..., None]:
    """A function that appends a figure to the file, if there is one."""
    stamped = stamp(what, depends=depends) if record else {}

    def keep(case: str, value: float, expected: float | None = None, **more: object) -> None:
        """Append a row of a case, its value and, where it is known, the value expected."""
        row = {**stamped, "kind": case, "value": float(f"{float(value):.6g}")}
        row |= {} if expected is None else {"expected": float(f"{expected:.6g}")}
        append(record, {**row, **more}, show=False)

    return keep


def add_record(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option `--record`, whose file is `scripts/results/NAME.jsonl` by default."""
    parser.add_argument(
        "--record", type=Path, nargs="?", const=FOLDER / f"{name}.jsonl", metavar="FILE",
        help=f"append the rows to a file, by default scripts/results/{name}.jsonl",
    )  # fmt: skip


def one_line(error: BaseException) -> str:
    """The first line of an error's message, with its type unless that is redundant."""
    import jax

    text = (str(error).strip().splitlines() or [""])[0][:200]
    named = isinstance(error, (prl.ConfigError, MemoryError, jax.errors.JaxRuntimeError))
    return text if named and text else f"{type(error).__name__}: {text}"
