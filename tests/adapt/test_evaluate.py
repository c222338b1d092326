"""evaluate's numbers are the ones computed by hand; recalibrate's statistics are the data's."""

import copy
import math

import pytest
import torch
from adapt.small import digits, net
from torch import nn

from poolswap import restore
from poolswap.adapt import Data, evaluate, loaders, make_loader, recalibrate, recalibrate_beside_stock
from poolswap.adapt.evaluate import translate
from poolswap.errors import CheckError, InputError

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.5]])
TARGETS = torch.tensor([0, 1, 2, 0])


class Table(nn.Module):
    """Answers with a row of LOGITS: the one whose number stands in the image's first pixel."""

    def __init__(self, logits=LOGITS):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits[x[:, 0, 0, 0].long()]


def batches(logits=LOGITS, targets=TARGETS):
    images = torch.arange(len(logits)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).float()
    return [(images[:3], targets[:3]), (images[3:], targets[3:])]


def test_metrics_by_hand():
    found = evaluate(Table(), batches())
    assert (found.images, found.top1, found.top5, found.shift_consistency) == (4, 75.0, None, 100.0)
    terms = [math.log(math.e**2 + 2) - 2, math.log(math.e + 2) - 1, math.log(math.e**3 + 2)]
    terms.append(math.log(math.e + 1 + math.e**0.5) - 1)
    assert found.loss == pytest.approx(sum(terms) / 4, rel=1e-6)
    confidence = LOGITS.softmax(1).max(1).values.tolist()  # four different bins of 15
    hits = [1, 1, 0, 1]
    assert len({int(c * 15) for c in confidence}) == 4
    assert found.ece == pytest.approx(sum(abs(c - h) for c, h in zip(confidence, hits, strict=True)) / 4, rel=1e-6)


def test_answers_come_an_image_at_a_time():
    said = []
    found = evaluate(Table(), batches(), answers=said.append)
    correct, loss, margin, confidence, steady = map(torch.cat, zip(*said, strict=True))
    assert correct.tolist() == [True, True, False, True]
    assert float(loss.mean()) == pytest.approx(found.loss)
    assert margin.tolist() == [2, 1, -3, 0.5]
    assert confidence.tolist() == pytest.approx(LOGITS.softmax(1).amax(1).tolist())
    assert steady.all()


def test_top5_counts_the_five_largest():
    logits = torch.arange(7.0).repeat(2, 1)
    found = evaluate(Table(logits), batches(logits, torch.tensor([2, 1])), shift=None)
    assert (found.top1, found.top5, found.shift_consistency) == (0.0, 50.0, None)


def test_shift_consistency_counts_images_whose_class_stays():
    class FirstColumn(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            column = x[:, 0, :, 0].sum(1)
            return torch.stack([column, -column], 1) * self.scale

    images = torch.tensor([[[1.0, -1.0], [1.0, -1.0]], [[1.0, 1.0], [-2.0, 1.0]]]).unsqueeze(1)
    # Moved by one pixel the second image's first column is 1, 1, and no longer 1, -2.
    found = evaluate(FirstColumn(), [(images, torch.tensor([0, 1]))])
    assert (found.top1, found.shift_consistency) == (100.0, 50.0)


def test_translate_repeats_the_edge():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert translate(image, 1).flatten().tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]


def test_the_model_keeps_its_mode_and_an_output_that_is_not_finite_is_an_error():
    model = Table().train()
    evaluate(model, batches())
    assert model.training
    bad = LOGITS.clone()
    bad[1, 1] = float("nan")
    with pytest.raises(CheckError, match="1 of 4 images are not finite"):
        evaluate(Table(bad), batches())


def test_no_image_and_a_classifier_of_another_width_are_errors():
    with pytest.raises(InputError, match="no image"):
        evaluate(Table(), [])
    model, _, _ = net()
    _, val = loaders(digits(), 20)
    val.num_classes = 4
    with pytest.raises(InputError, match="the model has 10 classes, the data 4"):
        evaluate(model, val)


def test_recalibrated_statistics_are_the_average_over_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    weight = model[0].weight.clone()
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    assert recalibrate(model, [(x[:3], None), (x[3:], None)]) == 1
    norm = model[0]
    expected = (x[:3].mean((0, 2, 3)) + x[3:].mean((0, 2, 3))) / 2
    torch.testing.assert_close(norm.running_mean, expected)
    torch.testing.assert_close(norm.running_var, (x[:3].var((0, 2, 3)) + x[3:].var((0, 2, 3))) / 2)
    assert norm.momentum == 0.1
    assert model.training
    assert norm.training
    assert torch.equal(norm.weight, weight)


def test_nothing_to_recalibrate_and_nothing_to_recalibrate_with():
    assert recalibrate(nn.Sequential(nn.Linear(2, 2)), []) == 0
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(5)
    with pytest.raises(InputError, match="no batch"):
        recalibrate(nn.Sequential(norm), [])
    assert norm.running_mean.tolist() == [5, 5]


def test_recalibrate_limits_its_batches_and_needs_no_labels():
    model, _, _ = net()
    train, _ = loaders(digits(), 32)
    seen = []
    assert recalibrate(model, train, batches=2, advance=seen.append) > 0
    assert seen == [1, 1]


def test_recalibration_is_shown_beside_the_stock_models_and_looks_at_plain_images(tmp_path):
    """Statistics of augmented images are not those that evaluation meets; and the stock model gains by new ones too."""
    model, _, _ = net()
    whole = digits(96, 40)

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 96

        def __getitem__(self, index):
            pytest.fail("an augmented image")

    data = Data(Noisy(), whole.val, 10, "digits", plain=whole.train)
    expected = copy.deepcopy(model)
    recalibrate(expected, make_loader(data, "plain", 32, seed=3))
    stock = copy.deepcopy(model)
    restore(stock)
    recalibrate(stock, make_loader(data, "plain", 32, seed=3))
    found = recalibrate_beside_stock(model, data, batch_size=32, seed=3)
    val = make_loader(data, "val", 32)
    assert found.after.loss == evaluate(expected, val).loss == evaluate(model, val).loss
    assert found.stock_after.loss == evaluate(stock, val).loss
    assert len({found.before.loss, found.after.loss, found.stock_before.loss, found.stock_after.loss}) == 4
    alone = recalibrate_beside_stock(net(swap=False)[0], data, batch_size=32)
    assert alone.stock_before is None
    plain = torch.utils.data.TensorDataset(torch.zeros(4, 1, 2, 2), TARGETS)
    assert recalibrate_beside_stock(Table(), Data(plain, plain, 3, "x"), batch_size=2).layers == 0
