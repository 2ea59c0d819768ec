"""Keep rows whose code was edited while the programs that it builds stayed the same.

    python scripts/refresh.py --since COMMIT
    python scripts/refresh.py --since COMMIT --iterations 20

A row that was fresh at a commit is stale once a definition that it depends on is edited, also where
the edit cannot change a figure: a new error message, or a new option. Where the jaxprs of `init`,
`run` and `evaluate` of its algorithm and environment equal those of the commit, with all constants,
the values of traced fields and the keys of a run, but without equations whose results are not used,
the row is given the digest of the present code. Its version and commit stay those of the
measurement. Rows of programs that differ are left alone, as are those of `NOT_OF_JAXPRS`, whose
figures are mostly of the code around the programs.

Not compared is what the host does with programs and their results: how a run is divided into
chunks, which metrics are averaged and recorded, which episodes a score is the mean of, checkpoints,
and the scripts. After an edit of that code, learning rows have to be measured again, although this
script would keep them.

With `--iterations`, pairs of different programs are trained with both, for the warm-up and that
many iterations. Where every bit of the two final states is equal, learning curves are kept: for
programs that compute the same numbers in another way.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # after PYTHONPATH, which may name another tree

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

import purejaxrl_sac as prl
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.experiment.runs import plans

RANDOM = "random"  # the algorithm of rows that only depend on an environment
NOT_OF_JAXPRS = (  # kinds of rows whose figures jaxprs do not determine
    *("compile time", "start", "solution", "overhead", "check"),
    *("scale: devices", "scale: sweep", "scale: compaction"),
)
Pair = tuple[str, str]  # algorithm, environment


def digest(algorithm: str, environment: str) -> str:
    """Of the jaxprs of an algorithm's preset on an environment, their constants, and inputs."""
    key = jax.random.key(0)
    name, params = _named(environment)
    if algorithm == RANDOM:
        env = prl.envs.bind(name, params)
        keys = jax.random.split(key, 2)
        start = jax.eval_shape(lambda: env.reset(key, 2))
        action = jax.eval_shape(lambda: env.random_action(key, 2))
        return _hash(jax.make_jaxpr(env.step)(keys, start, action))
    config = parameters.fixed(prl.preset(algorithm, name).replace(env_params=params))
    env = prl.envs.bind(name, params)  # here, because Brax keeps arrays that it makes in a trace
    state = jax.eval_shape(prl.init, key, config)
    functions = [  # new ones in each call, because JAX keeps what it has traced
        lambda key, config, state: prl.init(key, config),
        lambda key, config, state: prl.run(state, config, 2),
    ]
    found = [jax.make_jaxpr(function)(key, config, state) for function in functions]
    if env.max_steps is not None:
        play = jax.make_jaxpr(lambda key, config, state: prl.evaluate(key, config, state, 2))
        found.append(play(key, config, state))
    values = [np.asarray(x).tolist() for x in jax.tree.leaves(config)]  # arguments of the programs
    return _hash(*found, values=[*values, _keys(config)])


def numbers(algorithm: str, environment: str, iterations: int) -> str:
    """Digest of the keys, and all bits of the state after the warm-up and some iterations here."""
    name, params = _named(environment)
    config = parameters.fixed(prl.preset(algorithm, name).replace(env_params=params))
    count = config.warmup_iterations + iterations
    prl.envs.bind(name, params)  # as above

    @jax.jit  # a new function in each call, as above
    def train(key: jax.Array) -> Any:
        return prl.run(prl.init(key, config), config, count)[0]

    state = train(jax.random.key(0))
    digest = hashlib.sha256(repr(_keys(config)).encode())
    for leaf in jax.tree.leaves(state):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        digest.update(np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes())
    return digest.hexdigest()[:16]


def _keys(config: prl.Config) -> list[list]:
    """The first keys of a run, of training and of the final evaluation."""
    return [jax.random.key_data(x).tolist() for x in plans.plan(config, 2).keys()[:2]]


def _named(environment: str) -> tuple[str, Any]:
    """As `cells.named`, but with nothing that a source tree may have changed."""
    name, _, settings = environment.removesuffix(")").partition("(")
    values = dict(text.split("=") for text in settings.split(",")) if settings else {}
    found = {field: ast.literal_eval(text) for field, text in values.items()}
    return name, parameters.changed(name, found) if found else None


def _hash(*programs: jax.extend.core.ClosedJaxpr, values: Sequence[Any] = ()) -> str:
    digest = hashlib.sha256(repr(values).encode())
    for program in programs:
        used, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
        digest.update(re.sub(r"0x[0-9a-f]+", "", str(used)).encode())  # addresses of functions
        for constant in program.consts:
            is_key = jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key)
            digest.update(
                np.asarray(jax.random.key_data(constant) if is_key else constant).tobytes()
            )
    return digest.hexdigest()[:16]


