"""`dewey encode --ray` on a real cluster of this machine: as one process, whatever dies."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dewey_embed import Dewey, Document, Index
from dewey_embed.cli.app import app
from dewey_embed.cluster import session
from dewey_embed.cluster.encode import ClusterOptions, encode_on_ray
from dewey_embed.cluster.index_output import open_index
from dewey_embed.cluster.outputs import ROWS, SETTINGS_KEY, Making, open_rows
from dewey_embed.cluster.session import Node, Workers, connected, fitted
from dewey_embed.errors import ClusterError, ConfigError, IndexStoreError, StorageError
from dewey_embed.files import locked
from dewey_embed.index.store import Store
from dewey_embed.storage import open_place
from dewey_embed.text.reader import read_documents

NUM = 100
GROUP_CHARS = 4000
WORDS = (
    "tenants",
    "pay",
    "rent",
    "ships",
    "carry",
    "timber",
    "over",
    "seas",
    "moths",
    "eat",
    "silk",
)


def record(number: int, seed: int = 0) -> dict:
    rng = random.Random(f"{number}-{seed}")
    text = " ".join(rng.choices(WORDS, k=rng.randint(5, 300)))
    return {"id": f"d{number}", "text": text, "title": f"t{number}", "year": 1900 + number}


def write_corpus(path, seeds=None):
    lines = [json.dumps(record(number, (seeds or {}).get(number, 0))) for number in range(NUM)]
    path.write_text("\n".join([*lines[:50], "no record", *lines[50:]]) + "\n")
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "docs.jsonl")


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """The rows of one process without Ray, in the order of ids and chunks."""
    path = tmp_path_factory.mktemp("one") / "one.parquet"
    words = ["encode", str(corpus), "-o", str(path), "--chunks", "--with-texts"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    return ordered(pq.read_table(path))


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([("document_id", "ascending"), ("chunk", "ascending")])


def rows_in(name: str) -> pa.Table:
    """All rows of an output, in the order of ids and chunks, without their digests."""
    if name.endswith(".lance"):
        import lance

        from dewey_embed.storage import lance_options

        table = lance.dataset(name, storage_options=lance_options(name)).to_table()
    else:
        place = open_place(name)
        table = pq.read_table(place.path, filesystem=place.system)
    return ordered(table.drop_columns(["hash"]))


def vectors_of(table: pa.Table) -> np.ndarray:
    return np.stack(table["vector"].to_numpy(zero_copy_only=False))


def assert_same(table: pa.Table, expected: pa.Table) -> None:
    """Nothing twice, nothing missing, and the vectors those of other batches to 1e-6."""
    assert table.drop_columns(["vector"]) == expected.drop_columns(["vector"])
    assert np.abs(vectors_of(table) - vectors_of(expected)).max() < 1e-6


OPTIONS = ClusterOptions(making=Making(chunks=True, texts=True), group_chars=GROUP_CHARS)


def encoders() -> list[psutil.Process]:
    """The processes of the pool that encodes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "MapBatches(_Encoder)" in words:
            found.append(process)
    return found


class Killer(threading.Thread):
    """Kills one of the encoders as soon as something was written."""

    def __init__(self, output):
        super().__init__()
        self.output, self.killed = output, None

    def run(self):
        while not any(self.output.glob("data/*.lance")):
            time.sleep(0.02)
        [*_, victim] = sorted(encoders(), key=lambda each: each.pid)
        self.killed = victim.pid
        os.kill(victim.pid, signal.SIGKILL)


def test_a_killed_worker_changes_nothing(cluster, corpus, expected, tmp_path):
    output = tmp_path / "many.lance"
    killer = Killer(output)
    killer.start()
    # They take all processors of the cluster: what reads the sources needs none.
    workers = Workers(num=2, cpus=2)
    report = encode_on_ray([str(corpus)], str(output), workers=workers, options=OPTIONS)
    killer.join()
    assert killer.killed is not None
    assert not psutil.pid_exists(killer.killed)
    assert (report.num_documents, report.num_held, report.num_removed) == (NUM, 0, 0)
    assert [str(each) for each in report.faults if not each.skipped] == [
        f"{corpus}, line 51: not JSON: Expecting value: line 1 column 1 (char 0)"
    ]
    assert_same(rows_in(str(output)), expected)


