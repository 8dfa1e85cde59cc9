"""An index at an address: the answers of the folder that was copied there."""

import json
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from dewey_embed import Document, Index
from dewey_embed.cli.app import app
from dewey_embed.errors import ConfigError, IndexStoreError, StorageError
from dewey_embed.storage import Address, folder_named, open_place

TEXTS = {
    "lease": "The tenant pays the rent on the first of the month. The owner mends the roof.",
    "ships": "Ships carry timber over wide seas. Sailors sing while the wind is fair.",
    "moths": "Moths eat wool and silk. They fly at night, and lamps draw them.",
}
QUERIES = ("who pays the rent?", "what do insects eat?", "timber")


def copy(folder: Path, name: str) -> None:
    """Copy a folder to the bucket, as `aws s3 sync --delete` does."""
    client = boto3.client("s3")
    listed = client.list_objects_v2(Bucket="bucket", Prefix=f"{name}/").get("Contents", ())
    for each in listed:
        client.delete_object(Bucket="bucket", Key=each["Key"])
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{name}/{path.relative_to(folder).as_posix()}"
            client.upload_file(str(path), "bucket", key)


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Index.open(tmp_path / "my.index")
    made.add([Document(id=name, text=text) for name, text in TEXTS.items()])
    return made


def test_it_answers_as_the_folder_does_and_follows_what_is_copied(index, object_storage, tmp_path):
    address = f"{object_storage}/my.index"
    copy(index.path, "my.index")
    there = Index.open(address)
    assert (str(there.path), len(there), there.num_chunks) == (address, 3, index.num_chunks)
    for mode in ("hybrid", "multi", "single"):
        for query in QUERIES:
            assert there.search(query, mode=mode) == index.search(query, mode=mode)
    assert there.document("moths") == index.document("moths")
    assert [each.id for each in there.documents()] == sorted(TEXTS)
    assert not there.has_changed("moths")

    # One layout is kept here, and is that of the newest copy.
    index.add(Document(id="bees", text="Bees make honey in the hollow of an old oak."))
    copy(index.path, "my.index")
    assert there.search("honey", k=1)[0].document_id == "bees"
    assert len(list((tmp_path / "cache").rglob("derived/*"))) == 1
    with pytest.raises(IndexStoreError, match="can only be read there"):
        there.add(Document(id="x", text="No."))
    with pytest.raises(IndexStoreError, match="can only be read there"):
        there.remove("moths")


def test_commands_read_it(index, object_storage):
    copy(index.path, "commands.index")
    address = f"{object_storage}/commands.index"
    found = CliRunner().invoke(app, ["search", address, "--json", "who", "pays", "the", "rent?"])
    [hit, *_] = json.loads(found.stdout)["hits"]
    assert hit["document_id"] == "lease"
    listed = CliRunner().invoke(app, ["list", address])
    assert listed.stdout.splitlines() == sorted(TEXTS)
    facts = json.loads(CliRunner().invoke(app, ["info", address, "--json"]).stdout)
    assert (facts["index"], facts["num_documents"]) == (address, 3)
    assert facts["bytes"] > 1000


def test_what_is_not_there_and_what_cannot_be_looked_at_are_told_apart(
    index, object_storage, monkeypatch
):
    with pytest.raises(IndexStoreError, match="not there: the bucket 'bucket' holds nothing under"):
        Index.open(f"{object_storage}/nowhere.index")
    boto3.client("s3").put_object(Bucket="bucket", Key="notes/a.txt", Body=b"moths")
    with pytest.raises(IndexStoreError, match=r"notes holds no dewey\.json: it is no Dewey index"):
        Index.open(f"{object_storage}/notes")
    copy(index.path, "away.index")
    there = Index.open(f"{object_storage}/away.index")
    assert len(there) == 3
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"away\.index/dewey\.json cannot be reached"):
        Index.open(f"{object_storage}/away.index")
    ended = CliRunner().invoke(app, ["search", f"{object_storage}/away.index", "rent"])
    assert isinstance(ended.exception, StorageError)


@pytest.mark.parametrize(
    "words",
    [
        ("search", "s3://missing/my.index", "rent"),
        ("list", "s3://missing/my.index"),
        ("info", "s3://missing/my.index"),
        ("remove", "s3://missing/my.index", "a"),
        ("index", __file__, "--index", "s3://missing/my.index"),
        ("encode", "s3://missing/docs", "-o", "v.lance", "--ray"),
        ("encode", "s3://missing/docs.lance", "-o", "v.lance", "--ray"),
        ("encode", __file__, "-o", "s3://missing/v.lance", "--ray"),
        ("encode", __file__, "-o", "s3://missing/v.parquet", "--ray"),
        ("encode", __file__, "-o", "s3://missing/v.index", "--ray"),
    ],
    ids=" ".join,
)
def test_a_bucket_that_does_not_exist_is_named(words, object_storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, StorageError)
    assert "the bucket 'missing' does not exist at http://127.0.0.1" in str(error)
    assert "make it, or check the address" in str(error)


def test_an_address_without_a_bucket_is_refused():
    with pytest.raises(ConfigError, match="no bucket; give s3://bucket/folder"):
        Index.open("s3:///my.index")
    with pytest.raises(ConfigError, match="names no bucket; give s3://bucket/folder"):
        open_place("s3:///docs")


def test_damaged_rows_are_refused(index, object_storage):
    copy(index.path, "damaged.index")
    client = boto3.client("s3")
    for each in client.list_objects_v2(Bucket="bucket", Prefix="damaged.index/chunks.lance/data")[
        "Contents"
    ]:
        body = bytearray(client.get_object(Bucket="bucket", Key=each["Key"])["Body"].read())
        for place in range(0, len(body) // 2, 7):
            body[place] ^= 0xFF
        client.put_object(Bucket="bucket", Key=each["Key"], Body=bytes(body))
    with pytest.raises(IndexStoreError, match=r"index s3://bucket/damaged\.index"):
        Index.open(f"{object_storage}/damaged.index").search("rent")


def test_addresses_are_folders_with_names_and_parts():
    address = folder_named("s3://bucket/a/my.index")
    assert isinstance(address, Address)
    assert (str(address), address.name, str(address.parent)) == (
        "s3://bucket/a/my.index", "my.index", "s3://bucket/a",
    )  # fmt: skip
    assert f"{address / 'dewey.json'}" == "s3://bucket/a/my.index/dewey.json"
    assert folder_named("a/b") == Path("a/b")
    assert not address.exists()
