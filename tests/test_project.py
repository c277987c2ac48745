"""The dependencies of `pyproject.toml` and the pins of `constraints.txt` are consistent."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()

ENVIRONMENTS = [
    {"python_version": version, "python_full_version": f"{version}.1", "sys_platform": platform}
    for version in ("3.11", "3.12", "3.13", "3.14")
    for platform in ("linux", "darwin")
]


APART = {"federated", "remote"}
"""Extras for an environment of their own, without pins: they exclude versions that others use."""

EXTRAS = PROJECT["optional-dependencies"]


def dependencies(extras: Iterable[str]) -> list[Requirement]:
    """What the project and some of its extras depend on, without other extras of the project."""
    listed = sum((EXTRAS[name] for name in extras), PROJECT["dependencies"])
    return [r for r in map(Requirement, listed) if r.name != PROJECT["name"]]


PINS = [Requirement(line) for line in CONSTRAINTS if line and not line.startswith("#")]


def applies_in(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


def test_constraints_are_exact_versions_without_urls() -> None:
    for line in CONSTRAINTS:
        assert not re.search(r"://|@|/|\\|^-|\.(whl|zip|gz)", line), line
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert "*" not in specifier.version, pin
        assert "+" not in specifier.version, f"{pin}: a local build"


@pytest.mark.parametrize("requirement", dependencies(sorted(set(EXTRAS) - APART)), ids=str)
def test_every_dependency_has_one_pin_that_satisfies_it(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    for environment in ENVIRONMENTS:
        pins = [p for p in PINS if p.name == name and applies_in(p, environment)]
        if not applies_in(requirement, environment):
            continue
        assert len(pins) == 1, f"{requirement} in {environment}: {pins}; run make constraints"
        (specifier,) = pins[0].specifier
        assert requirement.specifier.contains(specifier.version), f"{pins[0]}: run make constraints"


def test_pins_are_unique_in_every_environment() -> None:
    for environment in ENVIRONMENTS:
        names = [pin.name for pin in PINS if applies_in(pin, environment)]
        assert sorted(names) == sorted(set(names))


def test_every_dependency_has_a_comment_with_its_purpose() -> None:
    """`"name>=1.2",  # purpose: reason for the bound`; the reason only with a bound."""
    start = PYPROJECT.index("\ndependencies = [")
    end = PYPROJECT.index("\n[", PYPROJECT.index("[project.optional-dependencies]"))
    lines = [line.strip() for line in PYPROJECT[start:end].splitlines()]
    lines = [line for line in lines if line.startswith('"')]
    listed = sum(EXTRAS.values(), PROJECT["dependencies"])
    assert len(lines) == len(listed), "expected one dependency per line"
    for line in lines:
        requirement, _, comment = line.partition(",  # ")
        assert len(comment.split()) >= 3, f"{line}: add a comment with its purpose"
        if ">=" in requirement:
            assert ": " in comment, f"{line}: add the reason for the lower bound"


def test_no_installed_dependency_is_under_the_gpl() -> None:
    # Of docutils, only a mode of an editor is under the GPL, which its wheel does not contain.
    pinned = {pin.name for pin in PINS} - {"docutils"}
    installed = [d for d in distributions() if canonicalize_name(d.name) in pinned]
    assert installed
    for distribution in installed:
        metadata = distribution.metadata
        licences = [metadata.get("License-Expression", ""), *metadata.get_all("Classifier", [])]
        licences += (metadata.get("License") or "").splitlines()[:1]  # may be the full text
        for line in licences:
            rest = re.sub(r"LGPL|Lesser General|GPL\S* WITH GCC-exception-3.1", "", line)
            assert not re.search(r"GPL|General Public License", rest), (
                f"{distribution.name}: {line}"
            )


def test_dependencies_have_lower_bounds_only() -> None:
    for requirement in dependencies(EXTRAS):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, f"{requirement}: expected a lower bound and no upper bound"


def test_extra_all_includes_every_user_extra() -> None:
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == set(EXTRAS) - {"all", "docs", "test"} - APART
