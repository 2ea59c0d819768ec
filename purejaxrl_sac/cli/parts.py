"""The parts of an algorithm: which there are, and others by reference."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from purejaxrl_sac import references
from purejaxrl_sac.agents import name_of
from purejaxrl_sac.config import Config, ConfigError, shown
from purejaxrl_sac.types import Memory


def parts(algorithm: Any) -> dict[str, inspect.Parameter]:
    """The parts of an algorithm by name.

    They are its keyword-only parameters, apart from those whose default is a number or a text;
    those that a `partial` composition has set have their new defaults.
    """
    found = inspect.signature(algorithm).parameters.values()
    return {x.name: x for x in found if x.kind is x.KEYWORD_ONLY and _is_part(x.default)}


def _is_part(value: Any) -> bool:
    return value is None or callable(value) or isinstance(value, Memory)


def described(algorithm: Any) -> list[str]:
    """The parts of an algorithm as texts "name: type = default"."""
    return [_text(part) for part in parts(algorithm).values()]


def _text(part: inspect.Parameter) -> str:
    from purejaxrl_sac.experiment.runs.names import short_name

    text, kind = part.name, part.annotation
    if kind is not part.empty:
        text += f": {kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    if part.default is part.empty:
        return text
    return f"{text} = {short_name(part.default).strip('<>')}"  # of a lambda, "<lambda>"


def with_parts(config: Config, given: dict[str, str]) -> Config:
    """A configuration whose algorithm has other parts.

    Args:
        given: name of a part -> its reference.

    Raises:
        ConfigError: the algorithm has no such part, or it cannot be imported.
    """
    if not given:
        return config
    names = list(parts(config.algorithm))
    for name in given:
        if name not in names:
            raise _unknown(name_of(config), name, names)
    found = {name: _part(name, reference) for name, reference in given.items()}
    return config.replace(algorithm=partial(config.algorithm, **found))


def _unknown(algorithm: str, name: str, names: Sequence[str]) -> ConfigError:
    """The error for a part that does not exist, with all that do."""
    listing = f"its parts are {', '.join(names)}" if names else "it has no parts"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? ({listing})" if near else listing
    return ConfigError(f"no part of {algorithm} is called {name}: {hint}")


def _part(name: str, reference: str) -> Any:
    """The part that a reference names.

    Raises:
        ConfigError: it cannot be imported, or is no part.
    """
    part = references.load(reference)
    if not (callable(part) or isinstance(part, Memory)):
        raise ConfigError(f"{name} is {shown(part)}, but must be a function or a class")
    module = getattr(part, "__module__", None) or ""
    if name.endswith("optimizer") and module.partition(".")[0] == "optax":
        made = getattr(part, "__name__", "adam")
        raise ConfigError(
            "an optimizer part is a function of the configuration: write `def"
            f" {made}(config): return optax.{made}(config.learning_rate)` in a file of your own"
        )
    return part
