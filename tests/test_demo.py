"""The demo from its command: the table, the same again after a kill, and what it publishes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def demo(directory, *arguments):
    return [sys.executable, "-m", "hfsafemerge", "demo", "--directory", str(directory), *arguments]


def test_the_demo_survives_ctrl_c_and_kill_and_ends_with_the_table(lab, directory):
    for stop, signal_number in ((1, signal.SIGINT), (3, signal.SIGKILL)):
        process = subprocess.Popen(demo(directory), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(2400):
            runs = list((directory / "runs").glob("*/search.jsonl")) if (directory / "runs").exists() else []
            if len(runs) >= stop or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None
        os.killpg(process.pid, signal_number)
        _, said = process.communicate()
        assert "Traceback" not in said
        assert process.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    done = subprocess.run(demo(directory, "--format", "json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["reproduced"] is True and result["pushed"].endswith("/alice/lab-pair-merge")
    assert {"lab", "upload", "check", "generate", "search", "merge", "evaluate", "push", "reproduce"} == set(result["seconds"])
    for row in result["rows"]:
        for rate in (row["alignment"], row["over_refusal"], *row["domains"].values()):
            assert 0 <= rate["ci95"][0] <= rate["value"] <= rate["ci95"][1] <= 1 and rate["n"] == 300
    assert result == json.loads((directory / "results.json").read_text())


@pytest.fixture(scope="module")
def rows(directory, lab):
    if not (directory / "results.json").exists():
        subprocess.run(demo(directory), check=True, capture_output=True)
    return json.loads((directory / "results.json").read_text())["rows"]


def pick(rows, pool, method, search, data):
    (row,) = [r for r in rows if (r["pool"], r["method"], r["search"], r["data"]) == (pool, method, search, data)]
    return row


@pytest.mark.parametrize("pool", ["pair", "three"])
def test_the_table_is_shaped_like_the_paper_s(rows, pool):
    found = [(r["method"], r["search"], r["data"]) for r in rows if r["pool"] == pool]
    both = "D_expert + D_safety"
    assert found[-6:] == [
        ("linear", "fixed", "none"),
        ("ties", "grid", "D_expert"),
        ("ties", "cma_es", "D_expert"),
        ("ties", "cma_es", both),
        ("linear", "lm_cocktail", "D_expert"),
        ("linear", "lm_cocktail", both),
    ]
    assert [r["experts"] for r in rows if r["pool"] == pool][: len(found) - 6] == [
        ["base"],
        ["sums"],
        *([["reverse"]] if pool == "three" else []),
    ]


@pytest.mark.parametrize("pool", ["pair", "three"])
def test_domain_data_alone_loses_alignment_and_safety_data_keep_it(rows, pool):
    blind, safe = pick(rows, pool, "ties", "cma_es", "D_expert"), pick(rows, pool, "ties", "cma_es", "D_expert + D_safety")
    assert blind["alignment"]["ci95"][1] < 0.3 < 0.9 < safe["alignment"]["ci95"][0]
    assert pick(rows, pool, "linear", "fixed", "none")["alignment"]["value"] < 0.3


def test_what_is_published_is_complete(rows, directory):
    run = directory / "runs" / "pair-ties-cma-es-safe"
    card = (run / "card.md").read_text()
    assert "lab-pair-merge" in card and "base_model_relation: merge" in card and "hfsafemerge reproduce alice/lab-pair-merge" in card
    assert (directory / "alignment.png").stat().st_size > 20_000 and (directory / "table.md").read_text().count("|---") > 10
    hub = directory / "hub"
    assert hub.is_dir() and any(hub.rglob("*lab-pair-merge*"))
