"""SLSA provenance v1 of a recipe (slsa.dev/spec/v1.2/build-provenance).

    buildType             one for every recipe: its steps are the parameters
    externalParameters    steps, as signed, without the roots of their outputs
    resolvedDependencies  parents by the root of their weights; training data, programs, recipe sources
    subject               the OMS root, and the files that hold tensors: what the recipe made
    byproducts            tensor table, lineage statement, outputs of steps

Nobody attests the build: `builder.id` stands for a publisher's word, which is no SLSA level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from parentage.attest.envelope import PAYLOAD_TYPE
from parentage.attest.statement import TYPE
from parentage.manifest import table
from parentage.manifest.errors import CannotRunError
from parentage.manifest.lineage import LINEAGE, NAMESPACE, Lineage, Parent
from parentage.manifest.steps import Material, Training
from parentage.manifest.wire import DigestSet
from parentage.verify.exports.record import Record, to_bytes

PROVENANCE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = f"{NAMESPACE}/buildtypes/recipe/v0.1"
Digests = DigestSet | dict[str, str]
BUILDER: Final = f"{NAMESPACE}/builders/declared/v0.1"


def slsa(record: Record) -> bytes:
    """Return an unsigned in-toto statement.

    Raises:
        CannotRunError: the lineage has no recipe, so nothing was built.
    """
    lineage = record.lineage
    if not lineage.recipe.steps:
        raise CannotRunError(
            "the lineage declares no recipe: there is no build to describe",
            where=record.name,
            hint="--format cyclonedx",
        )
    steps = [_parameters(step) for step in lineage.recipe.steps]
    return to_bytes(
        {
            "_type": TYPE,
            "subject": list(_subjects(record)),
            "predicateType": PROVENANCE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"steps": steps},
                    "resolvedDependencies": [
                        *map(_parent, lineage.parents),
                        *_materials(lineage),
                    ],
                },
                "runDetails": {
                    "builder": {"id": BUILDER},
                    "byproducts": list(_byproducts(record)),
                },
                "parentage_derivedFrom": record.derived_from(),
            },
        }
    )


def _parameters(step: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(step)
    found.pop("output", None)
    return found


def _subjects(record: Record) -> Iterator[dict[str, Any]]:
    # Only what the recipe made: a config.json of the same bytes may lie in any release.
    name = record.name if record.name not in record.weights else f"{record.name}/"
    yield {"name": name, "digest": {"sha256": record.oms_root}}
    for file in record.weights:
        yield {"name": file, "digest": {"sha256": record.files[file]}}


def _parent(parent: Parent) -> dict[str, Any]:
    """Return a parent; its URI is a hint, its root is what it is."""
    notes: dict[str, Any] = {}
    if parent.lineage:
        notes["parentage_lineage"] = dict(parent.lineage)
    if parent.license:
        notes["parentage_license"] = parent.license
    return _descriptor(parent.id, parent.weights, uri=parent.uri, annotations=notes)


def _materials(lineage: Lineage) -> Iterator[dict[str, Any]]:
    for step in lineage.recipe.steps:
        if isinstance(step, Training):
            record = step.training
            for kind, material in (
                *(("data", data) for data in record.data),
                ("program", record.program),
                *([("log", record.log)] if record.log else []),
            ):
                yield _material(f"{step.id}: {kind}", material)
    source = lineage.recipe.source
    if source is not None:
        yield _descriptor("recipe", {"sha256": source.sha256}, mediaType=source.media_type)
        for material in source.materials:
            yield _material("recipe", material)


def _material(part: str, material: Material) -> dict[str, Any]:
    name = f"{part}: {material.name}" if material.name else part
    return _descriptor(name, {"sha256": material.sha256}, uri=material.uri)


def _byproducts(record: Record) -> Iterator[dict[str, Any]]:
    yield _descriptor(table.TENSORS, {"sha256": record.files[table.TENSORS]})
    yield _descriptor(LINEAGE, {"sha256": record.statement}, mediaType=PAYLOAD_TYPE)
    for step in record.lineage.recipe.steps[:-1]:
        if step.output:
            yield _descriptor(f"step {step.id}", step.output)


def _descriptor(name: str, digest: Digests, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return an in-toto ResourceDescriptor without empty fields."""
    return {"name": name, "digest": digest} | {key: value for key, value in fields.items() if value}
