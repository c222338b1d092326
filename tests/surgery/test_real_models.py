"""Small architectures with real tensors on the CPU: convert, save, verify in a fresh process, and train a step."""

import json
import subprocess
import sys

import pytest
import torch

from poolswap.checkpoint import save_checkpoint
from poolswap.inputs import make_inputs
from poolswap.load import load_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

FEW = ["timm:resnet10t", "timm:ghostnetv2_100", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"]

MANY = [
    *(f"timm:{name}" for name in ("resnet14t", "resnet18", "resnet18d", "resnet26", "resnet26t", "resnet34")),
    *(f"timm:{name}" for name in ("seresnext26d_32x4d", "skresnet18", "ecaresnext26t_32x4d", "gcresnext26ts")),
    *(f"timm:{name}" for name in ("resnest14d", "resnest26d", "resnext26ts", "eca_resnext26ts", "seresnext26ts")),
    *(f"timm:{name}" for name in ("densenet121", "dla34", "dla46_c", "dla46x_c", "dla60x_c", "ese_vovnet19b_dw")),
    *(f"timm:{name}" for name in ("inception_v3", "inception_v4", "vgg11", "vgg11_bn", "poolformer_s12")),
    *(f"timm:{name}" for name in ("ghostnetv2_130", "ghostnetv2_160", "res2net50_26w_4s", "legacy_seresnet18")),
    *(f"torchvision:{name}" for name in ("alexnet", "vgg11", "resnet18", "resnet34", "squeezenet1_0", "densenet121")),
    *(f"torchvision:{name}" for name in ("shufflenet_v2_x1_0", "googlenet", "inception_v3", "resnext50_32x4d", "s3d")),
]

SIZES = {"timm:inception_v3": (3, 96, 96), "timm:inception_v4": (3, 96, 96), "torchvision:inception_v3": (3, 299, 299)}
SIZES |= {"torchvision:s3d": (3, 16, 224, 224)}  # its head pools 7x7 windows


def converted(name):
    size = SIZES.get(name, (3, 64, 64))
    model, spec = load_model(name, input_size=size, num_classes=10)
    plan = make_plan(find_pools(model, size), model=spec.reference, input_size=size)
    swap_pools(model, plan)
    return model, spec, plan


@pytest.mark.parametrize("names", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_checkpoints_verify_in_a_fresh_process(names, tmp_path):
    paths = []
    for name in names:
        model, spec, plan = converted(name)
        paths.append(tmp_path / f"{name.replace(':', '-')}.safetensors")
        save_checkpoint(model, paths[-1], spec=spec, plan=plan)
    code = "import sys, json, poolswap; print(json.dumps([poolswap.verify_checkpoint(p).ok for p in sys.argv[1:]]))"
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [True] * len(names)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MANY)])
def test_a_step_of_training_has_finite_gradients(name, layout):
    model, spec, _ = converted(name)
    video = len(spec.input_size) == 4
    memory = torch.contiguous_format
    if layout == "channels_last":
        memory = torch.channels_last_3d if video else torch.channels_last
    (x,), _ = make_inputs(model, spec.input_size, 2)
    model.to(memory_format=memory).train()
    output = model(x.to(memory_format=memory))
    logits = output if isinstance(output, torch.Tensor) else output[0]
    logits.square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 0
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)
