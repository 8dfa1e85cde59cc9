"""The packages that Dewey installs, with every extra: known vulnerabilities, and licences.

`make audit` runs it. The status is 0 where both are clean, 1 where something was found, and 2
where it could not be looked up: what nobody looked at is never called clean. Advisories are those
of PyPI, else of OSV, by pip-audit. `tool.licences` of pyproject.toml says what is allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from license_expression import (
    AND,
    OR,
    ExpressionError,
    ExpressionParseError,
    get_spdx_licensing,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OWN_NAME = "dewey-embed"
SERVICES = ("pypi", "osv")
SPDX = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""The SPDX names of licences that packages name in another way."""


class Installed(NamedTuple):
    """Versions of packages by name, and the names of those that are required and not there."""

    versions: Mapping[str, str]
    missing: Sequence[str]


class Looked(NamedTuple):
    """Vulnerabilities, a line each, and the packages of which nobody could say."""

    found: Sequence[str]
    unknown: Sequence[str]


def main() -> int:
    """Say what was found, and what could not be looked at."""
    packages = required()
    faults = licence_faults(licences(packages.versions), rules())
    say(f"{len(packages.versions)} packages are installed for Dewey and all of its extras")
    say(*(f"LICENCE  {fault}" for fault in faults))
    say("" if faults else "licences: all are allowed, or named exceptions (pyproject.toml)")
    looked = look_up(packages.versions)
    say(*(f"VULNERABLE  {each}" for each in looked.found))
    unknown = [*looked.unknown, *(f"{name} (not installed)" for name in packages.missing)]
    if unknown:
        say(
            f"COULD NOT LOOK  {len(unknown)} packages, of which nothing is known: "
            f"{', '.join(unknown[:8])}{' …' if len(unknown) > 8 else ''}; run it again where "
            "PyPI's or OSV's advisories can be reached, with all extras installed"
        )
    elif not looked.found:
        say("vulnerabilities: none is known")
    return 1 if faults or looked.found else 2 if unknown else 0


def say(*lines: str) -> None:
    """Print the lines that are not empty."""
    sys.stdout.writelines(f"{line}\n" for line in lines if line)


def required() -> Installed:
    """What `pip install dewey-embed[every extra]` brings, and what that brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        waiting += extra
    versions: dict[str, str] = {}
    missing: set[str] = set()
    seen = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        marker = requirement.marker
        if key in seen or name == OWN_NAME or (marker and not marker.evaluate()):
            continue
        seen.add(key)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        versions[name] = package.version
        waiting += below(package.requires or (), requirement.extras)
    return Installed(dict(sorted(versions.items())), sorted(missing))


def below(requires: Sequence[str], extras: set[str]) -> list[str]:
    """The requirements that hold here for a package with some extras, without their markers."""
    found = []
    for each in map(Requirement, requires):
        given = [{"extra": extra} for extra in ("", *extras)]
        if each.marker is None or any(map(each.marker.evaluate, given)):
            each.marker = None
            found.append(str(each))
    return found


def look_up(versions: Mapping[str, str]) -> Looked:
    """What the services know of the packages; each is asked for what those before could not say."""
    found: list[str] = []
    left = dict(versions)
    for service in SERVICES:
        if left:
            looked = judged(asked(service, left), left)
            found += looked.found
            left = {name: left[name] for name in looked.unknown}
    return Looked(found, [*left])


def asked(service: str, versions: Mapping[str, str]) -> Any:
    """pip-audit's report of the packages; nothing where the service cannot be reached."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        # a local build is not at the index under its own version
        file.writelines(
            f"{name}=={version.partition('+')[0]}\n" for name, version in versions.items()
        )
        file.flush()
        command = ["-m", "pip_audit", "--requirement", file.name, "--no-deps", "--disable-pip"]
        options = ["--vulnerability-service", service, "--format", "json"]
        given = [sys.executable, *command, *options, "--progress-spinner", "off"]
        ended = subprocess.run(given, capture_output=True, text=True, check=False)
    try:
        return json.loads(ended.stdout)
    except ValueError:
        return {}


def judged(report: Any, versions: Mapping[str, str]) -> Looked:
    """What a report says of the packages; one that it skips or leaves out is unknown."""
    said = {
        canonicalize_name(each["name"]): each
        for each in report.get("dependencies", ())
        if "vulns" in each
    }
    found = [
        f"{name} {versions[name]}: {fault['id']}; mended in "
        f"{', '.join(fault.get('fix_versions', ())) or 'no version yet'}"
        for name, each in said.items()
        for fault in each["vulns"]
    ]
    return Looked(found, [name for name in versions if name not in said])


def licences(versions: Mapping[str, str]) -> dict[str, str]:
    """The licence that each package names, by pip-licenses."""
    options = ["--from=mixed", "--format=json", "--packages", *versions]
    given = [sys.executable, "-m", "piplicenses", *options]
    ended = subprocess.run(given, capture_output=True, text=True, check=True)
    return {canonicalize_name(each["Name"]): each["License"] for each in json.loads(ended.stdout)}


class Rules(NamedTuple):
    """The licences that are allowed, and packages with another one by pattern, with the reason."""

    allowed: Sequence[str]
    exceptions: Mapping[str, str]


def rules() -> Rules:
    """The rules in pyproject.toml."""
    return Rules(**tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["licences"])


def licence_faults(given: Mapping[str, str], allowed: Rules) -> list[str]:
    """The packages whose licence is not allowed and that are no exception."""
    return [
        f"{name}: {' '.join(licence.split())[:100] or 'none is named'}"
        for name, licence in sorted(given.items())
        if not any(fnmatchcase(name, pattern) for pattern in allowed.exceptions)
        and not is_allowed(licence, allowed.allowed)
    ]


def is_allowed(licence: str, allowed: Sequence[str]) -> bool:
    """Whether a package may be used under allowed licences alone; of several names all count."""
    names = [SPDX.get(each.strip(), each.strip()) for each in licence.split(";")]
    try:
        parsed = [_spdx().parse(name) for name in names]
    except (ExpressionError, ExpressionParseError):
        return False
    return all(each is not None and _fits(each, set(allowed)) for each in parsed)


@cache
def _spdx() -> Any:
    """The parser of expressions of licences, which takes a while to make."""
    return get_spdx_licensing()


def _fits(expression: Any, allowed: set[str]) -> bool:
    if not isinstance(expression, AND | OR):
        return str(expression.render()) in allowed
    arguments = [_fits(each, allowed) for each in expression.args]
    return all(arguments) if isinstance(expression, AND) else any(arguments)


if __name__ == "__main__":
    sys.exit(main())
