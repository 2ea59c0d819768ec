"""Feed random command lines, damaged run directories and random configurations to the package.

    python scripts/fuzz.py --cases 2000 --record

Every case must be accepted, or refused by an error of one line: a traceback, a change outside the
directory, or other numbers without a word is an error of the package, and is printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import cli, experiment
from purejaxrl_sac.agents import ALGORITHMS, default_config
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.runs import checkpoint, engine, plans
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from scripts import record
from scripts.options import Parser, count

ENVS = ("chain", "CartPole-v1", "Pendulum-v1", "cliff_walking")


class AcceptedError(BaseException):
    """Raised in place of the compilation of a valid input."""


def accept(*_: object, **__: object) -> None:
    raise AcceptedError


@dataclasses.dataclass
class Outcomes:
    """Counts of outcomes by name; cases that violate a rule are printed as they occur."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: list[str] = dataclasses.field(default_factory=list)

    def fault(self, case: object, problem: str) -> None:
        self.counts["faults"] += 1
        self.faults.append(f"{case}: {problem}")
        print(f"FAULT {self.faults[-1]}", flush=True)


def command(arguments: list[str]) -> tuple[str, str, str]:
    """Run a command line, and return its outcome and what it printed on both streams."""
    out, err = io.StringIO(), io.StringIO()
    status: int | str
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except AcceptedError:
            status = 0
        except SystemExit as stop:  # --help
            status = stop.code or 0
        except BaseException:
            return "traceback", out.getvalue(), traceback.format_exc()
    outcome = {0: "accepted", 1: "failed", 2: "refused"}.get(status, str(status))
    return outcome, out.getvalue(), err.getvalue()


def digest(path: Path) -> str:
    """Of the names and contents of all files below a directory."""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        found.update(str(file).encode(errors="replace"))
        if file.is_file() and not file.is_symlink():
            found.update(file.read_bytes())
    return found.hexdigest()


# ── command lines ───────────────────────────────────────────────────────────────────────────────

NUMBERS = ("0", "-1", "1", "2", "3", "10", "1e3", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30)
NUMBERS += ("10000000000", "1" + "0" * 12, str(2**31), str(2**63), "0x10", "1_000", "007", "٣")
TEXTS = (
    "",
    " ",
    "-",
    "--",
    "true",
    "None",
    "null",
    "[1]",
    "{}",
    "a=b",
    "=",
    ",",
    ":",
    "1:2",
    "a:b",
)
TEXTS += (
    "../x",
    "/dev/null",
    "/dev/full",
    ".",
    "..",
    "~",
    "x" * 5_000,
    "a/" * 2_000,
    "\x1b[31mred",
)
TEXTS += (
    "[bold]b[/bold]",
    "[/]",
    "$\\frac{$",
    "%s%n",
    "é",
    "\udc80",
    "\u202e",
    "a\nb",
    "relu",
    "chain",
)
SWEEPS = (
    "gamma=0.9,0.99",
    "gamma=0:1",
    "gamma=nan,1",
    "gamma=1:inf",
    "num_envs=1,2",
    "x=1",
    "gamma=",
)
SWEEPS += ("gamma=0.5:0.9:linear", "hidden_sizes=8x8,16", "hidden_sizes=0x8", "seed=1,2", "=1")
FLAGS = {
    "train": ("--seeds", "--seed", "--chunks", "--episodes", "--eval-every", "--eval-episodes"),
    "sweep": ("--grid", "--range", "--points", "--seeds", "--seed", "--fresh-seeds", "--lanes"),
    "resume": ("--steps", "--any-version", "--keep", "--lanes", "--checkpoint-minutes"),
    "eval": ("--episodes", "--seed", "--policy", "--best", "--devices", "--json"),
    "plot": ("--metric", "--out"),
    "render": ("--out", "--seed-index", "--seed", "--best"),
    "export": ("--out", "--seed-index", "--best"),
    "info": (),
    "list": (),
}
SHARED = ("--name", "--out", "--checkpoint-minutes", "--keep", "--devices", "--env", "--steps")
SHARED += ("--normalize", "--log", "--cpu-devices", "--num-envs", "--hidden-sizes", "--capacity")
SHARED += ("--gamma", "--tau", "--learning-rate", "--batch-size", "--quiet", "--json", "--nothing")


