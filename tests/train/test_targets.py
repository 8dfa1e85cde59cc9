"""Targets on disk and in batches: what comes back, what counts, and in which order."""

import json
import multiprocessing
from types import SimpleNamespace

import datasets.config
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dewey_embed.errors import TargetsError
from dewey_embed.train import targets
from dewey_embed.train.batches import OPEN_SHARDS, SampleSet, ShardShuffle, pack_samples
from dewey_embed.train.recipe_file import read_recipe, recipe_diff
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.targets import FORMAT, MANIFEST, Targets, TargetsFolder, targets_complete
from dewey_embed.train.teach import teach
from tests.commands import done

from .conftest import MINI, RECIPE, write_corpus

ABOUT = {"split": {"seed": 1}, "teacher": {"kind": "package"}}
WORDS = ["the", "tide", "comes", "in", "over", "stones", "and", "birds", "call", "at", "dawn"]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def sample_of(name, chunks):
    """A sample whose text is the chunks, a blank between."""
    ends = np.cumsum([len(chunk) + 1 for chunk in chunks]) - 1
    spans = [(int(end) - len(chunk), int(end)) for chunk, end in zip(chunks, ends, strict=True)]
    return Sample(name, "here", " ".join(chunks), spans, Draw(7, 64, "words", 20, 3))


def random_targets(number, num_segments=3, width=16):
    """A sample of its own for each number, one to four chunks long."""
    random = np.random.default_rng(number)
    chunks = [" ".join(random.choice(WORDS, 12)) + f" — №{number}é." for _ in range(1 + number % 4)]
    bounds = np.stack((np.arange(num_segments), np.arange(num_segments) + 1), 1)
    rows = unit(random.normal(size=(1 + len(chunks) + num_segments, width)))
    whole, own, segments = rows[0], rows[1 : 1 + len(chunks)], rows[1 + len(chunks) :]
    return Targets(sample_of(f"n-{number}", chunks), whole, own, bounds, segments)


def open_folder(path, recipe="abc", about=ABOUT):
    return TargetsFolder(path, fingerprint=recipe, about=about)


def write_shards(folder, sizes, part="train"):
    first = 0
    for number, size in enumerate(sizes):
        folder.write(part, number, size, [random_targets(n) for n in range(first, first + size)])
        first += size


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "targets")


@pytest.fixture(scope="module")
def tokenizer():
    return start_tokenizer(MINI)


def change(path, name, values):
    """Write a shard again with other values in a column."""
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, values(table[name])), path)


def floats(rows):
    return pa.array(rows, pa.list_(pa.float16()))


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "garbage": lambda path: path.write_bytes(b"PAR1"),
    "missing": lambda path: path.unlink(),
    "a column missing": lambda path: pq.write_table(
        pq.read_table(path).drop_columns(["chunks"]), path
    ),
    "a sample missing": lambda path: pq.write_table(pq.read_table(path).slice(1), path),
    "another type": lambda path: change(
        path, "whole", lambda column: column.cast(pa.list_(pa.float32()))
    ),
    "NaN": lambda path: change(
        path, "whole", lambda column: floats([np.full(16, np.nan, np.float16)] * len(column))
    ),
    "another width": lambda path: change(
        path, "whole", lambda column: floats([np.ones(16, np.float16), np.ones(8, np.float16)])
    ),
    "chunks of another width": lambda path: change(
        path, "chunks", lambda column: floats([np.ones(7, np.float16)] * len(column))
    ),
    "no draw": lambda path: change(path, "draw", lambda column: pa.array(["{}"] * len(column))),
}


