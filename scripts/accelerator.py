"""Kernels, times and memory of the package on accelerators, and agreement with the CPU.

    python scripts/accelerator.py compile                                    needs no device
    python scripts/accelerator.py compile dqn:CartPole-v1 sac --seeds 64 --target h100 v5e
    python scripts/accelerator.py compile dqn sac --kind "one update" --peer rejax
    python scripts/accelerator.py measure --minutes 8                        on a device
    python scripts/accelerator.py check --minutes 8                          on a device
    python scripts/accelerator.py table                                      shows recorded rows

Each row is one JSON line, appended to `--record`. Rows that are recorded there for the same
sources, device and flags are skipped (unless `--again`). `one update` is one environment, one step
and one update per iteration with networks of 64 x 64; `preset` is the unchanged preset. `compile`
needs the extra cuda12 or tpu; without names it compiles every preset for 64 seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from purejaxrl_sac.config import ConfigError
from scripts import record
from scripts.options import Parser, count, minutes
from scripts.targets import TargetError

STAGES = ("curve", "profile", "flags", "fit")


def parser() -> Parser:
    """The parser of the command line."""
    top = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    shared = Parser(add_help=False)
    record.add_record(shared, "accelerator")
    timed = Parser(add_help=False)
    timed.add_argument(
        "--minutes", type=minutes, default=8.0, help="no work starts after this time"
    )
    timed.add_argument("--workers", type=count, help="programs compiled concurrently")
    again = Parser(add_help=False)
    again.add_argument("--again", action="store_true", help="repeat recorded rows")

    compile_ = commands.add_parser("compile", parents=[shared, again])
    compile_.add_argument("works", nargs="*", metavar="ALGORITHM[:ENVIRONMENT]")
    compile_.add_argument("--target", nargs="+", default=[], help="default: all installed")
    compile_.add_argument("--kind", default="preset", help='"one update" or preset')
    compile_.add_argument("--seeds", nargs="+", type=int, default=[], help="default: 1 64 1024")
    compile_.add_argument("--peer", help="rejax: also compile rejax 0.1.3 for GPUs")
    compile_.add_argument("--text", type=Path, help="a folder for the HLO text of the programs")
    compile_.add_argument("--peer-environment", type=Path, help="virtual environment of the peer")

    measure = commands.add_parser("measure", parents=[shared, timed])
    measure.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    measure.add_argument("--works", nargs="+", default=[], metavar="ALGORITHM:ENVIRONMENT:KIND:N")
    measure.add_argument("--rounds", type=count, default=5)

    check = commands.add_parser("check", parents=[shared, timed, again])
    check.add_argument("--algorithms", nargs="+", default=[], help="default: all")
    commands.add_parser("table", parents=[shared])
    return top


def run(options: argparse.Namespace, arguments: list[str], path: Path) -> int:
    """Run one command, whose rows are appended to a file, and return its exit status."""
    from scripts.accelerators import compiling, tables

    given = {name: value for name, value in vars(options).items() if value is not None}
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    del given["command"]
    given["record"] = path
    if options.command == "table" and not path.exists():
        raise ConfigError(f"{path} does not exist: run measure first, or pass another --record")
    status = 0
    if options.command == "compile":
        given["targets"] = given.pop("target")
        status = compiling.compile_(compiling.Compile(**given), arguments)
    elif options.command == "measure":
        from scripts.accelerators import measuring

        measuring.measure(measuring.Measure(**given))
    elif options.command == "check":
        from scripts.accelerators import checking

        status = checking.check(checking.Check(**given))
    if compiling.WORKER not in os.environ:
        tables.show(record.rows(path), [options.command])
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 2 for invalid input, reported in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    if options.command in ("compile", "table"):
        os.environ["JAX_PLATFORMS"] = "cpu"  # of subprocesses
        jax.config.update("jax_platforms", "cpu")
    try:
        with tempfile.TemporaryDirectory() as folder:  # of rows that are only shown
            shown = record.ACCELERATOR if options.command == "table" else Path(folder) / "rows"
            return run(options, arguments, options.record or shown)
    except (ConfigError, TargetError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # without waiting for pending compilations
