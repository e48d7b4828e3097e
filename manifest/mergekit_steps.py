"""The steps that a mergekit config stands for, every parameter resolved tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, TypeVar

from parentage.manifest.errors import RecipeError
from parentage.manifest.mergekit_config import BASELESS, LAYER, Config, layers_of
from parentage.manifest.mergekit_parameters import flag, length, of_source, shared

DTYPES: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
#: Sparsification, sign election, and the defaults of `normalize` and `rescale`.
_TASK: Final = {
    "ties": ("magnitude", True, True, False),
    "dare_linear": ("random", False, False, True),
    "dare_ties": ("random", True, False, True),
    "breadcrumbs": ("outliers", False, False, False),
    "breadcrumbs_ties": ("outliers", True, False, False),
    "della": ("della", True, True, True),
    "della_linear": ("della", False, False, True),
}

T = TypeVar("T", bound=Hashable)
Document = dict[str, Any]


class _Import:
    """A config on its way to steps."""

    def __init__(
        self, config: Config, names: list[str], ids: Mapping[str, str], seed: int | None, where: str
    ) -> None:
        self.config, self.ids, self.seed, self.where = config, ids, seed, where
        self.names = _output_names(config, names)
        self.columns = len(config.slices[0].sources)
        self.base = _base_column(config, where)
        self.inputs: list[str] = []

    def per_tensor(self, key: str, default: str | None = None) -> dict[str, str]:
        """Return a shared parameter by tensor."""
        return {n: shared(self.config, n, key, self.where, default) for n in self.names}

    def per_source(self, key: str, default: str | None = None) -> dict[str, tuple[str, ...]]:
        """Return a parameter of every source but the base, by tensor."""
        columns = [j for j in range(self.columns) if j != self.base]
        return {
            n: tuple(of_source(self.config, n, j, key, self.where, default) for j in columns)
            for n in self.names
        }

    def uniform(self, key: str, default: str) -> str:
        """Return a shared parameter that must be the same for all tensors."""
        found = set(self.per_tensor(key, default).values())
        if len(found) != 1:
            raise RecipeError(
                f"{key} differs between tensors", where=self.where, found=str(sorted(found)[:5])
            )
        return found.pop()

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a switch."""
        return flag(self.config, key, default=default, where=self.where)


def arithmetic(document: Mapping[str, Any], profile: str, where: str) -> Document:
    """Return the arithmetic of a config's merge."""
    found: Document = {"profile": profile}
    for key, target in (("dtype", "compute"), ("out_dtype", "store")):
        name = document.get(key)
        if name is None:
            continue
        plain = str(name).removeprefix("torch.")
        if plain not in DTYPES:
            expected = ", ".join(DTYPES)
            raise RecipeError("unknown dtype", where=where, expected=expected, found=str(name))
        found[target] = DTYPES[plain]
    return found


def steps_of(
    config: Config,
    arithmetic: Document,
    ids: Mapping[str, str],
    names: list[str],
    dtypes: set[str],
    seed: int | None,
    where: str,
) -> list[Document]:
    """Return the recipe's steps; the last is called "merge".

    Args:
        config: as read.
        arithmetic: of the merge.
        ids: recipe id of each model.
        names: tensors of the first model.
        dtypes: of the float tensors of all models.
        seed: of the random masks, if known.
        where: names the config in messages.
    """
    found = _Import(config, names, ids, seed, where)
    if config.method == "passthrough":
        return _passthrough(found, arithmetic, names, dtypes)
    steps, found.inputs = _inputs(found, names)
    merge = {"id": "merge", "inputs": found.inputs, "arithmetic": arithmetic}
    build = _task_vectors if config.method in _TASK else _BUILDERS[config.method]
    return [*steps, merge | build(found)]


def _linear(found: _Import) -> Document:
    weights, others = _grouped(found.per_source("weight"))
    task = found.config.method == "task_arithmetic"
    params: Document = {
        "weights": list(weights),
        "normalize": found.flag("normalize", default=not task),
        "overrides": _overrides(others, "weights"),
    }
    if task:
        params |= {"base": found.inputs[found.base or 0], "scale": found.uniform("lambda", "1")}
    return {"op": "weighted_sum/v1", "params": params}


