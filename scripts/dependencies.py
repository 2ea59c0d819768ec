"""The code of the package that a module uses: its own, and every definition it refers to.

A definition is a statement at the top level of a module that binds a name: a function, a class, an
assignment or an import. It uses the definitions that are registered with it by a decorator, as by
`@f.def_vmap`. Other statements at the top level belong to every definition of their module, except
those for type checkers. Docstrings, comments and overloads are not code, and neither is what `DATA`
names: the version, and lists of which a figure depends on one entry at most.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "purejaxrl_sac"
ALL = "*"
DATA = {("", "__version__"), ("presets", ALL), ("agents", "ALGORITHMS"), ("mdp.named", "NAMED")}
IGNORED = {"type_comment", "type_ignores", "type_params", "kind"}  # differ between Pythons

Definition = tuple[str, str]  # module without the package's name, and name in it; ALL of them


class Module(NamedTuple):
    """The statements at the top level of a module, by what they bind."""

    definitions: dict[str, list[ast.AST]]  # one entry of `DATA` is called "NAME[key]"
    imports: dict[str, Definition]  # of other modules of the package, by the name they have here
    others: list[ast.AST]


def code(roots: Iterable[Definition]) -> str:
    """The syntax trees of definitions, and of all that they use, as text."""
    found = (f"{module}:{name}\n{_text(module, name)}" for module, name in sorted(reached(roots)))
    return "\n".join(found)


def modules(roots: Iterable[Definition]) -> set[str]:
    """The modules of `reached`."""
    return {module for module, _ in reached(roots)}


def reached(roots: Iterable[Definition]) -> set[Definition]:
    """Definitions, and all that they use; the name "" stands for a module's other statements.

    Raises:
        KeyError: there is no such module or definition.
    """
    found: set[Definition] = set()
    left = list(roots)
    while left:
        definition = module, name = left.pop()
        if definition not in found and not {definition, (module, ALL)} & DATA:
            found.add(definition)
            left += _next(module, name)
    return {(module, name) for module, name in found if _statements(module, name)}


@functools.cache
def _next(module: str, name: str) -> frozenset[Definition]:
    """What a definition uses directly."""
    read = _module(module)
    if name == ALL:
        own = frozenset((module, x) for x in ("", *read.definitions) if "[" not in x)
        file = path(module)
        exports = file is not None and file.name == "__init__.py"
        return own | frozenset(read.imports.values() if exports else ())
    used = frozenset(x for node in _statements(module, name) for x in _uses(node, module))
    if name == "":
        return used
    if name in read.definitions:
        return used | {(module, ""), *((module, x) for x in _registered(module, name))}
    if name in read.imports:
        return frozenset([read.imports[name]])
    if path(whole := f"{module}.{name}".lstrip(".")):
        return frozenset([(whole, ALL)])
    if "__getattr__" not in read.definitions:  # which exports names lazily
        raise KeyError(f"{module}:{name}")
    return frozenset([(module, "__getattr__")])


def _statements(module: str, name: str) -> list[ast.AST]:
    read = _module(module)
    return read.others if name == "" else read.definitions.get(name, [])


def _registered(module: str, name: str) -> Iterator[str]:
    """The definitions of a module that have a method of this one as a decorator."""
    read = _module(module)
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in read.definitions[name]):
        return  # as in `@jax.jit`
    for other, statements in read.definitions.items():
        for decorator in (x for node in statements for x in getattr(node, "decorator_list", ())):
            match decorator:
                case ast.Attribute(value=ast.Name(id=found)) if found == name:
                    yield other


@functools.cache
def _text(module: str, name: str) -> str:
    return repr(_syntax(_statements(module, name)))


def path(module: str) -> Path | None:
    """The file of a module, or of a script as `scripts.NAME`; None if there is none."""
    folder = ROOT if module.startswith("scripts.") else PACKAGE
    file = folder.joinpath(*module.split(".")) if module else folder
    candidates = (file.with_suffix(".py"), file / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@functools.cache
def _module(name: str) -> Module:
    file = path(name)
    if file is None:
        raise KeyError(name)
    read = Module({}, {}, [])
    for statement in ast.parse(file.read_text()).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        if imported := dict(_imported(statement)):
            read.imports.update(imported)
        elif _is_text(statement) or _is_overload(statement):
            continue
        elif names := set(_bound(statement)):
            for bound in names:
                read.definitions.setdefault(bound, []).append(statement)
                if (name, bound) in DATA:
                    read.definitions.update(_entries(bound, statement))
        else:
            read.others.append(statement)
    return read


def _entries(name: str, statement: ast.stmt) -> Iterator[tuple[str, list[ast.AST]]]:
    """The entries of a dictionary that is assigned to a name."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield f"{name}[{key.value}]", [value]


def _imported(node: ast.AST) -> Iterator[tuple[str, Definition]]:
    """The names that an import of the package's modules binds, and what they stand for."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
        module = (node.module or "").removeprefix(PACKAGE.name).lstrip(".")
        for alias in node.names:
            whole = f"{module}.{alias.name}".lstrip(".")
            is_module = path(whole) and not _defines(module, alias.name)
            yield alias.asname or alias.name, (whole, ALL) if is_module else (module, alias.name)
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE.name:
                module = alias.name.removeprefix(PACKAGE.name).lstrip(".") if alias.asname else ""
                yield alias.asname or PACKAGE.name, (module, ALL)


def _defines(module: str, name: str) -> bool:
    """Whether a package binds a name itself, rather than having a module of that name."""
    file = path(module)
    if file is None:
        return False
    own = f"{PACKAGE.name}.{module}".rstrip(".")  # from which it imports its modules
    body = ast.parse(file.read_text()).body
    return any(name in _bound(node) for node in body if getattr(node, "module", None) != own)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds at the top level."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0]
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _uses(statement: ast.AST, module: str) -> Iterator[Definition]:
    """What a statement refers to, of its own module and of the others of the package."""
    read = _module(module)
    inside = dict(pair for node in ast.walk(statement) for pair in _imported(node))
    imports = read.imports | inside
    yield from (target for target in inside.values() if target[1] != ALL)
    parts = set()  # the modules in `module.name`
    for node in ast.walk(statement):  # an attribute comes before its value
        match node:
            case ast.Attribute(value=ast.Name(id=name) as value, attr=attr):
                if name in imports and imports[name][1] == ALL:
                    parts.add(value)
                    yield imports[name][0], attr
            case ast.Name(id=name) if name in imports:
                if node not in parts:
                    yield imports[name]
            case ast.Name(id=name) if name in read.definitions:
                yield module, name


def _syntax(node: object) -> object:
    """A syntax tree as nested tuples, without docstrings, and equal for all versions of Python."""
    if isinstance(node, list):
        documented = [x for x in node if not _is_text(x)]
        return tuple(map(_syntax, documented))
    if not isinstance(node, ast.AST):
        return node
    fields = ((x, y) for x, y in ast.iter_fields(node) if y not in (None, []) and x not in IGNORED)
    return (type(node).__name__, *((x, _syntax(y)) for x, y in fields))


def _is_text(node: object) -> bool:
    """Whether a statement is only a text, as docstrings of modules, functions and fields are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_overload(node: ast.stmt) -> bool:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any(ast.unparse(x).split(".")[-1] == "overload" for x in decorators)
