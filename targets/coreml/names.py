"""Names that the parts of this target share: of the tensors in a package, and of the runtimes."""

from __future__ import annotations

#: Of the image that goes in and the scores that come out.
INPUT, OUTPUT = "images", "logits"
#: Rounding models of the reference interpreter, as names of simulated runtimes.
REFERENCE_PREFIX = "mil-"
SIMULATED = ("mil-fp32", "mil-fp16", "mil-fp16-accumulate")
