"""`import poolswap` is instant, and every public name is there when it is used."""

import subprocess
import sys

import pytest

import poolswap


@pytest.mark.parametrize("module", ["poolswap", "poolswap.cli.app", "poolswap.errors"])
def test_import_does_not_import_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'timm', 'torchvision', 'pydantic'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", poolswap.__all__)
def test_every_public_name_resolves(name):
    assert getattr(poolswap, name) is not None
    assert name in dir(poolswap)


def test_public_names_are_those_of_their_modules():
    from poolswap.surgery.sites import find_pools

    assert poolswap.find_pools is find_pools


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'poolswap' has no attribute 'find_pool'"):
        _ = poolswap.find_pool
