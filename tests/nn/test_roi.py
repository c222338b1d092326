"""Soft RoI pooling against torchvision's own: beta 0 is RoIAlign's mean, a large beta RoIPool's maximum."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.ops import MultiScaleRoIAlign, RoIAlign, RoIPool

from poolswap.nn.roi import SoftMultiScaleRoIAlign, SoftRoIAlign, SoftRoIPool, soft_roi


def maps(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Inside, across the border, outside, of one point, and reversed.
BOXES = torch.tensor(
    [[4, 6, 30, 40], [0.5, 1.5, 18.5, 21], [-9, -9, 12, 12], [30, 30, 90, 90], [200, 200, 220, 210], [5, 5, 5, 5]]
)
ROIS = torch.cat([torch.tensor([[0.0], [1], [0], [1], [0], [1]]), BOXES], 1)


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3, 0, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_align_with_beta_0_is_torchvisions(sampling_ratio, aligned):
    arguments = ((3, 4), 0.25, sampling_ratio, aligned)
    soft, stock = SoftRoIAlign(*arguments, beta=0.0), RoIAlign(*arguments)
    torch.testing.assert_close(soft(maps(), ROIS), stock(maps(), ROIS))
    images = [BOXES[:2], BOXES[2:]]
    torch.testing.assert_close(soft(maps(), images), stock(maps(), images))


def test_align_weighs_samples_by_softmax():
    x = maps()
    samples = RoIAlign((4, 4), 0.25, 1)(x, ROIS).unflatten(3, (2, 2)).unflatten(2, (2, 2)).movedim(3, -2).flatten(-2)
    expected = (samples.softmax(-1) * samples).sum(-1)
    torch.testing.assert_close(SoftRoIAlign(2, 0.25, 2)(x, ROIS), expected)


@pytest.mark.parametrize("output_size", [1, 3, (7, 2)])
def test_pool_with_a_large_beta_is_torchvisions(output_size):
    soft, stock = SoftRoIPool(output_size, 0.25, beta=1e6), RoIPool(output_size, 0.25)
    torch.testing.assert_close(soft(maps(), ROIS), stock(maps(), ROIS))


def test_pool_with_beta_0_averages_the_elements_of_each_bin():
    x = maps()
    inside = torch.tensor([[1.0, 4, 8, 31, 39]])  # elements 1..8 across, 2..10 down
    expected = nn.functional.adaptive_avg_pool2d(x[1:, :, 2:11, 1:9], 4)
    torch.testing.assert_close(SoftRoIPool(4, 0.25, beta=0.0)(x, inside), expected)


@pytest.mark.parametrize("module", [SoftRoIAlign(2, 0.25, 2, beta="learn"), SoftRoIPool(2, 0.25, beta="learn")])
def test_the_gradient_is_exact(module):
    module = module.double()
    x = maps(dtype=torch.float64)[:, :1, :6, :6].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, _: module(x, ROIS[:3].double()), (x, module.beta))


def test_no_boxes_make_no_output():
    for module in (SoftRoIAlign(2, 1.0, 2), SoftRoIAlign(2, 1.0, -1), SoftRoIPool(2, 1.0)):
        assert module(maps(), ROIS[:0]).shape == (0, 3, 2, 2)


def test_multi_scale_with_beta_0_is_torchvisions():
    x = {"a": maps(0), "b": maps(1)[..., ::2, ::2], "c": maps(2)}
    boxes, shapes = [BOXES[:2], BOXES[3:4]], [(48, 40), (48, 40)]
    stock = MultiScaleRoIAlign(["a", "b"], 3, 2)
    soft = SoftMultiScaleRoIAlign(["a", "b"], 3, 2, beta=0.0)
    torch.testing.assert_close(soft(x, boxes, shapes), stock(x, boxes, shapes))
    with pytest.raises(ValueError, match="sampling_ratio must be positive"):
        SoftMultiScaleRoIAlign(["a"], 3, 0)


def test_a_detector_takes_it_and_its_checkpoint_names_it():
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3).eval()
    x, stock = [torch.rand(3, 64, 64)], model.roi_heads.box_roi_pool
    with torch.no_grad():
        expected = model(x)[0]
        model.roi_heads.box_roi_pool = soft_roi(stock, beta=0.0)
        torch.testing.assert_close(model(x)[0], expected)
    assert "roi_heads.box_roi_pool.beta" in model.state_dict()


def test_each_of_torchvisions_has_its_soft_one():
    assert isinstance(soft_roi(RoIPool(2, 0.5)), SoftRoIPool)
    assert soft_roi(RoIAlign(2, 0.5, 2, True)).aligned
    assert soft_roi(MultiScaleRoIAlign(["a"], 2, 2)).featmap_names == ["a"]
    with pytest.raises(TypeError, match="Linear is not a RoI pooling"):
        soft_roi(nn.Linear(1, 1))
