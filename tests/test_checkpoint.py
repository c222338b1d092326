"""A checkpoint rebuilds its model from the file alone, cannot be misread, and nothing hostile runs or hangs."""

import json
import pickle
import struct
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import poolswap
from poolswap.checkpoint import default_name, load_checkpoint, save_checkpoint, verify_checkpoint
from poolswap.convert import convert_model
from poolswap.errors import CheckError, InputError
from poolswap.load import load_model
from poolswap.manifest import read_manifest, write
from poolswap.models.load import ModelSpec, Weights, create_model
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 64, 64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, spec = load_model("timm:resnet18d", num_classes=7, input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), model=spec.reference, input_size=SIZE)
    swap_pools(model, plan)
    path = tmp_path_factory.mktemp("saved") / default_name(spec.name, plan.operators)
    save_checkpoint(model, path, spec=spec, plan=plan, recipe={"epochs": 1})
    return model, path


def patched(path, tmp_path, change):
    """A copy whose metadata document went through `change`."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    document = json.loads(header["__metadata__"]["poolswap"])
    change(document)
    header["__metadata__"]["poolswap"] = json.dumps(document)
    text = json.dumps(header).encode()
    copy = tmp_path / "patched.safetensors"
    copy.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return copy


def test_the_model_is_rebuilt_from_the_file_alone(saved):
    model, path = saved
    again, spec = load_model(path)
    x = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), model(x))
    assert (spec.reference, spec.num_classes, spec.input_size) == ("timm:resnet18d", 7, SIZE)
    assert path.name == "resnet18d-softpool.safetensors"


@pytest.mark.parametrize("given", [{"num_classes": 7}, {"input_size": SIZE}, {"model_args": {"drop_rate": 0.1}}])
def test_what_the_file_decides_is_not_asked_for(saved, given):
    with pytest.raises(InputError, match="brings its own weights, arguments and input size"):
        load_model(saved[1], **given)


def test_the_manifest_is_read_without_the_weights(saved, tmp_path):
    _, path = saved
    assert read_manifest(path) == load_checkpoint(path)[1]
    with pytest.raises(InputError, match="there is no file"):
        read_manifest(tmp_path / "missing.safetensors")


def test_it_verifies_in_a_fresh_process(saved):
    _, path = saved
    code = "import sys, poolswap; found = poolswap.verify_checkpoint(sys.argv[1]); print(found.ok, *found.checks)"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("True")
    assert "bit-identical" in run.stdout
    assert "5 replaced" not in run.stdout or "6 sites" in run.stdout


def test_it_never_loads_into_the_stock_architecture(saved, tmp_path):
    _, path = saved
    stock = timm.create_model("resnet18d", num_classes=7)
    with pytest.raises(RuntimeError, match=r"maxpool\.beta"):
        stock.load_state_dict(load_file(path), strict=True)
    with pytest.raises(RuntimeError, match=r"maxpool\.beta"):
        timm.models.load_checkpoint(stock, str(path), strict=True)
    with pytest.raises(InputError, match=r"unexpected: .*\.beta"):
        load_model("timm:resnet18d", num_classes=7, weights=path)


def test_the_manifest_carries_plan_weights_versions_and_recipe(saved):
    _, manifest = load_checkpoint(saved[1])
    assert manifest.plan.paths[0] == "maxpool"
    assert manifest.model.weights.kind == "random"
    assert manifest.model.weights.seed == 0
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.recipe == {"epochs": 1}


def test_functional_sites_half_precision_and_shared_tensors(tmp_path):
    model, spec = load_model("timm:ghostnet_100", input_size=SIZE)
    model = model.to(torch.bfloat16)
    plan = make_plan(find_pools(model, SIZE), layers="all", include_global=True)
    swap_pools(model, plan)
    path = tmp_path / "ghost.safetensors"
    save_checkpoint(model, path, spec=spec, plan=plan)
    again, _ = load_model(path)
    x = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert next(again.parameters()).dtype == torch.bfloat16
    assert torch.equal(again(x), model(x))


def test_nothing_is_overwritten_without_force(saved):
    model, path = saved
    _, manifest = load_checkpoint(path)
    with pytest.raises(InputError, match="exists already"):
        save_checkpoint(model, path, spec=manifest.model, plan=manifest.plan)
    assert verify_checkpoint(path).ok


def test_a_changed_weight_is_noticed(saved, tmp_path):
    _, path = saved
    raw = bytearray(path.read_bytes())
    raw[-1000] ^= 1
    flipped = tmp_path / "flipped.safetensors"
    flipped.write_bytes(raw)
    found = verify_checkpoint(flipped)
    assert [check.name for check in found.checks if not check.ok] == ["file"]
    assert "changed" in found.checks[1].detail


def test_changed_outputs_are_noticed(saved, tmp_path):
    def change(document):
        document["fingerprint"]["outputs"][0]["norm"] *= 1.01

    found = verify_checkpoint(patched(saved[1], tmp_path, change))
    assert [check.name for check in found.checks if not check.ok] == ["metadata", "fingerprint"]


def by_another_name(document):
    document["model"]["weights"] = {"kind": "pretrained", "origin": "ResNet18_Weights.IMAGENET1K_V1"}


def trained(document):
    document["model"]["weights"]["trained_on"] = "ImageNet"


def of_another_recipe(document):
    document["recipe"] = {"epochs": 300, "top1": 81.5}


def of_other_shapes(document):
    document["plan"]["swaps"][0]["site"]["output_shape"] = [1, 2, 3, 4]


@pytest.mark.parametrize("forge", [by_another_name, trained, of_another_recipe, of_other_shapes])
def test_forged_metadata_are_noticed(saved, tmp_path, forge):
    found = verify_checkpoint(patched(saved[1], tmp_path, forge))
    assert [check.name for check in found.checks if not check.ok] == ["metadata"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_stored_norm_that_is_no_number_is_refused(saved, tmp_path, value):
    """inf / inf is NaN, which is larger than no tolerance."""

    def forge(document):
        document["fingerprint"]["outputs"][0]["norm"] = value

    with pytest.raises(InputError, match=r"damaged: fingerprint\.outputs\.0\.norm"):
        verify_checkpoint(patched(saved[1], tmp_path, forge))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_model_of_outputs_that_are_no_numbers_is_not_saved(tmp_path, value):
    model, spec = load_model("timm:test_resnet", num_classes=3, input_size=SIZE)
    with torch.no_grad():
        model.get_classifier().bias.fill_(value)
    with pytest.raises(CheckError, match="not finite"):
        save_checkpoint(model, tmp_path / "a.safetensors", spec=spec, plan=Plan())
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_does_not_have_is_not_saved(tmp_path):
    """As null it could not be read again."""
    model, spec = load_model("timm:test_resnet", num_classes=3, input_size=SIZE)
    with pytest.raises(CheckError, match=r"recipe\.losses\.1 is nan"):
        save_checkpoint(
            model, tmp_path / "a.safetensors", spec=spec, plan=Plan(), recipe={"losses": [1.0, float("nan")]}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_is_not_the_models_is_noticed(saved, tmp_path):
    def change(document):
        document["plan"]["swaps"][0]["site"]["path"] = "layer9.pool"

    with pytest.raises(InputError, match=r"layer9\.pool"):
        verify_checkpoint(patched(saved[1], tmp_path, change))


def windows(**fields):
    """Other windows at the first site, in all that the plan says of it."""

    def change(document):
        swap = document["plan"]["swaps"][0]
        swap["geometry"] = {**swap["site"]["call"]["geometry"], **fields}

    return change


HOSTILE = {
    "windows that corrupt the heap": (
        windows(kernel_size=[2, 3], stride=[7, 3], padding=[-8, 5], dilation=[-5, 2]),
        "must be positive",
    ),
    "a division by zero": (windows(dilation=[0, 1]), "must be positive"),
    "windows that hang": (windows(kernel_size=[2**62, 2**62]), "below 2"),
    "windows of no dimension": (windows(kernel_size=[], stride=[], padding=[], dilation=[]), "must be tuples"),
    "newer format": (lambda d: d.update(format=99), "newer than this poolswap"),
    "absurd input": (lambda d: d["model"].update(input_size=[3, 10**9, 10**9]), "absurd input size"),
    "absurd classes": (lambda d: d["model"].update(num_classes=10**12), "does not fit its own model"),
    "absurd window": (lambda d: d["plan"]["swaps"][0].update(geometry=[10**9]), "is damaged: plan"),
    "absurd batch": (lambda d: d["fingerprint"].update(batch=10**9), "is damaged: fingerprint.batch"),
    "unknown model": (lambda d: d["model"].update(name="resnet_of_evil"), "does not fit its own model"),
    "bad constructor": (lambda d: d["model"].update(model_args={"evil": 1}), "does not fit its own model"),
    "hub model": (lambda d: d["model"].update(name="hf-hub:evil/evil"), "does not fit its own model"),
    "not a document": (lambda d: d.clear(), "is damaged"),
    "user code": (lambda d: d["model"].update(source="file", name="evil.py:make"), "would run that file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_metadata_is_one_clear_error(saved, tmp_path, monkeypatch, name):
    change, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(InputError, match=message):
        verify_checkpoint(patched(saved[1], tmp_path, change))


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def write_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def write_torch_pickle(path):
    torch.save(Bomb(), path)


def write_foreign(path):
    save_file({"weight": torch.zeros(2)}, path)


def write_huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{" + b" " * 100)


def write_empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_pickle, "not a safetensors file"),
        (write_torch_pickle, "not a safetensors file"),
        (write_foreign, "not a poolswap checkpoint"),
        (write_huge_header, "not a safetensors file"),
        (write_empty, "not a safetensors file"),
    ],
)
def test_foreign_files_are_one_clear_error_and_nothing_runs(tmp_path, write, message):
    path = tmp_path / "foreign.safetensors"
    write(path)
    with pytest.raises(InputError, match=message):
        verify_checkpoint(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_cut_off_files_are_one_clear_error(saved, tmp_path, share):
    raw = saved[1].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        verify_checkpoint(path)


def test_a_failed_save_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    model, path = saved
    _, manifest = load_checkpoint(path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("poolswap.files.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(model, tmp_path / "new.safetensors", spec=manifest.model, plan=manifest.plan)
    assert list(tmp_path.iterdir()) == []


def test_the_public_names_are_there():
    for name in poolswap.__all__:
        assert getattr(poolswap, name) is not None


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        self.spectrum = nn.Parameter(torch.randn(4, 1, 1, dtype=torch.complex64))
        self.conv.half()

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x).float()))
        return (x * self.spectrum).real
"""


