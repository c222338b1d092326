"""The state of a training on disk: replaced at once or not at all, so that a kill at any moment loses only minutes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from poolswap.errors import InputError, first_line

if TYPE_CHECKING:
    from accelerate import Accelerator

_PROGRESS, _EMA, _PARTIAL = "progress.json", "ema.safetensors", ".state-partial"


class EpochRow(BaseModel):
    """One epoch: the mean training loss, the validation results (in percent) and where beta stood at its end."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    top1: float
    beta: float | None = None
    seconds: float = 0.0


class Progress(BaseModel):
    """How far a training is: updates made, loss summed since the epoch began, and the epochs behind it."""

    definition: dict[str, Any]
    updates: int = 0
    loss_sum: float = 0.0
    rows: list[EpochRow] = []

    @property
    def best(self) -> EpochRow | None:
        """The epoch of the highest top-1; the first of equals."""
        return max(self.rows, key=lambda row: row.top1, default=None)


def save_state(accelerator: Accelerator, folder: Path, progress: Progress, ema: nn.Module | None) -> None:
    """Write `state-UPDATES` beside the last one, then remove the last one. Raises InputError for a full disk."""
    try:
        _save_state(accelerator, folder, progress, ema)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the training state cannot be written to {folder}: {first_line(error)}",
            "free some space, then go on with resume=True",
        ) from error


def _save_state(accelerator: Accelerator, folder: Path, progress: Progress, ema: nn.Module | None) -> None:
    target, partial = folder / f"state-{progress.updates:09d}", folder / _PARTIAL
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if ema is not None:
            save_file({name: tensor.contiguous() for name, tensor in ema.state_dict().items()}, partial / _EMA)
        (partial / _PROGRESS).write_text(progress.model_dump_json(), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        sweep_states(folder)
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, folder: Path, fresh: Progress, ema: nn.Module | None) -> Progress:
    """Take up the newest state in the folder; `fresh` where there is none. The state is trusted: it is one's own.

    Raises InputError where it belongs to another recipe, model or data, or is damaged.
    """
    states = _states(folder)
    if not states:
        return fresh
    try:
        progress = Progress.model_validate_json((states[-1] / _PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{states[-1]} is damaged", "start again with force=True, without resume=True") from None
    ours = json.loads(json.dumps(fresh.definition))
    if progress.definition != ours:
        both = {**progress.definition, **ours}
        odd = [key for key in both if progress.definition.get(key) != ours.get(key)]
        raise InputError(
            f"{folder} holds a training of another {', '.join(odd)}",
            "give the same settings, name another folder, or start again with force=True",
        )
    accelerator.load_state(str(states[-1]))
    if ema is not None:
        ema.load_state_dict(load_file(states[-1] / _EMA))
    return progress


def clear_states(folder: Path) -> None:
    """Forget every state."""
    for state in _states(folder):
        shutil.rmtree(state)


def sweep_states(folder: Path) -> None:
    """Remove what a killed training left: a state half written, and those that a newer one has replaced."""
    for left in (folder / _PARTIAL, *_states(folder)[:-1]):
        shutil.rmtree(left, ignore_errors=True)


def has_state(folder: Path) -> bool:
    """Whether there is a training to go on with."""
    return bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    """Oldest first. What merely has such a name is not taken for one: states are removed."""
    return sorted(path for path in folder.glob("state-" + "[0-9]" * 9) if (path / _PROGRESS).is_file())
