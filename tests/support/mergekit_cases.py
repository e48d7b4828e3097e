"""Merges that the real mergekit makes for tests and for docs/methods.md; `@name` is a model's folder."""

from __future__ import annotations

#: Given to `--random-seed` of every case that does not end in "-unseeded".
SEED = 11
#: Methods that came after 0.1.4.
NOT_IN_014 = frozenset({"ram", "ramplus_tl"})

CASES: dict[str, str] = {
    "linear": """
merge_method: linear
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "linear-three": """
merge_method: linear
dtype: bfloat16
models:
  - {model: @base, parameters: {weight: 0.5}}
  - {model: @left, parameters: {weight: 0.3}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "linear-fp32": """
merge_method: linear
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.7}}
  - {model: @right, parameters: {weight: 0.5}}
parameters: {normalize: false}
""",
    "linear-gradient": """
merge_method: linear
dtype: bfloat16
models:
  - model: @left
    parameters:
      weight: [{filter: mlp, value: [0.1, 0.35, 0.9]}, {value: 0.35}]
  - {model: @right, parameters: {weight: 0.65}}
""",
    "task": """
merge_method: task_arithmetic
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.5}}
""",
    "task-lambda": """
merge_method: task_arithmetic
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.5}}
parameters: {normalize: true, lambda: 0.8}
""",
    "slerp": """
merge_method: slerp
base_model: @left
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {t: 0.35}
""",
    "slerp-gradient": """
merge_method: slerp
base_model: @left
dtype: bfloat16
slices:
  - sources: [{model: @left, layer_range: [0, 3]}, {model: @right, layer_range: [0, 3]}]
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 0.3, 1]}, {filter: mlp, value: [1, 0.5, 0]}, {value: 0.5}]
""",
    "linear-fp16": """
merge_method: linear
dtype: float16
models:
  - {model: @left, parameters: {weight: 1.3}}
  - {model: @wide, parameters: {weight: -0.4}}
""",
    "linear-no-dtype": """
merge_method: linear
models:
  - {model: @left, parameters: {weight: 0.35}}
  - {model: @right, parameters: {weight: 0.45}}
""",
    "linear-mixed": """
merge_method: linear
models:
  - {model: @wide, parameters: {weight: 0.35}}
  - {model: @right, parameters: {weight: 0.65}}
out_dtype: bfloat16
""",
    "task-fp32": """
merge_method: task_arithmetic
base_model: @base
dtype: float32
out_dtype: float16
models:
  - {model: @wide, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: -0.3}}
""",
    "slerp-fp32": """
merge_method: slerp
base_model: @wide
dtype: float32
models: [{model: @wide}, {model: @right}]
parameters: {t: 0.62}
""",
    "passthrough": """
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{model: @left, layer_range: [0, 2]}]
  - sources: [{model: @right, layer_range: [1, 3]}]
""",
    "passthrough-scale": """
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{model: @left, layer_range: [0, 3]}]
  - sources:
      - model: @left
        layer_range: [1, 3]
        parameters:
          scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.7}, {value: 1.0}]
""",
    "linear-moved": """
merge_method: linear
dtype: bfloat16
slices:
  - sources:
      - {model: @left, layer_range: [0, 2], parameters: {weight: 0.6}}
      - {model: @right, layer_range: [0, 2], parameters: {weight: [0.4, 0.9]}}
  - sources:
      - {model: @base, layer_range: [1, 3], parameters: {weight: 0.3}}
      - {model: @right, layer_range: [0, 2], parameters: {weight: 0.7}}
""",
    "nuslerp": """
merge_method: nuslerp
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.3}}
""",
    "nuslerp-base-fp32": """
merge_method: nuslerp
base_model: @base
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.3}}
""",
    "nuslerp-rows": """
merge_method: nuslerp
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.3}}
parameters: {nuslerp_flatten: false}
""",
    "nuslerp-columns": """
merge_method: nuslerp
dtype: float32
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.3}}
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
""",
    "multislerp": """
merge_method: multislerp
dtype: bfloat16
models:
  - {model: @base, parameters: {weight: 0.5}}
  - {model: @left, parameters: {weight: 0.3}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "multislerp-base-fp32": """
merge_method: multislerp
base_model: @base
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.7}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "karcher": """
merge_method: karcher
dtype: bfloat16
models: [{model: @base}, {model: @left}, {model: @right}]
""",
    "karcher-fp32": """
merge_method: karcher
dtype: float32
out_dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {max_iter: 5}
""",
    "ties": """
merge_method: ties
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.5}}
  - {model: @right, parameters: {weight: 0.5, density: [0.2, 0.8]}}
""",
    "ties-fp32": """
merge_method: ties
base_model: @base
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.3}}
  - {model: @right, parameters: {weight: 0.5, density: 0.55}}
parameters: {normalize: false, int8_mask: true, lambda: 0.9}
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4, gamma: 0.02}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3}}
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4, gamma: 0.02}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3}}
parameters: {normalize: true}
""",
    "dare_linear": """
merge_method: dare_linear
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3}}
""",
    "dare_ties": """
merge_method: dare_ties
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: [0.3, 1.0]}}
parameters: {normalize: true}
""",
    "dare_ties-fp32": """
merge_method: dare_ties
base_model: @base
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: 0.7}}
""",
    "dare_linear-unseeded": """
merge_method: dare_linear
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3}}
""",
    "della": """
merge_method: della
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3, epsilon: 0.1}}
""",
    "della_linear": """
merge_method: della_linear
base_model: @base
dtype: float16
models:
  - {model: @left, parameters: {weight: 0.6, density: 0.4}}
  - {model: @right, parameters: {weight: 0.5, density: 0.3, epsilon: 0.1}}
""",
    "model_stock": """
merge_method: model_stock
base_model: @base
dtype: bfloat16
models: [{model: @left}, {model: @right}, {model: @wide}]
""",
    "model_stock-fp32": """
merge_method: model_stock
base_model: @base
dtype: float32
out_dtype: bfloat16
models: [{model: @left}, {model: @right}]
""",
    "model_stock-filters": """
merge_method: model_stock
base_model: @base
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {filter_wise: true}
""",
    "sce": """
merge_method: sce
base_model: @base
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {select_topk: 0.3}
""",
    "sce-whole": """
merge_method: sce
base_model: @base
dtype: float32
out_dtype: bfloat16
models: [{model: @left}, {model: @right}]
""",
    "nearswap": """
merge_method: nearswap
base_model: @left
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {t: 0.0004}
""",
    "arcee_fusion": """
merge_method: arcee_fusion
base_model: @left
dtype: bfloat16
models: [{model: @left}, {model: @right}]
""",
    "arcee_fusion-fp32": """
merge_method: arcee_fusion
base_model: @left
dtype: float32
models: [{model: @left}, {model: @right}]
""",
    "ram": """
merge_method: ram
base_model: @base
dtype: bfloat16
models: [{model: @left}, {model: @right}]
""",
    "ramplus_tl": """
merge_method: ramplus_tl
base_model: @base
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {epsilon: 0.0001, r: 0.3}
""",
}

