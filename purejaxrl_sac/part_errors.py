"""Errors of algorithms, wrappers, environments and their parts as one line that names the part."""

from __future__ import annotations

import contextlib
import functools
import sysconfig
import traceback
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.errors
import jax

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.types import Env

ERRORS = (  # of code; those of the machine, such as OSError, are none of them
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NameError,
    AssertionError,
    NotImplementedError,
    flax.errors.FlaxError,
)
HINTS = {  # errors of JAX that say less about what to do
    jax.errors.TracerBoolConversionError: "use jnp.where or jax.lax.cond instead of `if` on arrays",
    jax.errors.TracerArrayConversionError: "use jax.numpy instead of numpy",
    jax.errors.ConcretizationTypeError: "a compiled function does not know the values of arrays",
}
OTHERS = (  # folders of code that is not the user's
    Path(__file__).parent,
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)
TAKES = "see purejaxrl_sac.types for what parts take and return"


def running(env: Env) -> tuple[str, str]:
    """What parts do in a run, and what to check if they fail, for `errors_of_parts`."""
    return (
        f"on observations of shape {env.observation_space.shape}",
        "check what its networks and other parts take and return: see purejaxrl_sac.types",
    )


@contextlib.contextmanager
def errors_of_parts(config: Config, what: str, remedy: str, otherwise: str = "") -> Iterator[None]:
    """Turns an error of an algorithm, a wrapper or one of its parts into a `ConfigError`.

    The original error is its cause, with the place in the code.

    Args:
        what: what the part was doing, for the message.
        remedy: what to check, for the message.
        otherwise: what the message names if the part is not known; empty for the algorithm.
    """
    try:
        yield
    except ConfigError:
        raise
    except ERRORS as error:
        if isinstance(error, AttributeError) and error.obj is config:
            raise ConfigError(
                f"{culprit(config, error, otherwise)} needs a field {error.name}, which a"
                f" {type(config).__name__} does not have: derive your configuration from the class"
                " that has it, and name that class as the algorithm (train file.py:Class)"
            ) from error
        raise ConfigError(
            f"{culprit(config, error, otherwise)} fails {what}: {described(error, remedy)}"
        ) from error


def described(error: BaseException, remedy: str = "") -> str:
    """An error of a user's code as one line: what it is, its place in that code, and a remedy.

    Args:
        remedy: what to check, if the error itself does not say it.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""  # JAX continues
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    remedy = next((hint for kind, hint in HINTS.items() if isinstance(error, kind)), remedy)
    return f"{text}{place(error)}" + (f" ({remedy})" if remedy else "")


def place(error: BaseException) -> str:
    """The innermost line of a user's own file that raised an error, as " in FILE, line N"."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = Path(frame.f_code.co_filename)
        folders = {*file.parts}
        if str(file).startswith("<") or folders & {"site-packages", "dist-packages"}:
            continue
        if not any(file.is_relative_to(folder) for folder in OTHERS):
            cell = any(part.startswith("ipykernel_") for part in folders)
            return f" in {'a cell' if cell else file.name}, line {line}"
    return ""


def culprit(config: Config, error: BaseException, otherwise: str = "") -> str:
    """What an error comes from, as text: a part, a wrapper, the environment or the algorithm.

    A part is known if the error was raised below its code or by calling it.

    Args:
        otherwise: what it is if that is not known; empty for the algorithm.
    """
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    base = name_of_function(config.algorithm)
    owners = {f"the part {name} of {base}": x for name, x in parts_of(config).items()}
    owners |= {f"the wrapper {name_of_function(x)}": x for x in config.wrappers}
    if not isinstance(config.env, str):
        env = getattr(config.env, "env", config.env)  # of one with parameters of its own
        owners[f"the environment {type(env).__name__}"] = type(env)
    depths = {text: _depth(frames, _codes(x)) for text, x in owners.items()}
    deepest = max(depths, key=lambda text: depths[text], default="")
    if depths.get(deepest, -1) >= 0:
        return deepest
    called = (f"{{}}{end}() " for end in ("", ".__init__"))
    texts = [
        (text, shape.format(name_of_function(x))) for shape in called for text, x in owners.items()
    ]
    if found := [text for text, start in texts if start in str(error)]:
        return found[0]
    return otherwise or getattr(config.algorithm, "__name__", type(config).__name__)


def parts_of(config: Config) -> dict[str, Any]:
    """The parts that a composed algorithm was given, by name."""
    found: dict[str, Any] = {}
    function: Any = config.algorithm
    while isinstance(function, functools.partial):
        found = {**function.keywords, **found}
        function = function.func
    return {name: part for name, part in found.items() if callable(part)}


def name_of_function(function: Any) -> str:
    """The name of a function, of what a partial function calls, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _codes(function: Any) -> set[types.CodeType]:
    """The code of a function or of a class's methods, with that of all functions inside."""
    while isinstance(function, functools.partial):
        function = function.func
    members = [function, vars(type(function)).get("__call__")]
    if isinstance(function, type):
        members = list(vars(function).values())
    found: set[types.CodeType] = set()
    waiting = [x.__code__ for x in members if isinstance(x, types.FunctionType)]
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting += [x for x in code.co_consts if isinstance(x, types.CodeType)]
    return found


def _depth(frames: Sequence[types.CodeType], codes: set[types.CodeType]) -> int:
    """The innermost frame whose code is one of these; -1 if none is."""
    return max((i for i, code in enumerate(frames) if code in codes), default=-1)
