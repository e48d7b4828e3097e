"""Files for platforms hold against the schemas that check-jsonschema carries: SchemaStore's and GitLab's."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[2]
CASES = {
    "github-actions": ["action.yml"],
    "github-workflows": [".github/workflows/ci.yml", ".github/workflows/release.yml"],
    "gitlab-ci": ["templates/verify/template.yml"],
}


def documents(path: str) -> list[Any]:
    """Read all documents of a file; in YAML 1.1 the key `on` of a workflow is a truth value."""
    found = list(yaml.safe_load_all((ROOT / path).read_text()))
    return [{"on" if key is True else key: value for key, value in one.items()} for one in found]


@pytest.mark.parametrize(
    ("name", "path"), [(n, path) for n, paths in CASES.items() for path in paths]
)
def test_files_hold_against_the_platforms_schema(name: str, path: str) -> None:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json"
    validator = Draft7Validator(json.loads(vendored.read_text()))
    for document in documents(path):
        assert list(validator.iter_errors(document)) == []
        assert not validator.is_valid([document])
