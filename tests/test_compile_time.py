"""What a run waits for before it trains, and the rows of `scripts/benchmark_compile.py`."""

import json
import sys
import threading
import time
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import purejaxrl_sac as prl
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, plans
from scripts import benchmark_compile, benchmark_start, hlo, phases, record
from tests.conftest import FULL_COMPILATION, quick, small

PHASES = ("trace", "lower", "compile")


def program(seconds, cpu_seconds, instructions=1):
    """Figures of a program, a third of all seconds in each phase."""
    figures = {f"{phase}_s": seconds / 3 for phase in PHASES}
    figures |= {f"{phase}_cpu_s": cpu_seconds / 3 for phase in PHASES}
    return {**figures, "instructions": instructions}


def row(programs, version="0.8.0", **changes):
    work = {"algorithm": "dqn", "environment": "CartPole-v1", "kind": "preset", "seeds": 8}
    stamp = {"what": "compile time", "device": "cpu", "jax": "0.10.2", "flags": ""}
    return {**stamp, **work, "version": version, "programs": programs, **changes}


def test_rounds_are_reduced_to_medians():
    answers = [{"device": "cpu", "programs": {"init": {"trace_s": x}}} for x in (5.0, 1.0, 2.0)]
    found = benchmark_compile.medians(answers)
    assert found == {"device": "cpu", "programs": {"init": {"trace_s": 2.0}}, "rounds": 3}


def test_tables_show_the_newest_row_and_compare_all_programs_with_the_peer():
    own = {"init": program(3, 6), "chunk": program(6, 12, 1234), "evaluation": program(0, 3)}
    old = row({name: program(9, 9) for name in own}, version="0.7.0")
    peer = row({"training": program(12, 14)}, version="0.1.3", library="rejax 0.1.3", jax="0.9.0")
    alone = row({"training": program(1, 1)}, library="rejax 0.1.3", algorithm="sac")
    page = benchmark_compile.render([old, peer, row(own), alone, row({}, what="curve")])
    lines = [" ".join(x.split()) for x in page.splitlines() if x.startswith("| dqn")]
    assert lines == [
        "| dqn CartPole-v1 | 8 | 4.0 | 2.0 | 8.0 | 4.0 | 2.0 | 1.0 | 0.50 | 21.0 | 9.0"
        " | 1 | 1,234 | 1 |",
        "| dqn CartPole-v1 | 8 | 21.0 | 14.0 | 1.50 | 9.0 | 12.0 | 0.75"
        " | rejax 0.1.3, jax 0.9.0 | 0.8.0, jax 0.10.2 |",
    ]
    assert "| sac" not in page  # there is nothing to compare it with


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--algorithms dqm", "did you mean dqn?"),
        ("--table page.md", "no rows are recorded"),
    ],
)
def test_bad_input_is_reported_in_one_line(arguments, message, tmp_path, capsys):
    command = [*arguments.split(), "--record", str(tmp_path / "rows.jsonl")]
    assert benchmark_compile.main(command) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_recorded_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_compile, "RECORD", tmp_path / "rows.jsonl")
    monkeypatch.setattr(
        benchmark_compile, "in_new_process", lambda *_: {"programs": {}, "device": "cpu"}
    )
    monkeypatch.setattr(benchmark_compile, "render", lambda rows: "")
    assert benchmark_compile.main(["--algorithms", "dqn", "--seeds", "1"]) == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        benchmark_compile.main(["--record", str(tmp_path)])
    assert "is a folder: pass a file" in capsys.readouterr().err


def test_a_program_is_measured_in_phases():
    figures = phases.measured(jax.jit(lambda x: jnp.sin(x) + 1), jnp.zeros(3))
    names = {f"{phase}_{unit}" for phase in PHASES for unit in ("s", "cpu_s")}
    assert figures.keys() == names | {"instructions"}
    assert min(figures.values()) >= 0 and figures["compile_s"] > 0


