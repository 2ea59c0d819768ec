"""The examples of README.md run as they are written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from purejaxrl_sac import cli

ROOT = Path(__file__).parents[1]
SHORT = ["--total-steps=1500", "--chunks=4", "--episodes=8", "--quiet"]


def blocks(heading, language):
    """The blocks of code in a section."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def commands(block):
    """The arguments of the commands in a block."""
    lines = [shlex.split(line) for line in block.splitlines()]
    assert all(line[0] == ".venv/bin/purejaxrl-sac" for line in lines)
    return [line[1:] for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of a user."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_environment_of_ones_own_is_trained(folder):
    environment, _ = blocks("An environment of your own", "python")
    (folder / "corridor.py").write_text(environment)
    ((command,),) = map(commands, blocks("An environment of your own", "bash"))
    assert cli.main([*command, *SHORT]) == 0
    assert (folder / "runs" / "corridor" / "summary.json").exists()


@pytest.mark.slow
def test_an_environment_of_ones_own_is_solved(folder):
    environment, training = blocks("An environment of your own", "python")
    (folder / "corridor.py").write_text(environment)
    paths = os.pathsep.join([str(ROOT), str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", training], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    returns = [float(x) for x in re.findall(r"[\d.]+", done.stdout)]
    assert len(returns) == 8 and all(x == 1 for x in returns)  # every seed reaches the end


def test_two_runs_are_compared(folder):
    ((first, second, plot),) = map(commands, blocks("Comparing two runs", "bash"))
    for command in (first, second):
        assert cli.main([*command, *SHORT]) == 0
    assert cli.main(plot) == 0
    assert (folder / "compared.png").exists() and (folder / "compared.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "heading",
    [
        "## Forks",
        "### A state of its own",
        "### Another meaning of critics",
        "### Another network, another optimiser",
        "### A loop of your own",
    ],
)
def test_examples_of_the_package_run(heading):
    text = (ROOT / "purejaxrl_sac" / "README.md").read_text().split(f"\n{heading}\n")[1]
    (code, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