#: The same with a parent far enough for the spherical branch, and in fp32 throughout.
CASES |= {
    f"{name}-far": CASES[name].replace("@right", "@far")
    for name in ("slerp", "nuslerp", "multislerp", "karcher", "dare_ties", "ties", "linear")
}
CASES |= {
    f"{name}-wide": CASES[f"{name}-far"].replace("dtype: bfloat16", "dtype: float32")
    for name in ("slerp", "nuslerp", "multislerp", "karcher", "dare_ties", "ties", "linear")
}
#: The same on two threads: elementwise work does not change, reductions do.
CASES |= {
    f"{name}-threads": CASES[name]
    for name in (
        *("slerp", "slerp-far", "slerp-wide", "nuslerp", "nuslerp-wide", "multislerp-wide"),
        *("karcher-far", "karcher-wide", "dare_linear", "dare_ties-wide", "della", "model_stock"),
        *("model_stock-fp32", "sce", "ties", "linear-three"),
    )
}

#: What some tensors reach below rung A; the rest must reach A.
WEAKER: dict[str, str] = {
    "nuslerp-base-fp32": "B",
    "nuslerp-wide": "B",
    "nuslerp-wide-threads": "B",
    "multislerp": "B",
    "multislerp-base-fp32": "B",
    "multislerp-wide": "B",
    "multislerp-wide-threads": "B",
    "dare_linear-threads": "B",
    "dare_ties-fp32": "B",
    "dare_ties-wide": "B",
    "dare_ties-wide-threads": "B",
    "dare_linear-unseeded": "D?",
    "della-threads": "B",
    "della_linear": "B",
    "model_stock-threads": "B",
    "model_stock-fp32": "B",
    "model_stock-fp32-threads": "B",
    "arcee_fusion": "B",
    "arcee_fusion-fp32": "B",
    "slerp-far": "B",
    "slerp-wide": "B",
    "slerp-far-threads": "B",
    "slerp-wide-threads": "B",
}
