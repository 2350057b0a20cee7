"""The run folder: nothing is half-written, nothing that changed is trusted, and a wrong name is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import RunError, UsageError
from pipeline.files import publish, sha256_of, size_of, write_atomic, write_json
from pipeline.run.folder import Run, create_run, find_run, list_runs, set_latest

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


REPO = Path(__file__).parents[3]
WRITER = """
import sys
from pathlib import Path
from pipeline.run.folder import write_atomic
path = Path(sys.argv[1])
while True:
    for letter in (b"a", b"b"):
        write_atomic(path, letter * 2_000_000)
        print("written", flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_one_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=REPO, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05)
        writer.kill()
    content = path.read_bytes()
    assert content in (b"a" * 2_000_000, b"b" * 2_000_000)


def test_a_file_that_outgrows_what_is_allowed_leaves_the_old_one(tmp_path: Path) -> None:
    """A real failure of the file system, in a process that may write 1,000 bytes a file."""
    resource = pytest.importorskip("resource", reason="limits of processes are a thing of Unix")
    path = tmp_path / "report.json"
    write_atomic(path, "old")
    script = "import sys; from pathlib import Path; from pipeline.run.folder import write_atomic; "
    done = subprocess.run(
        [sys.executable, "-B", "-c", script + "write_atomic(Path(sys.argv[1]), b'x' * 5000)", path],
        cwd=REPO,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
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


def test_a_publication_that_cannot_happen_leaves_the_old_folder(tmp_path: Path) -> None:
    old = tmp_path / "checkpoint"
    old.mkdir()
    (old / "qdq.pt2").write_text("trained")
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "never made", old)
    assert (old / "qdq.pt2").read_text() == "trained"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_what_an_interrupted_publication_left_aside_does_not_stop_the_next(tmp_path: Path) -> None:
    for name in (".package.old", "package", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    publish(tmp_path / "next", tmp_path / "package")
    assert [p.name for p in tmp_path.iterdir()] == ["package"]
    assert (tmp_path / "package" / "content").read_text() == "next"


def test_a_digest_is_that_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a.bin") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    folder = tmp_path / "deep"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.bin").write_bytes(b"abc")
    line = f"inner/a.bin\0{sha256_of(tmp_path / 'a.bin')}\n"
    assert sha256_of(folder) == hashlib.sha256(line.encode()).hexdigest()


def test_json_of_a_run_is_read_only_as_it_was_recorded(run: Run) -> None:
    write_json(run.path / "report.json", {"top1": 0.5})
    run.record("report.json")
    assert run.has("report.json")
    assert run.read_json("report.json") == {"top1": 0.5}
    write_json(run.path / "report.json", {"top1": 0.9})
    with pytest.raises(RunError, match=r"report\.json changed after it was written"):
        run.read_json("report.json")


def test_a_file_recorded_again_is_trusted_again(run: Run) -> None:
    for content in (b"one", b"other"):
        write_atomic(run.path / "a.bin", content)
        run.record("a.bin")
        assert run.file("a.bin").read_bytes() == content


def test_a_file_that_is_not_there_cannot_be_recorded(run: Run) -> None:
    before = run.manifest
    with pytest.raises(FileNotFoundError):
        run.record("never_written.bin")
    assert run.manifest == before


def test_only_folders_with_a_manifest_are_runs(run: Run) -> None:
    root = run.path.parent
    (root / "notes").mkdir()
    (root / "latest").write_text("x")
    newer = create_run(root, "t2t_vit_7", NOW.replace(hour=9))
    assert [r.id for r in list_runs(root)] == [run.id, newer.id]
    assert list_runs(root / "nowhere") == []
    assert list_runs(root / "notes") == []


def test_the_latest_run_is_the_one_set_last(run: Run) -> None:
    root = run.path.parent
    newer = create_run(root, "t2t_vit_12", NOW)
    for one in (run, newer, run):
        set_latest(one)
        assert find_run(root, None) == one


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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "holds no JSON object"),
        ('"text"', "holds no JSON object"),
        ("{}", "manifest schema None"),
        ('{"schema": 1, "model": "t2t_vit_7"}', "lacks files"),
        ('{"schema": 1}', "lacks model, files"),
    ],
)
def test_json_that_is_no_manifest_is_refused(content: str, says: str, run: Run) -> None:
    (run.path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=says):
        find_run(run.path.parent, run.path)


def test_a_file_and_an_empty_folder_are_no_runs(run: Run) -> None:
    (run.path / "inner").mkdir()
    for path in (run.path / "manifest.json", run.path / "inner"):
        with pytest.raises(UsageError, match=r"is not a run folder \(no manifest\.json in it\)"):
            find_run(run.path.parent, path)
