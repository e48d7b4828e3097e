"""What a card's text says of training, and what only sounds like it."""

from __future__ import annotations

import time

import pytest

from parentage.verify.cards.training_words import training_in

PARENTS = ["nex-n2-pro", "qwen3.5"]


def said(text: str) -> list[tuple[str, bool]]:
    return [
        (text[one.offset :].split(maxsplit=1)[0].strip(".,"), one.claims)
        for one in training_in(text, PARENTS)
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Rio is post-trained on 2T tokens.", "post-trained"),
        ("Rio is a fine-tuned version of Qwen3.5.", "fine-tuned"),
        ("We trained it for three epochs.", "trained"),
        ("An instruction-tuned model.", "instruction-tuned"),
        ("It was distilled from a larger teacher.", "distilled"),
        ("It is aligned with RLHF.", "aligned"),
        ("Its reasoning was improved by large-scale reinforcement learning.", "improved"),
        ("The model underwent extensive post-training.", "underwent"),
        ("Obtained from a small base by on-policy distillation.", "Obtained"),
        ("Finetuned with LoRA.", "Finetuned"),
        ("This model\nwas post-trained by us.", "post-trained"),
        ("Nex-N2-Pro and Qwen3.5 were merged, and the result was then fine-tuned.", "fine-tuned"),
        ("- post-trained in bf16", "post-trained"),
        ("| method | fine-tuned |", "fine-tuned"),
    ],
)  # fmt: skip
def test_claims(text: str, word: str) -> None:
    assert said(text) == [(word, True)]


@pytest.mark.parametrize(
    "text",
    [
        "It was never fine-tuned.",
        "It was not post-trained.",
        "No training or distillation took place.",
        "Made without any fine-tuning.",
        "This model isn't fine-tuned.",
        "It isn\u2019t fine-tuned.",
        "A merge of pre-trained models.",
        "Pretrained weights.",
        "See `trainer.train()` and `fine-tuned`.",
        "```\nfine-tuned\n```",
        "~~~\npost-trained\n~~~\n",
        "<!-- fine-tuned -->",
        "It constrained the output.",
        "Nothing here.",
        "Made from two models without fine-tuning.",
        "This is a merge of pre-trained language models created using [mergekit](https://github.com/cg123/mergekit).",
        "",
    ],
)
def test_no_claims(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Qwen3.5 was post-trained by its makers.",
        "It merges two fine-tuned models.",
        "You can have it fine-tuned.",
        "A good base for fine-tuning.",
        "Both models were instruction-tuned.",
        "See our work on RLHF.",
        "## Training procedure",
        "Both models were improved with RLHF.",
    ],
)
def test_hints(text: str) -> None:
    assert [claims for _, claims in said(text)] == [False]


@pytest.mark.parametrize(
    "piece",
    ["a trained model without ", "```\n", "<!--", "not ", "~~~a\n", " \n", "underwent a b c "],
)
def test_texts_that_are_made_to_be_slow_are_read_in_time_that_grows_with_them(piece: str) -> None:
    text = piece * (120_000 // len(piece))

    start = time.process_time()
    found = said(text)

    assert len(found) < 1_000
    assert time.process_time() - start < 10
