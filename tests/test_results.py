"""Rows of figures: the code that they depend on, and how they are shown."""

import argparse
import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.runs import plans
from purejaxrl_sac.mdp import dynamic_programming as dp
from scripts import (
    benchmark_recurrent,
    benchmark_scale,
    benchmark_speed,
    benchmark_tabular,
    cells,
    classic_control,
    dependencies,
    options,
    phases,
    pictures,
    record,
    report,
    soak,
)
from scripts.pages import learning as learning_page
from scripts.pages import reliability, speed, tables, theory

SOURCES = {
    "__init__.py": "from purejaxrl_sac import a, b\n",
    "a.py": '"""Text."""\nfrom purejaxrl_sac.parts import c\nx = c.f  # a comment\n',
    "b.py": "y = 1\n",
    "parts/__init__.py": "",
    "parts/c.py": "def f():\n    '''Text.'''\n    from purejaxrl_sac.parts.d import g\n",
    "parts/d.py": "g = 1\nunused = 1\n",
    "cli/__init__.py": "z = 1\n",
}


CACHES = (
    *(dependencies._module, dependencies._next, dependencies._text),
    *(record._digest, record.core),
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that changes sources of a package and forgets what was read of it before."""
    root = tmp_path / "purejaxrl_sac"

    def write(**changes):
        for name, text in (
            SOURCES | {f"{x.replace('_', '/', 1)}.py": y for x, y in changes.items()}
        ).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for function in CACHES:
            function.cache_clear()

    monkeypatch.setattr(dependencies, "PACKAGE", root)
    write()
    yield write
    for function in CACHES:
        function.cache_clear()


def test_a_row_depends_on_all_that_its_modules_use(package):
    used = {("a", "x"), ("parts.c", "f"), ("parts.d", "g")}
    assert dependencies.reached([("a", "*")]) == used
    assert record.core() == ("a", "b", "parts", "parts.c", "parts.d")
    first = record.code(["a"])
    package(parts_d="g = 2\n")
    assert record.code(["a"]) != first
    package(parts_d="g = 1\nunused = 2\n", b="y = 2\n")
    assert record.code(["a"]) == first
    package(parts_d="g = 1\nprint(g)\n")  # what a module does when it is imported
    assert record.code(["a"]) != first
    package(b="y = 2\n")
    assert record.code(["core"]) != first


@pytest.mark.parametrize(
    "uses",
    [
        "from purejaxrl_sac.parts import d\nx = d.g\n",
        "from purejaxrl_sac.parts.d import g as h\nx = h\n",
        "import purejaxrl_sac.parts.d as d\nx = d.g\n",
        "def x():\n    from purejaxrl_sac.parts import d\n    return d.g\n",
        "from purejaxrl_sac.parts import exported\nx = exported\n",
        "from purejaxrl_sac.parts import d\nclass x:\n    y: d.g = 1\n",
    ],
)
def test_definitions_are_found_through_all_forms_of_imports(package, uses):
    package(a=uses, parts___init__="from purejaxrl_sac.parts.d import g as exported\n")
    assert ("parts.d", "g") in dependencies.reached([("a", "x")])
    assert ("parts.d", "unused") not in dependencies.reached([("a", "x")])
    with pytest.raises(KeyError, match="a:y"):
        dependencies.reached([("a", "y")])


def test_a_definition_depends_on_what_is_registered_with_it(package):
    rule = "def a(): pass\n@a.def_vmap\ndef rule(): pass\n@cache\ndef other(): pass\n"
    package(parts_c=f"from functools import cache\n{rule}")
    assert ("parts.c", "rule") in dependencies.reached([("parts.c", "a")])
    assert ("parts.c", "other") not in dependencies.reached([("parts.c", "cache")])


def test_a_package_depends_on_the_modules_that_it_imports(package):
    package(parts___init__="from purejaxrl_sac.parts import d\nx = d.g\n")
    assert ("parts.d", "g") in dependencies.reached([("parts", "*")])


def test_a_row_may_depend_on_a_script_and_on_gymnax(tmp_path, monkeypatch):
    first = {x: record.code([x]) for x in ("scripts.classic_control", "gymnax")}
    assert dependencies.modules([("scripts.classic_control", "*")]) == {"scripts.classic_control"}
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "classic_control.py").write_text("TASKS = {}\n")
    (tmp_path / "constraints.txt").write_text("gymnax==0\n")
    for module in (dependencies, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for function in CACHES:
        function.cache_clear()
    assert all(record.code([x]) != code for x, code in first.items())
    monkeypatch.undo()
    for function in CACHES:
        function.cache_clear()


def test_a_row_of_a_named_mdp_depends_on_its_builder(monkeypatch):
    def codes():
        for function in CACHES[1:]:
            function.cache_clear()
        names = ("chain", "taxi", "CartPole-v1")
        return [record.code(["envs"], environment=name) for name in names]

    first, read = codes(), dependencies._module
    named = read("mdp.named")
    other = named._replace(definitions={**named.definitions, "chain": named.definitions["taxi"]})
    monkeypatch.setattr(dependencies, "_module", lambda x: other if x == "mdp.named" else read(x))
    second = codes()
    monkeypatch.undo()
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True, True]
    assert codes() == first


def test_presets_of_others_are_not_code_of_a_row(package):
    uses = "from purejaxrl_sac import presets\ny = presets.x\n"
    package(presets="x = 1\n", a=uses)
    assert dependencies.modules([("a", "*")]) == {"a"}
    first = record.code(["a"])
    package(presets="x = 2\n", a=uses)
    assert record.code(["a"]) == first


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (SOURCES["a.py"].replace("Text.", "Other text."), True),
        (SOURCES["a.py"].replace("# a comment", ""), True),
        (SOURCES["a.py"].replace("x = c.f", "x  =  (c.f)"), True),
        (SOURCES["a.py"].replace("x = c.f", "x = c.f, 1"), False),
        (SOURCES["a.py"] + "if TYPE_CHECKING:\n    from purejaxrl_sac import b\n", True),
    ],
)
def test_comments_and_docstrings_are_not_code(package, text, same):
    first = record.code(["a"])
    package(a=text)
    assert (record.code(["a"]) == first) == same
    assert "b" not in dependencies.modules([("a", "*")])


def test_rows_are_stale_when_their_code_has_changed(package):
    row = record.stamp("speed", "cpu", ["a"]) | {"algorithm": "dqn"}
    assert not record.stale(row)
    package(parts_c="g = 1\n")
    assert record.stale(row)
    package()
    assert not record.stale(row)
    assert record.stale({name: x for name, x in row.items() if name != "depends"})
    assert record.stale(row | {"depends": ["moved"]})


def test_an_appended_row_has_the_digest_of_its_environment(tmp_path):
    path, names = tmp_path / "rows.jsonl", {"algorithm": "q_learning", "environment": "taxi"}
    stamp = record.stamp("tabular speed", "cpu", record.algorithm_modules("q_learning"))
    record.append(path, {**stamp, **names})
    assert record.stale(stamp | names)
    record.append(path, {**stamp, **names, "code": "of code before an edit"})
    assert [record.stale(row) for row in record.rows(path)] == [False, True]


@pytest.mark.parametrize(
    ("script", "words", "measured"),
    [
        (benchmark_speed, ["--algorithms", "dqn", "--buffers", "10"], "ours"),
        (benchmark_tabular, [], "Ours"),
        (benchmark_recurrent, ["--cells", "gru"], "continuing_timer"),
    ],
)
def test_a_row_is_of_the_code_that_was_measured(script, words, measured, tmp_path, monkeypatch):
    code = "before"

    def measure(*_):
        nonlocal code
        code = "after"
        once = (lambda: 1.0, 0.0)
        timers = {"ours": dict.fromkeys(("run", "environment", "update"), once)}
        run = SimpleNamespace(rate=lambda: 1.0, compile_s=0.0)
        return {**timers, "Ours": run, "continuing_timer": once}[measured]

    monkeypatch.setattr(record, "stamp", lambda what, *_, **__: {"what": what, "code": code})
    monkeypatch.setattr(script, measured, measure)
    monkeypatch.setattr(benchmark_tabular, "loop_rate", lambda: 1.0)
    monkeypatch.setattr(benchmark_recurrent, "state_of", lambda *_: (lambda keys: keys, 0))
    sizes = [] if script is benchmark_tabular else ["--seeds", "1"]
    sizes += ["--envs", "4"] if script is benchmark_recurrent else []
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr("sys.argv", ["script.py", *words, *sizes, "--record", str(path)])
    script.main()
    assert {row["code"] for row in record.rows(path)[:1]} == {"before"}


def test_the_version_is_not_code_of_a_row():
    assert ("", "__version__") not in dependencies.reached([("experiment.runs.lifecycle", "*")])


def test_algorithms_do_not_depend_on_each_other():
    modules = dependencies.modules((x, "*") for x in record.algorithm_modules("sac"))
    assert {"agents.sac", "train", "networks.continuous", "memory.replay"} <= modules
    assert not {"agents.dqn", "agents.td3", "presets", "experiment.runs.engine"} & modules


def test_only_the_preset_of_a_row_counts(monkeypatch):
    from purejaxrl_sac.presets import PRESETS

    def codes():
        record._digest.cache_clear()
        envs = ("CartPole-v1", "Acrobot-v1")
        return [record.code(["preset", "config"], "dqn", env) for env in envs]

    first = codes()
    changed = PRESETS["dqn", "CartPole-v1"] | {"tau": 0.5}
    monkeypatch.setitem(PRESETS, ("dqn", "CartPole-v1"), changed)
    second = codes()
    assert first[0] != second[0] and first[1] == second[1]
    record._digest.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--record", "--seeds", "3"],
        ["--record", "x.jsonl", "--seeds", "3"],
        ["--record", "x.txt", "--seeds", "3"],
        ["--directory", "x", "--seeds", "3", "--record=x.jsonl"],
        ["--seeds", "3", "--directory=x"],
        ["--seeds", "3"],
    ],
)
def test_a_command_is_what_repeats_a_row(arguments):
    argv = [str(record.ROOT / "scripts" / "benchmark_speed.py"), *arguments]
    assert record.command(argv) == "python scripts/benchmark_speed.py --seeds 3"


def test_kept_figures_are_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    keep = record.keeper(path, "theory", ["losses"])
    keep("a value", 1 / 3, 0.25, error=0.1)
    (row,) = record.rows(path)
    assert {
        "kind": "a value",
        "value": 0.333333,
        "expected": 0.25,
        "error": 0.1,
    }.items() <= row.items()
    record.keeper(None, "theory", ["losses"])("nothing is written", 1)
    path.write_text('{"what": 1}\nnot JSON\n')
    with pytest.raises(prl.ConfigError, match=r"line 2 of .* is not JSON"):
        record.rows(path)


def test_a_row_after_a_torn_line_is_a_line_of_its_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = '{"what": 2}\n'
    for before, after in (("", row), (row, row + row), ('{"wha', '{"wha\n' + row)):
        path.write_text(before)
        record.append(path, {"what": 2}, show=False)
        assert path.read_text() == after
    with pytest.raises(prl.ConfigError, match=r"line 1 of .* is not JSON: correct or remove"):
        record.rows(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (500, "500"), (498.9, "498.9"), (-142.95, "-142.95"), (0.7402, "0.7402"), (1578, "1,578"),
        (178_683, "178,683"), (70.0, "70"), (1, "1"), (0.058, "0.058"), (None, ""),
    ],
)  # fmt: skip
def test_figures_are_shown_with_their_digits(value, text):
    assert tables.number(value) == text


def test_stale_rows_are_marked_in_tables():
    fresh = record.stamp("speed", "cpu", ["losses"]) | {"value": 1.5, "range": [1, 2]}
    old = fresh | {"version": "0.1.0", "code": "another"}
    columns = {"µs": lambda row: tables.spread(row, "range")}
    text = tables.table([fresh, old], columns)
    assert text.splitlines()[2:] == [
        f"| 1.5 [1,{tables.SPACE}2] | {prl.__version__} |",
        f"| 1.5 [1,{tables.SPACE}2] | 0.1.0 † |",
    ]
    assert tables.marked(text) == (2, 1)
    text = tables.table([old, old], columns)
    assert "| version, all † |" in text and text.count("†") == 1
    assert tables.marked(f"Text.\n\n{text}\n\nText.\n\n{text}\n") == (4, 4)


def test_tables_have_columns_of_equal_widths():
    row = record.stamp("speed", "cpu", ["losses"]) | {"version": "0.1.0"}
    columns = {"name": lambda row: "`dqn`", "µs": lambda row: 1_000}
    assert tables.table([row], columns).splitlines() == [
        "| name  |   µs | version |",
        "|-------|-----:|----:|",
        "| `dqn` | 1000 | 0.1.0 |",
    ]


def test_notes_are_listed_once_below_a_table():
    rows = [{"version": "1", "note": text} for text in ("slow", "", "small", "slow")]
    columns = {"name": lambda row: "a"}
    text = tables.table(rows, columns, old=lambda row: False, notes=lambda row: row["note"])
    grid, below = text.split("\n\n")
    assert below.splitlines() == ["1. slow", "2. small"]
    names = [line.split("|")[1].strip() for line in grid.splitlines()[2:]]
    assert names == ["a <sup>1</sup>", "a", "a <sup>2</sup>", "a <sup>1</sup>"]


def test_a_limitation_concerns_an_algorithm_or_a_number_of_its_seeds(monkeypatch):
    texts = {"dqn A": "always", "dqn A seeds=1": "with one", "dqn B": "elsewhere"}
    monkeypatch.setitem(tables.LIMITATIONS, "speed", texts)
    cell = tables.limitation("speed")
    row = {"algorithm": "dqn", "environment": "A"}
    assert cell(row | {"seeds": 1}) == "always; with one"
    assert cell(row | {"seeds": 8}) == "always"
    assert cell(row | {"seeds": 8, "library": "another", "note": "its own"}) == "its own"


def learning(algorithm, environment, value, **changes):
    row = {"what": "learning", "algorithm": algorithm, "environment": environment, "value": value}
    row |= {"interval": [value - 50, value], "steps": 10, "root": 0, "seeds": 3, "version": "0.1.0"}
    return row | changes


def recorded(folder, monkeypatch, name, rows):
    """Replaces the recorded rows."""
    monkeypatch.setattr(record, "FOLDER", folder)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_work_is_one_row_of_the_page(tmp_path, monkeypatch):
    fresh = record.stamp("learning", "cpu", ["losses"])
    rows = [
        learning("dqn", "A", 100),
        learning("dqn", "A", 200, root=1, seeds=4),
        learning("dqn", "A", 300, changed={"tau": 1}),
        learning("dqn", "A", 400, changed={"tau": 1}, steps=20),
        learning("sac", "A", 150, **fresh),
        learning("sac", "A", 500),
        learning("random", "A", 1),
    ]
    recorded(tmp_path, monkeypatch, "learning", rows)
    found = learning_page.newest()
    assert [row["value"] for row in found] == [200, 150, 400, 300]  # the newest, fresh if any is
    assert [row["value"] for row in learning_page.best(found)] == [150]  # the only fresh preset


def test_goals_and_by_how_much_they_are_missed(monkeypatch):
    goals = {("dqn", "A"): cells.Goal(495, 450), ("dqn", "B"): cells.Goal(1)}
    monkeypatch.setattr(tables, "GOALS", goals)

    def shown(environment, value, worst, **changes):
        row = learning("dqn", environment, value, worst=worst, **changes)
        return tables.goal(row), tables.missed(row)

    assert shown("A", 490.5, 400) == ("495 (450)", "4.5 (50)")
    assert shown("A", 500, 400) == ("495 (450)", "(50)")
    assert shown("A", 500, 450) == ("495 (450)", "met")
    assert shown("B", 0.5, 0) == ("1", "0.5")
    assert shown("C", 0.5, 0) == shown("A", 1, 1, changed={"tau": 1}) == ("", "")


def test_recorded_works_are_shown_once():
    rows = learning_page.newest()
    shown = {
        (tables.algorithm(x), x["environment"], x["steps"], learning_page.limited(x)) for x in rows
    }
    assert len(shown) == len(rows) > 50


def test_recurrent_speeds_are_told_apart_by_their_device(tmp_path, monkeypatch):
    row = {"what": "recurrent speed", "algorithm": "recurrent_ppo", "environment": "CartPole-v1"}
    row |= {"cell": "gru", "num_envs": 4, "seeds": 1, "value": 1_000, "version": "0.1.0"}
    rows = [row | {"device": device} for device in ("1 x cpu, 1 core", "1 x cpu, 2 cores")]
    recorded(tmp_path, monkeypatch, "speed", rows)
    shown = "\n".join(speed.recurrent())
    assert all(row["device"] in shown for row in rows)


def test_reliability_is_told_in_words(tmp_path, monkeypatch):
    row = record.stamp("fuzz", "cpu", ["losses"]) | {"kind": "command lines", "faults": 0}
    counts = {"cases": 10, "refused": 7, "accepted": 3}
    rows = [row | counts | {"seed": seed} for seed in (0, 0, 1)]
    kill = record.stamp("kills", "cpu", ["losses"]) | {
        "kills": 5,
        "during the write of a picture": 2,
    }
    rows += [kill | {"kind": "sac", "value": 1}, kill | {"kind": "sweep", "value": 0}]
    recorded(tmp_path, monkeypatch, "reliability", rows)
    found = {line["done"]: (line["often"], line["wrong"]) for line in reliability.lines()}
    often = "5 kills, 2 of them while a file was written"
    assert found == {
        "killed (SIGKILL) at a random time and resumed: runs of `sac`": (
            often, "**1: difference from an uninterrupted run**",
        ),
        "killed (SIGKILL) at a random time and resumed: a sweep": (
            often, "no difference from an uninterrupted run",
        ),
        "random command lines": (
            "20: 6 accepted, 14 refused in one line", "no traceback or other fault",
        ),
    }  # fmt: skip


def test_versions_are_in_the_order_of_releases():
    rows = [{"version": version, "stale": False} for version in ("0.8.9", "0.8.10", "0.8.1")]
    assert reliability.line("", "", "", [*rows, rows[0]])["version"] == "0.8.1 to 0.8.10"


def test_the_first_page_counts_the_marked_rows():
    pages = report.paths_and_pages()
    lines = pages[report.PAGE].splitlines()
    topics = [line.split("|") for line in lines if line.startswith("| [")]
    total = [sum(int(x[i].replace(",", "")) for x in topics) for i in (3, 4)]
    text = f"Of {total[0]:,} rows on all pages, {total[1]:,} have it"
    assert text in pages[report.PAGE].replace("\n", " ")
    assert len(topics) == 7


def test_the_scoreboard_shows_shares_and_marks_stale_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    rows = [
        learning("random", "CartPole-v1", 100),
        learning("dqn", "CartPole-v1", 300),
        learning("dqn", "CartPole-v1", 400),
        learning("dqn", "CartPole-v1", 500, changed={"tau": 1}),
        learning("sac", "CartPole-v1", 500, library="other"),
        learning("sac", "unpublished", 500),
        learning("random", "without scores", 100),
        learning("sac", "without scores", 500),
    ]
    (tmp_path / "learning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setitem(pictures.PUBLISHED, "without scores", {"memory": True})
    (shown,) = pictures.scoreboard()  # the best published one has 500
    assert shown["algorithm"] == "dqn" and shown["share"] == [0.75, 0.625, 0.75] and shown["stale"]


def test_curves_have_axes_on_which_they_can_be_read():
    figure = pictures.draw_curves(pictures.curves())
    figure.canvas.draw()
    drawn = [axes for axes in figure.axes if axes.axison]
    assert {axes.get_xscale() for axes in drawn} == {"linear", "log"}
    scale = {axes.get_title(): axes.get_yscale() for axes in drawn}
    assert scale["Acrobot-v1"] == scale["Pendulum-v1 (1 of 2)"] == "symlog"
    assert scale["MountainCar-v0"] == scale["Catch-bsuite"] == "linear"
    for axes in drawn:
        low, high = axes.get_ylim()
        assert sum(low <= y <= high for y in axes.get_yticks()) >= 3, axes.get_title()
        assert low < min(min(line.get_ydata()) for line in axes.lines), axes.get_title()
        assert high > max(max(line.get_ydata()) for line in axes.lines), axes.get_title()
        low, high = axes.get_xlim()
        shown = [
            (x, label.get_window_extent())
            for minor in (False, True)
            for x, label in zip(
                axes.xaxis.get_ticklocs(minor=minor),
                axes.xaxis.get_ticklabels(minor=minor),
                strict=True,
            )
            if low <= x <= high and label.get_text()
        ]
        boxes = [box for _, box in sorted(shown, key=lambda pair: pair[0])]
        assert len(boxes) >= 2, axes.get_title()
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes)), axes.get_title()


def test_crowded_environments_have_several_panels_of_curves():
    names = ["sac", "dqn", "a2c", "c51", "ppo", "iqn"]
    rows = [{"algorithm": name, "environment": "A"} for name in names]
    panels = pictures.panels_of([*rows, {"algorithm": "sac", "environment": "B"}])
    shown = [(title, [row["algorithm"] for row in rows]) for title, rows in panels]
    assert shown == [
        ("A (1 of 2)", ["dqn", "c51", "iqn"]),
        ("A (2 of 2)", ["a2c", "ppo", "sac"]),
        ("B", ["sac"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--purejaxrl", "absent"], "absent is not a clone of PureJaxRL"),
        (["--target", "k9"], "no target is called k9"),
        (["--envs", "3"], "--envs is 3, but must be a multiple of 4"),
        (["--rounds", "0"], "argument --rounds: 0 is not a positive integer"),
    ],
)
def test_what_recurrent_speed_cannot_measure_is_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark_recurrent.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        benchmark_recurrent.main()
    assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["devices", "--seeds", "0"], ["--rounds", "0"], ["sweep", "--lanes", "0"],
        ["sweep", "--sequential", "0"], ["knee", "--iterations", "0"],
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_measured_are_one_line(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark_scale.py", *words])
    with pytest.raises(SystemExit) as stopped:
        benchmark_scale.main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1
    assert f"argument {words[-2]}: 0 is not a positive integer" in message


def test_a_soak_of_too_few_chunks_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(prl.experiment, "run", lambda *_, **__: None)
    monkeypatch.setattr("sys.argv", ["soak.py", "--minutes", "0.05"])
    with pytest.raises(SystemExit):
        soak.main()
    assert capsys.readouterr().err.startswith("--minutes is 0.05, too short for two chunks: raise")


@pytest.mark.parametrize(("cores", "text"), (({3}, "1 core"), ({0, 1}, "2 cores")))
def test_devices_are_named_with_the_cores_that_may_be_used(cores, text, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: cores, raising=False)
    assert phases.device() == f"{jax.device_count()} x cpu, {text}"


@pytest.mark.parametrize("text", ("10000", "10_000"))
def test_counts_are_written_as_in_python(text):
    assert options.count(text) == 10_000


@pytest.mark.parametrize("text", ("0", "-1", "1.5", "1e4", "1__0", "_1", "", "many"))
def test_other_counts_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a positive integer"):
        options.count(text)


@pytest.mark.parametrize("path", ("/", "."))
def test_a_folder_is_no_record(path):
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder: pass a file"):
        options.record(path)


def test_readme_names_the_environments_of_each_algorithm(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    fresh = {**record.stamp("learning", "cpu", ["losses"]), "seeds": 3}
    rows = [learning("dqn", "A", 1), learning("dqn", "B", 1, **fresh), learning("sac", "C", 1)]
    rows += [learning(name, "D", 1) for name in ("a2c", "ppo")]
    rows += [learning("pqn", env, 1) for env in "EFGI"] + [learning("pqn", "H", 1, **fresh)]
    (tmp_path / "learning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["`dqn`, `sac` | 2015 | x", "`td3` | 2018 | ", "`a2c`, `ppo` | | ", "`pqn` | 2025 | "]
    lines.append("seed | `a` | b")
    assert report.learned("".join(f"| {line} |\n" for line in lines)).splitlines() == [
        "| `dqn`, `sac` | 2015 | `dqn`: B, A †; `sac`: C † |",
        "| `td3` | 2018 | not measured |",
        "| `a2c`, `ppo` | | D † |",
        "| `pqn` | 2025 | H, E †, F † and 2 more |",
        "| seed | `a` | b |",
    ]


def test_a_pair_whose_environment_is_not_installed_is_left_alone(capsys):
    from scripts import refresh

    pairs = [["q_learning", "chain"], ["q_learning", "nowhere"]]
    assert refresh.main(["--programs", json.dumps(pairs)]) == 0
    printed = capsys.readouterr()
    assert list(json.loads(printed.out)) == ["q_learning chain"]
    assert "q_learning nowhere is left alone: " in printed.err


def test_programs_are_told_apart_by_code_and_constants(monkeypatch):
    from purejaxrl_sac import exploration
    from scripts import refresh

    first = refresh.digest("q_learning", "chain")
    assert refresh.digest("q_learning", "chain") == first
    assert refresh.digest("random", "chain") != refresh.digest("random", "taxi")
    names = (f"MemoryChain-bsuite(memory_length={n})" for n in (5, 7))
    first, second = (refresh.digest("recurrent_pqn", name) for name in names)
    assert first != second
    first, preset = refresh.digest("q_learning", "chain"), prl.preset
    for changes in ({"gamma": 0.95}, {"env_params": prl.envs.make("chain").default_params}):
        with monkeypatch.context() as patch:
            patch.setattr(prl, "preset", lambda *x, y=changes: preset(*x).replace(**y))
            values = refresh.digest("q_learning", "chain")
        assert (values != first) == ("gamma" in changes)
    original = exploration.annealed_epsilon

    def unused(config, step):
        jax.random.normal(jax.random.key(0), (0,))
        return original(config, step)

    monkeypatch.setattr(exploration, "annealed_epsilon", unused)
    assert refresh.digest("q_learning", "chain") == first
    monkeypatch.setattr(exploration, "annealed_epsilon", lambda c, step: original(c, step) / 2)
    assert refresh.digest("q_learning", "chain") != first


def test_only_rows_of_the_same_programs_are_renewed(tmp_path, monkeypatch):
    from scripts import refresh

    monkeypatch.setattr(record, "FOLDER", tmp_path)
    row = {**record.stamp("speed", "cpu", ["losses"]), "code": "old"}
    names = ("a", "b", "a", "a", "a", "c", "c")
    rows = [row | {"algorithm": x, "environment": "chain"} for x in names]
    rows[3]["what"], rows[4]["what"] = "compile time", "check"  # which depend on options, too
    rows[6]["what"] = "learning"
    rows[2]["value"] = 2  # was not fresh
    path = tmp_path / "speed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fresh = [json.dumps(row) for row in (*rows[3:], *rows[:2])]
    before = {"speed.jsonl": {"a row that is no more", *fresh}}
    assert refresh.renew(before, {"a chain"}, equal={"c chain"}) == 2
    stale = [record.stale(row) for row in record.rows(path)]
    assert stale == [False, True, True, True, True, True, False]  # speed may differ, numbers not


def test_runs_of_other_keys_are_told_apart(monkeypatch):
    from scripts import refresh

    def digests():
        return [refresh.digest("q_learning", "chain"), refresh.numbers("q_learning", "chain", 1)]

    first, keys = digests(), plans.Plan.keys
    for field in ("train", "final_evaluation"):
        other = lambda plan, x=field: keys(plan)._replace(**{x: keys(plan).evaluation})  # noqa: E731
        monkeypatch.setattr(plans.Plan, "keys", other)
        assert all(new != old for new, old in zip(digests(), first, strict=True))


def test_kinds_that_jaxprs_do_not_determine_are_recorded():
    from scripts import refresh

    rows = (row for path in record.FOLDER.glob("*.jsonl") for row in record.rows(path))
    assert set(refresh.NOT_OF_JAXPRS) <= {row["what"] for row in rows}


def test_numbers_of_states_are_told_apart_by_bits(monkeypatch):
    from purejaxrl_sac import exploration
    from scripts import refresh

    first = refresh.numbers("q_learning", "chain", 3)
    assert refresh.numbers("q_learning", "chain", 3) == first
    assert refresh.numbers("q_learning", "chain", 4) != first
    original = exploration.annealed_epsilon
    monkeypatch.setattr(exploration, "annealed_epsilon", lambda c, step: original(c, step) * 1)
    assert refresh.numbers("q_learning", "chain", 3) == first
    monkeypatch.setattr(exploration, "annealed_epsilon", lambda c, step: original(c, step) * 0)
    assert refresh.numbers("q_learning", "chain", 3) != first


@pytest.mark.parametrize(
    "name", [x for x, row in learning_page.PUBLISHED.items() if "tabular" in row]
)
def test_the_optima_of_tables_are_exact(name):
    env = prl.envs.make({"FrozenLake-misc": "frozen_lake"}.get(name, name))
    values = np.zeros(env.mdp.start.shape)
    for _ in range(env.default_params.max_steps_in_episode):
        values = np.asarray(dp.backup(env.mdp, 1.0, values)).max(1)
    optimum = learning_page.PUBLISHED[name]["optimum"]
    assert tables.number(float(env.mdp.start @ values)) == tables.number(optimum)


@pytest.mark.parametrize("name", classic_control.TASKS)
def test_the_optima_of_classic_control_are_computed(name):
    case = f"{name}, optimal on a grid with gamma {classic_control.TASKS[name].gammas[0]}: return"
    (row,) = (row for row in theory.cases() if row["kind"] == case)
    assert learning_page.PUBLISHED[name]["optimum"] == pytest.approx(row["value"], abs=0.05)


def test_a_policy_that_is_optimal_on_a_coarse_grid(key, monkeypatch):
    task = classic_control.TASKS["MountainCar-v0"]
    coarse = task._replace(grid=tuple(axis[::5] for axis in task.grid))
    monkeypatch.setitem(classic_control.TASKS, "MountainCar-v0", coarse)
    undiscounted, discounted, values = classic_control.returns("MountainCar-v0", 0.99, 64, key)
    optimum = learning_page.PUBLISHED["MountainCar-v0"]["optimum"]
    assert optimum - 2 < undiscounted.mean() < optimum + 1
    np.testing.assert_allclose(discounted, -(1 - 0.99**-undiscounted) / 0.01, rtol=1e-5)
    assert float(values.mean()) == pytest.approx(float(discounted.mean()), rel=0.03)


def test_sampled_values_have_the_decimals_of_their_errors():
    assert theory.value({"value": 0.000674275, "error": 0.0013}).split() == [
        "0.0007",
        "±",
        "0.0013",
    ]
    assert theory.value({"value": 2.24758, "error": 0.002}).split() == ["2.248", "±", "0.002"]
    assert theory.value({"value": 0.0688909}) == "0.0688909"


def test_steps_of_published_scores_are_shown_where_they_differ():
    row = {"environment": "MountainCarContinuous-v0", "steps": 50_016}
    assert learning_page.reported(row) == "rl-zoo gSDE SAC 94.7"
    assert learning_page.reported({**row, "steps": 100_000}) == "rl-zoo gSDE SAC 94.7 (50k)"
    assert learning_page.reported({**row, "environment": "CartPole-v1"}) == "rl-zoo DQN 500"
    assert learning_page.optimum({**row, "environment": "CartPole-v1"}) == "500"
    for cell in (learning_page.reported, learning_page.optimum):
        assert cell({**row, "environment": "unpublished"}) == ""
