"""`quantize` from end to end: a RunConfig in, a run folder with one int8 checkpoint out.

float weights -> (float fine-tuning) -> deploy form -> float program -> calibration -> QAT -> QDQ program, scored at
each stage. An interrupted run continues where it stood: every finished phase is in the manifest, an unfinished one
has its resume point.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule

from calibration.dataset import DIGITS
from pipeline.config import RunConfig
from pipeline.errors import TrainingError, UsageError
from pipeline.provenance import collect
from pipeline.qat import checkpoint as files
from pipeline.qat.graph import export, prepare, to_qdq_program
from pipeline.qat.plan import TrainPlan
from pipeline.qat.quantizer import Scheme
from pipeline.qat.setting import EVAL_BATCH, Say, Setting, evenly
from pipeline.qat.subject import Subject, choose_amp, choose_device, load_data, load_subject, seed_everything
from pipeline.qat.train import RESUME_FILE, EpochRecord, Trainee, fit
from pipeline.qat.trainees import FloatTrainee, QatTrainee, calibrate
from pipeline.rewrites.deploy import in_form
from pipeline.rundir import Run, create_run, set_latest, write_json

#: Images on which the rewritten model is compared with the float model, and the largest difference of their logits.
SAME_IMAGES, SAME_TOLERANCE = 4, 1e-4


def start(config: RunConfig, root: Path) -> tuple[Run, Subject]:
    """Check data, model and weights, and only then make the run folder.

    Raises:
        EdgeT2TError: nothing was written.
    """
    _check(config)
    subject = _subject(config)
    run = create_run(root, config.model)
    write_json(run.path / files.CONFIG, config.to_dict())
    run.record(files.CONFIG, facts={"status": "unfinished"})
    return run, subject


def reopen(run: Run) -> tuple[RunConfig, Subject]:
    """Config and subject of an unfinished run.

    Raises:
        UsageError: it is finished.
        RunError: its config changed.
    """
    if run.manifest.get("status") == "finished":
        raise UsageError(f"run {run.id} is finished: there is nothing to resume")
    config = RunConfig.from_dict(run.read_json(files.CONFIG))
    return config, _subject(config)


def quantize(run: Run, config: RunConfig, subject: Subject, say: Say, latest: bool = True) -> None:
    """Do all phases that the run has not finished, then mark it finished and, unless told not to, `latest`."""
    threads = seed_everything(config.seed, config.threads)
    device = choose_device(config.device)
    setting = Setting(
        subject=subject,
        device=device,
        amp=choose_amp(config.amp, device),
        val_indices=evenly(len(subject.data.val), config.limit_val),
        workers=config.workers,
        checkpoint_steps=config.checkpoint_steps,
        say=say,
    )
    work = _Work(run, config, setting, threads)
    work.float_phase()
    work.qat_phase()
    run.record(facts={"status": "finished", "provenance": {**collect(), "threads": str(threads)}})
    if latest:
        set_latest(run)


def _check(config: RunConfig) -> None:
    """Refuse what can be refused without reading the images, which may take long."""
    from pipeline.models.weights import peek

    _plans(config, head_replaced=False)
    choose_amp(config.amp, choose_device(config.device))
    peek(config.weights, config.model, config.qk_scale)


def _subject(config: RunConfig) -> Subject:
    data = load_data(config.data, config.skip_bad)
    return load_subject(config.model, data, config.weights, config.seed, config.img_size, config.qk_scale)


def _plans(config: RunConfig, head_replaced: bool) -> tuple[TrainPlan, TrainPlan]:
    """The plans of float fine-tuning and of QAT.

    Raises:
        UsageError: a number that no training can have.
    """
    qat = TrainPlan(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        clip_norm=config.clip_norm,
        seed=config.seed,
        hflip=config.data != DIGITS,
        scale_min=0.8 if config.data == DIGITS else 0.6,  # digits fill their image
        max_steps=config.max_steps,
        observer_freeze=config.observer_freeze,
        batch_norm_freeze=config.batch_norm_freeze,
    )
    default_epochs = config.epochs if head_replaced else 0
    float_epochs = default_epochs if config.float_epochs is None else config.float_epochs
    return replace(qat, epochs=float_epochs, lr=config.float_lr), qat


class _Work:
    """The phases of one run, sharing the setting and the metrics file."""

    def __init__(self, run: Run, config: RunConfig, setting: Setting, threads: int):
        self.run, self.config, self.setting, self.threads = run, config, setting, threads
        self.subject = setting.subject
        self.float_plan, self.qat_plan = _plans(config, self.subject.weights.head_replaced)
        self.records: list[dict[str, Any]] = []
        self.scored: dict[str, np.ndarray] = {}  # logits after the last epoch of each phase that ended here

    def float_phase(self) -> None:
        """Float weights and program of this run's classes."""
        from pipeline.models.weights import load_weights, save_weights

        run, subject = self.run, self.subject
        if run.has(files.FLOAT_WEIGHTS):
            load_weights(subject.model, subject.model_config, run.file(files.FLOAT_WEIGHTS))
            self.records += [r for r in files.read_metrics(run) if r["phase"] == "float"]
        else:
            self._train("float", FloatTrainee(subject.model.to(self.setting.device), self.float_plan), self.float_plan)
            subject.model.cpu().eval()
            weights_file = run.path / files.FLOAT_WEIGHTS
            save_weights(subject.model, subject.model_config, weights_file, classes=subject.data.classes)
            files.save_program(export(self._in_form(), subject.input_size), run.path / files.FLOAT_PROGRAM)
            write_json(run.path / files.SUBJECT, dict(subject.facts()))
            run.record(files.FLOAT_WEIGHTS, files.FLOAT_PROGRAM, files.SUBJECT)
        self._resume_file("float").unlink(missing_ok=True)

    def qat_phase(self) -> None:
        """Calibrate, train with fake quantization, write the QDQ program, score every stage."""
        from targets.program import load_program

        run, subject, config, setting = self.run, self.subject, self.config, self.setting
        scheme = Scheme(observer=config.observer)
        logits = {"float": self._logits_after("float", subject.model.to(setting.device))}
        bad = int((~np.isfinite(logits["float"]).all(axis=1)).sum())
        if bad:
            raise TrainingError(
                f"the float model gives NaN or infinity for {bad} of {len(logits['float'])} validation images: "
                "there is nothing to quantize; check the weights, and --qk-scale for T2T-ViT"
            )
        graph = prepare(self._in_form(), subject.input_size, scheme).to(setting.device)
        calibration = run_calibration(
            graph, subject, config.calibration_images, config.seed, setting.device, config.workers
        )
        trainee = QatTrainee(graph, self.qat_plan)
        self._train("qat", trainee, self.qat_plan)
        trainee.begin_evaluation()
        logits["fake_quant"] = self._logits_after("qat", graph)
        files.save_program(to_qdq_program(graph, subject.input_size), run.path / files.QDQ_PROGRAM)
        # What is scored is what was written: the program is read back from the disk.
        reloaded = load_program(run.path / files.QDQ_PROGRAM).module()
        logits["qdq"] = setting.score("QDQ program", reloaded, torch.device("cpu"))
        self._publish(logits, scheme, calibration)

    def _in_form(self) -> torch.nn.Module:
        """The float model as it is quantized and converted.

        Raises:
            TrainingError: it does not compute what the float model computes.
        """
        subject = self.subject
        form = in_form(subject.model, self.config.form)
        if form is not subject.model:
            check_same(subject, form)
        return form

    def _train(self, name: str, trainee: Trainee, plan: TrainPlan) -> None:
        def on_history(history: list[EpochRecord]) -> None:
            files.write_metrics(self.run, [*self.records, *map(asdict, history)])

        def on_logits(logits: np.ndarray) -> None:
            self.scored[name] = logits

        phase = self.setting.phase(name, trainee.module, plan, self._resume_file(name).parent, on_history, on_logits)
        self.records += [asdict(record) for record in fit(trainee, plan, phase)]

    def _logits_after(self, phase: str, module: torch.nn.Module) -> np.ndarray:
        """Of the trained `module`; without an epoch in this process (none, or all before a resume) it is scored."""
        what = {"float": "float", "qat": "fake quantization"}[phase]
        return self.scored[phase] if phase in self.scored else self.setting.score(what, module)

    def _resume_file(self, name: str) -> Path:
        return self.run.path / "train" / name / RESUME_FILE

    def _publish(self, logits: dict[str, np.ndarray], scheme: Scheme, calibration: dict[str, Any]) -> None:
        run, data, setting = self.run, self.subject.data, self.setting
        digest = f"{data.val.digest()}-{self.subject.transform.digest()}"
        stages = files.StageLogits(setting.labels, np.asarray(setting.val_indices), digest, logits)
        files.save_logits(stages, run.path / files.LOGITS)
        files.write_metrics(run, self.records)
        facts = {
            "scheme": asdict(scheme),
            "calibration": calibration,
            "training": {
                "float": asdict(self.float_plan),
                "qat": asdict(self.qat_plan),
                "device": str(setting.device),
                "amp": "bf16" if setting.amp else "off",
                "threads": self.threads,
                "history": self.records,
            },
        }
        write_json(run.path / files.QUANTIZATION, facts)
        run.record(files.QDQ_PROGRAM, files.LOGITS, files.METRICS, files.QUANTIZATION)
        self._resume_file("qat").unlink(missing_ok=True)