def command_lines(cases: int, seed: int = 0) -> Outcomes:
    """Random command lines in a directory with one finished run; compilation is replaced."""
    rng, outcomes = random.Random(seed), Outcomes()
    with workplace() as folder:
        run = finished(folder / "run")
        (folder / "file").write_text("mine")
        before = digest(folder)
        for _ in range(cases):
            arguments = command_line(rng, run)
            with compilation_replaced():
                outcome, _, err = command(arguments)
            outcomes.counts[outcome] += 1
            judge(outcomes, [x[:60] for x in arguments], outcome, err)
            for name in ("runs", *(x for x in os.listdir(".") if x not in ("run", "file"))):
                shutil.rmtree(name, ignore_errors=True)
                Path(name).unlink(missing_ok=True)
            for path in run.iterdir():  # what render and export may write
                if path.name.startswith(("episode-", "policy-")):
                    path.unlink() if path.is_file() else shutil.rmtree(path)
            if digest(folder) != before:
                outcomes.fault(arguments, "changed another file")
                before = digest(folder)
    return outcomes


def command_line(rng: random.Random, run: Path) -> list[str]:
    """A random command line."""
    name = rng.choice(list(FLAGS)) if rng.random() < 0.97 else rng.choice(TEXTS)
    found = [name]
    own = FLAGS.get(name, ())
    if name in ("train", "sweep"):
        found.append(rng.choice([*ALGORITHMS]) if rng.random() < 0.95 else rng.choice(TEXTS))
        found += ["--env", rng.choice(ENVS)] * (rng.random() < 0.8)
        own = (*own, *SHARED)
    elif name != "list":
        found.append(str(run) if rng.random() < 0.7 else rng.choice(["file", *TEXTS]))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        if own:
            found.append(rng.choice(own))
        pool: Sequence[str] = rng.choice([NUMBERS, NUMBERS, TEXTS, SWEEPS])
        found += [rng.choice(pool)] * (rng.random() < 0.9)
    return found


@contextlib.contextmanager
def compilation_replaced() -> Iterator[None]:
    """Accept valid inputs where they would be compiled, and create no CPU devices."""
    with contextlib.ExitStack() as stack:
        for function in ("compile_run", "evaluate_lanes"):
            stack.enter_context(mock.patch.object(engine, function, accept))
        for name in ("pictures.render.episode", "export.export_policy", "pictures.compare.compare"):
            stack.enter_context(mock.patch(f"purejaxrl_sac.experiment.{name}", accept))
        yield


def judge(outcomes: Outcomes, case: object, outcome: str, err: str) -> None:
    """Record a fault if a refusal is not one line, or there is a traceback."""
    if outcome == "traceback":
        outcomes.fault(case, err.strip().splitlines()[-1] + " @ " + last_frame(err))
    elif "Traceback" in err:
        outcomes.fault(case, "printed a traceback")
    elif outcome in ("failed", "refused") and err.count("\n") != 1:
        outcomes.fault(case, f"refused by {err.count(chr(10))} lines: {err[:200]!r}")
    elif any(not c.isprintable() for c in err.rstrip("\n").replace("\n", " ")):
        outcomes.fault(case, f"printed control characters: {err[:200]!r}")


