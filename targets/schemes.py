"""What a target says about each precision: whether `convert` makes such files, and how or why not.

Each target's folder has its table in `schemes.py`; targets.registry joins them. Every reason names where it comes from:
a source file of the SDK as pinned in pyproject.toml, or a run of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.types import PRECISIONS, Precision

#: Input channels that share a scale where nothing else is asked for: the default of coremltools and of torchao.
GROUP_SIZE = 32
#: Schemes by the name that papers and other tools use, where that is not the precision's own.
ALIASES: dict[str, Precision] = {"w8a8": "int8", "w8a8-dynamic": "int8-dynamic"}


@dataclass(frozen=True)
class Support:
    """Whether and how.

    Attributes:
        made: whether `convert` makes such files.
        words: of a made file what it holds and where it is slow; otherwise the reason and its source.
        group_sizes: input channels that may share a scale of an int4 weight; empty where there is no choice.
    """

    made: bool
    words: str
    group_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("a scheme needs words: how it is made, or why it is not")
        if self.group_sizes and not self.made:
            raise ValueError(f"group sizes {self.group_sizes} of a scheme that is not made")


def made(words: str, *group_sizes: int) -> Support:
    return Support(True, words, group_sizes)


def not_made(reason: str) -> Support:
    return Support(False, reason)


@dataclass(frozen=True)
class Schemes:
    """The table of one target. `convert --list-schemes` prints it, docs/convert.md repeats it.

    Attributes:
        by_precision: every precision there is.
    """

    target: str
    by_precision: Mapping[Precision, Support]

    def __post_init__(self) -> None:
        if tuple(self.by_precision) != PRECISIONS:
            raise ValueError(
                f"{self.target}: schemes of {', '.join(self.by_precision)}, not of {', '.join(PRECISIONS)}"
            )

    def __getitem__(self, precision: Precision) -> Support:
        return self.by_precision[precision]

    @property
    def made(self) -> tuple[Precision, ...]:
        """The precisions that files are made in."""
        return tuple(precision for precision, support in self.by_precision.items() if support.made)

    def why_not(self, precision: Precision) -> str:
        """One sentence; empty where such files are made."""
        support = self[precision]
        return "" if support.made else f"{self.target} is not converted in {precision}: {support.words}"

    def group_size(self, precision: Precision, asked: int | None) -> int:
        """Input channels that share a scale.

        Raises:
            ValueError: `asked` is none that the target has, or there are no groups.
        """
        sizes = self[precision].group_sizes
        if asked is not None and asked not in sizes:
            known = f"one of {', '.join(map(str, sizes))}" if sizes else "no groups"
            raise ValueError(f"group size {asked}: {self.target} has {known} in {precision}")
        return asked or GROUP_SIZE
