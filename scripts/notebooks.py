"""Execute and check the notebooks: sources in Python, stored with their outputs as .ipynb.

    python scripts/notebooks.py                     # execute stale notebooks at full size
    python scripts/notebooks.py 01_q_learning       # execute this notebook
    python scripts/notebooks.py --check             # report problems, execute nothing

`notebooks/NAME.py` is the source (jupytext's percent format), `notebooks/NAME.ipynb` the same with
outputs, and `notebooks/pictures/NAME.png` the output of the cell tagged `picture`. The .ipynb also
stores a digest of the executed code and the version of the package. Outputs of other code or of
another minor version are stale, which a test reports.

With PUREJAXRL_SAC_NOTEBOOKS=short, as in the tests, the notebooks run at reduced size.
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

import purejaxrl_sac
from purejaxrl_sac import __version__

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FOLDER_OF_PACKAGE = Path(purejaxrl_sac.__file__).resolve().parents[1]
SETTING = "PUREJAXRL_SAC_NOTEBOOKS"
POST = "From Q-learning to Soft Actor Critic"
LARGEST = 1_000_000  # bytes
PUBLIC = {"_replace", "_asdict"}  # methods of named tuples, public despite the underscore


def names() -> list[str]:
    """Names of all notebooks of which a source or an .ipynb exists."""
    found = {path.stem for path in (*FOLDER.glob("*.py"), *FOLDER.glob("*.ipynb"))}
    return sorted(found - {"conftest"})


def source(name: str) -> nbformat.NotebookNode:
    """Read the source of a notebook, without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02}"  # random ids would change in every diff
    return notebook


def origin(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The origin of outputs: a digest of the code, and the version of the package."""
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
    """Execute a notebook at full size in a new kernel, store it, and return the seconds."""
    notebook = source(name)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "purejaxrl_sac": origin(notebook),
    }
    os.environ[SETTING] = "full"
    paths = [str(FOLDER_OF_PACKAGE), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # the kernel runs elsewhere
    client = nbclient.NotebookClient(
        notebook,
        timeout=1_200,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        coalesce_streams=True,
        record_timing=False,
    )
    start_time = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start_time
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    if png := picture(notebook):
        (FOLDER / "pictures" / f"{name}.png").write_bytes(png)
    return seconds


def refresh(name: str) -> bool:
    """Update the text of a stored notebook whose code has not changed.

    Returns:
        whether the stored notebook has no problems after that.
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
    """Problems of a stored notebook, one line each."""
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
    """Problems if outputs are not those of the source, in order, of this version."""
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
    """Private names that the code imports or accesses."""
    found = []
    for cell in code_cells(written):
        lines = cell.source.splitlines()
        code = "\n".join(line for line in lines if not line.startswith("%"))
        for node in ast.walk(ast.parse(code)):
            accessed = ()
            if isinstance(node, ast.Import):
                accessed = [part for alias in node.names for part in alias.name.split(".")]
            elif isinstance(node, ast.ImportFrom):
                accessed = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                accessed = [node.attr]
            for part in accessed:
                if part.startswith("_") and not part.startswith("__") and part not in PUBLIC:
                    found.append(f"{cell.id} accesses the private {part}")
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="notebooks to execute; default: stale ones")
    parser.add_argument("--check", action="store_true", help="report problems, execute nothing")
    options = parser.parse_args(arguments)
    for name in options.names or names():
        current = options.check or (not options.names and (not problems(name) or refresh(name)))
        if not current:
            print(f"{name}: executed in {execute(name):.0f} s", flush=True)
    wrong = [f"{name}: {what}" for name in options.names or names() for what in problems(name)]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
