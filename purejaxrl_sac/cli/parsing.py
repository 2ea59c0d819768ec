"""Flags to options."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, TypeVar, cast

import tyro

from purejaxrl_sac import references
from purejaxrl_sac.agents import ALGORITHMS, name_of, preset
from purejaxrl_sac.cli import parts
from purejaxrl_sac.cli.messages import readable
from purejaxrl_sac.cli.options import SweepOptions, TrainOptions
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.envs import parameters
from purejaxrl_sac.memory.fixed import FIELDS, check_fixed
from purejaxrl_sac.normalize import WRAPPERS, wrapper
from purejaxrl_sac.offline import offline

STYLE = (tyro.conf.SuppressFixed, tyro.conf.FlagCreatePairsOff)

SYNONYMS = {  # of other libraries -> flags
    "--lr": "--learning-rate",
    "--batch": "--batch-size",
    "--buffer-size": "--capacity",
    "--discount": "--gamma",
    "--environment": "--env",
    "--env-id": "--env",
    "--layers": "--hidden-sizes",
    "--num-seeds": "--seeds",
    "--n-envs": "--num-envs",
    "--polyak": "--tau",
    "--timesteps": "--total-steps",
    "--total-timesteps": "--total-steps",
    "--learning-starts": "--warmup-steps",
}

LAYERS = ("--hidden-sizes", "--critic-hidden-sizes")
SEVERAL = (
    "--env-params", "--grid", "--labels", "--log", "--measure", "--parts", "--range", "--wrap",
)  # fmt: skip

COUNTS = ("--steps", "--episodes")  # flags of `resume` and `eval`
TEXTS = ("--name", "--out", "--dataset", "--config")  # flags of `train` and `sweep`

Options = TypeVar("Options")
NewOptions = TypeVar("NewOptions", TrainOptions, SweepOptions)


class HelpPage(io.StringIO):
    """Collects a page of help: tyro wraps its tables, but no other text."""

    terminal: bool

    def __init__(self) -> None:
        super().__init__()
        self.terminal = sys.stdout is not None and sys.stdout.isatty()

    def isatty(self) -> bool:
        """Whether the page is shown on a terminal, with colours."""
        return self.terminal

    def wrapped(self) -> str:
        """The page, with lines no longer than the terminal is wide."""
        width = max(40, shutil.get_terminal_size().columns)

        def fitted(line: str) -> str:
            visible = re.sub(r"\x1b\[[\d;]*m", "", line)
            return line if len(visible) <= width else textwrap.fill(visible, width)

        return "\n".join(map(fitted, self.getvalue().splitlines()))


def parse(
    kind: type[Options], command: str, flags: list[str], default: Options | None = None
) -> Options:
    """Parse the flags of a command into its options.

    Args:
        kind: the dataclass of the options.
        command: what precedes the flags, for messages.
        default: values of the flags that are not given; None for those of `kind`.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong type.
    """
    program, messages, page = f"purejaxrl-sac {command}", io.StringIO(), HelpPage()
    try:
        with contextlib.redirect_stderr(messages), contextlib.redirect_stdout(page):
            if default is None:
                return tyro.cli(kind, prog=program, args=flags, config=STYLE)
            return tyro.cli(kind, prog=program, args=flags, config=STYLE, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            print(page.wrapped())
            raise
        raise readable(messages.getvalue(), command, flags) from None


def assignments(
    words: Sequence[str], flag: str, value: str, clean: Callable[[str], str] = str
) -> dict[str, str]:
    """NAME=VALUE ... as {name: value}.

    Args:
        flag: the name of the option, for messages.
        value: what VALUE stands for, for messages.
        clean: spellings of a name to the one that is returned.

    Raises:
        ConfigError: a word is not of this form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ConfigError(f"--{flag} takes NAME={value}, not {word!r}")
        name = clean(name)
        if name in found:
            raise ConfigError(f"{name} is twice in --{flag}: give it once")
        found[name] = text
    return found


def env_name(env: Any) -> str:
    """The name of an environment, given by name or as an object."""
    return env if isinstance(env, str) else str(getattr(env, "name", type(env).__name__))


def _with_parts_listed(kind: type[NewOptions], config: Config) -> type[NewOptions]:
    """Options whose help lists the parts of a configuration's algorithm, if it has any."""
    listed: list[str] = parts.described(config.algorithm)
    if not listed:
        return kind
    text = "Other parts of the algorithm: PART=file.py:name or PART=module:name ...; those of"
    text = "\n".join([f"{text} {name_of(config)}, with their types and defaults:", *listed])
    helped: Any = Annotated[tuple[str, ...], tyro.conf.arg(help=text)]
    made = dataclasses.make_dataclass(
        kind.__name__,
        [("parts", helped, ())],
        bases=(kind,),
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
    )
    return cast(type[NewOptions], made)


def check_values(arguments: Sequence[str]) -> None:
    """Raises ConfigError for a flag that needs values and has none.

    `--normalize` without a value switches normalisation off, and with `--config` other flags remove
    the values that the file has.
    """
    from_file = any(x.partition("=")[0] == "--config" for x in arguments)
    for flag, value in itertools.pairwise([*arguments, "--"]):
        if value.startswith("--") and (flag in LAYERS or (flag in SEVERAL and not from_file)):
            what = "number" if flag in LAYERS else "value"
            raise ConfigError(f"{flag} needs at least one {what}")


