"""Whatever is loaded, a command ends with one line that says what is wrong, exit code 2, and in time."""

import io
import json
import os
import zipfile

import pytest
import torch
import yaml
from forged import forged, with_metadata

from poolswap import load_model, settings
from poolswap.cli.app import main

SMALL = ("timm:test_resnet", "--num-classes", "3", "--input-size", "3,32,32")
STUDY = {"model": "timm:test_resnet", "data": "digits", "adapt": ["scratch"], "input_size": [3, 16, 16]}


SWAP = ("plan", "swaps", 0)
FUNCTIONAL = {"kind": "functional", "owner": ""}


def functional(path):
    """A first site that is said to be a functional call of this name."""

    def change(text):
        document = json.loads(text)
        document["plan"]["swaps"][0]["site"].update(FUNCTIONAL, path=path)
        return json.dumps(document)

    return change


LARGE = {"dtype": "float32", "shape": [2**14, 2**14]}
DEEP: dict = {"kind": "plain", "plain": 1}
for _ in range(400):
    DEEP = {"kind": "list", "items": [DEEP]}
METADATA = {
    "a size of 1e30": forged("model", "input_size", value=[3, 1e30, 32]),
    "a size of 2**70": forged("model", "input_size", value=[3, 2**70, 32]),
    "no size": forged("model", "input_size", value=[]),
    "a seed of 2**70": forged("fingerprint", "seed", value=2**70),
    "a seed of -1": forged("fingerprint", "seed", value=-1),
    "a seed of the weights of 2**70": forged("model", "weights", "seed", value=2**70),
    "an example of 40 gigabytes": forged(
        "example", value={"kind": "list", "items": [{"kind": "tensor", "tensor": LARGE}] * 40}
    ),
    "an example whose size overflows": forged(
        "example", value={"kind": "tensor", "tensor": {**LARGE, "shape": [2**32] * 2}}
    ),
    "a deep example": forged("example", value=DEEP),
    "a batch of 10**9": forged("fingerprint", "batch", value=10**9),
    "an empty shape": forged(*SWAP, "site", "input_shape", value=[]),
    "a shape of 2**70": forged(*SWAP, "site", "input_shape", value=[2**70, 1, 1, 1]),
    "a shape below 0": forged(*SWAP, "site", "output_shape", value=[-1, 3, 4, 4]),
    "windows without a dimension": forged(
        *SWAP, "geometry", value={"kernel_size": [], "stride": [], "padding": [], "dilation": []}
    ),
    "a path __class__": functional("__class__"),
    "a path maxpool.__class__": functional("maxpool.__class__"),
    "a path _modules": functional("_modules"),
    "a path forward": functional("forward"),
    "a path .": functional("."),
    "a path with a NUL": functional("pool_\0"),
    "an owner that is not there": forged(*SWAP, "site", "path", value="layer9.pool"),
    "options of another type": forged(*SWAP, "options", value={"beta": {"a": 1}}),
    "an operator in a file": forged(*SWAP, "to", value="evil.py:Pool"),
    "an operator that is not there": forged(*SWAP, "to", value="évil"),
    "30000 layers": forged("model", "model_args", value={"layers": [30000, 1, 1, 1]}),
    "a billion layers": forged("model", "model_args", value={"layers": [10**9]}),
    "10**12 classes": forged("model", "num_classes", value=10**12),
    "deep nesting": lambda text: "[" * 100_000,
    "deeper nesting": lambda text: '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a million values": lambda text: "[" + "1," * 10**6 + "1]",
    "9 megabytes": lambda text: text[:-1] + ',"x":"' + "x" * 9 * 2**20 + '"}',
    "no JSON": lambda text: text + "x",
    "nothing": lambda text: "",
    "6000 digits": lambda text: '{"format":' + "9" * 6000 + "}",
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_a_checkpoint(saved, refused, tmp_path, name):
    refused("verify", with_metadata(saved[0], tmp_path, METADATA[name]))


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = {
    "a date": "model: 2020-01-01",
    "a date in it": "model_args: {a: 2020-01-01}\nrecipe: {epochs: 2020-01-01}",
    "a date that is none": "model: 2020-13-45",
    "a set": "swaps: !!set {a}",
    "bytes": "model: !!binary aGVsbG8=",
    "code": "!!python/object/apply:os.system ['echo hi']",
    "deep nesting": "[" * 5000,
    "deep nesting of maps": "a: " * 1 + "{a: " * 3000,
    "a list in itself": "swaps: &a [*a]",
    "a billion values": ALIASES + "model_args: {x: *i}",
    "6000 digits": "seeds: " + "9" * 6000,
    "a number of 70 bits": f"seeds: {2**70}",
    "two documents": "---\na: 1\n---\nb: 2",
    "a tab": "\tmodel: x",
    "a list for a key": "? [a]\n: 3",
    "a number for a key": "1: 2",
    "nothing": "",
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("command", [("convert", *SMALL, "--output", "o.safetensors", "--plan"), ("ablate", "--study")])
def test_plans_and_studies(refused, tmp_path, command, name):
    (tmp_path / "document.yaml").write_text(DOCUMENTS[name], encoding="utf-8")
    refused(*command, "document.yaml")


def windows(kernel, padding):
    sizes = {"kernel_size": [kernel] * 2, "stride": [2, 2], "padding": [padding] * 2, "dilation": [1, 1]}
    return {"geometry": sizes}


PLANS = {
    "a path that is none": {"path": "\x1b[2J"},
    "a path __init__": {"path": "__init__"},
    "dilation 0": {"geometry": {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [0, 1]}},
    "a kernel of 2**62": windows(2**62, 0),
    "a kernel of 2**31 - 1": windows(2**31 - 1, 2**30 - 1),
    "a kernel of 40000 with weights": {"to": "gated", **windows(40000, 20000)},
    "a file of Python": {"to": "evil.py:Pool"},
}


@pytest.mark.parametrize("name", PLANS)
def test_swaps_of_a_plan(saved, refused, tmp_path, name):
    document = json.loads(saved[1].dumps("json"))
    change = dict(PLANS[name])
    if "path" in change:
        document["swaps"][0]["site"]["path"] = change.pop("path")
    document["swaps"][0].update(change)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    refused("convert", *SMALL, "--plan", "plan.json", "--output", "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


def test_complex_weights_lose_no_half_of_themselves(refused, tmp_path):
    weights = load_model("timm:test_resnet", num_classes=3)[0].state_dict()
    torch.save({**weights, "conv1.0.weight": weights["conv1.0.weight"].to(torch.complex64)}, tmp_path / "w.pt")
    assert "complex" in refused("convert", *SMALL, "--checkpoint", "w.pt", "--output", "o.safetensors")


def test_a_document_of_too_many_values_is_not_read_to_its_end(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "_MOST_VALUES", 1000)
    (tmp_path / "document.yaml").write_text("a: [" + "[]," * 2000 + "and no end")
    assert "too many values" in refused("ablate", "--study", "document.yaml")


STUDIES = {
    "3000000000 seeds": {"seeds": 3_000_000_000},
    "2**70 seeds": {"seeds": 2**64 - 1},
    "a seed of 2**63": {"seeds": [2**63]},
    "a seed of -1": {"seeds": [-1]},
    "6000 digits of layers": {"counts": "9" * 6000},
    "a billion layers": {"model_args": {"layers": [10**9]}},
    "10**12 classes": {"num_classes": 10**12},
    "a size of 2**60": {"input_size": [3, 2**60, 3]},
    "a huge size": {"input_size": [3, 10**5, 10**5]},
    "arguments that are none": {"model_args": ["x"]},
    "an operator of NaN": {"operators": ["soft:beta"]},
    "a model with a NUL": {"model": "a\0b"},
    "a long name": {"model": "x" * 5000},
    "no name": {"model": "timm:"},
    "a weights file with a NUL": {"weights": "a\0.pt", "adapt": ["none"]},
}


@pytest.mark.parametrize("name", STUDIES)
def test_fields_of_a_study(refused, tmp_path, name):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, **STUDIES[name]}))
    refused("ablate", "--study", "study.yaml", "--dry-run", "--output", "run")


