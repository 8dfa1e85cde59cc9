"""Every target holds of its corpus, which has all that ever broke one, and of random cases."""

import random
from pathlib import Path

import pytest

from tests.fuzz.cases import mutated
from tests.fuzz.results import Result
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MAX_CORPUS_BYTES = 1_000_000


@pytest.mark.parametrize("name", TARGETS)
def test_the_promise_holds_of_the_corpus_and_of_random_cases(name):
    target = TARGETS[name]
    check = target.make()
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for seed in seeds:
        check(seed)
    choose = random.Random(31)
    for _ in range(target.cases_in_tests):
        check(mutated(seeds, choose, target.max_bytes))


def test_the_corpus_is_small_and_has_a_folder_for_each_target():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < MAX_CORPUS_BYTES


def test_runs_add_up_until_one_finds_something():
    one, other = Result(1, 100, 5, 0, 0, 0, 2.0, 7), Result(1, 50, 4, 0, 0, 0, 9.0, 3)
    faulty = Result(1, 10, 1, 0, 1, 0, 1.0, 1)
    assert one + other == other + one == Result(2, 150, 9, 0, 0, 0, 9.0, 3)
    assert one + faulty == faulty
    assert faulty + other == other
