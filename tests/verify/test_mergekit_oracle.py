"""Real mergekit output, imported from its YAML and recomputed: the rung that each method reaches."""

from __future__ import annotations

from pathlib import Path

import pytest
from mergekit_cases import CASES, NOT_IN_014, WEAKER
from mergekit_world import make_models, results

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"), head=300)


@pytest.mark.parametrize("case", CASES)
def test_mergekit_015_reaches_its_rung(models: Path, case: str) -> None:
    found = results(models, "0.1.5", case)

    allowed = {"A"} | set(WEAKER.get(case, ""))
    assert {str(r.rung) for r in found} <= allowed, [r for r in found if r.rung not in allowed][:3]


@pytest.mark.parametrize("case", [c for c in CASES if c.partition("-")[0] not in NOT_IN_014])
def test_mergekit_014_reaches_its_rung(models: Path, case: str) -> None:
    found = results(models, "0.1.4", case)

    allowed = {"A"} | set(WEAKER.get(case, ""))
    assert {str(r.rung) for r in found} <= allowed, [r for r in found if r.rung not in allowed][:3]


@pytest.mark.parametrize(
    "case", ["ties", "ties-fp32", "ties-far", "breadcrumbs", "breadcrumbs_ties"]
)
def test_without_a_sort_they_reach_rung_c(models: Path, case: str) -> None:
    found = results(models, "0.1.5", case, rung="C")

    assert {str(r.rung) for r in found} <= {"A", "C"}, [r for r in found if r.rung == "?"][:3]
    assert any(r.rung == "C" for r in found)


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("ties", "density: [0.2, 0.8]", "density: [0.21, 0.8]"),
        ("breadcrumbs", "density: 0.4", "density: 0.41"),
    ],
)
def test_a_false_density_is_refuted_at_rung_c(models: Path, case: str, old: str, new: str) -> None:
    found = results(models, "0.1.5", case, rung="C", edit=lambda text: text.replace(old, new))

    assert "refuted" in {str(r.rung) for r in found}


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("linear", "0.6", "0.61"),
        ("linear", "0.4", "0.401"),
        ("task", "0.5", "0.51"),
        ("slerp", "0.35", "0.4"),
    ],
)
def test_a_false_ratio_is_refuted(models: Path, case: str, old: str, new: str) -> None:
    found = results(models, "0.1.5", case, edit=lambda text: text.replace(old, new))

    assert "refuted" in {result.rung for result in found}


def test_the_other_version_is_refuted(models: Path) -> None:
    found = results(models, "0.1.4", "linear", profile="mk-0.1.5")

    assert "refuted" in {result.rung for result in found}