def command(path, monkeypatch, events, status=0):
    """Let a script that prints events, a quarter of a second before each, take Python's place."""
    lines = "".join(f"sleep 0.25; echo '{json.dumps(event)}'\n" for event in events)
    path.write_text(f"#!/bin/sh\n{lines}exit {status}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_start_is_measured_to_the_first_chunk(tmp_path, monkeypatch, capsys):
    chunk, done = {"event": "chunk"}, {"event": "finished", "figures": {"training": "100.0 s"}}
    command(tmp_path / "train", monkeypatch, [{"event": "compiled"}, chunk, chunk, done])
    found = benchmark_start.measure("dqn", "CartPole-v1", 8, 1)
    for figures in (found["empty"], found["full"]):
        total = figures["besides"] + 100
        assert figures["first"] >= 0.5 and 0.48 <= total - figures["first"] < 50
    command(tmp_path / "train", monkeypatch, [chunk], 2)
    with pytest.raises(ConfigError, match=r"status 2 of: .* train dqn --env CartPole-v1"):
        benchmark_start.measure("dqn", "CartPole-v1", 8, 1)
    assert benchmark_start.main(["--algorithms", "dqm"]) == 2
    assert capsys.readouterr().err.strip().endswith("did you mean dqn?")


def test_rows_depend_on_the_preset_and_on_the_command_line(tmp_path, monkeypatch):
    path, figures = tmp_path / "rows.jsonl", {"programs": {}, "device": "cpu"}
    monkeypatch.setattr(benchmark_start, "measure", lambda *_: {})
    monkeypatch.setattr(benchmark_compile, "in_new_process", lambda *_: figures)
    monkeypatch.setattr(benchmark_compile, "render", lambda rows: "")
    for script in (benchmark_start, benchmark_compile):
        assert script.main(["--algorithms", "dqn", "--seeds", "1", "--record", str(path)]) == 0
    start, compiling = record.rows(path)
    assert {"preset", "cli"} <= set(start["depends"]) and "preset" in compiling["depends"]
    assert not record.stale(start) and not record.stale(compiling)


def test_instructions_of_all_computations_are_counted():
    text = """HloModule jit_f, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %add.9 = f32[4]{0} add(%p, %p)
}

ENTRY %main (x: f32[4]) -> (f32[4]) {
  %x = f32[4]{0} parameter(0)
  %f = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %out = (f32[4]{0}) tuple(%f)
}
"""
    assert hlo.instructions(text) == 5


def waiting(program, event):
    """A program whose compilation, but not its tracing, waits for an event."""

    def lower(*arguments):
        lowered = program.function.lower(*arguments)
        return SimpleNamespace(compile=lambda: event.wait(60) and lowered.compile())

    return program._replace(function=SimpleNamespace(lower=lower))


@pytest.mark.parametrize("algorithm", quick(("dqn", "sac"), "sac"))
def test_init_is_compiled_with_less_optimisation_to_the_same_state(algorithm, monkeypatch):
    jit, options = jax.jit, []

    def recorded(function, **given):
        options.append(given.get("compiler_options"))
        return jit(function, **given)

    monkeypatch.setattr(jax, "jit", recorded)
    plan, mesh = plans.plan(small(algorithm), 2), mesh_for(2)
    first, _ = engine.training_programs(plan, mesh, (1,))
    assert [x for x in options if x] == [{"xla_backend_optimization_level": 1}]
    arguments = engine.fill(plan.keys().train, 2, mesh), first.arguments[1]
    less, full = (first.lower().compile(x)(*arguments) for x in (None, FULL_COMPILATION))
    chex.assert_trees_all_equal(jax.tree.map(data, less), jax.tree.map(data, full))


@pytest.mark.parametrize(("lanes", "devices"), ((2, 2), (3, 2), (3, 1)))
def test_no_keys_are_made_before_the_programs_are_traced(lanes, devices, monkeypatch):
    """The program of the keys would be compiled first; shapes and shardings are those of keys."""
    plan, mesh = plans.plan(small("q_learning"), lanes), mesh_for(lanes, devices)
    keys = engine.fill(plan.keys(), lanes, mesh).train
    monkeypatch.setattr(engine, "fill", None)
    first, chunks = engine.training_programs(plan, mesh, (1,))
    for given in (first.arguments[0], chunks[1].arguments[2]):
        assert (given.shape, given.dtype, given.sharding) == (
            keys.shape,
            keys.dtype,
            keys.sharding,
        )


def data(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize("devices", [1, 2])
def test_init_is_traced_once_for_its_shapes_and_its_program(devices, monkeypatch):
    traced = []

    def counted(key, config):
        traced.append(config)
        return prl.init(key, config)

    monkeypatch.setattr(engine, "_init", jax.jit(counted, inline=True))
    plan = plans.plan(small("q_learning"), 4)
    mesh = mesh_for(plan.lanes, devices)
    resources.check_state(plan, mesh)
    assert len(traced) == 1
    first, chunks = engine.training_programs(plan, mesh, [1])
    out = jax.tree.map(lambda x: (x.shape, x.dtype), first.lower().out_info)
    assert len(traced) == 1
    like = engine.shapes(plan, mesh)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == out
    held = chunks[1].function.lower(*chunks[1].arguments).in_avals[0][0]
    chex.assert_trees_all_equal_shapes_and_dtypes(held, like)


def test_training_does_not_wait_for_the_final_evaluation(monkeypatch):
    plan, mesh = plans.plan(small("q_learning"), 2, chunks=2, episodes=3), mesh_for(2)
    needed, program = threading.Event(), engine.evaluation_program
    monkeypatch.setattr(
        engine, "evaluation_program", lambda *x, **y: waiting(program(*x, **y), needed)
    )
    programs = engine.compile_run(plan, mesh=mesh, evaluated=True)
    state = engine.initial_state(plan, programs)
    assert not programs.evaluation.done()
    needed.set()
    found = engine.final_evaluation(plan, state, programs)
    monkeypatch.undo()
    keys = plan.keys().final_evaluation
    expected = engine.evaluate_lanes(keys, plan, state, plan.episodes, mesh=mesh)
    np.testing.assert_array_equal(found, expected)


def test_the_final_evaluation_is_compiled_after_the_programs_of_training(monkeypatch):
    plan, order = plans.plan(small("q_learning"), 2, chunks=2, episodes=3), []

    def noted(program, name, seconds=0.0):
        def lower(*arguments):
            lowered = program.function.lower(*arguments)

            def compile():
                time.sleep(seconds)
                order.append(name)
                return lowered.compile()

            return SimpleNamespace(compile=compile)

        return program._replace(function=SimpleNamespace(lower=lower))

    training, evaluation = engine.training_programs, engine.evaluation_program

    def slow(*arguments):
        init, chunks = training(*arguments)
        return init, {n: noted(x, "training", 0.2) for n, x in chunks.items()}

    monkeypatch.setattr(engine, "training_programs", slow)
    monkeypatch.setattr(
        engine, "evaluation_program", lambda *x, **y: noted(evaluation(*x, **y), "evaluation")
    )
    engine.compile_run(plan, evaluated=True).evaluation.result()
    assert order[-1] == "evaluation" and order.count("training") == len(order) - 1 > 0


def test_programs_compile_side_by_side_and_pictures_are_imported_meanwhile(monkeypatch):
    """Each of two programs is compiled only after both have been traced and imports have begun."""
    plan = plans.plan(small("q_learning"), chunks=2)
    imported, programs = threading.Event(), engine.training_programs

    def waiting_programs(*arguments):
        init, chunks = programs(*arguments)
        return waiting(init, imported), {n: waiting(x, imported) for n, x in chunks.items()}

    monkeypatch.setattr(engine, "training_programs", waiting_programs)
    compiled = engine.compile_run(plan, meanwhile=imported.set)
    assert all(
        isinstance(x, jax.stages.Compiled) for x in (compiled.init, *compiled.chunks.values())
    )
    assert compiled.evaluation is None


@pytest.mark.parametrize("damage", (lambda data: data[:40], lambda data: data[:-9] + data[-8:]))
def test_a_damaged_entry_of_the_cache_is_compiled_again(damage, tmp_path):
    """It costs time and a warning, and never changes a result."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    x = jnp.linspace(0, 1, 7)

    def compiled():
        jax.clear_caches()
        compilation_cache.reset_cache()
        return np.asarray(jax.jit(lambda x: jnp.tanh(x) @ jnp.outer(x, x))(x))

    try:
        for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
            jax.config.update(name, value)
        first = compiled()
        entries = [path for path in tmp_path.iterdir() if path.name.endswith("-cache")]
        assert entries
        for path in entries:
            path.write_bytes(damage(path.read_bytes()))
        with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
            np.testing.assert_array_equal(compiled(), first)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