@pytest.mark.slow
def test_only_what_is_not_in_the_output_is_encoded(cluster, corpus, tmp_path):
    output, workers = tmp_path / "many.lance", Workers(num=2)
    encode_on_ray([str(corpus)], str(output), workers=workers, options=OPTIONS)
    same = encode_on_ray([str(corpus)], str(output), workers=workers, options=OPTIONS)
    assert (same.num_documents, same.num_held, same.num_removed) == (0, NUM, 0)
    try:
        write_corpus(corpus, {7: 1})
        again = encode_on_ray([str(corpus)], str(output), workers=workers, options=OPTIONS)
    finally:
        write_corpus(corpus)
    assert (again.num_documents, again.num_held, again.num_removed) == (1, NUM - 1, 1)
    rows = rows_in(str(output)).to_pylist()
    texts = {row["document_id"]: row["text"] for row in rows if row["chunk"] is None}
    assert texts == {f"d{n}": record(n, 1 if n == 7 else 0)["text"] for n in range(NUM)}


@pytest.mark.slow
def test_parquet_on_object_storage_is_that_of_one_process(
    cluster, corpus, expected, object_storage
):
    output = f"{object_storage}/vectors.parquet"
    making = Making(chunks=True)
    choice = ClusterOptions(making=making, group_chars=GROUP_CHARS)
    report = encode_on_ray([str(corpus)], output, workers=Workers(num=2), options=choice)
    assert (report.num_documents, report.num_held) == (NUM, 0)
    rows = rows_in(output)
    assert_same(rows, expected.select(rows.column_names))


def table_in(output, name="") -> pa.Table:
    """All rows of an output on this machine, in an order of their own."""
    if output.suffix == ".parquet":
        table = pq.read_table(output)
    else:
        import lance

        table = lance.dataset(output / name).to_table()
    keys = [each for each in ("document_id", "chunk", "hash", "document_hash", "ordinal")
            if each in table.column_names]  # fmt: skip
    return table.sort_by([(each, "ascending") for each in keys])


COMMITTED = {
    ".lance": "_versions/*.manifest",
    ".parquet": "*.parquet",
    ".index": "documents.lance/_versions/*.manifest",
}
"""What there are two of once an output was made and a group is in it; of Parquet, two groups."""


def run_of_its_own(corpus, output, until=None):
    """A run with a cluster of its own, killed (SIGKILL) once `until` two files are there."""
    script = (
        "import sys; from dewey_embed.cluster import encode as e; "
        "from dewey_embed.cluster.session import Workers; "
        "e.encode_on_ray(sys.argv[1:2], sys.argv[2], workers=Workers(num=1), "
        "options=e.ClusterOptions("
        f"making=e.Making(chunks=True, texts=True), group_chars={GROUP_CHARS}))"
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-c", script, str(corpus), str(output)]
    with subprocess.Popen(words, env=unset, stderr=subprocess.PIPE, text=True) as process:
        if until is None:
            assert (process.communicate(timeout=300)[1], process.returncode) == ("", 0)
            return
        while len(list(output.glob(until))) < 2:
            time.sleep(0.02)
            assert process.poll() is None
        below = psutil.Process(process.pid).children(recursive=True)
        works = [each for each in below if "Agent" not in each.name()]  # these end in a minute
        process.kill()
    _, alive = psutil.wait_procs(works, 30)
    assert works
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMITTED)
def test_a_killed_command_goes_on_to_what_an_unbroken_one_makes(kind, corpus, tmp_path):
    killed, unbroken = tmp_path / f"killed{kind}", tmp_path / f"unbroken{kind}"
    run_of_its_own(corpus, killed, COMMITTED[kind])
    own = "documents.lance" if kind == ".index" else ""
    before = table_in(killed, own)
    run_of_its_own(corpus, killed)
    run_of_its_own(corpus, unbroken)
    assert 0 < before.num_rows < table_in(unbroken, own).num_rows
    for name in ("documents.lance", "chunks.lance") if kind == ".index" else ("",):
        assert table_in(killed, name) == table_in(unbroken, name)  # bit for bit
    if kind == ".index":
        with Index.open(killed) as one, Index.open(unbroken) as other:
            assert one.search("who pays the rent?", 10) == other.search("who pays the rent?", 10)
            assert one.add_files(corpus).num_unchanged == NUM


