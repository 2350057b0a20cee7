"""`quantize` from end to end: a RunConfig in, a run folder with one int8 checkpoint out.

float weights -> (float fine-tuning) -> float program -> calibration -> QAT -> QDQ program, scored at each stage.
An interrupted run continues where it stood: every finished phase is in the manifest, an unfinished one has its
resume point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.provenance import collect
from pipeline.qat import checkpoint as files
from pipeline.qat.evaluate import collect_logits
from pipeline.qat.graph import export, prepare, to_qdq_program
from pipeline.qat.plan import TrainPlan
from pipeline.qat.quantizer import Scheme
from pipeline.qat.subject import Subject, choose_amp, choose_device, load_data, load_subject, seed_everything
from pipeline.qat.train import EpochRecord, Phase, fit
from pipeline.qat.trainees import FloatTrainee, QatTrainee, calibrate
from pipeline.rundir import Run, create_run, set_latest, write_json

Say = Callable[[str], None]
EVAL_BATCH = 32


def start(config: RunConfig, root: Path) -> tuple[Run, Subject]:
    """Check data, model and weights, and only then make the run folder.

    Raises:
        EdgeT2TError: nothing was written.
    """
    subject = _subject(config)
    _plans(config, subject)  # refuses bad numbers
    choose_amp(config.amp, choose_device(config.device))
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
    work = _Work(run, config, subject, say, threads)
    work.float_phase()
    work.qat_phase()
    run.record(facts={"status": "finished", "provenance": {**collect(), "threads": str(threads)}})
    if latest:
        set_latest(run)


def _subject(config: RunConfig) -> Subject:
    data = load_data(config.data, config.skip_bad)
    return load_subject(config.model, data, config.weights, config.seed, config.img_size, config.qk_scale)


def _plans(config: RunConfig, subject: Subject) -> tuple[TrainPlan, TrainPlan]:
    """The plans of float fine-tuning and of QAT."""
    qat = TrainPlan(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        clip_norm=config.clip_norm,
        seed=config.seed,
        hflip=subject.data.name != "digits",
        max_steps=config.max_steps,
        observer_freeze=config.observer_freeze,
        batch_norm_freeze=config.batch_norm_freeze,
    )
    default_epochs = config.epochs if subject.weights.head_replaced else 0
    float_epochs = default_epochs if config.float_epochs is None else config.float_epochs
    return replace(qat, epochs=float_epochs, lr=config.float_lr), qat


class _Work:
    """The phases of one run, sharing device, scored images and the metrics file."""

    def __init__(self, run: Run, config: RunConfig, subject: Subject, say: Say, threads: int):
        self.run, self.config, self.subject, self.say = run, config, subject, say
        self.float_plan, self.qat_plan = _plans(config, subject)
        self.device = choose_device(config.device)
        self.amp = choose_amp(config.amp, self.device)
        self.threads = threads
        self.val_indices = _evenly(len(subject.data.val), config.limit_val)
        self.records: list[dict[str, Any]] = []

    def float_phase(self) -> None:
        """Float weights and program of this run's classes."""
        from pipeline.models.weights import load_weights, save_weights

        run, subject = self.run, self.subject
        weights_file = run.path / files.FLOAT_WEIGHTS
        if run.has(files.FLOAT_WEIGHTS):
            load_weights(subject.model, subject.model_config, str(run.file(files.FLOAT_WEIGHTS)))
            self.records += [r for r in _read_metrics(run) if r["phase"] == "float"]
        else:
            model = subject.model.to(self.device)
            trainee = FloatTrainee(model, self.float_plan)
            self.records += [asdict(r) for r in fit(trainee, self.float_plan, self._phase("float", model))]
            subject.model.cpu().eval()
            save_weights(subject.model, subject.model_config, weights_file, classes=subject.data.classes)
            files.save_program(export(subject.model, subject.input_size), run.path / files.FLOAT_PROGRAM)
            write_json(run.path / files.SUBJECT, dict(subject.facts()))
            run.record(files.FLOAT_WEIGHTS, files.FLOAT_PROGRAM, files.SUBJECT)
        _remove(run.path / "train" / "float" / "resume.pt")

    def qat_phase(self) -> None:
        """Calibrate, train with fake quantization, write the QDQ program, score every stage."""
        from targets.program import load_program

        run, subject, config = self.run, self.subject, self.config
        scheme = Scheme(observer=config.observer)
        model = subject.model.to(self.device)
        logits = {"float": self._score("float", model)}
        graph = prepare(model, subject.input_size, scheme).to(self.device)
        calibration = self._calibrate(graph)
        trainee = QatTrainee(graph, self.qat_plan)
        self.records += [asdict(r) for r in fit(trainee, self.qat_plan, self._phase("qat", graph))]
        trainee.begin_evaluation()
        logits["fake_quant"] = self._score("fake quantization", graph)
        files.save_program(to_qdq_program(graph, subject.input_size), run.path / files.QDQ_PROGRAM)
        # What is scored is what was written: the program is read back from the disk.
        reloaded = load_program(run.path / files.QDQ_PROGRAM).module()
        logits["qdq"] = self._score("QDQ program", reloaded, torch.device("cpu"))
        self._publish(logits, scheme, calibration)

    def _publish(self, logits: dict[str, np.ndarray], scheme: Scheme, calibration: dict[str, Any]) -> None:
        run, subject = self.run, self.subject
        labels = np.asarray(subject.data.val.labels)[self.val_indices]
        digest = f"{subject.data.val.digest()}-{subject.transform.digest()}"
        stages = files.StageLogits(labels, np.asarray(self.val_indices), digest, logits)
        files.save_logits(stages, run.path / files.LOGITS)
        files.write_metrics(run, self.records)
        facts = {
            "scheme": asdict(scheme),
            "calibration": calibration,
            "training": {
                "float": asdict(self.float_plan),
                "qat": asdict(self.qat_plan),
                "device": str(self.device),
                "amp": "bf16" if self.amp else "off",
                "threads": self.threads,
                "history": self.records,
            },
        }
        write_json(run.path / files.QUANTIZATION, facts)
        run.record(files.QDQ_PROGRAM, files.LOGITS, files.METRICS, files.QUANTIZATION)
        _remove(run.path / "train" / "qat" / "resume.pt")

    def _calibrate(self, graph: nn.Module) -> dict[str, Any]:
        """Fill the observers; returns what the manifest says of the calibration set."""
        return run_calibration(
            graph, self.subject, self.config.calibration_images, self.config.seed, self.device, self.config.workers
        )

    def _score(self, what: str, forward: Callable[[Tensor], Tensor], device: torch.device | None = None) -> np.ndarray:
        subject = self.subject
        return collect_logits(
            f"scoring {what}",
            forward,
            subject.data.val,
            subject.transform,
            EVAL_BATCH,
            device or self.device,
            self.val_indices,
            self.config.workers,
        )

    def _phase(self, name: str, module: nn.Module) -> Phase:
        config, subject = self.config, self.subject
        plan = self.float_plan if name == "float" else self.qat_plan
        labels = np.asarray(subject.data.val.labels)[self.val_indices]

        def batches(epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            return training_batches(subject, plan, epoch, first_step, config.workers)

        def evaluate() -> tuple[int, int]:
            right = int((self._score(f"{name} top-1", module).argmax(axis=1) == labels).sum())
            return right, len(labels)

        def on_epoch(history: list[EpochRecord]) -> None:
            record = history[-1]
            files.write_metrics(self.run, [*self.records, *map(asdict, history)])
            self.board(record)
            self.say(
                f"{name} epoch {record.epoch}/{plan.epochs}: loss {record.loss:.3f}, top-1 "
                f"{100 * record.top1 / record.n:.2f} % (n={record.n}), {record.images_per_second:.1f} images/s"
            )

        return Phase(
            name=name,
            folder=self.run.path / "train" / name,
            images=len(subject.data.train),
            batches=batches,
            evaluate=evaluate,
            on_epoch=on_epoch,
            device=self.device,
            amp=self.amp,
            checkpoint_steps=config.checkpoint_steps,
        )

    def board(self, record: EpochRecord) -> None:
        """The same figures for TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.run.path / "train" / "tensorboard" / record.phase)) as writer:
            writer.add_scalar("loss/train", record.loss, record.step)
            writer.add_scalar("accuracy/top1", record.top1 / record.n, record.step)
            writer.add_scalar("learning_rate", record.lr, record.step)
            writer.add_scalar("images_per_second", record.images_per_second, record.step)


def training_batches(
    subject: Subject, plan: TrainPlan, epoch: int, first_step: int, workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Augmented batches of one epoch, the same for the same plan whatever the number of workers."""
    from calibration.loader import train_loader
    from calibration.preprocess import train_transform

    transform = train_transform(subject.transform, hflip=plan.hflip, scale_min=plan.scale_min)
    return iter(
        train_loader(
            subject.data.train, transform, plan.batch_size, seed=plan.seed, epoch=epoch, workers=workers,
            start_step=first_step,
        )
    )  # fmt: skip


def run_calibration(
    graph: nn.Module, subject: Subject, images: int, seed: int, device: torch.device, workers: int
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


def _evenly(total: int, limit: int | None) -> list[int]:
    """`limit` positions spread evenly over 0..total-1 (all of them without a limit)."""
    if limit is None or limit >= total:
        return list(range(total))
    return np.linspace(0, total - 1, limit).round().astype(int).tolist()


def _read_metrics(run: Run) -> list[dict[str, Any]]:
    import json

    path = run.path / files.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
