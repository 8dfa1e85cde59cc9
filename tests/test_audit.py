"""The audit of what is installed: licences by rule, and nothing is clean that nobody looked at."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("license_expression")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT License", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("BSD License; MIT License", True),
        ("MIT License; GNU General Public License (GPL)", False),
        ("UNKNOWN", False),
        ("", False),
        ("MIT License\n\nCopyright (c) 2022 ...", False),
    ],
)
def test_a_licence_fits_where_it_lets_itself_be_used_under_allowed_ones(audit, licence, allowed):
    assert audit.is_allowed(licence, audit.rules().allowed) is allowed


def test_a_package_with_another_licence_is_named_unless_it_is_an_exception(audit):
    given = audit.Rules(["MIT"], {"odd": "a reason", "vendor-*": "another"})
    licences = {"odd": "GPL-3.0", "vendor-x": "its own", "fine": "MIT", "bad": "GPL-3.0"}
    assert audit.licence_faults(licences, given) == ["bad: GPL-3.0"]


def test_every_package_that_a_user_installs_has_an_allowed_licence(audit):
    packages = audit.required()
    assert len(packages.versions) > 20
    assert audit.licence_faults(audit.licences(packages.versions), audit.rules()) == []
    assert all(reason.strip() for reason in audit.rules().exceptions.values())


def report(*dependencies):
    return {"dependencies": list(dependencies)}


def test_what_a_service_skips_or_leaves_out_is_unknown(audit):
    skipped = {"name": "B", "skip_reason": "not found on PyPI"}
    sound = {"name": "a", "version": "1", "vulns": []}
    looked = audit.judged(report(sound, skipped), {"a": "1", "b": "2", "c": "3"})
    assert looked == ([], ["b", "c"])
    assert audit.judged({}, {"a": "1"}) == ([], ["a"])


def test_a_vulnerability_is_named_with_its_mended_versions(audit):
    fault = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}
    looked = audit.judged(report({"name": "a", "vulns": [fault]}), {"a": "1.0"})
    assert looked == (["a 1.0: PYSEC-1; mended in 1.1"], [])


@pytest.mark.parametrize(
    ("found", "unknown", "missing", "status", "words"),
    [
        ([], [], [], 0, "vulnerabilities: none is known"),
        (["a 1: X; mended in 2"], [], [], 1, "VULNERABLE  a 1"),
        ([], ["a"], [], 2, "COULD NOT LOOK  1 packages"),
        ([], [], ["ray"], 2, "ray (not installed)"),
    ],
)
def test_only_what_was_looked_at_is_called_clean(
    audit, monkeypatch, capsys, found, unknown, missing, status, words
):
    monkeypatch.setattr(audit, "required", lambda: audit.Installed({"a": "1"}, missing))
    monkeypatch.setattr(audit, "licences", lambda _: {"a": "MIT"})
    monkeypatch.setattr(audit, "look_up", lambda _: audit.Looked(found, unknown))
    assert audit.main() == status
    shown = capsys.readouterr().out
    assert words in shown
    assert ("none is known" in shown) == (status == 0)


def test_a_service_that_cannot_be_reached_says_nothing_of_any_package(audit, monkeypatch):
    def unreachable(*_, **__):
        return SimpleNamespace(stdout="", stderr="ConnectionError", returncode=1)

    monkeypatch.setattr(audit.subprocess, "run", unreachable)
    assert audit.look_up({"a": "1"}) == ([], ["a"])
    skipped = json.dumps(report({"name": "a", "skip_reason": "not found"}))
    answers = iter([skipped, json.dumps(report({"name": "a", "vulns": []}))])
    monkeypatch.setattr(
        audit.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=next(answers))
    )
    assert audit.look_up({"a": "1"}) == ([], [])
