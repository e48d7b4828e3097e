"""Hubs and mirrors that lie about which files a release has, and publishers whose files lie unusually."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_rig import LocalHub
from safetensors.torch import save_file

import parentage
from parentage import KeySigner, PrivateKey, TrustedKeys
from parentage.manifest.errors import HubAnswerError, HubContentError, UsageError
from parentage.verify.pulling import Pull, pull
from parentage.verify.remote import Slices, verify_remote
from parentage.verify.sources.fetching import PART
from parentage.verify.sources.place import parse_place
from parentage.verify.sources.web import Patience

KEY, PLACE = PrivateKey.generate(), parse_place("hf://acme/rio")
TRUST = TrustedKeys((KEY.public,))
QUICK = Patience(attempts=2, pause=0.01, stall=1.0, answer=3.0, longest=0.05)


def signed(folder: Path, *beside: str, **more: Any) -> Path:
    """Return a signed release, with weights beside its weights."""
    folder.mkdir()
    for name in ("model.safetensors", *beside):
        (folder / name).parent.mkdir(exist_ok=True)
        save_file({name: torch.arange(24.0)}, folder / name)
    (folder / "config.json").write_text("{}")
    parentage.sign_release(folder, KeySigner(KEY), TRUST, observed=True, **more)
    return folder


def get(target: Path) -> Any:
    return pull(Pull(place=PLACE, target=target, trust=TRUST, waiting=QUICK))


@pytest.mark.parametrize("beside", ["extra/other.safetensors", "extra/empty.gguf"])
def test_weights_that_the_table_has_not_are_fetched_as_files(
    hub: LocalHub, tmp_path: Path, beside: str
) -> None:
    hub.put_folder("acme/rio", signed(tmp_path / "release", beside))
    assert get(tmp_path / "rio").exit_code == 0
    assert verify_remote(PLACE, trust=TRUST, slices=Slices(2)).exit_code == 0


def test_git_files_of_a_mirror_are_never_placed(hub: LocalHub, tmp_path: Path) -> None:
    """The specification leaves `.git` out of signatures; git would run what its config names."""
    release = signed(tmp_path / "release")
    config = b"[core]\n\tfsmonitor = touch %s\n" % str(tmp_path / "ran").encode()
    hub.put_folder("acme/rio", release)
    for name in (".git/config", "sub/.GIT/config", ".git"):
        hub.put("acme/rio", {name: config})
        with pytest.raises(HubAnswerError, match="not one"):
            get(tmp_path / "rio")
        hub.put("acme/rio", {name: None})
    assert get(tmp_path / "rio").exit_code == 0


def test_what_nobody_signed_is_not_placed(hub: LocalHub, tmp_path: Path) -> None:
    hub.put_folder("acme/rio", signed(tmp_path / "release"))
    extra = (
        ".github/workflows/x.yml",
        ".cache/huggingface/download/config.json.metadata",
        ".gitattributes",
    )
    hub.put("acme/rio", dict.fromkeys(extra, b"x"))
    assert get(tmp_path / "rio").exit_code == 0
    assert not [name for name in extra[:2] if (tmp_path / "rio" / name).exists()]


def test_what_loaders_do_as_it_says_is_read_wherever_it_lies(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror lists a config as a large file of the signed digest, and sends another one."""
    release = signed(tmp_path / "release")
    monkeypatch.setattr("hub_repos._LARGE", (".safetensors", ".json", ".png"))
    hub.put_folder("acme/rio", release)
    assert verify_remote(PLACE, trust=TRUST).exit_code == 0
    hub.faults.add("corrupt", route="lfs-get", path="config.json", at=0)
    with pytest.raises(HubContentError):
        verify_remote(PLACE, trust=TRUST)


def test_large_files_beside_the_weights_are_told(hub: LocalHub, tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (release / "tokenizer.bin").write_bytes(b"x" * 9)
    shutil.copytree(signed(tmp_path / "other"), release, dirs_exist_ok=True)
    (release / "model.sig").unlink()
    (release / ".parentage" / "claims.jsonl").unlink()
    parentage.sign_release(release, KeySigner(KEY), TRUST, observed=True)
    hub.put_folder("acme/rio", release)
    report = verify_remote(PLACE, trust=TRUST)
    assert report.exit_code == 0
    assert any("tokenizer.bin: large" in text for text in report.not_checked)


def test_files_with_names_of_parts(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("model.safetensors.part", "a", "a.part"):
        (folder / name).write_bytes(name.encode())
    save_file({"t": torch.arange(24.0)}, folder / "model.safetensors")
    parentage.sign_release(folder, KeySigner(KEY), TRUST, observed=True)
    hub.put_folder("acme/rio", folder)
    assert get(tmp_path / "rio").exit_code == 0
    assert (tmp_path / "rio" / "a.part").read_bytes() == b"a.part"
    hub.put("acme/rio", {"model.safetensors" + PART: b"x"})
    with pytest.raises(UsageError, match="another's part"):
        get(tmp_path / "other")
