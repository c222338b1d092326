"""Made-up results of ablation trials, whose numbers are known."""

from poolswap.ablate.costs import PassCost
from poolswap.ablate.runs import Result, SiteMove
from poolswap.measure import Ratio

IMAGES = 203  # not a multiple of four or eight: the last digit of `correct` is padded


def pack(bits):
    text = "".join("1" if bit else "0" for bit in bits)
    return "".join(f"{int(text[i : i + 4].ljust(4, '0'), 2):x}" for i in range(0, len(text), 4))


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


def made_up(trial, wrong):
    """A result whose first `wrong` images are wrong."""
    return Result(
        top1=100 * (IMAGES - wrong) / IMAGES,
        top5=99.0,
        loss=0.1 * wrong,
        shift_consistency=90.0 + len(trial.paths),
        images=IMAGES,
        correct=pack([n >= wrong for n in range(IMAGES)]),
        costs=costs(1 + 0.1 * len(trial.paths) + 0.02 * trial.seed),
        parameters=1234,
        drift=0.1 if trial.paths else None,
        sites=tuple(SiteMove(path=path, local=0.1) for path in trial.paths),
        seconds=36.0,
        environment={"torch": "2", "device": "cpu: made up"},
    )
