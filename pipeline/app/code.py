"""The Kotlin and Swift files of an app, made from templates."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.app.preparation import Preparation
from targets.sdk import installed

PACKAGE = "edge.classifier"
SUFFIX = ".j2"
#: Templates that are left out where there is no file for them, and the target of that file.
NEEDS = {
    "android/LiteRtClassifier.kt": "tflite",
    "android/ExecuTorchClassifier.kt": "executorch",
    "ios/Classifier.swift": "coreml",
    "ios/GoldenTests.swift": "coreml",
}
#: Android libraries are released under the versions of the Python packages that ran the files here.
RELEASED_WITH = {"litert_version": "ai-edge-litert", "executorch_version": "executorch"}


def render(model: str, preparation: Preparation, files: Mapping[str, str], package: str = PACKAGE) -> dict[str, str]:
    """Path in the app folder -> text.

    Args:
        files: name of the file of each target.
        package: of the Kotlin files.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.app"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    height, width = preparation.resized or (None, None)
    versions = {name: installed(package).get(package) for name, package in RELEASED_WITH.items()}
    made = {}
    for template in sorted(environment.list_templates(extensions=[SUFFIX.lstrip(".")])):
        name = template.removesuffix(SUFFIX)
        if _is_needed(name, files):
            made[name] = environment.get_template(template).render(
                package=package,
                model=model,
                height=preparation.height,
                width=preparation.width,
                short_side=preparation.short_side,
                resize_height=height,
                resize_width=width,
                interpolation=preparation.interpolation,
                tflite=files.get("tflite"),
                executorch=files.get("executorch"),
                coreml=files.get("coreml"),
                **versions,
            )
    return made


def _is_needed(name: str, files: Mapping[str, str]) -> bool:
    if name in NEEDS:
        return NEEDS[name] in files
    return not name.startswith("android/") or bool({"tflite", "executorch"} & set(files))
