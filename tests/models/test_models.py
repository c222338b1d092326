"""A reference becomes a model and a spec that rebuilds it; the network is touched for pretrained weights only."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from poolswap.errors import InputError
from poolswap.inputs import make_inputs
from poolswap.models import load as models
from poolswap.models.load import ModelSpec, Weights, build, create_model, resolve
from poolswap.models.weights import sha256_of

RANDOM = Weights(kind="random", seed=0)


def spec_of(reference, **fields):
    source, name, _ = resolve(reference)
    return ModelSpec(source=source, name=name, **{"input_size": (3, 64, 64), "weights": RANDOM, **fields})


def state_of(model):
    return {key: (tensor.shape, tensor.dtype) for key, tensor in model.state_dict().items()}


@pytest.fixture
def offline(monkeypatch):
    """Any connection is a failure."""

    def refuse(self, address):
        raise AssertionError(f"tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def weightless(monkeypatch):
    """create_model makes its models on the meta device: their sizes are too large for a test."""
    make = models._make
    monkeypatch.setattr(models, "_make", lambda spec, **options: make(spec, "meta"))


@pytest.mark.parametrize(
    ("reference", "source", "name", "note"),
    [
        ("resnet18", "timm", "resnet18", "timm's resnet18; torchvision has one too: torchvision:resnet18"),
        ("resnet10t", "timm", "resnet10t", None),
        ("googlenet", "torchvision", "googlenet", None),
        ("timm:resnet18", "timm", "resnet18", None),
        ("torchvision:resnet18", "torchvision", "resnet18", None),
        ("resnet10t.c3_in1k", "timm", "resnet10t.c3_in1k", None),
        ("nets/mine.py:make", "file", "nets/mine.py:make", None),
        (
            "vit_tiny_patch16_224_in21k",
            "timm",
            "vit_tiny_patch16_224.augreg_in21k",
            "timm calls vit_tiny_patch16_224_in21k vit_tiny_patch16_224.augreg_in21k now",
        ),
    ],
)
def test_a_reference_names_one_model(reference, source, name, note):
    assert resolve(reference) == (source, name, note)


@pytest.mark.parametrize(
    ("reference", "closest"),
    [
        ("resnet_50", "resnet50"),
        ("DENSENET", "densenet201"),
        ("inceptionv3", "inception_v3"),
        ("timm:desnet121", "timm:densenet121"),
        ("torchvision:resnet5", "torchvision:resnet50"),
        ("resnet10t.c3_in1", "resnet10t.c3_in1k"),
    ],
)
def test_an_unknown_name_brings_the_three_closest(reference, closest):
    with pytest.raises(InputError, match="unknown model") as raised:
        resolve(reference)
    suggested = raised.value.hint.removeprefix("the closest names are ").split(", ")
    assert closest in suggested
    assert len(suggested) == (1 if "." in reference else 3)
    assert all(resolve(name) for name in suggested)


@pytest.mark.parametrize("reference", ["inception_v4", "timm:inception_v4"])
def test_a_name_that_a_newer_version_has_is_no_typo(reference, monkeypatch):
    monkeypatch.setattr(timm, "is_model", lambda name: False)
    with pytest.raises(InputError, match=rf"do not have {reference} yet: timm 1") as raised:
        resolve(reference)
    assert raised.value.hint == "pip install -U timm torchvision"


def test_a_path_is_no_misspelt_name(tmp_path):
    """A checkpoint's mistyped path brings the file beside it, not three networks that are spelt alike."""
    (tmp_path / "last.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    for name, message, hint in [
        ("last.safetensor", "there is no file", f"did you mean {tmp_path / 'last.safetensors'}?"),
        ("other/deep", "there is no file", "give a .safetensors file, or a model's name"),
        ("notes.txt", "is no checkpoint", "give a .safetensors file, or a model's name"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            resolve(str(tmp_path / name))
        assert raised.value.hint == hint


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf-hub:timm/resnet18", "unknown model source 'hf-hub'"),
        ("net.py", "does not say which model"),
        ("weights.pth", "a file of weights, not a model"),
        ("", "unknown model"),
        ("timm:../resnet18", "unknown model"),
    ],
)
def test_what_is_no_name_is_refused(reference, message):
    with pytest.raises(InputError, match=message):
        resolve(reference)


