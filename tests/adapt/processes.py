"""Trains a small network without BatchNorm; run alone, by torchrun, or with ACCELERATE_USE_FSDP. Argument: a folder."""

import sys

import torch
from torch import nn
from torch.utils.data import Subset

from poolswap.adapt import Data, Recipe, finetune, load_data
from poolswap.load import load_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

torch.set_num_threads(1)
torch.manual_seed(0)


def main(folder):
    model, spec = load_model(f"{__file__}:net", num_classes=None, input_size=(3, 16, 16))
    plan = make_plan(find_pools(model, spec.input_size), "all", input_size=spec.input_size)
    swap_pools(model, plan)
    whole = load_data("digits", input_size=spec.input_size)
    data = Data(Subset(whole.train, range(160)), Subset(whole.val, range(50)), 10, "digits")
    recipe = Recipe(epochs=2, batch_size=32, opt="sgd", lr=0.05, grad_accumulation=2, anneal=0.5)
    finetune(model, data, recipe, folder, spec=spec, plan=plan, device="cpu")


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


if __name__ == "__main__":
    main(sys.argv[1])
