"""parentage-1 written a second time, from docs/parentage-1.md alone: numpy, fractions and mpmath.

It shares nothing with `verify/`: no torch, no chunks, no threads; whole tensors, as simple as can be.
`run(step, inputs)` takes a step as it stands in a recipe (JSON) and tensors as bit patterns.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import mpmath
import numpy as np

Array = np.ndarray
FLOATS = {"F64": (64, 53, 1024), "F32": (32, 24, 128), "F16": (16, 11, 16), "BF16": (16, 8, 128)}
WIDTH = {name: of[0] // 8 for name, of in FLOATS.items()} | {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
NAN = {"F64": 0x7FF8 << 48, "F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}
BLOCK, GROUP = 4096, 64

mpmath.mp.dps = 60


@dataclass
class Tensor:
    """dtype, shape and the bit pattern of each element."""

    dtype: str
    shape: tuple[int, ...]
    bits: Array

    @property
    def values(self) -> Array:
        """Section 2: every float is exact in float64."""
        if self.dtype == "BF16":
            return (self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(float)
        kind = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[self.dtype]
        return self.bits.view(kind).astype(float)


Model = dict[str, Tensor]


# Section 2: numbers, rounding, NaN.


def ratio(text: str) -> Fraction:
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * (Fraction(float.fromhex(body)) if body.startswith("0x") else Fraction(body))


def stored(values: Array, dtype: str) -> Array:
    """Round float64 to a dtype once: how many units in the last place, and the pattern of that count."""
    width, precision, top = FLOATS[dtype]
    if dtype == "F64":
        return np.where(np.isnan(values), np.uint64(NAN[dtype]), values.view(np.uint64))
    least = 3 - top - precision  # exponent of the smallest subnormal
    infinity = ((1 << (width - precision)) - 1) << (precision - 1)
    fraction, exponent = np.frexp(np.where(np.isfinite(values), np.abs(values), 0.0))
    quantum = np.maximum(np.where(fraction == 0, least, exponent - precision), least)
    count = np.rint(np.ldexp(fraction, exponent - quantum)).astype(np.int64)  # exact, then rounded
    # A normal number's leading bit is not stored, and a count that grew a bit carries into the exponent.
    pattern = np.minimum(((quantum - least).astype(np.int64) << (precision - 1)) + count, infinity)
    pattern = np.where(np.isinf(values), infinity, pattern)
    pattern |= np.signbit(values).astype(np.int64) << (width - 1)
    return np.where(np.isnan(values), NAN[dtype], pattern).astype(f"u{width // 8}")


# Section 3: sums.


def tree(values: Array) -> Array:
    width = 1
    while width < values.shape[-1]:
        width *= 2
    values = np.concatenate((values, np.zeros((*values.shape[:-1], width - values.shape[-1]))), -1)
    while width > 1:
        width //= 2
        values = values[..., :width] + values[..., width:]
    return values[..., 0]


def tree_sum(values: Array) -> Array:
    """Sum along the last dimension."""
    length = values.shape[-1]
    blocks = [tree(padded(values[..., at : at + BLOCK])) for at in range(0, length, BLOCK)]
    return tree(np.stack(blocks, -1))


def padded(values: Array) -> Array:
    return np.concatenate((values, np.zeros((*values.shape[:-1], BLOCK - values.shape[-1]))), -1)


def column_sum(values: Array) -> Array:
    """Sum along the first dimension."""
    total = None
    for at in range(0, len(values), GROUP):
        part = values[at : at + GROUP]
        part = np.concatenate((part, np.zeros((GROUP - len(part), values.shape[1]))))
        found = tree(part.T)
        total = found if total is None else total + found
    return total


def in_order(terms: Sequence[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


# Section 4: elementary functions.

LN2 = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
HALF_PI = tuple(
    map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69"))
)


def horner(x: Array, coefficients: list[float]) -> Array:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def sqrt(x: Array) -> Array:
    root = ((x.view(np.int64) >> 1) + 0x1FF8_0000_0000_0000).view(float)
    with np.errstate(all="ignore"):
        for _ in range(4):
            root = (root + x / root) * 0.5
    return np.where(x > 0, np.where(x < math.inf, root, x), np.where(x == 0, x, math.nan))


def exp(x: Array) -> Array:
    held = np.minimum(np.maximum(x, -746.0), 709.0)
    k = np.rint(held * float.fromhex("0x1.71547652b82fep+0"))
    rest = (held - k * LN2[0]) - k * LN2[1]
    half = np.floor(k * 0.5)
    out = horner(rest, [float(Fraction(1, math.factorial(n))) for n in range(14)])
    with np.errstate(invalid="ignore"):
        return np.where(
            np.isnan(x),
            x,
            out * np.ldexp(1.0, half.astype(int)) * np.ldexp(1.0, (k - half).astype(int)),
        )


def log(x: Array) -> Array:
    k, m = np.zeros(x.shape), np.ones(x.shape)
    root = float.fromhex("0x1.6a09e667f3bcdp-1")
    usable = (x >= 2.0**-1022) & (x < math.inf)
    for at in np.ndindex(x.shape):
        if usable[at]:
            m[at], k[at] = math.frexp(x[at])
            if m[at] < root:
                m[at], k[at] = m[at] * 2, k[at] - 1
    s = (m - 1.0) / (m + 1.0)
    series = horner(s * s, [float(Fraction(1, 2 * n + 1)) for n in range(12)]) * s
    return np.where(usable, k * LN2[0] + (k * LN2[1] + (series + series)), math.nan)


def sin(x: Array) -> Array:
    usable = np.abs(x) <= 2.0**19
    held = np.where(usable, x, 0.0)
    k = np.rint(held * float.fromhex("0x1.45f306dc9c883p-1"))
    rest = ((held - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2]
    square = rest * rest
    signs = [(-1) ** n for n in range(9)]
    sine = horner(
        square, [float(Fraction(s, math.factorial(2 * n + 1))) for n, s in enumerate(signs)]
    )
    cosine = horner(
        square, [float(Fraction(s, math.factorial(2 * n))) for n, s in enumerate(signs)]
    )
    quarter = k.astype(np.int64) % 4
    out = np.where(quarter % 2 == 0, sine * rest, cosine)
    return np.where(usable, np.where(quarter >= 2, -out, out), math.nan)


def acos(c: Array) -> Array:
    with np.errstate(invalid="ignore"):
        x = sqrt((1.0 - np.abs(c)) / (1.0 + np.abs(c)))
    for _ in range(3):
        x = x / (sqrt(x * x + 1.0) + 1.0)
    angle = horner(x * x, [float(Fraction((-1) ** n, 2 * n + 1)) for n in range(10)]) * x * 16.0
    return np.where(c < 0, (HALF_PI[0] * 2.0 - angle) + HALF_PI[1] * 2.0, angle)


# Section 5: random words.


def philox(key: tuple[int, int], count: int) -> list[int]:
    out: list[int] = []
    for block in range(-(-count // 4)):
        c = [block & 0xFFFFFFFF, block >> 32, 0, 0]
        k0, k1 = key
        for _ in range(10):
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        out += c
    return out[:count]


def mask_words(seed: int, index: int, name: str, count: int) -> Array:
    text = b"parentage-1 mask\0" + seed.to_bytes(8, "little") + index.to_bytes(4, "little")
    found = hashlib.sha256(text + name.encode()).digest()
    key = int.from_bytes(found[:4], "little"), int.from_bytes(found[4:8], "little")
    return np.array(philox(key, count), dtype=np.int64)


# Section 6: largest elements.


def largest(size: Array, rank: int) -> Array:
    """Mark the `rank` largest; NaN is above all, equals are taken in order of their index."""
    order = np.argsort(-np.where(np.isnan(size), math.inf, size), kind="stable")
    order = np.concatenate((order[np.isnan(size[order])], order[~np.isnan(size[order])]))
    mask = np.zeros(len(size), dtype=bool)
    mask[order[:rank]] = True
    return mask


# Steps.


def matches(name: str, globs: Sequence[str]) -> bool:
    parts = (".*".join(map(re.escape, glob.split("*"))) for glob in globs)
    return any(re.fullmatch(part, name, re.DOTALL) for part in parts)


def chosen(params: dict[str, Any], name: str, key: str) -> Any:
    """Return a parameter of a tensor: the first override that matches and has it, else the step's."""
    for override in params.get("overrides", []):
        if matches(name, override["tensors"]) and override.get(key) is not None:
            return override[key]
    return params.get(key)


