"""The baseline file: one bit an image without loss, a text that diffs well, and strict reading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gate_run
import numpy as np
import pytest
from gate_facts import CELL, KEY, N, cell, not_run, run_facts, scored

from pipeline.errors import RunError, UsageError
from pipeline.files import write_atomic
from pipeline.gate.baseline import ZLIB, pack, unpack
from pipeline.gate.collect import baseline_text, facts_of, read_baseline
from targets.codec import RecordError


@pytest.mark.parametrize("n", [1, 7, 8, 9, 360, 2000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_bits_come_back(n: int, share: float) -> None:
    flags = np.random.default_rng(n).random(n) < share
    assert (unpack(pack(flags), n) == flags).all()


def test_bits_are_few() -> None:
    random = np.random.default_rng(0).random(2000) < 0.5
    assert len(pack(random)) == 336  # 250 bytes in base64
    assert len(pack(np.ones(2000, bool))) < 30
    assert pack(np.ones(2000, bool)).startswith(ZLIB)
    assert not pack(random).startswith(ZLIB)


@pytest.mark.parametrize(
    ("text", "n"),
    [("/w==", 16), ("/w==", 7), ("not base64!", 8), ("zlib:/w==", 8), (pack(np.ones(10_000_000, bool)), 8)],
)
def test_bits_of_another_number_of_images_are_refused(text: str, n: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        unpack(text, n)


def test_a_baseline_comes_back(tmp_path: Path) -> None:
    facts = run_facts(cell(scored=scored(lost=3, events={"nan": 0, "overflowed": 2})), not_tried())
    path = tmp_path / "sub" / "baseline.json"
    write_atomic(path, baseline_text(facts))
    assert read_baseline(path) == facts
    assert path.stat().st_size < 6000


def test_a_ratio_to_another_model_is_not_that_to_mobilenet(tmp_path: Path) -> None:
    run = gate_run.made_up_run_folder(tmp_path)
    gate_run.benchmark(run, 3.0, control="t2t_vit_12")
    assert all(cell.timing is not None and cell.timing.to_control is None for cell in facts_of(run).cells)


def not_tried():  # type: ignore[no-untyped-def]
    return replace(not_run("unavailable", "no Core ML runtime on linux"), key=replace(KEY, target="coreml"))


def test_a_changed_count_changes_its_own_lines() -> None:
    before = baseline_text(run_facts(CELL)).splitlines()
    after = baseline_text(run_facts(cell(file={"size_bytes": 1, "undelegated": 3}))).splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ('"size_bytes": 4500000,', '"size_bytes": 1,'),
        ('"undelegated": 2', '"undelegated": 3'),
    ]


def test_keys_are_sorted_and_the_text_is_json() -> None:
    text = baseline_text(run_facts(CELL))
    data = json.loads(text)
    assert list(data) == sorted(data)
    assert list(data["cells"][0]["file"]) == sorted(data["cells"][0]["file"])
    assert data["cells"][0]["scored"]["n"] == N


def test_times_of_a_file_that_was_converted_again_are_not_compared(tmp_path: Path) -> None:
    run = gate_run.made_up_run_folder(tmp_path)
    gate_run.benchmark(run, 3.0)
    assert {cell.key.target for cell in facts_of(run).cells if cell.timing} == {"executorch", "tflite"}
    gate_run.convert(run, "tflite", sha256="12" * 32)
    assert {cell.key.target for cell in facts_of(run).cells if cell.timing} == {"executorch"}


def damaged(change: Any) -> str:
    data = json.loads(baseline_text(run_facts(CELL)))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{half", "not valid JSON"),
        ("[]", "schema version None"),
        (damaged(lambda d: d.update(schema_version=2)), "schema version 2"),
        (damaged(lambda d: d["cells"][0]["scored"].pop("right")), "cells[0].scored lacks right"),
        (damaged(lambda d: d["cells"][0]["scored"].update(rigth="")), "Did you mean 'right'?"),
        (
            damaged(lambda d: d["cells"][0]["scored"].update(top1="many")),
            "cells[0].scored.top1 is 'many', expected int",
        ),
        (
            damaged(lambda d: d["cells"][0]["scored"].update(top1=7)),
            "right holds 1800 images, the count beside it says 7",
        ),
        (damaged(lambda d: d["cells"][0]["scored"].update(agrees="AAAA")), "bits of 2000 images"),
        (damaged(lambda d: d["cells"][0]["outcome"].update(status="failed")), "cells[0].outcome"),
        (damaged(lambda d: d["cells"].append(d["cells"][0])), "more than one cell"),
        (damaged(lambda d: d.update(model="t2t_vit_10")), "cells of t2t_vit_7 among those of t2t_vit_10"),
        (damaged(lambda d: d["cells"][0]["timing"].update(to_control=[-1.0])), "must be positive"),
    ],
)
def test_a_damaged_baseline_is_refused_with_the_key(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises((RunError, RecordError)) as raised:
        read_baseline(path)
    assert says in str(raised.value)
    assert "baseline.json" in str(raised.value)


def test_no_baseline_is_a_usage_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--update"):
        read_baseline(tmp_path / "baseline.json")
    with pytest.raises(UsageError, match="is a folder"):
        read_baseline(tmp_path)


@pytest.mark.parametrize(("epochs", "source"), [(5, "qat"), (0, "ptq")])
def test_files_of_the_runs_program_are_held_against_it(tmp_path: Path, epochs: int, source: str) -> None:
    cells = facts_of(gate_run.made_up_run_folder(tmp_path, epochs=epochs)).cells
    assert {cell.key.source for cell in cells} == {source}
    assert {cell.scored.reference for cell in cells if cell.scored} == {"qdq"}