def contents_in(name: str) -> list[str]:
    """The digests of all rows of an output on this machine."""
    if name.endswith(".lance"):
        import lance

        return lance.dataset(name).to_table()["hash"].to_pylist()
    return pq.read_table(name)["hash"].to_pylist()


def rows_output(path, settings: dict):
    """An output of rows with three columns."""
    names = {"document_id": pa.string(), "chunk": pa.int64(), "hash": pa.string()}
    metadata = {SETTINGS_KEY: json.dumps(settings).encode()}
    return ROWS[path.suffix](str(path), Making(), pa.schema(names, metadata))


@pytest.mark.parametrize("kind", ROWS)
def test_an_output_knows_what_it_holds_and_removes_it(kind, tmp_path):
    output = rows_output(tmp_path / f"v{kind}", {"splitter": "tokens"})
    assert len(output.begin().ids) == 0
    table = pa.Table.from_pylist(
        [{"document_id": "a", "chunk": chunk, "hash": "0" * 32} for chunk in (None, 0)],
        schema=output.schema,
    )
    output.commit(output.write(table))
    held = output.begin()
    assert (held.contents_of("a"), held.contents_of("b")) == ({bytes(16)}, set())
    with pytest.raises(ConfigError, match="written with splitter='tokens', not with splitter="):
        rows_output(tmp_path / f"v{kind}", {"splitter": "words"}).begin()
    other = table.set_column(0, "document_id", pa.array(["b", "b"]))
    other = other.set_column(2, "hash", pa.array(["1" * 32] * 2))
    output.commit(output.write(pa.concat_tables([table, other.cast(output.schema)])))
    held = output.begin()
    assert held.repeated([]) == ["0" * 32]
    assert held.repeated([bytes.fromhex("1" * 32)]) == ["0" * 32, "1" * 32]
    output.remove_repeats(["0" * 32])
    assert output.begin().repeated([]) == []
    assert sorted(contents_in(output.name)) == ["0" * 32] * 2 + ["1" * 32] * 2
    output.remove(["0" * 32])
    assert contents_in(output.name) == ["1" * 32] * 2


@pytest.mark.parametrize("suffix", [pytest.param(".lance", marks=pytest.mark.slow), ".index"])
def test_an_id_of_two_contents(cluster, suffix, tmp_path):
    """Rows hold both, whichever came first; an index holds one, always the same, and names it.

    One that comes twice counts once.
    """
    lines = [{"id": "a", "text": text} for text in ("moths eat wool", "ships carry timber")]
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(json.dumps(lines[0]))
    two.write_text("\n".join(map(json.dumps, [*lines, *lines])))
    output, found = str(tmp_path / f"out{suffix}"), []
    for source in (one, two, two):
        report = encode_on_ray([str(source)], output, workers=Workers(num=1), options=OPTIONS)
        counted = report.num_documents + report.num_held
        assert counted == (1 if suffix == ".index" or source == one else 2)
        if suffix == ".lance":
            texts = rows_in(output).filter(pa.compute.field("chunk").is_null())["text"]
            found.append(sorted(texts.to_pylist()))
            assert not report.faults
        else:
            with Index.open(output) as index:
                assert (len(index), index.num_chunks) == (1, 1)
                found.append([index.document("a").text])
            assert [each.document_id for each in report.faults] == ["a"] * (source == two)
    assert found[1] == found[2]
    assert len(found[1]) == 1 + (suffix == ".lance")


class Deadly(ROWS[".lance"]):
    """An output where whoever encodes dies."""

    def encode(self, model, documents, begin):
        os._exit(9)


