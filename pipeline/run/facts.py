"""What a run says about its subject and its quantization, typed; and the run of MobileNetV2 on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.files import write_atomic, write_json
from pipeline.models.build import ModelConfig
from pipeline.models.weights import LoadedWeights
from pipeline.records.keys import ArtifactKey, Source
from pipeline.records.report import DataRecord
from pipeline.run import layout
from pipeline.run.folder import Run, list_runs
from targets.codec import from_dict


@dataclass(frozen=True)
class SubjectFacts:
    """The float model of a run, and the images it is fine-tuned and judged on.

    Attributes:
        parameters: trained numbers of the model.
        classes: names in the order of the logits.
        transform_digest: of how images are cut, scaled and normalised.
        origins: which option, file or model said so, by field of the config.
    """

    model_config: ModelConfig
    parameters: int
    classes: tuple[str, ...]
    data: DataRecord
    weights: LoadedWeights
    transform_digest: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MovedNorm:
    """How far QAT moved the running statistics of one BatchNorm.

    Attributes:
        name: of the layer in the model.
        mean_shift: in standard deviations before QAT; mean of the absolute values over the channels.
        variance_log_ratio: mean over the channels of |ln(variance after / variance before)|.
    """

    name: str
    mean_shift: float
    variance_log_ratio: float


@dataclass(frozen=True)
class QuantizationFacts:
    """How a run came to its QDQ program; free-form mappings of plain JSON values.

    Attributes:
        scheme: pipeline.quantization.quantizer.Scheme.
        calibration: which images, and what was corrected after it.
        training: the plans of float fine-tuning and of QAT, the figures of every epoch, which graph was kept, and how
            far BatchNorm moved.
    """

    scheme: Mapping[str, object]
    calibration: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """Where the scales of the QDQ program come from: "ptq" where no epoch of QAT was trained, or none was kept."""
        plan, kept = self.training.get("qat"), self.training.get("kept")
        untrained = isinstance(plan, Mapping) and plan.get("epochs") == 0
        return "ptq" if untrained or (isinstance(kept, Mapping) and not kept.get("trained")) else "qat"

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that were left in float."""
        names = self.scheme.get("float_layers", ())
        assert isinstance(names, list | tuple)
        return tuple(map(str, names))

    @property
    def moved_norms(self) -> tuple[MovedNorm, ...]:
        """Of the QDQ program, the BatchNorms that QAT moved, the one that moved most first."""
        moved = self.training.get("moved_norms", ()) if self.source == "qat" else ()
        assert isinstance(moved, list | tuple)
        return tuple(MovedNorm(**norm) for norm in moved)

    def made(self, artifact: ArtifactKey) -> bool:
        """Whether a file is made from the QDQ program of this run, and so may be compared with it.

        Versions that labelled files of a run without training as trained ones made them from that program too.
        """
        return artifact.precision == "int8" and artifact.source in ("qat", self.source)


def read_config(run: Run) -> RunConfig:
    """The options of a run."""
    return RunConfig.from_dict(run.read_json(layout.CONFIG))


def read_subject(run: Run) -> SubjectFacts:
    """
    Raises:
        RunError, RecordError: the run has none yet, or the file changed or is of another version.
    """
    return from_dict(SubjectFacts, run.read_json(layout.SUBJECT), layout.SUBJECT)


def read_quantization(run: Run, name: str = layout.QUANTIZATION) -> QuantizationFacts:
    """
    Args:
        name: of the file in the run folder.

    Raises:
        RunError, RecordError: the run is not trained yet, or the file changed or is of another version.
    """
    return from_dict(QuantizationFacts, run.read_json(name), name)


def write_facts(run: Run, name: str, facts: SubjectFacts | QuantizationFacts) -> None:
    """Atomically; not listed in the manifest yet."""
    write_json(run.path / name, asdict(facts))


def write_metrics(run: Run, records: list[dict[str, Any]]) -> None:
    """The whole history as JSON lines: rewritten at every epoch, so that a resumed run has no line twice."""
    write_atomic(run.path / layout.METRICS, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The history written so far; empty before the first epoch ended."""
    path = run.path / layout.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


CONTROL_MODEL = "mobilenet_v2"
#: Fact in the manifest of a control that was made here for its latency only: its accuracy means nothing.
LATENCY_ONLY = "latency_only"


def existing_control(root: Path, run: Run) -> Run | None:
    """The newest finished MobileNetV2 run on the same images and input size, trained ones before latency-only ones."""
    wanted = _conditions(run)
    fitting = [
        r for r in list_runs(root) if r.model == CONTROL_MODEL and r.status == "finished" and _conditions(r) == wanted
    ]
    fitting.sort(key=lambda r: (not r.manifest.get(LATENCY_ONLY, False), r.id))
    return fitting[-1] if fitting else None


def _conditions(run: Run) -> tuple[str, tuple[int, ...]] | None:
    """Digest of the validation images and the size at which the model sees them; None if the run has none yet."""
    if not run.has(layout.SUBJECT):
        return None
    subject = read_subject(run)
    return subject.data.val_digest, subject.model_config.input_size
