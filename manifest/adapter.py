"""Import of a PEFT adapter folder: `adapter_config.json` becomes one lora_merge step.

Follows peft/tuners/lora (0.21). What the step can't express is refused by name, and so is every
option that this module does not know, unless it is off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest.companions import ADAPTER, read_json
from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.model import Model, open_model
from parentage.manifest.recipe import Recipe, parse

MEDIA_TYPE: Final = "application/vnd.peft.adapter-config+json"
PREFIX: Final = "base_model.model."
_UNKNOWN: Final = (
    "adapter_config.json does not say which version of peft merged it, nor on what device; the "
    "profile is the signer's claim"
)
_MAGNITUDE: Final = (".lora_magnitude_vector.weight", ".lora_magnitude_vector")
_READ: Final = {
    "use_dora",
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "fan_in_fan_out",
    "bias",
} | {*("rank_pattern", "alpha_pattern", "init_lora_weights")}
#: Options that say how an adapter was trained or where, not how it is merged.
_NO_PART: Final = frozenset(
    {"task_type", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "peft_version"}
    | {"auto_mapping", "parent_library", "megatron_core", "qalora_group_size", "runtime_config"}
    | {"eva_config", "loftq_config", "corda_config", "lora_ga_config", "ensure_weight_tying"}
)
#: Initialisations that change the base model, so that the adapter alone does not say the sum.
_MOVED_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
_PATTERN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


class Adapter(msgspec.Struct, frozen=True):
    """An adapter as read.

    Attributes:
        op: of the step that folds it in.
        params: of that step.
        targets: tensors of the base that it changes.
        sha256: of adapter_config.json.
        text: its bytes.
    """

    op: str
    params: dict[str, Any]
    targets: tuple[str, ...]
    sha256: str
    text: str


def load_adapter(folder: Path, *, parents: Mapping[str, Path], store: str | None = None) -> Recipe:
    """Import an adapter that was merged into one base model.

    Args:
        folder: the adapter.
        parents: the base, by its id, and nothing else.
        store: dtype of the merged weights; None: the base's.

    Raises:
        RecipeError: no adapter, or one that can't be imported; the message says why.
        ParentMissingError: there is no base.
    """
    others = {name: path for name, path in parents.items() if path != folder}
    if len(others) != 1:
        raise ParentMissingError(
            "an adapter is merged into one base", hint="add --parent base=FOLDER"
        )
    base = next(iter(others))
    name = next((name for name, path in parents.items() if path == folder), None)
    name = name or ("adapter" if base != "adapter" else "lora")
    adapter = read_adapter(folder)
    arithmetic = {"profile": "peft"} | ({"store": store} if store else {})
    step = {"id": "merge", "op": adapter.op, "inputs": [base, name]}
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": base}, {"id": name}],
            "steps": [step | {"params": adapter.params, "arithmetic": arithmetic}],
            "source": {
                "mediaType": MEDIA_TYPE,
                "sha256": adapter.sha256,
                "text": adapter.text,
                "warnings": [_UNKNOWN],
            },
        },
        where=folder.name,
    )


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        RecipeError: no adapter, or one that can't be imported; the message says why.
    """
    with open_model(folder) as model:
        return _adapter(model)


def _adapter(model: Model) -> Adapter:
    where = f"{model.root.name}/{ADAPTER}"
    config = read_json(model, ADAPTER)
    if config is None:
        raise RecipeError("no adapter here", where=where, expected="a PEFT adapter folder")
    if config.get("peft_type") != "LORA":
        raise RecipeError("no LoRA adapter", where=where, found=str(config.get("peft_type")))
    _refuse(config, where)
    targets = _targets(model, where)
    rank, alpha = _natural(config, "r", where), _number(config.get("lora_alpha"), where)
    ranks = _pattern(config, "rank_pattern", where)
    alphas = _pattern(config, "alpha_pattern", where)
    others: dict[str, list[str]] = {}
    for target, found in targets.items():
        module = target.removesuffix(".weight")
        wanted = ranks.get(_key(ranks, module), rank)
        if wanted != found:
            raise RecipeError(
                "adapter has another rank",
                where=f"{where}: {target}",
                expected=str(wanted),
                found=str(found),
            )
        own = _key(alphas, module)
        if own and (text := _number(alphas[own], where)) != alpha:
            others.setdefault(text, []).append(target)
    params: dict[str, Any] = {
        "alpha": alpha,
        "rsLora": _switch(config, "use_rslora", where),
        "fanInFanOut": _switch(config, "fan_in_fan_out", where),
        "prefix": PREFIX,
        "overrides": [{"tensors": names, "alpha": text} for text, names in others.items()],
    }
    data = model.files.files[ADAPTER].read_small()
    op = "dora_merge/v1" if _switch(config, "use_dora", where) else "lora_merge/v1"
    return Adapter(
        op, params, tuple(targets), hashlib.sha256(data).hexdigest(), data.decode("utf-8")
    )


def _refuse(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        if value and key not in _READ and key not in _NO_PART:
            raise RecipeError(
                f"adapter option that is not imported: {key}", where=where, found=str(value)
            )
    if config.get("bias", "none") != "none":
        raise RecipeError("adapter with biases is not imported", where=where)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_MOVED_BASE):
        raise RecipeError(
            "this initialisation changed the base model, which the adapter does not hold",
            where=where,
            found=f"init_lora_weights: {start}",
        )


def _targets(model: Model, where: str) -> dict[str, int]:
    """Return the base's tensors that an adapter changes, and the rank of each."""
    found: dict[str, int] = {}
    for name, tensor in model.tensors.items():
        if name.endswith(".lora_A.weight") and name.startswith(PREFIX) and tensor.spec.shape:
            target = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            found[f"{target}.weight"] = tensor.spec.shape[0]
        elif not name.endswith((".lora_B.weight", *_MAGNITUDE)):
            raise RecipeError("adapter tensor is no LoRA pair", where=where, found=name)
    if not found:
        raise RecipeError("adapter without a pair", where=where)
    return found


def _pattern(config: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict) or len(patterns) > 4096:
        raise RecipeError(f"{key} is not an object", where=where)
    for pattern in patterns:
        # peft takes regular expressions; any but a plain name could run for ever.
        if not pattern or set(pattern) - _PATTERN:
            raise RecipeError(f"{key} with more than a name", where=where, found=pattern)
    return patterns


def _key(patterns: Iterable[str], module: str) -> str:
    """Return the first pattern that is the end of a module's name; its dots match any character."""
    for pattern in patterns:
        start = len(module) - len(pattern)
        if start < 0 or (start and module[start - 1] != "."):
            continue
        if all(wanted in {".", held} for wanted, held in zip(pattern, module[start:], strict=True)):
            return pattern
    return ""


def _natural(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise RecipeError(f"{key} is not a positive integer", where=where, found=str(value))
    return value


def _number(value: Any, where: str) -> str:  # noqa: ANN401
    """Return alpha as an exact number."""
    if type(value) is int and abs(value) < 2**53:
        return str(value)
    if isinstance(value, float) and 1e-6 < abs(value) < 1e9:
        return value.hex()
    raise RecipeError("alpha is not a number", where=where, found=str(value))


def _switch(config: Mapping[str, Any], key: str, where: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise RecipeError(f"{key} is not true or false", where=where, found=str(value))
    return value
