"""Each parameter of a mergekit config resolved for one tensor, as an exact number.

Follows mergekit/config.py and parameter_resolver.py of mergekit 0.1.5: filters, gradients, and the
order source, slice, module, document in which a parameter is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from parentage.manifest.errors import RecipeError
from parentage.manifest.mergekit_config import LAYER, Config, Settings, Slice, Source, mapping

_MAX_ENTRIES: Final = 4096


def place(config: Config, name: str) -> tuple[Slice, int, float]:
    """Return the slice that makes a tensor, the layer inside it, and mergekit's t there.

    Outside the layers t is 0: what stands before them belongs to the first slice, the rest to the last.
    """
    found = LAYER.match(name)
    if found is None:
        return config.slices[0 if "embed" in name else -1], 0, 0.0
    layer = int(found.group(2))
    for part in config.slices:
        count = length(config, part)
        if layer < count:
            return part, layer, layer / (count - 1) if count > 1 else 1.0
        layer -= count
    return config.slices[-1], layer, 1.0


def length(config: Config, part: Slice) -> int:
    """Return how many layers a slice makes."""
    first = part.sources[0]
    return (config.layers if first.end < 0 else first.end) - first.start


def input_name(config: Config, name: str, source: Source) -> str:
    """Return the tensor of a source that goes into an output tensor."""
    found = LAYER.match(name)
    if found is None:
        return name
    _, layer, _ = place(config, name)
    return f"{found.group(1)}{source.start + layer}.{name[found.end() :]}"


def shared(config: Config, name: str, key: str, where: str, default: str | None = None) -> str:
    """Return a parameter of the whole merge for one tensor, as an exact number."""
    part, _, t = place(config, name)
    value = _lookup([part.parameters, config.module, config.parameters], name, key, t, where)
    if value is None:
        value = default
    if value is None:
        raise RecipeError("parameter missing", where=f"{where}: {name}", expected=key)
    return value


def of_source(
    config: Config, name: str, column: int, key: str, where: str, default: str | None = None
) -> str:
    """Return a parameter of one source for one output tensor, as an exact number."""
    part, _, t = place(config, name)
    source = part.sources[column]
    scopes = [source.parameters, part.parameters, config.module, config.parameters]
    value = _lookup(scopes, input_name(config, name, source), key, t, where)
    if value is None:
        value = default
    if value is None:
        raise RecipeError(
            "parameter missing", where=f"{where}: {source.model}: {name}", expected=key
        )
    return value


def _lookup(scopes: Sequence[Settings], name: str, key: str, t: float, where: str) -> str | None:
    for scope in scopes:
        if key in scope:
            value = _evaluate(scope[key], name, t, where)
            if value is not None:
                return value
    return None


def _evaluate(setting: Any, name: str, t: float, where: str) -> str | None:  # noqa: ANN401
    """Resolve filters and gradients (mergekit/config.py, evaluate_setting)."""
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return scalar(setting, where)
    if len(setting) > _MAX_ENTRIES:
        raise RecipeError("parameter with too many entries", where=where, found=str(len(setting)))
    if not setting:
        return None
    if not any(isinstance(entry, dict) for entry in setting):
        return _gradient(setting, t, where)
    for entry in setting:
        condition = mapping(entry, where)
        wanted = condition.get("filter")
        if wanted is None or wanted == "*" or str(wanted) in name:
            return _evaluate(condition.get("value"), name, t, where)
    return None


def _gradient(values: list[Any], t: float, where: str) -> str:
    """Interpolate in float64 exactly as mergekit does; the result is a hex float."""
    scaled = t * (len(values) - 1)
    low = int(scaled)
    high = min(len(values) - 1, low + 1)
    ends = [float(Decimal(scalar(values[at], where))) for at in (low, high)]
    part = scaled - low
    return ((1 - part) * ends[0] + part * ends[1]).hex()


def scalar(value: Any, where: str) -> str:  # noqa: ANN401
    """Return a number as an exact decimal; 1e-3 becomes 0.001."""
    number = Decimal("NaN")
    if isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > 40:
        raise RecipeError("parameter is not a number", where=where, found=str(value))
    return format(number, "f") if number else "0"


def flag(config: Config, key: str, *, default: bool, where: str) -> bool:
    """Return a switch, which must be the same for every slice."""
    found = set()
    for part in config.slices:
        scopes = (part.parameters, config.module, config.parameters)
        setting = next((scope[key] for scope in scopes if key in scope), default)
        if not isinstance(setting, bool):
            # A number is as good to mergekit: 0.0 is false.
            setting = {"0": False, "0.0": False, "1": True, "1.0": True}.get(str(setting), setting)
        found.add(setting if isinstance(setting, bool) else str(setting))
    if len(found) != 1 or not all(isinstance(value, bool) for value in found):
        raise RecipeError(f"{key} is not one true or false", where=where, found=str(found))
    return bool(found.pop())
