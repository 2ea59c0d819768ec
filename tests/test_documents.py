"""Documents: rendered figures are up to date, links exist, and what is distributed is complete."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import jupytext
import pytest

import purejaxrl_sac as prl
from scripts import docs, report

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.py"))
DOCUMENTS = [ROOT / "README.md", *(
    path
    for folder in ("notebooks", "purejaxrl_sac", "scripts", "tests")
    for path in sorted((ROOT / folder).rglob("*.md"))
)]  # fmt: skip

# code, equations, links and their texts are not figures
HIDDEN = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^]]*\]\([^)]*\)|<[^>]*>|https?://\S+|arXiv:\S+",
    re.DOTALL,
)
FIGURE = re.compile(r"(?<![\w.])[-+]?\d[\d,.]*\d|(?<![\w.])\d")
YEAR = re.compile(r"19[5-9]\d|20[0-3]\d")
POST = {  # sections and equations of the post
    1: "1 2.2 2.3 3 4 5",
    2: "3 3.1 4 6 8 8.1 8.2 8.3",
    3: "3",
    4: "1 1.1 1.2 2 3 3.1 3.2 4 6 9 10 12 13 15 16 18 19 21 22 23 24",
}
SECTIONS = {f"{part}.{x}" for part, numbers in POST.items() for x in numbers.split()} | {"4", "6.7"}
ALLOWED = {
    "README": {"3.11", "3.12", "3.13", "2", "2.0"},  # Pythons, exit status, licence
    "03_dqn": {"10", "8"},  # cells of MinAtar, an exercise
    "04_actor_critic": {"128"},  # 16 environments x 8 steps
    "05_maximum_entropy": {"1.39"},  # log 4
    "06_sac": {"0.7"},  # a setting of the preset
    "07_research_forks": {"7", "128"},  # the chapter, episodes of an evaluation
    "08_memory": {"8", "85"},  # the chapter, the accuracy of the tiger
}


def typed_figures(text, used=()):
    """Numbers in a text that are neither years nor sections, nor settings in the code `used`."""
    settings = set(FIGURE.findall("\n".join(used).replace("_", "")))
    found = FIGURE.findall(HIDDEN.sub(" ", text))
    return [
        x
        for x in found
        if x.replace(",", "").rstrip(".") not in settings | SECTIONS and not YEAR.fullmatch(x)
    ]


def test_documents_show_the_rows_as_they_are():
    """Otherwise run scripts/report.py: it marks rows whose code has changed."""
    assert report.outdated() == []


def test_typed_figures_are_found():
    text = (
        "Scores of 2018 are 499.1 [466.9], in `x 7` and $3$, with 8 seeds (4.19). [3](a.md) 1,000"
    )
    assert typed_figures(text, ["SEEDS, STEPS = 8, 1_000"]) == ["499.1", "466.9"]


def test_readme_has_no_typed_figures():
    text = re.sub(r" and \d+ more", "", (ROOT / "README.md").read_text())  # of the rendered table
    assert set(typed_figures(text)) <= ALLOWED["README"]
    assert typed_figures((ROOT / "notebooks" / "README.md").read_text()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_typed_figures(path):
    cells = jupytext.read(path, fmt="py:percent").cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert set(typed_figures(prose, code)) <= ALLOWED.get(path.stem, set())


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def anchors(text):
    """Anchors of the headings of a Markdown text, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        wrong = anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())
        if wrong or not file.exists() or not file.is_relative_to(ROOT):
            broken.append(link)
    assert broken == []


def test_notebooks_link_to_files():
    for path in NOTEBOOKS:
        links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        assert all("://" in x or (path.parent / x).exists() for x in links), path


def test_every_script_is_described():
    text = (ROOT / "scripts" / "README.md").read_text()
    scripts = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts").glob("*.sh")]
    described = {*re.findall(r"`([\w]+\.(?:py|sh))", text)}
    assert {path.name for path in scripts} == described - {"__init__.py"}


def test_every_benchmark_records_its_rows():
    for path in (ROOT / "scripts").glob("benchmark_*.py"):
        assert re.search(r"record\.(add_record|append)\(", path.read_text()), path.name


