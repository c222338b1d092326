"""Save, load and verify: one .safetensors file whose metadata holds the plan and what it takes to rebuild the model."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from poolswap.errors import InputError, PoolswapError
from poolswap.files import atomic_path, check_writable
from poolswap.fingerprint import Fingerprint, fingerprint
from poolswap.inputs import LARGEST_INPUT, Example, floating_tensor
from poolswap.models.load import ModelSpec, build
from poolswap.models.userfile import split_reference
from poolswap.models.weights import load_into
from poolswap.operators.registry import load_operator
from poolswap.surgery.plan import Plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools
from poolswap.versions import versions

FORMAT = 1
_KEY = "poolswap"
_LARGEST_HEADER = 64 * 2**20
TOLERANCE = 1e-3
NOTHING_TO_COMPARE = "the model's output holds no tensor with a value: nothing can be compared"


class Manifest(BaseModel):
    """What a checkpoint's metadata says.

    `sha256` is over the tensors, in the order of their names; `recipe` is what training did to the weights afterwards.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: int = FORMAT
    model: ModelSpec
    plan: Plan
    fingerprint: Fingerprint
    dtype: Literal["float16", "bfloat16", "float32", "float64"] = "float32"
    sha256: str
    versions: dict[str, str] = Field(default_factory=dict)
    recipe: dict[str, Any] | None = None


class Check(BaseModel):
    """One thing that verify looked at: whether it held, and what was seen."""

    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    detail: str


class Verification(BaseModel):
    """What `verify_checkpoint` found."""

    model_config = ConfigDict(frozen=True)

    path: str
    checks: tuple[Check, ...]
    manifest: Manifest

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return all(check.ok for check in self.checks)


def default_name(spec: ModelSpec, plan: Plan) -> str:
    """`resnet50-softpool.safetensors`, after the model and the operators that the plan brings in."""
    operators = "-".join(name.rpartition(":")[2] for name in plan.operators)
    stem = spec.name.rpartition(":")[2] if spec.source == "file" else spec.name
    return f"{stem.replace('/', '-')}-{operators}pool.safetensors"


def save_checkpoint(
    model: nn.Module,
    path: Path | str,
    *,
    spec: ModelSpec,
    plan: Plan,
    recipe: dict[str, Any] | None = None,
    example: Example | None = None,
    force: bool = False,
) -> Manifest:
    """Write the swapped model with its plan, the source of its weights, and a fingerprint of its outputs.

    Raises InputError where the file exists (unless `force`) or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path.name} must end in .safetensors", f"name it {path.stem}.safetensors")
    check_writable(path, force=force)
    tensors = _separate(model.state_dict())
    manifest = Manifest(
        model=spec,
        plan=plan,
        fingerprint=fingerprint(model, spec.input_size, example=example),
        dtype=_dtype(model),
        sha256=_digest(tensors),
        versions=versions(),
        recipe=recipe,
    )
    with atomic_path(path, force=force) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", _KEY: manifest.model_dump_json(exclude_defaults=True)})
    return manifest


def read_manifest(path: Path | str) -> Manifest:
    """What a checkpoint says of itself, without its weights. Raises InputError as `load_checkpoint` does."""
    return _read(Path(path), weights=False)[0]


def load_checkpoint(path: Path | str, *, trust_code: bool = False) -> tuple[nn.Module, Manifest]:
    """(model in eval mode, manifest): the architecture is built, swapped by the plan, and given the file's weights.

    Nothing in the file is executed, and no memory is taken beyond what its tensors need. Raises InputError for a file
    that is not a sound checkpoint of this format.
    """
    path = Path(path)
    manifest, tensors = _read(path)
    files = _user_files(manifest)
    if files and not trust_code:
        raise InputError(
            f"{path} was made from {files[0]}, and loading it would run that file",
            "if you trust the file, load with trust_code=True",
        )
    for operator in manifest.plan.operators:
        load_operator(operator)
    try:
        _check_shapes(manifest, tensors, path)
        model = build(manifest.model)
        swap_pools(model, manifest.plan)
    except InputError as error:
        raise InputError(f"{path} does not fit its own model: {error.message}", error.hint) from error
    model.to(getattr(torch, manifest.dtype))
    load_into(model, tensors, str(path))
    return model.eval(), manifest


def verify_checkpoint(path: Path | str, *, tolerance: float = TOLERANCE, trust_code: bool = False) -> Verification:
    """Rebuild the model from the file and hold it against what the file says of itself.

    Checks that the plan's sites are sites of the stock model, and that the outputs on the fingerprint's input are the
    stored ones within `tolerance` (relative). Raises InputError for a file that cannot be loaded at all.
    """
    model, manifest = load_checkpoint(path, trust_code=trust_code)
    tensors, outputs = _check_tensors(model, manifest), _check_outputs(model, manifest, tolerance)
    restore(model)  # the plan is held against the stock model
    checks = tensors, _check_plan(model, manifest), outputs
    return Verification(path=str(path), checks=checks, manifest=manifest)


def _check_tensors(model: nn.Module, manifest: Manifest) -> Check:
    state = model.state_dict()
    sound = _digest(state) == manifest.sha256
    detail = f"{len(state)} tensors, {'unchanged' if sound else 'changed'} since they were saved"
    return Check(name="file", ok=sound, detail=detail)


def _check_outputs(model: nn.Module, manifest: Manifest, tolerance: float) -> Check:
    stored = manifest.fingerprint
    seen = fingerprint(model, manifest.model.input_size, seed=stored.seed, batch=stored.batch)
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
        sites = {site.path: site for site in find_pools(stock, spec.input_size)}
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


def _user_files(manifest: Manifest) -> list[str]:
    """The files of the user's own that make the model and its operators, as path/to/file.py:name."""
    named = [manifest.model.name] if manifest.model.source == "file" else []
    return [*named, *(name for name in manifest.plan.operators if split_reference(name) is not None)]


