"""Real `merge_and_unload` output, recomputed: LoRA and rsLoRA, adapters in fp32 and bf16.

PEFT comes with mergekit's environment (`make peers`).
"""

from __future__ import annotations

from pathlib import Path

import peft_world
import pytest

from parentage.manifest import recipe

pytestmark = pytest.mark.peer

SCRIPT = """
for case in sys.argv[2:]:
    dtype, *flags = case.split("-")
    rs, keep, safe = (flag == "1" for flag in flags)
    torch.manual_seed(1)
    model = Model().to(getattr(torch, dtype))
    save(model, out / case / "base")
    config = LoraConfig(r=8, lora_alpha=20, target_modules=["q", "k"], use_rslora=rs, init_lora_weights=False)
    tuned = get_peft_model(model, config, autocast_adapter_dtype=not keep)
    tuned.save_pretrained(out / case / "adapter")
    save(tuned.merge_and_unload(safe_merge=safe), out / case / "merged")
"""
#: dtype, rsLoRA, whether the adapter keeps that dtype, safe_merge.
CASES = [
    ("float32", False, False, False),
    ("bfloat16", True, False, False),
    ("float16", False, False, True),
    ("bfloat16", False, True, False),
    ("bfloat16", True, True, True),
]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, made by one interpreter: importing peft takes most of the time."""
    return peft_world.run(
        SCRIPT, tmp_path_factory.mktemp("peft"), *(peft_world.label(*case) for case in CASES)
    )


def rungs(out: Path, alpha: str, *, rs: bool) -> dict[str, str]:
    document = {
        "version": "0.1",
        "parents": [{"id": "base"}, {"id": "adapter"}],
        "steps": [
            {
                "id": "fold",
                "op": "lora_merge/v1",
                "inputs": ["base", "adapter"],
                "params": {"alpha": alpha, "rsLora": rs},
                "arithmetic": {"profile": "peft"},
            }
        ],
    }
    return peft_world.rungs(out, recipe.parse(document, where="t").steps)


@pytest.mark.parametrize(("dtype", "rs", "keep", "safe"), CASES)
def test_merge_and_unload(merged: Path, dtype: str, rs: bool, keep: bool, safe: bool) -> None:
    out = merged / peft_world.label(dtype, rs, keep, safe)

    # A where our BLAS sums in peft's order, as here; another build may need C, never a refusal.
    assert set(rungs(out, "20", rs=rs).values()) <= {"A", "C"}
    for alpha in ("20.01", "19"):
        false = rungs(out, alpha, rs=rs)
        assert {false["q.weight"], false["k.weight"]} == {"refuted"}
    assert rungs(out, "20", rs=not rs)["q.weight"] == "refuted"
