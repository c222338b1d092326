"""SimPool against timm's, against its paper's formula, and where its attention has nothing to choose."""

import pytest
import torch
from pools import distinct
from timm import layers
from torch import nn
from torch.nn import functional as F

from poolswap.errors import InputError
from poolswap.nn import HeadSite
from poolswap.operators import parse_operator

C = 6


def make(text: str = "simpool", dims: int = 2) -> nn.Module:
    torch.manual_seed(0)
    operator, options = parse_operator(text)
    head = operator.make(HeadSite(channels=C, axes=tuple(range(-dims, 0))), options).double()
    with torch.no_grad():
        head.query.mul_(6)
        head.scale.add_(distinct(C, seed=1) / 4)
        head.shift.add_(distinct(C, seed=2))
    return head


def copied(head: nn.Module, theirs: nn.Module) -> nn.Module:
    weights = {"norm.weight": head.scale, "norm.bias": head.shift, "q.weight": head.query, "k.weight": head.key}
    theirs.double().load_state_dict(weights)
    return theirs


@pytest.mark.skipif(not hasattr(layers, "SimPool2d"), reason="timm is older than its SimPool")
def test_is_timms_on_maps_and_on_tokens():
    x = 3 * distinct(2, C, 5, 4)
    head = make()
    torch.testing.assert_close(head(x), copied(head, layers.SimPool2d(C))(x))
    head = make(dims=1)
    torch.testing.assert_close(head(x.flatten(2)), copied(head, layers.SimPool1d(C))(x.flatten(2).mT))


@pytest.mark.parametrize("gamma", [0.5, 1.25, 2, 300])
def test_gamma_is_a_generalised_mean_above_the_maps_minimum(gamma):
    head, x = make(f"simpool:gamma={gamma}"), distinct(2, C, 5, 4)
    for map_, y in zip(x.flatten(2), head(x), strict=True):
        normed = F.layer_norm(map_.T, (C,), head.scale, head.shift)  # (L, C)
        logits = [(head.query @ map_.mean(1)) @ (head.key @ n) / C**0.5 for n in normed]
        values = normed - normed.min() + 1e-6
        expected = (torch.stack(logits).softmax(0)[:, None] * (values / values.amax(0)) ** gamma).sum(0) ** (1 / gamma)
        torch.testing.assert_close(y, expected * values.amax(0))


def test_without_a_question_it_is_the_mean_and_with_a_loud_one_a_single_element():
    head, x = make(), distinct(2, C, 5, 4)
    normed = F.layer_norm(x.flatten(2).mT, (C,), head.scale, head.shift)
    single = head(x[..., 2:3, 1:2])  # a map of one element
    torch.testing.assert_close(single, F.layer_norm(x[..., 2, 1], (C,), head.scale, head.shift))
    loud = head.query.detach().clone() * 1e6
    head.query.data.zero_()
    torch.testing.assert_close(head(x), normed.mean(1))
    head.query.data = loud
    distances = (head(x)[:, None] - normed).abs().amax(-1)
    assert (distances.amin(1) < 1e-9).all()


@pytest.mark.parametrize("name", ["simpool", "simpool:gamma=2", "simpool:gamma=0.01"])
@pytest.mark.parametrize("scale", [1e4, 1e-4, 0.0])
def test_output_and_gradients_are_finite_at_every_scale(name, scale):
    head, x = make(name).float(), (distinct(2, C, 5, 4, dtype=torch.float32) * scale).requires_grad_()
    y = head(x)
    y.square().sum().backward()
    assert all(t.isfinite().all() for t in (y, x.grad, *(p.grad for p in head.parameters())))


@pytest.mark.parametrize("gamma", ["0", "-2", "inf", "nan"])
def test_refuses_what_is_no_exponent(gamma):
    with pytest.raises(InputError, match="gamma must be positive"):
        make(f"simpool:gamma={gamma}")