def _read(path: Path, *, weights: bool = True) -> tuple[Manifest, dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}", "make one with poolswap convert MODEL")
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise InputError(
                    f"{path} is not a poolswap checkpoint",
                    "give it to convert: poolswap convert MODEL --checkpoint FILE",
                )
            manifest = _manifest(metadata[_KEY], path)
            names = file.keys() if weights else ()
            return manifest, {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}", "copy or make it again") from None


def _check_header(path: Path) -> None:
    """Refuse what is no safetensors file by its first bytes, before anything parses it."""
    with path.open("rb") as file:
        start = file.read(9)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    if start[8:9] != b"{" or not 2 <= length <= min(_LARGEST_HEADER, path.stat().st_size - 8):
        raise InputError(f"{path} is not a safetensors file, or is cut off", "copy or make it again")


def _manifest(text: str, path: Path) -> Manifest:
    try:
        document = json.loads(text)
        version = document.get("format", FORMAT) if isinstance(document, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise InputError(f"{path} has format {version}, newer than this poolswap reads", "pip install -U poolswap")
        manifest = Manifest.model_validate(document)
    except (ValidationError, ValueError, RecursionError) as error:
        where = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        field = ".".join(map(str, where["loc"])) or "metadata"
        raise InputError(f"the metadata of {path} is damaged: {field}: {where['msg']}", "make it again") from None
    size = manifest.model.input_size
    if (
        len(size) not in (2, 3, 4)
        or min(size) < 1
        or torch.Size(size).numel() * manifest.fingerprint.batch > LARGEST_INPUT
    ):
        raise InputError(f"the metadata of {path} has an absurd input size {size}", "make it again")
    return manifest


def _check_shapes(manifest: Manifest, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Hold the file against the architecture on the meta device first, where absurd sizes take no memory."""
    if manifest.model.source == "file":
        return
    shapes = None
    with suppress(RuntimeError, NotImplementedError):  # a few architectures cannot be built there
        model = build(manifest.model, "meta")
        swap_pools(model, manifest.plan)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if shapes is not None and shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        wrong = [
            n for n in {**shapes, **tensors} if n not in shapes or n not in tensors or shapes[n] != tensors[n].shape
        ]
        raise InputError(f"its tensors differ at {', '.join(wrong[:3])}", "make it again")


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


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _dtype(model: nn.Module) -> Any:
    like = floating_tensor(model)
    return str(torch.float32 if like is None else like.dtype).removeprefix("torch.")
