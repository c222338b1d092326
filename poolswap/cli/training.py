"""What the commands that train have in common: a recipe from a file and options, and epochs as they pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolswap.adapt import EpochRow, Evaluation, Recipe
    from poolswap.adapt.betas import LayerBeta
    from poolswap.cli.output import Output

EVALUATION_COLUMNS = ["top-1 %", "top-5 %", "loss", "shift consistency %", "calibration error", "images/s"]


def evaluation_row(found: Evaluation) -> list[object]:
    """The columns of EVALUATION_COLUMNS."""
    return [found.top1, found.top5, found.loss, found.shift_consistency, found.ece, found.throughput]


def recipe_of(path: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a file with the options that are given, checked. Raises InputError, or MissingExtraError."""
    from poolswap.adapt import Recipe, check_recipe

    recipe = Recipe.make(
        {**Recipe.fields(path), **{name: value for name, value in given.items() if value not in (None, [])}}
    )
    check_recipe(recipe)
    return recipe


def epoch_lines(output: Output, recipe: Recipe) -> Callable[[EpochRow], None]:
    """A function that says how an epoch went."""

    def show(row: EpochRow) -> None:
        beta = "" if row.beta is None else f"  mean beta {row.beta:.3g}"
        output.note(
            f"epoch {row.epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}  loss {row.train_loss:.4f}  "
            f"validation {row.val_loss:.4f}  top-1 {row.top1:.2f}%{beta}  {row.seconds:.1f} s"
        )

    return show


def beta_row(layer: LayerBeta) -> list[object]:
    """What one layer learnt, over its channels."""
    places = [place for place in layer.position if place is not None]
    mean = sum(layer.beta) / len(layer.beta)
    place = sum(places) / len(places) if places else None
    return [layer.path, layer.op, layer.start, min(layer.beta), mean, max(layer.beta), place]
