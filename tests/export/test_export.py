"""Every format holds the model, says so by its own runtime, and leaves nothing behind where it does not."""

import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch
from exports import HERE, NETS, swapped

from poolswap.checkpoint import save_checkpoint
from poolswap.cli.app import main
from poolswap.errors import CheckError, InputError, MissingExtraError
from poolswap.example import KeptExample
from poolswap.export import FORMATS, default_path, export_model, find_format, formats, parity
from poolswap.export.job import Job
from poolswap.inputs import outputs_of
from poolswap.measure import relative_distance
from poolswap.models.load import create_model
from poolswap.operators import OPERATORS
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

MIXED = (f"{NETS}:Mixed", (3, 33, 37))
STEM = (f"{HERE / 'pooled_nets.py'}:Stem", (3, 64, 64))
SAME = (f"{HERE / 'pooled_nets.py'}:SameNet", (3, 37, 41))
VIDEO = (f"{HERE / 'pooled_nets.py'}:Video", (3, 5, 17, 19))
PARADE = f"{HERE / 'pooled_nets.py'}:Parade"
WINDOWED = [name for name, operator in OPERATORS.items() if operator.window]
RESNET = ("timm:resnet18", (3, 64, 64))

NO_BRANCH = pytest.mark.skipif(
    torch.__version__ < (2, 14), reason="torch 2.7 and 2.8 export no padded window under a condition"
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def formats_here():
    slow = {"aoti": pytest.mark.slow, "openvino": pytest.mark.slow}
    for name, form in FORMATS.items():
        if all(find_spec(package) for package in form.needs):
            yield pytest.param(name, marks=slow.get(name, ()))


@pytest.mark.parametrize("to", list(formats_here()))
def test_every_format_agrees_with_the_model_at_every_batch_size(to, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, *RESNET)
    path = default_path(checkpoint, to)
    report = export_model(model, manifest, path, to=to)
    assert [p.batch for p in report.parity] == [1, 2, 5, 2]
    assert report.parity[-1].input == "noise times 10000"
    assert report.difference < 1e-5
    assert path.exists()
    beside = report.model_validate_json(path.with_name(f"{path.name}.json").read_text())
    assert beside == report.model_copy(update={"path": path.name})
    with pytest.raises(InputError, match="exists already"):
        export_model(model, manifest, path, to=to)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ([(torch.rand(2, 3), torch.rand(2, 4))], "more than batches"),
        ({"a": torch.rand(2, 3), "b": torch.rand(2, 4)}, "more than batches"),
        (torch.ones(2, 3, dtype=torch.int64), "more than batches"),
        ((torch.rand(2, 3), torch.rand(4, 3)), "different sizes"),
        ((torch.rand(2, 3), torch.rand(2, 3)), "cannot vary"),
    ],
)
def test_an_example_that_is_no_batches_is_refused(example, message, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, *STEM)
    manifest = manifest.model_copy(update={"example": KeptExample.of(example)})
    path = default_path(checkpoint, "onnx")
    with pytest.raises(InputError, match=message):
        export_model(model, manifest, path, dynamic_size=True)
    assert not path.exists()