def test_one_command_line_is_what_ci_runs():
    """`.ci/run` finds the tests' command in the README."""
    lines = re.findall(r"(?m)^python3 -m venv \.venv && .*$", (ROOT / "README.md").read_text())
    assert len(lines) == 2
    (pattern,) = re.findall(r"sed -n 's/(.*)\\\((.*)\\\)\$/", (ROOT / ".ci" / "run").read_text())
    assert [bool(re.match(pattern[0] + pattern[1], line)) for line in lines] == [False, True]


def test_every_public_name_has_a_docstring():
    assert docs.undocumented() == []


def test_names_without_docstrings_are_found():
    class Point(NamedTuple):
        x: int

    assert not docs.documented(Point) and not docs.documented(lambda: None)
    assert docs.documented(prl.Agent) and docs.documented(prl.train)


def test_broken_links_of_the_reference_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="x"><a href="#x"></a><a href="#y"></a><a href="b.html#z"></a><a href="c.html"></a>'
        '<a href="https://example.org/d.html"></a>'
    )
    (tmp_path / "b.html").write_text('<p id="z"><a href="a.html#x"></a>')
    assert sorted(docs.broken_links(tmp_path)) == [
        "a.html links to #y, which has no such anchor",
        "a.html links to c.html, which does not exist",
    ]


def test_versions_are_equal():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"(?m)^version: (.*)$", citation)[1] == prl.__version__
    first = re.search(r"(?m)^## (\S+)$", (ROOT / "purejaxrl_sac" / "CHANGELOG.md").read_text())
    assert first[1] == prl.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "purejaxrl_sac.__version__"
    }


def test_the_wheel_is_complete(tmp_path):
    pytest.importorskip("build.env", reason="needs the extra test")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "purejaxrl_sac", tmp_path / "purejaxrl_sac", ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name == f"purejaxrl_sac-{prl.__version__}-py3-none-any.whl"
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "purejaxrl_sac").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if ".dist-info/" in name}
    data = ("py.typed", "CHANGELOG.md", "cli/scores.json")
    presets = {str(path.relative_to(ROOT)) for path in (ROOT / "purejaxrl_sac").rglob("*.toml")}
    wanted = modules | presets | {f"purejaxrl_sac/{name}" for name in data}
    assert names - information == wanted
    assert any(name.endswith("/LICENSE") for name in information)


def test_every_failure_names_tests_that_exist():
    text = (ROOT / "purejaxrl_sac/experiment/README.md").read_text()
    section = text.split("\n## Failures\n")[1].split("\n## ")[0]
    events = re.findall(r"(?m)^\| (.*?) \| .* \|$", section)[1:]
    tests = dict(re.findall(r"(?m)^\* (.*): (`test_.*)$", section))
    known = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    for path in (ROOT / "tests").glob("test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    assert len(events) > 15 and list(tests) == events
    for event, names in tests.items():
        named = re.findall(r"\btest_\w+", names)
        assert named and set(named) <= known, event


def test_comments_beside_fields_are_their_docstrings_in_the_api_reference():
    source = '''class Step(NamedTuple):
    """One step."""

    obs: Array  # [N, ...]: what is seen;
    # in the environment's own dtype
    last: Array
    # another comment

    def ended(self):  # no field
        return self.last'''
    fields = ast.parse(docs.comments_as_docstrings(source)).body[0].body
    found = [ast.unparse(x) for x in fields[1:]]
    assert found[0] == "obs: Array"
    assert ast.literal_eval(found[1]) == "\\[N, ...]: what is seen; in the environment's own dtype"
    assert found[2] == "last: Array" and found[3].startswith("def ended") and len(found) == 4


def test_the_api_reference_begins_with_functions():
    names = ["sac", "SACConfig", "networks", "train", "TrainState", "Config"]
    order = ["train", "Config", "TrainState", "networks", "SACConfig", "sac"]
    assert sorted(sorted(names), key=docs.place) == order
    assert docs.readable("<b>x: jax.jaxlib._jax.Array</b>") == "<b>x: jax.Array</b>"
    quoted = 'x: ForwardRef(<span class="s1">&#39;Loss&#39;</span>)'
    assert docs.readable(quoted) == "x: Loss"
