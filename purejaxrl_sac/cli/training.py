"""The commands that train: `train`, `sweep` and `resume`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from purejaxrl_sac import references
from purejaxrl_sac.agents import base_name, name_of
from purejaxrl_sac.cli.options import (
    ResumeOptions,
    RunOptions,
    SweepOptions,
    TrainOptions,
)
from purejaxrl_sac.cli.parsing import SYNONYMS, assignments, env_name
from purejaxrl_sac.config import Bounds, Config, ConfigError, bounds_of
from purejaxrl_sac.presets import PRESETS

if TYPE_CHECKING:
    from purejaxrl_sac.experiment.tuning.points import Point, Scale
    from purejaxrl_sac.experiment.tuning.sweep_results import SweepResult


def train(options: TrainOptions) -> None:
    """Train, report progress, and write everything to the run directory."""
    from purejaxrl_sac.experiment.devices import mesh, resources
    from purejaxrl_sac.experiment.runs import display, engine, lifecycle, plans

    planned = {
        name: getattr(options, name)
        for name in ("seed", "chunks", "episodes", "eval_every", "eval_episodes")
    }
    if options.dry_run:
        devices = options.running.set_up_devices(options.parallel())
        check_references(options)
        plan = plans.plan(options.config, options.seeds, **planned)
        over = mesh.mesh_for(plan.lanes, devices)
        resources.check_state(plan, over)
        figures = resources.report(plan, engine.compile_run(plan, mesh=over))
        notes = {"steps": plans.rounding_note(plan.config), "preset": preset_note(plan.config)}
        figures = {name: note for name, note in notes.items() if note} | figures
        if options.running.json:
            print(json.dumps({"event": "dry_run", "figures": figures}))
        else:
            Console().print(display.table(f"{plans.title(plan.config)}, dry run", figures))
        return
    arguments = options.running.run_arguments(options.parallel())
    arguments["measure"] = measures(options.measure)
    arguments["reporter"] = options.running.reporter(preset_note(options.config))
    out = output_directory(options)
    lifecycle.run(options.config, options.seeds, out=out, **planned, **arguments)


def preset_note(config: Config) -> str:
    """That there is no preset, or '' where there is one."""
    env = env_name(config.env)
    if (base_name(config), env) in PRESETS:
        return ""
    return f"{name_of(config)} has no preset for {env}: what is not given has its default"


def check_references(options: TrainOptions) -> None:
    """Check what a dry run does not use: loggers, measures and the output directory.

    Raises:
        ConfigError: training with these options would be refused.
    """
    from purejaxrl_sac.experiment.runs import loggers

    for name in options.running.log:
        loggers.named(name)
    measures(options.measure)
    output_directory(options)


def measures(settings: Sequence[str]) -> dict[str, Any]:
    """The functions of --measure NAME=REFERENCE ...

    Raises:
        ConfigError: a word is not of this form, or a function cannot be imported.
    """
    given = assignments(settings, "measure", "file.py:name")
    return {name: references.load(reference) for name, reference in given.items()}


def output_directory(options: TrainOptions | SweepOptions, prefix: str = "") -> Path:
    """The directory of a new run or sweep.

    Raises:
        ConfigError: both a name and a directory are given, the name leads out of runs/, or several
            processes share neither.
    """
    from purejaxrl_sac.experiment.devices import processes

    if options.name is not None and options.out is not None:
        raise ConfigError("--name and --out both choose the output directory: give one of them")
    if options.out is not None:
        return options.out
    if options.name is not None:
        name = Path(options.name)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise ConfigError(
                f"name is {options.name!r}, but must be a name below runs/: give a path as --out"
            )
        return Path("runs") / name
    if processes.is_distributed():
        raise ConfigError("several processes share a directory: give --name or --out")
    env = env_name(options.config.env).replace("/", "-")
    algorithm = name_of(options.config).partition("(")[0]
    now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")  # two runs may start in one second
    return Path("runs") / f"{prefix}{algorithm}-{env}-{now}"


def sweep(options: SweepOptions) -> None:
    """Train every point of a sweep, and write tables and figures."""
    from purejaxrl_sac.experiment.tuning import sweep as sweeps
    from purejaxrl_sac.experiment.tuning import sweep_plan

    planned = {
        name: getattr(options, name)
        for name in ("seeds", "seed", "chunks", "episodes", "fresh_seeds")
    }
    points = requested_points(options)
    arguments = options.running.run_arguments(options.parallel())
    plan = sweep_plan.plan(options.config, points, **planned)
    out = output_directory(options, "sweep-")
    arguments |= options.running.engine_arguments(plan)
    arguments["measure"] = measures(options.measure)
    notes = [preset_note(options.config), sweep_plan.compilation_note(plan)]
    print_notes(options.running, notes)
    print_result(options.running, sweeps.start(out, plan, **arguments))


def requested_points(options: SweepOptions) -> list[Point]:
    """The points of `--grid` and `--range`.

    Raises:
        ConfigError: they cannot be parsed, or a flag of `--range` is given without it.
    """
    from purejaxrl_sac.experiment.tuning import points

    axes = _fields(options.config, options.grid, "grid", "VALUE,VALUE")
    ranges = _fields(options.config, options.range, "range", "LOW:HIGH")
    if not axes and not ranges:
        raise ConfigError("a sweep needs --grid FIELD=VALUE,VALUE or --range FIELD=LOW:HIGH")
    if both := axes.keys() & ranges.keys():
        raise ConfigError(f"{both.pop()} is in --grid and in --range: give it once")
    grid = points.grid(**{name: text.split(",") for name, text in axes.items()})
    if not ranges:
        for name in ("points", "sample"):
            if getattr(options, name) != getattr(SweepOptions, name):
                raise ConfigError(f"--{name} is for --range, which is not given: remove it")
        return grid
    draw = {"sobol": points.sobol, "random": points.random}[options.sample]
    cube = draw(options.points, len(ranges), options.seed % 2**32)
    points.check_count(len(grid) * len(cube))
    bounds = bounds_of(type(options.config))
    scales = {name: _scale(name, x, bounds.get(name)) for name, x in ranges.items()}
    samples = points.sampled(cube, **scales)
    return [point | sample for point in grid for sample in samples]


def print_notes(options: RunOptions, notes: Sequence[str]) -> None:
    """Print the notes that are not '', for people."""
    for note in notes:
        if note and not (options.json or options.quiet):
            Console().print(note, soft_wrap=True)


def print_result(options: RunOptions, result: SweepResult) -> None:
    """Print the table of a finished sweep."""
    from purejaxrl_sac.experiment.devices import processes
    from purejaxrl_sac.experiment.runs import display, plans
    from purejaxrl_sac.experiment.tuning import sweep_results

    figures = sweep_results.summary_rows(result)
    if not processes.is_first():
        return
    if options.json:
        display.JsonReporter().on_finished("", {"figures": figures}, result.path)
        return
    title = f"sweep of {plans.title(result.sweep.config)}"
    display.print_results(Console(), title, figures, result.path)


def _fields(config: Config, words: Sequence[str], flag: str, value: str) -> dict[str, str]:
    """`assignments` to fields, whose names have underscores.

    Raises:
        ConfigError: as for `assignments`, or a field has the name that it has in other libraries.
    """
    from purejaxrl_sac.experiment.tuning import points

    found = assignments(words, flag, value, clean=lambda name: name.replace("-", "_"))
    swept = {field.name for field in dataclasses.fields(config)} - points.NOT_SWEPT
    for name in found.keys() - swept:
        flag = SYNONYMS.get(f"--{name.replace('_', '-')}", "")
        field = flag.removeprefix("--").replace("-", "_")
        if field in swept:
            raise ConfigError(f"no hyperparameter is called {name}: did you mean {field}?")
    return found


def _scale(name: str, text: str, bounds: Bounds | None) -> Scale:
    """The distribution of LOW:HIGH or LOW:HIGH:linear.

    Raises:
        ConfigError: it is not of this form, or leaves the bounds of its field.
    """
    from purejaxrl_sac.experiment.tuning import points

    ends, linear = text.removesuffix(":linear"), text.endswith(":linear")
    try:
        low, high = map(float, ends.split(":"))
    except ValueError:
        raise ConfigError(
            f"--range takes {name}=LOW:HIGH or {name}=LOW:HIGH:linear, not {name}={text}"
        ) from None
    try:
        scale = points.uniform(low, high) if linear else points.log_uniform(low, high)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if bounds and bounds.kind in (int, float):
        closed = bounds._replace(below=math.inf)  # the end itself is never drawn
        for end, verb, limits in ((low, "starts", bounds), (high, "ends", closed)):
            value = round(end) if bounds.kind is int else end
            if violated := limits.violated(value):
                raise ConfigError(f"{name}={text} {verb} at {end:g}, but must be {violated}")
    return scale


def resume(options: ResumeOptions) -> None:
    """Resume a run or a sweep, or extend a run."""
    from purejaxrl_sac.experiment.runs import files, lifecycle, record
    from purejaxrl_sac.experiment.runs.directory import RunDirectory, lanes_of
    from purejaxrl_sac.experiment.tuning import sweep as sweeps
    from purejaxrl_sac.experiment.tuning import sweep_plan

    if files.exists(options.run / "sweep.json"):
        if options.steps is not None:
            raise ConfigError("a sweep cannot be extended: resume it without --steps")
        document = sweep_plan.read_document(options.run)
        arguments = options.run_arguments(len(document["points"]) * document["seeds"])
        plan = sweep_plan.read(options.run, record.Given(**options.code()))
        arguments |= options.engine_arguments(plan)
        given = measures(options.measure) or None
        arguments["measure"] = sweep_plan.read_measures(options.run, given, options.trust)
        print_notes(options, [sweep_plan.compilation_note(plan)])
        arguments["any_version"] = options.any_version
        print_result(options, sweeps.train_remaining(options.run, plan, **arguments))
        return
    if options.engine != "here" or options.lanes is not None:
        raise ConfigError("--engine and --lanes are for sweeps")
    arguments = options.run_arguments(lanes_of(RunDirectory.find(options.run).read_document()))
    arguments |= options.code() | {"steps": options.steps, "any_version": options.any_version}
    arguments["measure"] = measures(options.measure) or None
    lifecycle.resume(options.run, **arguments)
