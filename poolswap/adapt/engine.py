"""Accelerate, set up as a recipe asks, and the checkpoints of a training."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from torch import nn

from poolswap.adapt.recipe import Recipe
from poolswap.adapt.state import Progress, clear_states, has_state, sweep_states
from poolswap.checkpoint import save_checkpoint
from poolswap.errors import InputError, MissingExtraError
from poolswap.example import KeptExample
from poolswap.files import check_folder_place, hold, sweep, write_text
from poolswap.inputs import Example
from poolswap.models.load import ModelSpec
from poolswap.surgery.plan import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator

_P = ParamSpec("_P")
_R = TypeVar("_R")

BEST, LAST, _EPOCHS = "best.safetensors", "last.safetensors", "epochs.json"


def make_accelerator(recipe: Recipe, folder: Path, device: str | None) -> Accelerator:
    """The engine: one device, or the processes that accelerate launch or torchrun started.

    Raises MissingExtraError without Accelerate, InputError for a missing tracker and a batch that cannot be shared.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError:
        raise MissingExtraError("accelerate, which trains,", "train") from None
    if recipe.tracker and find_spec(recipe.tracker) is None:
        raise InputError(f"the tracker {recipe.tracker} is not installed", f"pip install {recipe.tracker}")
    AcceleratorState._reset_state()  # one process may train several times, in different precisions
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.grad_accumulation,
        log_with=recipe.tracker,
        project_dir=folder,
    )
    share = accelerator.num_processes * recipe.grad_accumulation
    if recipe.batch_size % share:
        raise InputError(
            f"a batch of {recipe.batch_size} does not split into {share} equal parts", f"batch_size={share * 16}"
        )
    if is_sharded(accelerator) and recipe.ema:
        raise InputError("an average of the weights (ema=) does not go with FSDP", "leave out ema=")
    if is_sharded(accelerator) and recipe.beta_decay:
        raise InputError("a pull on the betas (beta_decay=) does not go with FSDP", "leave out beta_decay=")
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the weights are split over the processes (FSDP)."""
    return str(accelerator.distributed_type.value) == "FSDP"


def alone(train: Callable[_P, _R]) -> Callable[_P, _R]:
    """A training that holds its `out_dir`: a second one there at the same time raises InputError.

    With several processes the first one holds it for all.
    """
    signature = inspect.signature(train)

    @wraps(train)
    def holding(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        folder = Path(signature.bind(*args, **kwargs).arguments["out_dir"])
        with ExitStack() as stack:
            if os.environ.get("RANK", "0") == "0":
                _make_folder(folder)
                try:
                    held = stack.enter_context(hold(folder))
                except OSError:  # no locks here
                    held = True
                if not held:
                    raise InputError(f"another training is at work in {folder}", "wait for it, or name another folder")
            return train(*args, **kwargs)

    return holding


def prepare_folder(accelerator: Accelerator, folder: Path, *, resume: bool, force: bool) -> None:
    """Make the folder, and see to what an earlier training left there. Raises InputError where it must not go."""
    if accelerator.is_main_process:
        _make_folder(folder)
        sweep(folder)
        sweep_states(folder)
    accelerator.wait_for_everyone()
    old = [name for name in (BEST, LAST, _EPOCHS) if (folder / name).exists()]
    if force:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            clear_states(folder)
            for name in old:
                (folder / name).unlink()
    check_folder(folder, resume=resume, force=force)
    accelerator.wait_for_everyone()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror}", "name another folder") from None


def check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Raise InputError where the folder holds a training that is neither to be gone on with nor to be replaced.

    So where it cannot be made, or written to.
    """
    check_folder_place(folder)
    old = [name for name in (BEST, LAST, _EPOCHS) if (folder / name).exists()]
    if force:
        return
    if has_state(folder) and not resume:
        raise InputError(f"{folder} holds a training", "go on with resume=True, or start again with force=True")
    if old and not has_state(folder):
        raise InputError(f"{folder / old[0]} exists already", "start again with force=True, or name another folder")


def save_weights(
    accelerator: Accelerator,
    trained: nn.Module,
    copy: nn.Module | None,
    folder: Path,
    *,
    spec: ModelSpec,
    plan: Plan,
    recipe: dict[str, Any],
    example: Example | KeptExample | None,
    progress: Progress,
) -> None:
    """Write last.safetensors, best.safetensors if the last epoch was the best, and epochs.json.

    `copy` is a module as the checkpoint's reader will have it, where the trained one computes otherwise (in mixed
    precision) or is in pieces.
    """
    if copy is not None:
        state = accelerator.get_state_dict(trained)
        if accelerator.is_main_process:
            copy.load_state_dict(state)
    if not accelerator.is_main_process:
        return
    row = progress.rows[-1]
    extra = {**recipe, "epoch": row.epoch, "top1": row.top1, "val_loss": row.val_loss}
    for name in (LAST, BEST) if progress.best is row else (LAST,):
        save_checkpoint(
            copy or trained,
            folder / name,
            spec=spec.trained(recipe["data"]),
            plan=plan,
            recipe=extra,
            example=example,
            force=True,
        )
    rows = ",\n".join(row.model_dump_json() for row in progress.rows)
    write_text(folder / _EPOCHS, f"[{rows}]\n", force=True)
