"""The name of a data set in, its DataSource out."""

from __future__ import annotations

from pathlib import Path

from calibration import digits, hf_stream, hub, image_folder, webdataset
from calibration.dataset import DIGITS, DataSource
from calibration.errors import DataError


def open_data(spec: str) -> DataSource:
    """The data set of a name.

    Args:
        spec: `digits`; a folder with `train/` and `val/` (or `validation/`), of class folders or WebDataset shards; or
            a timm name such as `hfds/user/name`, `wds/https://...`, `hfids/user/name`: the last two are streams.

    Raises:
        DataError: none of these, or a layout that cannot be used; names what was found.
    """
    if spec == DIGITS:
        return digits.load()
    path = Path(spec)
    if path.is_dir():
        return webdataset.load_folder(path) if webdataset.holds_shards(path) else image_folder.load(path)
    if spec.lower().startswith(webdataset.PREFIX):
        return webdataset.load(spec)
    if spec.lower().startswith(hf_stream.PREFIX):
        return hf_stream.load(spec)
    if hub.is_hub_name(spec) and not path.exists():
        return hub.load(spec)
    what = "is a file" if path.is_file() else "does not exist"
    raise DataError(
        f"--data {spec} {what}: give {DIGITS}, a folder with train/ and val/ that hold one folder per class, "
        f"or a timm data set name ({', '.join((*hub.PREFIXES, webdataset.PREFIX, hf_stream.PREFIX))})"
    )
