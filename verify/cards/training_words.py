"""Sentences of a card's text that say that the model was trained.

A word proves nothing: cards speak of their parents' training, of training to come, of training that did
not happen. So a sentence is a claim only if it says so of this model: a participle or an acronym, not
denied, not of a parent. Where a parent, a merge or what a reader may do comes first, it is a hint.
Code, comments and our own section are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

#: "pre-trained" is no contradiction: every merge is of something that was.
_DONE: Final = re.compile(
    r"(?<![\w-])(?:(?:post|further|continually|mid)[- ]?(?:pre-?)?trained|fine[- ]?tuned"
    r"|(?:instruction|preference|instruct|chat|sft|dpo)[- ]?tuned|distilled|rlhf[- ]?ed"
    r"|(?<!pre-)(?<!pre )trained|healed|aligned (?:with|using|by|through|via))(?![\w-])",
    re.IGNORECASE,
)
_NAMES: Final = (
    r"(?:post[- ]?training|fine[- ]?tuning|distillation|rlhf|rlaif|rlvr|reinforcement learning"
    r"|sft|dpo|grpo|ppo|orpo|kto|training (?:procedure|hyperparameters|details|data|run|recipe))"
)
_NOUN: Final = re.compile(rf"(?<![\w-]){_NAMES}(?![\w-])", re.IGNORECASE)
#: "improved by large-scale reinforcement learning", "underwent extensive post-training".
_BY: Final = re.compile(
    r"(?<![\w-])(?:(?:built|improved|enhanced|refined|optimi[sz]ed|boosted|developed|created|made|produced"
    r"|obtained|adapted|speciali[sz]ed|aligned)\s+(?:[^\s.;]+\s+){0,8}?(?:with|using|through|by|via|after|from)"
    rf"|underwent|undergone|received)\s+(?:[^\s.;]+\s+){{0,5}}?{_NAMES}(?![\w-])",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(
    r"(?<![\w-])(?:no|not|never|none|neither|nor|without|nothing|cannot|(?:is|was|has|were|have|are|did)n.t|"
    r"zero|rather than|instead of)(?![\w-])[^.;:]{0,60}$",
    re.IGNORECASE,
)
_OTHERS: Final = re.compile(
    r"(?<![\w-])(?:parents?|base models?|(?:both|two|three|source|these) models|merg(?:e|es|ed|ing)|blends?|"
    r"soup|each of|(?:can|could|may|should|to) be|if you|you can|you may|want to|ready|before|suitable)(?![\w-])",
    re.IGNORECASE,
)
#: "merged, then fine-tuned" is a claim again.
_AFTERWARDS: Final = re.compile(
    r"(?<![\w-])(?:then|subsequently|afterwards?|followed by)(?![\w-])", re.IGNORECASE
)
_BLOCKS: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1|\Z)|`[^`\n]*`", re.DOTALL | re.MULTILINE
)
#: A line's end inside a paragraph: no empty line, heading, list, quote or table follows.
_WRAPPED: Final = re.compile(r"\n(?![ \t]*(?:\n|[#>|*+-]|\d+[.)]|\Z))")
_SENTENCE: Final = re.compile(r"[^.!?\n]*(?:[.!?](?=\S)[^.!?\n]*)*[.!?\n]?", re.DOTALL)
_LONGEST: Final = 2_000


class Said(msgspec.Struct, frozen=True):
    """A sentence about training.

    Attributes:
        offset: of the word, in the text that was given.
        sentence: it stands in, without line ends.
        claims: whether it says it of this model.
    """

    offset: int
    sentence: str
    claims: bool


def training_in(text: str, parents: Sequence[str]) -> Iterator[Said]:
    """Yield what a text says of training, one for each sentence.

    Args:
        text: markdown, read as lines and sentences.
        parents: names of the parents, in small letters; a sentence that has one speaks of it.
    """
    blanked = _BLOCKS.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    blanked = _WRAPPED.sub(" ", blanked)
    at = 0
    while at < len(blanked):
        found = _SENTENCE.match(blanked, at, min(at + _LONGEST, len(blanked)))
        end = found.end() if found and found.end() > at else at + 1
        said = _said(blanked[at:end], at, parents)
        if said is not None:
            yield said
        at = end


def _said(sentence: str, at: int, parents: Sequence[str]) -> Said | None:
    done = [
        word
        for pattern in (_DONE, _BY)
        for word in pattern.finditer(sentence)
        if not _denied(sentence, word.start()) and _DENIED.search(word[0]) is None
    ]
    named = [word for word in _NOUN.finditer(sentence) if not _denied(sentence, word.start())]
    if not done and not named:
        return None
    word = (done or named)[0]
    before = sentence[: word.start()]
    small = before.lower()
    others = any(parent in small for parent in parents) or _OTHERS.search(before) is not None
    others = others and _AFTERWARDS.search(before) is None
    return Said(at + word.start(), " ".join(sentence.split()), bool(done) and not others)


def _denied(sentence: str, at: int) -> bool:
    return _DENIED.search(sentence[:at]) is not None
