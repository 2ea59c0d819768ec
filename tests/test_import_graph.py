"""Modules import in one direction: core, experiment, command line."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import purejaxrl_sac as prl

PACKAGE = Path(prl.__file__).parent
NAME = PACKAGE.name


def modules():
    """Name -> file of each module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(source):
    """The modules of the package that a source imports when it is imported itself."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(NAME):
            for alias in statement.names:
                full = f"{statement.module}.{alias.name}"
                yield full if full in MODULES else statement.module


GRAPH = {name: {*imported(path.read_text())} - {name} for name, path in MODULES.items()}
HIGHER = {  # part -> what it must not import
    "types": ["config", "agents", "envs", "train", "evaluate", "experiment", "cli"],
    "agents": ["envs", "train", "evaluate", "experiment", "cli"],
    "memory": ["agents", "envs", "train", "evaluate", "experiment", "cli"],
    "networks": ["agents", "envs", "train", "evaluate", "experiment", "cli"],
    "envs": ["agents", "train", "evaluate", "experiment", "cli"],
    "mdp": ["agents", "envs", "train", "evaluate", "experiment", "cli"],
    "train": ["evaluate", "experiment", "cli"],
    "evaluate": ["experiment", "cli"],
    "experiment": ["cli"],
    "experiment.runs": ["experiment.tuning", "cli"],
}


def test_imports_are_read():
    source = "from purejaxrl_sac import config\nfrom purejaxrl_sac.train import init\nimport jax"
    assert [*imported(source)] == ["purejaxrl_sac.config", "purejaxrl_sac.train"]
    assert "purejaxrl_sac.config" in GRAPH["purejaxrl_sac.agents.sac"]


def test_there_are_no_cycles():
    assert len([*TopologicalSorter(GRAPH).static_order()]) == len(MODULES)


@pytest.mark.parametrize("part", HIGHER)
def test_imports_point_down(part):
    def within(module, folders):
        return any(f"{module}.".startswith(f"{NAME}.{folder}.") for folder in folders)

    sources = [module for module in MODULES if within(module, [part])]
    upward = [(a, b) for a in sources for b in GRAPH[a] if within(b, HIGHER[part])]
    assert sources and not upward
