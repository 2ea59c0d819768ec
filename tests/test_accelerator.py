"""Counts and checks of `scripts/accelerator.py`; bounds on compiled programs need an extra."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.train import build
from scripts import accelerator, hlo, record, targets
from scripts.accelerators import checking, compiling, fitting, measuring, plan, report, tables
from scripts.accelerators.work import Work, main_works, programs

# (target, work, kind, seeds) -> (figure, upper bound)
BOUNDS = {
    ("h100", "dqn:CartPole-v1", "one update", 64): ("kernels", 38),
    ("h100", "sac:Pendulum-v1", "one update", 64): ("kernels", 76),
    ("h100", "pqn:Breakout-MinAtar", "preset", 8): ("per_update", 44),
    ("v5e", "dqn:Breakout-MinAtar", "preset", 8): ("temp_bytes", 1e6),
    ("v5e", "sac:Pendulum-v1", "preset", 8): ("temp_bytes", 1e6),
    ("v5e", "pqn:Breakout-MinAtar", "preset", 8): ("temp_bytes", 620e6),
}
SCRIPT = Path(accelerator.__file__)

PROGRAM = """HloModule jit_run, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %add.9 = f32[4]{0} add(%p, %p)
}

%learn (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%arg), index=1
  %slice = f32[4]{0} fusion(%x), calls=%fused, metadata={op_name="jit(run)/while/body/while/body"}
  %dot = (f32[4]{0}, s8[/*index=1*/128]{0}) custom-call(%slice), metadata={op_name="jit(run)/while/body/while/body/update/dot_general"}
  %grad = f32[4]{0} fusion(%x), calls=%fused, metadata={op_name="jit(run)/while/body/while/body/update/mul"}
  ROOT %out = (s32[], f32[4]{0}) tuple(%x, %grad)
}

%learn_cond (arg: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] fusion(%arg), calls=%fused
}

%leave (arg: f32[4]) -> f32[4] {
  %arg = f32[4]{0} parameter(0)
  ROOT %copy.1 = f32[4]{0} copy(%arg)
}

%make (arg: f32[4]) -> f32[4] {
  %arg = f32[4]{0} parameter(0)
  %copy.2 = f32[4]{0} copy(%arg)
  ROOT %f = f32[4]{0} fusion(%copy.2), calls=%fused, metadata={op_name="jit(run)/while/body/cond"}
}

