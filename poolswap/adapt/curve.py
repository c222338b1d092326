"""The learning curve of a training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poolswap.adapt.state import EpochRow
from poolswap.errors import MissingExtraError
from poolswap.files import atomic_path


def draw_curve(rows: Sequence[EpochRow], path: Path | str, *, title: str = "") -> None:
    """Loss of training and validation, and top-1, over the epochs: PNG, SVG or PDF by the name, replaced if it exists.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib, which draws the curve,", "plot") from None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    losses.plot(epochs, [row.train_loss for row in rows], marker="o", label="training")
    losses.plot(epochs, [row.val_loss for row in rows], marker="s", label="validation")
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    accuracy.plot(epochs, [row.top1 for row in rows], marker="o", color="tab:green")
    accuracy.set(xlabel="epoch", ylabel="validation top-1 (%)")
    for axes in (losses, accuracy):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    figure.suptitle(title)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip("."), dpi=120)
