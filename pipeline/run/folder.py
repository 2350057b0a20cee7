"""The run folder: the manifest with a sha256 for every file, how far the run is, and `latest`.

Readers trust only the manifest: a file is used after its sha256 was compared. What lies where: pipeline.run.layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import RunError, UsageError
from pipeline.files import read_json, sha256_of, size_of, write_atomic, write_json
from pipeline.run import layout
from pipeline.run.layout import LATEST, MANIFEST
from targets.words import suggest

MANIFEST_SCHEMA = 1

#: "searching": trained, and the float layers that were asked for are not found yet.
Status = Literal["unfinished", "searching", "finished"]
#: Fact in the manifest of a run whose options ask for float layers after training, and how far that search is.
SEARCH = "mixed_precision"
PENDING, DONE, OVER_BUDGET = "pending", "done", "over budget"


@dataclass(frozen=True)
class Run:
    """An existing run folder."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / MANIFEST)

    @property
    def model(self) -> str:
        return str(self.manifest["model"])

    @property
    def created_utc(self) -> str:
        return str(self.manifest["created_utc"])

    @property
    def provenance(self) -> dict[str, str]:
        """Tools and machine that quantized (pipeline.run.provenance.collect); empty before that ended."""
        return dict(self.manifest.get("provenance", {}))

    @property
    def status(self) -> Status:
        """How far the run is."""
        if self.search_pending:
            return "searching" if self.has(layout.QUANTIZATION) and self.provenance else "unfinished"
        return "finished" if self.manifest.get("status") == "finished" else "unfinished"

    @property
    def search_pending(self) -> bool:
        """Whether float layers were asked for and are not found yet."""
        return bool(self.manifest.get(SEARCH) == PENDING)

    def check_finished(self) -> None:
        """
        Raises:
            RunError: the run did not finish; says how to continue it.
        """
        if self.status != "finished":
            raise RunError(
                f"run {self.id} did not finish: `python main.py quantize --resume --run {self.id}` continues it"
            )

    def has(self, relative: str) -> bool:
        """Whether the manifest lists `relative`."""
        return relative in self.manifest["files"]

    def file(self, relative: str) -> Path:
        """The path of a published file, after its sha256 was compared with the manifest.

        Raises:
            RunError: the manifest does not list it, it is gone, or its content changed.
        """
        entry = self.manifest["files"].get(relative)
        if entry is None:
            raise RunError(f"run {self.id} has no {relative}: the step that makes it did not finish in this run")
        path = self.path / relative
        if not path.exists():
            raise RunError(f"run {self.id}: {relative} is in the manifest but not on disk: make it again")
        seen = sha256_of(path)
        if seen != entry["sha256"]:
            raise RunError(
                f"run {self.id}: {relative} changed after it was written (sha256 {seen[:12]}, "
                f"manifest {entry['sha256'][:12]}): make it again, do not trust this file"
            )
        return path

    def read_json(self, relative: str) -> Any:
        """The content of a published JSON file, checked as `file` does."""
        return read_json(self.file(relative))

    def record(self, *relatives: str, remove: tuple[str, ...] = (), facts: Mapping[str, Any] | None = None) -> None:
        """List files (already in place) in the manifest with their sha256, drop others, and set top-level facts."""
        manifest = self.manifest
        for relative in remove:
            manifest["files"].pop(relative, None)
        for relative in relatives:
            path = self.path / relative
            manifest["files"][relative] = {"sha256": sha256_of(path), "size_bytes": size_of(path)}
        manifest.update(facts or {})
        manifest["files"] = dict(sorted(manifest["files"].items()))
        write_json(self.path / MANIFEST, manifest)

    def mark(self, status: Literal["unfinished", "finished"], *relatives: str, **facts: Any) -> None:
        """`record` with the status."""
        self.record(*relatives, facts={"status": status, **facts})


def create_run(root: Path, model: str, now: datetime | None = None) -> Run:
    """A new, empty run folder `<utc time>-<model>` under `root` with its first manifest."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    slug = model.replace("/", "_").replace(":", "_")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = root / f"{stamp}-{slug}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        created = (now or datetime.now(UTC)).isoformat(timespec="seconds")
        manifest = {"schema": MANIFEST_SCHEMA, "run": path.name, "model": model, "created_utc": created, "files": {}}
        write_json(path / MANIFEST, manifest)
        return Run(path)
    raise RunError(f"100 runs of {model} were started within one second under {root}")


def set_latest(run: Run) -> None:
    """Make `run` the one that commands take when no --run is given."""
    write_atomic(run.path.parent / LATEST, run.id + "\n")


def find_run(root: Path, run: Path | None) -> Run:
    """The run named by the user, or the latest finished one.

    Raises:
        UsageError: there is none; says how to make one.
        RunError: its manifest cannot be read or has another schema.
    """
    path = run if run is not None else _latest(root)
    if not (path / MANIFEST).is_file() and not path.is_absolute() and (root / path / MANIFEST).is_file():
        path = root / path
    if not (path / MANIFEST).is_file():
        names = [r.id for r in list_runs(root)]
        raise UsageError(f"{path} is not a run folder (no {MANIFEST} in it).{suggest(path.name, names)}")
    found = Run(path)
    manifest: Any = found.manifest
    if not isinstance(manifest, dict):
        raise RunError(f"run {found.id}: {MANIFEST} holds no JSON object: the file was damaged or edited by hand")
    schema = manifest.get("schema")
    if schema != MANIFEST_SCHEMA:
        raise RunError(f"run {found.id} has manifest schema {schema!r}, this version reads {MANIFEST_SCHEMA}")
    if missing := [key for key in ("model", "files") if key not in manifest]:
        raise RunError(f"run {found.id}: {MANIFEST} lacks {', '.join(missing)}: it was damaged or edited by hand")
    return found


def _latest(root: Path) -> Path:
    pointer = root / LATEST
    if not pointer.is_file():
        raise UsageError(
            f"no finished run under {root}/: run `python main.py quantize t2t_vit_10` first, or give --run"
        )
    return root / pointer.read_text().strip()


def list_runs(root: Path) -> list[Run]:
    """All runs under `root`, oldest first."""
    if not root.is_dir():
        return []
    return [Run(path) for path in sorted(root.iterdir()) if (path / MANIFEST).is_file()]
