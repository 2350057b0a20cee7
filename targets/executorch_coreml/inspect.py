"""Read the facts of a `.pte` file with Core ML delegates: kernels, delegates, and the MIL program in each.

What a delegate holds is an `.mlpackage`, read by targets.coreml.inspect. Delegated operators are those of MIL; which
unit of a device runs them is decided there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from targets.coreml.compute_precision import float32_region
from targets.coreml.inspect import inspect as inspect_package
from targets.coreml.inspect import load_operations
from targets.executorch.container import DAMAGE, boundary, read_container, reason, tally_kernels
from targets.executorch_coreml.payload import write_package
from targets.executorch_coreml.runner import BACKEND
from targets.types import GraphFacts, TargetError, Unavailable


def inspect(path: Path) -> GraphFacts:
    """Facts of the file at `path`.

    Raises:
        Unavailable: no ExecuTorch or no coremltools here.
        TargetError: stage "inspect", the file is missing, damaged, or not a `.pte` for Core ML.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TargetError("inspect", f"{path.name} cannot be read: {error.strerror}") from error
    try:
        return _facts(data)
    except ImportError as error:
        raise Unavailable("inspect", f"executorch does not import ({error}): pip install executorch") from error
    except Unavailable:  # no coremltools
        raise
    except TargetError as error:  # of the package inside
        raise TargetError("inspect", f"{path.name}: the model in its delegate: {error.cause}") from error
    except (*DAMAGE, OSError) as error:
        raise TargetError(
            "inspect", f"{path.name} is damaged or no ExecuTorch program for Core ML ({reason(error)}): convert again"
        ) from error


def _facts(data: bytes) -> GraphFacts:
    container = read_container(data)
    tally = tally_kernels(container.plan)
    inside = [_package_facts(container.payload(delegate, BACKEND)) for delegate in container.plan["delegates"]]
    delegated = _total(facts.operators for facts in inside)
    names = tally.float_weight_names + tuple(name for facts in inside for name in facts.float_weight_names)
    return GraphFacts(
        size_bytes=len(data),
        inputs=boundary(container.plan, "input"),
        outputs=boundary(container.plan, "output"),
        operators=dict(delegated + tally.fallback),
        delegated=delegated.total(),
        fallback=dict(tally.fallback),
        partitions=len(inside),
        int8_weights=tally.int8_weights + sum(facts.int8_weights for facts in inside),
        float_weights=len(names),
        float_weight_names=names,
        quant_params=tally.quant_params + tuple(params for facts in inside for params in facts.quant_params),
        operators_by_dtype=dict(_total(facts.operators_by_dtype for facts in inside)),
        weights_by_dtype=dict(_total(facts.weights_by_dtype for facts in inside)),
        cautions=tuple(dict.fromkeys(caution for facts in inside for caution in facts.cautions)),
    )


def _package_facts(payload: bytes) -> GraphFacts:
    """Of the package that one delegate holds.

    The backend has no precision by operator, so nothing keeps the official form's Performer in float32.
    """
    with tempfile.TemporaryDirectory(prefix="delegate-") as folder:
        package = write_package(payload, Path(folder))
        facts = inspect_package(package)
        _, operations = load_operations(package)
    region = [op for op in operations if op.op_type != "const" and float32_region(op)]
    half = [op.name for op in region if op.outputs[0].dtype.__name__ == "fp16"]
    if not half:
        return facts
    caution = (
        f"{len(half)} operators around the exponentials of Performer attention ({half[0]}, ...) compute in half "
        "precision, where the official form of a T2T-ViT divides zero by zero: convert the deploy form, or fp32."
    )
    return replace(facts, cautions=(*facts.cautions, caution))


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter[str]())
