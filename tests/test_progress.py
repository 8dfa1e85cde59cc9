"""Progress: a line every ten seconds where there is no terminal, none for what takes less."""

import re
import time

import pytest

from dewey_embed import Document, Index, progress
from dewey_embed.progress import progress_bar


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.05)


def test_lines_say_how_far_a_run_is_and_which_file_is_in_work(capsys, fast):
    with progress_bar("indexing", 200_000, "bytes", show=True) as bar:
        bar.work_on("a\x1b[2J.txt")
        bar(1_500)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    said = re.fullmatch(
        r"dewey: indexing: 1,500 of 200,000 bytes, ([\d,]+) bytes/s, \d:\d\d:\d\d left, "
        r"a\\u001b\[2J\.txt",
        lines[0],
    )
    assert said
    assert int(said[1].replace(",", "")) > 3_000  # in less than half a second
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_short_run_and_one_without_progress_print_nothing(capsys, monkeypatch):
    with progress_bar("indexing", 2_000, "bytes", show=True) as bar:
        bar(1_500)
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with progress_bar("indexing", None, "bytes", show=False) as bar:
        bar(1)
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_indexing_names_the_file_in_work_and_moves_with_every_batch(tmp_path, monkeypatch):
    seen = []
    called, named = progress.Progress.__call__, progress.Progress.work_on

    def call(self, amount):
        called(self, amount)
        seen.append((self.name, self.done))

    def work_on(self, name):
        named(self, name)
        seen.append((self.name, self.done))

    monkeypatch.setattr(progress.Progress, "__call__", call)
    monkeypatch.setattr(progress.Progress, "work_on", work_on)
    (tmp_path / "docs").mkdir()
    for name, sentences in (("long", 4000), ("short", 10)):
        (tmp_path / "docs" / f"{name}.txt").write_text("Moths eat wool and silk. " * sentences)
    with Index.open(tmp_path / "i") as index:
        index.add_files(tmp_path / "docs")
        index.add(Document(id="n", text="Clouds."))
    names = list(dict.fromkeys(name for name, _ in seen))
    assert {"long.txt", "short.txt", "long.txt and 1 more", "n"} <= set(names)
    amounts = sorted({done for name, done in seen if name == "long.txt and 1 more"})
    assert len(amounts) > 2  # while it is encoded
    assert max(done for name, done in seen if name != "n") == 100_250
