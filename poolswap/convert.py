"""The whole way of a conversion: measure the drift, swap, recover, save, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from poolswap.checkpoint import check_target, save_checkpoint
from poolswap.export import ExportReport, check_export, default_path, export_model
from poolswap.inputs import Example
from poolswap.manifest import Manifest
from poolswap.models.load import ModelSpec
from poolswap.surgery.drift import Drift, measure_drift
from poolswap.surgery.plan import Plan
from poolswap.surgery.swap import SwapReport, swap_pools

if TYPE_CHECKING:
    from poolswap.adapt.recover import Recovered, Recovery


@dataclass(frozen=True)
class Conversion:
    """What was swapped, how far the outputs moved, what recovered, and the files that hold it."""

    spec: ModelSpec
    path: Path
    swap: SwapReport
    drift: Drift
    manifest: Manifest
    recovered: Recovered | None
    export: ExportReport | None


def convert_model(
    model: nn.Module,
    spec: ModelSpec,
    plan: Plan,
    path: Path | str,
    *,
    recovery: Recovery | None = None,
    export: str | None = None,
    example: Example | None = None,
    force: bool = False,
) -> Conversion:
    """Swap the model in place by the plan, recover it, and save it at `path`, with an export beside it.

    A training's files go to a folder beside `path`. Raises InputError, before anything is changed, where a file exists
    (unless `force`) or the plan does not fit; CheckError where the export does not equal the model.
    """
    path = Path(path)
    check_outputs(path, model, export=export, force=force)
    drift = measure_drift(model, plan, spec.input_size, example=example)
    report = swap_pools(model, plan, example=example)
    recovered = None
    if recovery:
        from poolswap.adapt.recover import recover

        folder = path.with_name(f"{path.stem}-training")
        recovered = recover(model, recovery, folder, spec=spec, plan=plan, example=example, force=force)
        spec = spec.trained(recovery.data.name) if recovery.train else spec
    said = recovered.recipe if recovered else None
    manifest = save_checkpoint(model, path, spec=spec, plan=plan, recipe=said, example=example, force=force)
    made = export_model(model, manifest, default_path(path, export), to=export, force=force) if export else None
    return Conversion(spec, path, report, drift, manifest, recovered, made)


def check_outputs(
    path: Path, model: nn.Module | None = None, *, export: str | None = None, force: bool = False
) -> None:
    """Raise InputError where the checkpoint of the model or its export cannot be written.

    MissingExtraError for the format's.
    """
    check_target(path, model, force=force)
    if export:
        check_export(default_path(path, export), export, force=force)
