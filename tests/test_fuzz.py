"""Random command lines, damaged run directories and random configurations, see scripts/fuzz.py."""

import pytest

from scripts import fuzz


@pytest.mark.parametrize(("kind", "cases"), [("configurations", 150), ("command lines", 20)])
def test_a_few_random_inputs_are_accepted_or_refused_in_one_line(kind, cases, capfd):
    with capfd.disabled():
        assert fuzz.KINDS[kind](cases, seed=1).faults == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_random_inputs_are_accepted_or_refused_in_one_line(kind):
    assert fuzz.main(["--cases", "2000", "--only", kind]) == 0
