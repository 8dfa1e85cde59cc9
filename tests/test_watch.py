"""`dewey index --watch`: files that change are followed, by real processes; only they are read."""

import json
import os
import shutil
import signal
import time

import pytest

from dewey_embed import Index
from dewey_embed.cli.watch import Watch
from dewey_embed.index.file_cache import FileCache
from dewey_embed.text.reader import _Reading
from tests.commands import Dewey, dewey

SECONDS = 2.0
"""From a change of a file to its line."""
PATIENCE = 60


class Watching:
    """A running `dewey index --watch`, and what it printed."""

    def __init__(self, docs, *arguments):
        self.run = Dewey("index", docs, "--watch", *arguments, cwd=docs.parent)
        self.until(lambda: "Ctrl-C ends it" in self.stream("stderr"))
        self.num_lines = len(self.stream("stdout").splitlines())

    def stream(self, name):
        return self.run.printed(name)

    def until(self, happened, seconds=PATIENCE):
        start = time.monotonic()
        while not happened():
            assert self.run.poll() is None, self.stream("stderr")
            assert time.monotonic() - start < seconds, self.stream("stdout")
            time.sleep(0.02)
        return time.monotonic() - start

    def lines(self, number):
        """The next lines, and the seconds until they were there."""
        seconds = self.until(
            lambda: len(self.stream("stdout").splitlines()) >= self.num_lines + number
        )
        new = self.stream("stdout").splitlines()[self.num_lines :]
        self.num_lines += len(new)
        return new, seconds

    def end(self, code=0):
        os.kill(self.run.pid, signal.SIGINT)
        output, errors = self.run.communicate(PATIENCE)
        assert self.run.returncode == code, errors
        assert "Traceback" not in errors
        return output.splitlines()[self.num_lines :], errors


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("Moths eat wool.")
    (folder / "sub" / "b.md").write_text("# Bees\n\nBees make honey.")
    return folder


