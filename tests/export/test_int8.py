"""Eight bits: the swapped model's file quantises by itself as the stock model's does, and says what it costs."""

from copy import deepcopy

import onnx
import onnxruntime
import pytest
import torch
from exports import HERE, swapped
from onnxruntime.quantization import QuantFormat, quantize_static

from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.export import Images, export_model, find_format
from poolswap.export.int8 import quantize
from poolswap.export.job import Job
from poolswap.export.trace import in_standard_operators, quiet
from poolswap.inputs import outputs_of
from poolswap.measure import relative_distance
from poolswap.surgery.swap import restore

STEM = (f"{HERE / 'pooled_nets.py'}:Stem", (3, 64, 64))
GOOGLE = (f"{HERE / 'pooled_nets.py'}:Overlap", (3, 32, 32))


def pictures(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 64, 64, generator=generator) for _ in range(count)]


class Calibration:
    """What onnxruntime's own tool takes."""

    def __init__(self, size):
        self.batches = iter(pictures(0))
        self.size = size

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch[..., : self.size, : self.size].numpy()}


def quantised_error(model, manifest, size, folder):
    """Relative error of onnxruntime's defaults, which know nothing of poolswap."""
    x = pictures(1, 1)[0][..., :size, :size]
    find_format("onnx").write(Job(model, manifest, (x,)), folder / "m.onnx")
    with quiet():
        quantize_static(folder / "m.onnx", folder / "q.onnx", Calibration(size), quant_format=QuantFormat.QDQ)
    (y,) = onnxruntime.InferenceSession(folder / "q.onnx").run(None, {"input": x.numpy()})
    return relative_distance([torch.from_numpy(y)], outputs_of(model, ((x,), {})))


@pytest.mark.parametrize("net", [STEM, GOOGLE], ids=["stem", "overlap"])
def test_onnxruntimes_own_quantiser_takes_the_file_as_it_takes_the_stock_models(net, tmp_path):
    model, manifest, _ = swapped(tmp_path, *net)
    model.eval()
    error = quantised_error(model, manifest, net[1][1], tmp_path)
    restore(model)
    stock = quantised_error(model, manifest, net[1][1], tmp_path)
    assert error < max(2 * stock, 0.03)


NO_BRANCH = pytest.mark.skipif(
    torch.__version__ < (2, 14), reason="torch 2.7 and 2.8 export no padded window under a condition"
)