def test_every_tensor_keeps_its_dtype_half_and_complex_ones_too(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    model, spec = create_model(f"{tmp_path}/net.py:Net", input_size=(3, 12, 12))
    plan = make_plan(find_pools(model, spec.input_size))
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "a.safetensors", spec=spec, plan=plan)
    again, _ = load_checkpoint(tmp_path / "a.safetensors", trust_code=True)
    x = torch.randn(2, 3, 12, 12).half()
    assert torch.equal(again(x), model(x))
    assert {str(t.dtype) for t in again.parameters()} == {"torch.float16", "torch.float32", "torch.complex64"}
    assert verify_checkpoint(tmp_path / "a.safetensors", trust_code=True).ok


def test_a_state_that_is_not_of_plain_tensors_is_refused_before_the_work(tmp_path):
    class Counting(torch.nn.Sequential):
        def get_extra_state(self):
            return {"steps": 3}

    model = Counting(torch.nn.MaxPool2d(2)).eval()
    spec = ModelSpec(source="file", name="net.py:make", input_size=SIZE, weights=Weights(kind="random"))
    plan = make_plan(find_pools(model, SIZE))
    with pytest.raises(InputError, match="_extra_state in the model's state is no plain tensor"):
        convert_model(model, spec, plan, tmp_path / "a.safetensors")
    assert type(model[0]) is torch.nn.MaxPool2d


def test_what_could_not_be_read_again_is_not_written(saved, tmp_path):
    manifest = read_manifest(saved[1]).model_copy(update={"recipe": {"seeds": list(range(600_000))}})
    with pytest.raises(InputError, match="too large for a checkpoint"):
        write(tmp_path / "large.safetensors", {}, manifest)
    assert list(tmp_path.glob("large*")) == []
