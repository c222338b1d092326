import pytest

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.checkpoint import save_checkpoint
from poolswap.cli.app import main

SIZE = (3, 32, 32)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """(path, plan) of a sound checkpoint."""
    model, spec = load_model("timm:test_resnet", num_classes=3, input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), model=spec.reference, input_size=SIZE)
    swap_pools(model, plan)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_checkpoint(model, path, spec=spec, plan=plan)
    return path, plan


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder, and says what its one line of error is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLSWAP_DEBUG", "")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert code == 2, lines
        assert len(errors) == 1, lines
        assert "internal" not in errors[0]
        assert not any(line.startswith("Traceback") for line in lines)
        return errors[0]

    return run
