"""Files that a command writes at its end: what cannot be written is refused before the work."""

from pathlib import Path

import pytest

from dewey_embed.errors import ConfigError
from dewey_embed.files import require_writable
from tests.commands import ended

COMMANDS = {
    "mine": ("mine", "pairs.jsonl"),
    "eval": ("eval", "mini", "--suite", "nowhere"),
    "audit": ("audit", "cost", "--data", "nowhere"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_it_before_its_inputs_are_read(command, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for output, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "x", "Not a directory")):
        assert ended(*COMMANDS[command], "--output", output) == 1
        assert f"error: {output}: " in (errors := capsys.readouterr().err)
        assert said in errors


def test_a_new_file_in_folders_to_be_made_can_be_written(tmp_path):
    require_writable(tmp_path / "a" / "b" / "c.json")
    (tmp_path / "c.json").write_text("old")
    require_writable(tmp_path / "c.json")
    assert [each.name for each in tmp_path.iterdir()] == ["c.json"]


def test_a_folder_without_permission_is_named(tmp_path, nobody):
    tmp_path.chmod(0o500)
    with nobody(), pytest.raises(ConfigError, match=r"cannot be written .*Permission denied"):
        require_writable(Path(tmp_path, "c.json"))
