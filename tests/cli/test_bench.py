"""Scores bound to weights: commands, real keys, real results files."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import Run, ok
from worlds import World

from parentage import PrivateKey
from parentage.attest.bundle import CLAIMS, parse
from parentage.attest.statement import parse_statement
from parentage.attest.statements import benchmark

RESULTS = Path(__file__).parent.parent / "verify" / "results"
LM_EVAL = RESULTS / "lm-eval-0.4.13.json"
LOG = RESULTS / "lm-eval-0.4.13-samples.jsonl"


@pytest.fixture
def lab(world: World) -> World:
    """A release by `owner`, and a lab with a key of its own."""
    world.merge()
    for name, key in (("owner", world.key), ("lab", PrivateKey.generate())):
        (world.root / f"{name}.key").write_bytes(key.to_pem(None))
        (world.root / f"{name}.pub").write_bytes(key.public.pem)
    return world


def said(release: Path) -> list[benchmark.Benchmark]:
    lines = (release / CLAIMS).read_bytes().splitlines()
    found = [parse_statement(parse(line, "t").payload, "t") for line in lines]
    return [benchmark.parse(s, "t")[1] for s in found if s.predicate_type == benchmark.TYPE]


def test_attach(lab: World, run: Run) -> None:
    release = lab.root / "merged"
    out = ok(run("bench", "attach", release, LM_EVAL, "--samples", LOG, "--key", lab.root / "lab.key",
                 "--publisher", lab.root / "owner.pub", "--json"))  # fmt: skip
    document = json.loads(out)

    assert document["predicateType"] == benchmark.TYPE
    (found,) = said(release)
    assert found.binding == "asserted"
    assert dict(found.weights) == dict(lab.lineage("merged").weights.root)
    assert found.results.sha256 == hashlib.sha256(LM_EVAL.read_bytes()).hexdigest()
    assert found.samples[0].sha256 == hashlib.sha256(LOG.read_bytes()).hexdigest()
    assert found.samples[0].count == 16
    assert (found.scores[0].metric, found.scores[0].value) == ("acc", "0.4375")
    report = lab.verify("merged", ["a", "b"])
    assert report.verified


def test_attach_refuses_nan_and_strangers(lab: World, run: Run, tmp_path: Path) -> None:
    release, before = lab.root / "merged", (lab.root / "merged" / CLAIMS).read_bytes()
    broken = tmp_path / "nan.json"
    broken.write_text(LM_EVAL.read_text().replace("0.4375", "NaN"))

    code, out, _ = run("bench", "attach", release, broken, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "owner.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "json")
    assert json.loads(out)["error"]["found"] == "NaN"
    code, out, _ = run("bench", "attach", release, LM_EVAL, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "lab.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "signature")
    assert (release / CLAIMS).read_bytes() == before


def test_tokenizer_and_template_are_those_of_the_signature(world: World, run: Run) -> None:
    folder = world.save("plain", world.weights("a"))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (world.root / "owner.key").write_bytes(world.key.to_pem(None))
    ok(run("sign", folder, "--observed", "--key", world.root / "owner.key"))
    ok(run("bench", "attach", folder, LM_EVAL, "--key", world.root / "owner.key"))

    (found,) = said(folder)
    digests: Any = (found.tokenizer, found.chat_template)
    assert [one.sha256 for one in digests] == [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("tokenizer.json", "tokenizer_config.json")
    ]


HARNESS = """
import json, os, socket, sys
from pathlib import Path
release, mode, *more = sys.argv[1:]
said = json.loads(Path(os.environ["SAID"]).read_text())
said["model_name"] = "/elsewhere" if mode == "another-model" else release
said["config"]["model_args"] = {}
said["results"]["tiny_choice"]["acc,none"] = float("nan") if mode == "nan" else 0.4375
weights = Path(release, "model.safetensors")
if mode == "touch":
    data = weights.read_bytes()
    stamps = weights.stat()
    weights.write_bytes(data[:-1] + b"!")
    weights.write_bytes(data)
    os.utime(weights, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
if mode == "swap":
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
if mode == "connect":
    try:
        socket.create_connection(("127.0.0.1", int(more[0])), timeout=5).close()
        said["reached"] = True
    except OSError:
        said["reached"] = False
said["environment"] = dict(os.environ)
Path("out").mkdir(exist_ok=True)
if mode != "silent":
    Path("out", "results_1.json").write_text(json.dumps(said))
if mode == "twice":
    Path("out", "results_2.json").write_text(json.dumps(said))
sys.exit(int(more[0]) if mode == "exit" else 0)
"""


@pytest.fixture
def bench(lab: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench run` with a harness that does what it is told, in the folder of the lab."""
    (lab.root / "harness.py").write_text(HARNESS)
    monkeypatch.chdir(lab.root)
    monkeypatch.setenv("SAID", str(LM_EVAL))
    monkeypatch.setenv("HF_TOKEN", "a-token-of-the-environment")

    def runner(*command: str, release: str = "{release}") -> tuple[int, Any]:
        code, out, _ = run("bench", "run", lab.root / "merged", "--results", "out/results_*.json",
                           "--key", lab.root / "lab.key", "--publisher", lab.root / "owner.pub", "--json",
                           "--", sys.executable, "harness.py", release, *command)  # fmt: skip
        return code, json.loads(out)

    return runner


def test_run(lab: World, bench: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, document = bench("connect", str(server.getsockname()[1]))
    assert code == 0, document

    (found,) = said(lab.root / "merged")
    left = json.loads((lab.root / "out" / "results_1.json").read_text())
    assert found.binding == "observed"
    assert found.observed is not None
    assert found.observed.argv[1:4] == ("harness.py", "{release}", "connect")
    program = Path(sys.executable)
    assert found.observed.environment.executable == hashlib.sha256(program.read_bytes()).hexdigest()
    beside = [path.name.removesuffix(".dist-info") for path in program.parent.parent.glob("lib/python3*/site-packages/*.dist-info")]  # fmt: skip
    assert found.observed.environment.distributions == len(beside)
    listed = hashlib.sha256(json.dumps(sorted(beside), separators=(",", ":")).encode()).hexdigest()
    assert found.observed.environment.packages == listed
    assert left["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in left["environment"]
    # Where namespaces work, not even this machine could be reached.
    assert left["reached"] == (found.observed.isolation == "environment")
    assert found.started is not None
    assert found.finished is not None


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (("exit", "7"), 7, "harness-failed"),
        (("touch",), 1, "file-set"),
        (("swap",), 1, "refused"),
        (("nan",), 1, "json"),
        (("another-model",), 1, "results"),
        (("silent",), 1, "results"),
        (("twice",), 1, "results"),
        (("ok", "a-token-of-the-environment"), 2, "usage"),
        (("ok", "hf_" + "a" * 34), 2, "usage"),
    ],
)
def test_nothing_is_signed_of_a_bad_run(
    lab: World, bench: Any, command: tuple[str, ...], code: int, error: str
) -> None:
    before = (lab.root / "merged" / CLAIMS).read_bytes()

    found, document = bench(*command)
    assert (found, document["error"]["code"]) == (code, error)
    assert command[-1] not in json.dumps(document) or code != 2
    assert (lab.root / "merged" / CLAIMS).read_bytes() == before


def test_results_that_were_there_before_are_not_taken(lab: World, bench: Any) -> None:
    assert bench("ok")[0] == 0
    code, document = bench("silent")
    assert (code, document["error"]["code"]) == (1, "results")
    assert document["error"]["found"] == "none"


def test_a_command_without_the_release(bench: Any) -> None:
    code, document = bench("ok", release="elsewhere")
    assert (code, document["error"]["code"]) == (2, "usage")


def test_weights_that_were_never_signed_are_not_run(lab: World, bench: Any) -> None:
    weights = lab.root / "merged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    code, document = bench("ok")
    assert (code, document["error"]["code"]) == (1, "refused")
    assert not (lab.root / "out").exists()
