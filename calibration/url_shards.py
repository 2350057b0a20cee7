"""URLs of WebDataset shards in, their samples out: read forwards, taken up again where a connection breaks."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from calibration import remote
from calibration.dataset import Encoded
from calibration.errors import DataError
from calibration.shards import IncompleteShard, encoded_of

TRIES, PAUSE_S = 4, 1.0


@dataclass(frozen=True)
class UrlShards:
    """The shards of one split.

    Attributes:
        lengths: how many samples each has.
        label_field: of each sample's `.json`, instead of `.cls`; samples with a negative label are left out.
    """

    urls: tuple[str, ...]
    lengths: tuple[int, ...]
    label_field: str = ""

    def __post_init__(self) -> None:
        if not self.urls or len(self.urls) != len(self.lengths):
            raise ValueError(f"{len(self.urls)} shards and {len(self.lengths)} lengths")

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
                with remote.open_url(url) as file:
                    read = encoded_of(file, url.rsplit("/", 1)[-1], self.label_field)
                    for sample in itertools.islice(read, given, None):
                        given += 1
                        if sample.label >= 0 or not self.label_field:
                            yield sample
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
