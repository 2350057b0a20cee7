"""Download the published checkpoint of a model once, resumed and checked by its sha256."""

from __future__ import annotations

import dataclasses
import fcntl
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from calibration.remote import CACHE_VARIABLE, cache_folder
from pipeline.errors import WeightsError
from pipeline.files import sha256_of, write_json
from pipeline.models.build import T2T_CFG, T2T_OWNER, ModelConfig, create_timm
from pipeline.models.checkpoint import Checkpoint, read_checkpoint
from pipeline.models.zoo import HUB_PREFIX, ZOO, published_config, timm_name

ATTEMPTS = 3
TIMEOUT_S = 30.0  # without a byte from the server
_CHUNK_BYTES = 1 << 18
_USER_AGENT = "edge-t2t"  # urllib's own name is refused by some hosts


class _Broken(Exception):
    """A transfer that stopped and may go on at the next attempt."""


def fetch(url: str, folder: Path | None = None, file_name: str | None = None, pause_s: float = 1.0) -> Path:
    """The cached file of `url`, downloaded first if it is not there; an unfinished `.part` is continued.

    Args:
        folder: where the file goes; None means cache_folder().
        file_name: None takes the last part of the URL's path.
        pause_s: before the second attempt; doubled before the third.

    Raises:
        WeightsError: no network, an HTTP error, a transfer that keeps breaking off (the part is kept), a folder that
            cannot be written, or content whose sha256 differs from the recorded one.
    """
    folder = folder or cache_folder()
    target = folder / (file_name or Path(urllib.parse.urlsplit(url).path).name)
    try:
        if target.is_file():
            _verify(url, target, target)
            return target
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with part.open("ab") as file:
            _lock(file, part)
            if target.is_file():  # another process finished it between the first look and the lock
                _verify(url, target, target)
                return target
            _transfer(url, file, part, pause_s)
            file.flush()
            os.fsync(file.fileno())
            _verify(url, part, target)
            os.replace(part, target)
        _validator_file(part).unlink(missing_ok=True)
        return target
    except OSError as error:
        raise WeightsError(
            f"{target} cannot be written or read ({error}): free the disk or set {CACHE_VARIABLE} to another folder"
        ) from None


def _verify(url: str, content: Path, target: Path) -> None:
    """Compare `content` with the record beside `target`; without a record this is the first download: write it."""
    record = target.with_name(target.name + ".sha256")
    seen, size_bytes = sha256_of(content), content.stat().st_size
    try:
        expected = str(json.loads(record.read_text())["sha256"])
    except FileNotFoundError:
        write_json(record, {"url": url, "sha256": seen, "size_bytes": size_bytes})
        expected = seen
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"{record} is not a sha256 record: delete it and {target.name}, then run again") from None
    if seen != expected:
        if content != target:
            content.unlink()
        raise WeightsError(
            f"{target.name} from {url} has sha256 {seen}, but {record} recorded {expected} at the first download. "
            + (f"The cached file was changed or damaged: delete {target} to download it again."
               if content == target
               else f"The file behind the URL was replaced: if you trust the new one, delete {record} and run again.")
        )  # fmt: skip


