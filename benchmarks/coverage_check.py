"""What poolswap does with one architecture, held against what really runs.

The ground truth is the list of pooling kernels that the dispatcher ran in one forward; it shares no code with
`surgery.sites`. A window kernel is torch's max or average pooling (`aten::max_pool*`, `aten::avg_pool*`), with one
exemption: an average whose one unpadded window is the whole map, of nine or more elements, is a global mean. Adaptive
pools and means are other kernels: their windows follow the map.
"""

from __future__ import annotations

import copy
import fnmatch
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from poolswap.errors import first_line
from poolswap.inputs import fitted, make_inputs, tensors_in
from poolswap.models.load import ModelSpec, Weights, build, create_model, default_input_size
from poolswap.surgery.lift import lift
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import PoolSite, find_pools
from poolswap.surgery.swap import restore, swap_pools

SIDE = 128  # of a detector's own resizing: 800 takes a minute on a CPU and pools in the same places


@dataclass
class Result:
    """One row: counts of one forward in eval mode, and what the checks said. `problem` is None where all is well."""

    model: str
    family: str
    versions: str
    input_size: list[int] = field(default_factory=list)
    device: str = "meta"
    ran: int = 0  # window kernels
    found: int = 0  # window sites
    functional: int = 0
    written_out: int = 0  # windows that are no pooling call, listed as not replaceable
    train_only: int = 0
    unreplaceable: list[str] = field(default_factory=list)
    left: int = 0  # window kernels after the swap of every replaceable site
    second_size: list[int] | None = None
    trained: bool | None = None  # whether a training step ran after the swap; None where the stock model's does not
    lifted: str | None = None  # modes in which lifting alone was bit-identical
    pools: list[str] = field(default_factory=list)  # classes of pool modules
    owners: list[str] = field(default_factory=list)  # classes of the owners of functional calls
    problem: str | None = None
    seconds: float = 0.0  # of one core

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def versions() -> str:
    """The libraries' versions, which a result holds for."""
    return f"timm {timm.__version__}, torchvision {torchvision.__version__}, torch {torch.__version__}"


def references(pattern: str = "*") -> list[str]:
    """Every architecture of both libraries whose name matches."""
    names = [f"torchvision:{name}" for name in torchvision.models.list_models()]
    names += [f"timm:{name}" for name in timm.list_models()]
    return [
        name for name in names if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.partition(":")[2], pattern)
    ]


def family(reference: str) -> str:
    """The library's own file of the architecture: "timm resnet", "torchvision detection/retinanet"."""
    source, _, name = reference.partition(":")
    if source == "timm":
        return f"timm {timm.models._registry._model_to_module[name]}"
    module = torchvision.models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
    return f"torchvision {module.replace('.', '/')}"