def test_arguments_of_a_study_that_options_add_to(refused, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "model_args": "x"}))
    refused("ablate", "--study", "study.yaml", "--dry-run", "--model-arg", "a=1")


@pytest.mark.parametrize("field", [{"model": "evil.py:factory"}, {"operators": ["evil.py:Pool:size=3"]}])
def test_code_that_a_study_names_runs_only_where_it_is_trusted(refused, tmp_path, capsys, field):
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    vouching = {"running": {"trust_code": True}}  # a study may not vouch for itself
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, **field, **vouching}))
    assert "would run that file" in refused("ablate", "--study", "study.yaml", "--dry-run")
    assert not (tmp_path / "ran").exists()
    main(["ablate", "--study", "study.yaml", "--dry-run", "--trust-code"])
    assert (tmp_path / "ran").exists()
    capsys.readouterr()


OPTIONS = {
    "a seed of 2**70": ("--seed", 2**70),
    "a seed of -1": ("--seed", -1),
    "a huge size": ("--input-size", "3,30000,30000"),
    "10**12 classes": ("--num-classes", 10**12),
    "30000 layers": ("--model-arg", "layers=[30000,1,1,1]"),
    "deep nesting": ("--model-arg", "layers=" + "[" * 5000),
    "6000 digits of layers": ("--layers", "9" * 6000),
    "6000 digits of a number": ("--layers", "#" + "9" * 6000),
    "a plan without end": ("--plan", "/dev/zero"),
    "a plan that nobody writes": ("--plan", "fifo"),
    "weights without end": ("--checkpoint", "/dev/zero"),
    "weights that nobody writes": ("--checkpoint", "fifo"),
    "weights in a folder": ("--checkpoint", "/"),
    "a full device": ("--output", "/dev/full"),
    "a long name": ("--output", "x" * 300 + ".safetensors"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_convert(refused, tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    refused("convert", "timm:test_resnet", "--output", "o.safetensors", *OPTIONS[name])


@pytest.mark.parametrize(
    "command", [("verify",), ("images",), ("ablate", "--study"), ("report",), ("inspect",), ("evaluate", "--data", "x")]
)
@pytest.mark.parametrize("name", ["/dev/zero", "fifo.png", "fifo.safetensors", "/"])
def test_files_that_are_none(refused, tmp_path, command, name):
    for fifo in ("fifo.png", "fifo.safetensors"):
        os.mkfifo(tmp_path / fifo)
    refused(*command, name)


def test_weights_that_are_small_by_compression_alone(refused, tmp_path):
    """A megabyte that becomes a gigabyte; torch never compresses."""
    plain = io.BytesIO()
    torch.save({"weight": torch.zeros(2**24)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert "compressed" in refused("convert", *SMALL, "--checkpoint", "bomb.pt", "--output", "o.safetensors")


@pytest.mark.parametrize("cut", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a\xff\xff\xff\xff", b"BM" + b"\xff" * 60])
def test_pictures(refused, tmp_path, cut):
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(cut)
    refused("images", "a.png")


def test_a_model_that_is_too_large_for_what_is_allowed(refused, monkeypatch):
    monkeypatch.setenv("POOLSWAP_MAX_MEMORY", "20M")
    assert "weights take more" in refused("convert", "timm:resnet18", "--output", "o.safetensors")
    assert "forward takes more" in refused(
        "convert", *SMALL[:3], "--input-size", "3,2000,2000", "--output", "o.safetensors"
    )
    monkeypatch.setenv("POOLSWAP_MAX_MEMORY", "much")
    assert "not a size of memory" in refused("convert", *SMALL, "--output", "o.safetensors")


PACKAGES = {
    "deep nesting": "[" * 100_000,
    "a list": [],
    "no architecture": {},
    "an architecture of terminal codes": {"architecture": "\x1b[2J"},
    "an architecture elsewhere": {"architecture": "hf-hub:a/b"},
    "a file of Python": {"architecture": "evil.py:f"},
    "classes in words": {"num_classes": "x"},
    "half a class": {"num_classes": 2.5},
    "-5 classes": {"num_classes": -5},
    "10**12 classes": {"num_classes": 10**12},
    "a size in words": {"pretrained_cfg": {"input_size": "abc"}},
    "a size that is a table": {"pretrained_cfg": {"input_size": {"a": 1}}},
    "a number for a size": {"pretrained_cfg": {"input_size": 3}},
    "a negative size": {"pretrained_cfg": {"input_size": [3, -1, 5]}},
    "a size of 1e30": {"pretrained_cfg": {"input_size": [3, 1e30, 5]}},
    "a list of configurations": {"pretrained_cfg": [1]},
    "a list of arguments": {"model_args": [1]},
    "weights": {"model_args": {"checkpoint_path": "/etc/passwd"}},
    "other weights": {"model_args": {"pretrained_cfg": {"file": "/etc/passwd"}}},
}
PACKAGE = {"num_classes": 3, "pretrained_cfg": {"input_size": [3, 32, 32]}}


@pytest.mark.parametrize("name", PACKAGES)
def test_packaged_models(refused, tmp_path, name):
    given = PACKAGES[name]
    if isinstance(given, dict) and name != "no architecture":
        given = {"architecture": "resnet18", **PACKAGE, **given}
    (tmp_path / "config.json").write_text(given if isinstance(given, str) else json.dumps(given))
    refused("inspect", "local-dir:.")


def test_a_package_whose_configuration_nobody_writes(refused, tmp_path):
    os.mkfifo(tmp_path / "config.json")
    refused("inspect", "local-dir:.")


@pytest.mark.parametrize(
    "name", ["hf-hub:../../etc", "hf-hub:", "hf-hub:a/b/c", "local-dir:", "timm:../x", "x" * 100_000]
)
def test_names_of_models(refused, name):
    assert len(refused("inspect", name)) < 2500


def test_a_picture_of_data_that_is_a_pipe(saved, refused, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "val"):
        for label in ("a", "b", "c"):
            (tmp_path / split / label).mkdir(parents=True)
            image.linear_gradient("L").save(tmp_path / split / label / "1.png")
    os.mkfifo(tmp_path / "val" / "a" / "2.png")
    assert "it is a pipe or a device" in refused("evaluate", saved[0], "--data", ".", "--batch-size", "3")