def last_frame(text: str) -> str:
    frames = [line.strip() for line in text.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if "purejaxrl_sac" in frame]
    return (own or frames or [""])[-1]


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """An empty directory, which is the current one meanwhile."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def finished(path: Path, seeds: int = 2) -> Path:
    """A small finished run with evaluations and several checkpoints."""
    config = prl.preset("q_learning", "chain").replace(
        total_steps=240, num_envs=4, rollout_length=4
    )
    experiment.run(
        config, seeds, out=path, chunks=5, episodes=2, eval_every=80, eval_episodes=2,
        checkpoint_minutes=0, keep=3,
    )  # fmt: skip
    return path


# ── run directories ─────────────────────────────────────────────────────────────────────────────

JSON = ("null", "[]", "{}", "[1]", '"x"', "1e999", "NaN", "{" * 5_000, "[" * 100_000, "1" * 5_000)


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def edited(content: bytes, rng: random.Random) -> bytes:
    """JSON, or a line of it, with one field removed, added, or replaced by another value."""
    lines = content.decode(errors="replace").splitlines() or [""]
    try:
        document, at = json.loads(content), None
    except ValueError:
        at = rng.randrange(len(lines))
        try:
            document = json.loads(lines[at])
        except ValueError:
            return rng.choice(JSON).encode()
    inner = document
    while isinstance(inner, dict) and inner:
        name = rng.choice(list(inner))
        if not isinstance(inner[name], dict) or rng.random() < 0.3:
            values = (None, True, -1, 0.5, "x", [], {}, [1, 2, 3], 2**70, 1e300, "\x1b[31m[/]")
            choice = rng.random()
            if choice < 0.3:
                del inner[name]
            elif choice < 0.4:
                inner["unknown"] = rng.choice(values)
            else:
                inner[name] = rng.choice(values)
            break
        inner = inner[name]
    text = json.dumps(document)
    if at is None:
        return text.encode()
    return "".join(f"{x}\n" for x in [*lines[:at], text, *lines[at + 1 :]]).encode()


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flip,
    "truncate": lambda content, rng: content[: rng.randrange(len(content) + 1)],
    "empty": lambda content, rng: b"",
    "replace": lambda content, rng: rng.randbytes(rng.randrange(200)),
    "json": lambda content, rng: rng.choice(JSON).encode(),
    "edit": edited,
}
PLACES = ("delete", "directory", "link", "duplicate")  # damages of a file's place, not its content


def damage(path: Path, kind: str, rng: random.Random, outside: Path) -> None:
    """Damage one file."""
    content = path.read_bytes()
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(outside)
    elif kind == "duplicate":
        path.write_bytes(content + content)
    elif kind != "delete":
        path.write_bytes(DAMAGES[kind](content, rng))


def numbers(path: Path) -> dict[str, Any]:
    """What a finished run has computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = experiment.load(path, whole=True)
    assert run.summary is not None
    return {
        "state": checkpoint.checksum(run.state, run.plan.lanes),
        "greedy": run.summary["greedy_returns"],
        "rows": [
            {name: x for name, x in row.items() if name != "seconds"}
            for row in RunDirectory(path).read_metrics(run.plan.lanes).rows
        ],
    }


