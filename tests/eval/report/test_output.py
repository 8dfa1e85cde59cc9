"""`dewey report`: files written, the same each time, and errors in one line."""

import re

import pytest
from typer.testing import CliRunner

from dewey_embed.cli.evaluate import report
from dewey_embed.errors import ConfigError, ResultsError
from dewey_embed.eval.report.output import write_report
from dewey_embed.eval.report.pages import collect
from tests.eval.report.samples import alignment, evaluation, write_all


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    evaluation().write(folder / "e.json")
    alignment().write(folder / "a.json")
    (folder / "other.json").write_text("{}")
    return folder


def run(*arguments):
    import typer

    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_command_writes_page_markdown_and_pictures(small, tmp_path) -> None:
    page, text, plots = tmp_path / "out" / "r.html", tmp_path / "docs" / "r.md", tmp_path / "docs/p"
    done = run(small, "-o", page, "-o", text, "--plots", plots)
    assert done.exit_code == 0, done.output
    assert "2 pages" in done.stdout
    assert "6 pictures" in done.stdout
    assert "passed over" in done.stderr
    assert "other.json" in done.stderr
    links = re.findall(r"\((p/[^)]+)\)", text.read_text(encoding="utf-8"))
    assert sorted(links) == sorted(f"p/{file.name}" for file in plots.iterdir())
    assert page.read_text(encoding="utf-8").count("<svg") == 3


def test_the_same_results_are_the_same_bytes(tmp_path) -> None:
    alignment().write(tmp_path / "in" / "a.json")
    written = []
    for number in range(2):
        out = tmp_path / str(number)
        groups = collect([tmp_path / "in"]).groups
        files = write_report(groups, [out / "r.html", out / "r.md"], out / "plots")
        written.append({file.relative_to(out): file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert len(written[0]) == 6


def test_links_are_relative_and_safe_in_an_address(tmp_path) -> None:
    alignment().write(tmp_path / "a.json")
    text = tmp_path / "docs" / "r.md"
    write_report(collect([tmp_path]).groups, [text], tmp_path / "my plots (new)")
    assert "](../my%20plots%20%28new%29/alignment-mini-1.png)" in text.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("outputs", "plots", "error", "message"),
    [
        (["r.pdf"], None, ConfigError, r"r\.pdf: .* \.html or \.md, not \.pdf"),
        (["report"], None, ConfigError, "a name without a suffix"),
        ([], None, ConfigError, "nothing to write"),
        (["folder.md"], None, ResultsError, "is a folder"),
        (["file/r.md"], None, ResultsError, "cannot be written"),
        ([], "file", ResultsError, "is a file"),
        ([], "file/plots", ResultsError, "cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path, outputs, plots, error, message
) -> None:
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "file").write_text("")
    evaluation().write(tmp_path / "e.json")
    groups = collect([tmp_path / "e.json"]).groups
    paths = [tmp_path / name for name in outputs]
    with pytest.raises(error, match=message):
        write_report(groups, paths, plots and tmp_path / plots)


def test_a_wrong_suffix_is_refused_before_results_are_read(tmp_path) -> None:
    done = run(tmp_path / "none", "-o", tmp_path / "r.docx")
    assert isinstance(done.exception, ConfigError)


def test_markdown_alone_draws_nothing(tmp_path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    write_all(tmp_path / "in")
    [written] = write_report(collect([tmp_path / "in"]).groups, [tmp_path / "r.md"], None)
    assert "| passkey | 400 |" in written.read_text(encoding="utf-8")
