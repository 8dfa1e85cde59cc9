"""The stream of texts: from every kind of file, mixed by weight, each once, and what is refused."""

import gzip
import itertools
import json
from collections import Counter

import datasets.config
import docx
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from dewey_embed.errors import ReadError
from dewey_embed.train.corpus import Corpus, check_sources
from dewey_embed.train.corpus_files import find_files, joined
from dewey_embed.train.recipe import CorpusRecipe, FilesSource


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Nothing is left behind in the user's cache, and nothing is asked of the network."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)


def texts_named(name, count):
    return [
        f"{name} number {number}: the tide comes in, the tide goes out" for number in range(count)
    ]


def write_lines(path, texts, column="text"):
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts), "utf-8")
    return path


def files(path, **settings):
    return {"kind": "files", "path": str(path)} | settings


def corpus(*sources, **settings):
    return Corpus(
        CorpusRecipe(sources=sources, **({"min_characters": 10, "held_out": 0.0} | settings))
    )


def read(*sources, **settings):
    return [text.text for text in corpus(*sources, **settings)]


class TestFiles:
    @pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "json"])
    def test_every_kind_of_file_gives_its_texts(self, tmp_path, ending):
        texts = [*texts_named("row", 20), "naïve café — 北京\n\nsecond line\ttab"]
        path = tmp_path / f"some.{ending}"
        lines = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()
        if ending == "parquet":
            pq.write_table(pa.table({"text": texts, "id": [1] * len(texts)}), path)
        else:
            pack = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(ending, bytes)
            path.write_bytes(pack(lines))
        found = list(corpus(files(path)))
        assert sorted(one.text for one in found) == sorted(texts)
        assert {one.source for one in found} == {"some"}

    def test_a_folder_of_text_files_gives_one_text_a_file(self, tmp_path):
        (tmp_path / "inner").mkdir()
        contents = [
            "First line.\n\nSecond paragraph.\n",
            "# A title\nand a line",
            "x = 1\n\ny = 2\n",
        ]
        for name, text in zip(("a.txt", "b.md", "inner/c.rst"), contents, strict=True):
            (tmp_path / name).write_text(text, "utf-8")
        (tmp_path / "picture.png").write_bytes(b"\x89PNG")
        assert sorted(read(files(tmp_path))) == sorted(contents)

    def test_a_glob_chooses_among_files(self, tmp_path):
        first = texts_named("first", 5)
        write_lines(tmp_path / "part_1.jsonl", first[:3])
        write_lines(tmp_path / "part_2.jsonl", first[3:])
        write_lines(tmp_path / "other.jsonl", texts_named("other", 5))
        found = list(corpus(files(tmp_path / "part_*.jsonl")))
        assert sorted(one.text for one in found) == sorted(first)
        assert {one.source for one in found} == {"part"}

    def test_a_folder_may_hold_all_kinds_and_both_widths_of_arrow_strings(self, tmp_path):
        kinds = [texts_named(name, 3) for name in ("json", "plain", "wide")]
        write_lines(tmp_path / "a.jsonl", kinds[0])
        for number, text in enumerate(kinds[1]):
            (tmp_path / f"{number}.txt").write_text(text, "utf-8")
        pq.write_table(
            pa.table({"text": pa.array(kinds[2], pa.large_string())}), tmp_path / "w.parquet"
        )
        assert sorted(read(files(tmp_path))) == sorted(itertools.chain(*kinds))

    def test_the_column_of_texts_is_chosen_by_name(self, tmp_path):
        texts = texts_named("body", 4)
        rows = {"body": texts, "text": ["not this one at all"] * 4}
        pq.write_table(pa.table(rows), tmp_path / "a.parquet")
        assert sorted(read(files(tmp_path / "a.parquet", text="body"))) == sorted(texts)

    @pytest.mark.parametrize("ending", ["parquet", "jsonl"])
    def test_the_turns_of_a_conversation_stand_below_each_other(self, tmp_path, ending):
        turns = [
            [
                {"from": "human", "value": "How high is the tide?"},
                {"from": "gpt", "value": "High."},
            ],
            [{"from": "human", "value": "Thank you, and good night."}],
        ]
        path = tmp_path / f"talk.{ending}"
        if ending == "parquet":
            pq.write_table(pa.table({"conversations": turns}), path)
        else:
            write_lines(path, turns, "conversations")
        found = read(files(path, text="conversations"))
        assert sorted(found) == ["How high is the tide?\n\nHigh.", "Thank you, and good night."]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("as it is", "as it is"),
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a\n\nb"),
            (["a", "b"], "a\n\nb"),
            (None, None),
            (5, None),
            ([{"value": None}], None),
        ],
    )
    def test_what_counts_as_a_text(self, value, text):
        assert joined(value) == text


