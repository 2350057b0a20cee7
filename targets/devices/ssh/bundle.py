"""The `targets` package of this project in, one zip file out that Python imports it from; same source, same bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from targets.worker.host import SOURCE_ROOT

_PACKAGE = "targets"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that zip can say


def write_bundle(path: Path) -> Path:
    """Write the zip to `path`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for source in sorted((SOURCE_ROOT / _PACKAGE).rglob("*.py")):
            entry = zipfile.ZipInfo(source.relative_to(SOURCE_ROOT).as_posix(), _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(entry, source.read_bytes())
    return path
