"""Sources in pieces: whatever the pieces are, the documents are those of one reading."""

import json
import pickle
from pathlib import Path

import boto3
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dewey_embed import Dewey
from dewey_embed.cluster import sources
from dewey_embed.cluster.outputs import Making, open_rows
from dewey_embed.cluster.sources import Piece, SourceFile, divide, list_sources, read_groups
from dewey_embed.errors import ConfigError, ReadError, StorageError
from dewey_embed.text.reader import read_documents, read_options
from dewey_embed.types import Document, Unreadable


def read(*inputs, max_chars=1000, **fields):
    """Everything that the pieces of some inputs give, and the pieces."""
    listed = list_sources([str(each) for each in inputs])
    pieces = [
        piece
        for each in sources.pieces_of(each for each in listed if isinstance(each, SourceFile))
        for piece in ([each] if isinstance(each, Piece) else divide(each))
    ]
    options = read_options(**fields)
    groups = [group for piece in pieces for group in read_groups(piece, options, max_chars)]
    faults = [each for each in listed if isinstance(each, Unreadable)]
    faults += [fault for group in groups for fault in group.faults]
    return [document for group in groups for document in group.documents], faults, pieces, groups


def lines_of(records):
    return "".join(json.dumps(each) + "\n" for each in records)


@pytest.fixture
def folder(tmp_path):
    texts = [{"text": f"Record {number} speaks of ships. " * (number % 7)} for number in range(200)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jsonl").write_text(lines_of(texts) + "no record\n" + lines_of([{"id": "z"}]))
    (tmp_path / "sub" / "b.md").write_text("# Moths\n\nThey eat wool.")
    (tmp_path / "c.txt").write_bytes(b"\0\1\2")
    (tmp_path / "d.html").write_text("<title>Ships</title><p>They carry timber.")
    (tmp_path / "e.unknown").write_text("passed over")
    return tmp_path


@pytest.mark.parametrize("piece_bytes", [64_000_000, 5000, 700, 1])
def test_files_in_pieces_of_any_size_give_what_one_reading_gives(folder, piece_bytes, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", piece_bytes)
    documents, faults, pieces, _ = read(folder)
    expected = list(read_documents([folder]))
    assert documents == [each for each in expected if isinstance(each, Document)]
    assert sorted(map(str, faults)) == sorted(
        str(each) for each in expected if isinstance(each, Unreadable)
    )
    assert (len(pieces) > 1) == (piece_bytes < 64_000_000)
    assert piece_bytes < 5000 or sum(piece.num_bytes for piece in pieces) == sum(
        path.stat().st_size for path in folder.rglob("*.*") if path.suffix != ".unknown"
    )


def test_groups_hold_so_many_characters_or_one_document(folder):
    documents, _, _, groups = read(folder, max_chars=300)
    sizes = [sum(len(each.text) for each in group.documents) for group in groups]
    assert all(size <= 300 or len(g.documents) == 1 for size, g in zip(sizes, groups, strict=True))
    assert max(sizes) > 150
    assert sum(len(group.documents) for group in groups) == len(documents)


def shares(path, max_chars):
    """The bytes of each group of a source, which are those of its only piece."""
    documents, _, [piece], groups = read(path, max_chars=max_chars)
    assert len(documents) > 1
    assert sum(group.num_bytes for group in groups) == piece.num_bytes
    return [group.num_bytes for group in groups], piece


@pytest.mark.parametrize("text", ["moths eat wool ", "Motten fräßen Wölle ", "蛾は絹を食べる"])
def test_groups_of_lines_have_their_share_of_the_bytes(text, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text * 50}, ensure_ascii=False) + "\n" for _ in range(40)),
        encoding="utf-8",
    )
    size = path.stat().st_size
    for piece_bytes in (64_000_000, size - 1):  # as one of several files, and in ranges
        monkeypatch.setattr(sources, "PIECE_BYTES", piece_bytes)
        if piece_bytes > size:
            found, piece = shares(path, len(text) * 500)
            assert (piece.kind, piece.num_bytes) == ("files", size)
            assert found == pytest.approx([size / 4] * 4, rel=0.06)
        else:
            _, _, [first, _], groups = read(path, max_chars=len(text) * 500)
            assert first.kind == "lines"
            assert groups[0].num_bytes == pytest.approx(size / 4, rel=0.06)


