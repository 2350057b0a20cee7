"""Golden answers of an app folder in MediaPipe's image classifier, which reads the metadata inside of the .tflite file.

    python3 -m venv mediapipe && mediapipe/bin/pip install mediapipe pillow
    mediapipe/bin/python benchmarks/mediapipe_app.py runs/RUN/app

In an environment of its own: MediaPipe is no dependency of this project. Exit code 1 if an answer differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(app: Path) -> int:
    import mediapipe
    import numpy as np
    from PIL import Image

    (file,) = app.glob("*.tflite")
    golden = json.loads((app / "golden" / "golden.json").read_text())
    vision = mediapipe.tasks.vision
    options = vision.ImageClassifierOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(file)), max_results=1
    )
    wrong = 0
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image in golden["images"]:
            pixels = np.asarray(Image.open(app / "golden" / image["prepared"]).convert("RGB"))
            seen = classifier.classify(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels))
            best = seen.classifications[0].categories[0]
            expected = image["files"][file.name]
            same = best.category_name == expected["top1"]
            near = abs(best.score - max(expected["probabilities"])) <= golden["tolerance"]
            wrong += not (same and near)
            print(
                f"{image['prepared']}: MediaPipe {best.category_name} {best.score:.4f}, "
                f"{golden['runtimes'][file.name]} {expected['top1']} {max(expected['probabilities']):.4f}"
            )
    print(f"{len(golden['images']) - wrong} of {len(golden['images'])} as recorded, MediaPipe {mediapipe.__version__}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
