"""Build the API reference, a static site from docstrings (needs the extra `docs`).

    python scripts/docs.py                     # writes build/docs/index.html
    python scripts/docs.py --out FOLDER

The exit status is 1 if a public name has no documentation or a link of the site is broken.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import typing
import warnings
from html import unescape
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS

ROOT = Path(__file__).parents[1]
HIDDEN, SHOWN = "@private", "@public"  # to pdoc, in a docstring


def undocumented() -> list[str]:
    """Public names without documentation: those of the package, and all others of its modules."""
    found = []
    for name in prl.__all__:
        value = getattr(prl, name)
        if isinstance(value, functools.partial) and name in ALGORITHMS:
            continue  # an algorithm, described by name
        if isinstance(value, ModuleType):
            found += [f"{name}.{x}" for x in own_names(value) if not documented(getattr(value, x))]
        if not documented(value):
            found.append(name)
    return [f"{name} has no docstring" for name in found]


def own_names(module: ModuleType) -> list[str]:
    """Public functions and classes that are defined in a module, except for named tuples.

    Fields of named tuples are described by comments.
    """
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or (inspect.isclass(value) and tuple not in value.__mro__))
        and value.__module__ == module.__name__
    ]


def documented(value: object) -> bool:
    """Whether a value has a docstring of its own, other than those that Python writes."""
    text = inspect.getdoc(value) or ""
    name = getattr(value, "__name__", "")
    return bool(text) and not text.startswith((f"{name}(", "partial("))


def broken_links(site: Path) -> list[str]:
    """Links of the site to files or anchors that do not exist."""
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    found = []
    for path, text in pages.items():
        for link in set(re.findall(r'href="([^"]+)"', text)):
            target, _, anchor = unquote(unescape(link)).partition("#")
            if "://" in target or target.startswith(("mailto:", "data:", "${")):
                continue
            file = (path.parent / target).resolve() if target else path
            if not file.exists():
                found.append(f"{path.relative_to(site)} links to {link}, which does not exist")
            elif anchor and file in anchors and anchor not in anchors[file]:
                found.append(f"{path.relative_to(site)} links to {link}, which has no such anchor")
    return found


def build(site: Path) -> None:
    """Write the site."""
    import pdoc

    warnings.filterwarnings("ignore", module="pdoc")  # named tuples, and modules named twice
    pdoc.render.configure(docformat="google", show_source=False, footer_text=prl.__version__)
    for module in (prl, prl.experiment):  # whose names are imported when they are first used
        for name in module.__all__:
            setattr(module, name, getattr(module, name))
    prl.__all__.sort(key=place)
    modules = pkgutil.walk_packages(prl.__path__, "purejaxrl_sac.")
    names = [module.name for module in modules if not module.name.endswith("__main__")]
    typing.Protocol.__doc__ = ""
    for name in names:
        for value in vars(importlib.import_module(name)).values():
            if inspect.isclass(value) and hasattr(value, "_fields"):
                remove_texts_of_python(value)
            elif getattr(value, "_is_protocol", False) and value is not typing.Protocol:
                show_call(value)
    source = pdoc.doc_ast.get_source
    pdoc.doc_ast.get_source = lambda value: comments_as_docstrings(source(value))
    pdoc.pdoc("purejaxrl_sac", *names, output_directory=site)
    for path in site.rglob("*.html"):
        path.write_text(readable(path.read_text()))


def place(name: str) -> int:
    """Where a public name stands on the first page: functions, types, modules, algorithms."""
    value = getattr(prl, name)
    if isinstance(value, type):
        return 3 if name.endswith("Config") and name != "Config" else 1
    if isinstance(value, ModuleType):
        return 2
    return 4 if name in ALGORITHMS else 0


def remove_texts_of_python(kind: type) -> None:
    """Remove the constructor of a named tuple, and the docstrings that Python writes for it."""
    if not documented(kind):
        kind.__doc__ = ""
    kind.__new__.__doc__ = HIDDEN
    for field in kind._fields:
        getattr(kind, field).__doc__ = ""


def show_call(kind: type) -> None:
    """Show how the functions of a type are called, instead of a constructor."""
    kind.__init__.__doc__ = HIDDEN
    if "__call__" not in vars(kind):
        return
    text = kind.__call__.__doc__
    kind.__call__.__doc__ = f"{text if kind.__doc__ else ''}{SHOWN}"
    kind.__doc__ = kind.__doc__ or text


def comments_as_docstrings(source: str) -> str:
    """The source of a class or module whose fields are documented by the comments beside them.

    A comment may continue on lines of its own.
    """
    found: list[str] = []
    following = False  # whether the last line is a comment of a field
    for line in source.splitlines():
        if field := re.fullmatch(r"(    )(\w+: .*\S)  # (.*)", line):
            text = re.sub(r"^\[", r"\\[", field[3])  # "[...]:" would be a link in Markdown
            found += [f"    {field[2]}", f"    {text!r}"]
        elif following and (comment := re.fullmatch(r"    # (.*)", line)):
            found[-1] = f"    {ast.literal_eval(found[-1].strip()) + ' ' + comment[1]!r}"
        else:
            found.append(line)
            following = False
            continue
        following = True
    return "\n".join(found)


def readable(page: str) -> str:
    """A page with types as they are written in the source."""
    page = re.sub(r"jaxlib((?:<[^>]+>)*\.(?:<[^>]+>)*)_jax\1", "", page)  # jax.Array
    return re.sub(r"ForwardRef\(<span class=\"\w+\">&#39;(.*?)&#39;</span>\)", r"\1", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    options = parser.parse_args()
    problems = undocumented()
    build(options.out)
    problems += broken_links(options.out)
    print("\n".join(problems) or f"written to {options.out}/index.html")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
