"""Rows of figures: what was measured, with which command, and on which code.

A row is one JSON line of a file in `scripts/results/`. Besides its figures it has

* `what`: the kind of figure, such as "learning" or "speed";
* `command`, `version`, `commit` (with a + if files were changed since), `device`, `jax`, `flags`
  (XLA's) and `date`;
* `depends` and `code`: the modules that it was measured with, and a digest of their code and of all
  that it uses of the package, see `dependencies`.

A row is stale if that code has changed. Rows without
`depends` are older than 0.8.0, and therefore stale.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import purejaxrl_sac as prl
from purejaxrl_sac import mdp
from scripts import dependencies, options, phases
from scripts.dependencies import ROOT

FOLDER = ROOT / "scripts" / "results"
ACCELERATOR = FOLDER / "accelerator.jsonl"
SAME = (
    *("what", "library", "algorithm", "environment", "kind", "seeds"),
    *("device", "jax", "code", "flags"),
)


# --- the code of a row ---


def code(depends: Iterable[str], algorithm: str = "", environment: str = "") -> str:
    """A digest of modules and of everything in the package that they use.

    Args:
        depends: module names without the package's, such as `agents.sac`. "core" is all of them
            outside of `experiment` and `cli`, "preset" that of the algorithm and environment,
            "scripts.NAME" a script, and "gymnax" its version in constraints.txt.

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
    if "gymnax" in roots:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        digest.update(next(line for line in lines if line.startswith("gymnax==")).encode())
    used = [(name, dependencies.ALL) for name in roots - {"core", "preset", "gymnax"}]
    if environment in mdp.NAMED:
        used.append(("mdp.named", f"NAMED[{environment}]"))
    try:
        digest.update(dependencies.code(used).encode())
    except KeyError as error:
        raise prl.ConfigError(f"the package has no module {error}") from None
    return digest.hexdigest()[:12]


@functools.cache
def core() -> tuple[str, ...]:
    """All modules of the package outside of `experiment` and `cli`."""
    package = dependencies.PACKAGE
    files = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    names = {".".join(file.parts).removesuffix(".__init__") for file in files}
    outside = ("__init__", "__main__", "experiment", "cli")
    return tuple(sorted(name for name in names if name.split(".")[0] not in outside))


def algorithm_modules(name: str) -> list[str]:
    """The modules that training with a named algorithm depends on."""
    from purejaxrl_sac.agents import ALGORITHMS

    return [f"agents.{ALGORITHMS[name][0]}", "train"] if name in ALGORITHMS else []


def _preset(algorithm: str, environment: str) -> str:
    """The preset of an algorithm and environment as text."""
    from purejaxrl_sac.presets import PRESETS

    def named(value: object) -> object:
        if isinstance(value, tuple):
            return [named(x) for x in value]
        return getattr(value, "__qualname__", value)

    found = PRESETS.get((algorithm, environment.partition("(")[0]), {})  # without parameters
    return repr(sorted((name, named(value)) for name, value in found.items()))


@functools.cache
def commit() -> str:
    """The commit of the sources and tests, with a + if they have been changed since."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
    changed = git(
        ["git", "status", "--porcelain", dependencies.PACKAGE.name, "tests"]
    ).stdout.strip()
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
    """The command line with the script's path in the repository, without `--record`, `--directory`.

    The two say where things are written, and have no influence on figures.
    """
    script = Path(argv[0])
    inside = script.resolve().is_relative_to(ROOT)
    arguments = [str(script.resolve().relative_to(ROOT)) if inside else script.name]
    path = False  # whether the word is that of the option before
    for word in argv[1:]:
        name, given, _ = word.partition("=")
        if name in ("--record", "--directory"):
            path = not given
        elif path and not word.startswith("-"):
            path = False
        else:
            path = False
            arguments.append(word)
    return shlex.join(["python", *arguments])


def release(version: str) -> tuple[int, ...]:
    """ "0.8.10" -> (0, 8, 10), in the order of releases."""
    return tuple(map(int, version.split(".")))


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
    """Append a row to the file if there is one, and print it.

    A row that was stamped without its algorithm and environment receives the digest with them, if
    the code is still that of the stamp.
    """
    if "depends" in row and row["code"] == code(row["depends"]):
        names = row.get("algorithm", ""), row.get("environment", "")
        row = {**row, "code": code(row["depends"], *names)}
    if show:  # first, because it cannot fail
        print(json.dumps(row), flush=True)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        torn = record.exists() and record.read_bytes()[-1:] not in (b"\n", b"")
        with record.open("a") as file:
            file.write("\n" * torn + json.dumps(row) + "\n")


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
        "--record", type=options.record, nargs="?", const=FOLDER / f"{name}.jsonl", metavar="FILE",
        help=f"append the rows to a file, by default scripts/results/{name}.jsonl",
    )  # fmt: skip


def one_line(error: BaseException) -> str:
    """The first line of an error's message, with its type unless that is redundant."""
    import jax

    text = (str(error).strip().splitlines() or [""])[0][:200]
    named = isinstance(error, (prl.ConfigError, MemoryError, jax.errors.JaxRuntimeError))
    return text if named and text else f"{type(error).__name__}: {text}"
