"""Learnt betas: where they start, what pulls them back, what they become, and what that makes of a layer."""

import pytest
import torch
from adapt.small import digits, net
from nets import Mixed
from torch import nn

from poolswap.adapt import Recipe, finetune
from poolswap.adapt.betas import beta_penalty, draw_betas, layer_betas, mean_beta
from poolswap.checkpoint import load_checkpoint, save_checkpoint
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 32, 32)


def swapped(to, **options):
    torch.manual_seed(0)
    model = Mixed().eval()
    plan = make_plan(find_pools(model, SIZE), "all", to, include_global=True, **options)
    swap_pools(model, plan)
    return model, plan


def test_a_learnt_beta_starts_as_average_pooling_in_its_place_and_at_1_elsewhere():
    for to in ("soft:beta=learn", "soft:beta=channel"):
        model, plan = swapped(to)
        for layer in layer_betas(model, plan):
            assert layer.learnt
            assert set(layer.beta) == {layer.start} == {0.0 if layer.op == "avg" else 1.0}
            assert len(layer.beta) == (8 if "channel" in to else 1)
    model, plan = swapped("soft:beta=learn", init="published")
    assert {layer.start for layer in layer_betas(model, plan)} == {1.0}
    model, plan = swapped("soft:beta=channel,start=-2")
    assert {layer.start for layer in layer_betas(model, plan)} == {-2.0}
    assert mean_beta(model, plan) == -2


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 0), (1e4, 1), (-1e4, None)])
def test_a_position_is_0_for_average_pooling_1_for_max_and_negative_towards_the_minimum(beta, expected):
    """Padding is no part of a window: SoftPool of beta 0 and the mean agree at the border too."""
    model, plan = swapped(f"soft:beta={beta}")
    images = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    layers = layer_betas(model, plan, images)
    places = [place for layer in layers for place in layer.position if place is not None]
    assert len(places) > 20
    if expected is None:
        assert min(places) < -0.1
        assert max(places) < 1e-6  # but for rounding, of windows that hardly vary
    else:
        assert places == pytest.approx([expected] * len(places), abs=2e-3)
    assert not any(layer.learnt for layer in layers)


def test_the_penalty_is_a_spring_to_the_start_of_every_learnt_beta():
    model, plan = swapped("soft:beta=channel")
    assert float(beta_penalty(model, 0.5).detach()) == 0
    path = plan.paths[0]
    with torch.no_grad():
        model.get_submodule(path).beta += torch.arange(8.0)
    penalty = beta_penalty(model, 0.5)
    assert float(penalty.detach()) == pytest.approx(0.25 * sum(n * n for n in range(8)))
    penalty.backward()
    torch.testing.assert_close(model.get_submodule(path).beta.grad, 0.5 * torch.arange(8.0))
    assert beta_penalty(nn.Linear(2, 2), 0.5) == 0


def test_a_pull_keeps_betas_near_their_start(tmp_path):
    moved = {}
    for decay in (0.0, 1e3):
        model, spec, plan = net(to="soft:beta=channel")
        recipe = Recipe(epochs=4, batch_size=32, opt="momentum", lr=1e-3, momentum=0.0, beta_decay=decay)
        result = finetune(model, digits(64, 8), recipe, tmp_path / str(decay), spec=spec, plan=plan, device="cpu")
        moved[decay] = max(abs(beta - layer.start) for layer in result.betas for beta in layer.beta)
    assert 0 < moved[1e3] < moved[0.0] / 2


def test_a_learnt_beta_is_saved_and_loaded(tmp_path):
    model, spec, plan = net(to="soft:beta=channel")
    assert {f"{path}.beta" for path in plan.paths} < {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        model.maxpool.beta.copy_(torch.linspace(-2, 3, len(model.maxpool.beta)))
    save_checkpoint(model, tmp_path / "learnt.safetensors", spec=spec, plan=plan)
    loaded, manifest = load_checkpoint(tmp_path / "learnt.safetensors")
    assert torch.equal(loaded.maxpool.beta, model.maxpool.beta)
    assert isinstance(loaded.maxpool.beta, nn.Parameter)
    assert layer_betas(loaded, manifest.plan) == layer_betas(model, plan)


def test_the_picture_is_drawn_for_layers_of_every_kind(tmp_path):
    pytest.importorskip("matplotlib")
    model, plan = swapped("soft:beta=channel")
    draw_betas(layer_betas(model, plan, torch.rand(2, *SIZE)), tmp_path / "betas.png", title="Mixed")
    assert (tmp_path / "betas.png").read_bytes().startswith(b"\x89PNG")
    assert layer_betas(model, Plan()) == ()