@pytest.mark.slow
def test_documents_that_kill_every_worker_end_the_run(cluster, corpus, tmp_path, monkeypatch):
    import ray.cloudpickle

    monkeypatch.setitem(ROWS, ".lance", Deadly)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with pytest.raises(ClusterError, match="the cluster lost its work"):
            encode_on_ray([str(corpus)], str(tmp_path / "v.lance"), workers=Workers(num=1))
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize(
    ("kind", "files"), [(".lance", "data/*"), (".lance", "_versions/*"), (".parquet", "*")]
)
def test_a_torn_file_of_an_output_is_damage_by_name(kind, files, tmp_path):
    output = rows_output(tmp_path / f"v{kind}", {})
    output.begin()
    table = pa.Table.from_pylist([{"document_id": "a", "hash": "0" * 32}], schema=output.schema)
    output.commit(output.write(table))
    for file in (tmp_path / f"v{kind}").glob(files):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(StorageError, match="is damaged or was not written completely"):
        output.begin()


def test_a_changed_byte_in_a_parquet_file_of_an_output_is_damage_by_name(tmp_path):
    output = rows_output(tmp_path / "v.parquet", {})
    output.begin()
    rows = [{"document_id": f"document-{n}", "hash": f"{n:032x}"} for n in range(50)]
    output.commit(output.write(pa.Table.from_pylist(rows, schema=output.schema)))
    [file] = (tmp_path / "v.parquet").glob("*")
    data = bytearray(file.read_bytes())
    data[data.index(b"document-")] ^= 1
    file.write_bytes(data)
    with pytest.raises(StorageError, match=file.name):
        output.begin()


@pytest.mark.parametrize("kind", [".lance", ".parquet", ".index"])
def test_of_two_runs_on_one_output_the_second_is_refused(kind, corpus, tmp_path):
    output = tmp_path / f"v{kind}"
    with locked(tmp_path / f".v{kind}.lock"), pytest.raises(ClusterError, match="another run is"):
        encode_on_ray([str(corpus)], str(output), workers=Workers(num=1))
    assert not output.exists()


def test_an_index_is_written_by_one_command_at_a_time(corpus, tmp_path):
    path = tmp_path / "my.index"
    with Index.open(path) as index:
        index.add(Document(id="more", text="Bees make honey."))
        with (
            Store.open(path).alone(),
            pytest.raises(IndexStoreError, match="is being written by another process"),
        ):
            encode_on_ray([str(corpus)], str(path), workers=Workers(num=1))
        output = open_index(str(path), Dewey.load(), Making())
        with output.alone(), pytest.raises(IndexStoreError, match="is being written by another"):
            index.add(Document(id="late", text="Wasps do not."))
        output.begin()
        with output.alone():
            output.finish()
        assert len(index) == 1


def test_an_output_whose_making_a_full_disk_stopped_is_made_anew(tmp_path):
    for name in ("_versions", "_transactions"):
        (tmp_path / "v.lance" / name).mkdir(parents=True)
    assert len(rows_output(tmp_path / "v.lance", {}).begin().ids) == 0


def test_a_folder_of_other_files_is_no_output(tmp_path):
    (tmp_path / "v.parquet").mkdir()
    (tmp_path / "v.parquet/note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="none is Parquet"):
        rows_output(tmp_path / "v.parquet", {}).begin()


def test_a_head_that_takes_no_connection_is_named_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=address), connected(address, Workers()):
            pass


