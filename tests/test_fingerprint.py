"""Two fingerprints differ where the models do, whatever kind of object the outputs come in."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from poolswap.checkpoint import save_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.fingerprint import Fingerprint, KeptOutput, fingerprint
from poolswap.models.load import create_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 12, 12)

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")


@dataclass
class Out:
    logits: torch.Tensor


@dataclass(slots=True)
class Slotted:
    logits: torch.Tensor


class Plain:
    def __init__(self, logits):
        self.logits, self.itself = logits, self


class Ordered(OrderedDict):
    """As transformers' outputs: a mapping that torch's pytree does not know."""


Pair = namedtuple("Pair", "logits extra")

FORMS = {
    "dataclass": Out,
    "slots": Slotted,
    "object": Plain,
    "named tuple": lambda y: Pair(y, None),
    "mapping": lambda y: Ordered(logits=y),
    "deep": lambda y: {"out": [Out(Plain(y))]},
    "argmax": lambda y: y.argmax(1),
    "mask": lambda y: y > y.mean(),
    "sparse": lambda y: y.to_sparse(),
    "quantised": lambda y: torch.quantize_per_tensor(y, 0.05, 128, torch.quint8),
    "nested": lambda y: torch.nested.nested_tensor(list(y), layout=torch.jagged),
    "complex": lambda y: torch.complex(y, -y),
}


class Net(nn.Module):
    def __init__(self, wrap, scale=1.0):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Linear(4, 6)
        self.wrap, self.scale = wrap, scale

    def forward(self, x):
        return self.wrap(self.fc(self.pool(self.conv(x)).mean((2, 3))) * self.scale)


def seen(form, scale=1.0):
    torch.manual_seed(0)
    return fingerprint(Net(FORMS[form], scale), SIZE)


@pytest.mark.parametrize("form", FORMS)
def test_outputs_of_every_form_are_compared(form):
    assert seen(form).compares
    assert seen(form) == seen(form)
    assert seen(form).distance(seen(form)) == 0
    assert seen(form).distance(seen(form, -1.0)) > 0.1


def test_integers_compare_exactly():
    """One index of many that differs: far below any tolerance of norms."""

    def one_more(y):
        many = torch.full((10**6,), 1000)
        many[-1] += y
        return many

    same, other = (fingerprint(Net(lambda _, n=n: one_more(n)), SIZE) for n in (0, 1))
    assert same.distance(other) == float("inf")


def test_a_detector_without_a_box_is_compared_by_its_parts():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return [{"boxes": self.backbone(x).new_zeros(0, 4)}]

    torch.manual_seed(0)
    one, other = fingerprint(Detector(), SIZE), fingerprint(Detector(), SIZE)
    assert one.compares
    assert one.distance(other) > 0


NET = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Out:
    logits: object

class Net(nn.Module):
    input_size = (3, 12, 12)
    def __init__(self):
        super().__init__()
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(3, 6)
    def forward(self, x):
        y = self.fc(self.pool(x).mean((2, 3)))
        return RESULT
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(result):
        (tmp_path / "net.py").write_text(NET.replace("RESULT", result))

    return write


@pytest.mark.parametrize(("result", "edited"), [("Out(y)", "Out(1000 - y)"), ("y.argmax(1)", "(-y).argmax(1)")])
def test_an_edited_factory_does_not_verify(net, result, edited):
    net(result)
    model, spec = create_model("net.py:Net")
    plan = make_plan(find_pools(model, spec.input_size), input_size=spec.input_size)
    swap_pools(model, plan)
    save_checkpoint(model, "net.safetensors", spec=spec, plan=plan)
    assert verify_checkpoint("net.safetensors", trust_code=True).ok
    net(edited)
    found = verify_checkpoint("net.safetensors", trust_code=True)
    assert [check.name for check in found.checks if not check.ok] == ["fingerprint"]


def test_nothing_to_compare_is_said_and_is_no_yes(net, capsys):
    net("str(y.shape)")
    assert main(["convert", "net.py:Net", "--output", "net.safetensors"]) == 0
    assert "nothing can be compared" in capsys.readouterr().err
    assert main(["verify", "net.safetensors", "--trust-code"]) == 1
    assert "nothing can be compared" in capsys.readouterr().err


def test_a_size_that_no_tensor_has_is_a_size():
    """A file may say so; torch.Size would overflow, to zero elements or an error."""
    outputs = (KeptOutput(shape=(2**70,), first=(), norm=0.0), KeptOutput(shape=(2**32, 2**32), first=(), norm=0.0))
    assert all(Fingerprint(input_sha256="", outputs=(kept,), sha256="").compares for kept in outputs)