@pytest.fixture
def watching(docs):
    started = []

    def start(*arguments):
        started.append(Watching(docs, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.run.kill()


def contents(path):
    """All that an index holds of its documents, but for vectors."""
    index = Index.open(path)
    with index._existing().writer() as writer:
        return dict(sorted(writer.held.items()))


def fresh(docs, path):
    """What a run that begins from nothing makes of a folder."""
    Index.open(path).add_files(docs)
    return contents(path)


def test_new_changed_renamed_and_removed_files_are_followed_within_two_seconds(docs, watching):
    index = docs / "my.index"  # what is written there is no change of the documents
    watch = watching("--index", index)
    timings = []

    def expect(*wanted):
        new, seconds = watch.lines(len(wanted))
        assert sorted(new) == sorted(wanted)
        timings.append(seconds)

    (docs / "new.txt").write_text("Whales sing.")
    expect("+ docs/new.txt")
    (docs / "new.txt").write_text("Whales sing at night.")
    expect("~ docs/new.txt")
    (docs / "new.txt").rename(docs / "sub" / "song.txt")
    expect("- docs/new.txt", "+ docs/sub/song.txt")
    (docs / "a.txt").unlink()
    expect("- docs/a.txt")
    shutil.move(docs / "sub", docs / "below")
    expect("- docs/sub/b.md", "- docs/sub/song.txt", "+ docs/below/b.md", "+ docs/below/song.txt")
    assert sorted(timings)[len(timings) // 2] < SECONDS  # a busy machine may delay one of them
    [summary], errors = watch.end()
    assert summary.endswith("2 documents (4 added, 1 changed, 4 removed while watched)")
    assert errors.count("\n") == 1
    assert contents(index) == fresh(docs, docs.parent / "fresh")


def test_half_written_and_unreadable_files_are_named_once_and_read_when_they_change(docs, watching):
    watch = watching("--index", docs.parent / "i")
    pdf = docs / "scan.pdf"
    pdf.write_bytes(b"%PDF-1.4 half")
    watch.until(lambda: "scan.pdf" in watch.stream("stderr"))
    (docs / "c.txt").write_text("Clouds.")
    assert watch.lines(1)[0] == ["+ docs/c.txt"]
    pdf.unlink()
    (docs / "scan.txt").write_text("Scanned.")
    assert watch.lines(1)[0] == ["+ docs/scan.txt"]
    _, errors = watch.end()
    assert errors.count("scan.pdf") == 1


def test_a_folder_that_goes_keeps_its_documents_and_is_followed_when_it_is_back(docs, watching):
    watch = watching("--index", docs.parent / "i")
    docs.rename(docs.parent / "elsewhere")
    watch.until(lambda: "no such file or folder" in watch.stream("stderr"))
    docs.mkdir()
    (docs / "back.txt").write_text("Back again.")
    new, _ = watch.lines(3)
    assert sorted(new) == ["+ docs/back.txt", "- docs/a.txt", "- docs/sub/b.md"]
    (docs / "more.txt").write_text("More.")
    assert watch.lines(1)[0] == ["+ docs/more.txt"]
    watch.end()


def test_json_has_a_line_for_each_change(docs, watching):
    watch = watching("--index", docs.parent / "i", "--json")
    (docs / "sub" / "b.md").unlink()
    [line], _ = watch.lines(1)
    gone = str(docs / "sub" / "b.md")
    assert json.loads(line) == {"added": [], "changed": [], "removed": [gone], "unreadable": []}
    [summary], _ = watch.end()
    assert json.loads(summary)["num_removed"] == 1


def test_another_writer_is_waited_for(docs, watching):
    path = docs.parent / "i"
    watch = watching("--index", path)
    with Index.open(path)._existing().writer():
        (docs / "c.txt").write_text("Clouds.")
        watch.until(lambda: "is being written by another process" in watch.stream("stderr"))
    assert watch.lines(1)[0] == ["+ docs/c.txt"]
    watch.end()


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_what_can_be_read_once_cannot_be_watched(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    result = dewey("index", name, "--index", "i", "--watch", cwd=tmp_path)
    assert result.returncode == 2
    assert "can be read only once" in result.stderr


@pytest.fixture
def files_read(monkeypatch):
    """Names of the files that were opened to be read."""
    names = []
    original = _Reading._documents

    def noted(self, stream, file, *rest, **options):
        names.append(file.path.name)
        return original(self, stream, file, *rest, **options)

    monkeypatch.setattr(_Reading, "_documents", noted)
    return names


def test_only_files_that_changed_are_read_and_encoded(docs, tmp_path, files_read):
    index, cache = Index.open(tmp_path / "i"), FileCache()
    (docs / "bad.pdf").write_bytes(b"%PDF-1.4 half")
    (docs / "r.jsonl").write_text('{"id": "one", "text": "One."}\n{"id": "two", "text": "Two."}\n')
    first = index.add_files(docs, cache=cache)
    assert len(files_read) == 4
    files_read.clear()
    again = index.add_files(docs, cache=cache)
    assert (files_read, again.num_unchanged, again.num_removed) == ([], 4, 0)
    assert again.unreadable == first.unreadable != []

    (docs / "r.jsonl").write_text('{"id": "two", "text": "Two!"}\n')
    (docs / "n.txt").write_text("New.")
    report = index.add_files(docs, cache=cache)
    assert sorted(files_read) == ["n.txt", "r.jsonl"]
    assert (report.added, report.changed, report.removed) == (
        [str(docs / "n.txt")],
        ["two"],
        ["one"],
    )
    assert contents(tmp_path / "i") == fresh(docs, tmp_path / "fresh")


def test_a_file_whose_document_left_the_index_is_read_again(docs, tmp_path, files_read):
    index, cache = Index.open(tmp_path / "i"), FileCache()
    index.add_files(docs, cache=cache)
    files_read.clear()
    index.remove(docs / "a.txt")
    assert index.add_files(docs, cache=cache).added == [str(docs / "a.txt")]
    assert files_read == ["a.txt"]


def test_documents_with_one_id_are_kept_apart_as_by_a_full_run(docs, tmp_path):
    index, cache = Index.open(tmp_path / "i"), FileCache()
    (docs / "r.jsonl").write_text('{"id": "one", "text": "One."}')
    (docs / "s.jsonl").write_text('{"id": "one", "text": "Another."}')
    for _ in range(2):
        report = index.add_files(docs, cache=cache)
        assert [fault.source for fault in report.unreadable] == [str(docs / "s.jsonl")]
    (docs / "r.jsonl").unlink()
    assert index.add_files(docs, cache=cache).changed == ["one"]
    assert index.document("one").text == "Another."


def test_linked_files_and_named_files_are_looked_at(docs, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("Outside.")
    named = tmp_path / "named.txt"
    named.write_text("Named.")
    (docs / "link.txt").symlink_to(outside)
    index = Index.open(tmp_path / "i")
    inputs = [str(docs), str(named)]

    def update(cache, **_):
        return index.add_files(inputs, cache=cache)

    watch = Watch(index, inputs, update, False)
    events = watch._changes()
    next(events)
    update(watch.cache)
    for path in (outside, named):
        path.write_text(f"{path.stem} has changed.")
        for _ in range(20):
            if paths := next(events):
                watch.cache.forget(paths)
                break
        assert update(watch.cache).changed == [str(path)]