def check_same(subject: Subject, form: torch.nn.Module) -> None:
    """
    Raises:
        TrainingError: the rewritten model differs from the float model on images of the training split.
    """
    from calibration.loader import eval_batches

    first = range(min(SAME_IMAGES, len(subject.data.train)))
    images, _, _ = next(eval_batches(subject.data.train, subject.transform, SAME_IMAGES, first))
    with torch.no_grad():
        images = images.to(next(form.parameters()).device)
        expected, seen = subject.model(images).double(), form(images).double()
    error = float((seen - expected).norm() / expected.norm())
    if error > SAME_TOLERANCE:  # a NaN in the float model is told where its logits are scored
        raise TrainingError(
            f"the deploy form differs from the float model by {error:.1e} of its logits (rounding gives 1e-6): please "
            "report these weights; --form official quantizes them as they are"
        )


def run_calibration(
    graph: GraphModule, subject: Subject, images: int, seed: int, device: torch.device, workers: int
) -> dict[str, Any]:
    """Calibrate a prepared graph on the seeded, class-balanced subset of the training split.

    Returns:
        size, seed and digest of the subset, for the manifest.
    """
    from calibration.loader import eval_batches
    from calibration.sampler import calibration_subset, subset_digest

    train = subject.data.train
    indices = calibration_subset(train.labels, min(images, len(train)), seed)
    batches = (batch for batch, _, _ in eval_batches(train, subject.transform, EVAL_BATCH, indices, workers))
    calibrate(graph, batches, len(indices), device)
    return {"images": len(indices), "seed": seed, "digest": subset_digest(train, indices, subject.transform)}