@NO_BRANCH
@pytest.mark.parametrize("magnitude", [1.0, pytest.param(100.0, marks=pytest.mark.slow)], ids=["common", "safe"])
def test_both_sides_of_a_branch_survive_eight_bits(magnitude, tmp_path):
    """Beyond 80 the side reads what the quantiser has taken an activation from: many windows are below zero."""
    model, manifest, _ = swapped(tmp_path, *STEM, include_global=False)
    model.eval().norm.weight.data.fill_(magnitude)
    model.norm.bias.data.fill_(-1.5 * magnitude)
    (x,) = pictures(1, 1)
    job = Job(model, manifest, (x,), branch=True)
    find_format("onnx").write(job, tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", Images([(x, x) for x in pictures(0)], []), manifest.plan.paths)
    run = find_format("onnx").runner(job, tmp_path / "m.onnx")
    assert relative_distance(run((x,)), outputs_of(model, ((x,), {}))) < 0.05


@pytest.mark.parametrize("branch", [False, pytest.param(True, marks=[pytest.mark.slow, NO_BRANCH])])
def test_int8_is_calibrated_judged_and_named_last(branch, tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    model.eval()
    with torch.no_grad():
        judged = [(x, model(x).argmax(1)) for x in pictures(2)]
    calibration = [(x, torch.zeros(8)) for x in pictures(3, 3)]
    before = {path.name for path in tmp_path.iterdir()}
    report = export_model(model, manifest, tmp_path / "m.onnx", branch=branch, int8=Images(calibration, judged))
    assert {path.name for path in tmp_path.iterdir()} - before == {"m.onnx", "m.onnx.json"}
    assert report.int8 is not None
    assert (report.int8.calibrated_on, report.int8.images, report.int8.top1_float) == (24, 32, 100.0)
    assert report.int8.top1 == report.int8.agreement > 80
    assert report.difference < 1e-5
    made = onnx.load(tmp_path / "m.onnx")
    assert "poolswap" in {entry.key for entry in made.metadata_props}
    pooling = [node for node in made.graph.node if node.name.startswith(("maxpool/", "global_pool/"))]
    assert ("If" in {node.op_type for node in pooling}) == branch
    between = [name for node in pooling if node.op_type in ("Mul", "Div", "Max") for name in node.input]
    assert between
    assert not any("Quantize" in name for name in between)  # the pools are left in float32
    weights = [tensor for tensor in made.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims]
    assert {len(tensor.dims) for tensor in weights} >= {2, 4}  # the classifier and the convolution


def test_int8_without_images_or_onnx_leaves_nothing(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    before = {path.name for path in tmp_path.iterdir()}
    for images, to, message in [
        (Images([], []), "onnx", "no image to calibrate on"),
        (Images([(x, torch.zeros(8)) for x in pictures(0)], []), "onnx", "no image to judge by"),
        (Images([], []), "pt2", "pt2 takes no int8="),
    ]:
        with pytest.raises(InputError, match=message):
            export_model(model, manifest, tmp_path / f"m.{to}", to=to, verify=False, int8=images)
    half = manifest.model_copy(update={"dtype": "float16"})
    with pytest.raises(InputError, match="8 bits are made of float32"):
        export_model(model, half, tmp_path / "m.onnx", int8=Images([], []))
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_the_command_quantises_on_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    size = ["--input-size", "3,32,32", "--num-classes", "10"]
    assert main(["convert", "test_resnet", "--layers", "all", *size, "-o", "c.safetensors", "-q"]) == 0
    assert main(["export", "c.safetensors", "--int8", "digits"]) == 0
    assert "the same answers" in capsys.readouterr().err
    assert (tmp_path / "c.int8.onnx").is_file()


NO_TORCHAO = "torchao is not installed, or newer than this torch"


# torchao and what it imports warn of their own insides.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", ["Int8DynamicActivationInt8WeightConfig", "Int8WeightOnlyConfig"])
def test_torchao_takes_the_swapped_model_as_the_stock_one(scheme, tmp_path):
    quantization = pytest.importorskip("torchao.quantization", reason=NO_TORCHAO, exc_type=ImportError)
    model, *_ = swapped(tmp_path, *STEM)
    model.eval()
    (x,) = pictures(1, 1)

    def error(model):
        expected = outputs_of(model, ((x,), {}))
        made = deepcopy(model)
        quantization.quantize_(made, getattr(quantization, scheme)())
        assert type(made.fc.weight) is not type(model.fc.weight)
        return relative_distance(outputs_of(made, ((x,), {})), expected)

    found = error(model)
    restore(model)
    assert 0 < found < max(2 * error(model), 0.03)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["operator", pytest.param("standard operators", marks=pytest.mark.slow)])
def test_pt2e_quantises_the_swapped_program_as_the_stock_one(form, tmp_path):
    """The static scheme of torch's exported programs, at other batch sizes than those it was calibrated at."""
    pytest.importorskip("torchao", reason=NO_TORCHAO, exc_type=ImportError)
    model, *_ = swapped(tmp_path, *STEM)
    model.eval()
    (x,) = pictures(1, 1)

    def error(model, plain):
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        program = (in_standard_operators(exported) if plain else exported).module()
        made = in_eight_bits(program, pictures(0))
        assert any("quantize_per" in str(node.target) for node in made.graph.nodes)
        with torch.no_grad():
            return relative_distance([made(x[:3])], outputs_of(model, ((x[:3],), {})))

    found = error(model, form != "operator")
    restore(model)
    assert 0 < found < max(2 * error(model, False), 0.03)


def in_eight_bits(program, batches):
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        prepared = prepare_pt2e(program, quantizer)
        for batch in batches:
            prepared(batch)
        return convert_pt2e(prepared)
