"""A selector that no model could fit is refused before there is a model."""

import subprocess
import sys

import pytest

from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.surgery.syntax import check_selector


@pytest.mark.parametrize("selector", ["all", "first", "last:2", "3", "#1,layer2.*", "maxpool", "max*", "first, stem"])
def test_what_may_fit_passes(selector):
    check_selector(selector)


@pytest.mark.parametrize(
    ("selector", "hint"),
    [
        ("max", "op=max"),
        ("avg", "op=avg"),
        ("first,,#2", "write for example layers='first:2,#5'"),
        ("#x", "write for example layers='#1'"),
        ("#0", "write for example layers='#1'"),
        ("first:x", "layers=first:2"),
        ("last:", "layers=last:2"),
    ],
)
def test_what_cannot_is_an_error_with_a_hint(selector, hint):
    with pytest.raises(InputError) as caught:
        check_selector(selector)
    assert caught.value.hint == hint


@pytest.mark.parametrize("command", [["convert", "resnet18"], ["bench", "--model", "resnet18"]])
def test_a_kind_of_pooling_is_no_selector_and_torch_is_not_imported_to_say_so(command, capsys):
    code = f"""
import sys
from poolswap.cli.app import main
assert main([*{command!r}, "--layers", "max"]) == 2
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "error: 'max' is a kind of pooling, not a selector\nhint: --op max\n")
    assert main([*command, "--layers", "first:"]) == 2
