"""Run `quantize` from end to end: from a RunConfig to a run folder with one int8 checkpoint.

float weights -> (float fine-tuning) -> deploy form -> float program -> calibration -> QAT -> the better of the last
two -> QDQ program, scored at each stage. An interrupted run continues where it stood: every finished phase is in the
manifest, an unfinished one has its resume point.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from pipeline.config import RunConfig
from pipeline.errors import RunError, TrainingError, UsageError
from pipeline.files import write_json
from pipeline.progress import Say
from pipeline.quantization.calibration import (
    Calibrated,
    CalibrationSet,
    calibrated_graph,
    calibration_set,
    float_form,
    reestimate_ranges,
)
from pipeline.quantization.graph import export, moved_norms, norm_statistics, save_program, to_qdq_program
from pipeline.quantization.integer import IntegerProgram
from pipeline.quantization.kept import Kept, choose
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.ranges import learn_ranges
from pipeline.quantization.trainee import QatTrainee, teacher_of
from pipeline.run import layout as files
from pipeline.run.facts import QuantizationFacts, read_config, read_metrics, read_subject, write_facts, write_metrics
from pipeline.run.folder import Run, create_run, set_latest
from pipeline.run.logits import StageLogits, save_logits
from pipeline.run.provenance import collect
from pipeline.run.recipe import write_recipe
from pipeline.training.best_epoch import BestEpoch
from pipeline.training.distributed import share, spread_state, world
from pipeline.training.loop import EpochRecord, Trainee, fit
from pipeline.training.plan import TrainPlan, qat_plan, tuning_plan
from pipeline.training.setting import Setting
from pipeline.training.subject import (
    Subject,
    choose_device,
    load_data,
    load_subject,
    look_ahead,
    seed_everything,
)
from pipeline.training.trainees import Execution, FloatTrainee, choose_precision


def start(config: RunConfig, root: Path) -> tuple[Run, Subject]:
    """Check data, model and weights, and only then make the run folder. Of several processes the first one makes it.

    Raises:
        EdgeT2TError: nothing was written.
    """
    _check(config)
    subject = subject_of(config)
    path = share(_new_run(config, root).path if world().chief else root)
    return Run(path), subject


def _new_run(config: RunConfig, root: Path) -> Run:
    run = create_run(root, config.model)
    write_json(run.path / files.CONFIG, config.to_dict())
    run.mark("unfinished", files.CONFIG)
    return run


def config_of(run: Run) -> RunConfig:
    """Of an unfinished run.

    Raises:
        UsageError: it is finished.
        RunError: its config changed.
    """
    if run.status == "finished":
        raise UsageError(f"run {run.id} is finished: there is nothing to resume")
    return read_config(run)


def quantize(run: Run, config: RunConfig, subject: Subject, say: Say, latest: bool = True) -> None:
    """Do all phases that the run has not finished, then mark it finished and, unless told not to, `latest`."""
    threads = seed_everything(config.seed, config.threads)
    setting = Setting.of(subject, config, config.limit_val, say)
    work = _Work(run, config, setting, threads)
    work.float_phase()
    work.qat_phase()
    if not world().chief:
        return
    write_recipe(run, config)
    run.mark("finished", provenance={**collect(), "threads": str(threads)})
    if latest:
        set_latest(run)


def _check(config: RunConfig) -> None:
    """Refuse what can be refused without reading the images, which may take long."""
    choose_precision(config.amp, choose_device(config.device))
    look_ahead(config, config.weights, config.model, config.qk_scale)


def subject_of(config: RunConfig) -> Subject:
    """The model, its data and weights, as the options name them."""
    data = load_data(config.data, config.skip_bad)
    return load_subject(
        config.model, data, config.weights, config.seed, config.img_size, config.qk_scale, config.preprocessing
    )


class _Candidate(NamedTuple):
    """A graph that may become the checkpoint, its QDQ program, and the logits [N, classes] of that."""

    graph: GraphModule
    program: ExportedProgram
    logits: np.ndarray


class _Work:
    """The phases of one run, sharing the setting and the metrics file."""

    def __init__(self, run: Run, config: RunConfig, setting: Setting, threads: int):
        self.run, self.config, self.setting, self.threads = run, config, setting, threads
        self.subject = setting.subject
        self.execution = Execution(config.channels_last, config.compile)
        self.float_plan = tuning_plan(config, self.subject.weights.head_replaced)
        self.qat_plan = qat_plan(config)
        self.records: list[dict[str, Any]] = []
        self.scored: dict[str, np.ndarray] = {}  # logits of each phase that ended here
        self.qat_facts: dict[str, Any] = {}

    def float_phase(self) -> None:
        """Float weights and program of this run's classes."""
        from pipeline.models.preprocessing import told
        from pipeline.models.weights import load_weights

        run, subject = self.run, self.subject
        if share(world().chief and run.has(files.FLOAT_WEIGHTS)):
            if world().chief:
                recorded = read_subject(run)
                if recorded.transform_digest not in ("", subject.transform.digest()):
                    raise RunError(
                        f"{told(subject.model_config, subject.origins)}, but run {run.id} began with "
                        f"{told(recorded.model_config, recorded.origins)}: start it again"
                    )
                load_weights(subject.model, subject.model_config, run.file(files.FLOAT_WEIGHTS))
                self.records += [r for r in read_metrics(run) if r["phase"] == "float"]
            spread_state(subject.model)
        else:
            trainee = FloatTrainee(subject.model.to(self.setting.device), self.float_plan, self.execution)
            self._train("float", trainee, self.float_plan)
            subject.model.cpu().eval()
            if world().chief:
                self._write_float()
        if world().chief:
            self._resume_file("float").unlink(missing_ok=True)

    def _write_float(self) -> None:
        from pipeline.models.weights import save_weights

        run, subject = self.run, self.subject
        weights_file = run.path / files.FLOAT_WEIGHTS
        save_weights(subject.model, subject.model_config, weights_file, classes=subject.data.classes)
        form = float_form(subject, self.config)
        save_program(export(form, subject.input_size), run.path / files.FLOAT_PROGRAM)
        write_facts(run, files.SUBJECT, subject.facts())
        run.record(files.FLOAT_WEIGHTS, files.FLOAT_PROGRAM, files.SUBJECT)

    def qat_phase(self) -> None:
        """Calibrate, train with fake quantization, write the QDQ program, score every stage."""
        run, subject, config, setting = self.run, self.subject, self.config, self.setting
        scheme = Scheme(observer=config.observer, float_layers=config.float_layers)
        logits = {"float": self._logits_after("float", subject.model.to(setting.device))}
        bad = int((~np.isfinite(logits["float"]).all(axis=1)).sum())
        if bad:
            raise TrainingError(
                f"the float model gives NaN or infinity for {bad} of {len(logits['float'])} validation images: "
                "there is nothing to quantize; check the weights, and --qk-scale for T2T-ViT"
            )
        images = calibration_set(subject, config.calibration_images, config.seed, config.workers)
        calibrated = calibrated_graph(subject, config, scheme, images, setting.device)
        chosen, kept = self._trained_or_calibrated(calibrated, images, logits["float"])
        logits["fake_quant"] = self._logits_after("qat", chosen.graph)
        logits["qdq"] = chosen.logits
        if world().chief:
            save_program(chosen.program, run.path / files.QDQ_PROGRAM)
            self._publish(logits, scheme, calibrated.facts, kept)

    def _trained_or_calibrated(
        self, calibrated: Calibrated, images: CalibrationSet, reference: np.ndarray
    ) -> tuple[_Candidate, Kept | None]:
        """Train the calibrated graph; the better one, and both scores where there was a training."""
        if not self.qat_plan.epochs:
            return self._candidate("QDQ program", calibrated.graph), None
        before = self._candidate("calibrated program", copy.deepcopy(calibrated.graph))
        self._train_quantized(calibrated, images).begin_evaluation()
        after = self._candidate("QDQ program", calibrated.graph)
        kept = choose(reference, before.logits, after.logits, self.setting.labels, self.config.keep)
        if world().chief:
            self.setting.say(kept.told())
        if kept.trained:
            return after, kept
        self.scored.pop("qat", None)  # the logits of the last epoch are of the other one
        return before, kept

    def _candidate(self, what: str, graph: GraphModule) -> _Candidate:
        """What is scored is what is shipped: the program, in the arithmetic of the runtimes."""
        program = to_qdq_program(graph, self.subject.input_size, settled=True)
        integers = IntegerProgram(program.module())
        return _Candidate(graph, program, self.setting.score(what, integers, torch.device("cpu")))

    def _train_quantized(self, calibrated: Calibrated, images: CalibrationSet) -> QatTrainee:
        graph, plan, device = calibrated.graph, self.qat_plan, self.setting.device
        teacher, before = teacher_of(calibrated.plain, plan), norm_statistics(calibrated.plain)
        if plan.ranges == "learned":
            learn_ranges(graph)
        trainee = QatTrainee(graph, plan, teacher, self.execution)
        best = BestEpoch(self._best_file, graph, self.scored["float"], self.setting.labels) if plan.epochs > 1 else None
        self._train("qat", trainee, plan, best)
        kept = best and best.take()
        self.qat_facts["best_epoch"] = kept.epoch if kept else plan.epochs
        if kept:
            self.scored["qat"] = kept.logits
            if world().chief:
                self.setting.say(
                    f"qat: epoch {kept.epoch} of {plan.epochs} is the best: {kept.right} of {len(kept.logits)} right, "
                    f"mean KL divergence {kept.kl:.4g} from the float model"
                )
        if moved := moved_norms(before, norm_statistics(graph)):
            self.qat_facts["moved_norms"] = [asdict(norm) for norm in moved]
        if plan.ranges == "re-estimated" and plan.epochs:
            reestimate_ranges(graph, images.batches(), images.images, device)
            self.scored.pop("qat", None)  # the logits of the last epoch are of other ranges
        return trainee

    def _train(self, name: str, trainee: Trainee, plan: TrainPlan, best: BestEpoch | None = None) -> None:
        def on_history(history: list[EpochRecord]) -> None:
            write_metrics(self.run, [*self.records, *map(asdict, history)])

        def on_logits(logits: np.ndarray) -> None:
            self.scored[name] = logits

        def on_scored(epoch: int) -> None:
            if best is not None:
                best.offer(epoch, self.scored[name])

        phase = self.setting.phase(name, trainee.module, plan, self._resume_file(name).parent, on_history, on_logits)
        phase = replace(phase, on_scored=on_scored)
        self.records += [asdict(record) for record in fit(trainee, plan, phase)]

    def _logits_after(self, phase: str, module: torch.nn.Module) -> np.ndarray:
        """Of the trained `module`; without an epoch in this process (none, or all before a resume) it is scored."""
        what = {"float": "float", "qat": "fake quantization"}[phase]
        if phase not in self.scored:
            self.scored[phase] = self.setting.score(what, module)
        return self.scored[phase]

    def _resume_file(self, name: str) -> Path:
        return self.run.path / files.resume_file(name)

    @property
    def _best_file(self) -> Path:
        return self._resume_file("qat").with_name(files.BEST_FILE)

    def _publish(
        self, logits: dict[str, np.ndarray], scheme: Scheme, calibration: dict[str, Any], kept: Kept | None
    ) -> None:
        run, data, setting = self.run, self.subject.data, self.setting
        digest = f"{data.val.digest()}-{self.subject.transform.digest()}"
        stages = StageLogits(setting.labels, np.asarray(setting.val_indices), digest, logits)
        save_logits(stages, run.path / files.LOGITS)
        write_metrics(run, self.records)
        facts = QuantizationFacts(
            scheme=asdict(scheme),
            calibration=calibration,
            training={
                "processes": world().size,
                "float": asdict(self.float_plan),
                "qat": asdict(self.qat_plan),
                "device": str(setting.device),
                "amp": setting.precision.name,
                "threads": self.threads,
                "history": self.records,
                "kept": None if kept is None else asdict(kept),
                **self.qat_facts,
            },
        )
        write_facts(run, files.QUANTIZATION, facts)
        run.record(files.QDQ_PROGRAM, files.LOGITS, files.METRICS, files.QUANTIZATION)
        self._resume_file("qat").unlink(missing_ok=True)
        self._best_file.unlink(missing_ok=True)
