"""What GitHub runs is there: targets of the Makefile, templates that GitHub reads."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def test_steps_run_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    targets = [match[1] for command in commands if (match := re.match(r"make (\w+)", command))]
    assert {"lint", "unit", "conformance", "oldest", "docs", "wheel"} == set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"(tools/\w+\.py)", makefile):
        assert (ROOT / script).is_file()


def test_all_supported_pythons_are_tested() -> None:
    versions = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None and versions == [f"3.{minor}" for minor in range(int(oldest[1]), 14)]


def test_templates_ask_for_what_is_needed() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= template.keys(), path.name
            assert len({field["id"] for field in template["body"]}) == len(template["body"])
