"""Save, load and verify: one .safetensors file whose metadata holds the plan and what it takes to rebuild the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from poolswap.errors import InputError, PoolswapError, first_line
from poolswap.example import KeptExample
from poolswap.files import check_writable
from poolswap.fingerprint import fingerprint
from poolswap.inputs import Example, floating_tensor
from poolswap.manifest import Manifest, Saved, digest_of, read, write
from poolswap.models.load import ModelSpec, build
from poolswap.models.weights import load_into
from poolswap.surgery.plan import Plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools
from poolswap.versions import versions

TOLERANCE = 1e-3
NOTHING_TO_COMPARE = "the model's output holds no tensor with a value: nothing can be compared"


class Check(BaseModel):
    """One thing that verify looked at: whether it held, and what was seen."""

    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    detail: str


class Verification(BaseModel):
    """What `verify_checkpoint` found. `digest` is over the metadata, a digest of the tensors among them: over all."""

    model_config = ConfigDict(frozen=True)

    path: str
    checks: tuple[Check, ...]
    manifest: Manifest
    digest: str

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return all(check.ok for check in self.checks)


def default_name(model: str, operators: Iterable[str]) -> str:
    """`resnet50-softpool.safetensors`, after the names of the model and of the operators that a plan brings in."""
    coming = "-".join(name.rpartition(":")[2] for name in operators)
    return f"{model.rpartition(':')[2].replace('/', '-')}-{coming}pool.safetensors"


def save_checkpoint(
    model: nn.Module,
    path: Path | str,
    *,
    spec: ModelSpec,
    plan: Plan,
    recipe: dict[str, Any] | None = None,
    example: Example | KeptExample | None = None,
    force: bool = False,
) -> Manifest:
    """Write the swapped model with its plan, the source of its weights, and a fingerprint of its outputs.

    `example` is what its forward takes where that is not one batch; another checkpoint's `manifest.example` is kept as
    it stands.

    Raises InputError where the file exists (unless `force`) or cannot be written; CheckError where the outputs, or a
    number among the options, are NaN or infinite.
    """
    path = Path(path)
    check_target(path, model, force=force)
    tensors = _separate(model.state_dict())
    kept = example if isinstance(example, KeptExample) or example is None else KeptExample.of(example)
    manifest = Manifest(
        model=spec,
        plan=plan,
        fingerprint=fingerprint(model, spec.input_size, example=kept.make(seed=0) if kept else None),
        example=kept,
        dtype=_dtype(model),
        sha256=digest_of(tensors),
        versions=versions(),
        recipe=recipe,
    )
    write(path, tensors, manifest, force=force)
    return manifest


def check_target(path: Path, model: nn.Module | None = None, *, force: bool = False) -> None:
    """Raise InputError where a checkpoint cannot be written here, or cannot hold the model."""
    if path.suffix != ".safetensors":
        raise InputError(f"{path.name} must end in .safetensors", f"name it {path.stem}.safetensors")
    check_writable(path, force=force)
    for name, value in model.state_dict().items() if model is not None else ():
        if not isinstance(value, Tensor) or value.is_quantized or value.layout is not torch.strided:
            raise InputError(
                f"{name} in the model's state is no plain tensor, and a checkpoint holds nothing else",
                "swap and save the model before it is quantised or compressed",
            )


def load_checkpoint(path: Path | str, *, trust_code: bool = False) -> tuple[nn.Module, Manifest]:
    """(model in eval mode, manifest): the architecture is built, swapped by the plan, and given the file's weights.

    Nothing in the file is executed, and no memory is taken beyond what its tensors need. Raises InputError for a file
    that is not a sound checkpoint of this format.
    """
    return _rebuilt(read(Path(path)), path, trust_code=trust_code)


def _rebuilt(saved: Saved, path: Path | str, *, trust_code: bool) -> tuple[nn.Module, Manifest]:
    manifest, tensors = saved.manifest, saved.tensors
    files = manifest.user_files
    if files and not trust_code:
        raise InputError(
            f"{path} was made from {files[0]}, and loading it would run that file",
            "if you trust the file, load with trust_code=True",
        )
    manifest.plan.run_files()
    try:
        _check_shapes(manifest, tensors)
        model = build(manifest.model)
        swap_pools(model, manifest.plan, prove=False)
    except InputError as error:
        raise InputError(f"{path} does not fit its own model: {error.message}", error.hint) from error
    _cast(model, getattr(torch, manifest.dtype), tensors)
    load_into(model, tensors, str(path))
    return model.eval(), manifest


def verify_checkpoint(path: Path | str, *, tolerance: float = TOLERANCE, trust_code: bool = False) -> Verification:
    """Rebuild the model from the file and hold it against what the file says of itself.

    Checks that the metadata and the tensors are as they were saved, that the plan's sites are sites of the stock model,
    and that the outputs on the fingerprint's input are the stored ones within `tolerance` (relative). It vouches for
    the file alone: whoever makes a file can write into it what they like, and its digest too. Who made it is known by
    the digest that its maker published. Raises InputError for a file that cannot be loaded at all.
    """
    saved = read(Path(path))
    model, manifest = _rebuilt(saved, path, trust_code=trust_code)
    tensors, outputs = _check_tensors(model, manifest), _check_outputs(model, manifest, tolerance)
    restore(model)  # the plan is held against the stock model
    checks = _check_metadata(saved), tensors, _check_plan(model, manifest), outputs
    return Verification(path=str(path), checks=checks, manifest=manifest, digest=saved.digest)


def _check_metadata(saved: Saved) -> Check:
    detail = f"{'unchanged' if saved.intact else 'changed'} since they were saved"
    return Check(name="metadata", ok=saved.intact, detail=f"model, plan, weights' source and recipe {detail}")


def _check_tensors(model: nn.Module, manifest: Manifest) -> Check:
    state = model.state_dict()
    sound = digest_of(state) == manifest.sha256
    detail = f"{len(state)} tensors, {'unchanged' if sound else 'changed'} since they were saved"
    return Check(name="file", ok=sound, detail=detail)


def _check_outputs(model: nn.Module, manifest: Manifest, tolerance: float) -> Check:
    stored, size = manifest.fingerprint, manifest.model.input_size
    try:
        seen = fingerprint(model, size, seed=stored.seed, batch=stored.batch, example=manifest.inputs)
    except PoolswapError as error:
        return Check(name="fingerprint", ok=False, detail=error.message)
    except Exception as error:  # of the model's own forward, which may not fit the input that the file says
        detail = f"the model does not run on an input of size {size}: {first_line(error)}"
        return Check(name="fingerprint", ok=False, detail=detail)
    distance = seen.distance(stored)
    exact = "bit-identical" if seen.sha256 == stored.sha256 else f"relative difference {distance:.1e}"
    same_input = seen.input_sha256 == stored.input_sha256
    if not stored.compares:
        return Check(name="fingerprint", ok=False, detail=NOTHING_TO_COMPARE)
    detail = exact if same_input else "the recipe gives another input with this version of torch"
    return Check(name="fingerprint", ok=same_input and distance <= tolerance, detail=detail)


def _check_plan(stock: nn.Module, manifest: Manifest) -> Check:
    spec = manifest.model
    try:
        found = find_pools(stock, spec.input_size, example=manifest.inputs, include=manifest.plan.include)
        sites = {site.path: site for site in found}
    except PoolswapError as error:
        return Check(name="plan", ok=False, detail=error.message)
    wrong = [
        swap.site.path
        for swap in manifest.plan.swaps
        if swap.site.path not in sites or sites[swap.site.path].call != swap.site.call
    ]
    if wrong:
        return Check(name="plan", ok=False, detail=f"not a site of {spec.reference} as planned: {', '.join(wrong[:3])}")
    paths = manifest.plan.paths
    return Check(name="plan", ok=True, detail=f"{len(paths)} replaced of {len(sites)} sites of {spec.reference}")


def _check_shapes(manifest: Manifest, tensors: Mapping[str, Tensor]) -> None:
    """Hold the file against the architecture on the meta device first, where absurd sizes take no memory."""
    if manifest.model.source == "file":
        return
    shapes = None
    with suppress(RuntimeError, NotImplementedError):  # a few architectures cannot be built there
        model = build(manifest.model, "meta")
        swap_pools(model, manifest.plan, prove=False)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if shapes is not None and shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        wrong = [
            n for n in {**shapes, **tensors} if n not in shapes or n not in tensors or shapes[n] != tensors[n].shape
        ]
        raise InputError(f"its tensors differ at {', '.join(wrong[:3])}", "make it again")


def _cast(model: nn.Module, dtype: torch.dtype, tensors: Mapping[str, Tensor]) -> None:
    """Give every floating point tensor the dtype that the file has it in, and those outside of the file `dtype`."""
    if _dtype(model) != str(dtype).removeprefix("torch."):
        model._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    for name, held in model.state_dict(keep_vars=True).items():
        if name in tensors and held.is_floating_point() and held.dtype != tensors[name].dtype:
            held.data = held.data.to(tensors[name].dtype)


def _dtype(model: nn.Module) -> Any:
    like = floating_tensor(model)
    return str(torch.float32 if like is None else like.dtype).removeprefix("torch.")


def _separate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no storage, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in state_dict.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate
