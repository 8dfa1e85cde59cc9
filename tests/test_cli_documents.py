"""What people see of documents: places and answers; on a terminal and in a pipe."""

import json
import os
import pty
import re
import time
from select import select

import pytest
from fpdf import FPDF

from dewey_embed import Document, Index
from tests.commands import Dewey, dewey, done

LEASE = """# Lease of the mill

## Rent

The tenant pays a rent of 400 pounds on the first day of each month. Late rent bears interest.

## Repairs

The owner mends the roof, the walls and the wheel. The tenant keeps the race clear of weed.
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "lease.md").write_text(LEASE)
    filler = "The clerk of the market weighs the butter and the cheese of the day. "
    (folder / "market.txt").write_text(
        filler * 40 + "The stalls close at noon. \x1b[2J " + filler * 9
    )
    pdf = FPDF()
    pdf.set_font("Helvetica")
    for text in ("Ships carry timber to the north.", "The lighthouse keeper lives on the rock."):
        pdf.add_page()
        pdf.multi_cell(0, 10, text)
    pdf.output(folder / "sea.pdf")
    done("index", str(folder), "--index", str(folder / "my.index"))
    return folder


def lines_of(*arguments, cwd):
    return done(*arguments, cwd=cwd).splitlines()


def on_terminal(*arguments, cwd, columns=80, typed=b"", **environment):
    """What a command prints on a terminal of so many columns."""
    controller, terminal = pty.openpty()
    variables = {"COLUMNS": str(columns), "TERM": "xterm", **environment}
    run = Dewey(*arguments, cwd=cwd, terminal=terminal, **variables)
    output = b""
    if typed:
        while b"? " not in output:
            output += os.read(controller, 4096)
        os.write(controller, typed)
    while run.poll() is None or select([controller], [], [], 0)[0]:
        if select([controller], [], [], 0.02)[0]:
            output += os.read(controller, 65536)
    assert run.returncode == 0
    os.close(controller)
    os.close(terminal)
    return output.decode()


def test_a_passage_tells_its_heading_its_lines_and_its_page(built):
    [first, place, text, *_] = lines_of(
        "search", "my.index", "who mends the roof?", "-k", "1", cwd=built
    )
    assert first.startswith("1. Lease of the mill")
    assert "Lease of the mill › Repairs" in place
    assert re.search(r"lines? \d+", place)
    assert "The owner mends the roof" in text
    [_, place, text, *_] = lines_of("search", "my.index", "lighthouse keeper", "-k", "1", cwd=built)
    assert "pp. 1–2" in place  # both pages are short
    assert "lives on the rock" in text


def test_json_has_the_place_the_answer_and_the_probability(built):
    [line] = lines_of("search", "my.index", "who mends the roof?", "-k", "1", "--json", cwd=built)
    [hit] = json.loads(line)["hits"]
    [passage, *_] = hit["passages"]
    start, end = passage["highlight"]
    offset = passage["char_start"]
    assert "mends the roof" in passage["text"][start - offset : end - offset]
    assert passage["location"]["headings"][0] == "Lease of the mill"
    assert passage["location"]["page"] is None
    assert 0 < passage["score"] == hit["score"] < 1
    assert 0.2 < hit["probability"] < 1


def test_a_question_that_belongs_elsewhere_is_said_to_have_no_answer(built):
    query = "how many moons has the planet jupiter?"
    [first, *_] = lines_of("search", "my.index", query, cwd=built)
    assert "probably not in these documents" in first


def test_the_answer_is_seen_on_a_terminal_of_80_columns(built):
    shown = on_terminal(
        "search", "my.index", "when do the stalls close?", "-k", "1", "--passages", "1", cwd=built
    )
    assert "\x1b[1mThe stalls close at noon." in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]8;;file://" in shown
    visible = [re.sub(r"\x1b\]8;;.*?\x1b\\|\x1b\[\d*m", "", line) for line in shown.split("\r\n")]
    assert len(visible[2]) <= 160
    plain = on_terminal(
        "search", "my.index", "when do the stalls close?", "-k", "1", cwd=built, TERM="dumb"
    )
    assert "\x1b" not in plain


def test_a_search_without_a_question_is_a_prompt(built):
    shown = on_terminal(
        "search", "my.index", "-k", "1", cwd=built, typed=b"who mends the roof?\r\x04"
    )
    assert "Ctrl-D ends" in shown
    assert "The owner mends the roof" in re.sub(r"\x1b\[\d*m", "", shown)


def test_passages_of_any_document_are_counted_by_passage(built):
    by_passage = lines_of(
        "search",
        "my.index",
        "rent of the tenant",
        "--by",
        "passage",
        "-k",
        "4",
        "--json",
        cwd=built,
    )
    hits = json.loads(by_passage[0])["hits"]
    assert len(hits) == 4
    assert all(len(hit["passages"]) == 1 for hit in hits)
    scores = [hit["passages"][0]["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_sentences_around_a_passage_are_added(built):
    query = ("search", "my.index", "stalls close at noon", "-k", "1", "--passages", "1", "--json")
    short, wide = (
        json.loads(lines_of(*query, *more, cwd=built)[0])["hits"][0]["passages"][0]
        for more in ((), ("--context", "2"))
    )
    assert short["text"] in wide["text"]
    assert wide["text"].count(".") == short["text"].count(".") + 4


def test_documents_are_listed_shown_and_opened(built):
    listed = lines_of("list", "my.index", cwd=built)
    assert [line.split("  ")[0].rpartition("/")[2] for line in listed] == [
        "lease.md", "market.txt", "sea.pdf"
    ]  # fmt: skip
    ids = [json.loads(line)["id"] for line in lines_of("list", "my.index", "--json", cwd=built)]
    assert ids == [str(built / name) for name in ("lease.md", "market.txt", "sea.pdf")]
    assert "\n".join(lines_of("show", "my.index", "lease.md", cwd=built)).strip() == LEASE.strip()
    at = LEASE.index("Late rent")
    around = lines_of("show", "my.index", "lease.md", "--at", str(at), cwd=built)
    assert "Rent" in around[0]
    assert any("Late rent bears interest." in line for line in around)
    opened = lines_of("open", "my.index", "sea.pdf:0", cwd=built)
    assert any("lighthouse" in line for line in opened)


def test_a_program_that_an_index_names_is_not_opened(tmp_path, monkeypatch, capsys):
    from dewey_embed.cli import documents

    named = [tmp_path / name for name in ("a.pdf", "b.sh", "c.desktop", "d", "e.pdf")]
    for path in named[:4]:
        path.write_text("#!/bin/sh\n")
    named[4].symlink_to(named[1])
    index = Index.open(tmp_path / "my.index", "mini")
    index.add([Document(id=path.name, text="A lease.", source=str(path)) for path in named])
    opened = []
    monkeypatch.setattr(documents, "_has_screen", lambda: True)
    monkeypatch.setattr(documents.typer, "launch", lambda link: opened.append(link) or 0)
    for path in named:
        documents.open_place(index.path, path.name)
    assert opened == [named[0].as_uri()]
    assert capsys.readouterr().out.count("A lease.") == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = Index.open(tmp_path / "my.index", "mini")
    index.add([Document(id="a", text="A lease.", source="pipe")])
    os.mkfifo(tmp_path / "pipe")
    assert not index.has_changed("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "my.index", "no.md"), "no document 'no.md' in index"),
        (("show", "my.index", "lease.md", "--at", "99999"), "--at is 99999; the text of"),
        (("open", "my.index", "lease.md:77"), "has no passage 77"),
        (("list", "nowhere"), "does not exist"),
    ],
)
def test_what_is_not_there_is_one_clear_line(built, arguments, message):
    run = dewey(*arguments, cwd=built)
    assert run.returncode == 1
    [line] = run.stderr.strip().splitlines()
    assert message in line


def test_a_file_that_changed_since_is_said_to_have(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("The tenant pays the rent.")
    done("index", "a.txt", "--index", "i", cwd=tmp_path)
    assert dewey("show", "i", "a.txt", cwd=tmp_path).stderr == ""
    file.write_text("The owner pays the rent.")
    later = time.time() + 5
    os.utime(file, (later, later))
    shown = dewey("show", "i", "a.txt", cwd=tmp_path)
    assert shown.stdout.strip() == "The tenant pays the rent."
    assert "a.txt has changed since it was indexed" in shown.stderr


def test_a_file_that_is_gone_or_came_with_an_old_date_is_said_to_have_changed(tmp_path):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(f"The tenant of house {name} pays the rent.")
    done("index", "a.txt", "b.txt", "c.txt", "--index", "i", cwd=tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").mkdir()
    other = tmp_path / "other"
    other.write_text("The owner pays the rent.")
    os.utime(other, (1e9, 1e9))
    time.sleep(0.02)
    other.rename(tmp_path / "c.txt")
    for name, message in (
        ("a.txt", "is no longer there; this is the text of then"),
        ("b.txt", "is no longer there; this is the text of then"),
        ("c.txt", "has changed since it was indexed; this is the text of then"),
    ):
        for command in ("show", "open"):
            run = dewey(command, "i", name, cwd=tmp_path)
            assert message in run.stderr
            assert "pays the rent" in run.stdout


def test_a_document_is_named_by_the_end_of_its_path_where_no_other_ends_so(tmp_path):
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lease.txt").write_text(f"The {folder} house has a tenant.")
    (tmp_path / "south" / "deed.txt").write_text("The deed is in the safe.")
    done("index", "north", "south", "--index", "i", cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "in the safe" in done("show", "../i", "deed.txt", cwd=elsewhere)
    assert "south house" in done("show", "../i", "south/lease.txt", cwd=elsewhere)
    run = dewey("show", "../i", "lease.txt", cwd=elsewhere)
    assert run.returncode == 1
    assert "2 documents end in 'lease.txt'" in run.stderr


ROWS = [f"name: dr {name}; town: {town}; phone: 0{number}" for number, (name, town) in enumerate(
    zip("abcdefghijklmnopqrst", ["leeds", "york", "selby", "hull"] * 5, strict=True)
)]  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """An index of a table of lower case, of short cells, of headings alike, and of Chinese."""
    folder = tmp_path_factory.mktemp("kinds")
    table = "\n".join(
        ["name,town,phone", *(",".join(re.findall(r": ([^;]+)", row)) for row in ROWS)]
    )
    (folder / "doctors.csv").write_text(table)
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": source}
        for source in ("Start.", "The lamp of the lighthouse burns whale oil.", "End.")
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "lamp.ipynb").write_text(json.dumps(notebook))
    page = "<h1>Fees</h1><h2>Rent</h2><p>The yearly rent is 28,400 pounds in two parts."
    (folder / "fees.html").write_text(f"<title>Fees of the house</title>{page}")
    (folder / "港口.txt").write_text("船运木材到港口。租户每月支付租金。守塔人住在岩石上。" * 30)
    done("index", ".", "--index", "i", cwd=folder)
    return folder


def first_hit(folder, query, *options):
    [line] = lines_of("search", "i", query, "-k", "1", "--json", *options, cwd=folder)
    [hit] = json.loads(line)["hits"]
    return hit


def answer_of(passage):
    start, end = (each - passage["char_start"] for each in passage["highlight"])
    return passage["text"][start:end].strip()


def test_a_row_of_a_table_answers_whole_and_alone(kinds):
    for number in (3, 11, 17):
        passage = first_hit(kinds, f"doctor {chr(97 + number)} in town")["passages"][0]
        assert answer_of(passage) in ROWS
        first = passage["location"]["row"] - 1
        shown = passage["text"].splitlines()
        assert shown == ["name; town; phone", *ROWS][first : first + len(shown)]


def test_the_cell_that_answers_is_named_and_a_heading_is_no_answer(kinds):
    passage = first_hit(kinds, "what does the lamp of the lighthouse burn?")["passages"][0]
    assert answer_of(passage) == "The lamp of the lighthouse burns whale oil."
    assert passage["location"]["cell"] == 2
    passage = first_hit(kinds, "rent fees")["passages"][0]
    assert answer_of(passage) == "The yearly rent is 28,400 pounds in two parts."
    assert passage["location"]["headings"] == ["Fees", "Rent"]


def test_chinese_is_cut_at_its_sentences(kinds):
    passage = first_hit(kinds, "租户租金")["passages"][0]
    assert answer_of(passage) == "租户每月支付租金。"
    assert passage["text"].endswith("。")


def test_without_passages_the_probability_stays(kinds):
    with_them = first_hit(kinds, "lamp of the lighthouse")
    without = first_hit(kinds, "lamp of the lighthouse", "--passages", "0")
    assert without == {**with_them, "passages": []}


def test_passages_with_their_context_do_not_repeat_each_other(built):
    options = ("--by", "passage", "-k", "9", "--context", "3", "--json")
    [line] = lines_of("search", "my.index", "rent of the tenant and the owner", *options, cwd=built)
    shown = [
        (hit["document_id"], each["char_start"], each["char_end"])
        for hit in json.loads(line)["hits"]
        for each in hit["passages"]
    ]
    for number, (document, start, end) in enumerate(shown):
        before = [each for each in shown[:number] if each[0] == document]
        assert not any(a <= start and end <= b for _, a, b in before)


def test_an_index_without_documents_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("The tenant pays the rent.")
    done("index", "a.txt", "--index", "i", cwd=tmp_path)
    done("remove", "i", "a.txt", cwd=tmp_path)
    assert "holds no documents yet" in dewey("search", "i", "rent", cwd=tmp_path).stderr


def test_what_an_edit_left_as_it_was_is_counted(tmp_path):
    log, index = tmp_path / "log.txt", tmp_path / "i"
    lines = [f"On day {day} the mill ground {day * 7 % 31} sacks of rye." for day in range(40)]
    log.write_text("\n".join(lines))
    done("index", log, "--index", index, "--window", "128")
    log.write_text("\n".join([*lines, "On the last day it stood still."]))
    told = done("index", log, "--index", index)
    [percent] = re.findall(r"1 changed, (\d+)% of its tokens kept, 0 removed", told)
    assert int(percent) > 60
    log.write_text("\n".join([*lines, "On the last day it fell down."]))
    counts = json.loads(done("index", log, "--index", index, "--json"))
    assert 0 < counts["num_kept_tokens"] < counts["num_changed_tokens"]
