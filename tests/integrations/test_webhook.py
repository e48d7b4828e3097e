"""From a webhook's event to a gate's verdict."""

from __future__ import annotations

import http.client
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hub_rig import LocalHub
from hubs import outside
from huggingface_hub import CommitOperationAdd, HfApi, WebhookPayload

SCRIPT = Path(__file__).parents[2] / "integrations" / "webhook" / "recheck.py"
REPO = "acme/model"


@pytest.fixture(scope="module")
def recheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recheck", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def event(hub: LocalHub) -> dict[str, Any]:
    """A pull request's commit, as the Hub tells of it."""
    hub.put(REPO, {"a.txt": b"1"})
    change = [CommitOperationAdd("a.txt", b"2")]
    HfApi(endpoint=hub.url).create_commit(REPO, change, commit_message="a change", create_pr=True)
    told: dict[str, Any] = hub.events[-1]
    WebhookPayload.model_validate(told)  # the Hub's own shape
    return told


def test_an_event_names_the_commits_to_check(
    recheck: ModuleType, event: dict[str, Any], hub: LocalHub
) -> None:
    assert recheck.places(event) == [f"hf://{REPO}@{hub.head(REPO, 'refs/pr/1')}"]
    event["updatedRefs"][0]["newSha"] = None
    assert recheck.places(event) == []
    assert recheck.places({**event, "repo": {**event["repo"], "type": "dataset"}}) == []


@pytest.mark.parametrize(
    "name", ["--gate=mine", "a/b@main", "a/b c", "a/$(id)", "../../etc/passwd", "a", 3, None]
)
def test_names_that_no_repository_has_are_refused(
    recheck: ModuleType, event: dict[str, Any], name: object
) -> None:
    event["repo"]["name"] = name
    with pytest.raises(ValueError, match="repository"):
        recheck.places(event)


@pytest.mark.parametrize("commit", ["main", "refs/pr/1", "0" * 39, "0" * 41, "--exit-zero", 7, []])
def test_only_commits_are_checked(
    recheck: ModuleType, event: dict[str, Any], commit: object
) -> None:
    event["updatedRefs"][0]["newSha"] = commit
    with pytest.raises(ValueError, match="commit"):
        recheck.places(event)


@pytest.fixture
def asked(
    recheck: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, list[str]]]:
    """A running server, and the places that it lets the gate decide about."""
    seen: list[str] = []
    monkeypatch.setattr(recheck, "check", lambda place, *_: seen.append(place) or 0)
    server = recheck.Server(0, "s3cret", tmp_path / "gate.yaml", tmp_path)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server, seen
    server.shutdown()
    server.server_close()
    thread.join()


def post(server: Any, body: bytes, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        connection.request("POST", "/", body, {"X-Webhook-Secret": "s3cret", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_server_checks_what_moved(
    asked: tuple[Any, list[str]], event: dict[str, Any], hub: LocalHub
) -> None:
    server, seen = asked
    assert post(server, json.dumps(event).encode()) == 202
    server.waiting.join()
    assert seen == [f"hf://{REPO}@{hub.head(REPO, 'refs/pr/1')}"]


def test_strangers_and_nonsense_are_turned_away(
    asked: tuple[Any, list[str]], event: dict[str, Any]
) -> None:
    server, seen = asked
    told = json.dumps(event).encode()
    assert post(server, told, **{"X-Webhook-Secret": "guess"}) == 403
    assert post(server, told, **{"X-Webhook-Secret": ""}) == 403
    assert post(server, told, **{"Content-Length": str(2 << 20)}) == 413
    assert post(server, told, **{"Content-Length": "-1"}) == 413
    for body in (b"", b"[]", b'{"repo": 1}', b"[" * 100_000, b"\xff"):
        assert post(server, body) == 400, body[:20]
    server.waiting.join()
    assert seen == []


def test_a_server_without_a_secret_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "serve", "--gate", tmp_path / "gate.yaml"],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, "WEBHOOK_SECRET" in done.stderr) == (2, True)


def test_a_job_ends_with_the_gates_answer_and_leaves_its_report(
    hub: LocalHub, workspace: Path, programs: Path
) -> None:
    hub.put_folder(REPO, workspace / "right")
    hub.put(REPO, {"model.safetensors": workspace / "nex" / "model.safetensors"})
    for event, code in zip(hub.events[-2:], (0, 1), strict=True):
        done = subprocess.run(
            [sys.executable, SCRIPT, "job", "--gate", "gate.yaml", "--reports", "."],
            cwd=workspace,
            env=outside(hub, PATH=str(programs), WEBHOOK_PAYLOAD=json.dumps(event)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        report = workspace / f"acme-model-{event['updatedRefs'][0]['newSha']}.json"
        assert json.loads(report.read_bytes())["exitCode"] == code
