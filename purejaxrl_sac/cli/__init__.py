"""The command line, `purejaxrl-sac COMMAND`: dispatch and exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import purejaxrl_sac
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.cli import config_files, listing, results, training
from purejaxrl_sac.cli.options import (
    EvalOptions,
    ExportOptions,
    InfoOptions,
    PlotOptions,
    RenderOptions,
    ResumeOptions,
    SweepOptions,
    TrainOptions,
)
from purejaxrl_sac.cli.parsing import (
    Options,
    check_values,
    parse,
    parse_with_preset,
    with_counts,
)
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import RunError, RunWarning, StoppedError, one_line

USAGE = f"""\
purejaxrl-sac: reinforcement learning in JAX, compiled into a single lax.scan

usage: purejaxrl-sac COMMAND ...
  train ALGORITHM [--env NAME] [flags]  train and write a run directory
  sweep ALGORITHM --grid FIELD=A,B ...  train several hyperparameter settings
  resume RUN [--steps N]                resume a run or a sweep, or extend a run
  eval RUN [--episodes N]               evaluate the policies of a run
  plot RUN [RUN ...] [--out FILE]       compare runs in one figure
  render RUN [--out FILE.gif]           render an episode as a GIF or MP4
  export RUN [--out DIRECTORY]          export a policy that needs only JAX
  info RUN                              show configuration and status of a run
  list [ALGORITHM | ENVIRONMENT]        list algorithms, presets and scores
  preset ALGORITHM [ENVIRONMENT]        print a configuration file, for --config
  COMMAND --help                        show every flag of a command
  --version                             show the version

for example
  purejaxrl-sac train sac --env Pendulum-v1 --seeds 8 --name demo
  purejaxrl-sac eval runs/demo --episodes 1000
  purejaxrl-sac preset sac Pendulum-v1 > experiment.toml
  purejaxrl-sac train --config experiment.toml --learning-rate 1e-3
  purejaxrl-sac train fork.py:MyConfig --env maze.py:Maze

exit status: 0 success, 1 disk or machine failure, 2 invalid input, 130 or 143
stopped by Ctrl-C or SIGTERM after a checkpoint (continue with resume)

{textwrap.fill("algorithms: " + ", ".join(ALGORITHMS), 80)}"""


def _parsing(
    kind: type[Options], run: Callable[[Options], None]
) -> Callable[[str, list[str]], None]:
    return lambda command, flags: run(parse(kind, command, [*with_counts(flags)]))


# command -> function of (command, flags); `train`, `sweep` and `list` take other arguments
COMMANDS: dict[str, Callable[[str, list[str]], None]] = {
    "resume": _parsing(ResumeOptions, training.resume),
    "eval": _parsing(EvalOptions, results.evaluate),
    "plot": _parsing(PlotOptions, results.plot),
    "render": _parsing(RenderOptions, results.render),
    "export": _parsing(ExportOptions, results.export),
    "info": _parsing(InfoOptions, results.info),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return its exit status, see `USAGE`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # which may be of an encoding without é
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            dispatch(sys.argv[1:] if arguments is None else list(arguments))
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a full disk is noticed
    except ConfigError as error:
        _print(error)
        return _failed(2)
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        _print("interrupted")
        return 130
    except RunError as error:
        _print(error)
        return _failed(1)
    except StoppedError as error:
        if error.signal == signal.SIGPIPE:
            sys.stdout = None
        _print(f"{error}: {error.advice}")
        return 128 + error.signal
    except OSError as error:
        try:
            print(end="", flush=True)
        except OSError:  # standard output is what cannot be written
            sys.stdout = None
        where = f" ({error.filename})" if error.filename else ""
        _print(f"{error.strerror or error}{where}")
        return _failed(1)
    except Exception:
        if _joined():
            traceback.print_exc()
            return _failed(1)
        raise
    return 0


def _print(text: object) -> None:
    """Print one line on standard error."""
    print(f"purejaxrl-sac: {one_line(text)}", file=sys.stderr)


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """`warnings.showwarning` with one line for what a user should know."""
    if issubclass(category, RunWarning):
        _print(message)
    else:
        otherwise(message, category, *where)


def dispatch(arguments: list[str]) -> None:
    """Run one command.

    Raises:
        ConfigError: invalid input.
    """
    check_values(arguments)
    with config_files.keys_for_flags(arguments):
        _run(config_files.expanded(arguments))


def _run(arguments: list[str]) -> None:
    """Run a command whose configuration file is expanded."""
    match arguments:
        case [] | ["-h" | "--help" | "help"] | ["train"] | ["train", "-h" | "--help"]:
            print(USAGE)
        case ["--version"]:
            print(purejaxrl_sac.__version__)
        case ["list", *named]:
            listing.show(named)
        case ["preset", *named]:
            listing.print_preset(named)
        case ["train", algorithm, *flags]:
            training.train(parse_with_preset(TrainOptions, "train", algorithm, flags))
        case ["sweep"] | ["sweep", "-h" | "--help"]:
            print("usage: purejaxrl-sac sweep ALGORITHM --grid FIELD=VALUE,VALUE [flags]")
            print("every flag of an algorithm: purejaxrl-sac sweep sac --help")
        case ["sweep", algorithm, *flags]:
            training.sweep(parse_with_preset(SweepOptions, "sweep", algorithm, flags))
        case [command, *flags] if command in COMMANDS:
            COMMANDS[command](command, flags)
        case [command, *_]:
            if (name := command.lower().replace("-", "_")) in ALGORITHMS:
                raise ConfigError(f"no command is called {command}: did you mean train {name}?")
            if command == "compare":
                raise ConfigError("no command is called compare: use plot RUN RUN ...")
            known = ", ".join(["train", "sweep", *COMMANDS, "list", "preset"])
            raise ConfigError(f"no command is called {command}: use one of {known}")


def _joined() -> bool:
    """Whether this is one of several processes, without importing the module that joins them."""
    processes = sys.modules.get("purejaxrl_sac.experiment.devices.processes")
    return processes is not None and processes.is_distributed()


def _failed(status: int) -> int:
    """Return the exit status of a failure; one of several processes exits immediately.

    A normal exit would wait for the other processes, which in turn wait for this one.
    """
    if _joined():
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
