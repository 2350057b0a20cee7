"""The name of a data set in, its DataSource out."""

from __future__ import annotations

from pathlib import Path

from calibration import digits, hub, image_folder
from calibration.dataset import DIGITS, DataSource
from calibration.errors import DataError


def open_data(spec: str) -> DataSource:
    """`digits`, a folder with `train/` and `val/` (or `validation/`), or a timm data set name such as `hfds/user/name`.

    Raises:
        DataError: none of these, or a layout that cannot be used; names what was found.
    """
    if spec == DIGITS:
        return digits.load()
    path = Path(spec)
    if path.is_dir():
        return image_folder.load(path)
    if hub.is_hub_name(spec) and not path.exists():
        return hub.load(spec)
    what = "is a file" if path.is_file() else "does not exist"
    raise DataError(
        f"--data {spec} {what}: give {DIGITS}, a folder with train/ and val/ that hold one folder per class, "
        f"or a timm data set name ({', '.join(hub.PREFIXES)})"
    )