def _task_vectors(found: _Import) -> Document:
    sparsify, elect, normalize, rescale = _TASK[found.config.method]
    rows: dict[str, dict[str, tuple[str, ...]]] = {
        "weights": found.per_source("weight"),
        "densities": found.per_source("density", "1"),
    }
    if sparsify == "outliers":
        rows["gammas"] = found.per_source("gamma", "0.01")
    if sparsify == "della":
        rows["epsilons"] = found.per_source("epsilon", "0.15")
    whole = {n: tuple(row[n] for row in rows.values()) for n in found.names}
    common, others = _grouped(whole)
    params: Document = {
        "base": found.inputs[found.base or 0],
        "sparsify": sparsify,
        "elect": elect,
        "normalize": found.flag("normalize", default=normalize),
        "rescale": found.flag("rescale", default=rescale),
        "scale": found.uniform("lambda", "1"),
        **{key: list(value) for key, value in zip(rows, common, strict=True)},
        "overrides": [
            {"tensors": tensors}
            | {key: list(value) for key, value in zip(rows, values, strict=True)}
            for values, tensors in others.items()
        ],
    }
    if sparsify in {"random", "della"}:
        if found.seed is None:
            found.config.warnings.append(
                "no seed: random masks can't be drawn again (rung D at best)"
            )
        else:
            params["seed"] = found.seed
    return {"op": "task_arithmetic/v1", "params": params}


def _t(op: str) -> Callable[[_Import], Document]:
    def build(found: _Import) -> Document:
        t, others = _grouped(found.per_tensor("t"))
        return {"op": op, "params": {"t": t, "overrides": _overrides(others, "t")}}

    return build


def _nuslerp(found: _Import) -> Document:
    weights, others = _grouped(found.per_source("weight"))
    params: Document = {
        "weights": list(weights),
        "flatten": found.flag("nuslerp_flatten", default=True),
        "rowWise": found.flag("nuslerp_row_wise", default=False),
        "overrides": _overrides(others, "weights"),
    }
    return {"op": "nuslerp/v1", "params": params | _base(found)}


def _multislerp(found: _Import) -> Document:
    weights, others = _grouped(found.per_source("weight"))
    params: Document = {
        "weights": list(weights),
        "normalize": found.flag("normalize_weights", default=True),
        "eps": found.uniform("eps", "0.00000001"),
        "overrides": _overrides(others, "weights"),
    }
    return {"op": "multislerp/v1", "params": params | _base(found)}


def _karcher(found: _Import) -> Document:
    steps = int(found.uniform("max_iter", "10"))
    return {
        "op": "karcher/v1",
        "params": {"maxIter": steps, "tol": found.uniform("tol", "0.00001")},
    }


def _model_stock(found: _Import) -> Document:
    params = {"filterWise": found.flag("filter_wise", default=False)}
    return {"op": "model_stock/v1", "params": params | _base(found)}


def _sce(found: _Import) -> Document:
    params = {"selectTopk": found.uniform("select_topk", "1")}
    return {"op": "sce/v1", "params": params | _base(found)}


def _ram(found: _Import) -> Document:
    params = {"epsilon": found.uniform("epsilon", "0.00001")}
    if found.config.method == "ramplus_tl":
        params |= {"r": found.uniform("r", "0.1"), "alpha": found.uniform("alpha", "0.2")}
    return {"op": "ram/v1", "params": params | _base(found)}


_BUILDERS: Final[Mapping[str, Callable[[_Import], Document]]] = {
    "linear": _linear,
    "task_arithmetic": _linear,
    "slerp": _t("slerp/v1"),
    "nearswap": _t("nearswap/v1"),
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
    "ram": _ram,
    "ramplus_tl": _ram,
    "arcee_fusion": lambda _: {"op": "arcee_fusion/v1"},
}
_BASE_FIRST: Final = frozenset({"slerp", "nearswap", "arcee_fusion"})
_BASE_NEEDED: Final = frozenset(
    {*_TASK, *_BASE_FIRST, "task_arithmetic", "model_stock", "sce", "ram", "ramplus_tl"}
)


def _base(found: _Import) -> Document:
    return {} if found.base is None else {"base": found.inputs[found.base]}


def _base_column(config: Config, where: str) -> int | None:
    """Return which source of every slice is the base."""
    if config.method in BASELESS:
        return None
    bases = [part.base or config.base for part in config.slices]
    if not any(bases):
        if config.method in _BASE_NEEDED:
            raise RecipeError(f"{config.method} needs a base_model", where=where)
        return None
    places = {
        next((j for j, source in enumerate(part.sources) if source.model == base), None)
        for part, base in zip(config.slices, bases, strict=True)
    }
    if len(places) != 1 or None in places:
        raise RecipeError("base_model is not one source of every slice", where=where)
    return places.pop()


