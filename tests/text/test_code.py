"""Source code: read with its lines where it is named itself, passed over in folders."""

from dewey_embed.text.reader import read_documents
from dewey_embed.types import Location
from tests.text.places import one, where


def test_code_is_itself_with_its_lines(tmp_path):
    source = '"""Tides."""\r\n\r\n\r\ndef rise():\r\n\treturn 3\r\n'
    (tmp_path / "a.py").write_bytes(source.encode())
    found = one(tmp_path / "a.py")
    assert (found.text, found.title) == (source, "a.py")
    assert where(found, "return 3") == Location(line=5, last_line=5)


def test_line_ends_that_editors_count_otherwise_leave_no_number(tmp_path):
    (tmp_path / "a.py").write_bytes(b"a = 1\rb = 2\nc = 3\n")
    assert where(one(tmp_path / "a.py"), "c = 3") == Location()


def test_pages_that_are_programs_stay_programs(tmp_path):
    (tmp_path / "a.php").write_text("<html><?php echo 1 ?></html>")
    assert one(tmp_path / "a.php").text == "<html><?php echo 1 ?></html>"


def test_code_in_folders_is_passed_over_and_counted(tmp_path):
    for name in ("a.py", "b.json", "c.txt"):
        (tmp_path / name).write_text("words")
    passed_over = [each for each in read_documents([tmp_path]) if not hasattr(each, "text")]
    assert [each.kind for each in passed_over] == [".py", ".json"]
    assert all("unless it is named itself" in each.reason for each in passed_over)
    named = [*read_documents([tmp_path / "a.py", tmp_path / "b.json"])]
    assert [each.text for each in named] == ["words", "words"]


def test_what_tools_write_is_passed_over_even_if_it_is_named(tmp_path):
    for name in ("package-lock.json", "a.min.js", "uv.lock", "a.css.map"):
        (tmp_path / name).write_text("words")
        found = one(tmp_path / name)
        assert (found.skipped, found.kind) == (True, "generated")
