"""Every rule of the gate, with its budgets and their defaults."""

from __future__ import annotations

from pipeline.gate.rule import Limit, Rule
from pipeline.gate.rules import answers, counted, speed

#: In the order of the output.
RULES: dict[str, Rule] = {
    "outcome": Rule(answers.outcome, "the cell has answers, as in the baseline", {}),
    "drop": Rule(
        answers.drop,
        "top-1 on the same images, paired",
        {"max_pp": Limit(0.5, "pp", "percentage points that top-1 may fall", high=100)},
        family="accuracy",
    ),
    "agreement": Rule(
        answers.agreement,
        "images that the artifact answers as its torch reference does",
        {
            "min_percent": Limit(None, "%", "floor; without one the baseline's agreement counts", high=100),
            "max_drop_pp": Limit(0.5, "pp", "of agreement, against the baseline's", high=100),
        },
        family="accuracy",
    ),
    "range": Rule(answers.ranges, "no NaN and no overflow in a simulation that the baseline had none of", {}),
    "undelegated": Rule(
        counted.undelegated,
        "operators outside of the delegate",
        {"max": Limit(None, "operators", "without one: no more than in the baseline", whole=True)},
    ),
    "partitions": Rule(
        counted.partitions,
        "parts that the delegate runs",
        {"max": Limit(None, "partitions", "without one: no more than in the baseline", whole=True)},
    ),
    "float_weights": Rule(
        counted.float_weights,
        "weights of an int8 file that are still float",
        {"max": Limit(0, "weights", "allowed", whole=True)},
    ),
    "scales": Rule(
        counted.scales,
        "trained scales that are not in the file",
        {"max_more_lost": Limit(0, "scales", "beyond those that the baseline's file lacks", whole=True)},
    ),
    "size": Rule(counted.size, "bytes of the file", {"max_ratio": Limit(1.02, "×", "of the baseline's")}),
    "memory": Rule(
        counted.memory,
        "peak memory of the file in its runtime",
        {"max_ratio": Limit(1.10, "×", "of the baseline's")},
    ),
    "latency": Rule(
        speed.latency,
        "ratio to MobileNetV2 in interleaved rounds",
        {
            "max_ratio": Limit(1.10, "×", "of the baseline's ratio"),
            "other_processors": Limit(False, "", "compare times of another processor", flag=True),
        },
        family="timing",
    ),
    "int8_speed": Rule(
        speed.int8_speed,
        "latency of int8 over float32, same model, runtime and rounds",
        {"max_ratio": Limit(1.0, "×", "of the float32 file's latency")},
        family="timing",
    ),
    "instructions": Rule(
        counted.instructions,
        "instructions of one inference on an emulated Arm processor",
        {"max_ratio": Limit(1.05, "×", "of the baseline's")},
    ),
}