def test_a_cluster_of_this_machine_that_ended_is_named_at_once(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")  # as Ray's own note of the latest
        with pytest.raises(ClusterError, match=f":{port}' cannot be reached"):
            session._connect("auto", None)


@pytest.mark.slow
def test_a_head_that_asks_for_a_token_is_given_that_of_the_home(corpus, tmp_path):
    """In processes of their own, for Ray reads variables when it is imported."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**unset, "HOME": str(tmp_path)}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789abcdef" * 2)
    head = ["ray", "start", "--head", f"--port={port}", "--num-cpus=1", "--block",
            "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
    with subprocess.Popen(head, env=environment, stderr=subprocess.DEVNULL) as started:
        try:
            run = f"127.0.0.1:{port}"
            words = ["encode", str(corpus), "--output", str(tmp_path / "v.lance"), "--ray", run]
            deadline = time.monotonic() + 60
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                assert time.monotonic() < deadline
                time.sleep(0.5)
            done = subprocess.run(
                [sys.executable, "-m", "dewey_embed.cli", *words], env=environment, timeout=120,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert "line 51: not JSON" in done.stderr  # the rest was encoded
            assert done.returncode == 3
        finally:
            started.terminate()


@pytest.mark.slow
def test_a_process_that_has_imported_ray_starts_a_cluster_beside_a_token(tmp_path):
    """Ray reads at its import whether there are tokens; what it starts must not ask for one."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789abcdef" * 2)
    script = (
        "import ray; from dewey_embed.cluster.session import Workers, connected\n"
        "with connected('local', Workers(num=1)) as workers: print(workers.num)"
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, "-c", script], env={**unset, "HOME": str(tmp_path)}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, "1\n"), run.stderr


@pytest.mark.slow
def test_sigterm_is_one_line(corpus, tmp_path):
    words = ["encode", str(corpus), "--output", str(tmp_path / "v.lance"), "--ray", "local"]
    script = (
        "import signal; from dewey_embed.cluster import session\n"
        "from dewey_embed.cli import main\n"
        "session._nodes = lambda: signal.raise_signal(signal.SIGTERM)\n"
        f"import sys; sys.argv[1:] = {words!r}; main()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (143, "dewey: stopped by SIGTERM\n")


def test_foreign_folders_and_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"written as \.lance, \.parquet or \.index"):
        open_rows(str(tmp_path / "v.npz"), None, Making())
    (tmp_path / "other.lance").mkdir()
    (tmp_path / "other.lance" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no Lance dataset"):
        rows_output(tmp_path / "other.lance", {}).begin()
    (tmp_path / "folder.parquet").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "folder.parquet" / "a.parquet")
    with pytest.raises(ConfigError, match="was not written by dewey encode --ray"):
        rows_output(tmp_path / "folder.parquet", {}).begin()