%iterate (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg = (s32[], f32[4]{0}) parameter(0)
  %step = f32[4]{0} fusion(%arg), calls=%fused, metadata={op_name="jit(run)/while/body/vmap(environment_step)/add"}
  %write = f32[4]{0} fusion(%step), calls=%fused, metadata={op_name="jit(run)/while/body/dynamic_update_slice"}
  %done.0 = f32[4]{0} copy-start(%write)
  %done.1 = f32[4]{0} copy-done(%done.0)
  %tuple.3 = (s32[], f32[4]{0}) tuple(%done.1)
  %while.2 = (s32[], /*index=1*/f32[4]{0}) while(%tuple.3), condition=%learn_cond, body=%learn, backend_config={"known_trip_count":{"n":"5"}}
  %cond.1 = f32[4]{0} conditional(%p, %write, %write), branch_computations={%leave, %make}
  ROOT %out = (s32[], f32[4]{0}) tuple(%cond.1)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %copy.7 = f32[4]{0} copy(%a)
  %while.1 = (s32[], f32[4]{0}) while(%copy.7), condition=%learn_cond, body=%iterate, backend_config={"known_trip_count":{"n":"20"}}
  ROOT %b = f32[4]{0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_kernels_of_an_iteration_are_counted():
    program = hlo.launches(PROGRAM)
    loop = hlo.iteration(program, 20)
    # step, write, copy, conditional with a copy and a fusion inside; the inner loop is 5 x 3
    assert loop.total == 6 + 5 * 3
    assert program.total == 1 + 20 * 21
    assert loop.every_copy == 2
    assert loop.branches == [(2, 1)]
    (learn,) = loop.loops
    assert learn.trips == 5 and learn.opcodes() == {"fusion": 2, "custom-call": 1}


def test_kernels_are_attributed_to_scopes():
    loop = hlo.iteration(hlo.launches(PROGRAM))
    counts = hlo.by_scope(loop, ("update", "environment_step"))
    assert counts == {"update": 15, "environment_step": 1, "": 5}


def test_kernels_of_inlined_loops_are_found_by_name():
    text = PROGRAM.replace('"5"', '"1"').replace("body=%learn,", "body=%leave,")
    counts = hlo.by_scope(hlo.iteration(hlo.launches(text)), ("update", "environment_step"))
    assert counts == {"environment_step": 1, "": 6}


def test_text_without_a_program_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.launches("HloModule nothing")
    with pytest.raises(ValueError, match="no loop of 7"):
        hlo.iteration(hlo.launches(PROGRAM), 7)


def row(seeds, us, kernels, **changes):
    work = {"algorithm": "dqn", "environment": "CartPole-v1", "kind": "preset", "seeds": seeds}
    steps = round(seeds * 1e6 / us)
    figures = {"us_per_iteration": us, "us_per_kernel": us / kernels, "steps_per_second": steps}
    stamp = {**record.stamp("curve", "card"), "flags": ""}
    return {**stamp, **work, **figures, "kernels": kernels, **changes}


def test_the_fit_separates_kernels_from_seeds():
    rows = [row(1, 100.0, 50), row(8, 120.0, 60), row(256, 300.0, 50), row(1024, 1068.0, 50)]
    rows.append(row(8, 900.0, 50, flags="--slow"))
    fit = fitting.fit(rows)
    assert fit["us_per_kernel"] == 2 and fit["relative_error"] == 0 and fit["rows"] == 2
    assert fit["knees"] == {"dqn:CartPole-v1:preset": 256}
    assert fit["us_per_seed"] == {"dqn:CartPole-v1:preset": 1.0}
    alone = fitting.fit(rows[:1])
    assert alone["us_per_seed"] == {"dqn:CartPole-v1:preset": 100.0}
    assert fitting.predicted(fit, row(8, 0.1, 70)) == 140
    assert fitting.predicted(fit, row(1024, 0.1, 70)) == 1024


@pytest.mark.parametrize("changes", ({}, {"code": "another"}), ids=("fresh", "stale"))
def test_all_figures_of_the_page_have_versions_and_marks(changes):
    time = {name: {"us": 1.0, "kernels": 1} for name in ("plain", "fused 128x8", "fused 64x4")}
    figures = {"state_bytes": 1, "temp_bytes": 1, "bytes_per_seed": 1, "compile_seconds": 1.0}
    curves = [row(1, 100.0, 50) | figures, row(500, 100.0, 50) | plan.WORK | figures]
    compiled = {**curves[1], "what": "compile", "device": "v5e", "bytes_moved": 1.0}
    distance = {"what": "fused distance", "fused highest / plain highest": 0.1}
    rows = [*curves, compiled, {**curves[0], **distance}, {**curves[0], "what": "fused time"}]
    rows = [{**each, **time, **changes} for each in rows]
    page = report.render([*rows, fitting.fit(rows)])
    shown = prl.__version__ + " †" * bool(changes)
    assert f"Cost model ({shown}): " in page and f"* **Measured** ({shown}), " in page
    assert f"of their change ({shown})." in page and f"(compiled with {shown})" in page
    assert f"|       1 | {shown} |" in page  # of the fused update


def test_a_fit_is_of_what_is_measured_here(tmp_path):
    path, here = tmp_path / "rows.jsonl", {"device": jax.devices()[0].device_kind}
    options = measuring.Measure(stages=("fit",), record=path)
    others = [row(1, 100.0, 50), row(1, 100.0, 50, **here, version="0.6.0")]
    for each in [*others, row(1, 100.0, 50, **here, code="another")]:
        record.append(path, each)
    measuring.measure(options)
    assert len(record.rows(path)) == 3
    record.append(path, row(1, 300.0, 50, **here))
    for _ in range(2):  # the second time it is recorded
        measuring.measure(options)
    (found,) = record.rows(path)[4:]
    assert found["us_per_kernel"] == 6 and found["version"] == prl.__version__
    old = {**found, "version": "0.6.0"}
    assert fitting.newest([found, old]) is found and fitting.newest([]) is None


@pytest.mark.parametrize("text", ("nan", "0", "many"))
def test_a_time_limit_is_a_positive_number(text, capsys):
    with pytest.raises(SystemExit):
        accelerator.main(["measure", "--minutes", text])
    assert f"{text} is not a positive number" in capsys.readouterr().err


def test_recorded_rows_and_errors_are_shown(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    rows = [row(1, 100.0, 50), row(8, 120.0, 60), row(64, 1.0, 1, error="too large [sic]")]
    for each in [*rows, fitting.fit(rows)]:
        record.append(path, each)
    assert record.recorded(path, rows[0]) and not record.recorded(path, row(2, 1.0, 1))
    assert accelerator.main(["table", "--record", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 µs per kernel" in shown and "too large [sic]" in shown


def test_default_works_include_every_algorithm():
    works = main_works()
    assert len(works) == 2 + len(prl.agents.ALGORITHMS)
    assert Work("sac", "Pendulum-v1", "preset", 64) in works


@pytest.mark.parametrize("algorithm", ["ppo", "q_learning", "td3"])
def test_one_update_means_one_update_per_iteration(algorithm):
    (work,) = (w for w in main_works(2) if w.algorithm == algorithm)
    work = dataclasses.replace(work, kind="one update")
    config = work.config()
    assert config.steps_per_iteration == config.num_updates == 1
    _, _, keys, state = programs(work)
    assert keys.shape == state.key.shape == (2,)


@pytest.mark.parametrize("kind", ["one update", "preset"])
def test_rows_depend_on_the_presets_that_they_measure(kind):
    """One update has the default configuration, so that another preset does not make it stale."""
    work = Work("dqn", "CartPole-v1", kind)
    default = prl.default_config("dqn")
    assert (work.config().tau == default.tau) == (kind == "one update")
    depends = work.stamp("curve", "card")["depends"]
    assert ("preset" in depends) == (kind == "preset") and "agents.dqn" in depends


ERRORS = {
    "compile dqn --target z9": "no target is called z9: use one of h100, v5e",
    "compile dqn --target h100": 'pip install "purejaxrl_sac[cuda12]"',
    "compile dqn --target v5e": 'pip install "purejaxrl_sac[tpu]"',
    "compile dqn": "no compiler for accelerators is installed",
    "compile dqm": "did you mean dqn?",
    "compile dqn:CartPole": "did you mean CartPole-v1?",
    "compile dqn --kind all": "no kind is called all",
    "compile dqn --peer sb3": "no peer is called sb3",
    "compile dqn --seeds 0": "seeds is 0",
    "measure --works dqn:64": "write algorithm:environment:kind:seeds",
    "check --algorithms dqm": "did you mean dqn?",
}


@pytest.mark.parametrize("command", ERRORS)
def test_bad_input_is_reported_in_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(targets.Target, "installed", False)
    path = tmp_path / "rows.jsonl"
    assert accelerator.main([*command.split(), "--record", str(path)]) == 2
    message = capsys.readouterr().err
    assert ERRORS[command] in message and message.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize("command", ["", "compare", "measure --minutes soon", "table --fast"])
def test_bad_usage_is_reported_in_one_line(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        accelerator.main(command.split())
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failed_compilation_is_recorded_and_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(targets, "compiled", lambda *_, **__: 1 / 0)
    options = compiling.Compile(record=tmp_path / "rows.jsonl")
    works = [Work("sac", "CartPole-v1"), Work("q_learning", "frozen_lake")]
    assert compiling.compile_for(targets.find("h100"), works, options) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (written,) = record.rows(options.record)
    assert written["error"] == "ZeroDivisionError: division by zero"


def test_a_crash_of_the_compiler_is_recorded(tmp_path, monkeypatch):
    record.commit()  # runs git
    codes = iter((-6, 0))
    run = lambda command, **_: subprocess.CompletedProcess(command, next(codes))  # noqa: E731
    monkeypatch.setattr(subprocess, "run", run)
    options = compiling.Compile(record=tmp_path / "rows.jsonl")
    works = [Work("dqn", "CartPole-v1"), Work("sac", "Pendulum-v1")]
    assert compiling.compile_apart(targets.find("h100"), works, options, []) == 0
    (written,) = record.rows(options.record)
    assert written["algorithm"] == "dqn" and written["error"].endswith("signal 6")


def test_a_peer_is_compiled_for_its_own_works_alone(monkeypatch):
    monkeypatch.setattr(targets.Target, "installed", True)
    with pytest.raises(prl.ConfigError, match="rejax is compared on dqn:CartPole-v1 and sac"):
        compiling.compile_(compiling.Compile(works=("pqn",), peer="rejax"), [])
    with pytest.raises(prl.ConfigError, match="rejax is compiled for GPUs"):
        compiling.compile_(compiling.Compile(works=("dqn",), peer="rejax", targets=("v5e",)), [])


def test_check_passes_on_a_cpu(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    command = ["check", "--algorithms", "q_learning", "--record", str(path)]
    assert accelerator.main(command) == 0
    (found,) = record.rows(path)
    assert found["passed"] and found["difference"] == 0
    assert found["continues"] and found["exports"] and found["seeds_differ"]
    assert "q_learning cliff_walking" in capsys.readouterr().out


def test_rows_are_recorded_where_an_option_says(tmp_path, monkeypatch, capsys):
    default = tmp_path / "rows.jsonl"
    monkeypatch.setattr(record, "ACCELERATOR", default)
    measured = lambda options: record.append(options.record, row(1, 100.0, 50))  # noqa: E731
    monkeypatch.setattr(measuring, "measure", measured)
    assert accelerator.main(["measure"]) == 0
    assert "dqn CartPole-v1, preset" in capsys.readouterr().out and not default.exists()
    assert accelerator.main(["measure", "--record", str(default)]) == 0
    assert len(record.rows(default)) == 1
    with pytest.raises(SystemExit):
        accelerator.main(["measure", "--record", str(tmp_path)])
    assert "is a folder: pass a file" in capsys.readouterr().err


def test_works_are_measured_on_a_cpu(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    command = ["measure", "--works", "q_learning:FrozenLake-misc:preset:2", "--rounds", "2"]
    command += ["--stages", "curve", "profile", "--record", str(path)]
    assert accelerator.main(command) == 0
    curve, profile = record.rows(path)
    assert (curve["what"], profile["what"]) == ("curve", "profile")
    assert not {"error"} & (curve.keys() | profile.keys())
    low, high = curve["us_range"]
    assert 0 < low <= curve["us_per_iteration"] <= high
    assert curve["steps_per_second"] == pytest.approx(2e6 / curve["us_per_iteration"], rel=0.01)
    assert profile["wall_us"] > 0
    assert accelerator.main(command) == 0
    assert len(record.rows(path)) == 2  # what is recorded is skipped


def test_all_works_can_be_built():
    for work in (*main_works(), *measuring.CURVE, *measuring.FLAGGED):
        build(work.config())


def test_check_detects_differences():
    _, start = checking.started(checking.small("q_learning"), jax.devices()[0])
    there = checking.to_device(checking.to_host(start), jax.devices()[0])
    assert checking.same_bits(start, there)
    q = start.agent.q.at[:, 0, 0, 0].set(1.0)
    moved = start._replace(agent=start.agent._replace(q=q))
    further = start._replace(agent=start.agent._replace(q=q.at[0, 0, 0, 0].set(1.5)))
    assert not checking.same_bits(start, moved)
    np.testing.assert_allclose(checking.difference(further, moved, start), 0.5)
    with pytest.raises(ValueError, match="did not move"):
        checking.difference(start, start, start)
    nudged = checking.nudge(moved)
    assert 0 < checking.difference(nudged, moved, start) < 1e-6


@pytest.mark.accelerator
@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: "-".join(map(str, case)))
def test_compiled_programs_stay_within_their_bounds(case, tmp_path):
    target, work, kind, seeds = case
    figure, most = BOUNDS[case]
    if not targets.find(target).installed:
        pytest.skip(f"compiling for {target} needs the extra {targets.find(target).extra}")
    path = tmp_path / "rows.jsonl"
    command = [sys.executable, SCRIPT, "compile", work, "--kind", kind, "--seeds", str(seeds)]
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, sys.path))
    subprocess.run(
        [*command, "--target", target, "--record", path], env=environment, check=True, timeout=900
    )
    (found,) = record.rows(path)
    assert found[figure] <= most, json.dumps(found)


def test_tables_of_no_rows_are_empty():
    assert list(tables.compiled([])) == list(tables.measured([])) == list(tables.checked([])) == []


def test_versions_are_compared_on_the_same_work_and_device():
    work = {"algorithm": "dqn", "environment": "CartPole-v1", "kind": "preset", "flags": ""}
    old = {"what": "curve", "device": "card", "seeds": 8, "version": report.BASE, **work}
    new = {**old, "version": "0.6.1"}
    assert report.before([{**old, "seeds": 1}, old, new], new) is old
    assert report.before([{**old, "device": "other"}], new) == {}
    assert report.of_version([old, new], "curve") == [new]