def _inputs(found: _Import, names: list[str]) -> tuple[list[Document], list[str]]:
    """Return the merge's inputs in mergekit's order, and the steps that bring layers into place."""
    config = found.config
    if any(len(part.sources) != found.columns for part in config.slices):
        raise RecipeError("slices with different numbers of sources", where=found.where)
    order = list(range(found.columns))
    if config.method in _BASE_FIRST:
        if found.base is None or found.columns != 2:
            raise RecipeError(
                f"{config.method} takes a base and one other model", where=found.where
            )
        order = [found.base, 1 - found.base]
        found.base = 0
    columns = [[part.sources[j] for part in config.slices] for j in order]
    if _in_place(config, names):
        for sources in columns:
            if len({source.model for source in sources}) != 1:
                break
        else:
            return [], [found.ids[sources[0].model] for sources in columns]
    steps = []
    for number, sources in enumerate(columns):
        slices = [(source.model, source.start, source.end) for source in sources]
        steps.append(_selection(f"column-{number}", slices, found.ids, names))
    return steps, [step["id"] for step in steps]


def _in_place(config: Config, names: list[str]) -> bool:
    """Say whether slices leave every layer where it is."""
    if config.slices[0].sources[0].end < 0:
        return True
    at = 0
    for part in config.slices:
        if any((s.start, s.end) != (at, at + length(config, part)) for s in part.sources):
            return False
        at += length(config, part)
    return at == layers_of(names)[1]


def _selection(
    name: str, slices: list[tuple[str, int, int]], ids: Mapping[str, str], names: list[str]
) -> Document:
    prefix, count = layers_of(names)
    # mergekit takes what stands before the layers from the first slice, the rest from the last.
    rest = [
        {"tensors": "*embed*", "input": ids[slices[0][0]]},
        {"tensors": "*", "input": ids[slices[-1][0]]},
    ]
    parts = [
        {"input": ids[model], "start": start, "end": count if end < 0 else end}
        for model, start, end in slices
    ]
    inputs = list(dict.fromkeys(ids[model] for model, _, _ in slices))
    params = {"prefix": prefix, "slices": parts, "rest": rest}
    return {"id": name, "op": "layer_select/v1", "inputs": inputs, "params": params}


def _passthrough(
    found: _Import, arithmetic: Document, names: list[str], dtypes: set[str]
) -> list[Document]:
    config = found.config
    if any(len(part.sources) != 1 for part in config.slices) and len(config.slices) > 1:
        raise RecipeError("passthrough takes one source a slice", where=found.where)
    parts = config.slices
    if len(parts) == 1 and len(parts[0].sources) > 1:
        raise RecipeError("passthrough takes one model", where=found.where)
    slices = [(part.sources[0].model, part.sources[0].start, part.sources[0].end) for part in parts]
    factors = {n: of_source(config, n, 0, "scale", found.where, "1") for n in found.names}
    targets = {arithmetic.get(key) for key in ("compute", "store")} - {None}
    scaled = set(factors.values()) != {"1"} or bool(targets and dtypes and targets != dtypes)
    selection = _selection("select" if scaled else "merge", slices, found.ids, names)
    if not scaled:
        return [selection]
    factor, others = _grouped(factors)
    params = {"factor": factor, "overrides": _overrides(others, "factor")}
    merge = {"id": "merge", "op": "scale/v1", "inputs": ["select"], "params": params}
    return [selection, merge | {"arithmetic": arithmetic}]


def _output_names(config: Config, names: list[str]) -> list[str]:
    """Return the names of the output's tensors: those of the first model, layers renumbered."""
    layers: dict[int, list[str]] = {}
    found = []
    for name in names:
        match = LAYER.match(name)
        if match is None:
            found.append(name)
        else:
            layers.setdefault(int(match.group(2)), []).append(name)
    target = 0
    for part in config.slices:
        first = part.sources[0].start
        for number in range(first, first + length(config, part)):
            for name in layers.get(number, []):
                match = LAYER.match(name)
                if match:
                    found.append(f"{match.group(1)}{target}.{name[match.end() :]}")
            target += 1
    return found


def _overrides(groups: Mapping[Any, list[str]], key: str) -> list[Document]:
    return [
        {"tensors": tensors, key: list(value) if isinstance(value, tuple) else value}
        for value, tensors in groups.items()
    ]


def _grouped(values: Mapping[str, T]) -> tuple[T, dict[T, list[str]]]:
    """Return the commonest value, and the tensors that have another, by value."""
    groups: dict[T, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    common = max(groups, key=lambda value: len(groups[value]))
    return common, {value: names for value, names in groups.items() if value != common}
