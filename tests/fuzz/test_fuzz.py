"""Every target holds of its corpus, which has all that ever broke one, and of random cases."""

import random
from pathlib import Path

import pytest

from tests.fuzz.cases import mutated
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