def digests(pairs: Sequence[Pair], tree: Path, iterations: int | None = None) -> dict[str, str]:
    """The digest of each pair with the package of a source tree, by "algorithm environment".

    Args:
        iterations: for `numbers`; None for digests of programs.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--programs", json.dumps(pairs)]
    command += [] if iterations is None else ["--iterations", str(iterations)]
    done = subprocess.run(
        command, cwd=tree, env={**_environment(), "PYTHONPATH": str(tree)}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu"}


def fresh(tree: Path) -> dict[str, set[str]]:
    """The rows of each file that are fresh in a source tree, as lines."""
    program = (
        "import json; from scripts import record;"
        "print(json.dumps({f.name: [x for x in f.read_text().splitlines()"
        " if not record.stale(json.loads(x))] for f in record.FOLDER.glob('*.jsonl')}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tree, env={**_environment(), "PYTHONPATH": str(tree)}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return {name: set(lines) for name, lines in found.items()}


def renewable(before: dict[str, set[str]]) -> Iterator[tuple[Path, int, dict]]:
    """File, line and row of those that were fresh, are stale, and may keep their figures."""
    from scripts import record

    for path in sorted(record.FOLDER.glob("*.jsonl")):
        for i, line in enumerate(path.read_text().splitlines()):
            row = json.loads(line)
            kept = line in before.get(path.name, ()) and row["what"] not in NOT_OF_JAXPRS
            if kept and record.stale(row):
                yield path, i, row


def renew(before: dict[str, set[str]], same: set[str], equal: Collection[str] = ()) -> int:
    """Give rows that were fresh the digest of today's code.

    Args:
        same: pairs of the same programs.
        equal: pairs of the same numbers, of which learning curves are kept.
    """
    from scripts import record

    def kept(row: dict) -> bool:
        return _pair(row) in same or (row["what"] == "learning" and _pair(row) in equal)

    found = [each for each in renewable(before) if kept(each[2])]
    for path, i, row in found:
        lines = path.read_text().splitlines()
        names = row.get("algorithm", ""), row.get("environment", "")
        lines[i] = json.dumps({**row, "code": record.code(row["depends"], *names)})
        path.write_text("\n".join(lines) + "\n")
    return len(found)


def _pair(row: dict) -> str:
    return f"{row.get('algorithm')} {row.get('environment')}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--since", metavar="COMMIT", help="at which rows were fresh")
    parser.add_argument("--iterations", type=int, help="to train where programs differ")
    parser.add_argument("--programs", metavar="JSON", help="print digests of pairs (internal)")
    options = parser.parse_args(argv)
    if options.programs:
        pairs: list[Pair] = [tuple(pair) for pair in json.loads(options.programs)]
        found = {}
        for name, env in pairs:
            try:
                if options.iterations is None:
                    found[f"{name} {env}"] = digest(name, env)
                else:
                    found[f"{name} {env}"] = numbers(name, env, options.iterations)
            except prl.ConfigError as error:  # such as an extra that is not installed
                print(f"{name} {env} is left alone: {error}", file=sys.stderr)
        print(json.dumps(found))
        return 0
    if not options.since:
        parser.error("--since needs a commit")
    from scripts import record

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(record.ROOT), "worktree"]
        if subprocess.run(
            [*git, "add", "--detach", str(tree), options.since], check=False
        ).returncode:
            parser.error(f"--since is {options.since}, but must be a commit of this clone")
        try:
            before = fresh(tree)
            rows = [row for _, _, row in renewable(before)]
            names = {(row.get("algorithm"), row.get("environment")) for row in rows}
            pairs = sorted(pair for pair in names if all(pair))
            old, new = digests(pairs, tree), digests(pairs, record.ROOT)
            same = {pair for pair, value in new.items() if old.get(pair) == value}
            equal = set()
            if options.iterations is not None:
                of_curves = {_pair(row) for row in rows if row["what"] == "learning"} - same
                left = [p for p in pairs if " ".join(p) in of_curves and p[0] != RANDOM]
                old, new = (digests(left, x, options.iterations) for x in (tree, record.ROOT))
                equal = {pair for pair, value in new.items() if old.get(pair) == value}
                for pair in sorted(new.keys() - equal):
                    print(f"other numbers: {pair}")
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    print(f"{renew(before, same, equal)} rows of {len(same | equal)} pairs keep their figures")
    for pair in sorted({" ".join(pair) for pair in pairs} - same - equal):
        print(f"other programs: {pair}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
