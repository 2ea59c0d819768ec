"""Deliberate faults can be applied; whether tests catch them is shown by scripts/faults.py."""

from purejaxrl_sac.agents import ALGORITHMS
from scripts import faults

FAULTS = faults.read()


def test_every_fault_can_be_applied_and_has_its_own_name():
    assert faults.problems(FAULTS) == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 36


def test_every_algorithm_and_every_layer_of_the_package_has_a_fault():
    covered = {fault.file for fault in FAULTS}
    assert {f"agents/{module}.py" for module, *_ in ALGORITHMS.values()} <= covered
    for folder in ("envs", "experiment/runs", "experiment/tuning", "losses", "mdp", "memory"):
        assert any(file.startswith(folder) for file in covered), folder


def test_faults_that_cannot_be_applied_are_reported():
    fault = FAULTS[0]
    absent, broken = (
        fault._replace(text="in no file"),
        fault._replace(fault="(", tests=["test_none.py"]),
    )
    assert faults.problems([absent]) == [f"{fault.name}: its text occurs 0 times in {fault.file}"]
    unparsable, untested = faults.problems([broken])
    assert "was never closed" in unparsable
    assert untested == f"{fault.name}: there is no tests/test_none.py"


def test_the_tests_of_a_file_are_selected_together():
    one, other = (FAULTS[0]._replace(tests=["a", "b"], select=x) for x in ("x or y", "z"))
    assert faults.without_faults([one, other]) == [
        ("a", "(x or y) or (z)"),
        ("b", "(x or y) or (z)"),
    ]
    assert faults.without_faults([one, other._replace(select="")]) == [("a", ""), ("b", "")]
