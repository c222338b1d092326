"""Real architectures: after `--layers all` no stock window pooling runs, and no shape has changed.

They run on the meta device, where the dispatcher still names every kernel; a detector runs on the CPU.
"""

import pytest
import torch
from kernels import window_kernels
from torch.utils._pytree import tree_leaves

from poolswap.errors import NothingToReplaceError
from poolswap.inputs import make_inputs
from poolswap.models.load import ModelSpec, Weights, build, create_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

# (name, input size, another one, window sites, of which functional)
MODELS = [
    ("timm:resnet50", (3, 224, 224), (3, 225, 191), 1, 0),
    ("timm:resnet50d", (3, 224, 224), (3, 225, 191), 4, 0),
    ("timm:densenet121", (3, 224, 224), (3, 225, 191), 4, 0),
    ("timm:vgg16_bn", (3, 224, 224), (3, 256, 256), 5, 0),
    ("timm:inception_v3", (3, 299, 299), (3, 320, 301), 13, 11),
    ("torchvision:inception_v3", (3, 299, 299), (3, 320, 301), 13, 11),
    ("torchvision:googlenet", (3, 224, 224), (3, 225, 191), 13, 0),
    ("timm:ghostnetv2_100", (3, 224, 224), (3, 256, 192), 14, 14),
    ("timm:nextvit_small", (3, 224, 224), (3, 256, 256), 6, 0),
    ("timm:mobilenetv5_300m", (3, 768, 768), (3, 768, 768), 1, 1),
    ("timm:dla34", (3, 224, 224), (3, 256, 192), 6, 0),
    ("timm:pnasnet5large", (3, 331, 331), (3, 299, 299), 50, 0),
    ("torchvision:s3d", (3, 16, 224, 224), (3, 16, 256, 256), 13, 0),
    ("torchvision:deeplabv3_resnet50", (3, 224, 224), (3, 225, 191), 1, 0),
]


def shapes(model, size):
    args, _ = make_inputs(model, size, 2, device="meta")
    with torch.no_grad():
        return [tuple(leaf.shape) for leaf in tree_leaves(model(*args))]


@pytest.mark.parametrize(("reference", "size", "other", "windows", "functional"), MODELS)
def test_no_stock_window_pooling_is_left_and_shapes_stay(reference, size, other, windows, functional):
    source, _, name = reference.partition(":")
    spec = ModelSpec(source=source, name=name, input_size=size, weights=Weights(kind="random", seed=0))
    model = build(spec, "meta").eval()
    sites = [site for site in find_pools(model, size) if site.scope == "window" and site.only != "train"]
    assert (len(sites), sum(site.kind == "functional" for site in sites)) == (windows, functional)
    x = torch.empty(2, *size, device="meta")
    assert len(window_kernels(model, x)) == windows
    before = shapes(model, size), shapes(model, other)
    swap_pools(model, make_plan(sites))
    assert window_kernels(model, x) == []
    assert (shapes(model, size), shapes(model, other)) == before


@pytest.mark.parametrize("reference", ["timm:efficientnet_b0", "torchvision:r3d_18"])
def test_strided_architectures_have_nothing_to_replace(reference):
    model, spec = create_model(reference)
    with pytest.raises(NothingToReplaceError, match="no window pooling"):
        make_plan(find_pools(model, spec.input_size))


def test_a_detector_runs_on_the_cpu():
    model, spec = create_model("torchvision:fasterrcnn_resnet50_fpn", input_size=(3, 128, 128))
    model.transform.min_size = (128,)
    sites = find_pools(model, spec.input_size)
    pools = ["backbone.body.maxpool", "backbone.fpn.extra_blocks.pool_1"]
    assert [site.path for site in sites] == [*pools, "roi_heads.box_roi_pool"]
    plan = make_plan(sites)
    assert list(plan.paths) == pools
    swap_pools(model, plan)
    args, _ = make_inputs(model, spec.input_size, 1)
    assert window_kernels(model, *args) == []
