"""Log-likelihoods of continuations on verified weights: the one module that meets transformers.

Tokens are cut as lm-evaluation-harness does it for causal models (its api/model.py, `_encode_pair`, and
models/huggingface.py, `_loglikelihood_tokens`; 0.4.13). Tensors come as verified bytes, config and
tokenizer as signed bytes through a private folder; no code of the release is run.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from parentage.attest.trust import Trust
from parentage.manifest.errors import CannotRunError, MissingExtraError, ResultsError, printable
from parentage.verify.benchmarks.samples import Request
from parentage.verify.demands import Demands
from parentage.verify.loading import Verified

if TYPE_CHECKING:
    import torch

#: What config and tokenizer are made of; whatever a release has of it.
_SMALL: Final = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer.model", "spiece.model", "chat_template.jinja"),
)
_LENGTHS: Final = ("n_positions", "max_position_embeddings", "n_ctx")
_LONGEST: Final = 1 << 20
_DEFAULT_LENGTH: Final = 2048
#: That a model may compute in.
DTYPES: Final = ("bfloat16", "float16", "float32", "float64")
#: One step wider, to see what rounding alone does.
_WIDER: Final = {"bfloat16": "float32", "float16": "float32", "float32": "float64"}


class Tokens(msgspec.Struct, frozen=True):
    """A request in tokens: what the model reads, and how many of the last are scored."""

    read: tuple[int, ...]
    scored: tuple[int, ...]


class Scorer:
    """A causal model of verified weights, on one device."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:  # noqa: ANN401  (transformers')
        self._model, self._tokenizer, self._device = model, tokenizer, device
        found = (getattr(model.config, name, None) for name in _LENGTHS)
        own = getattr(tokenizer, "model_max_length", None)
        lengths = [n for n in (*found, own) if isinstance(n, int) and 0 < n <= _LONGEST]
        self._length = lengths[0] if lengths else _DEFAULT_LENGTH

    @property
    def device(self) -> str:
        """Kind of device that it runs on."""
        return self._device.partition(":")[0]

    @property
    def dtype(self) -> str:
        """Name of the dtype that it computes in."""
        return str(self._model.dtype).removeprefix("torch.")

    def wider(self) -> str:
        """Return the dtype that is one step wider; empty: there is none."""
        return _WIDER.get(self.dtype, "")

    @contextmanager
    def computing_in(self, dtype: str) -> Iterator[None]:
        """Compute in another dtype meanwhile; the weights keep their values only in a wider one."""
        import torch

        own = self._model.dtype
        self._model.to(getattr(torch, dtype))
        try:
            yield
        finally:
            self._model.to(own)

    def tokens(self, request: Request) -> Tokens:
        """Return a request in tokens.

        Raises:
            ResultsError: nothing is left to be scored.
        """
        context, continuation = request.context, request.continuation
        if context:
            spaces = len(context) - len(context.rstrip())
            if spaces:
                continuation = context[-spaces:] + continuation
                context = context[:-spaces]
        if context:
            whole, head = self._encode(context + continuation), self._encode(context)
            scored = whole[len(head) :]
        else:
            head = [self._prefix()]
            scored = self._tokenizer.encode(continuation, add_special_tokens=False)
            if scored and scored[0] == head[0]:
                scored = scored[1:]
        if not scored or not head or len(scored) > self._length:
            raise ResultsError("a continuation of no tokens, or of too many", where=request.where)
        read = (head + scored)[-(self._length + 1) :][:-1]
        return Tokens(tuple(read), tuple(scored))

    def _encode(self, text: str) -> list[int]:
        start = self._tokenizer.decode([self._prefix()])
        if start and text.startswith(start):
            return list(self._tokenizer.encode(text, add_special_tokens=False))
        return list(self._tokenizer.encode(text))

    def _prefix(self) -> int:
        for name in ("bos_token_id", "eos_token_id"):
            found = getattr(self._tokenizer, name, None)
            if isinstance(found, int):
                return found
        raise CannotRunError("tokenizer has no token to begin with")

    def scores(self, tokens: Sequence[Tokens], batch: int) -> list[float]:
        """Return the log-likelihood of each, nats; padded on the right to the longest of a batch."""
        found: list[float] = []
        for at in range(0, len(tokens), batch):
            found += self._batch(tokens[at : at + batch])
        return found

    def _batch(self, tokens: Sequence[Tokens]) -> Iterable[float]:
        import torch

        longest = max(len(one.read) for one in tokens)
        # Right padding is never seen by what is before it: a causal model looks back only.
        rows = [[*one.read, *[0] * (longest - len(one.read))] for one in tokens]
        with torch.inference_mode():
            logits = self._model(torch.tensor(rows, device=self._device)).logits
            said = torch.log_softmax(logits, dim=-1)
            for row, one in zip(said, tokens, strict=True):
                wanted = torch.tensor(one.scored, device=row.device).unsqueeze(-1)
                part = row[len(one.read) - len(one.scored) : len(one.read)]
                score = float(part.gather(1, wanted).sum())
                if not math.isfinite(score):
                    raise ResultsError("a log-likelihood that is no number", found=str(score))
                yield score


