"""Made-up results of ablation trials, whose numbers are known."""

import torch

from poolswap.ablate.costs import PassCost
from poolswap.ablate.record import Record
from poolswap.ablate.runs import Result, SiteMove
from poolswap.adapt import Answers, EpochRow
from poolswap.measure import Ratio

# What `made_up_engine` runs in no time: one layer of a small network, trained from scratch.
ABLATE = ["ablate", "test_resnet", "--data", "digits", "--input-size", "3,16,16", "--from-scratch", "--counts", "1"]
IMAGES = 203  # not a multiple of eight: the last byte of `correct` is padded


def costs(ratio):
    """Both passes, of one image and of 64, with a noise of one percent."""
    return tuple(
        PassCost(
            direction=direction,
            batch=batch,
            milliseconds=10 * ratio,
            ratio=Ratio(ratio, ratio - 0.05, ratio + 0.05),
            noise=Ratio(1.0, 0.99, 1.01),
            memory=2_000_000,
            control_memory=1_000_000,
        )
        for direction in ("forward", "training")
        for batch in (1, 64)
    )


def answers(wrong, images=IMAGES):
    """What a model says whose first `wrong` images are wrong with a loss of 2, and the first half of these unsteady."""
    right = torch.arange(images) >= wrong
    loss = torch.where(right, 0.1, 2.0)
    return Answers(right, loss, 1 - loss, torch.full((images,), 0.9), torch.arange(images) >= wrong // 2)


def made_up(trial, wrong):
    """A result whose first `wrong` images are wrong."""
    said, trained = answers(wrong), trial.adapt in ("finetune", "scratch")
    return Result(
        top1=100 * (IMAGES - wrong) / IMAGES,
        top5=99.0,
        loss=float(said.loss.mean()),
        ece=0.02,
        shift_consistency=100 * float(said.steady.double().mean()),
        record=Record.of([said]),
        curve=[EpochRow(epoch=n, lr=0.1, train_loss=1, val_loss=1, top1=90 + n) for n in (1, 2)] if trained else [],
        costs=costs(1 + 0.1 * len(trial.paths) + 0.02 * trial.seed),
        parameters=1234,
        drift=0.1 if trial.paths else None,
        sites=tuple(SiteMove(path=path, local=0.1) for path in trial.paths),
        seconds=36.0,
        environment={"torch": "2", "device": "cpu: made up"},
    )