def test_a_file_whose_text_is_shorter_counts_when_it_is_read(tmp_path):
    for name in "abcd":
        page = "<p>Moths eat wool.</p>" + "<!-- " + "x" * 5000 + " -->"
        (tmp_path / f"{name}.html").write_text(page)
    found, piece = shares(tmp_path, 1)
    assert found == [piece.num_bytes // 4] * 4


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_groups_of_rows_have_their_share_of_the_bytes_on_disk(kind, tmp_path):
    table = pa.table({"text": [f"moths {n} " * 100 for n in range(10, 50)]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        lance.write_dataset(table, path)
    found, piece = shares(path, 9000)
    assert piece.num_rows == 40
    assert found == pytest.approx([piece.num_bytes / 4] * 4, abs=1)
    if kind == "lance":
        assert piece.num_bytes == sum(each.stat().st_size for each in path.glob("data/*"))


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_rows_of_tables_are_documents_in_pieces_of_any_size(kind, tmp_path, monkeypatch):
    rows = [{"id": f"d{i}", "text": f"Row {i}.", "title": f"t{i}", "year": i} for i in range(50)]
    table = pa.Table.from_pylist(rows).append_column(
        "vector", pa.array([[0.5, 0.5]] * 50, pa.list_(pa.float32()))
    )
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=7)
    else:
        lance.write_dataset(table, path, max_rows_per_file=7)
    monkeypatch.setattr(sources, "PIECE_BYTES", 1)
    documents, faults, pieces, _ = read(path)
    assert (len(pieces), faults) == (8, [])
    assert [(each.id, each.text, each.title, each.metadata["year"]) for each in documents] == [
        (row["id"], row["text"], row["title"], row["year"]) for row in rows
    ]
    documents, _, _, _ = read(path, text_fields=["title"], id_field="text")
    assert (documents[9].text, documents[9].id) == ("t9", "Row 9.")


def test_a_row_without_an_id_is_named_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 1)
    pq.write_table(pa.table({"text": ["a b", "", "c d"]}), tmp_path / "t.parquet", row_group_size=1)
    documents, [fault], _, _ = read(tmp_path)
    assert [each.id.rpartition("#")[2] for each in documents] == ["1", "3"]
    assert (fault.line, fault.reason, fault.skipped) == (2, "empty", True)


def test_tables_without_the_column_or_with_other_bytes_are_faults(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "t.parquet")
    _, [fault], _, _ = read(tmp_path / "t.parquet")
    assert "no column 'text'; it has 'body'" in fault.reason
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    [listed] = list_sources([str(tmp_path / "t.parquet")])
    with pytest.raises(ReadError, match="a damaged parquet file"):
        divide(listed)


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("column", ["note", "text"])
def test_a_parquet_file_with_pickles_in_it_is_read_without_them(column, tmp_path):
    # Ray's type for objects: every process of Ray knows it, and opens a value that is looked at.
    import ray.data  # noqa: F401

    field = pa.field(
        column, pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"}
    )
    table = pa.table([[pickle.dumps(Evil(tmp_path / "touched"))]], schema=pa.schema([field]))
    if column == "note":
        table = table.append_column("text", [["rent"]])
    pq.write_table(table, tmp_path / "t.parquet")
    documents, faults, _, _ = read(tmp_path / "t.parquet")
    assert not (tmp_path / "touched").exists()
    assert [each.text for each in documents] == (["rent"] if column == "note" else [])
    assert [("holds extension" in each.reason) for each in faults] == [True] * (column == "text")


def test_a_file_of_other_columns_in_an_output_is_refused_unread(tmp_path):
    import ray.data  # noqa: F401

    place = open_rows(str(tmp_path / "out.parquet"), Dewey.load(), Making())
    place.begin()
    number = place.schema.get_field_index("hash")
    kind = {"ARROW:extension:name": "ray.data.arrow_pickled_object"}
    schema = place.schema.set(number, pa.field("hash", pa.binary(), metadata=kind))
    row = dict.fromkeys(schema.names) | {"hash": pickle.dumps(Evil(tmp_path / "touched"))}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "out.parquet/a.parquet")
    with pytest.raises(ConfigError, match="has other columns than dewey encode --ray writes"):
        place.begin()
    assert not (tmp_path / "touched").exists()


def test_inputs_that_are_not_there_or_are_streams_are_refused(tmp_path):
    with pytest.raises(ReadError, match="no such file or folder"):
        list_sources([str(tmp_path / "missing")])
    with pytest.raises(ReadError, match="standard input cannot be read by many machines"):
        list_sources(["-"])


def test_object_storage_gives_what_a_folder_gives(folder, object_storage):
    client = boto3.client("s3")
    for path in folder.rglob("*.*"):
        client.upload_file(str(path), "bucket", f"docs/{path.relative_to(folder).as_posix()}")
    here, faults, _, _ = read(folder)
    there, remote_faults, _, _ = read(f"{object_storage}/docs")

    def place(name: str) -> str:
        return name.replace(str(folder), f"{object_storage}/docs")

    assert {(place(each.id), each.text, each.title) for each in here} == {
        (each.id, each.text, each.title) for each in there
    }
    assert {(place(each.source), each.line, each.skipped) for each in faults} == {
        (each.source, each.line, each.skipped) for each in remote_faults
    }
    [one], _, _, _ = read(f"{object_storage}/docs/sub/b.md")
    assert one.title == "Moths"


def test_storage_that_cannot_be_reached_is_never_missing(monkeypatch, object_storage):
    with pytest.raises(ReadError, match="bucket is there and holds nothing under this name: s3"):
        list_sources([f"{object_storage}/nowhere"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached"):
        list_sources([f"{object_storage}/docs"])


def test_lines_past_a_cut_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 40)
    lines = [
        '{"text": "one two three four five six seven eight nine ten"}',
        "bad",
        "",
        '{"text": "x"}',
    ]
    Path(tmp_path, "a.jsonl").write_text("\n".join(lines * 5))
    documents, faults, _, _ = read(tmp_path / "a.jsonl")
    numbers = [int(each.id.rpartition("#")[2]) for each in documents]
    assert numbers == [n for n in range(1, 21) if n % 4 in (1, 0)]
    assert [fault.line for fault in faults] == [2, 6, 10, 14, 18]
