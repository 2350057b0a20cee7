"""The run folder: nothing is half-written, nothing that changed is trusted, and a wrong name is told."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import RunError, UsageError
from pipeline.rundir import (
    Run,
    create_run,
    find_run,
    list_runs,
    publish,
    set_latest,
    sha256_of,
    size_of,
    write_atomic,
    write_json,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "t2t_vit_7", NOW)


def test_a_write_that_fails_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_json_that_is_none_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"top1": float("nan")})
    assert not list(tmp_path.iterdir())


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", "x")
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_runs_of_one_second_get_folders_of_their_own(run: Run) -> None:
    assert run.id == "20260102-030405-t2t_vit_7"
    assert create_run(run.path.parent, "t2t_vit_7", NOW).id == f"{run.id}-2"
    assert create_run(run.path.parent, "hf-hub:a/b", NOW).id == "20260102-030405-hf-hub_a_b"
    assert run.model == "t2t_vit_7"


def test_a_file_is_used_only_as_it_was_recorded(run: Run) -> None:
    write_atomic(run.path / "a.bin", b"trained")
    with pytest.raises(RunError, match=r"has no a\.bin: the step that makes it did not finish"):
        run.file("a.bin")
    run.record("a.bin")
    assert run.file("a.bin").read_bytes() == b"trained"
    assert run.manifest["files"]["a.bin"] == {"sha256": sha256_of(run.path / "a.bin"), "size_bytes": 7}

    (run.path / "a.bin").write_bytes(b"tampered")
    with pytest.raises(RunError, match=r"a\.bin changed after it was written"):
        run.file("a.bin")
    (run.path / "a.bin").unlink()
    with pytest.raises(RunError, match="in the manifest but not on disk"):
        run.file("a.bin")


def test_a_folder_has_a_digest_of_names_and_content(run: Run) -> None:
    package = run.path / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weights.bin").write_bytes(b"12345")
    (package / "Manifest.json").write_text("{}")
    run.record("model.mlpackage")
    assert run.file("model.mlpackage") == package
    assert size_of(package) == 7
    (package / "Manifest.json").rename(package / "manifest.json")
    with pytest.raises(RunError, match="changed"):
        run.file("model.mlpackage")


def test_facts_and_files_are_added_and_dropped(run: Run) -> None:
    for name in ("b", "a"):
        write_atomic(run.path / name, name)
    run.record("b", "a", facts={"status": "finished"})
    assert list(run.manifest["files"]) == ["a", "b"]
    run.record(remove=("a", "never there"))
    assert (list(run.manifest["files"]), run.manifest["status"]) == (["b"], "finished")


def test_publishing_replaces_files_and_folders_whole(tmp_path: Path) -> None:
    for kind in ("old", "new"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / kind).write_text(kind)
    publish(tmp_path / "new", tmp_path / "old")
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["old"]

    (tmp_path / "file").write_text("1")
    (tmp_path / "next").write_text("2")
    publish(tmp_path / "next", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "2"
    assert not (tmp_path / "next").exists()


def test_the_latest_run_and_runs_by_name_are_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.path.parent
    with pytest.raises(UsageError, match="no finished run under"):
        find_run(root, None)
    newer = create_run(root, "mobilenet_v2", NOW)
    set_latest(run)
    assert find_run(root, None) == run
    assert find_run(root, Path(newer.id)) == newer
    assert find_run(root, newer.path) == newer
    assert [r.id for r in list_runs(root)] == [newer.id, run.id]
    with pytest.raises(UsageError, match=f"is not a run folder.*Did you mean '{run.id}'"):
        find_run(root, Path("20260102-030405-t2t_vit_8"))


def test_a_latest_that_was_deleted_is_told(run: Run) -> None:
    import shutil

    set_latest(run)
    shutil.rmtree(run.path)
    with pytest.raises(UsageError, match="is not a run folder"):
        find_run(run.path.parent, None)


def test_a_manifest_of_another_schema_or_none_is_refused(run: Run) -> None:
    write_json(run.path / "manifest.json", {**run.manifest, "schema": 99})
    with pytest.raises(RunError, match="manifest schema 99, this version reads 1"):
        find_run(run.path.parent, run.path)
    (run.path / "manifest.json").write_text("{half")
    with pytest.raises(RunError, match="not valid JSON"):
        find_run(run.path.parent, run.path)
