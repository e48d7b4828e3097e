"""Names of places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import UsageError
from parentage.verify.sources.place import HubPlace, is_place, parse_place

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("hf://acme/rio", "acme/rio", ""),
        ("hf://acme/rio@main", "acme/rio", "main"),
        ("hf://acme/rio@refs/pr/3", "acme/rio", "refs/pr/3"),
        (f"hf://acme/Rio-3.5_x@{COMMIT}", "acme/Rio-3.5_x", COMMIT),
        (f"pkg:huggingface/nex-agi/nex-n2-pro@{COMMIT}", "nex-agi/nex-n2-pro", COMMIT),
    ],
)
def test_a_name_is_read(text: str, repo: str, revision: str) -> None:
    place = parse_place(text)
    assert (place.repo, place.revision) == (repo, revision)
    assert parse_place(str(place)) == place
    assert place.is_pinned is (revision == COMMIT)


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://acme",
        "hf://acme/rio/model.safetensors",
        "hf://acme/rio@",
        "hf://../rio",
        "hf://acme/..",
        "hf://acme/a--b",
        "hf://acme/rio@../../etc",
        "hf://acme/rio@a//b",
        "hf://acme/rio@main?x=1",
        "hf://acme/rio@\x1b[31m",
        "hf://acme/rio\n",
        "hf://acme/rio@main\n",
        "hf://acme/" + "a" * 97,
        "https://huggingface.co/acme/rio",
        "./folder",
    ],
)
def test_anything_else_is_a_named_error(text: str) -> None:
    with pytest.raises(UsageError, match="not a repository"):
        parse_place(text)


@given(st.text(max_size=40))
def test_no_name_reaches_further_than_its_repository(text: str) -> None:
    try:
        place = parse_place("hf://" + text)
    except UsageError:
        return
    assert place.repo.count("/") == 1
    assert not any(bad in str(place)[5:] for bad in ("..", "//", "?", "#", "%", "\\", ":"))
    assert place.repo.isprintable()
    assert place.revision.isprintable()


def test_a_path_is_no_place() -> None:
    assert not is_place("acme/rio")
    assert not is_place("./hf")
    assert is_place("hf://acme/rio")
    assert str(HubPlace("acme/rio", "main").at(COMMIT)) == f"hf://acme/rio@{COMMIT}"
