"""A URL in, its bytes out: http and https by Python itself, other protocols by fsspec and its plugins."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import BinaryIO, cast

from calibration.errors import DataError

TIMEOUT_S = 60
OWN = ("http", "https", "file")


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