def directories(cases: int, seed: int = 0) -> Outcomes:
    """Damaged copies of a run, finished or stopped, that commands read or resume."""
    rng, outcomes = random.Random(seed), Outcomes()
    with workplace() as folder:
        whole = finished(folder / "whole")
        expected, outside = numbers(whole), folder / "outside"
        files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        outside.write_text("mine")
        before = digest(whole)
        commands = ("info", "eval", "plot", "resume", "resume", "resume")
        for case in range(cases):
            file, kind = files[case % len(files)], rng.choice([*DAMAGES, *PLACES])
            name = rng.choice(commands)
            copy = Path(shutil.copytree(whole, folder / "copy"))
            if name == "resume":
                (copy / "summary.json").unlink()  # as if it was killed before the end
            if (copy / file).exists():
                damage(copy / file, kind, rng, outside)
            arguments = [name, str(copy)]
            arguments += {"eval": ["--episodes=2", "--json"], "resume": ["--quiet"]}.get(name, [])
            arguments += ["--out", str(folder / "plot.png")] if name == "plot" else []
            outcome, out, err = command(arguments)
            said = any(word in out + err for word in ("damaged", "missing"))
            warned = ", with a warning" * (said and outcome == "accepted")
            outcomes.counts[f"{name} {outcome}{warned}"] += 1
            label = (str(file), kind, name)
            judge(outcomes, label, outcome, err)
            if (
                name == "resume"
                and outcome == "accepted"
                and numbers(copy) != expected
                and not said
            ):
                outcomes.fault(label, "other numbers without a word")
            if outside.read_text() != "mine" or digest(whole) != before:
                outcomes.fault(label, "changed a file outside the directory")
                outside.write_text("mine")
            for path in (copy, folder / "plot.png", folder / "plot.csv"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return outcomes


# ── configurations ──────────────────────────────────────────────────────────────────────────────

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 3, 0.5, 1.5, -0.5, 1e-8, 1e30, 10**6, 10**12, 2**31, 2**63),
    *(10**400, float("nan"), float("inf"), "", "x", "relu", "0.9", b"x", (), (8,), [8, 8], (0,)),
    *(
        (8, 1.5),
        (True,),
        ("8",),
        {},
        {"a": 1},
        {1},
        object(),
        1j,
        range(3),
        ...,
        NotImplemented,
    ),
    *(
        np.int64(3),
        np.int8(-1),
        np.float32(0.5),
        np.float64("nan"),
        np.bool_(True),
        np.str_("tanh"),
    ),
    *(np.array(3), np.array([8, 8]), np.array("relu"), np.zeros((2, 0)), np.array(None)),
    *(jnp.int32(3), jnp.float32(0.5), jnp.zeros(2), jnp.zeros(()), jax.random.key(0)),
)
ARGUMENTS = ("seeds", "seed", "chunks", "episodes", "eval_every", "eval_episodes", "variants")


def configurations(cases: int, seed: int = 0) -> Outcomes:
    """Random values of random fields of every algorithm, and of the arguments of a run."""
    rng, outcomes = random.Random(seed), Outcomes()
    for case in range(cases):
        config = default_config([*ALGORITHMS][case % len(ALGORITHMS)])
        fields = [field.name for field in dataclasses.fields(config)]
        arguments: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        if rng.random() < 0.8:
            names = rng.sample(fields, rng.choice([1, 1, 2]))
            changes = {name: rng.choice(VALUES) for name in names}
        else:
            name = rng.choice(ARGUMENTS)
            value = rng.choice(VALUES)
            if name == "variants" and rng.random() < 0.8:
                value = {rng.choice(fields): rng.choice([[value], [value] * 2, value, []])}
            arguments[name] = value
        label = (case, changes or arguments)
        try:
            plan = plans.plan(config.replace(**changes), **arguments)
            json.dumps([plan.seeds, plan.seed, plan.chunk, plan.episodes, plan.variants])
            outcomes.counts["accepted"] += 1
        except prl.ConfigError as error:
            outcomes.counts["refused"] += 1
            if "\n" in str(error):
                outcomes.fault(label, f"refused by several lines: {error}")
        except Exception as error:
            text = traceback.format_exc()
            outcomes.fault(label, f"{type(error).__name__}: {error} @ {last_frame(text)}"[:300])
    try:  # after all of these, a valid configuration must still run
        engine.shapes(plans.plan(default_config("dqn")))
    except Exception as error:
        outcomes.fault("afterwards", repr(error))
    return outcomes


KINDS = {
    "command lines": command_lines,
    "run directories": directories,
    "configurations": configurations,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", type=count, default=200, help="of each kind")
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    record.add_record(parser, "reliability")
    options = parser.parse_args(argv)
    record_to = options.record and options.record.absolute()
    faults = 0
    depends = ["core", "experiment.runs.lifecycle", "experiment.runs.loading", "cli"]
    stamp = record.stamp("fuzz", "cpu", depends)
    for kind in options.only:
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            warnings.simplefilter("always", category=RunWarning)
            outcomes = KINDS[kind](options.cases, options.seed)
        faults += len(outcomes.faults)
        row = {"kind": kind, "cases": options.cases, "seed": options.seed, **outcomes.counts}
        row |= {"faults": len(outcomes.faults), "seconds": round(time.monotonic() - start)}
        record.append(record_to, stamp | row)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
