"""What a check and a pull ask of the Hub against the least that would do, and how they bear every fault at every request.

python benchmarks/pull_results.py --json docs/results/pull.json > docs/results/pull.md
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# What of the Hub's side may go wrong with one request: how often, and how. "stays" is for a fault that no patience helps against.
FAULTS = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429, Retry-After": {"status": 429, "headers": {"Retry-After": "1"}},
    "401": {"status": 401},
    "404": {"status": 404},
    "timeout": {"delay": 2.5},
    "cut before the answer": {"cut": True},
    "cut in the answer": {"cut": True, "part": 100},
    "503 that stays": {"status": 503, "times": 10_000},
}

DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")  # the name of a blob, of SHA-1 or SHA-256
PROMPTS = [f"q{i}" for i in range(10)]


def publish(server, folder: Path) -> tuple[str, str]:
    """A model in two shards and a dataset, as alice's."""
    import torch
    from huggingface_hub import HfApi
    from transformers import AutoModelForCausalLM, LlamaConfig

    from hfsafemerge.examples import Example, save_examples
    from hfsafemerge.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    model.save_pretrained(folder / "model", max_shard_size="200KB")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    save_examples(folder / "data" / "test.parquet", [Example("safety", prompt, "a") for prompt in PROMPTS])
    (folder / "data" / "README.md").write_text(
        "---\nconfigs:\n- config_name: harmful\n  data_files:\n  - {split: test, path: test.parquet}\n---\n"
    )
    api = HfApi(endpoint=server.url, token="hf_alice")
    for repo_type, name in (("model", "model"), ("dataset", "data")):
        api.create_repo(f"alice/{name}", repo_type=repo_type)
        api.upload_folder(repo_id=f"alice/{name}", folder_path=folder / name, repo_type=repo_type)
    return "alice/model", "alice/data"