def check_algorithm(command: str, name: str, flags: Sequence[str] = ()) -> None:
    """Raises ConfigError where a flag stands in place of an algorithm, or the case is wrong.

    Args:
        flags: what follows the name; an algorithm among them is named in the message.
    """
    if name.startswith("-"):
        for before, word in itertools.pairwise([name, *flags]):
            is_listed = word.lower().replace("-", "_") in ALGORITHMS
            if is_listed or (references.is_reference(word) and not before.startswith("-")):
                raise ConfigError(f"name the algorithm first: {command} {word} {name} ...")
        raise ConfigError(
            f"name an algorithm before {name}, for example train dqn --env CartPole-v1;"
            " purejaxrl-sac list shows all of them"
        )
    listed = name.lower().replace("-", "_")
    if name not in ALGORITHMS and listed in ALGORITHMS:
        raise ConfigError(f"no algorithm is called {name}: did you mean {listed}?")


def whole(text: str) -> str:
    """`1e6` as `1000000`; every other text as it is."""
    if not re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", text):
        return text
    value = Decimal(text)
    return str(int(value)) if value == value.to_integral_value() else text


def with_counts(words: Sequence[str]) -> Iterator[str]:
    """The words of a command that trains nothing new, with `whole` applied to its `COUNTS`."""
    for before, word in itertools.pairwise(["", *words]):
        flag, equals, value = word.partition("=")
        if equals and flag in COUNTS:
            yield f"{flag}={whole(value)}"
        else:
            yield whole(word) if before in COUNTS else word


def _with_layers(flags: Iterable[str]) -> Iterator[str]:
    """Layers such as 64x64, as in grids, as numbers of their own: 64 64."""
    before = ""
    for flag in flags:
        layers = before in LAYERS and re.fullmatch(r"\d+(x\d+)+", flag)
        yield from flag.split("x") if layers else [flag]
        before = flag


def parse_with_preset(
    kind: type[NewOptions], command: str, algorithm: str, flags: list[str]
) -> NewOptions:
    """`parse` the flags of `train` or `sweep`; defaults are the preset's, which `--env` selects.

    The devices are set up, because parameters and datasets are arrays.

    Raises:
        ConfigError: an unknown algorithm or flag, a value of the wrong type, or devices that do not
            exist.
    """
    check_algorithm(command, algorithm, flags)
    split = (flag.split("=", 1) if flag.startswith("--") else [flag] for flag in flags)
    flags = ["--total-steps" if part == "--steps" else part for parts in split for part in parts]
    pairs = itertools.pairwise(["", *flags])
    flags = list(_with_layers(x if before in TEXTS else whole(x) for before, x in pairs))
    for before, flag in itertools.pairwise([command, *flags]):
        if flag == "--set":
            raise ConfigError("no flag is called --set: each field has one, such as --gamma 0.9")
        if flag in SYNONYMS:
            raise ConfigError(f"no flag is called {flag}: did you mean {SYNONYMS[flag]}?")
        if before in LAYERS and "," in flag:
            numbers = " ".join(flag.strip("()[]").split(","))
            raise ConfigError(f"{before} is {flag}: separate numbers by spaces: {before} {numbers}")
    for flag in ("--grid", "--range"):
        if flags.count(flag) > 1:  # tyro would use the last one only
            raise ConfigError(f"{flag} is given twice: give it once, with all fields")
    envs = [value for flag, value in itertools.pairwise(flags) if flag == "--env"]
    if any(map(references.is_reference, [algorithm, *flags])):
        _make_devices(flags)
    config = preset(algorithm, envs[-1] if envs else None)
    shown = envs[-1] if envs else env_name(config.env)  # flags have no objects
    named: list[Any] = [name for x in config.wrappers for name in WRAPPERS if WRAPPERS[name] is x]
    if {"-h", "--help"} & {*flags}:
        kind = _with_parts_listed(kind, config)
    default = kind(config=config.replace(env=shown), normalize=tuple(named))
    options: NewOptions = parse(kind, f"{command} {algorithm}", flags, default)
    options.running.set_up_devices(options.parallel())  # before anything computes
    config = options.config.replace(env=config.env)
    if options.wrap or options.normalize != default.normalize:  # else a fork's own wrappers remain
        names = (*options.normalize, *options.wrap)
        config = config.replace(wrappers=tuple(map(wrapper, names)))
    chosen = assignments(options.parts, "parts", "file.py:name")
    config = parts.with_parts(config, chosen).replace(
        env_params=environment_parameters(config.env, options.env_params),
    )
    if options.dataset is not None:
        from purejaxrl_sac.experiment.runs import datasets

        given = {flag.removeprefix("--").replace("-", "_") for flag in flags} & FIELDS.keys()
        chosen_fields = {name: getattr(config, name) for name in given}
        config = offline(config, datasets.load(options.dataset))
        check_fixed(config.replace(**chosen_fields))  # presets have other values, too
    if options.curriculum is not None:
        config = config.replace(curriculum=references.load(options.curriculum))
    return dataclasses.replace(options, config=config)


def _make_devices(flags: Sequence[str]) -> None:
    """Creates the CPU devices before code is imported, which may initialise JAX."""
    from purejaxrl_sac.experiment.devices import mesh

    given = [x for flag, x in itertools.pairwise(flags) if flag == "--cpu-devices"]
    if given and given[-1].isdecimal():
        mesh.use_cpu_devices(int(given[-1]))
    else:
        mesh.use_all_cores(mesh.cores())


def environment_parameters(env: Any, settings: Sequence[str]) -> Any:
    """The parameters of an environment from texts NAME=VALUE; None if there are none.

    Raises:
        ConfigError: a text is not of this form, or there is no such parameter.
    """
    return parameters.changed(env, parameter_values(settings)) if settings else None


def parameter_values(settings: Sequence[str]) -> dict[str, Any]:
    """Texts NAME=VALUE as names and values.

    Raises:
        ConfigError: a text is not of this form.
    """
    values: dict[str, Any] = {}
    for name, text in assignments(settings, "env-params", "VALUE, such as length=0.7").items():
        try:
            values[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            values[name] = text
    return values