@contextmanager
def scorer(release: Path, trust: Trust, demands: Demands, *, dtype: str = "") -> Iterator[Scorer]:
    """Yield a model of a release's weights, every tensor verified.

    Args:
        release: its folder.
        trust: who may have signed it.
        demands: device, threads, progress.
        dtype: to compute in; empty: that of the config, else of the weights.

    Raises:
        RefusedError: a tensor or a file is not the signed one.
        MissingExtraError: torch or transformers is not installed.
        CannotRunError: transformers does not know such a model without the release's own code, or has no
            place for a tensor, or wants one that is not there.
    """
    transformers = _transformers()
    device = _device(demands.device)
    with (
        Verified(release, trust=trust, demands=demands) as verified,
        tempfile.TemporaryDirectory(prefix="parentage-") as folder,
    ):
        for name in _SMALL:
            if (release / name).is_file():
                (Path(folder) / name).write_bytes(verified.read(name))
        with _named(release):
            # Left out, trust_remote_code is a question on the terminal.
            own = {"local_files_only": True, "trust_remote_code": False}
            config = transformers.AutoConfig.from_pretrained(folder, **own)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
            model = _model(transformers, config, dict(verified.items()), dtype, release)
        yield Scorer(model.to(device).eval(), tokenizer, device)


def _model(
    transformers: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    state: dict[str, torch.Tensor],
    dtype: str,
    release: Path,
) -> Any:  # noqa: ANN401
    import torch

    floating = [t.dtype for t in state.values() if t.is_floating_point()]
    own = getattr(config, "dtype", None) or (floating[0] if floating else torch.float32)
    with torch.device("meta"):  # its class, without its memory
        shape = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model, said = type(shape).from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=getattr(torch, dtype) if dtype else own,
        output_loading_info=True,
    )
    wrong = {
        key: sorted(map(str, said[key]))
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if said.get(key)
    }
    if wrong:
        raise CannotRunError(
            "the architecture and the weights do not fit",
            where=str(release),
            found=json.dumps(wrong),
        )
    return model


@contextmanager
def _named(release: Path) -> Iterator[None]:
    """Give whatever transformers says of a model that it can't load a name."""
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
    ) as error:
        raise CannotRunError(
            f"transformers can't load this model: {printable(' '.join(str(error).split()), 300)}",
            where=str(release),
            hint="only architectures that transformers itself has are replayed",
        ) from error


def _transformers() -> Any:  # noqa: ANN401
    try:
        import torch  # noqa: F401
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"replaying needs {error.name}, which is not installed",
            hint="pip install 'parentage[replay]'",
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _device(asked: str) -> str:
    import torch

    if asked in {"auto", "all"}:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise CannotRunError("no CUDA device here", found=asked, hint="--device cpu")
    return asked.partition(",")[0]
