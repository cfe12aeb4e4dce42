"""The list of planted faults (mutants.py) fits the code: each finds its place, once, and its tests exist."""

from tests.conftest import ROOT
from tests.mutants import listed


def test_every_planted_fault_finds_its_place_once_and_has_its_tests():
    for mutant in listed():
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant.name
        assert mutant.tests and all((ROOT / test).is_file() for test in mutant.tests), mutant.name
        assert mutant.new != mutant.old, mutant.name


def test_no_planted_fault_is_listed_twice():
    names = [mutant.name for mutant in listed()]
    assert len(names) == len(set(names))
