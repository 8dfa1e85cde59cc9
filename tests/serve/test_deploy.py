"""The systemd unit and the Containerfile: linters pass, and what they name is there."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer.main

from dewey_embed.cli.app import app
from dewey_embed.serve.run import GRACE_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/dewey.service"
CONTAINERFILE = ROOT / "deploy/Containerfile"
PROGRAM = "/opt/dewey/bin/dewey"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


class Repeated(dict):
    """A section in which a setting may stand again: its values are a list."""

    def __setitem__(self, key, value):
        if isinstance(value, list):
            value = [*self.get(key, []), *value]
        super().__setitem__(key, value)


@pytest.fixture(scope="module")
def unit():
    parser = configparser.RawConfigParser(dict_type=Repeated, strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT, encoding="utf-8")
    return {key: value.splitlines() for key, value in parser["Service"].items()}


@pytest.fixture(scope="module")
def instructions():
    """The Containerfile's instructions, each a keyword and the rest."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(re.split(r"\s+", line.strip(), maxsplit=1)) for line in lines if line.strip()]


def of(instructions, keyword):
    return [rest for each, rest in instructions if each == keyword]


def command_of(instructions, keyword):
    """The words of the last instruction of a keyword, which is in the form of a list."""
    return json.loads(re.search(r"\[.*\]", of(instructions, keyword)[-1])[0])


def options_of(name):
    parameters = typer.main.get_command(app).commands[name].params
    return {each for parameter in parameters for each in parameter.opts}


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    # The program has to be there, and is not in /opt here.
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, sys.executable))
    checked = run("systemd-analyze", "verify", "--man=no", here)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_hadolint_finds_no_fault_in_the_containerfile():
    checked = run(HADOLINT, "--no-color", str(CONTAINERFILE))
    assert (checked.returncode, checked.stdout) == (0, "")


def test_every_option_of_the_unit_and_of_the_container_exists(unit, instructions):
    [command] = unit["ExecStart"]
    program, *words = shlex.split(command)
    assert program == PROGRAM
    for given in (words, command_of(instructions, "CMD")):
        assert given[0] == "serve"
        options = {word for word in given if word.startswith("-")}
        assert options <= options_of("serve")
        assert "--key-file" in options
    assert command_of(instructions, "ENTRYPOINT") == ["dewey"]


def test_systemd_waits_until_running_requests_are_done(unit):
    assert int(unit["TimeoutStopSec"][0]) >= GRACE_S + 15


def test_the_unit_runs_as_nobody_else_and_writes_to_its_own_folders(unit):
    assert unit["User"] == ["dewey"]
    assert unit["NoNewPrivileges"] == unit["PrivateTmp"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert not any(unit["CapabilityBoundingSet"])
    [command] = unit["ExecStart"]
    assert re.search(r"--index /var/lib/(\w+)/", command)[1] == unit["StateDirectory"][0]
    [credential] = unit["LoadCredential"]
    assert f"${{CREDENTIALS_DIRECTORY}}/{credential.partition(':')[0]} " in f"{command} "


def test_the_container_runs_as_an_ordinary_user_who_is_made_in_it(instructions):
    [user] = of(instructions, "USER")
    assert re.search(rf"useradd .*--uid {int(user)} ", " ".join(of(instructions, "RUN")))
    assert int(user) > 0
    assert of(instructions, "EXPOSE") == ["8080"]


def test_what_the_container_copies_is_there_and_is_not_ignored(instructions):
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = [
        name
        for rest in of(instructions, "COPY")
        if not rest.startswith("--from")
        for name in rest.split()[:-1]
    ]
    assert {"pyproject.toml", "src"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, rule[1:]) for rule in rules if rule.startswith("!")), name


def test_the_container_is_healthy_while_the_server_answers(instructions, live_server):
    _, *words = command_of(instructions, "HEALTHCHECK")
    for address, is_healthy in ((live_server, True), ("http://127.0.0.1:9", False)):
        here = [word.replace("http://127.0.0.1:8080", address) for word in words]
        assert (run(sys.executable, *here).returncode == 0) == is_healthy
