"""Folders in BEIR's layout as people have them: what is read, left out and refused."""

import json

import pytest

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import read_beir
from tests.eval.conftest import write_beir

DOCUMENTS = {"d0": "timber harvest", "d1": "river copper", "7": "the pantry"}
QUERIES = {"q0": "timber", "q1": "river", "8": "pantry"}
QRELS = [("q0", "d0", 1), ("q1", "d1", 2), ("8", "7", 1)]
GAINS = {"q0": {"d0": 1}, "q1": {"d1": 2}, "8": {"7": 1}}


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "task", DOCUMENTS, QUERIES, QRELS)


def qrels(folder, text):
    (folder / "qrels.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_beir(folder).qrels


class TestLayouts:
    @pytest.mark.parametrize(
        "text",
        [
            "q0\td0\t1\nq1\td1\t2\n8\t7\t1\n",
            "q0 0 d0 1\nq1 0 d1 2\n8 0 7 1\n",
            "q0\tQ0\td0\t1\nq1\tQ0\td1\t2\n8\tQ0\t7\t1",
            "q0   d0  1\nq1 d1 2\n8 7 1\n",
            "query_id\tdoc_id\trelevance\nq0\td0\t1\nq1\td1\t2\n8\t7\t1\n",
            "corpus-id\tquery-id\tscore\nd0\tq0\t1\nd1\tq1\t2\n7\t8\t1\n",
            "query-id\titer\tdocno\trel\nq0\t0\td0\t1\nq1\t0\td1\t2\n8\t0\t7\t1\n",
            "\ufeffquery-id\tcorpus-id\tscore\r\nq0\td0\t1\r\n\r\nq1\td1\t2\r\n  \r\n8\t7\t1\r\n",
            "query-id\tcorpus-id\tscore\nq0\td0\t1.0\nq1\td1\t+2\n8\t7\t1e0\n",
            "q0\td0\t1\nq0\td0\t1\nq0\td1\t0\nq0\t7\t-1\nq1\td1\t2\n8\t7\t1\n",
        ],
        ids=[
            "no header", "TREC by spaces", "TREC by tabs", "spaces", "other names", "other order",
            "four columns under a header", "mark, CRLF and blank lines", "spelled otherwise",
            "repeated, zero and negative",
        ],
    )  # fmt: skip
    def test_every_layout_of_qrels_says_the_same(self, folder, text):
        assert qrels(folder, text) == GAINS

    def test_ids_may_hold_spaces_between_tabs(self, tmp_path):
        folder = write_beir(
            tmp_path / "spaces", {"a document": "timber"}, {"a query": "timber"},
            [("a query", "a document", 1)],
        )  # fmt: skip
        assert read_beir(folder).qrels == {"a query": {"a document": 1}}

    def test_numbers_are_ids_in_json_too(self, folder):
        lines = [json.dumps({"_id": 7, "text": "the pantry"})]
        (folder / "corpus.jsonl").write_text("\n".join(lines))
        (folder / "qrels.tsv").write_text("8\t7\t1\n")
        assert read_beir(folder).qrels == {"8": {"7": 1}}

    def test_jsonl_with_mark_crlf_and_blank_lines(self, folder):
        for name in ("corpus.jsonl", "queries.jsonl"):
            text = (folder / name).read_text().replace("\n", "\r\n\r\n")
            (folder / name).write_text(text, encoding="utf-8-sig", newline="")
        data = read_beir(folder)
        assert (data.documents, data.qrels) == (DOCUMENTS, GAINS)

    def test_a_document_without_words_stays_a_document(self, tmp_path):
        documents = {"a": "timber", "empty": "", "blank": " \n"}
        folder = write_beir(tmp_path / "blank", documents, {"q": "timber"}, [("q", "a", 1)])
        assert set(read_beir(folder).documents) == set(documents)


class TestWhatCostsItself:
    def test_a_query_without_words_is_left_out_and_named(self, tmp_path):
        queries = {"q0": "timber", "empty": "", "blank": " \t\n"}
        lines = [(query, "d0", 1) for query in queries]
        folder = write_beir(tmp_path / "blank", DOCUMENTS, queries, lines)
        with pytest.warns(UserWarning, match=r"queries\.jsonl: 2 left out .* 'empty'"):
            data = read_beir(folder)
        assert list(data.queries) == list(data.qrels) == ["q0"]
        assert "'blank' (line 3)" in data.left_out[0]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("q0\tgone\t1", r"qrels\.tsv: 1 line .*not in corpus\.jsonl: 'gone' \(line 5\)"),
            ("gone\td0\t1", r"qrels\.tsv: 1 line .*not in queries\.jsonl: 'gone' \(line 5\)"),
            ("q0\t07\t1", r"not in corpus\.jsonl: '07'"),
            ("\n".join(f"q0\tgone{n}\t1" for n in range(9)), r"9 lines .*'gone2'.* and 6 more"),
        ],
    )
    def test_a_line_about_an_unknown_id_is_left_out_and_named(self, folder, line, message):
        with (folder / "qrels.tsv").open("a") as lines:
            lines.write(line + "\n")
        with pytest.warns(UserWarning, match=message):
            data = read_beir(folder)
        assert data.qrels == GAINS
        assert len(data.left_out) == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("q0\td1\t0.5", r"line 5: the score '0\.5' is not a whole number.*multiply"),
            ("q0\td1\t.99", r"'\.99' is not a whole number"),
            ("q0\td1\t1.9", r"'1\.9' is not a whole number"),
            ("q0\td1\tinf", r"line 5: the score 'inf' is not a number"),
            ("q0\td1\tnan", r"'nan' is not a number"),
            ("q0\td1\t1e999", r"'1e999' is not a whole number"),
            ("q0\td1\t1_0", r"'1_0' is not a number"),
            ("q0\td1\tyes", r"'yes' is not a number; write a whole number"),
            ("q0\td1\t99999999", r"above 1,000,000"),
            (
                "q0\td0\t2",
                r"line 5: query 'q0' .*'d0' have the score 2, but 1 in line 2",
            ),
            ("q0,d1,1", r"line 5: 1 cell in 'q0,d1,1'.*separate three cells by tabs"),
            ("q0\td1", r"line 5: 2 cells"),
            ("q0\t\t1", r"line 5: 3 cells"),
            ("q0\t0\td1\t1\tx", r"line 5: 5 cells"),
        ],
    )
    def test_a_line_that_is_no_judgement(self, folder, line, message):
        with (folder / "qrels.tsv").open("a") as lines:
            lines.write(line + "\n")
        with pytest.raises(TaskError, match=message):
            read_beir(folder)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", r"corpus\.jsonl, line 4: is not a record"),
            ("[1]", "line 4: is not a record"),
            ("5", "line 4: is not a record"),
            ("null", "line 4: is not a record"),
            ("[" * 20_000, "line 4: is not a record"),
            ('{"_id": "x"}', "line 4: is not a record"),
            ('{"_id": null, "text": "x"}', r'line 4: "_id" is NoneType, not a string'),
            ('{"_id": true, "text": "x"}', r'line 4: "_id" is bool'),
            ('{"_id": "x", "text": 5}', r'line 4: "text" is int'),
            ('{"_id": "x", "text": "y", "title": ["z"]}', r'line 4: "title" is list'),
            ('{"_id": "x", "text": "\\ud800"}', "line 4: holds half of a surrogate pair"),
            ('{"_id": " ", "text": "x"}', "line 4: .*give the text a name"),
            ('{"_id": "d0", "text": "x"}', "line 4: id 'd0' .*another text than in line 1"),
        ],
    )
    def test_a_line_that_is_no_record(self, folder, line, message):
        with (folder / "corpus.jsonl").open("a") as lines:
            lines.write(line + "\n")
        with pytest.raises(TaskError, match=message):
            read_beir(folder)

    @pytest.mark.parametrize(
        ("name", "example"), [("corpus.jsonl", "d1"), ("queries.jsonl", "q1"), ("qrels.tsv", "q1")]
    )
    def test_a_file_that_is_not_there_is_named_with_the_layout(self, folder, name, example):
        (folder / name).unlink()
        said = rf'{name}.* is (not )?there; a task (is|has) .*"_id": "{example}"'
        with pytest.raises(TaskError, match=said):
            read_beir(folder)

    @pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
    def test_a_file_that_is_no_utf8(self, folder, name):
        (folder / name).write_bytes(b"\xff\xfeq\x000\x00\n\x00")
        with pytest.raises(TaskError, match=rf"{name}: is not UTF-8 text .*save it as UTF-8"):
            read_beir(folder)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(TaskError, match=r"nowhere: is not there; a task is a folder"):
            read_beir(tmp_path / "nowhere")

    def test_qrels_in_which_nothing_answers_say_why(self, folder):
        with pytest.raises(TaskError, match="every score is 0"):
            qrels(folder, "q0\td0\t0\n")
        with pytest.raises(TaskError, match=r"no query .* \(.*not in corpus\.jsonl: 'gone'"):
            qrels(folder, "q0\tgone\t1\n")

    def test_a_folder_that_may_not_be_entered_is_not_called_missing(self, folder, nobody):
        folder.chmod(0)
        try:
            with nobody(), pytest.raises(TaskError, match="Permission denied"):
                read_beir(folder)
        finally:
            folder.chmod(0o755)
