"""The model card of a folder in the Hugging Face layout."""

from __future__ import annotations

from copy import deepcopy

import torch
import yaml
from timm.models import get_pretrained_cfg

from poolswap.export.job import Job
from poolswap.inputs import outputs_of
from poolswap.manifest import Manifest
from poolswap.measure.distance import relative_distance
from poolswap.operators.describe import typed
from poolswap.surgery.plan import Swap
from poolswap.surgery.swap import restore
from poolswap.versions import own_version

_CARD = """---
{front}---
# {name} with {operators} pooling

timm's `{name}` after [poolswap] replaced {count}. It is another function than the stock architecture, so timm refuses
to build it from this folder. Install poolswap, from its index or with `pip install .` in its source, and load it:

```bash
pip install 'poolswap>={version}'
```

```python
import poolswap

model, spec = poolswap.load_model("hf-hub:ORG/NAME")  # where this folder was uploaded; or the path of its download
```

| | |
|---|---|
| Weights | {weights} |
| Input | {size}, {dtype} |
| Accuracy | {accuracy} |
| Drift | {drift:.3g}: how far the outputs are from those of the same weights behind the stock pools, \
|a - b| / |b| on seeded noise |

## Plan

| path | was | is |
|---|---|---|
{rows}

`model.safetensors` holds the whole plan, a fingerprint of the outputs and a digest: `poolswap verify model.safetensors`
rebuilds the model and compares.

[poolswap]: # "pooling surgery for PyTorch"
"""


def card(job: Job) -> str:
    """What was swapped, where the weights are from, what was measured, how to load it."""
    spec, plan = job.manifest.model, job.manifest.plan
    count = len(plan.paths)
    return _CARD.format(
        front=yaml.safe_dump(_front(job.manifest), sort_keys=False),
        name=spec.name,
        operators=", ".join(plan.operators),
        count=f"{count} pooling layer" + "s" * (count != 1),
        version=own_version().partition("+")[0],
        weights=spec.weights,
        size="x".join(map(str, spec.input_size)),
        dtype=job.manifest.dtype,
        accuracy=_accuracy(job.manifest),
        drift=_drift(job),
        rows="\n".join(f"| `{s.site.path}` | {_was(s)} | {_is(s)} |" for s in plan.swaps),
    )


def _front(manifest: Manifest) -> dict[str, object]:
    """License and base model are those of the weights that are in the file, and of no others."""
    front: dict[str, object] = {
        "library_name": "poolswap",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "poolswap", *manifest.plan.operators],
    }
    spec = manifest.model
    if spec.weights.kind == "pretrained":
        license_ = getattr(get_pretrained_cfg(spec.name), "license", None)
        front |= {"license": license_} if license_ else {}
        origin = spec.weights.origin or ""
        front |= {"base_model": origin.removeprefix("hf-hub:")} if origin.count("/") == 1 else {}
    return front


def _accuracy(manifest: Manifest) -> str:
    said = manifest.recipe or {}
    if "top1" not in said:
        return "not measured"
    return f"top-1 {said['top1']:.2f}% on the validation images of {said['data']}"


def _drift(job: Job) -> float:
    stock = deepcopy(job.model)
    restore(stock)
    with torch.no_grad():
        mine, theirs = (outputs_of(model, (job.arguments, {})) for model in (job.model, stock))
    return relative_distance(mine, theirs)


def _was(swap: Swap) -> str:
    return f"{swap.site.op} {swap.site.call or swap.site.scope}"


def _is(swap: Swap) -> str:
    return typed(swap.to, swap.options) + (f", {swap.geometry}" if swap.geometry else "")
