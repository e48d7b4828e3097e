"""The published schemas are those of the models, and real documents satisfy them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from worlds import MERGE, World, training

from parentage.manifest import lineage

sys.path.insert(0, str(Path(__file__).parent))

from regenerate_schemas import FOLDER, MODELS, generate


@pytest.mark.parametrize("name", MODELS)
def test_committed_schema_is_current(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == generate(name), (
        "run: make schemas"
    )


def schema(name: str) -> Any:
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_real_documents(world: World) -> None:
    release = world.merge()
    tensors = {name: tensor + 0.0002 for name, tensor in world.weights("merged").items()}
    world.save("trained", tensors)
    world.declare("trained", ["a", "b"], [MERGE, training("merge")])

    for name in ("merged", "trained"):
        schema("lineage-v0.1").validate(
            json.loads(msgspec.json.encode(lineage.to_document(world.lineage(name))))
        )
        schema("report-v0.1").validate(json.loads(world.verify(name, ["a", "b"]).to_json()))
    for line in (release / ".parentage" / "tensors.jsonl").read_text().splitlines():
        schema("tensors-v0.1").validate(json.loads(line))
    recipe = world.recipe(["a", "b"], [MERGE, training("merge")])
    schema("recipe-v0.1").validate(json.loads(msgspec.json.encode(recipe)))


@pytest.mark.parametrize(
    "change",
    [
        {"op": "magic/v1"},
        {"more": 1},
        {"params": {"weights": [0.6, 0.4], "normalize": True}},
        {"params": {"weights": ["0.6", "1e3"], "normalize": True}},
    ],
)
def test_the_schema_refuses_what_we_refuse(change: dict[str, Any]) -> None:
    document = {
        "version": "0.1",
        "parents": [{"id": "a"}, {"id": "b"}],
        "steps": [{**MERGE, **change}],
    }

    assert not schema("recipe-v0.1").is_valid(document)
