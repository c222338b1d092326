"""What the package uses of torch and timm that they do not promise: a version without it is named here, by its name."""

import importlib
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "poolswap"
SOURCE = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
TORCH = sorted(set(re.findall(r"torch(?:\._C|\.autograd\.forward_ad)?\._\w+(?:\._\w+)*", SOURCE)))
IMPORTED = sorted(set(re.findall(r"from ((?:torch|timm)[\w.]*) import ([^\n(]*\b_\w+[^\n(]*)", SOURCE)))


@pytest.mark.parametrize("name", [name for name in TORCH if not name.startswith("torch._inductor")])
def test_torch_has(name):
    value = importlib.import_module("torch")
    for part in name.split(".")[1:]:
        value = getattr(value, part)


@pytest.mark.parametrize(("module", "names"), IMPORTED)
def test_a_library_has(module, names):
    found = importlib.import_module(module)
    for name in names.split(","):
        assert hasattr(found, name.split(" as ")[0].strip())


def test_forward_mode_says_its_level():
    from torch.autograd import forward_ad

    assert forward_ad._current_level == -1


def test_the_workflow_tests_the_oldest_versions_that_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    lines = (ROOT / ".ci/floors.txt").read_text().splitlines()
    pinned = {line.replace("==", ">=") for line in lines if line and not line.startswith("#")}
    assert set(project["dependencies"]) <= pinned <= {*project["dependencies"], *extras}
