"""Stored notebooks match their sources; nbmake tests that they run."""

import nbformat
import pytest

import purejaxrl_sac as prl
from scripts import notebooks

NAME = "sample"
SOURCE = f"""
# %% [markdown]
# The post "{notebooks.POST}", section 1.
# ## Exercise
# What to read next

# %%
import jax

# %% tags=["picture"]
1 + 1
"""


@pytest.mark.parametrize("name", notebooks.names())
def test_stored_notebooks_have_no_problems(name):
    assert notebooks.problems(name) == []


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A notebook in a temporary folder, stored as if it had been executed."""
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    (tmp_path / f"{NAME}.py").write_text(SOURCE)
    notebook = notebooks.source(NAME)
    for i, cell in enumerate(notebooks.code_cells(notebook)):
        cell.execution_count = i + 1
    data = {"image/png": "AAAA"}
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", data)]
    notebook.metadata["purejaxrl_sac"] = notebooks.origin(notebook)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{NAME}.png").write_bytes(notebooks.picture(notebook))
    return notebook


def test_a_valid_notebook_has_no_problems(stored):
    nbformat.write(stored, notebooks.FOLDER / f"{NAME}.ipynb")
    assert notebooks.problems(NAME) == []


def test_a_patch_release_makes_nothing_stale(stored, monkeypatch):
    nbformat.write(stored, notebooks.FOLDER / f"{NAME}.ipynb")
    major, minor, _ = notebooks.__version__.split(".")
    monkeypatch.setattr(notebooks, "__version__", f"{major}.{minor}.99")
    assert notebooks.problems(NAME) == []
    monkeypatch.setattr(notebooks, "__version__", f"{major}.99.0")
    assert "stale outputs: version" in notebooks.problems(NAME)[0]


def test_a_notebook_executes_the_package_whose_version_it_records(stored, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ".")  # which is another folder for the kernel
    monkeypatch.setenv(notebooks.SETTING, "short")
    text = SOURCE.replace("import jax", "import purejaxrl_sac; print(purejaxrl_sac.__file__)")
    (notebooks.FOLDER / f"{NAME}.py").write_text(text)
    notebooks.execute(NAME)
    done = nbformat.read(notebooks.FOLDER / f"{NAME}.ipynb", as_version=4)
    outputs = [output for cell in notebooks.code_cells(done) for output in cell.outputs]
    assert outputs[0]["text"].strip() == prl.__file__


def edited(notebook, change):
    change(notebook)
    nbformat.write(notebook, notebooks.FOLDER / f"{NAME}.ipynb")
    return "\n".join(notebooks.problems(NAME))


def rewrite(old, new):
    def change(notebook):
        path = notebooks.FOLDER / f"{NAME}.py"
        path.write_text(path.read_text().replace(old, new))
        for cell in notebook.cells:  # as an editor that pairs both files does
            cell.source = cell.source.replace(old, new)

    return change


STDERR = nbformat.v4.new_output("stream", name="stderr", text="careful")
LARGE = nbformat.v4.new_output("stream", text="x" * notebooks.LARGEST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda nb: nb.cells[-1].update(source="1 + 2"), "not the .py with outputs"),
        (rewrite("1 + 1", "1 + 2"), "stale outputs: code"),
        (lambda nb: nb.metadata["purejaxrl_sac"].update(version="0.0.1"), "stale outputs: version"),
        (lambda nb: nb.metadata.pop("purejaxrl_sac"), "stale outputs"),
        (lambda nb: nb.cells[-1].update(execution_count=7), "order"),
        (lambda nb: nb.cells[-1].outputs.append(STDERR), "warning"),
        (lambda nb: nb.cells[-1].outputs.append(LARGE), "smaller pictures"),
        (lambda nb: nb.cells[-1].outputs[0]["data"].update({"image/png": "BBBB"}), "tagged"),
        (rewrite("import jax", "import jax._src"), "private _src"),
        (rewrite("import jax", "from jax import _src"), "private _src"),
        (rewrite("import jax", "import jax\njax.numpy._x"), "private _x"),
        (rewrite("## Exercise", "## Sports"), "Exercise"),
    ],
)
def test_problems_are_reported(stored, change, said):
    assert said in edited(stored, change)


def test_only_changed_code_requires_another_execution(stored):
    nbformat.write(stored, notebooks.FOLDER / f"{NAME}.ipynb")
    path = notebooks.FOLDER / f"{NAME}.py"
    path.write_text(SOURCE.replace("section 1", "section 2"))
    assert notebooks.problems(NAME) == ["the .ipynb is not the .py with outputs"]
    assert notebooks.refresh(NAME) and notebooks.problems(NAME) == []
    path.write_text(SOURCE.replace("1 + 1", "1 + 2"))
    assert not notebooks.refresh(NAME) and notebooks.problems(NAME)
