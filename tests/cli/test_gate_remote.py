"""Gates in front of a Hub: asked before anything is downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Run
from hub_rig import LocalHub
from hubs import running
from worlds import MERGE, World

import parentage
from parentage import KeySigner
from parentage.manifest.errors import UsageError
from parentage.verify.gates.policy import Gate, load
from parentage.verify.gates.report import GateReport
from parentage.verify.gates.run import run as ask
from parentage.verify.sources.place import parse_place
from parentage.verify.verdict import Verdict

TRUST = 'version: "0.1"\nroles: {publisher: {any: [{key: release.pub}]}}\nstatus: {onMissing: ignore}\nparents: {unsigned: ignore}\n'


class Shop:
    """A release on a Hub, signed with a pickle, code and a licence in it."""

    def __init__(self, hub: LocalHub, world: World) -> None:
        self.hub, self.root, self.world = hub, world.root, world
        (world.root / "release.pub").write_bytes(world.key.public.pem)
        (world.root / "trust.yaml").write_text(TRUST)
        world.merge("rio")
        folder = world.root / "rio"
        self.plain = hub.put_folder("acme/plain", folder)
        for name in ("model.sig", ".parentage/claims.jsonl"):
            (folder / name).unlink()
        (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# rio\n")
        (folder / "state.dat").write_bytes(b"\x80\x04]")
        (folder / "config.json").write_text('{"auto_map": {}}')
        parents = {name: world.root / name for name in "ab"}
        parentage.declare(folder, world.recipe(["a", "b"], [MERGE]), parents=parents)
        world.sign("rio")
        self.commit = hub.put_folder("acme/rio", folder)

    def gate(self, **rules: object) -> Gate:
        document = {
            "version": "0.1",
            "trust": "trust.yaml",
            "download": {"level": "remote", "licences": {"unknown": "ignore"}, **rules},
        }
        (self.root / "gate.yaml").write_text(json.dumps(document))
        return load(self.root / "gate.yaml")

    def ask(self, place: str, **rules: object) -> GateReport:
        self.hub.log.clear()
        return ask(parse_place(place), self.gate(**rules), "download")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with running(tmp_path_factory.mktemp("hub")) as hub:
        yield Shop(hub, World(tmp_path_factory.mktemp("world")))


def refusals(report: GateReport) -> set[str]:
    return {one.code for one in report.reasons if one.refuses}


def test_let_through_without_a_download(shop: Shop) -> None:
    report = shop.ask("hf://acme/plain", slices=2)

    assert (report.verdict, refusals(report)) == (Verdict.VERIFIED, set())
    assert report.release == f"hf://acme/plain@{shop.plain}"
    assert report.report.remote is not None
    assert (report.report.remote.slices, report.report.remote.files_declared) == (2, 2)
    assert any("the bytes of the weights" in text for text in report.not_checked)
    assert any(text.startswith("the card: ") for text in report.not_checked)


def test_every_reason_without_a_download(shop: Shop) -> None:
    report = shop.ask(
        f"hf://acme/rio@{shop.commit}", licences={"deny": ["cc-by-nc-4.0"], "unknown": "ignore"}
    )

    assert report.verdict is Verdict.DENIED
    assert refusals(report) == {"pickle", "remote-code", "licence-denied"}
    assert {one.where for one in report.reasons if one.code == "pickle"} == {"state.dat"}


def test_other_weights_than_were_signed(shop: Shop) -> None:
    files = {
        p.relative_to(shop.root / "rio").as_posix(): p.read_bytes()
        for p in (shop.root / "rio").rglob("*")
        if p.is_file()
    }
    spoilt = bytearray(files["model.safetensors"])
    spoilt[-1] ^= 1
    shop.hub.put("acme/rio", {**files, "model.safetensors": bytes(spoilt)})
    report = shop.ask("hf://acme/rio")

    assert report.verdict is Verdict.REFUTED
    assert {"file-digest", "pickle"} <= refusals(report)
    assert shop.ask(f"hf://acme/rio@{shop.commit}").verdict is Verdict.DENIED


def test_places_and_levels_go_together(shop: Shop) -> None:
    with pytest.raises(UsageError, match="level remote is for what is on a Hub"):
        ask(shop.root / "rio", shop.gate(), "download")
    with pytest.raises(UsageError, match="level remote is for what is on a Hub"):
        ask(parse_place("hf://acme/rio"), shop.gate(level="integrity"), "download")


def test_as_a_person_types_it(
    shop: Shop, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARENTAGE_CACHE", str(tmp_path))
    shop.gate()
    code, out, _ = run(
        "gate", "download", "hf://acme/plain", "--gate", shop.root / "gate.yaml", "--json"
    )
    assert (code, json.loads(out)["verdict"]) == (0, "verified")
    assert not list(tmp_path.rglob("*.safetensors"))

    shop.gate(level="integrity", card={"all": "ignore"})
    code, out, _ = run(
        "gate", "download", "hf://acme/plain", "--gate", shop.root / "gate.yaml", "--json"
    )
    assert (code, json.loads(out)["report"]["coverage"]["tensors_checked"]) == (0, 5)
    assert list(tmp_path.rglob("*.safetensors"))


def test_what_is_judged_is_what_was_hashed(shop: Shop) -> None:
    """A mirror that sends the signed files once, and harmless ones to whoever asks again."""
    faults, rules = shop.hub.faults, {"deny": ["cc-by-nc-4.0"]}
    honest = refusals(shop.ask("hf://acme/rio", licences=rules))
    assert {"remote-code", "licence-denied"} <= honest

    def from_the_second_on(name: str, at: int) -> None:
        def lie() -> None:
            faults.add("corrupt", route="resolve", path=name, at=at)

        faults.after("resolve", lambda: faults.after("resolve", lie, path=name), path=name)

    from_the_second_on("config.json", 2)
    from_the_second_on("README.md", 15)
    try:
        assert refusals(shop.ask("hf://acme/rio", licences=rules)) == honest
    finally:
        faults.clear()


@pytest.mark.parametrize(
    ("beside", "last", "reason"),
    [
        (
            "a/{}.txt",
            ("config.json", b'{"custom_pipelines": {"x": {"impl": "evil--a.B"}}}'),
            "remote-code",
        ),
        ("a/{}.npz", ("z.npz", b"\x80\x04]"), "pickle"),
    ],
)
def test_nothing_hides_behind_many_files(
    shop: Shop, tmp_path: Path, beside: str, last: tuple[str, bytes], reason: str
) -> None:
    folder = tmp_path / "crowd"
    (folder / "a").mkdir(parents=True)
    shutil.copy(shop.root / "rio" / "model.safetensors", folder)
    for number in range(300):
        (folder / beside.format(number)).write_bytes(b"x")
    (folder / last[0]).write_bytes(last[1])
    world = shop.world
    parentage.sign_release(folder, KeySigner(world.key), world.trust, observed=True)
    shop.hub.put_folder("acme/crowd", folder)
    report = shop.ask("hf://acme/crowd", otherWeights="ignore")
    assert reason in refusals(report)
