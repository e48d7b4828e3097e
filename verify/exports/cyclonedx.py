"""A CycloneDX 1.7 bill of materials: parents as ancestors, files as components, the rest as properties.

The library has no model card, so what a training declared stands in the steps and in components of
type data. Roots are properties, not hashes: a hash is one of a file's bytes, and a root is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot7
from packageurl import PackageURL

from parentage import __version__
from parentage.attest.bundle import CLAIMS, MODEL_SIG
from parentage.manifest import canonical
from parentage.manifest.lineage import NAMESPACE, Lineage, Parent
from parentage.manifest.steps import Material, Step, Training
from parentage.verify.exports.record import NOTE, Record

_MODEL: Final = ComponentType.MACHINE_LEARNING_MODEL


def cyclonedx(record: Record, now: datetime) -> bytes:
    """Return a bill of materials as JSON; the same for the same record and time."""
    model, data = _model(record), list(_data(record.lineage))
    bom = Bom(
        serial_number=uuid.uuid5(
            uuid.NAMESPACE_URL, f"{NAMESPACE}/{record.statement}/{now.isoformat()}"
        ),
        metadata=BomMetaData(
            timestamp=now,
            component=model,
            tools=ToolRepository(
                components=[
                    Component(type=ComponentType.APPLICATION, name="parentage", version=__version__)
                ]
            ),
            properties=[_property("derived", NOTE)],
        ),
        components=data,
    )
    bom.register_dependency(model, data)
    return JsonV1Dot7(bom).output_as_string(indent=2).encode("ascii") + b"\n"


def _model(record: Record) -> Component:
    lineage = record.lineage
    steps = lineage.recipe.steps
    facts = {
        "lineage:sha256": record.statement,
        "lineage:signer": str(record.signer),
        "lineage:created": lineage.created,
        "oms:root:sha256": record.oms_root,
        "tensors": str(lineage.weights.tensors),
        "tensors:bytes": lineage.weights.bytes,
        **{f"weights:{profile}": root for profile, root in lineage.weights.root.items()},
        **{f"step:{number:03}:{step.id}": _text(step) for number, step in enumerate(steps)},
    }
    return Component(
        type=_MODEL,
        name=record.name,
        bom_ref="release",
        properties=[_property(name, value) for name, value in facts.items()],
        components=[
            Component(
                type=ComponentType.FILE, name=name, bom_ref=f"file:{name}", hashes=_sha256(sha)
            )
            for name, sha in sorted(record.files.items())
        ],
        pedigree=Pedigree(
            ancestors=[_ancestor(parent, steps) for parent in lineage.parents], notes=NOTE
        ),
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.ATTESTATION,
                url=XsUri(MODEL_SIG),
                comment="OpenSSF Model Signing bundle over all files",
                hashes=_sha256(record.signature),
            ),
            ExternalReference(
                type=ExternalReferenceType.ATTESTATION,
                url=XsUri(CLAIMS),
                comment="signed statements, among them the lineage",
            ),
        ],
    )


def _ancestor(parent: Parent, steps: tuple[Step, ...]) -> Component:
    """Return a parent: what it is by its root, where it may be by its package URL."""
    purl = _purl(parent.uri)
    facts = {f"weights:{profile}": root for profile, root in parent.weights.items()}
    if parent.lineage:
        facts |= {f"lineage:{name}": value for name, value in parent.lineage.items()}
    if parent.uri and purl is None:
        facts["uri"] = parent.uri
    for step in steps:
        facts |= _share(parent.id, step)
    return Component(
        type=_MODEL,
        name=purl.name if purl else parent.id,
        group=purl.namespace if purl else None,
        version=purl.version if purl else None,
        bom_ref=f"parent:{parent.id}",
        purl=purl,
        licenses=[LicenseFactory().make_from_string(parent.license)] if parent.license else None,
        properties=[_property(name, value) for name, value in {"id": parent.id, **facts}.items()],
    )


def _purl(uri: str) -> PackageURL | None:
    try:
        return PackageURL.from_string(uri)
    except ValueError:
        return None


def _share(parent: str, step: Step) -> dict[str, str]:
    """Return a parent's place and ratio in a step that reads it, as the step has them."""
    if parent not in step.inputs:
        return {}
    params = _wire(step).get("params", {})
    place = step.inputs.index(parent)
    found = {f"step:{step.id}:input": str(place)}
    base = params.get("base")
    merged = [name for name in step.inputs if name != base]
    weights = params.get("weights", [])
    if parent == base:
        found[f"step:{step.id}:base"] = "true"
    elif len(weights) == len(merged):
        found[f"step:{step.id}:weight"] = weights[merged.index(parent)]
    if "t" in params and place == len(step.inputs) - 1:
        found[f"step:{step.id}:t"] = params["t"]
    if params.get("overrides"):
        found[f"step:{step.id}:overrides"] = "true"
    return found


def _data(lineage: Lineage) -> Iterator[Component]:
    """Give what trainings declared that they read, each once."""
    found: dict[str, tuple[ComponentType, Material]] = {}
    for step in lineage.recipe.steps:
        if isinstance(step, Training):
            found |= {d.sha256: (ComponentType.DATA, d) for d in step.training.data}
            program = step.training.program
            found[program.sha256] = (ComponentType.APPLICATION, program)
    for sha256, (kind, material) in sorted(found.items()):
        yield Component(
            type=kind,
            name=material.name or f"sha256:{sha256}",
            bom_ref=f"material:{sha256}",
            hashes=_sha256(sha256),
            properties=[_property("uri", material.uri)] if material.uri else None,
        )


def _wire(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(step)
    return found


def _text(step: Step) -> str:
    return canonical.dumps(_wire(step)).decode()


def _property(name: str, value: str) -> Property:
    return Property(name=f"parentage:{name}", value=value)


def _sha256(digest: str) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
