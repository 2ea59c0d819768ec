"""Count the kernel launches of a compiled program from its scheduled HLO text.

Every instruction that is scheduled outside a fused computation is one launch: a fusion, a library
call, a copy. Instructions that only rename memory (tuples, bitcasts, parameters) are not launches.
Loops count with their trip counts, conditionals as their largest branch plus one launch to read
the predicate. This applies to programs for GPUs; TPUs run a program without separate launches.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator

FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier"),
    *("after-all", "partition-id", "replica-id"),
    *("copy-done", "async-done", "async-update", "all-reduce-done"),
}
COPIES = ("copy", "copy-start")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass
class Launches:
    """Launches of one pass through a computation, with inner loops listed separately."""

    scope: str = ""  # op_name of the loop whose body this is
    trips: int | None = 1  # None if unknown to the compiler
    own: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # opcode, op_name
    loops: list[Launches] = dataclasses.field(default_factory=list)
    branches: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    # per conditional: launches and copies of its largest branch

    @property
    def copies(self) -> int:
        """Copies of one pass, without inner loops."""
        return sum(opcode in COPIES for opcode, _ in self.own)

    @property
    def total(self) -> int:
        """Launches of one pass, including all iterations of inner loops."""
        return len(self.own) + sum((loop.trips or 1) * loop.total for loop in self.loops)

    @property
    def every_copy(self) -> int:
        """Copies of one pass, including all iterations of inner loops."""
        return self.copies + sum((loop.trips or 1) * loop.every_copy for loop in self.loops)

    def walk(self) -> Iterator[Launches]:
        """This computation and all loops inside it, outermost first."""
        yield self
        for loop in self.loops:
            yield from loop.walk()

    def opcodes(self) -> Counter:
        """Launches of one pass by opcode, without inner loops."""
        return Counter(opcode for opcode, _ in self.own)


def iteration(program: Launches, trips: int | None = None) -> Launches:
    """The loop with the most launches, one pass of which is one iteration of a run.

    Args:
        trips: the required trip count of the loop, if known.

    Raises:
        ValueError: there is no such loop.
    """
    loops = [loop for loop in program.loops if trips in (None, loop.trips)]
    if not loops:
        raise ValueError(f"the program has no loop of {trips or 'any number of'} iterations")
    return max(loops, key=lambda loop: (loop.trips or 1) * loop.total)


def by_scope(loop: Launches, scopes: tuple[str, ...], inside: str = "") -> Counter:
    """Launches of one pass by named scope, including inner loops.

    An inner loop is attributed as a whole to the scope that occurs most often in it, so that
    unnamed slices and copies around a scope are included. Inlined instructions, such as those of
    loops of one iteration, are attributed by their own names.

    Args:
        scopes: names given with `jax.named_scope`; "" counts launches outside all of them.
    """
    counts: Counter = Counter()
    for _, op_name in loop.own:
        counts[inside or _scope(op_name, scopes)] += 1
    for inner in loop.loops:
        for scope, count in by_scope(inner, scopes, inside or _main_scope(inner, scopes)).items():
            counts[scope] += (inner.trips or 1) * count
    return counts


def launches(text: str) -> Launches:
    """Count the launches of a program.

    Args:
        text: `compiled.as_text()` of a program compiled for a GPU.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, list[str]] = {}
    body: list[str] | None = None
    entry = None
    for line in text.splitlines():
        if body is None and line.endswith("{") and (header := COMPUTATION.match(line)):
            body = computations.setdefault(header.group(1), [])
            if line.startswith("ENTRY"):
                entry = header.group(1)
        elif line.startswith("}"):
            body = None
        elif body is not None:
            body.append(line.strip())
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return _count(computations, entry, Launches())


def instructions(text: str) -> int:
    """The number of instructions of a program, those inside fusions and loops included.

    Args:
        text: `compiled.as_text()`, for any device.
    """
    return sum(_opcode(line.strip()) is not None for line in text.splitlines())


def _count(computations: dict[str, list[str]], name: str, into: Launches) -> Launches:
    for line in computations[name]:
        opcode, op_name = _opcode(line), _named(line)
        if opcode is None or opcode in FREE:
            continue
        if opcode == "while":
            trips = TRIPS.search(line)
            loop = Launches(op_name, int(trips.group(1)) if trips else None)
            into.loops.append(_count(computations, _callee(line, "body"), loop))
        elif opcode == "call":
            _count(computations, _callee(line, "to_apply"), into)
        elif opcode == "conditional":
            each = [_count(computations, branch, Launches()) for branch in _branches(line)]
            largest = max(each, key=lambda branch: branch.total)
            into.branches += [(largest.total, largest.copies), *largest.branches]
            into.own += [(opcode, op_name), *largest.own]
            into.loops += largest.loops
        else:
            into.own.append((opcode, op_name))
    return into


def _scope(op_name: str, scopes: tuple[str, ...]) -> str:
    """The outermost scope in the name of an operation, such as jit(run)/while/body/update/add."""
    parts = (re.sub(r"^.*\(|\)+$", "", part) for part in op_name.split("/"))
    return next((part for part in parts if part in scopes), "")


def _main_scope(loop: Launches, scopes: tuple[str, ...]) -> str:
    named = Counter(_scope(name, scopes) for part in loop.walk() for _, name in part.own)
    del named[""]
    return _scope(loop.scope, scopes) or (named.most_common(1)[0][0] if named else "")


def _opcode(line: str) -> str | None:
    line = re.sub(r"/\*.*?\*/", "", line)
    _, equals, right = line.partition(" = ")
    if not equals:
        return None
    if right.startswith("("):  # a tuple type, which contains brackets
        depths = itertools.accumulate((x == "(") - (x == ")") for x in right)
        right = right[list(depths).index(0) + 1 :].strip()
    else:
        right = right.partition(" ")[2]
    found = re.match(r"([\w\-]+)\(", right)
    return found.group(1) if found else None


def _named(line: str) -> str:
    found = OP_NAME.search(line)
    return found.group(1) if found else ""


def _callee(line: str, attribute: str) -> str:
    return re.search(rf"{attribute}=%?([\w.\-]+)", line).group(1)


def _branches(line: str) -> list[str]:
    names = re.findall(r"(?:true_computation|false_computation)=%?([\w.\-]+)", line)
    listed = re.search(r"branch_computations=\{([^}]*)\}", line)
    return names + [x.strip().lstrip("%") for x in (listed.group(1).split(",") if listed else [])]