def test_a_precision_that_a_runtime_lacks_is_refused_before_the_work_and_pt2_keeps_it(tmp_path, capsys):
    model, manifest, checkpoint = swapped(tmp_path, *STEM)
    manifest = save_checkpoint(model.bfloat16(), checkpoint, spec=manifest.model, plan=manifest.plan, force=True)
    for to in ("onnx", "openvino"):
        if all(find_spec(package) for package in FORMATS[to].needs):
            with pytest.raises(InputError, match="does not run bfloat16") as caught:
                export_model(model, manifest, default_path(checkpoint, to), to=to)
            assert "the format pt2" in caught.value.hint
    assert main(["export", str(checkpoint), "--to", "onnx", "--trust-code"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"hint: poolswap export {checkpoint} --to pt2 --trust-code"
    assert export_model(model, manifest, tmp_path / "net.pt2", to="pt2").difference < 1e-2
    assert names(tmp_path) == [checkpoint.name, "net.pt2", "net.pt2.json"]


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_model_of_two_inputs(to, tmp_path):
    """Numbered names; each as large as the example's, which need not be of the model's input size."""
    kept = (torch.rand(1, 3, 24, 32), torch.rand(1, 7))
    model, manifest, checkpoint = swapped(tmp_path, f"{HERE / 'pooled_nets.py'}:Shifted", (3, 24, 32), example=kept)
    path = default_path(checkpoint, to)
    report = export_model(model, manifest, path, to=to)
    assert [p.batch for p in report.parity] == [1, 2, 5, 2]
    assert report.difference < 1e-5
    if to == "onnx":
        graph = onnx.load(path).graph
        assert [(value.name, sizes(value)) for value in graph.input] == [
            ("input_0", ["batch", 3, 24, 32]),
            ("input_1", ["batch", 7]),
        ]


@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize(("reference", "size"), [MIXED, SAME, VIDEO], ids=["lifted", "same", "3d"])
def test_functional_same_and_3d_pools(reference, size, to, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, reference, size)
    assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-5


@pytest.mark.parametrize("net", ["Loose", "Words"])
def test_a_forward_with_a_signature_of_its_own(net, tmp_path):
    """More parameters than the images, optional ones, and none by name, as a lifted owner has it."""
    model, manifest, checkpoint = swapped(tmp_path, f"{HERE / 'pooled_nets.py'}:{net}", STEM[1])
    assert export_model(model, manifest, default_path(checkpoint, "pt2"), to="pt2").difference < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ultralytics' own
@pytest.mark.skipif(find_spec("ultralytics") is None, reason="ultralytics is not installed")
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_yolov8n(to, tmp_path):
    (tmp_path / "net.py").write_text(
        "from ultralytics.nn.tasks import DetectionModel\n"
        "def yolov8n():\n"
        "    return DetectionModel('yolov8n.yaml', verbose=False)\n"
    )
    model, manifest, checkpoint = swapped(tmp_path, f"{tmp_path / 'net.py'}:yolov8n", (3, 160, 160))
    assert [str(swap.site.call) for swap in manifest.plan.swaps] == ["5x5/1 p2"] * 3  # one layer called three times
    assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the older exporter, and of torchvision's code under it
def test_a_detector_by_torchvisions_own_way_into_onnx(tmp_path):
    """It takes a list of images, which no format here does; its regions are pooled by SoftPool too."""
    small = {"min_size": 96, "max_size": 128, "rpn_post_nms_top_n_test": 50}
    scores = {"box_score_thresh": 0.0, "box_detections_per_img": 20}
    model, spec = create_model(
        "torchvision:fasterrcnn_resnet50_fpn", num_classes=3, input_size=(3, 96, 128), model_args={**small, **scores}
    )
    swaps = [("backbone.*", "soft"), ("roi_heads.box_roi_pool", "soft")]
    plan = make_plan(find_pools(model, spec.input_size), None, swaps=swaps)
    assert len(plan.swaps) == 3
    swap_pools(model, plan)
    x, path = torch.rand(3, 96, 128), tmp_path / "detector.onnx"
    torch.onnx.export(model.eval(), ([x],), path, dynamo=False, opset_version=18, input_names=["image"])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    other = torch.rand(3, 96, 128)
    boxes, labels, scores = map(torch.from_numpy, session.run(None, {"image": other.numpy()}))
    with torch.no_grad():
        (expected,) = model([other])
    assert len(boxes) > 0
    assert torch.equal(labels, expected["labels"])
    torch.testing.assert_close(boxes, expected["boxes"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(scores, expected["scores"], rtol=1e-4, atol=1e-5)


# In 3d it is a large program, half a minute: it looked as if it hung.
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("net", [STEM, pytest.param(VIDEO, marks=pytest.mark.slow)], ids=["2d", "3d"])
def test_a_second_resolution_where_sizes_are_dynamic(net, to, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, *net)
    report = export_model(model, manifest, default_path(checkpoint, to), to=to, dynamic_size=True)
    assert "37 longer" in [p.input for p in report.parity][3]
    assert report.difference < 1e-5


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_every_operator_can_be_exported(to, tmp_path):
    swaps = [(f"pools.{n}", operator) for n, operator in enumerate(WINDOWED)]
    model, manifest, checkpoint = swapped(
        tmp_path, PARADE, (3, 15, 17), {"pools": len(swaps)}, layers=None, swaps=swaps, include_global=False
    )
    assert [swap.to for swap in manifest.plan.swaps] == WINDOWED
    assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-4


@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("operator", [name for name, operator in OPERATORS.items() if operator.head])
def test_a_head_by_every_operator_of_heads(operator, to, tmp_path):
    model, manifest, checkpoint = swapped(
        tmp_path, "timm:test_resnet", (3, 64, 64), layers=None, swaps=[("global_pool*", operator)]
    )
    assert [swap.to for swap in manifest.plan.swaps] == [operator]
    assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("operator", WINDOWED)
def test_every_operator_in_a_model_with_same_padding(operator, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, *SAME, to=operator, include_global=False)
    for to in ("onnx", "pt2"):
        assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-4, to


BIG = [
    ("timm:resnet50", (3, 224, 224)),
    ("timm:vgg16_bn", (3, 224, 224)),
    ("timm:densenet121", (3, 224, 224)),
    ("torchvision:inception_v3", (3, 299, 299)),
    ("torchvision:googlenet", (3, 224, 224)),
    ("timm:pnasnet5large", (3, 331, 331)),
    ("torchvision:s3d", (3, 16, 224, 224)),
]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize(("reference", "size"), BIG, ids=[name for name, _ in BIG])
def test_whole_architectures(reference, size, to, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, reference, size)
    assert export_model(model, manifest, default_path(checkpoint, to), to=to).difference < 1e-4


RUN = """
import sys
sys.modules["poolswap"] = None
import numpy
x = numpy.load("x.npy")
if sys.argv[1] == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"input": x})
else:
    import torch
    y = torch.export.load("m.pt2").module()(torch.from_numpy(x)).detach().numpy()
numpy.save("y.npy", y)
"""


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_the_file_runs_in_a_process_without_poolswap(to, tmp_path):
    model, manifest, _ = swapped(tmp_path, *MIXED)
    export_model(model, manifest, tmp_path / f"m.{to}", to=to, verify=False)
    x = torch.randn(3, *MIXED[1])
    numpy.save(tmp_path / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", RUN, to], cwd=tmp_path, check=True, env={"PATH": ""})
    assert relative_distance([torch.from_numpy(numpy.load(tmp_path / "y.npy"))], outputs_of(model, ((x,), {}))) < 1e-5


def test_the_onnx_file_is_standard_and_carries_its_manifest(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    export_model(model, manifest, tmp_path / "m.onnx", opset=18, verify=False)
    made = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert {(opset.domain, opset.version) for opset in made.opset_import} == {("", 18)}
    said = type(manifest).model_validate_json({p.key: p.value for p in made.metadata_props}["poolswap"])
    assert said.plan == manifest.plan
    assert said.model == manifest.model.model_copy(update={"name": "pooled_nets.py:Stem"})
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    assert inferred.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 7


def sizes(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_an_onnx_file_calls_things_by_their_names(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    export_model(model, manifest, tmp_path / "m.onnx", dynamic_size=True, verify=False)
    graph = onnx.load(tmp_path / "m.onnx").graph
    (given,), (made,) = graph.input, graph.output
    assert (given.name, sizes(given)) == ("input", ["batch", 3, "height", "width"])
    assert (made.name, sizes(made)) == ("output", ["batch", 7])
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {"maxpool/MaxPool", "maxpool/Exp_1", "global_pool/ReduceMax", "fc/Gemm"} <= set(names)
    inner = [size for value in graph.value_info for size in sizes(value) if isinstance(size, str)]
    assert not any(re.search(r"\bs\d+\b", size) for size in inner)


@pytest.mark.parametrize("to", [p for p in formats_here() if p.values != ("aoti",)])  # it keeps its compiler's paths
def test_no_file_holds_a_path_or_code_of_the_exporting_machine(to, tmp_path):
    model, manifest, checkpoint = swapped(tmp_path, *(RESNET if to == "timm-folder" else STEM))
    path = tmp_path / "out" / default_path(checkpoint, to).name
    path.parent.mkdir()
    export_model(model, manifest, path, to=to, verify=False)
    for file in path.parent.rglob("*"):
        held = unpacked(file) if file.is_file() else b""
        for secret in (tmp_path, HERE, Path(torch.__file__).parent, Path.home(), "return self.fc("):
            assert str(secret).encode() not in held, f"{file.name} holds {secret}"


def unpacked(file):
    """The bytes of a file, of an archive's members too."""
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_a_file_for_one_size_alone_is_told_what_to_leave_out(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)

    def run(arguments):
        if arguments[0].shape[-1] != STEM[1][-1]:
            raise RuntimeError("Shape mismatch")
        return outputs_of(model, (arguments, {}))

    job = Job(model.eval(), manifest, (torch.zeros(1, *STEM[1]),), dynamic_size=True)
    with pytest.raises(CheckError, match="37 longer, batch 2: Shape mismatch") as caught:
        parity.measure_parity(job, run)
    assert caught.value.hint.startswith("leave out dynamic_size=True")


def test_what_has_no_onnx_form_is_told_by_its_cause(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("This is step 3/3") from ValueError("No ONNX function for aten.thing\n...")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    model, manifest, _ = swapped(tmp_path, *STEM)
    for branch, hint in [(True, "leave out branch=True"), (False, "try another opset, or the format pt2")]:
        with pytest.raises(InputError, match=r"no ONNX form: No ONNX function for aten\.thing$") as caught:
            export_model(model, manifest, tmp_path / "m.onnx", branch=branch)
        assert caught.value.hint == hint
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("branch", [False, pytest.param(True, marks=NO_BRANCH)])
def test_openvino_keeps_the_sizes_the_names_and_the_branches(branch, tmp_path):
    import openvino

    model, manifest, _ = swapped(tmp_path, *STEM)
    (tmp_path / "out").mkdir()
    report = export_model(model, manifest, tmp_path / "out" / "m.xml", to="openvino", branch=branch)
    assert report.parity[-1].input == "noise times 10000"
    assert report.difference < 1e-5
    assert names(tmp_path / "out") == ["m.bin", "m.xml", "m.xml.json"]
    made = openvino.Core().read_model(tmp_path / "out" / "m.xml")
    assert str(made.input("input").partial_shape) == "[?,3,64,64]"
    assert str(made.output("output").partial_shape) == "[?,7]"
    kinds = [node.get_type_name() for node in made.get_ops()]
    assert kinds.count("If") == branch
    said = type(manifest).model_validate_json(made.get_rt_info("poolswap").astype(str))
    assert said.plan == manifest.plan


@NO_BRANCH
def test_a_branch_at_every_pool_is_within_parity_on_both_sides(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    report = export_model(model, manifest, tmp_path / "m.onnx", branch=True)
    assert report.parity[-1].input == "noise times 10000"
    assert report.difference < 1e-5
    assert report.options == {"branch": True}
    names = [node.name for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "maxpool/If" in names
    for to, options, message in [
        ("onnx", {"dynamic_size": True}, "known sizes"),
        ("pt2", {}, "pt2 takes no branch="),
    ]:
        with pytest.raises(InputError, match=message):
            export_model(model, manifest, tmp_path / f"n.{to}", to=to, branch=True, **options)


def test_fused_keeps_the_operator(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    export_model(model, manifest, tmp_path / "m.pt2", to="pt2", fused=True)
    targets = {str(node.target) for node in torch.export.load(tmp_path / "m.pt2").graph.nodes}
    assert "poolswap.soft_pool.default" in targets


def test_a_file_beyond_tolerance_is_not_left_behind(tmp_path, monkeypatch):
    model, manifest, _ = swapped(tmp_path, *STEM)
    before = names(tmp_path)
    with pytest.raises(CheckError, match="differs by"):
        export_model(model, manifest, tmp_path / "m.onnx", tolerance=0.0)
    monkeypatch.setattr(parity, "outputs_of", lambda *_: [torch.ones(2, 7)])
    with pytest.raises(CheckError, match="differs by inf"):
        export_model(model, manifest, tmp_path / "m.pt2", to="pt2")
    assert names(tmp_path) == before


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, monkeypatch):
    model, manifest, _ = swapped(tmp_path, *MIXED)
    before = names(tmp_path)
    cases = [
        ("m.onnx", {"to": "onx"}, "unknown format"),
        ("m.pt2", {}, "must end in .onnx"),
        ("m.onnx", {"fused": True}, "takes no fused="),
        ("no/m.onnx", {}, "there is no folder"),
        ("folder", {"to": "timm-folder"}, "is not a timm model"),
    ]
    for name, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            export_model(model, manifest, tmp_path / name, **options)
        assert "\n" not in caught.value.message
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="not installed") as caught:
        export_model(model, manifest, tmp_path / "m.onnx")
    assert caught.value.hint.startswith("pip install 'onnx>=")
    assert names(tmp_path) == before


def test_a_model_that_cannot_be_traced_is_an_input_error(tmp_path):
    net = tmp_path / "net.py"
    net.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.pool = nn.MaxPool2d(2)\n"
        "        self.fc = nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        y = self.fc(self.pool(x).mean((2, 3)))\n"
        "        return y if float(y.sum()) > 0 else -y\n"
    )
    model, manifest, _ = swapped(tmp_path, f"{net}:Net", (3, 8, 8), include_global=False)
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"torch\.export cannot trace the model") as caught:
        export_model(model, manifest, tmp_path / "m.onnx")
    assert "\n" not in caught.value.message
    assert names(tmp_path) == before


def test_a_folder_that_no_export_made_is_not_replaced(tmp_path):
    model, manifest, _ = swapped(tmp_path, *RESNET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="no export made"):
        export_model(model, manifest, tmp_path / "mine", to="timm-folder", force=True)
    assert names(tmp_path / "mine") == ["thesis.txt"]


def test_force_replaces_an_exported_folders_own_files_and_no_others(tmp_path):
    """What a user has put beside them since, a thesis among it, is not poolswap's to remove."""
    model, manifest, _ = swapped(tmp_path, *RESNET)
    folder = tmp_path / "mine"
    export_model(model, manifest, folder, to="timm-folder", verify=False)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.txt").write_text("years")
    export_model(model, manifest, folder, to="timm-folder", verify=False, force=True)
    after = {path.name: path.stat().st_ino for path in folder.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)
    assert (folder / "notes" / "thesis.txt").read_text() == "years"


def test_another_projects_folder_is_not_taken_for_an_export(tmp_path):
    model, manifest, _ = swapped(tmp_path, *RESNET)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no export made"):
        export_model(model, manifest, tmp_path / "theirs", to="timm-folder", force=True)
    assert (tmp_path / "theirs" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("to", ["pt2", "state-dict", "timm-folder"])
def test_a_full_disk_is_one_line_and_leaves_nothing(to, tmp_path):
    """Really full: the system allows the process no file above 100 kB. Two of torch's writers would end it there."""
    *_, checkpoint = swapped(tmp_path, *RESNET)
    before = names(tmp_path)
    code = (
        "import resource, sys; from poolswap.cli.app import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main(['export', sys.argv[1], '--to', sys.argv[2], '--no-verify']))"
    )
    run = subprocess.run([sys.executable, "-c", code, checkpoint, to], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "cannot be written" in run.stderr
    assert "File too large" in run.stderr
    assert "internal" not in run.stderr
    assert names(tmp_path) == before


def test_bench_compares_with_the_stock_model(tmp_path):
    model, manifest, _ = swapped(tmp_path, *STEM)
    report = export_model(model, manifest, tmp_path / "m.pt2", to="pt2", verify=False, bench=True)
    assert report.speed is not None
    assert report.speed.ratio > 0
    assert report.difference is None


def test_the_table_names_each_format_once():
    for name, form in FORMATS.items():
        assert find_format(name) is form
        assert (form.extra is None) == (not form.needs)


@pytest.fixture(scope="module")
def rigid(tmp_path_factory):
    """A checkpoint of a network that takes one size alone, for its classifier is made for that map."""
    folder = tmp_path_factory.mktemp("rigid")
    made = "nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))"
    (folder / "net.py").write_text(f"from torch import nn\ndef net():\n    return {made}\n")
    path = folder / "soft.safetensors"
    assert main(["convert", f"{folder / 'net.py'}:net", "--input-size", "3,4,4", "-o", str(path)]) == 0
    return path


def test_sizes_that_the_model_does_not_take_are_refused_in_words(rigid, capsys):
    assert main(["export", str(rigid), "--to", "pt2", "--dynamic-size", "--trust-code"]) == 2
    said = capsys.readouterr().err
    assert "longer than its input size" in said
    assert "leave out --dynamic-size" in said
    assert names(rigid.parent) == ["net.py", "soft.safetensors"]


def test_bare_weights_verify_as_the_checkpoint_does(rigid, tmp_path, monkeypatch):
    monkeypatch.chdir(rigid.parent)  # files that are given away name no folders
    path = str(tmp_path / "bare.safetensors")
    assert main(["export", str(rigid), "--to", "state-dict", "-o", path, "--trust-code"]) == 0
    assert main(["verify", path, "--trust-code"]) == 0


def test_an_export_never_replaces_the_checkpoint_that_it_is_made_of(rigid, capsys):
    before = rigid.read_bytes()
    assert main(["export", str(rigid), "--to", "state-dict", "-o", str(rigid), "--trust-code", "--force"]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert rigid.read_bytes() == before


def test_a_plan_brings_its_input_size(rigid, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = f"{rigid.parent / 'net.py'}:net"
    assert main(["convert", net, "--input-size", "3,4,4", "--plan-out", "plan.yaml", "--dry-run"]) == 0
    assert main(["convert", net, "--plan", "plan.yaml", "-o", "soft.safetensors"]) == 0
    assert main(["finetune", net, "--data", "digits", "--epochs", "1", "-o", "run"]) == 2
    assert "cannot run on an input of size 3,224,224" in capsys.readouterr().err
    assert not Path("run").exists()
