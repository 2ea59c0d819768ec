"""The notebooks: a source that a diff can be read of, and beside it the same with its outputs.

    python scripts/notebooks.py                     # run what is stale, in its full setting
    python scripts/notebooks.py 01_q_learning       # run this one, stale or not
    python scripts/notebooks.py --check             # say what is wrong, run nothing

`notebooks/NAME.py` is what one edits (jupytext's percent format), `notebooks/NAME.ipynb` what one
reads, with outputs, and `notebooks/pictures/NAME.png` the output of the cell tagged `picture`.
With the outputs is stored what they came from: a digest of the code that ran and the version of
the package. Outputs of other code, or of another minor version, are stale, and a test says so.

The same notebooks run with smaller numbers where PUREJAXRL_SAC_NOTEBOOKS=short, as in the tests.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import os
import sys
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat

from purejaxrl_sac import __version__

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SETTING = "PUREJAXRL_SAC_NOTEBOOKS"
POST = "From Q-learning to Soft Actor Critic"
LARGEST = 1_000_000  # bytes
PUBLIC = {"_replace", "_asdict"}  # of named tuples, in spite of their names


def names() -> list[str]:
    """Every notebook's name, whether its source, its outputs or both exist."""
    found = {path.stem for path in (*FOLDER.glob("*.py"), *FOLDER.glob("*.ipynb"))}
    return sorted(found - {"conftest"})


def source(name: str) -> nbformat.NotebookNode:
    """The notebook that the source describes, without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02}"  # random ones would be new in every diff
    return notebook


def origin(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What outputs come from: this code, in this version of the package."""
    code = "\n# %%\n".join(cell.source for cell in code_cells(notebook))
    return {"code": hashlib.sha256(code.encode()).hexdigest()[:16], "version": __version__}


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def picture(notebook: nbformat.NotebookNode) -> bytes | None:
    """The last PNG of the cell tagged `picture`."""
    tagged = [c for c in code_cells(notebook) if "picture" in c.metadata.get("tags", ())]
    outputs = [output.get("data", {}) for cell in tagged for output in cell.outputs]
    found = [data["image/png"] for data in outputs if "image/png" in data]
    return base64.b64decode(found[-1]) if found else None


def execute(name: str) -> float:
    """Runs a notebook from a clean kernel in its full setting, stores it; the seconds it took."""
    notebook = source(name)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "purejaxrl_sac": origin(notebook),
    }
    os.environ[SETTING] = "full"
    client = nbclient.NotebookClient(
        notebook,
        timeout=1_200,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        coalesce_streams=True,
        record_timing=False,
    )
    began = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - began
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    if drawn := picture(notebook):
        (FOLDER / "pictures" / f"{name}.png").write_bytes(drawn)
    return seconds


def refresh(name: str) -> bool:
    """Takes over prose that has changed, where the code that made the outputs has not.

    Returns:
        whether that was all there was to do.
    """
    stored = FOLDER / f"{name}.ipynb"
    if not stored.exists():
        return False
    notebook, written = nbformat.read(stored, as_version=4), source(name)
    if [w.source for w in code_cells(written)] != [s.source for s in code_cells(notebook)]:
        return False
    for new, old in zip(code_cells(written), code_cells(notebook), strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    written.metadata = notebook.metadata
    nbformat.write(written, stored)
    return not problems(name)


def problems(name: str) -> list[str]:
    """What is wrong with a notebook as it is stored, a line each; none if it is fine."""
    stored, text = FOLDER / f"{name}.ipynb", FOLDER / f"{name}.py"
    if not stored.exists() or not text.exists():
        return [f"{name} needs both its .py and its .ipynb: run scripts/notebooks.py"]
    notebook, written = nbformat.read(stored, as_version=4), source(name)
    found = [*_stale(notebook, written), *_private(written)]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id} wrote an error or a warning")
    if stored.stat().st_size > LARGEST:
        found.append(f"{stored.stat().st_size:,} bytes are more than {LARGEST:,}: smaller pictures")
    prose = "\n".join(cell.source for cell in written.cells if cell.cell_type == "markdown")
    for needed in (POST, "## Exercise", "What to read next"):
        if needed not in prose:
            found.append(f"its prose does not contain {needed!r}")
    path = FOLDER / "pictures" / f"{name}.png"
    if not path.exists() or path.read_bytes() != picture(notebook):
        found.append(f"{path.name} is not what the cell tagged picture shows")
    return found


def _stale(notebook: nbformat.NotebookNode, written: nbformat.NotebookNode) -> list[str]:
    """Whether the outputs are those of the source, all of it, in order, in this version."""
    found = []
    if [(c.cell_type, c.source) for c in notebook.cells] != [
        (c.cell_type, c.source) for c in written.cells
    ]:
        found.append("the .ipynb is not the .py with outputs")
    recorded, expected = notebook.metadata.get("purejaxrl_sac", {}), origin(notebook)
    for what, now in expected.items():
        then = recorded.get(what, "")
        if then.split(".")[:2] != now.split(".")[:2]:  # 0.5.1 changes no numbers of 0.5.0
            found.append(f"stale outputs: {what} was {then or 'not recorded'} and is {now}")
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"cells ran in the order {counts}, not once each from top to bottom")
    return found


def _private(written: nbformat.NotebookNode) -> list[str]:
    """Names with a leading underscore that the code imports or reaches for."""
    found = []
    for cell in code_cells(written):
        lines = cell.source.splitlines()
        code = "\n".join(line for line in lines if not line.startswith("%"))
        for node in ast.walk(ast.parse(code)):
            reached = ()
            if isinstance(node, ast.Import):
                reached = [part for alias in node.names for part in alias.name.split(".")]
            elif isinstance(node, ast.ImportFrom):
                reached = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                reached = [node.attr]
            for part in reached:
                if part.startswith("_") and not part.startswith("__") and part not in PUBLIC:
                    found.append(f"{cell.id} reaches for the private {part}")
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="notebooks to run; none: those that are stale")
    parser.add_argument("--check", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    for name in options.names or names():
        fine = options.check or (not options.names and (not problems(name) or refresh(name)))
        if not fine:
            print(f"{name}: executed in {execute(name):.0f} s", flush=True)
    wrong = [f"{name}: {what}" for name in options.names or names() for what in problems(name)]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
