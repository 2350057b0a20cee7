"""A runs folder with one finished run, and commands on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from command_line import Ended, main_py

from pipeline.run.folder import Run

SIDE = 96  # pixels: small images, everything else real
SCORED = 60


@dataclass(frozen=True)
class Finished:
    """`quantize` of t2t_vit_7 has ended there."""

    root: Path
    run: Run
    ended: Ended

    def command(self, *arguments: object) -> Ended:
        return main_py(*arguments, "--runs-dir", self.root)
