"""What tyro says about wrong flags, as one line."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence

from purejaxrl_sac.config import ConfigError, shown
from purejaxrl_sac.presets import PRESETS

WORDS = {  # how tyro calls a type -> the values that it has
    "INT": "a whole number",
    "FLOAT": "a number",
    "[INT [INT ...]]": "whole numbers",
    "[FLOAT [FLOAT ...]]": "numbers",
    "{FLOAT FLOAT}": "two numbers",
    "PATH": "a path",
    "STR": "a text",
}
CHOICE = re.compile(r"invalid choice '.*' for argument '(--[\w-]+)'\. Expected one of \((.*)\)\.")


def readable(output: str, command: str, flags: Sequence[str]) -> ConfigError:
    """The error of one line for what tyro has printed.

    Args:
        output: the text that it printed.
        command: what precedes the flags.
        flags: the arguments that it refused.
    """
    lines = [line.strip("╭╮╰╯│─ ") for line in output.splitlines()]
    lines = [line for line in lines if line.strip("-")][1:]  # without rules, and its title
    text = " ".join(line for line in lines if not line.startswith("For full helptext"))
    help_page = f"(see purejaxrl-sac {command} --help)"
    if found := re.match(r"Error parsing (--[\w-]+):", text):
        return _wrong_type(found[1], lines, flags)
    if found := CHOICE.match(text):
        given, known = _values(found[1], flags), sorted(re.findall(r"'([^']*)'", found[2]))
        return _must_be(found[1], given, _joined(known))
    if found := re.match(r"Missing value for argument '(--[\w-]+)'", text):
        return ConfigError(f"{found[1]} needs a value {help_page}")
    if text.startswith("Missing from ") and "run (required)" in text:
        usage = f"purejaxrl-sac {command} PATH"
        return ConfigError(f"{command} needs the path of a run: {usage}")
    if text.startswith("Unrecognized options: "):
        return _unrecognized(lines, flags, help_page)
    return ConfigError(f"{text} {help_page}")


def _wrong_type(flag: str, lines: Sequence[str], flags: Sequence[str]) -> ConfigError:
    """The error for a value of another type, which the help text of the flag names."""
    usage = next((line for line in lines if line.startswith(f"{flag} ")), f"{flag} STR")
    kinds = usage.partition(" ")[2].split("|")
    wanted = [WORDS.get(kind) or kind.strip("{}").replace(",", " or ") for kind in kinds]
    return _must_be(flag, _values(flag, flags), _joined(wanted))


def _must_be(flag: str, given: str, wanted: str) -> ConfigError:
    return ConfigError(f"{flag} is {shown(given)}, but must be {wanted}")


def _joined(words: Sequence[str]) -> str:
    """Words as alternatives, None last."""
    return " or ".join(sorted(words, key="None".__eq__))


def _values(flag: str, flags: Sequence[str]) -> str:
    """What follows the last occurrence of a flag, up to the next one."""
    split = (x.split("=", 1) if x.startswith("--") else [x] for x in flags)
    words = list(itertools.chain.from_iterable(split))
    if flag not in words:
        return ""
    after = words[len(words) - words[::-1].index(flag) :]
    return " ".join(itertools.takewhile(lambda x: not x.startswith("--"), after))


def _unrecognized(lines: Sequence[str], flags: Sequence[str], help_page: str) -> ConfigError:
    """The error for the first word that is no flag, nor the value of one."""
    from purejaxrl_sac import envs

    listed = lines[0].partition(": ")[2].split(", ")[0].strip(",")
    word = next((x for x in flags if x.partition("=")[0] == listed), listed)
    if word.startswith("-"):
        similar = {line.split()[0].strip(",") for line in lines[1:] if line.startswith("--")}
        near = difflib.get_close_matches(word, sorted(similar.difference(flags)), n=1)
        hint = f"did you mean {near[0]}?" if near else help_page.strip("()")
        return ConfigError(f"no flag is called {word.partition('=')[0]}: {hint}")
    if word in {*envs.names(), *(env for _, env in PRESETS)}:
        return ConfigError(f"{word} is an environment: give it as --env {word}")
    return ConfigError(f"{shown(word)} is neither a flag nor the value of one {help_page}")
