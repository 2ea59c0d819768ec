"""Texts by which algorithms, wrappers and environment objects of a run are recognised.

Equal texts are equal objects, up to a depth of `DEEP`: a text has the module and name of a function
or class, and what distinguishes two of them, such as the arguments of a partial function, the
variables of a closure and the attributes of an object. Long values are shown as checksums.
Texts of equal objects are equal in every process, so they contain neither addresses nor the order
of sets. Nothing is imported or executed from a text.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import zlib
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import envs
from purejaxrl_sac.agents import ALGORITHMS, exported
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import shortened
from purejaxrl_sac.normalize import WRAPPERS

LONG = 60  # characters of a value that are shown
DEEP = 10  # objects within objects; what is further inside is known by its class only
PLAIN = (type(None), bool, int, float, complex, str, bytes, range, PurePath)
Seen = tuple[int, ...]  # identities of the objects that contain a value: cycles end there


def function_name(function: Callable[..., Any]) -> str:
    """The text of an algorithm, a wrapper or a part.

    Those that the package lists have their listed names, others are named "module:function", and
    partial functions as calls: "dqn(bootstrap=purejaxrl_sac.agents.dqn:double)".
    """
    return _function(function, ())


def environment_name(env: Any) -> str:
    """The name of an environment, or the text of an object that is not the one of its name."""
    name = env if isinstance(env, str) else getattr(env, "name", None)
    if not isinstance(name, str):
        return _object(env, ())
    if env is name:
        return name
    shown = _object(env, ())
    try:
        known = envs.make(name)
    except ConfigError:
        return shown
    return name if type(known) is type(env) and _object(known, ()) == shown else shown


def short_name(function: Any) -> str:
    """The name of a function, a part or an argument in titles: "sac(critics=twin(norm=LayerNorm))".

    It has names without modules, and classes of objects without their attributes, so different
    functions may have equal ones.
    """
    return _short_name(function, ())


def differing(one: str, other: str) -> tuple[str, str]:
    """Two different texts, cut to where they differ if they are long."""
    if max(len(one), len(other)) <= 2 * LONG:
        return one, other
    start = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), 0)
    before = max(0, start - LONG // 2)
    head = "..." if before else ""

    def cut(text: str) -> str:
        return head + text[before : start + LONG] + "..." * (start + LONG < len(text))

    return cut(one), cut(other)


def listed_name(function: Any) -> str | None:
    """The name that an algorithm or a wrapper of the package is listed under; None otherwise."""
    lists = ((WRAPPERS, WRAPPERS.get), (ALGORITHMS, exported))
    return next((name for names, get in lists for name in names if get(name) is function), None)


def _function(function: Any, seen: Seen) -> str:
    if (known := listed_name(function)) is not None:
        return known
    if isinstance(function, functools.partial):
        inside = (*seen, id(function))
        given = [_value(x, inside) for x in function.args]
        given += [f"{name}={_value(x, inside)}" for name, x in sorted(function.keywords.items())]
        return f"{_function(function.func, inside)}({', '.join(given)})"
    if isinstance(function, types.MethodType):
        return f"{_value(function.__self__, seen)}.{function.__name__}"
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    module = getattr(function, "__module__", None) or ""
    if not isinstance(function, types.FunctionType | types.BuiltinFunctionType | type):
        return _object(function, seen)
    text = f"{module}:{name}"
    if not isinstance(function, types.FunctionType):
        return text
    code = function.__code__
    if "<" in text:  # a lambda or a local function
        constants = [repr(x) for x in code.co_consts if isinstance(x, PLAIN)]
        text += f"@{_checksum(repr((code.co_code, code.co_names, constants)))}"
    if code.co_freevars:
        inside = (*seen, id(function))
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        shown = ", ".join(f"{name}={_value(_contents(x), inside)}" for name, x in cells)
        text += f"[{_short(shown)}]"
    return text


def _short_name(value: Any, seen: Seen) -> str:
    if id(value) in seen:
        return "..."
    inside = (*seen, id(value))
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        value = value.item()
    if isinstance(value, PLAIN):
        return shortened(repr(value), LONG)
    if isinstance(value, functools.partial):
        given = [_short_name(x, inside) for x in value.args]
        given += [f"{name}={_short_name(x, inside)}" for name, x in value.keywords.items()]
        return f"{_short_name(value.func, inside)}({', '.join(given)})"
    if type(value) in (list, tuple):
        return f"({', '.join(_short_name(x, inside) for x in value)})"
    name = listed_name(value) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__name__


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _value(value: Any, seen: Seen) -> str:
    """The text of an argument or an attribute."""
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        value = value.item()
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, PLAIN):
        return _short(repr(value))
    if id(value) in seen:
        return "..."
    if isinstance(value, types.ModuleType):
        return value.__name__
    inside = (*seen, id(value))
    if isinstance(value, np.ndarray | jax.Array):
        return _array(value, inside)
    if isinstance(value, dict):
        items = sorted(f"{_value(k, inside)}: {_value(x, inside)}" for k, x in value.items())
        return _short(f"{{{', '.join(items)}}}")
    if isinstance(value, set | frozenset):
        return _short(f"{{{', '.join(sorted(_value(x, inside) for x in value))}}}")
    if type(value) in (list, tuple):
        return _short(f"({', '.join(_value(x, inside) for x in value)})")
    return _function(value, seen) if callable(value) else _object(value, seen)


def _array(value: Any, seen: Seen) -> str:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.dtype == object:
        return _value(array.tolist(), seen)
    return f"<array {_checksum(f'{array.dtype}{array.shape}'.encode() + array.tobytes())}>"


def _object(value: Any, seen: Seen) -> str:
    """The class of an object, and its attributes in alphabetical order."""
    if id(value) in seen:
        return "..."
    inside = (*seen, id(value))
    kind = type(value)
    if len(inside) > DEEP:
        return f"{kind.__module__}:{kind.__qualname__}"
    found = {name: getattr(value, name) for name in _attributes(value)}
    shown = (f"{name}={_value(x, inside)}" for name, x in sorted(found.items()))
    text = ", ".join(shown)
    return f"{kind.__module__}:{kind.__qualname__}({text if not seen else _short(text)})"


def _attributes(value: Any) -> Iterable[str]:
    """Names of what an object consists of, without what it has cached.

    Nor private attributes of a dataclass that are not its fields: a module of Flax counts in one
    how many modules the process has made.
    """
    kind = type(value)
    names = {*getattr(value, "__dict__", {})}
    if dataclasses.is_dataclass(value):
        names = {name for name in names if not name.startswith("_")}
    if isinstance(value, tuple):
        names |= {*getattr(kind, "_fields", ())}
    if dataclasses.is_dataclass(value):
        names |= {field.name for field in dataclasses.fields(value)}
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else {*slots}
    cached = functools.cached_property
    return {
        name
        for name in names - {"__dict__", "__weakref__"}
        if hasattr(value, name) and not isinstance(getattr(kind, name, None), cached)
    }


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"<{_checksum(text)}>"


def _checksum(data: str | bytes) -> str:
    return f"{zlib.crc32(data.encode() if isinstance(data, str) else data):08x}"
