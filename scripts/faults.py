"""Deliberate faults in the package, and whether the fast test suite catches them.

    python scripts/faults.py --check                            # seconds: faults still apply
    python scripts/faults.py                                    # half an hour: all of them
    python scripts/faults.py "TQC drops too few quantiles"      # named ones
    python scripts/faults.py --record scripts/results/faults.jsonl --jobs 2

`scripts/faults.toml` lists the faults. Each one is applied to a copy of the package and the tests,
in which the fast tests that cover it are run until one fails: the fault is caught by that test, or
missed. The same tests must pass without a fault, which is verified first. Each result is appended
as a JSON line to `--record`, with the commit of the sources and tests. The exit status is 0 if all
faults are caught.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "purejaxrl_sac"
COPIED = (PACKAGE, "tests", "scripts", "pyproject.toml", "README.md")
OUTCOMES = {0: "missed", 1: "caught"}  # by pytest's exit status


class Fault(NamedTuple):
    """A mistake in one place of the package."""

    name: str
    file: str  # a path in the package
    text: str  # occurs exactly once in the file
    fault: str  # what replaces it
    tests: list[str]  # files in tests/ that cover it
    select: str = ""  # the tests in these files, as for `pytest -k`; all of them if empty

    def applied(self) -> str:
        """The source of the file with the fault.

        Raises:
            ValueError: the text does not occur exactly once, or the result does not compile.
        """
        source = (ROOT / PACKAGE / self.file).read_text()
        if (count := source.count(self.text)) != 1:
            raise ValueError(f"its text occurs {count} times in {self.file}")
        faulty = source.replace(self.text, self.fault)
        compile(faulty, self.file, "exec")  # a SyntaxError is a ValueError to the caller
        return faulty


class Result(NamedTuple):
    """Tests that were run, with or without a fault."""

    name: str  # of the fault, or of the test file
    outcome: str  # caught, missed, timeout or error
    test: str  # the test that failed, or the reason of an error
    passed: int  # tests that passed
    seconds: float


def read() -> list[Fault]:
    """All faults, in the order of `scripts/faults.toml`."""
    text = Path(__file__).with_suffix(".toml").read_text()
    return [Fault(**fault) for fault in tomllib.loads(text)["faults"]]


def problems(faults: Iterable[Fault]) -> list[str]:
    """Lines about faults that cannot be applied, or whose test files do not exist."""
    found = []
    for fault in faults:
        try:
            fault.applied()
        except (OSError, SyntaxError, ValueError) as error:
            found.append(f"{fault.name}: {error}")
        missing = [name for name in fault.tests if not (ROOT / "tests" / name).exists()]
        found += [f"{fault.name}: there is no tests/{name}" for name in missing]
    return found


def run(
    tests: Sequence[str], select: str, fault: Fault | None = None, *, timeout: float, cache: str
) -> Result:
    """Run tests in a copy of the sources, until one of them fails.

    Args:
        tests, select: as for `Fault`.
        fault: applied to the copy; None for none.
        timeout: in seconds.
        cache: a folder for compiled programs, which are shared by runs with equal programs.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder) / name)
        if fault:
            (Path(folder) / PACKAGE / fault.file).write_text(fault.applied())
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts=", "-m", "not slow"]
        command += ["-p", "no:cacheprovider", *(["-k", select] if select else [])]
        environment = {
            "PYTHONPATH": folder,
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        }
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, *(f"tests/{name}" for name in tests)],
            cwd=folder, env={**os.environ, **environment}, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout)
            outcome = OUTCOMES.get(process.returncode, "error")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the processes that tests started, too
            output, outcome = process.communicate()[0], "timeout"
    seconds = round(time.monotonic() - start, 1)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.MULTILINE)
    passed = re.search(r"(\d+) passed", output)
    reason = output.strip().splitlines()[-1:] if outcome == "error" else [""]
    test = failed[1] if failed else "".join(reason)
    name = fault.name if fault else tests[0]
    return Result(name, outcome, test, int(passed[1]) if passed else 0, seconds)


def without_faults(faults: Sequence[Fault]) -> list[tuple[str, str]]:
    """Every test file of these faults with all that they select in it."""
    selected: dict[str, list[str]] = {}
    for fault in faults:
        for name in fault.tests:
            selected.setdefault(name, []).append(fault.select)
    return [
        (name, " or ".join(f"({x})" for x in dict.fromkeys(selects)) if all(selects) else "")
        for name, selects in selected.items()
    ]


def table(results: Sequence[Result]) -> None:
    """Print one line per fault, and the number of those caught."""
    for name, outcome, test, _, seconds in results:
        print(f"{outcome:8}{seconds:7.1f} s  {name}{f': {test}' if test else ''}")
    caught = sum(result.outcome == "caught" for result in results)
    print(f"{caught} of {len(results)} faults caught")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of faults; default: all")
    parser.add_argument("--check", action="store_true", help="only verify that faults apply")
    parser.add_argument("--record", type=Path, help="a file that results are appended to")
    parser.add_argument("--jobs", type=int, default=1, help="faults that are tested at once")
    parser.add_argument("--timeout", type=float, default=600, help="seconds per fault")
    options = parser.parse_args()
    faults = read()
    if unknown := set(options.names) - {fault.name for fault in faults}:
        parser.error(f"no fault is called {unknown.pop()}: see scripts/faults.toml")
    faults = [fault for fault in faults if fault.name in (options.names or [fault.name])]
    if found := problems(faults):
        print("\n".join(found), file=sys.stderr)
        return 1
    if options.check:
        print(f"{len(faults)} faults can be applied")
        return 0

    sys.path.insert(0, str(ROOT))
    from scripts import record

    stamp = record.stamp("fault", "cpu")

    def finished(result: Result) -> Result:
        repeat = {"command": f"python scripts/faults.py {shlex.quote(result.name)}"}
        record.append(options.record, stamp | repeat | result._asdict())
        return result

    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(options.jobs) as pool:
        attempt = partial(run, timeout=options.timeout, cache=cache)

        def sound(tests: tuple[str, str]) -> Result:
            return attempt([tests[0]], tests[1])

        def faulty(fault: Fault) -> Result:
            return finished(attempt(fault.tests, fault.select, fault))

        broken = False
        for name, outcome, test, passed, seconds in pool.map(sound, without_faults(faults)):
            print(f"without a fault, {name}: {passed} tests pass, {seconds} s", flush=True)
            if outcome != "missed":
                broken = True
                print(f"without a fault, {name} fails: {test or outcome}", file=sys.stderr)
        if broken:
            return 1
        results = list(pool.map(faulty, faults))
    table(results)
    return any(result.outcome != "caught" for result in results)


if __name__ == "__main__":
    sys.exit(main())
