"""What a model gets right, how sure it is of it, and whether its answers survive a small translation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.errors import CheckError, InputError
from poolswap.inputs import evaluating, floating_tensor

_BINS = 15
_COUNTS = 6  # images, top-1, top-5, loss, unmoved, non-finite


class Evaluation(BaseModel):
    """Results over `images` images.

    `top1`, `top5` and `shift_consistency` are percentages; `loss` is the mean cross-entropy in nats. `ece` is the
    expected calibration error over 15 equal bins of confidence, from 0 to 1 (Guo et al. 2017). `shift_consistency` is
    the share of images whose class stays the same when the image moves by `shift` pixels down and to the right (Zhang
    2019 takes random crops instead). `throughput` is in images per second of the model alone. `top5` is None below six
    classes. `bad_images` could not be read and are not counted.
    """

    model_config = ConfigDict(frozen=True)

    top1: float
    top5: float | None
    loss: float
    throughput: float
    ece: float
    shift: int | None
    shift_consistency: float | None
    images: int
    bad_images: int = 0


class Answers(NamedTuple):
    """What a model made of each image of a batch: tensors (N,) on the CPU.

    `loss` is the cross-entropy and `margin` the logit of the right class less the largest other one, both float32 in
    nats; `confidence` is the probability of the predicted class. `correct` and `steady` are bool; `steady` says whether
    the class survives the shift, and is None where nothing was shifted.
    """

    correct: Tensor
    loss: Tensor
    margin: Tensor
    confidence: Tensor
    steady: Tensor | None


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    shift: int | None = 1,
    device: torch.device | str | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
    advance: Callable[[int], None] = lambda steps: None,
    answers: Callable[[Answers], None] = lambda batch: None,
) -> Evaluation:
    """Run the model in eval mode over batches of (images, targets).

    `shift` is in pixels; None or 0 leaves out that measure, which is half of the time. `device` moves the model there
    first. `reduce` adds the sums of several processes. `answers` is called after each batch with what became of each of
    its images. Raises InputError where there is no image or the classifier does not fit the labels, CheckError where
    an output is not finite.
    """
    if device is not None:
        model.to(device)
    like = floating_tensor(model)
    place: Any = (like.device, like.dtype) if like is not None else (torch.device("cpu"), torch.float32)
    classes = getattr(loader, "num_classes", None)
    sums = torch.zeros(_COUNTS + 3 * _BINS, dtype=torch.float64)
    seconds, width = 0.0, 0
    with evaluating(model), torch.inference_mode():
        for images, targets in loader:
            images = images.to(*place)
            start = time.perf_counter()
            logits = model(images)
            if place[0].type == "cuda":
                torch.cuda.synchronize(place[0])
            seconds += time.perf_counter() - start
            width = check_classifier(logits, classes)
            moved = model(translate(images, shift)).argmax(1).cpu() if shift else None
            logits, targets = logits.cpu().float(), targets.cpu()
            batch = _answers(logits, targets, moved)
            sums += _sums(logits, targets, batch)
            answers(batch)
            advance(1)
    sums = reduce(sums)
    count, top1, top5, loss, unmoved, infinite = sums[:_COUNTS].tolist()
    if not count:
        raise InputError("there is no image to evaluate", "check the validation images")
    if infinite:
        raise CheckError(
            f"the outputs of {infinite:.0f} of {count:.0f} images are not finite", "train with a lower lr="
        )
    filled, confident, right = sums[_COUNTS:].view(3, _BINS)
    return Evaluation(
        top1=100 * top1 / count,
        top5=100 * top5 / count if width > 5 else None,
        loss=loss / count,
        throughput=count / seconds if seconds else 0.0,
        ece=float((confident - right).abs().sum() / filled.sum()),
        shift=shift or None,
        shift_consistency=100 * unmoved / count if shift else None,
        images=int(count),
        bad_images=len(getattr(loader, "bad", ())),
    )


def translate(images: Tensor, pixels: int) -> Tensor:
    """Images moved down and to the right, their edges repeated into the gap."""
    height, width = images.shape[-2:]
    return F.pad(images, (pixels, 0, pixels, 0), mode="replicate")[..., :height, :width]


def check_classifier(logits: Tensor, classes: int | None) -> int:
    """The classifier's width. Raises InputError where it is not one per class of the data."""
    if logits.dim() != 2:
        raise InputError(f"the model gives outputs of shape {tuple(logits.shape)}, not logits", "use a classifier")
    width = logits.shape[1]
    if classes is not None and width != classes:
        raise InputError(
            f"the model has {width} classes, the data {classes}",
            f"make the model with num_classes={classes}, or use other data",
        )
    return width


def _answers(logits: Tensor, targets: Tensor, moved: Tensor | None) -> Answers:
    confidence, predicted = logits.softmax(1).max(1)
    own = logits.gather(1, targets[:, None])[:, 0]
    other = logits.scatter(1, targets[:, None], -torch.inf).amax(1) if logits.shape[1] > 1 else own
    return Answers(
        correct=predicted == targets,
        loss=F.cross_entropy(logits, targets, reduction="none").nan_to_num(),
        margin=(own - other).nan_to_num(),
        confidence=confidence.nan_to_num(),
        steady=moved == predicted if moved is not None else None,
    )


def _sums(logits: Tensor, targets: Tensor, batch: Answers) -> Tensor:
    confidence, hit = batch.confidence, batch.correct
    top5 = (logits.topk(min(5, logits.shape[1])).indices == targets[:, None]).any(1)
    counts = [
        torch.ones_like(hit),
        hit,
        top5,
        batch.loss,
        batch.steady if batch.steady is not None else torch.zeros_like(hit),
        ~logits.isfinite().all(1),
    ]
    head = torch.stack([values.double().sum() for values in counts])
    bins = calibration_bins(confidence)
    table = torch.zeros(3, _BINS, dtype=torch.float64)
    for row, values in zip(table, (torch.ones_like(confidence), confidence, hit), strict=True):
        row.index_add_(0, bins, values.double())
    return torch.cat([head, table.flatten()])


def calibration_bins(confidence: Tensor) -> Tensor:
    """The number of the bin of confidence that each image falls in, of `Evaluation.ece`'s 15."""
    return (confidence * _BINS).long().clamp(max=_BINS - 1)
