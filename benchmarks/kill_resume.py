"""Nothing in; whether `quantize`, killed (SIGKILL) at random moments and resumed, ends as one that ran through, out.

    python benchmarks/kill_resume.py [--kills 20] [--model t2t_vit_7] [--img-size 64] [--processes 1] [--out FILE]

One straight run is timed. Then each of `--kills` runs is killed once, at a moment drawn evenly over that time, and
taken up again with `quantize --resume` (or begun anew where it had no run folder yet). Its checkpoint must hold the
same bits: every tensor of the float weights and of the QDQ program, its code, and the logits of all stages.
Ends with 1 if one does not. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.run.folder import Run, list_runs  # noqa: E402
from targets.sdk import quiet_sdks  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default="t2t_vit_7")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1, help="more than one: through torchrun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file with every kill")
    arguments = parser.parse_args()
    quiet_sdks()
    options = [
        "quantize", arguments.model, "--img-size", str(arguments.img_size), "--epochs", "2", "--float-epochs", "1",
        "--max-steps", "8", "--limit-val", "16", "--calibration-images", "16", "--batch-size", "8", "--threads", "1",
        "--checkpoint-steps", "1", "--ema", "0.9", "--distill", "0.5",
    ]  # fmt: skip
    launcher = [sys.executable]
    if arguments.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", str(arguments.processes)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        begin = time.monotonic()
        start([*launcher, "main.py", *options, "--runs-dir", str(root / "straight")]).wait()
        seconds = time.monotonic() - begin
        expected = digest(list_runs(root / "straight")[0])
        print(f"straight run: {seconds:.1f} s, checkpoint {expected[:12]}", flush=True)
        kills = []
        moments = random.Random(arguments.seed)
        for number in range(arguments.kills):
            kill = killed_and_resumed(launcher, options, root / f"{number}", moments.uniform(0, seconds), expected)
            kills.append(kill)
            print(f"{number + 1}: killed after {kill['seconds']:.1f} s {kill['where']}: {kill['outcome']}", flush=True)
    same = sum(kill["outcome"] == SAME for kill in kills)
    print(f"{same} of {len(kills)} ended with the same bits")
    if arguments.out:
        arguments.out.write_text(json.dumps({"straight_seconds": seconds, "kills": kills}, indent=2) + "\n")
    sys.exit(same != len(kills))


SAME = "the same bits"


def start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def killed_and_resumed(
    launcher: list[str], options: list[str], runs: Path, seconds: float, expected: str
) -> dict[str, object]:
    process = start([*launcher, "main.py", *options, "--runs-dir", str(runs)])
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    unfinished = [run for run in list_runs(runs) if "status" in run.manifest]
    where = reached(unfinished[0]) if unfinished else "before there was a run"
    if not unfinished:
        again = options
    elif unfinished[0].manifest["status"] == "finished":
        again = []
    else:
        again = ["quantize", "--resume"]
    code = start([*launcher, "main.py", *again, "--runs-dir", str(runs)]).wait() if again else 0
    outcome = f"exit code {code}" if code else SAME if digest(list_runs(runs)[-1]) == expected else "OTHER BITS"
    return {"seconds": seconds, "where": where, "outcome": outcome}


def reached(run: Run) -> str:
    """The furthest thing that the killed run had written."""
    marks = {
        "finished": run.manifest["status"] == "finished",
        "while the checkpoint was written": (run.path / "checkpoint" / "qdq.pt2").exists(),
        "in QAT": (run.path / "train" / "qat" / "resume.pt").exists(),
        "after the float phase": run.has("checkpoint/float.safetensors"),
        "in float training": (run.path / "train" / "float" / "resume.pt").exists(),
    }
    return next((name for name, there in marks.items() if there), "before the first step")


def digest(run: Run) -> str:
    """sha256 over everything that was computed: tensors, scales, code, logits; not over times and names of the run."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from pipeline.run.logits import load_logits
    from targets.program import load_program

    total = hashlib.sha256()
    program = load_program(run.file("checkpoint/qdq.pt2"))
    tensors = {**load_file(run.file("checkpoint/float.safetensors")), **program.state_dict, **program.constants}
    for name, value in sorted(tensors.items()):
        if isinstance(value, torch.Tensor):
            total.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    total.update(program.graph_module.code.encode())
    for stage, logits in sorted(load_logits(run).stages.items()):
        total.update(stage.encode() + np.ascontiguousarray(logits).tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    main()
