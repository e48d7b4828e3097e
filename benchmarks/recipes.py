"""Verify real merges side by side with mergekit 0.1.5 making them: CPU time, private memory, limits.

    python benchmarks/recipes.py [--quick] [--only METHOD ...] [--rounds N]

Three siblings of 1 GB each (bf16, 3 % apart, half of the elements untouched). Ours is the whole
process of `parentage verify`, every digest of release and parents included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measure import HEAD, Case, Row, interleave

ROOT = Path(__file__).resolve().parent.parent
PY = sys.executable
MERGEKIT = Path(
    os.environ.get("PARENTAGE_MERGEKIT_015", ROOT / ".peers/mergekit-0.1.5/bin/mergekit-yaml")
)
THREADS = len(os.sched_getaffinity(0))

METHODS = {
    "linear": ("", "weight: 0.6", "weight: 0.4", 0.3, "A"),
    "task_arithmetic": ("base_model: @base", "weight: 0.6", "weight: 0.4", 0.3, "A"),
    "slerp": ("base_model: @left\nparameters: {t: 0.35}", "", "", 0.3, "B"),
    "slerp-searched": ("base_model: @left\nparameters: {t: 0.35}", "", "", 0.3, "B"),
    "ties": (
        "base_model: @base",
        "weight: 0.6, density: 0.5",
        "weight: 0.5, density: 0.3",
        0.25,
        "C",
    ),
    "dare_linear": (
        "base_model: @base",
        "weight: 0.6, density: 0.5",
        "weight: 0.5, density: 0.3",
        0.5,
        "B",
    ),
}

SIBLINGS = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
root, layers, hidden = Path(sys.argv[1]), int(sys.argv[2]), 1536
shapes = {"model.embed_tokens.weight": (32000, hidden), "lm_head.weight": (32000, hidden),
          "model.norm.weight": (hidden,)}
for i in range(layers):
    at = f"model.layers.{i}"
    shapes |= {f"{at}.self_attn.{p}_proj.weight": (hidden, hidden) for p in "qkvo"}
    shapes |= {f"{at}.mlp.{p}_proj.weight": (4 * hidden, hidden) for p in ("gate", "up")}
    shapes |= {f"{at}.mlp.down_proj.weight": (hidden, 4 * hidden)}
    shapes |= {f"{at}.{p}_layernorm.weight": (hidden,) for p in ("input", "post_attention")}
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
          "intermediate_size": 4 * hidden, "num_hidden_layers": layers, "num_attention_heads": 24,
          "num_key_value_heads": 24, "vocab_size": 32000, "tie_word_embeddings": False,
          "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16"}
generator = torch.Generator().manual_seed(5)
base = {k: 0.02 * torch.randn(s, generator=generator) for k, s in shapes.items()}
for name in ("base", "left", "right"):
    moved = {}
    for key, value in base.items():
        if name != "base":
            noise = torch.randn(value.shape, generator=generator)
            mask = torch.rand(value.shape, generator=generator) < 0.5
            value = value + 0.0006 * noise * mask
        moved[key] = value.to(torch.bfloat16)
    (root / name).mkdir()
    save_file(moved, root / name / "model.safetensors", metadata={"format": "pt"})
    (root / name / "config.json").write_text(json.dumps(config))
"""

LIMIT = """
import ctypes, json, os, sys, time
from concurrent.futures import ThreadPoolExecutor
paths, threads, piece = sys.argv[1:4], int(sys.argv[4]), 1 << 20
memcmp = ctypes.CDLL(None).memcmp
memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
sizes = [os.path.getsize(path) for path in paths]
files = [os.open(path, os.O_RDONLY) for path in paths]
def place(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
def whole(part):
    buffers = [bytearray(piece) for _ in files]
    same, same_too = bytearray(piece), bytearray(piece)
    for at in range(part * piece, min(sizes), threads * piece):
        for file, buffer in zip(files, buffers):
            os.preadv(file, [buffer], at)
        memcmp(place(same), place(same_too), piece)
start = time.perf_counter()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(whole, range(threads)))
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

RECOMPUTE = """
import json, sys, time, torch
from pathlib import Path
from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
left, right, release, threads = *sys.argv[1:4], int(sys.argv[4])
document = {"version": "0.1", "parents": [{"id": "a"}, {"id": "b"}], "steps": [
    {"id": "s", "op": "weighted_sum/v1", "inputs": ["a", "b"],
     "params": {"weights": ["0.6", "0.4"], "normalize": True},
     "arithmetic": {"profile": "mk-0.1.5", "compute": "BF16"}}]}
