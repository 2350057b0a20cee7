"""The options of a run, grouped into plans; RunConfig, what `quantize` was asked for, is composed of them.

Names, defaults, help texts and allowed values are declared here and nowhere else (options of `train` alone:
pipeline.training.plan; of a device: pipeline.commands.device_options).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from calibration.dataset import DIGITS
from pipeline.errors import RunError, UsageError
from pipeline.options import Option, check
from targets.types import PackageOptions
from targets.words import suggest

#: Names offered without importing torch; pipeline.quantization.observers is tested to hold exactly these.
OBSERVER_NAMES = ("moving-average", "histogram", "percentile", "mse")
DEPTHWISE = "for a network with depthwise convolutions"
#: How activation ranges follow training; AMP_NAMES: the number format of the forward pass.
RANGE_NAMES = ("observed", "learned", "re-estimated")
#: What a training may leave: see pipeline.quantization.kept.
KEEP_NAMES = ("better", "trained")
AMP_NAMES = ("auto", "bf16", "fp16", "off")
#: Of a T2T-ViT: as published, or after pipeline.rewrites. Other models have one form.
FORM_NAMES = ("deploy", "official")
#: How an image is resized for evaluation; pipeline.models.preprocessing knows no other.
INTERPOLATION_NAMES = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")

#: Headings in `--help`.
ACCURACY, SPEED, CORE_ML = "What keeps accuracy", "Speed and scale", "Core ML packages"
#: Of options that overrule a checkpoint.
OF_THE_WEIGHTS: dict[str, Any] = {"unset": "what the weights say, else the model's", "panel": "Preprocessing"}


@dataclass(frozen=True, kw_only=True)
class ImagesPlan:
    """The data set, and how its images are read; pipeline.models.preprocessing reads `mean` and `std`."""

    data: Annotated[
        str,
        Option(
            "digits, a folder with train/ and val/ (class folders or tar shards), or a timm name (hfds/, wds/, hfids/)."
        ),
    ] = DIGITS
    img_size: Annotated[int | None, Option("Side of the input in pixels.", least=16, **OF_THE_WEIGHTS)] = None
    mean: Annotated[str | None, Option("Mean of pixels in 0..1: one number, or R,G,B.", **OF_THE_WEIGHTS)] = None
    std: Annotated[str | None, Option("Standard deviation of pixels in 0..1, as --mean.", **OF_THE_WEIGHTS)] = None
    crop_pct: Annotated[
        float | None, Option("Share of the resized image that the centre crop keeps.", above=0, **OF_THE_WEIGHTS)
    ] = None
    interpolation: Annotated[
        str | None,
        Option(f"Resize by {', '.join(INTERPOLATION_NAMES)}.", choices=INTERPOLATION_NAMES, **OF_THE_WEIGHTS),
    ] = None
    skip_bad: Annotated[bool, Option("Leave unreadable images out instead of stopping.", names=("--skip-bad",))] = False

    @property
    def preprocessing(self) -> dict[str, object]:
        """What these options say of it; None: nothing."""
        return {name: getattr(self, name) for name in ("img_size", "mean", "std", "crop_pct", "interpolation")}


@dataclass(frozen=True, kw_only=True)
class OptimizerPlan:
    """What every training has, in float and in QAT."""

    weight_decay: Annotated[float, Option("AdamW weight decay.", least=0.0)] = 0.03  # T2T-ViT's README, for -7 to -12
    label_smoothing: Annotated[float, Option("Label smoothing of the cross-entropy loss.", least=0.0, most=1.0)] = 0.1
    max_steps: Annotated[int | None, Option("Largest number of steps in an epoch.", unset="all", least=1)] = None
    seed: Annotated[int, Option("Seed of shuffling, augmentation, dropout and new weights.", least=0)] = 0
    accumulate: Annotated[int, Option("Forward passes whose gradients make one step.", panel=SPEED, least=1)] = 1


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """The first ranges of activations, and the corrections that need no training.

    Attributes:
        calibration_images: size of the class-balanced subset that sets the first ranges.
        equalize: pipeline.rewrites.equalize; None leaves it to the network, as it does for the next.
        adaptive_rounding: pipeline.quantization.adaptive_rounding.
        bias_correction: pipeline.quantization.bias_correction.
    """

    observer: Annotated[
        str,
        Option("Observer of activation ranges: moving-average, histogram, percentile or mse.", choices=OBSERVER_NAMES),
    ] = "moving-average"
    calibration_images: Annotated[int, Option("Size of the class-balanced calibration subset.", least=1)] = 64
    equalize: Annotated[
        bool | None,
        Option("Equalize channel ranges first, where that is exact.", unset=DEPTHWISE,
               names=("--equalize/--no-equalize",), panel=ACCURACY),
    ] = None  # fmt: skip
    adaptive_rounding: Annotated[
        bool | None,
        Option("After calibration, round weights so that their layer's output changes least.", unset=DEPTHWISE,
               names=("--adaptive-rounding/--no-adaptive-rounding",), panel=ACCURACY),
    ] = None  # fmt: skip
    bias_correction: Annotated[
        bool,
        Option("After calibration, shift biases by the mean error of their layer.",
               names=("--bias-correction/--no-bias-correction",), panel=ACCURACY),
    ] = True  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QatPlan(OptimizerPlan):
    """Quantization-aware training; docs/quantization.md tells why these are the defaults.

    Attributes:
        epochs: 0 is post-training quantization.
        lr: the weights arrive trained, and should stay near.
        dropout, distill, ...: see pipeline.training.plan.TrainPlan.
    """

    epochs: Annotated[int, Option("Epochs of QAT; 0: as --ptq.", least=0)] = 1
    batch_size: Annotated[
        int, Option("Images of one forward pass in one process.", least=2)  # BatchNorm in training needs two images
    ] = 32
    lr: Annotated[float, Option("Peak learning rate of QAT.", above=0)] = 3e-6
    clip_norm: Annotated[float, Option("Largest global gradient norm.", above=0)] = 1.0
    observer_freeze: Annotated[
        float, Option("Fraction of QAT after which activation scales are frozen.", least=0.0, most=1.0)
    ] = 0.6
    batch_norm_freeze: Annotated[
        float, Option("Fraction of QAT after which BatchNorm statistics are frozen.", least=0.0, most=1.0)
    ] = 0.0
    distill: Annotated[
        float,
        Option("Share of the float model's logits in the objective; 0: labels alone.", panel=ACCURACY, least=0.0,
               most=1.0),
    ] = 1.0  # fmt: skip
    temperature: Annotated[float, Option("Temperature of distillation.", panel=ACCURACY, above=0)] = 2.0
    distill_features: Annotated[
        float, Option("Weight of the float model's features after each block.", panel=ACCURACY, least=0.0)
    ] = 0.0
    ema: Annotated[
        float,
        Option("Decay of QAT's moving average of weights; 0: the last weights.", panel=ACCURACY, least=0, below=1,
               wanted="a decay of at least 0 and below 1, 0.999 for example"),
    ] = 0.0  # fmt: skip
    ranges: Annotated[
        str, Option("Activation ranges: observed, learned or re-estimated.", panel=ACCURACY, choices=RANGE_NAMES)
    ] = "re-estimated"
    dropout: Annotated[
        bool, Option("Keep the model's dropout in QAT.", names=("--dropout/--no-dropout",), panel=ACCURACY)
    ] = False


@dataclass(frozen=True, kw_only=True)
class FloatTuningPlan:
    """Float fine-tuning before QAT, by the light recipe (docs/training.md)."""

    float_epochs: Annotated[
        int | None,
        Option("Epochs of float fine-tuning before QAT.", unset="--epochs if the head was replaced, else 0", least=0),
    ] = None
    float_lr: Annotated[float, Option("Peak learning rate of float fine-tuning.", above=0)] = 3e-4


@dataclass(frozen=True, kw_only=True)
class FloatLayersPlan:
    """Mixed precision: which layers stay float.

    Attributes:
        float_layers: Linears and convolutions that are float in training too.
        float_after_training: trained in int8 like the rest and taken out at the end: what a search finds.
    """

    max_drop: Annotated[
        float | None,
        Option("Keep the fewest layers float so that no target loses more top-1 than this, in percentage points "
               "(docs/mixed-precision.md).", panel=ACCURACY, least=0, below=100,
               wanted="percentage points, from 0 to below 100"),
    ] = None  # fmt: skip
    drop_targets: Annotated[
        tuple[str, ...],
        Option("Target that must stay within --max-drop (repeatable).", names=("--drop-target",), unset="all",
               panel=ACCURACY),
    ] = ()  # fmt: skip
    rank_images: Annotated[
        int, Option("Images on which the search for --max-drop ranks layers.", panel=ACCURACY, least=1)
    ] = 32
    float_layers: Annotated[
        tuple[str, ...],
        Option("Layer that stays float, in training too (repeatable).", names=("--float-layer",), panel=ACCURACY),
    ] = ()
    float_after_training: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """The images that a run is scored on, evenly spread over the validation split, and what a lower score means."""

    limit_val: Annotated[int | None, Option("Score so many validation images.", unset="all", least=1)] = None
    keep: Annotated[
        str,
        Option("better: the calibrated graph if QAT answers worse than it; trained: what QAT made of it, whatever its "
               "score.", choices=KEEP_NAMES, panel=ACCURACY),
    ] = "better"  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """Where and how fast a training runs.

    Attributes:
        amp: `auto` is bfloat16 on a CUDA device that has it; `fp16` comes with loss scaling.
    """

    device: Annotated[
        str, Option("Train on: auto, cpu, cuda or cuda:N.", names=("--train-device",), former="--device")
    ] = "auto"
    amp: Annotated[str, Option("Mixed precision: auto (bfloat16 on CUDA), bf16, fp16 or off.", choices=AMP_NAMES)] = (
        "auto"
    )
    threads: Annotated[int, Option("CPU threads; 0: torch's choice.", least=0)] = 0
    workers: Annotated[int, Option("Processes that read images; 0: read in the main process.", least=0)] = 0
    checkpoint_steps: Annotated[int, Option("Write a resume point at least every so many steps.", least=1)] = 200
    channels_last: Annotated[
        bool, Option("Train in the channels-last memory layout.", names=("--channels-last",), panel=SPEED)
    ] = False
    compile: Annotated[bool, Option("Train through torch.compile.", names=("--compile",), panel=SPEED)] = False


@dataclass(frozen=True, kw_only=True)
class ValidationPlan:
    """How `validate` runs and judges artifacts.

    Attributes:
        roundings: models of the MIL reference, without their prefix; none named: all.
    """

    limit: Annotated[int | None, Option("Images, evenly spread.", unset="all that were scored", least=1)] = None
    threads: Annotated[int, Option("Threads of the runtime.", least=1)] = 2
    min_agreement: Annotated[
        float | None,
        Option("Percent of images; exit with 8 if an artifact agrees with its PyTorch reference on fewer.", least=0,
               most=100, wanted="a percentage from 0 to 100"),
    ] = None  # fmt: skip
    simulate: Annotated[
        bool,
        Option("Also compute Core ML packages by the MIL reference; labelled as simulated.",
               names=("--simulate/--no-simulate",)),
    ] = True  # fmt: skip
    roundings: Annotated[
        tuple[str, ...],
        Option("Rounding of the MIL reference: fp32, fp16 or fp16-accumulate (repeatable).", names=("--rounding",),
               unset="all"),
    ] = ()  # fmt: skip
    explain: Annotated[
        bool, Option("Then find the stage and the layers that lose accuracy (waterfall.json).", names=("--explain",))
    ] = False
    explain_images: Annotated[int, Option("Images on which --explain compares layers.", least=1)] = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "roundings", tuple(self.roundings or ()))
        check(self)


@dataclass(frozen=True)
class Wishes:
    """Options of `convert`; what they need from the run is looked up by pipeline.stages.convert.

    Attributes:
        tensor_input: whether the file shall take what the network takes; else it takes a picture.
        group_size: input channels that share a scale of an int4 weight, in any target that has groups.
        others: as in targets.types.PackageOptions.
    """

    group_size: Annotated[
        int | None,
        Option("Input channels that share a scale of an int4 weight; default 32.  --list-schemes tells the choices."),
    ] = None
    tensor_input: Annotated[
        bool,
        Option("Take normalised floats [1, 3, H, W] and give logits. Default: take RGB pixels, give probabilities, "
               "and name the classes.", names=("--tensor-input",)),
    ] = False  # fmt: skip
    deployment_target: Annotated[
        str,
        Option("Oldest system: iOS15 to iOS18, iOS26, macOS12 to macOS15, macOS26; default iOS17, for w4 iOS18.",
               panel=CORE_ML),
    ] = ""  # fmt: skip
    float32_operators: Annotated[
        tuple[str, ...],
        Option("Operators that compute in float32 in a half precision file; may be repeated.", names=("--float32-op",),
               metavar="TYPE_OR_NAME", panel=CORE_ML),
    ] = ()  # fmt: skip
    signed_weights: Annotated[
        bool,
        Option("Store int8 weights signed; by default unsigned, same values: some systems decode signed ones wrongly.",
               names=("--signed-weights/--unsigned-weights",), panel=CORE_ML),
    ] = False  # fmt: skip
    author: Annotated[str, Option("Of the model, as Xcode shows it.", panel=CORE_ML)] = ""
    license: Annotated[str, Option("Likewise: a name or a text.", panel=CORE_ML)] = ""

    def of_the_file(self) -> PackageOptions:
        """What is known of the file before the run is read."""
        return PackageOptions(
            deployment_target=self.deployment_target,
            float32_operators=self.float32_operators,
            signed_weights=self.signed_weights,
            author=self.author,
            license=self.license,
        )


PROCESSES = 5  # this and the rounds and samples of a plan: docs/decisions/0007-latency-intervals.md


@dataclass(frozen=True)
class TimingPlan:
    """How a cell is timed: `rounds` of `samples` each, equally many in each of `processes` fresh worker processes, each
    of which begins with batches of `warmup` inferences, until their time is steady, that are kept apart."""

    threads: Annotated[int, Option("Threads of the runtime.", least=1)] = 1
    rounds: Annotated[int, Option("Rounds in which model and control take turns.", least=1)] = 40
    samples: Annotated[int, Option("Inferences of each in a round.", least=1)] = 4
    warmup: Annotated[
        int, Option("Inferences in a batch of the warm-up, which goes on until their time is steady.", least=0)
    ] = 5
    seed: int = 0
    processes: Annotated[
        int,
        Option(
            "Fresh processes that the rounds are spread over.", unset=f"{PROCESSES}, or fewer if they must", least=1
        ),
    ] = PROCESSES

    def __post_init__(self) -> None:
        check(self)
        if self.rounds % self.processes:
            raise UsageError(
                f"--rounds {self.rounds} do not spread evenly over --processes {self.processes}: give "
                f"--rounds {-(-self.rounds // self.processes) * self.processes}"
            )


def spread(rounds: int) -> int:
    """The largest number of processes up to PROCESSES that `rounds` spread evenly over."""
    return next(n for n in range(PROCESSES, 0, -1) if rounds % n == 0)


@dataclass(frozen=True)
class RunConfig(ImagesPlan, QatPlan, FloatTuningPlan, CalibrationPlan, FloatLayersPlan, ScoringPlan, ExecutionPlan):
    """Everything that decides the result of one `quantize` run. As JSON (config.json, recipe.json) it is flat.

    Attributes:
        model: zoo or timm name.
        weights: empty until a run begins: see pipeline.stages.quantize.default_weights.
        form: of a T2T-ViT: `deploy` after exact rewrites (pipeline.rewrites), `official` as published.
    """

    model: str
    weights: Annotated[
        str,
        Option("demo, pretrained, none, hf-hub:USER/NAME or a file (.safetensors, .pth, .pth.tar).",
               unset="demo if bundled and the data are the digits, else pretrained"),
    ] = ""  # fmt: skip
    form: Annotated[
        str, Option("deploy: T2T-ViT after exact rewrites, fast on phones; official: as published.", choices=FORM_NAMES)
    ] = "deploy"
    qk_scale: Annotated[
        float | None, Option("Attention scale of T2T-ViT weights.", unset="what the weights need", above=0)
    ] = None

    def __post_init__(self) -> None:
        for name in ("float_layers", "float_after_training", "drop_targets"):
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))  # JSON gives a list, the command line None
        check(self)
        if self.drop_targets and self.max_drop is None:
            raise UsageError("--drop-target says which targets hold --max-drop: give that too, or leave it out")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The config of a run folder.

        Raises:
            RunError: an unknown key, with the nearest known one; no model.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise RunError(f"config key {key!r} is unknown to this version.{suggest(key, known)}")
        if "model" not in values:
            raise RunError("the config names no model: the file was damaged or edited by hand")
        return cls(**{"form": "official", **values})  # a run without it is older than the choice
