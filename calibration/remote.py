"""Reads files and WebDataset shards behind URLs, and names the cache folder for what is downloaded.

Python itself reads http and https, fsspec and its plugins read other protocols.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from calibration.dataset import DataError, Encoded
from calibration.shards import IncompleteShard, read_shard

CACHE_VARIABLE = "EDGE_T2T_CACHE"
TIMEOUT_S = 60
TRIES, PAUSE_S = 4, 1.0
OWN = ("http", "https", "file")


def cache_folder() -> Path:
    """EDGE_T2T_CACHE, else ~/.cache/edge-t2t; not created."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "edge-t2t"


def data_folder() -> Path:
    """Where downloaded data sets and kept images of streams lie."""
    return cache_folder() / "datasets"


def open_url(url: str) -> BinaryIO:
    """A file that can be read forwards.

    Raises:
        DataError: no such file, or a protocol that nothing here speaks.
        OSError: the network fails; worth another try.
    """
    protocol = url.split("://", 1)[0].lower()
    if protocol in OWN:
        try:
            return cast(BinaryIO, urllib.request.urlopen(url, timeout=TIMEOUT_S))
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:  # asking again would not help
                raise DataError(f"{url} cannot be had: HTTP {error.code} {error.reason}") from None
            raise
    try:
        import fsspec

        return cast(BinaryIO, fsspec.open(url, "rb").open())
    except FileNotFoundError:
        raise DataError(f"{url} does not exist") from None
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened ({error}): install what fsspec needs for {protocol}://") from None


def read(url: str, missing_ok: bool = False) -> bytes | None:
    """All bytes of a small file; None where it is missing and may be.

    Raises:
        DataError: it cannot be had.
    """
    try:
        with open_url(url) as file:
            return file.read()
    except DataError:
        if missing_ok:
            return None
        raise
    except OSError as error:
        if missing_ok and isinstance(getattr(error, "reason", None), FileNotFoundError):  # file://
            return None
        raise DataError(f"{url} cannot be read: {error}") from None


@dataclass(frozen=True)
class UrlShards:
    """The WebDataset shards of one split, read forwards; a connection that breaks is taken up again.

    Attributes:
        lengths: how many samples each has.
        label_field: of each sample's `.json`, instead of `.cls`; samples with a negative label are left out.
    """

    urls: tuple[str, ...]
    lengths: tuple[int, ...]
    label_field: str = ""

    @property
    def count(self) -> int:
        return len(self.urls)

    def identity(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def samples(self, shard: int) -> Iterator[Encoded]:
        """All samples of a shard; after a failure it is opened again and what was given is passed over.

        Raises:
            DataError: it fails again and again, or has not the number of samples that it should have.
        """
        url, length = self.urls[shard], self.lengths[shard]
        given, attempt = 0, 1
        while True:
            try:
                with open_url(url) as file:
                    read = read_shard(file, url.rsplit("/", 1)[-1], self.label_field, contents=True)
                    for found in itertools.islice(read, given, None):
                        given += 1
                        if found.label >= 0 or not self.label_field:
                            yield Encoded(found.content, found.label, found.id)
                if given == length:
                    return
                problem = f"it ended after {given} samples, and {length} are declared"
            except (OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            except IncompleteShard as error:  # a connection that breaks leaves a tar file that ends too early
                problem = str(error)
            if given > length or attempt == TRIES:
                raise DataError(f"shard {url} cannot be read after {attempt} tries: {problem}")
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
            attempt += 1
