"""What `pyproject.toml` asks for and what `constraints.txt` pins belong together."""

from __future__ import annotations

import re
import tomllib
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


LISTED = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
DEPENDENCIES = [r for r in map(Requirement, LISTED) if r.name != PROJECT["name"]]
PINS = [Requirement(line) for line in CONSTRAINTS if line and not line.startswith("#")]


def holds_in(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


def test_constraints_are_exact_versions_without_any_address() -> None:
    for line in CONSTRAINTS:
        assert not re.search(r"://|@|/|\\|^-|\.(whl|zip|gz)", line), line
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert "*" not in specifier.version, pin
        assert "+" not in specifier.version, f"{pin}: a build that no index has for everyone"


@pytest.mark.parametrize("requirement", DEPENDENCIES, ids=str)
def test_every_dependency_has_one_pin_that_satisfies_it(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    for environment in ENVIRONMENTS:
        found = [p for p in PINS if p.name == name and holds_in(p, environment)]
        if not holds_in(requirement, environment):
            continue
        assert len(found) == 1, f"{requirement} in {environment}: {found}; run make constraints"
        (specifier,) = found[0].specifier
        assert requirement.specifier.contains(specifier.version), f"{found[0]}: make constraints"


def test_no_pin_is_given_twice_for_one_environment() -> None:
    for environment in ENVIRONMENTS:
        names = [pin.name for pin in PINS if holds_in(pin, environment)]
        assert sorted(names) == sorted(set(names))


def test_every_dependency_says_why_it_is_there() -> None:
    """`"name>=1.2",  # what it is for: why that bound`, the second where it has one."""
    start = PYPROJECT.index("\ndependencies = [")
    end = PYPROJECT.index("\n[", PYPROJECT.index("[project.optional-dependencies]"))
    lines = [line.strip() for line in PYPROJECT[start:end].splitlines()]
    lines = [line for line in lines if line.startswith('"')]
    assert len(lines) == len(LISTED), "one dependency a line"
    for line in lines:
        requirement, _, why = line.partition(",  # ")
        assert len(why.split()) >= 3, f"{line}: say why it is there"
        if ">=" in requirement:
            assert ": " in why, f"{line}: say why its lower bound"


def test_no_installed_dependency_is_under_the_gpl() -> None:
    pinned = {pin.name for pin in PINS}
    installed = [d for d in distributions() if canonicalize_name(d.name) in pinned]
    assert installed
    for distribution in installed:
        about = distribution.metadata
        said = [about.get("License-Expression", ""), *about.get_all("Classifier", [])]
        said += (about.get("License") or "").splitlines()[:1]  # some put the whole text there
        for line in said:
            rest = re.sub(r"LGPL|Lesser General|GPL\S* WITH GCC-exception-3.1", "", line)
            assert not re.search(r"GPL|General Public License", rest), (
                f"{distribution.name}: {line}"
            )


def test_dependencies_have_lower_bounds() -> None:
    for requirement in DEPENDENCIES:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, f"{requirement}: a lower bound, and no upper one"


def test_all_names_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "test"}