class Fresh:
    """A cache in which there is nothing yet, for the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Path:
        import datasets
        from huggingface_hub import _tree_cache, constants

        from hfsafemerge.hub import dataset_rows, lookup

        self.cache = Path(tempfile.mkdtemp(dir=self.folder))
        constants.HF_HUB_CACHE = str(self.cache / "hub")
        datasets.config.HF_DATASETS_CACHE = str(self.cache / "datasets")
        _tree_cache._IN_MEMORY_TREE_CACHE.clear()
        lookup._granted.cache_clear()
        dataset_rows._hub_rows.cache_clear()
        return self.cache

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.cache)


def check_and_pull(model: str, data: str, *, pull: bool = True) -> list[str]:
    """What a run of a recipe with a model and a dataset does first; the prompts of the dataset."""
    from hfsafemerge import hub
    from hfsafemerge.recipe import DatasetRef, ModelRef

    found = hub.find_model(ModelRef(repo_id=model))
    rows = DatasetRef(repo_id=data, config="harmful", split="test")
    told = hub.look_up(rows, "dataset")
    hub.listing(data, "dataset", told.commit)
    if not pull:
        return []
    hub.pull(found.ref, found.commit, found.access)
    hub.pull_dataset(rows, told.commit, told.access)
    return [row["prompt"] for row in hub.rows(rows, told.commit, told.access)]


def damaged(cache: Path) -> list[str]:
    """Files in the cache that are not what their name says: a digest of their content."""
    wrong = []
    for blob in (path for path in cache.glob("hub/*/blobs/*") if DIGEST.fullmatch(path.name)):  # not what a thread is still at
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if blob.name not in (hashlib.sha256(content).hexdigest(), git):
            wrong.append(blob.name)
    return wrong


def short(request) -> str:
    """A request without what is random in it."""
    parts = ["COMMIT" if len(part) == 40 else part for part in request.path.split("/")]
    return f"{request.method} {'/'.join(parts)}"


def minimum(server, model: str, data: str, log) -> dict:
    """The least that would do: one request that says all of a repository at a commit with its files, one for each file, none twice.

    Of a shard the check reads its header, which can't be had with its data: the check comes before the decision to download.
    """
    gets = {(r.path) for r in log if r.method == "GET" and "/resolve/" in r.path}
    shards = {path for path in gets if path.endswith(".safetensors")}
    return {"requests": 2 + len(gets) + len(shards), "files": len(gets), "headers": len(shards)}


def matrix(server, model: str, data: str, folder: Path, count: int) -> list[dict]:
    """Every fault at every request of a check and a pull in an empty cache, and what came of it."""
    from hfsafemerge.errors import HfSafeMergeError
    from hfsafemerge.localhub.faults import Fault

    found = []
    for kind, settings in FAULTS.items():
        for at in range(count):
            with Fresh(folder) as cache:
                server.app.faults = [Fault(".", after=at, **settings)]
                outcome, said = "finished by itself", ""
                try:
                    if check_and_pull(model, data) != PROMPTS:
                        outcome = "other rows"
                except HfSafeMergeError as error:
                    outcome, said = "stopped with one line", str(error)
                except Exception as error:  # what the user would see a traceback of
                    outcome, said = "traceback", f"{type(error).__name__}: {error}"
                server.app.faults = []
                wrong, second = damaged(cache), "not needed"
                if outcome != "finished by itself":
                    try:
                        second = "finished" if check_and_pull(model, data) == PROMPTS else "other rows"
                    except Exception as error:  # counted as it is
                        second = f"{type(error).__name__}: {error}"
                wrong += damaged(cache)
                one_line = "\n" not in said
                found.append({"fault": kind, "request": at, "outcome": outcome, "one_line": one_line, "again": second,
                              "differing_files": len(wrong)})  # fmt: skip
        print(kind, Counter(row["outcome"] for row in found if row["fault"] == kind), file=sys.stderr, flush=True)
    return found


def traffic(server, step) -> list:
    """The requests that a step makes."""
    before = len(server.app.log)
    step()
    time.sleep(0.05)
    return list(server.app.log[before:])


def hashing() -> float:
    """Bytes a second that one core verifies."""
    data = bytes(1 << 26)
    began = time.perf_counter()
    hashlib.sha256(data).digest()
    return len(data) / (time.perf_counter() - began)


def report(found: dict) -> str:
    """The results as a page."""
    lines = ["# Pull", "", "Made by `benchmarks/pull_results.py` against the local Hub, over plain LFS: a model in "
             f"{found['minimum']['headers']} shards and a dataset of one file.", "", "## Requests and bytes", "",
             "| | requests | of these HEAD | bytes of answers |", "|---|---|---|---|"]  # fmt: skip
    for name, row in found["traffic"].items():
        lines.append(f"| {name} | {row['requests']} | {row['head']} | {row['bytes']} |")
    least = found["minimum"]
    lines += [
        f"| the least for both | {least['requests']} | 0 | {least['bytes']} |",
        "",
        f"The least is counted as one request for each of the 2 repositories, that tells its commit and its files, one for each of "
        f"{least['files']} files, and one for the header of each of {least['headers']} shards, which the check reads before anything "
        "large is fetched; its bytes are those of the files. Beyond it come a HEAD for each file, which the client needs over plain LFS "
        "and not over Xet, a listing for each repository, and what `datasets` asks to find the files of a configuration.",
        "",
        f"Verifying takes one pass of SHA-256 over each file, once: {found['hashed_bytes_per_second'] / 1e9:.1f} GB/s on one core here.",
        "",
        "## A fault at each request in turn",
        "",
        f"{found['requests']} requests, {len(FAULTS)} kinds of faults, {len(found['matrix'])} cases, each in an empty cache.",
        "",
        "| fault | cases | finished by itself | stopped with one line | of these, the same again finished | anything else "
        "| files that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in FAULTS:
        rows = [row for row in found["matrix"] if row["fault"] == kind]
        stopped = [row for row in rows if row["outcome"] == "stopped with one line" and row["one_line"]]
        alone = sum(row["outcome"] == "finished by itself" for row in rows)
        again = sum(row["again"] == "finished" for row in stopped)
        other, differ = len(rows) - alone - len(stopped), sum(row["differing_files"] for row in rows)
        lines.append(f"| {kind} | {len(rows)} | {alone} | {len(stopped)} | {again} | {other} | {differ} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the page to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="Where to write all that was measured.")
    arguments = parser.parse_args()
    from hfsafemerge.localhub.faults import serve_with_faults

    with tempfile.TemporaryDirectory() as temporary, serve_with_faults(Path(temporary) / "hub") as server:
        folder = Path(temporary)
        os.environ |= server.environment | {
            "HF_HOME": str(folder / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()
        model, data = publish(server, folder)
        steps = {}
        with Fresh(folder):
            steps["check"] = traffic(server, lambda: check_and_pull(model, data, pull=False))
            steps["pull, after the check"] = traffic(server, lambda: check_and_pull(model, data))[2:]  # without looking up again
            steps["the same again"] = traffic(server, lambda: check_and_pull(model, data))
        with Fresh(folder):
            log = traffic(server, lambda: check_and_pull(model, data))
        steps["check and pull"] = log
        real_sleep = time.sleep
        time.sleep = lambda seconds: real_sleep(min(seconds, 0.01))  # nobody waits for a local Hub
        least = minimum(server, model, data, log)
        sizes = {r.path: r.sent for r in log if r.method == "GET" and "/resolve/" in r.path and r.status == 200}
        found = {
            "requests": len(log),
            "log": [short(request) for request in log],
            "traffic": {
                name: {"requests": len(rows), "head": sum(r.method == "HEAD" for r in rows), "bytes": sum(r.sent for r in rows)}
                for name, rows in steps.items()
            },
            "minimum": least | {"bytes": sum(sizes.values())},
            "hashed_bytes_per_second": round(hashing()),
            "matrix": matrix(server, model, data, folder, len(log)),
        }
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        print(report(found))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