class _Kernels(TorchDispatchMode):
    """The window kernels that ran: (operation, elements of the output)."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.removeprefix("mkldnn_").startswith(("max_pool", "avg_pool")) and "backward" not in name:
            y = output[0] if isinstance(output, tuple) else output
            op = "max" if "max" in name else "avg"
            if not (op == "avg" and _is_whole_map(args[0], args[1], y)):
                self.ran.append((op, y.numel()))
        return output


def _is_whole_map(x: Tensor, kernel: Sequence[int], y: Tensor) -> bool:
    """Whether the one window of an output of size 1 is the whole map, or larger than it."""
    kernel = tuple(kernel) * (x.dim() - 2) if len(kernel) == 1 else tuple(kernel)
    spatial, single = x.shape[-len(kernel) :], y.shape[-len(kernel) :].numel() == 1
    return single and all(k >= n for k, n in zip(kernel, spatial, strict=True)) and prod(kernel) >= 9


def run(model: nn.Module, inputs: Any) -> tuple[list[tuple[str, int]], list[tuple[int, ...]]]:
    """(window kernels that ran, shapes of the outputs) of one forward without gradients.

    A detector's outputs are its backbone's: how many boxes it finds follows the values, not the shapes.
    """
    outputs: list[Any] = []
    last: Any = model.backbone if isinstance(getattr(model, "transform", None), GeneralizedRCNNTransform) else model
    handle = last.register_forward_hook(lambda module, args, output: outputs.append(output))
    args, kwargs = fitted(model, inputs)
    kernels = _Kernels()
    try:
        with torch.no_grad(), kernels:
            model(*args, **kwargs)
    finally:
        handle.remove()
    return kernels.ran, [tuple(leaf.shape) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def example_of(reference: str) -> Any:
    """The input of models that take other things than one batch of images."""
    if ":raft_" in reference:
        return [torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)]
    return None


def check(reference: str) -> Result:
    """All checks of one architecture."""
    started = time.process_time()  # what others do on the machine does not count
    result = Result(reference, family(reference), versions())
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            _check(reference, result)
        except Exception as error:
            result.problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    result.seconds = round(time.process_time() - started, 2)
    return result


def _check(reference: str, result: Result) -> None:
    example = example_of(reference)
    source, _, name = reference.partition(":")
    try:
        model, size = _on_meta(source, name)
        inputs = make_inputs(model, size, 1, device="meta", example=example)
        ran, shapes = run(model, inputs)
    except Exception:
        result.device = "cpu"
        model, size = _on_cpu(reference)
        inputs = make_inputs(model, size, 1, example=example)
        ran, shapes = run(model, inputs)
    result.input_size, result.ran = list(size), len(ran)
    sites = find_pools(model, size, example=example)
    listed = [site for site in sites if site.scope == "window" and site.only != "train"]
    result.written_out = sum(site.kind == "written out" for site in listed)
    windows = [site for site in listed if site.kind != "written out"]
    result.found = len(windows)
    result.functional = sum(site.kind == "functional" for site in windows)
    result.train_only = sum(site.scope == "window" and site.only == "train" for site in sites)
    result.unreplaceable = sorted({str(site.reason) for site in windows if not site.replaceable})
    modules = dict(model.named_modules())
    result.pools = sorted({type(modules[s.path]).__qualname__ for s in sites if s.kind == "module"})
    owners = {type(modules[s.owner]) for s in sites if s.kind == "functional" and s.scope == "window"}
    result.owners = sorted(f"{owner.__module__}.{owner.__qualname__}" for owner in owners)
    if [(site.op, prod(site.output_shape)) for site in windows] != ran:
        result.problem = f"{len(ran)} window kernels ran, {len(windows)} window sites were found, or others"
        return
    if all(site.left_out for site in windows):
        return
    trains = _trains(copy.deepcopy(model), size, result.device, example)
    second = _second(model, size, result.device) if example is None else None
    swap_pools(model, make_plan(sites), example=example)
    left, after = run(model, inputs)
    kept = sum(site.left_out is not None for site in windows)
    result.left = len(left)
    if len(left) != kept:
        result.problem = f"{len(left)} window kernels left where {kept} cannot be replaced"
    elif after != shapes:
        result.problem = f"output shapes {shapes} became {after}"
    elif second is not None:
        other, other_inputs, other_shapes = second
        result.second_size = list(other)
        left, after = run(model, other_inputs)
        if after != other_shapes:
            result.problem = f"at {other} output shapes {other_shapes} became {after}"
        elif len(left) > kept:
            result.problem = f"at {other} {len(left)} window kernels left where {kept} cannot be replaced"
    if result.problem is None and trains is None:
        error = _trains(copy.deepcopy(model), size, result.device, example)
        result.trained = error is None
        result.problem = error and f"a training step ran before the swap, and not after: {error}"
    if result.problem is None and result.functional:
        restore(model)
        result.lifted = _lifted_alike(reference, model, size, sites, example)
        if result.lifted is None:
            result.problem = "lifting alone changed an output"


def _on_meta(source: str, name: str) -> tuple[nn.Module, tuple[int, ...]]:
    if source == "torchvision" and "detection" in torchvision.models.get_model_builder(name).__module__:
        raise NotImplementedError("boxes are picked by value")
    spec = ModelSpec(source=source, name=name, input_size=(3, 224, 224), weights=Weights(kind="random", seed=0))
    model = build(spec, "meta").eval()
    return model, default_input_size(model, spec)


def _on_cpu(reference: str) -> tuple[nn.Module, tuple[int, ...]]:
    model, spec = create_model(reference)
    if hasattr(transform := getattr(model, "transform", None), "min_size") and "ssd" not in reference:
        transform.min_size, transform.max_size = (SIDE,), SIDE
    return model, spec.input_size


def _second(model: nn.Module, size: Sequence[int], device: str) -> tuple[tuple[int, ...], Any, Any] | None:
    """(size, inputs, output shapes) of another input size, odd where the model takes one; None for a fixed size."""
    *rest, h, w = size
    for spatial in ((h + 1, w - 31), (h + 1, w + 1), (h + 32, w + 64), (h * 2, w * 2)):
        other = (*rest, *spatial)
        inputs = make_inputs(model, other, 1, device=device)
        try:
            return other, inputs, run(model, inputs)[1]
        except Exception:
            continue
    return None


def _trains(model: nn.Module, size: Sequence[int], device: str, example: Any) -> str | None:
    """Forward, backward and an optimizer step in train mode at batch 2: what went wrong, or None."""
    try:
        args, kwargs = fitted(model.train(), make_inputs(model, size, 2, device=device, example=example))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        outputs = [y for y in tensors_in(model(*args, **kwargs)) if y.requires_grad]
        torch.stack([y.float().mean() for y in outputs]).sum().backward()
        optimizer.step()
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)[:200]}"
    return None


def _lifted_alike(
    reference: str, model: nn.Module, size: Sequence[int], sites: Sequence[PoolSite], example: Any
) -> str | None:
    """The modes in which a real forward gives the same bits before and after lifting; None where one does not."""
    stock = model if not any(p.is_meta for p in model.parameters()) else _on_cpu(reference)[0]
    lifted = copy.deepcopy(stock)
    lift(lifted, sites)
    modes = []
    for train in (False, True):
        for spatial in ((96, 96), (128, 128), tuple(size[-2:])):
            inputs = make_inputs(stock, (*size[:-2], *spatial), 2, example=example)
            try:
                before = _outputs(stock, inputs, train)
            except Exception:
                continue
            after = _outputs(lifted, inputs, train)
            if len(before) != len(after) or not all(map(_same_bits, before, after)):
                return None
            modes.append("train" if train else "eval")
            break
    return " ".join(modes) or None


def _outputs(model: nn.Module, inputs: Any, train: bool) -> list[Tensor]:
    torch.manual_seed(1)
    args, kwargs = fitted(model.train(train), inputs)
    with torch.no_grad():
        output = model(*tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, args), **kwargs)
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal, NaN where the other is NaN: random weights overflow in some models."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
