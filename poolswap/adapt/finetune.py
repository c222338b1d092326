"""Training after a swap, or from scratch, on Hugging Face Accelerate: one loop, on one device or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from timm.utils import ModelEmaV3, random_seed
from torch import Tensor, nn

from poolswap.adapt.anneal import Annealing
from poolswap.adapt.betas import LayerBeta, beta_penalty, layer_betas, mean_beta
from poolswap.adapt.content import content_digest
from poolswap.adapt.data import Data, is_iterable
from poolswap.adapt.draws import own_draws
from poolswap.adapt.engine import BEST, LAST, alone, is_sharded, make_accelerator, prepare_folder, save_weights
from poolswap.adapt.evaluate import check_classifier, evaluate
from poolswap.adapt.loaders import SEED_STRIDE, loaders
from poolswap.adapt.parts import freeze, make_loss, make_mixup, make_optimizer, make_schedule
from poolswap.adapt.recipe import Recipe
from poolswap.adapt.state import EpochRow, Progress, load_state, save_state
from poolswap.errors import CheckError, InputError
from poolswap.example import KeptExample
from poolswap.inputs import Example
from poolswap.models.load import ModelSpec, create_model
from poolswap.surgery.plan import Plan
from poolswap.surgery.swap import swap_pools

_SEEDS = 2**32  # numpy's generator takes no more


class FinetuneResult(BaseModel):
    """What a training made: its epochs, the best one, two checkpoints, and what became of SoftPool's betas.

    Their positions are those of one batch of validation images.
    """

    model_config = ConfigDict(frozen=True)

    rows: tuple[EpochRow, ...]
    best: EpochRow
    best_path: Path
    last_path: Path
    betas: tuple[LayerBeta, ...]
    updates: int
    seconds: float


@alone
def finetune(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    out_dir: Path | str,
    *,
    spec: ModelSpec,
    plan: Plan | None = None,
    example: Example | KeptExample | None = None,
    resume: bool = True,
    force: bool = False,
    device: str | None = None,
    on_epoch: Callable[[EpochRow], None] = lambda row: None,
    advance: Callable[[int], None] = lambda updates: None,
) -> FinetuneResult:
    """Train the model in place. `out_dir` gets best.safetensors, last.safetensors, epochs.json and the state to resume.

    `plan` is what the model was swapped by; None is the stock model, the control. `example` is kept in the checkpoints,
    as `save_checkpoint` says. The model ends with the weights of
    the last epoch (with `recipe.ema`: their average), not of the best one, which is chosen by the validation images;
    under FSDP only the files have them. With `resume` a training that stopped goes on, and on the CPU ends with the
    same bits; `force` starts again over an old one. device="cpu" leaves a GPU alone.

    Raises InputError for a recipe or data that does not fit, CheckError where the loss is not finite: the checkpoints
    of the epoch before are then intact.
    """
    began, folder = time.perf_counter(), Path(out_dir)
    plan = plan or Plan(model=spec.reference, input_size=spec.input_size)
    accelerator = make_accelerator(recipe, folder, device)
    rank, world, steps = accelerator.process_index, accelerator.num_processes, recipe.grad_accumulation
    if is_iterable(data.train) and world * steps > 1:
        raise InputError("streaming data trains in one process without accumulation", "use a folder, torch/ or hfds/")
    train, val = loaders(data, recipe.batch_size, recipe.workers, recipe.seed, recipe.on_bad_image)
    per_epoch, total = len(train), len(train) * recipe.epochs
    train = train.shard(rank, world, recipe.batch_size // steps)
    sharded = is_sharded(accelerator)
    val = val if sharded else val.shard(rank, world)
    prepare_folder(accelerator, folder, resume=resume, force=force)

    resting = freeze(model, recipe.freeze)
    model.to(accelerator.device)
    annealing = Annealing(model, plan, recipe.anneal)
    copy = deepcopy(model) if sharded or recipe.mixed_precision != "no" else None
    ema = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    wrapped, optimizer = accelerator.prepare(model, make_optimizer(model, recipe))
    inner = wrapped if sharded else accelerator.unwrap_model(wrapped)
    judged = ema.module if ema else inner
    schedule = make_schedule(optimizer.optimizer, recipe, per_epoch)
    loss_of, mix = make_loss(recipe), make_mixup(recipe, data.num_classes)
    progress = Progress(definition=_definition(recipe, data, spec, plan))
    if resume:
        progress = load_state(accelerator, folder, progress, ema)
        annealing.go_on(progress.updates / total, 1 / total)
    accelerator.init_trackers("poolswap", config={"model": spec.reference, "lr": recipe.lr, "epochs": recipe.epochs})

    def add_up(sums: Tensor) -> Tensor:
        if sharded or world == 1:
            return sums
        added: Tensor = accelerator.reduce(sums.to(accelerator.device), "sum").cpu()
        return added

    advance(progress.updates)
    while progress.updates < total:
        epoch, ticking = progress.updates // per_epoch, time.perf_counter()
        step = progress.updates * steps
        wrapped.train()
        for norm in resting:
            norm.eval()
        rest = (epoch + 1) * per_epoch * steps - step
        for images, targets in islice(train.batches(epoch, step - epoch * per_epoch * steps), rest):
            # Every step draws from a seed of its own: a resumed one draws the same, and no generator is saved.
            random_seed(((recipe.seed * SEED_STRIDE + step) * world + rank) % _SEEDS)
            annealing.set([inner, judged], progress.updates / total)
            schedule(progress.updates)
            images, targets = mix(images.to(accelerator.device), targets.to(accelerator.device))
            with accelerator.accumulate(wrapped):
                with accelerator.autocast(), own_draws(model, plan.paths):
                    logits = wrapped(images)
                    check_classifier(logits, data.num_classes)
                    loss = loss_of(logits, targets)
                mean = float(accelerator.reduce(loss.detach().clone(), "mean"))
                if not math.isfinite(mean):
                    raise CheckError(
                        f"the loss is {mean} in epoch {epoch + 1}, after {progress.updates} updates",
                        f"lower lr={recipe.lr:g} or set clip_grad=1; earlier epochs are safe in {folder}",
                    )
                accelerator.backward(loss + beta_penalty(inner, recipe.beta_decay) if recipe.beta_decay else loss)
                if recipe.clip_grad and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip_grad)
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            progress.loss_sum += mean / steps
            if step % steps == 0:
                progress.updates += 1
                if ema:
                    ema.update(inner, progress.updates)
                advance(1)
                if recipe.state_every and progress.updates % recipe.state_every == 0 and progress.updates % per_epoch:
                    save_state(accelerator, folder, progress, ema)
        progress.updates = (epoch + 1) * per_epoch  # a stream may be shorter than it says
        annealing.set([inner, judged], progress.updates / total)
        found = evaluate(judged, val, shift=None, reduce=add_up)
        row = EpochRow(
            epoch=epoch + 1,
            lr=optimizer.param_groups[0]["lr"],
            train_loss=progress.loss_sum / per_epoch,
            val_loss=found.loss,
            top1=found.top1,
            beta=mean_beta(judged, plan),
            seconds=time.perf_counter() - ticking,
        )
        progress.rows.append(row)
        progress.loss_sum = 0.0
        written: dict[str, Any] = {**recipe.model_dump(mode="json"), "data": data.name, "top1": found.top1}
        source = wrapped if sharded else judged  # a forward of the wrapper would wait for the other processes
        save_weights(
            accelerator,
            source,
            copy,
            folder,
            spec=spec,
            plan=plan,
            recipe=written,
            example=example,
            progress=progress,
        )
        save_state(accelerator, folder, progress, ema)
        accelerator.log(row.model_dump(exclude={"epoch"}, exclude_none=True), step=row.epoch)
        on_epoch(row)

    accelerator.end_training()
    model = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    if ema:
        model.load_state_dict(ema.module.state_dict())
    best = progress.best
    assert best is not None
    return FinetuneResult(
        rows=tuple(progress.rows),
        best=best,
        best_path=folder / BEST,
        last_path=folder / LAST,
        betas=layer_betas(judged, plan, None if sharded else next(iter(val))[0]),
        updates=progress.updates,
        seconds=time.perf_counter() - began,
    )


def from_scratch(spec: ModelSpec, plan: Plan | None = None, *, seed: int = 0) -> tuple[nn.Module, ModelSpec]:
    """The architecture with new random weights, swapped by the plan: training as the papers do. (model, its spec)."""
    model, spec = create_model(
        spec.reference,
        num_classes=spec.num_classes,
        in_chans=spec.in_chans,
        input_size=spec.input_size,
        model_args=spec.model_args,
        seed=seed,
    )
    swap_pools(model, plan or Plan())
    return model, spec


def _definition(recipe: Recipe, data: Data, spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    """What must be the same for a training to be gone on with."""
    free = {"workers", "tracker", "state_every"}
    return {
        **{f"recipe ({key})": value for key, value in recipe.model_dump(mode="json", exclude=free).items()},
        "data": [data.name, data.num_classes, content_digest(data.train), content_digest(data.val)],
        "model": spec.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
    }