def titled_rows(count=4):
    """Rows of a title and a text, in columns that have each other's names."""
    return [
        {"text": f"Tide {number}", "body": text}
        for number, text in enumerate(texts_named("row", count))
    ]


def titles_of(stream):
    return {one.text: one.titled.title for one in stream if one.titled}


OF_COLUMN = {"text": "body", "titles": "column:text"}
EXPECTED = {row["body"]: row["text"] for row in titled_rows()}


class TestTitles:
    @pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz", "json"])
    def test_they_may_stand_in_a_column_of_any_file(self, tmp_path, ending):
        rows, path = titled_rows(), tmp_path / f"some.{ending}"
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_bytes(gzip.compress(lines) if ending == "jsonl.gz" else lines)
        stream = corpus(files(path, **OF_COLUMN))
        assert titles_of(stream) == EXPECTED
        assert all(one.titled.body == one.text for one in stream)
        assert not stream.untitled

    def test_they_may_stand_in_a_column_of_the_hub(self, tmp_path):
        pq.write_table(pa.Table.from_pylist(titled_rows()), tmp_path / "a.parquet")
        source = {"kind": "hub", "id": str(tmp_path), **OF_COLUMN}
        assert titles_of(corpus(source)) == EXPECTED

    def test_a_damaged_file_has_the_titles_of_its_sound_lines(self, tmp_path):
        lines = [json.dumps(row) for row in titled_rows()]
        (tmp_path / "a.jsonl").write_text("\n".join([*lines[:2], '{"text": "', *lines[2:]]))
        with pytest.warns(UserWarning, match="left out 1"):
            assert titles_of(corpus(files(tmp_path, **OF_COLUMN))) == EXPECTED

    def test_files_may_have_titles_of_other_types(self, tmp_path):
        pq.write_table(pa.Table.from_pylist(titled_rows()[:2]), tmp_path / "a.parquet")
        years = [{"text": 1900 + n, "body": row["body"]} for n, row in enumerate(titled_rows())]
        pq.write_table(pa.Table.from_pylist(years[2:]), tmp_path / "b.parquet")
        found = titles_of(corpus(files(tmp_path, **OF_COLUMN)))
        assert sorted(found.values()) == ["1902", "1903", "Tide 0", "Tide 1"]

    def test_texts_without_one_are_counted_by_the_reason(self, tmp_path):
        texts = texts_named("row", 6)
        titles = ["", None, " \n", "Tides\nof  the sea", "lease_2024.pdf", "word " * 60]
        rows = [{"title": a, "text": b} for a, b in zip(titles, texts, strict=True)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_lines(tmp_path / "b.jsonl", texts_named("other", 2))
        stream = corpus(
            files(tmp_path / "a.jsonl", titles="column:title"), files(tmp_path / "b.jsonl")
        )
        assert titles_of(stream) == {texts[3]: "Tides of the sea"}
        assert stream.untitled == {
            "texts without a title": 3, "texts whose title is a file name": 1,
            "texts whose title is too long": 1, "texts of a source without titles": 2,
        }  # fmt: skip

    def test_a_row_without_a_title_has_none_though_its_text_begins_with_a_heading(self, tmp_path):
        text = "Tides\n\nThe tide comes in, the tide goes out."
        rows = [{"title": title, "text": f"{text} {title}"} for title in ("", None, "The moon")]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        stream = corpus(files(tmp_path / "a.jsonl", titles="column:title"))
        assert sorted(titles_of(stream).values()) == ["The moon"]
        assert stream.untitled == {"texts without a title": 2}

    def test_a_text_that_begins_with_its_title_has_it_once(self, tmp_path):
        text = "Tides\n\nThe tide comes in, the tide goes out."
        (tmp_path / "a.jsonl").write_text(json.dumps({"title": "Tides", "text": text}))
        [one] = corpus(files(tmp_path / "a.jsonl", titles="column:title"))
        assert (one.text, one.titled.body) == (text, "The tide comes in, the tide goes out.")

    @pytest.mark.parametrize("ending", ["parquet", "jsonl"])
    def test_a_missing_column_is_named_with_those_there_are(self, tmp_path, ending):
        rows, path = titled_rows(), tmp_path / f"a.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        said = r"no column 'name' but text, body; set corpus\.sources\.titles"
        with pytest.raises(ReadError, match=said):
            read(files(path, titles="column:name"))

    def test_documents_have_no_columns(self, tmp_path):
        (tmp_path / "a.txt").write_text("Tides\n\nThe tide comes in, the tide goes out.")
        recipe = corpus(files(tmp_path, titles="column:title")).recipe
        with pytest.raises(ReadError, match=r"a\.txt: is no table, so it has no column 'title'"):
            check_sources(recipe)

    @pytest.mark.parametrize("wrong", ["title", "column:", "column: ", "first line", ""])
    def test_other_places_are_refused(self, tmp_path, wrong):
        with pytest.raises(ValidationError, match=r'give "first_line" .*, or "column:NAME"'):
            corpus(files(tmp_path, titles=wrong))
        with pytest.raises(ValidationError, match="titles and text are both the column 'text'"):
            corpus(files(tmp_path, titles="column:text"))


class TestDocuments:
    """What `dewey index` reads of a folder, training reads, too."""

    def test_every_kind_of_document_is_a_text(self, tmp_path):
        word = docx.Document()
        word.add_paragraph("The lease of a word processor.")
        word.save(tmp_path / "lease.docx")
        contents = {
            "page.html": b"<html><body><p>The lease of a page.</p></body></html>",
            "latin.txt": "Die Miete f\xfcr M\xe4rz.".encode("latin-1"),
            "mark.txt": "The lease under a mark.".encode("utf-8-sig"),
            "inner/deep.markdown": b"# The lease of a heading",
            ".hidden/no.txt": b"nobody is to see this",
            "picture.png": b"\x89PNG",
        }
        for name, content in contents.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        assert sorted(read(files(tmp_path))) == [
            "# The lease of a heading",
            "Die Miete für März.",
            "The lease of a page.",
            "The lease of a word processor.",
            "The lease under a mark.",
        ]

    def test_documents_mix_with_tables(self, tmp_path):
        write_lines(tmp_path / "a.jsonl", texts_named("json", 3))
        (tmp_path / "b.html").write_text("<p>A page beside a table.</p>")
        assert sorted(read(files(tmp_path))) == [
            "A page beside a table.",
            *texts_named("json", 3),
        ]

    def test_a_file_given_by_name_is_text_whatever_it_is_called(self, tmp_path):
        (tmp_path / "NOTES").write_text("Plain words of an evening.")
        assert read(files(tmp_path / "NOTES")) == ["Plain words of an evening."]

    def test_a_changed_file_is_read_again(self, tmp_path):
        for text in ("Plain words of an evening.", "Other words of a morning."):
            (tmp_path / "a.txt").write_text(text)
            assert read(files(tmp_path)) == [text]

    def test_the_home_folder_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text("Plain words of an evening.")
        for path in ("~/texts", "~/texts/a.txt", "~/texts/*.txt"):
            assert read(files(path)) == ["Plain words of an evening."]

    def test_linked_folders_are_read_once(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a.txt").write_text("Plain words of an evening.")
        (tmp_path / "read").mkdir()
        for name in ("one", "two"):
            (tmp_path / "read" / name).symlink_to(tmp_path / "real")
        (tmp_path / "real" / "loop").symlink_to(tmp_path / "read")
        stream = corpus(files(tmp_path / "read"))
        assert [one.text for one in stream] == ["Plain words of an evening."]


class TestBadLines:
    BAD = (b'{"text": \n', b'{"body": "another column"}\n', b'{"text": "half \\ud800 a pair"}\n')

    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("ending", ["jsonl", "ndjson", "jsonl.gz", "jsonl.zst"])
    def test_a_bad_line_is_named_counted_and_costs_itself(self, tmp_path, ending, bad):
        good = [json.dumps({"text": text}).encode() + b"\n" for text in texts_named("good", 3)]
        content = b"".join((good[0], bad, *good[1:], b'{"text": \n'))
        pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(ending[6:], bytes)
        (tmp_path / f"a.{ending}").write_bytes(pack(content))
        stream = corpus(files(tmp_path))
        for _ in range(2):  # the second time from the cache
            with pytest.warns(UserWarning, match=rf"left out 2: \S+/a\.{ending}: line 2: .*line 5"):
                assert sorted(one.text for one in stream) == texts_named("good", 3)
            assert stream.left_out == {"unreadable line": 2}

    def test_conversations_of_other_files_are_kept_beside_sound_lines(self, tmp_path):
        turns = [[{"from": "human", "value": text}] for text in texts_named("good", 3)]
        write_lines(tmp_path / "a.jsonl", turns)
        write_lines(tmp_path / "b.jsonl", [[{"value": "Good evening to you"}]])
        with (tmp_path / "b.jsonl").open("ab") as file:
            file.write(b'{"text": \n')
        with pytest.warns(UserWarning, match=r"b\.jsonl: line 2: "):
            found = sorted(read(files(tmp_path)))
        assert found == ["Good evening to you", *texts_named("good", 3)]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("b.parquet", b"PAR1 and then nothing of use PAR1"),
            ("b.jsonl", b'{"text": \n{"text": \n'),
            ("b.json", b"nothing of the kind"),
            ("b.jsonl.gz", b"not packed at all"),
            ("b.jsonl", b'{"body": "another column"}\n'),
            ("b.txt", b"binary \x00 data, not text"),
            ("b.pdf", b"%PDF-1.4 and then nothing"),
            ("b.docx", b"PK no package"),
        ],
    )
    def test_a_bad_file_is_named_counted_and_costs_itself(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        write_lines(tmp_path / "a.jsonl", texts_named("good", 3))
        write_lines(tmp_path / "c.jsonl", texts_named("better", 3))
        pq.write_table(pa.table({"text": texts_named("table", 2)}), tmp_path / "d.parquet")
        (tmp_path / "e.txt").write_text("Plain words of an evening.")
        wanted = [
            "Plain words of an evening.",
            *texts_named("better", 3),
            *texts_named("good", 3),
            *texts_named("table", 2),
        ]
        stream = corpus(files(tmp_path))
        for _ in range(2):  # the second time from the cache
            with pytest.warns(UserWarning, match=rf"left out 1: \S+/{name}: "):
                assert sorted(one.text for one in stream) == wanted
            assert stream.left_out == {"unreadable file": 1}

    def test_a_folder_that_may_not_be_entered_is_named(self, tmp_path, nobody):
        for name in ("shut", "open"):
            (tmp_path / "texts" / name).mkdir(parents=True)
            (tmp_path / "texts" / name / "a.txt").write_text("Plain words of an evening.")
        (tmp_path / "texts" / "shut").chmod(0)
        found = find_files(FilesSource(path=str(tmp_path / "texts")))
        assert len(found.by_reader["documents"]) + len(found.faults) == 2
        (tmp_path / "texts").chmod(0)
        try:
            with nobody(), pytest.raises(ReadError, match="cannot be looked into"):
                find_files(FilesSource(path=str(tmp_path / "texts" / "*.txt")))
        finally:
            (tmp_path / "texts").chmod(0o755)
            (tmp_path / "texts" / "shut").chmod(0o755)

    @pytest.mark.parametrize("path", ["absent.jsonl", "absent_*.parquet", "absent"])
    def test_sources_without_files_are_found_before_anything_is_read(self, tmp_path, path):
        write_lines(tmp_path / "a.jsonl", texts_named("a", 3))
        sources = [files(tmp_path / "a.jsonl"), files(tmp_path / path)]
        with pytest.raises(ReadError, match=r"absent\S*: no file here"):
            check_sources(CorpusRecipe(sources=sources))


class TestHub:
    def test_a_folder_of_the_current_directory_is_streamed(self, tmp_path, monkeypatch):
        folder = tmp_path / "someone" / "things"
        folder.mkdir(parents=True)
        texts = texts_named("streamed", 30)
        write_lines(folder / "train.jsonl", texts, "body")
        monkeypatch.chdir(tmp_path)
        source = {"kind": "hub", "id": "someone/things", "text": "body", "shuffle_buffer": 8}
        found = list(corpus(source))
        assert sorted(one.text for one in found) == sorted(texts)
        assert [one.text for one in found] != texts
        assert {one.source for one in found} == {"someone/things"}
        assert read(source, seed=1) != [one.text for one in found]

    def test_what_is_neither_here_nor_there(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ReadError, match=r"no/such: no such data set here or on .*sources\.id"):
            read({"kind": "hub", "id": "no/such"})

    def test_a_missing_column_is_named_with_those_there_are(self, tmp_path):
        write_lines(tmp_path / "a.jsonl", texts_named("a", 3), "body")
        with pytest.raises(
            ReadError, match=r"has no column 'text' but body; set corpus\.sources\.text$"
        ):
            read({"kind": "hub", "id": str(tmp_path)})

    def test_a_file_that_turns_out_damaged_on_the_way(self, tmp_path):
        pq.write_table(pa.table({"text": texts_named("a", 3)}), tmp_path / "a.parquet")
        (tmp_path / "b.parquet").write_bytes(b"PAR1 and then nothing of use PAR1")
        with pytest.raises(ReadError, match=r"cannot be read to the end .*mend the file"):
            read({"kind": "hub", "id": str(tmp_path)})


class TestMixing:
    @pytest.fixture
    def two(self, tmp_path):
        write_lines(tmp_path / "many.jsonl", texts_named("many", 900))
        write_lines(tmp_path / "few.jsonl", texts_named("few", 300))
        return [files(tmp_path / "many.jsonl", weight=3), files(tmp_path / "few.jsonl", weight=1)]

    @pytest.mark.parametrize(("weights", "share"), [((3, 1), 0.75), ((0.5, 0.5), 0.5)])
    def test_the_beginning_is_mixed_by_weight(self, two, weights, share):
        sources = [one | {"weight": weight} for one, weight in zip(two, weights, strict=True)]
        first = Counter(one.source for one in corpus(*sources, max_texts=400))
        assert first.total() == 400
        assert abs(first["many"] / 400 - share) < 0.08  # three deviations

    def test_every_text_comes_exactly_once(self, two):
        found = read(*two)
        assert sorted(found) == sorted(texts_named("many", 900) + texts_named("few", 300))

    def test_the_seed_decides_the_order(self, two):
        found = read(*two, seed=5)
        assert read(*two, seed=5) == found
        other = read(*two, seed=6)
        assert other != found
        assert sorted(other) == sorted(found)
        assert found[:50] != sorted(found[:50])

    def test_a_second_pass_is_the_first_again(self, two):
        stream = corpus(*two, max_texts=50)
        assert list(stream) == list(stream)

    def test_max_texts_cuts_the_same_stream_short(self, two):
        assert read(*two, max_texts=77) == read(*two)[:77]

    def test_a_source_takes_the_texts_that_match_and_no_others(self, two):
        many, few = two
        found = read(many | {"matching": r"number \d*7:"}, few | {"matching": "(?i)NUMBER 29?:"})
        sevens = [text for text in texts_named("many", 900) if "7:" in text]
        assert sorted(found) == sorted(sevens + [texts_named("few", 30)[i] for i in (2, 29)])

    def test_where_nothing_matches_rows_without_text_do_not_either(self, tmp_path):
        write_lines(tmp_path / "a.jsonl", ["a text about the tides", None])
        stream = corpus(files(tmp_path / "a.jsonl", matching="no such words"))
        assert list(stream) == []

    def test_one_file_is_two_sources_and_its_subject_comes_more_often(self, two):
        many = two[0] | {"weight": 0.5}
        first = read(many | {"matching": "number 8"}, many, max_texts=100)
        on_subject = sum("number 8" in text for text in first)
        assert 40 <= on_subject <= 75  # half, and a ninth of the other half; three deviations
        assert len(set(first)) == 100
        assert sorted(read(many | {"matching": "number 8"}, many)) == sorted(
            texts_named("many", 900)
        )


class TestLeftOut:
    def test_what_is_left_out_is_counted(self, tmp_path):
        good = texts_named("good", 4)
        rows = [*good, good[0], good[1], "short", "", None, good[0]]
        write_lines(tmp_path / "a.jsonl", rows)
        stream = corpus(files(tmp_path / "a.jsonl"))
        for _ in range(2):  # each pass counts anew
            assert sorted(one.text for one in stream) == sorted(good)
            assert stream.left_out == {"duplicate": 3, "too short": 2, "no text": 1}

    def test_a_text_in_two_sources_comes_once(self, tmp_path):
        texts = texts_named("same", 6)
        sources = [files(write_lines(tmp_path / f"{name}.jsonl", texts)) for name in "ab"]
        stream = corpus(*sources)
        assert sorted(one.text for one in stream) == sorted(texts)
        assert stream.left_out == {"duplicate": 6}

    def test_no_text_comes_out_with_half_a_surrogate_pair(self, tmp_path):
        rows = [{"text": "a text before it"}, {"text": "a text with \ud800 in it"}]
        (tmp_path / "a.json").write_text(json.dumps(rows))
        found = read(files(tmp_path / "a.json"))
        assert "a text before it" in found
        assert all(text.encode() for text in found)


class TestHeldOut:
    def test_content_alone_decides_and_the_share_is_near(self, tmp_path):
        texts = texts_named("text", 2000)
        write_lines(tmp_path / "a.jsonl", texts)
        write_lines(tmp_path / "b.jsonl", texts[::-2])
        whole = {one.text: one for one in corpus(files(tmp_path / "a.jsonl"), held_out=0.1)}
        again = list(corpus(files(tmp_path / "b.jsonl"), held_out=0.1, seed=9))
        assert [one.held_out for one in again] == [whole[one.text].held_out for one in again]
        assert [one.id for one in again] == [whole[one.text].id for one in again]
        share = sum(one.held_out for one in whole.values()) / 2000
        assert 0.08 < share < 0.12


class TestRefused:
    @pytest.mark.parametrize("name", ["absent.jsonl", "absent_*.parquet", "absent/", "."])
    def test_where_no_file_is(self, tmp_path, name):
        (tmp_path / "picture.png").write_bytes(b"\x89PNG")
        with pytest.raises(
            ReadError, match=r"no file here .*\.parquet, .*correct corpus\.sources\.path"
        ):
            read(files(tmp_path / name))

    def test_a_missing_column_is_named_with_those_there_are(self, tmp_path):
        path = write_lines(tmp_path / "a.jsonl", texts_named("a", 3), "body")
        with pytest.raises(
            ReadError, match=r"a\.jsonl: has no column 'text' but body; set .*\.text"
        ):
            read(files(path))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.parquet", b"PAR1 and then nothing of use PAR1"),
            ("a.jsonl", b'{"text": \n{"text": \n'),
            ("a.jsonl", b'{"text": "half a pair \\ud800 in lines"}\n'),
            ("a.jsonl.gz", b"not packed at all"),
            ("a.txt", b"binary \x00 data, not text"),
            ("a.pdf", b"%PDF-1.4 and then nothing"),
            ("a.docx", b"PK no package"),
        ],
    )
    def test_a_damaged_file(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ReadError, match=rf"{name}: (cannot be read as .*mend the file or leave it|\w+)"
        ):
            read(files(tmp_path / name))

    def test_bytes_that_are_no_utf8_within_parquet(self, tmp_path):
        raw = pa.array([b"a text that is fine", b"and one \xed\xa0\x80 that is not"])
        texts = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
        with pytest.raises(ReadError, match=r"a\.parquet: cannot be read as .*UTF8.*mend"):
            read(files(tmp_path / "a.parquet"))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    def test_a_file_without_rows(self, tmp_path, name):
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
        (tmp_path / "a.jsonl").touch()
        with pytest.raises(ReadError, match=r"a\.\S+: cannot be read as \w+ \(.+\); mend the file"):
            read(files(tmp_path / name))

    def test_a_hub_folder_without_rows(self, tmp_path):
        (tmp_path / "a.jsonl").touch()
        with pytest.raises(ReadError, match=r"no such data set .*\(no rows\)"):
            read({"kind": "hub", "id": str(tmp_path)})

    def test_texts_beside_conversations(self, tmp_path):
        write_lines(tmp_path / "a.jsonl", [[{"from": "human", "value": "Good evening."}]])
        (tmp_path / "b.txt").write_text("Plain words of an evening.")
        with pytest.raises(ReadError, match="make each kind a source of its own"):
            read(files(tmp_path))