def test_an_index_that_the_command_writes_to_object_storage_is_that_of_one_process(
    cluster, corpus, object_storage, tmp_path
):
    here = Index.open(tmp_path / "here.index")
    here.add_files(corpus)
    address = f"{object_storage}/many.index"
    words = ["encode", str(corpus), "--output", address, "--json", "--workers", "2", "--ray"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert (facts["output"], facts["num_documents"], facts["num_held"]) == (address, NUM, 0)
    assert facts["num_chunks"] == here.num_chunks
    assert len(facts["unreadable"]) == 1
    assert result.stderr.splitlines()[0] == "dewey: 1 could not be read:"  # and nothing of Ray's
    there = Index.open(address)
    assert (len(there), there.num_chunks) == (NUM, here.num_chunks)
    for query in ("who pays the rent?", "silk", "timber over the seas"):
        expected, found = here.search(query, 10), there.search(query, 10)
        assert [hit.document_id for hit in found] == [hit.document_id for hit in expected]
        assert [hit.score for hit in found] == pytest.approx(
            [hit.score for hit in expected], abs=1e-6
        )
        assert [each.text for hit in found for each in hit.passages] == [
            each.text for hit in expected for each in hit.passages
        ]
    assert there.settings == here.settings


@pytest.mark.slow
def test_an_index_on_a_disk_goes_on_by_either_command(cluster, corpus, tmp_path):
    path, workers = tmp_path / "my.index", Workers(num=2)
    encode_on_ray([str(corpus)], str(path), workers=workers, options=OPTIONS)
    with Index.open(path) as index:
        again = index.add_files(corpus)
        assert (again.num_added, again.num_changed, again.num_unchanged) == (0, 0, NUM)
        index.add(Document(id="more", text="Bees make honey."))
    try:
        write_corpus(corpus, {7: 1})
        report = encode_on_ray([str(corpus)], str(path), workers=workers, options=OPTIONS)
    finally:
        write_corpus(corpus)
    assert (report.num_documents, report.num_held, report.num_removed) == (1, NUM - 1, 1)
    with Index.open(path) as index:
        assert len(index) == NUM + 1
        assert index.document("d7").text == record(7, 1)["text"]


def test_more_workers_than_there_is_room_for_are_refused(cluster, corpus, tmp_path):
    with pytest.raises(ClusterError, match="room for 2 workers of 2 CPUs and 0 GPUs each, not"):
        encode_on_ray([str(corpus)], str(tmp_path / "v.lance"), workers=Workers(num=3, cpus=2))


@pytest.mark.parametrize(
    ("workers", "room"),
    [
        (Workers(), 6),
        (Workers(cpus=3), 3),
        (Workers(cpus=3, num=4), "room for 3 workers .* at most 3"),
        (Workers(cpus=64), "3 machines of up to 8 CPUs and 2 GPUs, room for 0 workers .* smaller"),
        (Workers(cpus=9), "room for 0 workers"),  # though the three have more together
        (Workers(gpus=0), 14),
        (Workers(gpus=0.3), 9),  # 3 of each GPU, and not 10 of all
        (Workers(gpus=2), 1),
        (Workers(gpus=3), "room for 0 workers"),
    ],
)
def test_each_worker_needs_its_cores_and_gpus_on_one_machine(workers, room):
    nodes = [Node(8, 2), Node(4, 1), Node(2, 0)]
    if workers == Workers():
        nodes += [Node(8, 3)]
    if isinstance(room, str):
        with pytest.raises(ClusterError, match=room):
            fitted(workers, nodes, "head:6379")
    else:
        assert fitted(workers, nodes, "head:6379").num == room
    assert fitted(Workers(), [Node(4, 0)], "local") == Workers(num=4, cpus=1, gpus=0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("c.jsonl", "-o", "v.npz"), r"v\.npz: with --ray, vectors are written as \.lance"),
        (("c.jsonl", "-o", "v"), None),
        (("missing", "-o", "v.lance"), "no such file or folder: .*missing; check the spelling"),
        (("-", "-o", "v.lance"), "standard input cannot be read by many machines"),
        (("c.jsonl", "-o", "v.lance", "--chunk-overlap", "128"), "need 1 <= chunk_tokens"),
        (("c.jsonl", "-o", "v.index", "--chunk-overlap", "64"), "need 1 <= chunk_tokens"),
        (("c.jsonl", "-o", "v.lance", "--worker-cpus", "4096"),
         "this machine has .* room for 0 workers of 4096 CPUs and 0 GPUs each, not for 1; ask for "
         "smaller ones"),
        (("c.jsonl", "-o", "v.lance", "--worker-gpus", "64"), "room for 0 workers of 1 CPUs"),
        (("c.jsonl", "-o", "v.lance", "--workers", "4096"), r"not for 4,096; ask for at most \d"),
        (("c.jsonl", "-o", "v.lance", "--worker-gpus", "1.5"), "give a whole number, or a part of"),
        (("c.jsonl", "-o", "mine.lance"), "mine.lance: is there and is no Lance dataset"),
        (("c.jsonl", "-o", "mine.index"), "mine.index: holds other files and no dewey.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_ray_starts(words, reason, tmp_path, monkeypatch):
    """In a process where Ray is connected already, so the start of a cluster is what is watched."""
    started = []
    monkeypatch.setattr(session, "_is_connected", lambda: False)
    monkeypatch.setattr(session, "_connect", lambda *_: started.append(1) or sys.exit("started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "moths"}))
    for name in ("mine.lance", "mine.index"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text("mine")
    error = CliRunner().invoke(app, ["encode", *words, "--ray", "local"]).exception
    assert bool(started) == (reason is None)
    if reason:
        assert re.search(reason, str(error))


def test_the_documents_of_the_corpus_are_those_of_one_reading(corpus):
    assert len(list(read_documents([corpus]))) == NUM + 1