def _lock(file: IO[bytes], part: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WeightsError(f"another process is downloading {part}: wait for it, then run again") from None


def _transfer(url: str, file: IO[bytes], part: Path, pause_s: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(url, file, part)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (408, 429) and error.code < 500:
                raise WeightsError(
                    f"{url} answered {error.code} {error.reason}: download the file another way and give its path "
                    "to --weights"
                ) from None
            failure = f"the server answered {error.code} {error.reason}"
        except _Broken as error:
            failure = str(error)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            failure = f"no connection ({getattr(error, 'reason', None) or error or type(error).__name__})"
        if attempt < ATTEMPTS:
            time.sleep(pause_s * 2 ** (attempt - 1))
    kept = file.seek(0, os.SEEK_END)
    raise WeightsError(
        f"cannot download {url}: {failure}, after {ATTEMPTS} attempts. "
        + (f"{kept} bytes are kept and continued next time. " if kept else "")
        + "Check the network or proxy, or download the file elsewhere and give its path to --weights "
        "(--weights none begins with random weights)."
    )


def _continue(url: str, file: IO[bytes], part: Path) -> None:
    """Transfer what `file` still lacks; start over where the server cannot continue or its file changed."""
    start = file.seek(0, os.SEEK_END)
    validator_file = _validator_file(part)
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator_file.is_file():
            headers["If-Range"] = validator_file.read_text()  # a changed file comes whole, with status 200
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return  # the part was already whole
        file.truncate(0)
        raise _Broken(f"the {start} bytes kept from before do not fit the file of the server") from None
    with response:
        continued = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not (response.status == 206 and continued):
            if response.status == 206:
                file.truncate(0)
                raise _Broken(f"the server continued at another place than byte {start}")
            start = 0
            file.truncate(0)
        _keep_validator(validator_file, response.headers)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        received = start
        with _bar(part.name.removesuffix(".part"), start, total) as show:
            for chunk in iter(lambda: response.read(_CHUNK_BYTES), b""):
                file.write(chunk)
                received += len(chunk)
                show(received)
    if total is not None and received != total:
        raise _Broken(f"the connection broke off at {received} of {total} bytes")


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _keep_validator(path: Path, headers: http.client.HTTPMessage) -> None:
    """Remember what names this version of the file; If-Range takes strong ETags and dates only (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "")
    validator = headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag
    if validator:
        path.write_text(validator)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _bar(name: str, start_bytes: int, total_bytes: int | None) -> Iterator[Callable[[int], object]]:
    """Hands out what is to be called with the bytes that are there so far: a bar on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():
        print(f"downloading {name}: {total_bytes or 'unknown number of'} bytes, from {start_bytes}", file=sys.stderr)
        yield lambda received_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total_bytes, completed=start_bytes)
        yield lambda received_bytes: progress.update(task, completed=received_bytes)


IMAGENET_CLASSES = 1000  # ImageNet-1k
#: huggingface_hub reads the same variable for mirrors of the hub.
HUB_VARIABLE = "HF_ENDPOINT"
HUB = "https://huggingface.co"
HUB_FILE = "model.safetensors"
HUB_CONFIG = "config.json"


def pretrained_checkpoint(config: ModelConfig) -> Checkpoint:
    """The authors' release of a T2T-ViT, or the hub file that timm names for its model.

    Raises:
        WeightsError: nothing is published for this model, or the download or its content is wrong.
    """
    entry = ZOO.get(config.name)
    if entry is not None and entry.pretrained_url is not None:
        return read_checkpoint(fetch(entry.pretrained_url))
    return _timm_checkpoint(config)


def pretrained_classes(name: str) -> int | None:
    """Outputs of the published head; known without downloading it. None where nothing is published."""
    entry = ZOO.get(name)
    if entry is not None and entry.pretrained_url is not None:
        return IMAGENET_CLASSES
    published = published_config(name)
    return published.num_classes if published is not None and published.has_weights else None


def pretrained_said(name: str) -> dict[str, Mapping[str, object]]:
    """Download the published weights if they are not there, and collect what is said of their preprocessing.

    Returns:
        by source in words; of a timm model nothing, since its own configuration is that of the weights.

    Raises:
        WeightsError: as pretrained_checkpoint.
    """
    entry = ZOO.get(name)
    if entry is not None and entry.pretrained_url is not None:
        return {T2T_OWNER: T2T_CFG, **read_checkpoint(fetch(entry.pretrained_url)).said}
    _timm_file(name)
    return {}


class HubConfig(NamedTuple):
    """What the config.json of a timm model's repository says.

    Attributes:
        architecture: as timm calls it.
        said: the pretrained_cfg, by source in words.
        classes: names in label order, where it has them.
    """

    architecture: str
    said: Mapping[str, Mapping[str, object]]
    classes: tuple[str, ...] | None


def hub_file(source: str, file: str = HUB_FILE) -> Path:
    """A file of what `hf-hub:USER/NAME` or `hf-hub:USER/NAME@REVISION` names; downloaded if it is not there.

    Raises:
        WeightsError: no such repository, or no network.
    """
    repository, _, revision = (place := source.removeprefix(HUB_PREFIX)).partition("@")
    return fetch(_hub_url(repository, revision, file), file_name=place.replace("/", "--") + Path(file).suffix)


def hub_config(source: str) -> HubConfig:
    """
    Raises:
        WeightsError: as hub_file, or the repository is not one of timm.
    """
    config_file = hub_file(source, HUB_CONFIG)
    try:
        config = json.loads(config_file.read_text())
        architecture = config["architecture"]
        names = config.get("label_names")
        said = {f"pretrained_cfg of {source}": dict(config.get("pretrained_cfg", config))}  # older ones are flat
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{config_file} of {source} does not name an architecture: it is no model of timm") from None
    if isinstance(names, dict):  # by label, where labels have gaps
        names = [names[label] for label in sorted(names, key=int)] if all(map(str.isdigit, names)) else None
    return HubConfig(str(architecture), said, tuple(map(str, names)) if names else None)


def _timm_file(name: str) -> tuple[str, Path]:
    """URL of the published weights, and where they lie."""
    published = published_config(name)
    location = _location(published) if published is not None else None
    if location is None:
        raise WeightsError(f"timm publishes no weights for {timm_name(name)}: give a file, or --weights none")
    url, file_name = location
    return url, fetch(url, file_name=file_name)


def _timm_checkpoint(config: ModelConfig) -> Checkpoint:
    full_name = timm_name(config.name)
    url, path = _timm_file(config.name)
    checkpoint = read_checkpoint(path)
    # timm translates older or foreign key names and resizes what depends on the image while it loads: let it.
    overlay = {"state_dict": dict(checkpoint.tensors)}
    try:
        donor = create_timm(full_name, None, config.input_size[1], pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0][:200]
        raise WeightsError(f"{checkpoint.path} from {url} does not fit {full_name}: {first_line}") from None
    return dataclasses.replace(checkpoint, tensors=donor.state_dict())


def _hub_url(repository: str, revision: str, file: str) -> str:
    return f"{os.environ.get(HUB_VARIABLE, HUB).rstrip('/')}/{repository}/resolve/{revision or 'main'}/{file}"


def _location(published: Any) -> tuple[str, str] | None:
    """URL and name in our cache of the file that a timm PretrainedCfg points to; None if it points to none."""
    if published.hf_hub_id:
        repository, _, revision = published.hf_hub_id.partition("@")
        hub_file = published.hf_hub_filename or HUB_FILE
        return (
            _hub_url(repository, revision, hub_file),
            f"{repository.replace('/', '--')}{Path(hub_file).suffix}",
        )
    if isinstance(published.url, str) and published.url:
        return published.url, Path(published.url).name
    return None