def run(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    """Return the output of one step."""
    models = [inputs[name] for name in step["inputs"]]
    op = step["op"].partition("/")[0]
    if op in MOVES:
        return MOVES[op](step, inputs)
    store = step["arithmetic"].get("store")
    out: Model = {}
    for name, first in models[0].items():
        parts = [model[name] for model in models]
        if first.dtype not in FLOATS:
            out[name] = first
            continue
        unscaled = (
            op == "scale" and float(ratio(chosen(step["params"], name, "factor") or "1")) == 1.0
        )
        if unscaled and store in {None, first.dtype}:
            out[name] = first
            continue
        with np.errstate(all="ignore"):
            values = MERGES[op](step, name, [part.values for part in parts], first.shape)
        dtype = store or first.dtype
        out[name] = Tensor(dtype, first.shape, stored(values, dtype))
    return out


def copy(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    params, model = step.get("params", {}), inputs[step["inputs"][0]]
    include, exclude = params.get("include", ["*"]), params.get("exclude", [])
    return {n: t for n, t in model.items() if matches(n, include) and not matches(n, exclude)}


def rename(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    names = step["params"]["names"]
    return {names.get(name, name): t for name, t in inputs[step["inputs"][0]].items()}


def cast(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    picked, dtype = copy(step, inputs), step["arithmetic"]["store"]
    return {
        name: Tensor(dtype, t.shape, stored(t.values, dtype))
        if name in picked and t.dtype in FLOATS and t.dtype != dtype
        else t
        for name, t in inputs[step["inputs"][0]].items()
    }


def layer_select(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    params, out, target = step["params"], {}, 0
    for part in params["slices"]:
        for number in range(part["start"], part["end"]):
            old = f"{params['prefix']}{number}."
            for name, tensor in inputs[part["input"]].items():
                if name.startswith(old):
                    out[f"{params['prefix']}{target}.{name.removeprefix(old)}"] = tensor
            target += 1
    for rest in params.get("rest", []):
        for name, tensor in inputs[rest["input"]].items():
            if not name.startswith(params["prefix"]) and matches(name, [rest["tensors"]]):
                out.setdefault(name, tensor)
    return out


def lora(step: dict[str, Any], inputs: dict[str, Model]) -> Model:
    params = step["params"]
    base, adapter = (inputs[name] for name in step["inputs"])
    out: Model = {}
    for name, tensor in base.items():
        stem = params.get("prefix", "base_model.model.") + name.removesuffix(".weight")
        if f"{stem}.lora_A.weight" not in adapter:
            out[name] = tensor
            continue
        a, b = (adapter[f"{stem}.lora_{part}.weight"] for part in "AB")
        rank = a.shape[0]
        left, right = b.values.reshape(b.shape), a.values.reshape(a.shape)
        alpha = ratio(params["alpha"])
        scale = float(alpha / rank)
        if params.get("rsLora"):
            scale = float(number(alpha) / mpmath.sqrt(rank))
        total = left[:, :1] * right[:1]
        for k in range(1, rank):
            total = total + left[:, k : k + 1] * right[k : k + 1]
        total = total.T if params.get("fanInFanOut") else total
        dtype = step["arithmetic"].get("store") or tensor.dtype
        values = tensor.values + np.ascontiguousarray(total).reshape(-1) * scale
        out[name] = Tensor(dtype, tensor.shape, stored(values, dtype))
    return out


MOVES: dict[str, Callable[[dict[str, Any], dict[str, Model]], Model]] = {
    "copy": copy,
    "rename": rename,
    "cast": cast,
    "layer_select": layer_select,
    "lora_merge": lora,
}


def scale(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    return parts[0] * float(ratio(chosen(step["params"], name, "factor") or "1"))


def combined(parts: Sequence[Array], coefficients: Sequence[Any]) -> Array:
    return in_order([part * c for part, c in zip(parts, coefficients, strict=True)])


def weighted_sum(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    params = step["params"]
    weights = [ratio(text) for text in chosen(params, name, "weights")]
    if params["normalize"]:
        weights = [weight / sum(weights) for weight in weights]
    if params.get("base") is not None:
        weights = [ratio(params.get("scale", "1")) * weight for weight in weights]
        weights.insert(step["inputs"].index(params["base"]), 1 - sum(weights))
    return combined(parts, [float(weight) for weight in weights])


def number(value: Fraction | float) -> Any:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value)


def slerp(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    a, b = parts
    t = ratio(chosen(step["params"], name, "t"))
    lengths = math.sqrt(tree_sum(a * a)) * math.sqrt(tree_sum(b * b))
    cosine = float(tree_sum(a * b)) / lengths if lengths > 0 else 1.0
    if not abs(cosine) <= 0.9995:
        return combined(parts, [float(1 - t), float(t)])
    theta = mpmath.acos(mpmath.mpf(cosine))
    first = mpmath.sin((1 - number(t)) * theta) / mpmath.sin(theta)
    return combined(parts, [float(first), float(mpmath.sin(number(t) * theta) / mpmath.sin(theta))])


# Section 9: combinations whose coefficients follow from scalar products.


def split(step: dict[str, Any], parts: Sequence[Array]) -> tuple[int | None, list[Array]]:
    base = step.get("params", {}).get("base")
    if base is None:
        return None, list(parts)
    at = step["inputs"].index(base)
    return at, [part - parts[at] for i, part in enumerate(parts) if i != at]


def angular(step: dict[str, Any], name: str, parts: list[Array], shape: Any, formula: Any) -> Array:
    at, vectors = split(step, parts)
    gram = [[float(tree_sum(a * b)) for b in vectors] for a in vectors]
    if not all(math.isfinite(value) for row in gram for value in row):
        return combined(parts, [math.nan] * len(parts))
    found = formula(step, name, [[mpmath.mpf(value) for value in row] for row in gram])
    if at is not None:
        found.insert(at, 1 - sum(found))
    return combined(parts, [float(value) for value in found])


def clamped(value: Any) -> Any:
    return max(min(value, mpmath.mpf(1)), mpmath.mpf(-1))


def dot(u: Any, gram: Any, v: Any) -> Any:
    return sum(a * gram[i][j] * b for i, a in enumerate(u) for j, b in enumerate(v))


def norm(u: Any, gram: Any) -> Any:
    return mpmath.sqrt(max(dot(u, gram, u), 0))


def share(step: dict[str, Any], name: str) -> Fraction:
    first, second = map(ratio, chosen(step["params"], name, "weights"))
    total = first + second
    return Fraction(1, 2) if abs(total) < Fraction(1, 10**6) else second / total


def nuslerp_formula(step: dict[str, Any], name: str, gram: Any) -> list[Any]:
    t = number(share(step, name))
    length = mpmath.sqrt(gram[0][0]) * mpmath.sqrt(gram[1][1])
    cosine = clamped(gram[0][1] / length) if length else mpmath.mpf(1)
    if 1 - cosine * cosine <= mpmath.mpf(10) ** -16:
        return [1 - t, t]
    theta = mpmath.acos(cosine)
    return [mpmath.sin(of * theta) / mpmath.sin(theta) for of in (1 - t, t)]


def by_vector(parts: list[Array], coefficients: list[Array], at: int | None) -> Array:
    """Combine, with one coefficient for each row of the parts."""
    if at is not None:
        rest = np.ones_like(coefficients[0])
        for coefficient in coefficients:
            rest = rest - coefficient
        coefficients.insert(at, rest)
    return combined(parts, [coefficient[:, None] for coefficient in coefficients])


def nuslerp(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    params = step["params"]
    if params.get("flatten", True):
        return angular(step, name, parts, shape, nuslerp_formula)
    columns = params.get("rowWise", False)
    length = (shape[0] if columns else shape[-1]) if shape else 1
    wide = [part.reshape(length, -1) if columns else part.reshape(-1, length) for part in parts]
    at, (a, b) = split(step, wide)
    total = column_sum if columns else tree_sum
    aa, ab, bb = total(a * a), total(a * b), total(b * b)
    size = sqrt(aa) * sqrt(bb)
    cosine = np.where(size == 0, 1.0, ab / size)
    cosine = np.where(np.isnan(cosine), cosine, np.minimum(np.maximum(cosine, -1.0), 1.0))
    straight = (1.0 - cosine * cosine) <= 1e-16
    theta, t = acos(cosine), share(step, name)
    found = [
        np.where(straight, of, sin(theta * of) / sin(theta)) for of in (float(1 - t), float(t))
    ]
    if columns:
        return by_vector([part.T for part in wide], found, at).T.reshape(-1)
    return by_vector(wide, found, at).reshape(-1)


def multislerp_formula(step: dict[str, Any], name: str, gram: Any) -> list[Any]:
    params = step["params"]
    eps = number(ratio(params.get("eps", "0.00000001")))
    weights = [ratio(text) for text in chosen(params, name, "weights")]
    if params.get("normalize", True):
        weights = [weight / sum(weights) for weight in weights]
    w, n = [number(weight) for weight in weights], len(weights)
    if n == 1:
        return [mpmath.mpf(1)]
    lengths = [mpmath.sqrt(gram[i][i]) for i in range(n)]
    inverse = [1 / (length + eps) for length in lengths]
    mean = [w[i] * inverse[i] for i in range(n)]
    size = norm(mean, gram)
    if size < eps:
        return w
    mean = [part / size for part in mean]
    axes = [[inverse[i] if i == j else mpmath.mpf(0) for j in range(n)] for i in range(n)]
    drift = sum(w[i] * dot(axes[i], gram, mean) for i in range(n))
    tangent = [w[i] * inverse[i] - drift * mean[i] for i in range(n)]
    angle = norm(tangent, gram) + eps
    length = sum(w[i] * lengths[i] for i in range(n))
    return [
        (m * mpmath.cos(angle) + v * (mpmath.sin(angle) / angle)) * length
        for m, v in zip(mean, tangent, strict=True)
    ]


def karcher_formula(step: dict[str, Any], name: str, gram: Any) -> list[Any]:
    params = step.get("params", {})
    tol, n = number(ratio(params.get("tol", "0.00001"))), len(gram)
    lengths = [mpmath.sqrt(gram[i][i]) for i in range(n)]
    valid = [i for i in range(n) if lengths[i] > tol]
    if n == 1:
        return [mpmath.mpf(1)]
    if not valid:
        return [mpmath.mpf(0)] * n
    units = [[1 / lengths[i] if i == j else mpmath.mpf(0) for j in range(n)] for i in valid]
    mean = [sum(column) / len(valid) for column in zip(*units, strict=True)]
    size = norm(mean, gram)
    mean = list(units[0]) if size < tol else [part / size for part in mean]
    for _ in range(params.get("maxIter", 10)):
        step_ = [mpmath.mpf(0)] * n
        for unit in units:
            cosine = clamped(dot(mean, gram, unit))
            theta = mpmath.acos(cosine)
            if theta >= tol:
                pull = theta / mpmath.sin(theta) / len(units)
                step_ = [
                    s + pull * (u - cosine * m) for s, u, m in zip(step_, unit, mean, strict=True)
                ]
        size = norm(step_, gram)
        if size < tol:
            break
        mean = [
            mpmath.cos(size) * m + mpmath.sin(size) / size * s
            for m, s in zip(mean, step_, strict=True)
        ]
        length = norm(mean, gram)
        mean = [part / length for part in mean] if length > tol else mean
    return [sum(length / n for length in lengths) * part for part in mean]


def model_stock_formula(step: dict[str, Any], name: str, gram: Any) -> list[Any]:
    n, small = len(gram), mpmath.mpf(10) ** -6
    lengths = [mpmath.sqrt(gram[i][i]) for i in range(n)]
    cosines = [
        clamped(gram[i][j] / max(lengths[i] * lengths[j], small))
        for i, j in combinations(range(n), 2)
    ]
    cosine = sum(cosines) / len(cosines)
    divisor = 1 + (n - 1) * cosine
    t = mpmath.mpf(0) if abs(divisor) < small else n * cosine / divisor
    return [t / n] * n


def model_stock(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    if not step["params"].get("filterWise", False):
        return angular(step, name, parts, shape, model_stock_formula)
    rows = [part.reshape(-1, shape[-1] if shape else 1) for part in parts]
    at, vectors = split(step, rows)
    n = len(vectors)
    lengths = [sqrt(tree_sum(v * v)) for v in vectors]
    cosines = []
    for i, j in combinations(range(n), 2):
        size = lengths[i] * lengths[j]
        cosine = tree_sum(vectors[i] * vectors[j]) / np.where(size < 1e-6, 1e-6, size)
        cosines.append(
            np.where(np.isnan(cosine), cosine, np.minimum(np.maximum(cosine, -1.0), 1.0))
        )
    cosine = in_order(cosines) / float(len(cosines))
    divisor = 1.0 + (float(n) - 1.0) * cosine
    t = np.where(np.abs(divisor) < 1e-6, 0.0, float(n) * cosine / divisor)
    return by_vector(rows, [t / float(n)] * n, at).reshape(-1)


# Section 10: sparse task vectors.


def texts(
    params: dict[str, Any], name: str, key: str, n: int, default: str = "1"
) -> list[Fraction]:
    return [ratio(text) for text in chosen(params, name, key) or [default] * n]


def masks(step: dict[str, Any], name: str, vectors: list[Array], shape: Any) -> list[Array]:
    params, n = step["params"], len(vectors)
    kind, found = params["sparsify"], []
    densities = texts(params, name, "densities", n)
    for index, (d, density) in enumerate(zip(vectors, densities, strict=True)):
        size, count = np.abs(d), len(d)
        keep = math.floor(density * count)
        if density >= 1:
            found.append(np.ones(count, dtype=bool))
        elif kind == "magnitude":
            found.append(largest(size, keep))
        elif kind == "outliers":
            top = math.floor(texts(params, name, "gammas", n)[index] * count)
            top = count - max(0, count - keep - top) - keep
            found.append(largest(size, top + keep) & ~largest(size, top))
        else:
            limit: Any = math.floor(density * 2**32)
            if kind == "della":
                limit = della_limits(
                    size, shape, density, texts(params, name, "epsilons", n)[index]
                )
            found.append(mask_words(params["seed"], index, name, count) < limit)
    return found


def della_limits(size: Array, shape: Any, density: Fraction, epsilon: Fraction) -> Array:
    columns = shape[-1] if shape else 1
    limits = []
    for row in size.reshape(-1, columns):
        rank = np.empty(columns)
        rank[np.argsort(row, kind="stable")] = np.arange(columns)  # numpy sorts NaN last
        chance = (float(density) - float(epsilon)) + (2 * float(epsilon) * rank) / max(
            columns - 1, 1
        )
        limits.append(np.floor(chance * 2.0**32).astype(np.int64))
    return np.concatenate(limits)


def task_arithmetic(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    params = step["params"]
    at, vectors = split(step, parts)
    n, base = len(vectors), parts[at or 0]
    exact = texts(params, name, "weights", n)
    weights, kept = [float(w) for w in exact], masks(step, name, vectors, shape)
    scales = [1.0] * n
    if params.get("rescale", False):
        for i, density in enumerate(texts(params, name, "densities", n)):
            before = float(tree_sum(np.abs(vectors[i])))
            after = float(tree_sum(np.abs(vectors[i]) * kept[i]))
            if density < 1 and not before < 1e-7 and not after < 1e-7:
                scales[i] = before / after
    terms = [((vectors[i] * kept[i]) * scales[i]) * weights[i] for i in range(n)]
    total = float(sum(exact))
    divisor: Any = total if abs(total) >= 1e-8 else 1.0
    if params["elect"]:
        positive = in_order(terms) >= 0
        agrees = [(term > 0) & positive | (term < 0) & ~positive for term in terms]
        terms = [term * agree for term, agree in zip(terms, agrees, strict=True)]
        divisor = in_order([a * w for a, w in zip(agrees, weights, strict=True)])
        divisor = np.where(divisor == 0, 1.0, divisor)
    mixed = in_order(terms)
    if params["normalize"]:
        mixed = mixed / divisor
    return base + mixed * float(ratio(chosen(params, name, "scale") or "1"))


# Section 11: the others.


def sce(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    at, d = split(step, parts)
    n, part = len(d), ratio(step["params"].get("selectTopk", "1"))
    if part < 1:
        mean = in_order(d) / float(n)
        variance = in_order([(v - mean) * (v - mean) for v in d]) / float(n)
        stay = largest(variance, math.floor(part * int(np.count_nonzero(variance))))
        d = [v * stay for v in d]
    means = [float(tree_sum(v * v)) / max(len(d[0]), 1) for v in d]
    total = in_order([0.0, *means])
    weights = [1.0 / n if abs(total) < 1e-6 else mean / total for mean in means]
    positive = in_order(d) >= 0
    shares = [
        ((v > 0) & positive | (v < 0) & ~positive) * w for v, w in zip(d, weights, strict=True)
    ]
    divisor = in_order(shares)
    divisor = np.where(divisor < 1e-6, 1e-6, divisor)
    return parts[at or 0] + in_order([v * s for v, s in zip(d, shares, strict=True)]) / divisor


def nearswap(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    a, b = parts
    distance = np.abs(a - b)
    distance = np.where(distance < 1e-6, 1e-6, distance)
    weight = (1.0 / distance) * float(ratio(chosen(step["params"], name, "t")))
    weight = np.where(weight < 0, 0.0, np.where(weight > 1, 1.0, weight))
    return weight * b + (1.0 - weight) * a


def ram(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    params = step["params"]
    at, d = split(step, parts)
    epsilon = float(ratio(params.get("epsilon", "0.00001")))
    active = [np.abs(v) > epsilon for v in d]
    count = sum(a.astype(int) for a in active)
    terms = []
    for v, a in zip(d, active, strict=True):
        mine = v * a
        alone = mine * (count == 1)
        if params.get("r") is not None:
            shared, own = int((a & (count > 1)).sum()), int((a & (count == 1)).sum())
            rho = shared / max(float(own), epsilon)
            r, alpha = float(ratio(params["r"])), float(ratio(params["alpha"]))
            alone = alone * (1.0 + r * min(max(rho, 0.0), alpha))
        terms.append(alone + mine * (count > 1) / np.maximum(count, 1))
    return parts[at or 0] + in_order(terms)


def arcee_fusion(step: dict[str, Any], name: str, parts: list[Array], shape: Any) -> Array:
    columns, n = (shape[-1] if shape else 1), len(parts[0])
    base, other = (part.reshape(-1, columns) for part in parts)

    def shares(rows: Array) -> Array:
        powers = exp(rows - rows.max(axis=1, keepdims=True))
        return powers / tree_sum(powers)[:, None] + 1e-8

    p, q = shares(other), shares(base)
    divergence = tree_sum(p * log(p / q))
    divergence = np.where(divergence < 0, 0.0, divergence)
    importance = (np.abs(other - base) * divergence[:, None]).reshape(-1)
    ordered = np.sort(importance)  # NaN last
    first, median, third = (ordered[(n - 1) * quarter // 4] for quarter in (1, 2, 3))
    threshold = median + 1.5 * (third - first)
    return np.where(importance >= threshold, parts[1], parts[0])


MERGES: dict[str, Callable[..., Array]] = {
    "scale": scale,
    "weighted_sum": weighted_sum,
    "slerp": slerp,
    "nuslerp": nuslerp,
    "multislerp": lambda *of: angular(*of, multislerp_formula),
    "karcher": lambda *of: angular(*of, karcher_formula),
    "model_stock": model_stock,
    "task_arithmetic": task_arithmetic,
    "sce": sce,
    "nearswap": nearswap,
    "ram": ram,
    "arcee_fusion": arcee_fusion,
}


# Tensors as the vectors write them.


def read(document: dict[str, Any]) -> Tensor:
    """Read {"dtype", "shape", "bits": "3f80 ..."} or {"dtype", "shape", "stream": text}."""
    dtype, shape = document["dtype"], tuple(document["shape"])
    width = WIDTH[dtype]
    if "stream" in document:
        return Tensor(dtype, shape, stored(stream(document["stream"], math.prod(shape)), dtype))
    words = [int(word, 16) for word in document["bits"].split()]
    return Tensor(dtype, shape, np.array(words, dtype=f"u{width}"))


def stream(text: str, count: int) -> Array:
    """Return numbers in [-1/16, 1/16): (w - 2^31) / 2^35, w the words of SHA-256(text || u64le block)."""
    out: list[float] = []
    for block in range(-(-count // 8)):
        found = hashlib.sha256(text.encode() + block.to_bytes(8, "little")).digest()
        for start, stop in pairwise(range(0, 33, 4)):
            out.append((int.from_bytes(found[start:stop], "little") - 2**31) / 2**35)
    return np.array(out[:count])


def write(tensor: Tensor) -> dict[str, Any]:
    """Write a tensor: its bits where they are few, else the SHA-256 of its bytes."""
    width = WIDTH[tensor.dtype]
    head = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    if len(tensor.bits) > 256:
        data = tensor.bits.astype(f"<u{width}").tobytes()
        return head | {"sha256": hashlib.sha256(data).hexdigest()}
    return head | {"bits": " ".join(f"{int(word):0{2 * width}x}" for word in tensor.bits)}
