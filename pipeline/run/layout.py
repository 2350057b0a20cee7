"""Where everything lies in a run folder: each file name once, relative to the folder.

    manifest.json        schema, run id, model, and {relative path: {sha256, size_bytes}} of every published file
    recipe.json          the options that repeat the run
    checkpoint/          what `quantize` made: config, subject, float weights, programs, logits, quantization facts
    checkpoint/int8/     the checkpoint before layers were left in float
    train/               metrics.jsonl, tensorboard/; while training is unfinished <phase>/resume.pt and qat/best.pt
    search/              trials of the search behind --max-drop
    artifacts/           <target>-<precision>[-ptq]<suffix> and a record beside each
    logits/              <target>-<runtime>-<precision>-<source>-<device>.npz, of artifacts that were validated
    validation.json ...  one file of records for each command that measures
    report.json ...      what `report` wrote
    app/                 what `export-app` wrote

`latest`, beside the run folders, names the one that commands take when no --run is given.
"""

from __future__ import annotations

import re

from pipeline.records.keys import ArtifactKey, CellKey
from targets import registry

LATEST = "latest"
MANIFEST = "manifest.json"
RECIPE = "recipe.json"

CHECKPOINT = "checkpoint"
CONFIG = f"{CHECKPOINT}/config.json"
SUBJECT = f"{CHECKPOINT}/subject.json"
FLOAT_WEIGHTS = f"{CHECKPOINT}/float.safetensors"
FLOAT_PROGRAM = f"{CHECKPOINT}/float.pt2"
QDQ_PROGRAM = f"{CHECKPOINT}/qdq.pt2"
LOGITS = f"{CHECKPOINT}/logits.npz"
QUANTIZATION = f"{CHECKPOINT}/quantization.json"
#: Programs of calibration alone, by the bits of their activations.
PTQ_PROGRAMS = {8: f"{CHECKPOINT}/ptq.pt2", 16: f"{CHECKPOINT}/ptq-w8a16.pt2"}
#: The checkpoint before any layer was left in float: the same file names in a folder of its own.
INT8 = {name: name.replace(CHECKPOINT, f"{CHECKPOINT}/int8") for name in (QDQ_PROGRAM, LOGITS, QUANTIZATION)}

TRAIN = "train"
METRICS_FILE = "metrics.jsonl"
METRICS = f"{TRAIN}/{METRICS_FILE}"
TENSORBOARD = "tensorboard"  # in the folder of a training
RESUME_FILE = "resume.pt"  # in the folder of a phase
BEST_FILE = "best.pt"  # beside it: the best epoch of several

TRIALS = "search/trials.jsonl"
CANDIDATE = "search/candidate"

ARTIFACTS = "artifacts"
ARTIFACT_LOGITS = "logits"

VALIDATION = "validation.json"
LATENCY = "latency.json"
INSTRUCTIONS = "instructions.json"
COMPUTE_PLAN = "compute-plan.json"
MIXED = "mixed.json"
WATERFALL = "waterfall.json"
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
REPORT_HTML = "report.html"
APP = "app"


def resume_file(phase: str) -> str:
    """Where the training of a phase ("float", "qat") stands, while it is unfinished."""
    return f"{TRAIN}/{phase}/{RESUME_FILE}"


def artifact_name(artifact: ArtifactKey) -> str:
    """Path of an artifact relative to its run folder, for example `artifacts/tflite-int8.tflite`."""
    scheme = artifact.scheme.replace(" ", "-")
    return f"{ARTIFACTS}/{artifact.target}-{scheme}{registry.get(artifact.target).suffix}"


def record_name(artifact: str) -> str:
    """Path of the ConversionRecord beside an artifact."""
    return f"{artifact}.json"


def is_record(name: str) -> bool:
    """Whether that is the path of a ConversionRecord."""
    return name.startswith(f"{ARTIFACTS}/") and name.endswith(".json")


def logits_name(key: CellKey) -> str:
    """Path of a cell's logits relative to its run folder, for example `logits/tflite-litert-int8-qat-host.npz`."""
    parts = (key.target, key.runtime, key.precision, key.source, key.device)
    words = [re.sub(r"[^a-z0-9.]+", "_", part.lower()).strip("_") for part in parts]
    return f"{ARTIFACT_LOGITS}/{'-'.join(words)}.npz"