sources = {n: FileSource(open_model(Path(p))) for n, p in (("a", left), ("b", right))}
step = bind(recipe.parse(document, where="bench").steps, sources)["s"]
released = FileSource(open_model(Path(release)))
start = time.perf_counter()
found = compare(Engine(torch.device("cpu"), threads), released, step)
seconds = time.perf_counter() - start
assert {str(r.rung) for r in found} == {"A"}
print(json.dumps({"seconds": seconds}))
"""


def config(work: Path, method: str) -> Path:
    """Write a method's config and return its path."""
    head, left, right, _, _ = METHODS[method]
    lines = [
        f"merge_method: {method.partition('-')[0]}",
        "dtype: bfloat16",
        head,
        "models:",
        f"  - {{model: @left, parameters: {{{left}}}}}",
        f"  - {{model: @right, parameters: {{{right}}}}}",
    ]
    text = "\n".join(line for line in lines if line)
    for name in ("base", "left", "right"):
        text = text.replace(f"@{name}", str(work / name))
    path = work / f"{method}.yml"
    path.write_text(text + "\n")
    return path


def parentage(*words: object) -> None:
    """Run a command of ours and expect success."""
    subprocess.run([PY, "-m", "parentage", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def private_mb(command: list[str], accept: tuple[int, ...]) -> float:
    """Run a command and return the peak of its anonymous memory."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            if "RssAnon:" in status:
                peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    watcher.join()
    if process.returncode not in accept:
        sys.exit(f"{command}: exit {process.returncode}")
    return peak / 1024


def method_rows(work: Path, method: str, rounds: int) -> list[Row]:
    """Let mergekit make a merge and verify it."""
    *_, goal, rung = METHODS[method]
    yaml, out = config(work, method), work / f"out-{method}"
    flags = ["--no-copy-tokenizer", "--no-write-model-card", "-j", str(THREADS)]
    seed = ["--random-seed", "11"] if method == "dare_linear" else []
    peer = Case("mergekit", [str(MERGEKIT), str(yaml), str(out), *flags, *seed])
    peer.run()
    peer.samples.clear()
    release = work / f"release-{method}"
    shutil.copytree(out, release)
    (release / "mergekit_config.yml").unlink(missing_ok=True)
    alone = method.startswith(("linear", "slerp"))
    names = ["left", "right"] if alone else ["left", "right", "base"]
    given = [word for name in names for word in ("--parent", f"{name}={work / name}")]
    more = ["--seed", "11"] if seed else ["--witness"] if method == "slerp" else []
    parentage("declare", release, "--mergekit", yaml, *given, *more)
    parentage("sign", release, "--key", work / "k.key")
    words = [PY, "-m", "parentage", "verify", str(release), "--key", str(work / "k.pub")]
    words += ["--rung", rung, *given]
    ours = Case("verify", words)
    interleave([ours, peer], rounds)
    share, memory = ours.cpu / peer.cpu, private_mb(words, (0,))
    shutil.rmtree(out)
    shutil.rmtree(release)
    return [
        Row(
            f"{method}, verified at rung {rung}: CPU time",
            f"{ours.cpu:.1f} s",
            f"mergekit {peer.cpu:.1f} s",
            share,
            f"<= {goal}",
            share <= goal,
        ),
        Row(
            f"{method}: private memory",
            f"{memory:.0f} MB",
            f"307 MB (mergekit {peer.rss:.0f} MB resident)",
            memory / 307.2,
            "<= 1",
            memory <= 307.2,
        ),
    ]


def limit_row(work: Path, rounds: int) -> Row:
    """Hold recompute-and-compare against reading the same bytes and comparing them."""
    yaml, out = config(work, "linear"), work / "out-limit"
    flags = ["--no-copy-tokenizer", "--no-write-model-card"]
    subprocess.run([MERGEKIT, yaml, out, *flags], check=True, capture_output=True)
    files = [str(work / name / "model.safetensors") for name in ("left", "right")]
    files.append(str(next(out.glob("*.safetensors"))))
    ours = Case("recompute", [PY, "-c", RECOMPUTE, *files, str(THREADS)], inner=True)
    bare = Case("limit", [PY, "-c", LIMIT, *files, str(THREADS)], inner=True)
    interleave([ours, bare], max(rounds, 5))
    shutil.rmtree(out)
    size = 3 * Path(files[0]).stat().st_size / 1e9
    share = bare.seconds / ours.seconds
    return Row(
        "recompute and compare a linear merge, bytes of all three files",
        f"{size / ours.seconds:.1f} GB/s",
        f"reading them and one compare {size / bare.seconds:.1f} GB/s",
        share,
        ">= 0.7",
        share >= 0.7,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[*METHODS, "limit"])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not MERGEKIT.exists():
        sys.exit("mergekit 0.1.5 is not installed: make peers")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        layers = "1" if given.quick else "11"
        subprocess.run([PY, "-c", SIBLINGS, folder, layers], check=True)
        parentage("keygen", "-o", work / "k.key", "--no-passphrase")
        print(HEAD, flush=True)
        for method in given.only:
            rows = (
                [limit_row(work, given.rounds)]
                if method == "limit"
                else method_rows(work, method, given.rounds)
            )
            print(*rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()
