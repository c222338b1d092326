"""Before a run: how many seeds and images a difference needs to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from pydantic import BaseModel, ConfigDict

from poolswap.ablate.report.summary import Summary, summarise
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.stats import FEW_SEEDS, Noise, detectable
from poolswap.ablate.study import Study
from poolswap.ablate.trial import evaluated, groups_of

POWER = 0.8
_SCALE = 100.0  # points that one image can differ
_SEEDS = (3, 5, 10, 20)
_MOST_SEEDS = 50
_MOST_IMAGES = 2**24
# Of a folder without noise of its own, in points: trainings from scratch on photographs, five seeds. The medians of
# docs/typical-noise.csv, which benchmarks/typical_noise.py makes. A training from a checkpoint has less.
TYPICAL = Noise(1.3**2, 7.8**2, 30.4**2)


class Need(BaseModel):
    """What one adaptation needs for a difference to be seen with 80% power.

    `visible` is the smallest difference that `seeds_planned` seeds and the images at hand show; `seeds` are how many
    show the one that was asked for, None where no number does; `images` how many these need, by number of seeds.
    `measured` says whether the noise is the folder's own.
    """

    model_config = ConfigDict(frozen=True)

    adapt: str
    measured: bool
    seeds_planned: int
    visible: float
    seeds: int | None
    images: dict[int, int | None]


def needs(study: Study, folder: RunFolder, difference: float) -> tuple[list[Need], int]:
    """(what each adaptation needs, the images or groups at hand), by the noise of the folder where it has any."""
    groups = groups_of(study)
    images = len(set(groups)) if groups else len(evaluated(study))
    seen = noise_seen(summarise([folder])) if (folder.path / "study.yaml").is_file() else {}
    return [need(adapt, difference, images, len(study.seeds), seen) for adapt in study.adapt], images


def noise_seen(summary: Summary) -> dict[str, Noise]:
    """The noise of top-1 by adaptation, the median over the rows with at least three seeds; images alone for `none`."""
    found: dict[str, list[Noise]] = {}
    for row in summary.rows:
        top1 = row.top1_compared
        if top1 is not None and (row.adapt == "none" or row.paired >= 3):
            noise = Noise(top1.noise_seeds**2, top1.noise_images**2, top1.noise_both**2)
            found.setdefault(row.adapt, []).append(noise)
    return {adapt: Noise(*(median(part) for part in zip(*rows, strict=True))) for adapt, rows in found.items()}


def need(adapt: str, difference: float, images: int, seeds: int, seen: Mapping[str, Noise]) -> Need:
    """What it takes to see this difference of top-1, in points, on a data set of `images` images or groups."""
    noise = seen.get(adapt, TYPICAL)
    tried = (1,) if adapt == "none" else range(2, _MOST_SEEDS + 1)
    planned = 1 if adapt == "none" else max(seeds, 2)
    return Need(
        adapt=adapt,
        measured=adapt in seen,
        seeds_planned=planned,
        visible=_visible(noise, planned, images),
        seeds=next((n for n in tried if _visible(noise, n, images) <= difference), None),
        images={n: _images(noise, n, difference) for n in ((1,) if adapt == "none" else _SEEDS)},
    )


def _images(noise: Noise, seeds: int, difference: float) -> int | None:
    """The fewest images that show the difference; None where seeds alone hide it."""
    low, high = 1, _MOST_IMAGES
    if _visible(noise, seeds, high) > difference:
        return None
    while high - low > max(low // 50, 1):
        middle = (low + high) // 2
        low, high = (low, middle) if _visible(noise, seeds, middle) <= difference else (middle, high)
    return high


def _visible(noise: Noise, seeds: int, images: int) -> float:
    return detectable(noise.variances(seeds, images, _SCALE), power=POWER)


def say(found: Need, difference: float, images: int) -> str:
    """The need in a sentence."""
    source = (
        "by the noise of this folder" if found.measured else "by the noise of trainings from scratch on photographs"
    )
    with_seeds = "as it is" if found.adapt == "none" else f"with {found.seeds_planned} seeds"
    text = f"{found.adapt}: {images} images show {found.visible:.2f} points {with_seeds}, {source}"
    if found.seeds is not None and found.adapt != "none":
        text += f"; {difference:g} points need {found.seeds} seeds"
        return text + (f", and {FEW_SEEDS} are the fewest to trust" if found.seeds < FEW_SEEDS else "")
    if found.seeds is not None:
        return text
    options = [f"{n:,} images with {seeds} seeds" for seeds, n in found.images.items() if n is not None]
    if found.adapt == "none":
        options = [f"{n:,} images" for n in found.images.values() if n is not None]
    return text + f"; {difference:g} points need " + (" or ".join(options) if options else "more than any number tried")