class TestShards:
    def test_a_shard_comes_back_as_it_was_but_for_rounding(self, folder):
        written = [
            *(random_targets(number) for number in range(6)),
            random_targets(6, num_segments=0),
        ]
        shard = folder.write("train", 3, 5, written)
        assert (shard.num_texts, shard.num_samples) == (5, 7)
        assert shard.num_chunks == sum(len(one.chunks) for one in written)
        assert shard.num_bytes == (folder.path / shard.file).stat().st_size
        for before, after in zip(written, folder.read(shard), strict=True):
            assert after.sample == before.sample
            np.testing.assert_array_equal(after.segment_bounds, before.segment_bounds)
            for name in ("document", "chunks", "segments"):
                was, now = getattr(before, name), getattr(after, name)
                assert (now.shape, now.dtype) == (was.shape, np.float32)
                np.testing.assert_allclose(now, was, atol=1e-3)
                np.testing.assert_allclose(np.linalg.norm(now, axis=-1), 1, atol=1e-6)

    def test_only_the_samples_that_are_asked_for_are_made(self, folder, monkeypatch):
        shard = folder.write("train", 0, 1, [random_targets(number) for number in range(9)])
        made = []

        def counted(name, *values):
            made.append(name)
            return Sample(name, *values)

        monkeypatch.setattr(targets, "Sample", counted)
        rows = folder.read(shard)
        assert [rows[3].sample.id, rows[7].sample.id] == ["n-3", "n-7"]
        assert (len(rows), made) == (9, ["n-3", "n-7"])

    def test_only_what_the_manifest_lists_counts(self, folder):
        write_shards(folder, [3, 2])
        listed = folder.shards
        name = listed[0].file
        stray = (folder.path / name).read_bytes()
        (folder.path / "train-000007.parquet").write_bytes(stray)
        (folder.path / f".{name}.123.draft").write_bytes(stray[:50])
        assert open_folder(folder.path).shards == listed
        assert len(SampleSet(folder, "train")) == 5

    def test_a_shard_written_again_is_listed_once(self, folder):
        write_shards(folder, [3])
        folder.write("train", 0, 2, [random_targets(8), random_targets(9)])
        [shard] = folder.shards
        assert [one.sample.id for one in folder.read(shard)] == ["n-8", "n-9"]

    def test_a_write_that_fails_leaves_nothing(self, folder):
        with pytest.raises(AttributeError):
            folder.write("train", 0, 1, [SimpleNamespace(sample=random_targets(0).sample)])
        assert folder.shards == []
        assert not [file for file in folder.path.iterdir() if "parquet" in file.name]

    def test_another_recipe_is_refused_by_what_differs(self, folder):
        other = {"split": {"seed": 2}, "teacher": {"kind": "package", "prompt": "p"}}
        message = (
            r"another recipe \(split\.seed: 1, now 2; teacher\.prompt: None, now p\); give ano"
        )
        with pytest.raises(TargetsError, match=message):
            open_folder(folder.path, "def", other)
        assert open_folder(folder.path).shards == []

    def test_a_key_of_a_later_version_is_no_difference_while_it_is_off(self, folder):
        assert (
            recipe_diff({"sources": [{"path": "a"}]}, {"sources": [{"path": "a", "m": None}]}) == ""
        )
        assert recipe_diff({"sources": [{"path": "a"}]}, {"sources": [{"path": "b"}]})
        off, on = ({**ABOUT, "split": {"seed": 1, "clauses": share}} for share in (0.0, 0.5))
        folder.write("train", 0, 1, [random_targets(0)])
        assert len(open_folder(folder.path, "def", off).shards) == 1
        with pytest.raises(TargetsError, match=r"\(split\.clauses: None, now 0\.5\)"):
            open_folder(folder.path, "def", on)

    def test_another_format_is_refused(self, folder):
        manifest = json.loads((folder.path / MANIFEST).read_text())
        (folder.path / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
        with pytest.raises(TargetsError, match=f"format 99, this version reads {FORMAT}"):
            open_folder(folder.path)

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_shard_is_named_with_what_to_do(self, folder, damage):
        shard = folder.write("train", 0, 1, [random_targets(0), random_targets(1)])
        DAMAGES[damage](folder.path / shard.file)
        with pytest.raises(TargetsError, match=r"train-000000\.parquet: .* run dewey teach again"):
            list(folder.read(shard))

    def test_a_flipped_bit_anywhere_in_a_shard_is_no_other_vector(self, folder):
        shard = folder.write("train", 0, 1, [random_targets(0), random_targets(1)])
        path = folder.path / shard.file
        sound, wanted = path.read_bytes(), [one.chunks for one in folder.read(shard)]
        for place in range(4, len(sound), 97):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 8]) + sound[place + 1 :])
            try:
                read = [one.chunks for one in folder.read(shard)]
            except TargetsError:
                continue
            assert all((a == b).all() for a, b in zip(read, wanted, strict=True))

    def test_a_shard_is_held_in_its_size_and_checked_by_its_bytes(self, folder):
        shard = folder.write("train", 0, 1, [random_targets(0)])
        path = folder.path / shard.file
        data = path.read_bytes()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        assert (folder.held(), folder.held(checked=True)) == ([shard], [])
        path.write_bytes(data[:-1])
        assert folder.held() == []
        path.write_bytes(data)
        assert folder.held(checked=True) == [shard]

    def test_a_shard_that_was_removed_is_no_longer_complete(self, folder):
        shard = folder.write("train", 0, 1, [random_targets(0)])
        folder.finish({"train": 1}, {})
        assert folder.is_complete
        assert folder.holds(shard)
        (folder.path / shard.file).unlink()
        assert not folder.is_complete
        assert not folder.holds(shard)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "cannot be read"),
            ("[]", "holds a JSON list, not an object; put it back"),
            ("5", "holds a JSON int"),
            ('{"format": 2}', "recipe: Field required"),
            ('{"format": 2, "recipe": "a", "about": [], "max_texts": 1, "shards": []}', "about: "),
            ('{"format": 2, "recipe": "a", "about": {}, "max_texts": 1, "shards": [{}]}', "shards"),
            ("[" * 20_000, "cannot be read"),
            (None, "no targets"),
        ],
    )
    def test_a_damaged_or_missing_manifest(self, folder, content, message):
        (folder.path / MANIFEST).unlink()
        if content:
            (folder.path / MANIFEST).write_text(content)
            with pytest.raises(TargetsError, match=message):
                open_folder(folder.path)
        with pytest.raises(TargetsError, match=message):
            _ = folder.shards

    def test_shards_without_a_manifest_are_not_written_over(self, folder):
        folder.write("train", 0, 1, [random_targets(0)])
        (folder.path / MANIFEST).unlink()
        with pytest.raises(TargetsError, match=r"holds train-000000\.parquet but no manifest"):
            open_folder(folder.path)
        assert (folder.path / "train-000000.parquet").exists()

    def test_a_manifest_that_may_not_be_looked_at_is_not_taken_for_none(self, folder, nobody):
        folder.write("train", 0, 1, [random_targets(0)])
        folder.path.chmod(0)
        try:
            with nobody(), pytest.raises(TargetsError, match="cannot be looked at"):
                targets_complete(folder.path)
        finally:
            folder.path.chmod(0o755)

    def test_a_row_too_few_is_refused(self):
        good = random_targets(3)
        with pytest.raises(TargetsError, match=r"n-3 has 4 chunks, targets of shape \(3, 16\)"):
            Targets(
                good.sample, good.document, good.chunks[:-1], good.segment_bounds, good.segments
            )

    def test_processes_that_write_at_once_all_get_listed(self, folder):
        context = multiprocessing.get_context("spawn")  # this process has threads
        workers = [
            context.Process(target=write_every_other, args=(folder.path, rank)) for rank in (0, 1)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert [shard.number for shard in folder.shards] == list(range(16))
        assert all(len(folder.read(shard)) == 1 for shard in folder.shards)

    def test_is_complete_when_all_of_the_corpus_is_there(self, folder):
        write_shards(folder, [1, 1])
        assert not folder.is_complete
        folder.finish({"train": 3}, {})
        assert not folder.is_complete
        folder.write("train", 2, 1, [random_targets(5)])
        assert folder.is_complete

    @pytest.mark.parametrize("recuts", [0, 2])
    def test_a_run_killed_between_two_shards_is_completed(self, tmp_path, monkeypatch, recuts):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        path, corpus = tmp_path / "recipe.toml", tmp_path / "corpus.jsonl"
        write_corpus(corpus)
        path.write_text(RECIPE.format(student="unused", teacher="unused", corpus=corpus))
        changes = ["targets.on_the_fly=true", "corpus.max_texts=24", f"split.recuts={recuts}"]
        recipe = read_recipe(path, changes)
        whole = teach(recipe, MINI, tmp_path / "whole")
        assert whole.is_complete
        splits = {shard.part for shard in whole.shards}
        assert splits == {"train", "held_out", "short"}
        order = [
            entry["part"] for entry in json.loads((whole.path / MANIFEST).read_text())["shards"]
        ]
        for cut in range(len(order)):
            folder = teach(recipe, MINI, tmp_path / "again")
            manifest = json.loads((folder.path / MANIFEST).read_text())
            del manifest["crc"], manifest["num_shards"], manifest["shards"][cut:]
            (folder.path / MANIFEST).write_text(json.dumps(manifest))
            assert teach(recipe, MINI, folder.path).is_complete
            assert folder.shards == whole.shards

    def test_another_number_of_processes_goes_on_and_writes_the_same_files(self, tiny, tmp_path):
        recipe = read_recipe(tiny.recipe, ["corpus.max_texts=40", "split.recuts=1"])
        alone = teach(recipe, tiny.student, tmp_path / "alone")
        shared = tmp_path / "shared"
        assert not teach(recipe, tiny.student, shared, rank=1, num_ranks=2).is_complete
        before = {file.name: file.stat().st_mtime_ns for file in shared.glob("*.parquet")}
        assert before
        for rank in (2, 0, 1):  # the other of the two was killed; three go on
            folder = teach(recipe, tiny.student, shared, rank=rank, num_ranks=3)
        assert folder.is_complete
        assert folder.shards == alone.shards
        for shard in alone.shards:
            assert (shared / shard.file).read_bytes() == (alone.path / shard.file).read_bytes()
        assert {name: (shared / name).stat().st_mtime_ns for name in before} == before

    def test_the_rows_that_were_no_use_are_counted_and_said(self, tmp_path, monkeypatch):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        path, corpus = tmp_path / "recipe.toml", tmp_path / "corpus.jsonl"
        good = [{"text": f"{word} " * 100} for word in WORDS]
        bad = [{"text": "short"}, {"text": None}, {"text": "tiny"}, good[0]]
        corpus.write_text("".join(json.dumps(row) + "\n" for row in (*good, *bad)))
        path.write_text(RECIPE.format(student=MINI, teacher="unused", corpus=corpus))
        changes = ["targets.on_the_fly=true", "base.vector_size=384", "split.recuts=2"]
        left = {"no text": 1, "too short": 2, "duplicate": 1}
        recipe = read_recipe(path, changes)
        for _ in range(2):  # the second reads no corpus
            assert teach(recipe, MINI, tmp_path / "run/targets").left_out == left
        options = [part for change in changes for part in ("--set", change)]
        printed = done("teach", path, "-o", tmp_path / "run", *options)
        assert "\nleft out of the corpus: 1 duplicate, 1 no text, 2 too short\n" in printed
        assert f": {len(WORDS)} texts, " in printed  # each once, however often it was cut

    def test_texts_are_cut_again_into_shards_of_their_own_but_for_held_out_ones(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        path, corpus = tmp_path / "recipe.toml", tmp_path / "corpus.jsonl"
        write_corpus(corpus)
        path.write_text(RECIPE.format(student="unused", teacher="unused", corpus=corpus))
        once, thrice = (
            teach(
                read_recipe(path, ["targets.on_the_fly=true", f"split.recuts={recuts}"]),
                MINI, tmp_path / f"{recuts}",
            )
            for recuts in (0, 2)
        )  # fmt: skip
        for part, cuts in (("train", 3), ("held_out", 1), ("short", 1)):
            first, again = (
                [folder.read(shard) for shard in folder.shards if shard.part == part]
                for folder in (once, thrice)
            )
            assert len(again) == cuts * len(first) > 0
            for number, shard in enumerate(first):
                same, *others = again[cuts * number : cuts * (number + 1)]
                assert [one.sample for one in same] == [one.sample for one in shard]
                for other in others:
                    assert {one.sample.id.split("-")[0] for one in other} == {
                        one.sample.id.split("-")[0] for one in shard
                    }
                    assert not {one.sample.id for one in other} & {one.sample.id for one in shard}

    @pytest.mark.parametrize("recuts", [0, 2])
    def test_a_corpus_that_grew_is_gone_on_with(self, tmp_path, monkeypatch, recuts):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        path, corpus = tmp_path / "recipe.toml", tmp_path / "corpus.jsonl"
        write_corpus(corpus)
        path.write_text(RECIPE.format(student="unused", teacher="unused", corpus=corpus))

        def taught(folder: str, max_texts: int) -> TargetsFolder:
            changes = ["targets.on_the_fly=true", f"corpus.max_texts={max_texts}"]
            changes.append(f"split.recuts={recuts}")
            return teach(read_recipe(path, changes), MINI, tmp_path / folder)

        first = {shard: (tmp_path / "grown" / shard.file).stat().st_mtime_ns
                 for shard in taught("grown", 17).shards}  # fmt: skip
        grown, whole = taught("grown", 24), taught("whole", 24)
        assert grown.is_complete
        assert grown.shards == whole.shards
        train, held_out = (
            sum(shard.num_texts for shard in grown.shards if shard.part == part)
            for part in ("train", "held_out")
        )
        assert train == (24 - held_out) * (1 + recuts)
        for shard in grown.shards:
            ours, theirs = grown.read(shard), whole.read(shard)
            assert [one.sample for one in ours] == [one.sample for one in theirs]
        kept = [shard for shard in first if shard in grown.shards]
        assert 0 < len(kept) < len(first)  # the last ones had too few texts
        for shard in kept:
            assert (grown.path / shard.file).stat().st_mtime_ns == first[shard]
        message = r"holds targets of 24 texts, the recipe's corpus.max_texts is 17; give another"
        with pytest.raises(TargetsError, match=message):
            taught("grown", 17)


def write_every_other(path, rank):
    folder = open_folder(path)
    for number in range(rank, 16, 2):
        folder.write("train", number, 1, [random_targets(number)])


class TestOrder:
    @pytest.fixture
    def samples(self, folder):
        write_shards(folder, [3, 1, 4, 2] * 6)  # more shards than are shuffled together
        folder.write("train", 24, 2, [])
        folder.write("held_out", 0, 1, [random_targets(999)])
        return SampleSet(folder, "train")

    def test_samples_are_numbered_through_the_shards(self, samples):
        assert len(samples) == 60
        assert [samples[n].sample.id for n in range(60)] == [f"n-{n}" for n in range(60)]
        assert [samples[n].sample.id for n in (59, 0, 30)] == ["n-59", "n-0", "n-30"]

    def test_a_part_without_samples_is_refused(self, samples):
        with pytest.raises(TargetsError, match="no short samples; run dewey teach"):
            SampleSet(samples.folder, "short")

    def test_every_epoch_is_a_permutation_of_its_own(self, samples):
        shuffle = ShardShuffle(samples, seed=4)
        orders = []
        for epoch in range(3):
            shuffle.set_epoch(epoch)
            orders.append(list(shuffle))
            assert sorted(orders[-1]) == list(range(len(shuffle)))
            assert list(shuffle) == orders[-1]
        assert orders[0] != orders[1] != orders[2]
        assert list(ShardShuffle(samples, seed=4)) == orders[0]
        assert list(ShardShuffle(samples, seed=5)) != orders[0]

    def test_few_shards_are_open_at_a_time(self, samples):
        order = np.array(list(ShardShuffle(samples, seed=0)))
        shards = np.searchsorted(samples.bounds, order, side="right") - 1
        opened = list(dict.fromkeys(shards.tolist()))
        last_of_first = max(np.flatnonzero(np.isin(shards, opened[:OPEN_SHARDS])))
        assert len(opened) == 24
        assert last_of_first < min(np.flatnonzero(np.isin(shards, opened[OPEN_SHARDS:])))

    def test_chunks_lie_in_the_packed_row_where_the_texts_own_tokens_say(self, tokenizer):
        samples = [random_targets(number) for number in (3, 0, 6)]
        texts = [one.sample for one in samples]
        tokens = tokenizer.encode([text.text for text in texts])
        bounds = [one.segment_bounds for one in samples]
        packed, rows = pack_samples(texts, tokens, bounds, tokenizer)
        ids, starts, ends, segment_starts = [], [], [], []
        for one in samples:
            [own] = tokenizer.encode([one.sample.text])
            origin = len(ids) + 1
            for low, high in one.sample.spans:
                inside = [n for n, (a, b) in enumerate(own.offsets) if a < high and b > low]
                starts.append(origin + inside[0])
                ends.append(origin + inside[-1] + 1)
            segment_starts += (one.segment_bounds[:, 0] + origin).tolist()
            ids += [tokenizer.cls_token_id, *own.ids.tolist(), tokenizer.sep_token_id]
        assert packed.ids_T.tolist() == ids
        assert (rows.starts.tolist(), rows.ends.tolist()) == (starts, ends)
        assert rows.segment_starts.tolist() == segment_starts
        assert (rows.segment_ends - rows.segment_starts).tolist() == [1] * 9
