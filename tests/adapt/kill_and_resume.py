"""Trains in forked processes, kills them at the given updates, resumes, and prints what the checkpoints hold.

Arguments: a folder, then one list of updates per training, such as `4,9`; `s3` kills inside the third writing of a
state.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.utils.data import Subset

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.adapt import Data, Recipe, finetune, load_data
from poolswap.checkpoint import load_checkpoint

RECIPE = Recipe(
    epochs=3,
    batch_size=32,
    lr=2e-3,
    anneal=0.4,
    beta_decay=0.1,
    ema=0.9,
    mixup=0.2,
    state_every=2,
    warmup=1,
    workers=0,
)


def train(folder, kill):
    model, spec = load_model("test_resnet", num_classes=10, input_size=(3, 16, 16), model_args={"drop_rate": 0.2})
    plan = make_plan(find_pools(model, spec.input_size), "all", "soft:beta=learn", input_size=spec.input_size)
    swap_pools(model, plan)
    whole = load_data("digits", input_size=spec.input_size)
    data = Data(Subset(whole.train, range(160)), Subset(whole.val, range(60)), 10, "digits")
    done, renames, rename = [0], [0], Path.rename

    def advance(updates):
        done[0] += updates
        if kill == str(done[0]) and updates == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_rename(path, target):
        renames[0] += 1
        if kill == f"s{renames[0]}":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.rename = dying_rename
    finetune(model, data, RECIPE, folder, spec=spec, plan=plan, resume=True, device="cpu", advance=advance)


def fork(folder, kill):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder, kill)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if kill else 0), status


def main():
    torch.set_num_threads(1)
    for number, kills in enumerate(sys.argv[2:]):
        folder = Path(sys.argv[1]) / str(number)
        for kill in [*filter(None, kills.split(",")), ""]:
            fork(folder, kill)
        rows = json.loads((folder / "epochs.json").read_text())
        found = {name: load_checkpoint(folder / f"{name}.safetensors")[1].sha256 for name in ("best", "last")}
        left = sorted(path.name for path in folder.iterdir())
        print(json.dumps({"rows": [{**row, "seconds": 0} for row in rows], **found, "files": left}))


main()