@pytest.mark.parametrize("reference", ["timm:test_resnet", "torchvision:squeezenet1_1"])
def test_a_seed_gives_the_same_weights_and_leaves_torch_alone(reference, monkeypatch, offline):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("reseeded the GPUs"))
    before = torch.get_rng_state()
    (model, spec), (again, _), (other, _) = (create_model(reference, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert spec.weights == Weights(kind="random", seed=5)
    assert str(spec.weights) == "random (seed 5)"
    states = [m.state_dict() for m in (model, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


REBUILT = [
    ("timm:test_resnet", {"num_classes": 7, "in_chans": 1}),
    ("timm:test_vit", {"input_size": (3, 96, 96)}),
    ("timm:test_resnet", {"model_args": {"drop_rate": 0.1, "features_only": True}}),
    ("torchvision:squeezenet1_1", {"num_classes": 5}),
    ("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", {"num_classes": 3}),
    ("torchvision:lraspp_mobilenet_v3_large", {}),
    ("torchvision:quantized_mobilenet_v2", {}),
]


@pytest.mark.parametrize(("reference", "arguments"), REBUILT)
def test_the_spec_alone_rebuilds_the_architecture(reference, arguments, offline):
    """Through JSON, without weights, on the CPU and on the meta device."""
    model, spec = create_model(reference, **arguments)
    restored = ModelSpec.model_validate_json(spec.model_dump_json())
    assert restored == spec
    assert restored.reference == reference
    assert state_of(build(restored)) == state_of(build(restored, "meta")) == state_of(model)
    assert all(parameter.is_meta for parameter in build(restored, "meta").parameters())


SIZES = {
    "timm:test_resnet": (3, 160, 160),
    "timm:inception_v3": (3, 299, 299),
    "timm:vit_tiny_patch16_384": (3, 384, 384),
    "torchvision:inception_v3": (3, 299, 299),
    "torchvision:googlenet": (3, 224, 224),
    "torchvision:efficientnet_b1": (3, 240, 240),
    "torchvision:vit_b_16": (3, 224, 224),
    "torchvision:vit_h_14": (3, 224, 224),
    "torchvision:deeplabv3_mobilenet_v3_large": (3, 224, 224),
    "torchvision:r3d_18": (3, 16, 112, 112),
    "torchvision:s3d": (3, 16, 224, 224),
    "torchvision:mvit_v1_b": (3, 16, 224, 224),
}


@pytest.mark.parametrize(("reference", "size"), SIZES.items())
def test_the_default_input_size_is_one_the_model_takes(reference, size, offline, weightless):
    model, spec = create_model(reference)
    assert spec.input_size == size
    args, kwargs = make_inputs(model, spec.input_size, 2, device="meta")
    model(*args, **kwargs)


@pytest.mark.parametrize(
    ("reference", "size", "argument"),
    [
        ("timm:vit_tiny_patch16_224", (3, 64, 96), "img_size"),
        ("timm:swin_tiny_patch4_window7_224", (3, 448, 448), "img_size"),
        ("timm:resnet18", (3, 33, 65), None),
        ("timm:vit_tiny_patch16_224", (3, 224, 224), None),
        ("torchvision:vit_b_16", (3, 96, 96), "image_size"),
        ("torchvision:maxvit_t", (3, 448, 448), "input_size"),
        ("torchvision:swin_t", (3, 90, 70), None),
    ],
)
def test_a_fixed_size_model_is_built_for_the_size_that_is_asked_for(reference, size, argument, offline, weightless):
    model, spec = create_model(reference, input_size=size)
    assert spec.input_size == size
    assert list(spec.model_args) == ([argument] if argument else [])
    model(torch.empty(2, *size, device="meta"))


def test_the_size_follows_the_channels_and_the_image_size_argument(weightless):
    _, spec = create_model("timm:vit_tiny_patch16_224", in_chans=1, model_args={"img_size": 64})
    assert spec.input_size == (1, 64, 64)


@pytest.mark.parametrize(
    ("reference", "arguments", "message"),
    [
        ("timm:test_resnet", {"input_size": (1, 64, 64)}, "takes 3 channels, not 1"),
        ("torchvision:resnet18", {"input_size": (1, 64, 64)}, "takes 3 channels, not 1"),
        ("torchvision:resnet18", {"in_chans": 1}, "takes 3 channels, not 1"),
        ("torchvision:vit_b_16", {"input_size": (3, 96, 64)}, "square images only"),
        ("timm:test_resnet", {"model_args": {"colour": 1}}, "cannot be built with colour=1: .*'colour'"),
        ("torchvision:resnet18", {"model_args": {"norm_layer": "batch"}}, "cannot be built with norm_layer=batch"),
        ("torchvision:quantized_resnet18", {"model_args": {"quantize": True}}, "int8"),
        ("torchvision:raft_small", {"num_classes": 3}, "num_classes"),
    ],
)
def test_arguments_that_do_not_fit_are_named(reference, arguments, message):
    with pytest.raises(InputError, match=message) as raised:
        create_model(reference, **arguments)
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("key", ["weights", "weights_backbone", "pretrained", "pretrained_cfg", "checkpoint_path"])
@pytest.mark.parametrize("reference", ["timm:test_resnet", "torchvision:fcn_resnet50"])
def test_no_argument_can_fetch_or_read_weights(reference, key, offline):
    """Model arguments also come from checkpoints of strangers."""
    with pytest.raises(InputError, match=f"{key} is not an argument of the architecture"):
        build(spec_of(reference, model_args={key: "DEFAULT"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "timm", "name": "hf-hub:someone/model"},
        {"source": "timm", "name": "local-dir:/tmp"},
        {"source": "torchvision", "name": "timm:resnet18"},
        {"source": "file", "name": "resnet18"},
        {
            "source": "torchvision",
            "name": "resnet18",
            "weights": Weights(kind="pretrained", origin="ResNet18_Weights.V9"),
        },
        {
            "source": "torchvision",
            "name": "resnet18",
            "weights": Weights(kind="pretrained", origin="ResNet50_Weights.DEFAULT"),
        },
    ],
)
def test_a_spec_that_names_no_listed_model_is_not_built(fields, offline):
    with pytest.raises(InputError):
        build(ModelSpec(**{"input_size": (3, 64, 64), "weights": RANDOM, **fields}))


def test_an_architecture_that_computes_while_it_is_built_says_so_on_the_meta_device():
    """A RuntimeError, for a caller that can do without; build on the CPU works."""
    spec = spec_of("torchvision:regnet_y_400mf", num_classes=3)
    with pytest.raises(RuntimeError):
        build(spec, "meta")
    assert build(spec).fc.out_features == 3


def test_pretrained_architectures_that_differ_from_random_ones_are_rebuilt_without_the_network(offline):
    def rebuilt(name, origin):
        return build(spec_of(name, weights=Weights(kind="pretrained", origin=origin)), "meta")

    detector = rebuilt("torchvision:fasterrcnn_resnet50_fpn", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1")
    assert any(isinstance(module, FrozenBatchNorm2d) for module in detector.modules())
    assert not any(
        isinstance(m, FrozenBatchNorm2d) for m in build(spec_of("fasterrcnn_resnet50_fpn"), "meta").modules()
    )
    assert rebuilt("torchvision:googlenet", "GoogLeNet_Weights.IMAGENET1K_V1").transform_input
    assert rebuilt("torchvision:vit_h_14", "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1").image_size == 518


FETCHING = """
import json, sys
from poolswap.errors import InputError
from poolswap.models.load import build, create_model

for reference, options in json.loads(sys.argv[1]):
    try:
        model, spec = create_model(reference, weights="pretrained", **options)
        total = sum(float(p.double().sum()) for p in model.parameters())
        same = model.state_dict().keys() == build(spec).state_dict().keys()
        print(json.dumps({"spec": spec.model_dump(), "total": total, "same": same}))
    except InputError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}))
"""


def test_pretrained_weights_come_from_the_caches_or_not_at_all(tmp_path):
    """Both libraries' caches are filled by hand; everything else is out of reach."""
    torch.manual_seed(3)
    stock = {"timm": timm.create_model("test_resnet"), "torchvision": torchvision.models.squeezenet1_1()}
    repository = tmp_path / "hf/hub/models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    torch.save(stock["timm"].state_dict(), snapshot / "pytorch_model.bin")
    hub = tmp_path / "torch/hub/checkpoints"
    hub.mkdir(parents=True)
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    torch.save(stock["torchvision"].state_dict(), hub / entry.url.rpartition("/")[2])
    (hub / torchvision.models.MNASNet0_5_Weights.DEFAULT.url.rpartition("/")[2]).write_bytes(b"cut off")
    asked = [
        ("timm:test_resnet", {}),
        ("timm:test_resnet", {"num_classes": 5, "seed": 4}),
        ("timm:test_resnet", {"num_classes": 5, "seed": 4}),
        ("torchvision:squeezenet1_1", {}),
        ("torchvision:squeezenet1_1", {"num_classes": 5}),
        ("timm:test_vit", {}),
        ("torchvision:shufflenet_v2_x0_5", {}),
        ("torchvision:mnasnet0_5", {}),
    ]
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TORCH_HOME": str(tmp_path / "torch"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
    }
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", FETCHING, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # torch.hub prints there too
    ours, new, again, theirs, narrow, absent, unreachable, damaged = map(json.loads, lines)

    for found, library, origin in [
        (ours, "timm", "timm/test_resnet.r160_in1k"),
        (theirs, "torchvision", "SqueezeNet1_1_Weights.IMAGENET1K_V1"),
    ]:
        expected = sum(float(p.detach().double().sum()) for p in stock[library].parameters())
        assert found["total"] == pytest.approx(expected, rel=1e-12)
        told = {key: value for key, value in found["spec"]["weights"].items() if value is not None}
        assert told == {"kind": "pretrained", "origin": origin}
        assert found["same"]
    assert new == again, "the new classifier is drawn from the seed"
    assert new["spec"]["weights"]["seed"] == 4
    assert new["spec"]["note"] == "the classifier is new, its weights random (seed 4)"
    assert "do not load" in narrow["message"]
    for failed in (absent, unreachable):
        assert "are not in the cache, and " in failed["message"]
        assert "weights=FILE" in failed["hint"]
    assert "do not load" in damaged["message"]
    assert "damaged" in damaged["hint"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("timm:nf_resnet26", "timm has no pretrained weights"),
        ("torchvision:mnasnet9", "unknown model"),
        ("torchvision:quantized_resnet18", "int8"),
        ("net.py:make", "has no pretrained weights"),
    ],
)
def test_weights_that_do_not_exist_are_not_asked_for(reference, message, offline):
    with pytest.raises(InputError, match=message) as raised:
        create_model(reference, weights="pretrained")
    assert raised.value.hint


def test_weights_from_a_file_are_loaded_and_recorded(tmp_path, offline):
    trained = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "best.pth")
    model, spec = create_model("timm:test_resnet", num_classes=3, weights=tmp_path / "best.pth")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in trained.state_dict().items())
    assert spec.weights == Weights(kind="file", origin="best.pth", sha256=sha256_of(tmp_path / "best.pth"))
    with pytest.raises(InputError, match=r"best\.pth does not fit the model \(shape: "):
        create_model("timm:test_resnet", num_classes=4, weights=tmp_path / "best.pth")


FILE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        input_size = (1, 32, 32)

        def __init__(self, num_classes=2, width=4):
            super().__init__()
            self.head = nn.Linear(width, num_classes)

    class Plain(nn.Linear):
        input_size = 784

        def __init__(self):
            super().__init__(3, 2)

    def neighbour():
        from beside import WIDTH
        return nn.Linear(WIDTH, 1)

    def parallel():
        return nn.DataParallel(Net())

    def compiled():
        return torch.compile(nn.DataParallel(Net()), backend="eager")

    def script():
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(nn.Linear(1, 1))

    def nothing():
        pass

    def broken(depth=1):
        if depth:
            return broken(depth - 1)
        raise KeyError("stem")

    def quits():
        raise SystemExit(0)

    ready = nn.Linear(1, 1)

    class Exported(nn.Module):
        "As torch.export gives them."

        def train(self, mode=True):
            raise NotImplementedError("Calling train() is not supported yet.")
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(textwrap.dedent(FILE))
    (tmp_path / "beside.py").write_text("WIDTH = 6")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("beside", None)


def test_a_file_makes_the_model_from_a_function_or_a_class(user_file):
    path = list(sys.path)
    model, spec = create_model("mine.py:Net", num_classes=5, model_args={"width": 3})
    assert model.head.weight.shape == (5, 3)
    assert not model.training
    assert (spec.source, spec.reference, spec.input_size) == ("file", "mine.py:Net", (1, 32, 32))
    assert state_of(build(spec, "meta")) == state_of(model)
    assert create_model("mine.py:neighbour")[0].in_features == 6
    assert create_model("mine.py:Plain")[1].input_size == (3, 224, 224)
    assert sys.path == path


def test_random_weights_of_a_file_follow_the_seed(user_file):
    one, two = (create_model("mine.py:Net", seed=9)[0].head.weight for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("name", "note"),
    [("parallel", "taken out of its DataParallel"), ("compiled", "taken out of its OptimizedModule and DataParallel")],
)
def test_wrappers_are_taken_off_with_a_note(user_file, name, note):
    model, spec = create_model(f"mine.py:{name}")
    assert type(model).__name__ == "Net"
    assert isinstance(model, nn.Module)
    assert spec.note == note


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine.py:missing", "mine.py has no 'missing'"),
        ("none.py:make", r"there is no file none\.py"),
        ("mine.py:script", "TorchScript module"),
        ("mine.py:Exported", r"cannot be changed: Calling train\(\) is not"),
        ("mine.py:nothing", "gives a NoneType, not an nn.Module"),
        ("mine.py:ready", "is not a function or class"),
        ("mine.py:broken", r"mine\.py:40: KeyError: 'stem'"),
        ("mine.py:quits", r"mine\.py:43: SystemExit: 0"),
    ],
)
def test_a_file_that_makes_no_model_says_where(user_file, reference, message):
    with pytest.raises(InputError, match=message):
        create_model(reference)


def test_an_argument_that_the_factory_does_not_take_is_refused(user_file):
    with pytest.raises(InputError, match="takes no argument 'in_chans'") as raised:
        create_model("mine.py:Net", in_chans=1)
    assert raised.value.hint == "it takes num_classes, width"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ny = (", r"bad\.py:2: SyntaxError"),
        ("x = 1\nimport no_such_module", r"bad\.py:2: ModuleNotFoundError"),
        ("x = 1\nimport torn", r"bad\.py:2: SyntaxError: .*torn\.py, line 1"),
        ("import sys\n\nsys.path.pop(0)\n1 / 0", r"bad\.py:4: ZeroDivisionError"),
        ("import sys\n\nsys.exit('usage: bad.py')", r"bad\.py:3: SystemExit: usage"),
    ],
)
def test_a_file_that_does_not_run_says_where(user_file, code, message):
    (user_file / "bad.py").write_text(code)
    (user_file / "torn.py").write_text("y = (")
    with pytest.raises(InputError, match=message):
        create_model("bad.py:make")
