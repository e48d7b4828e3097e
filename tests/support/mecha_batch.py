"""Run by sd-mecha's own Python: checkpoints of SD 1's names, merges of them, and their recipes.

python mecha_batch.py FOLDER
"""

import sys
from pathlib import Path

import sd_mecha
import torch
from safetensors.torch import save_file
from sd_mecha.extensions import model_configs
from tqdm import tqdm

POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def quiet(*args: object, **options: object) -> tqdm:
    return tqdm(*args, **{**options, "disable": True})


def main() -> None:
    root = Path(sys.argv[1])
    keys = model_configs.resolve("sd1-ldm").keys()
    generator = torch.Generator().manual_seed(1)
    # A quarter of them: sd-mecha merges what is there, and takes milliseconds for each.
    names = [name for name, key in keys.items() if not key.optional][::4]
    base = {
        name: 0.1 * torch.randn((5, 7) if len(keys[name].shape) > 1 else (37,), generator=generator)
        for name in names
    }
    dtypes = {"a": torch.float16, "b": torch.float16, "c": torch.float32}
    for number, (name, dtype) in enumerate(dtypes.items()):
        state = {
            key: (value + 0.01 * number * torch.randn(value.shape, generator=generator)).to(dtype)
            for key, value in base.items()
        }
        state[POSITIONS] = torch.arange(77).reshape(1, 77)
        save_file(state, root / f"{name}.safetensors", metadata={"format": "pt"})
    a, b, c = (sd_mecha.model(root / f"{name}.safetensors") for name in "abc")
    recipes = {
        "weighted-sum": sd_mecha.weighted_sum(a, b, alpha=0.3),
        "weighted-sum-beyond-half": sd_mecha.weighted_sum(a, c, alpha=0.7),
        "add-difference": sd_mecha.add_difference(a, b, c, alpha=0.8),
        "chain": sd_mecha.weighted_sum(sd_mecha.weighted_sum(a, b, alpha=0.25), c, alpha=0.4),
        "operators": a + (b - c) * 0.5,
        "average": sd_mecha.n_average(a, b, c),
        "slerp": sd_mecha.slerp(a, b, alpha=0.3),
        "bf16": sd_mecha.weighted_sum(a, b, alpha=0.3),
    }
    for name, recipe in recipes.items():
        out: dict = {}
        options = {"output_dtype": torch.bfloat16} if name == "bf16" else {}
        sd_mecha.merge(recipe, output=out, tqdm=quiet, **options)
        metadata = {key: str(value) for key, value in out.pop("__metadata__").items()}
        (root / name).mkdir()
        tensors = {key: value.contiguous() for key, value in out.items()}
        save_file(tensors, root / name / "model.safetensors", metadata=metadata)
        with sd_mecha.open_graph(recipe) as graph:
            final = graph.finalize_root(
                check_mandatory_keys=False, model_config_preference=("singleton-mecha",)
            )
        sd_mecha.serialize(final, finalize=False, output=root / f"{name}.mecha")


main()
