"""`poolswap env` says what runs here, and why what does not does not."""

import json
from email.message import Message

import pytest

from poolswap import environment as env
from poolswap.cli.app import main
from poolswap.ops import backend as backend_module
from poolswap.ops.backend import BACKENDS, Backend


def test_json_has_every_part(capsys):
    assert main(["env", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"versions", "system", "devices", "backends", "backend_problems", "extras"}
    assert document["versions"]["torch"].startswith("2.")
    assert document["system"]["cpus"] >= 1
    assert document["devices"][0]["name"] == "cpu"
    assert [b["name"] for b in document["backends"]] == list(BACKENDS)


def test_tables_have_the_same_parts(capsys):
    assert main(["env"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "Versions\nSystem\nDevices\nSoftPool backends\nExtras\n"
    for word in ("torch", "threads", "cpu", *BACKENDS):
        assert word in captured.out


def test_every_device_type_has_one_backend_and_it_works():
    states = env.backends()
    used = [kind for state in states for kind in state.used_for]
    assert sorted(used) == sorted({device.name.partition(":")[0] for device in env.devices()})
    assert all(state.works for state in states if state.used_for)


def test_a_backend_that_cannot_run_says_why(monkeypatch, capsys):
    class Lame(Backend):
        def unavailable(self) -> str | None:
            return "no compiler found"

    monkeypatch.setitem(BACKENDS, "lame", Lame("lame", "nowhere", device="cpu"))
    backend_module.select.cache_clear()
    try:
        (state,) = [state for state in env.backends() if state.name == "lame"]
        assert (state.works, state.reason, state.used_for) == (False, "no compiler found", [])
        assert main(["env"]) == 0
        assert "no compiler found" in capsys.readouterr().out
    finally:
        backend_module.select.cache_clear()


@pytest.mark.parametrize(("requested", "used"), [("auto", True), ("reference", True), ("nope", False)])
def test_the_backend_asked_for_is_the_one_shown(monkeypatch, capsys, requested, used):
    monkeypatch.setenv("POOLSWAP_BACKEND", requested)
    assert main(["env", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["system"]["backend_requested"] == requested
    assert any(state["used_for"] for state in document["backends"]) is used
    assert bool(document["backend_problems"]) is not used
    assert ("warning: cpu: unknown backend 'nope'" in captured.err) is not used


class Distribution:
    def __init__(self, *requirements: str) -> None:
        self.metadata = Message()
        for extra in ("test", "onnx"):
            self.metadata["Provides-Extra"] = extra
        for requirement in requirements:
            self.metadata["Requires-Dist"] = requirement


def test_extras_name_what_is_missing(monkeypatch):
    needs = ("torch>=2.14", 'pytest>=9; extra == "test"', "surely_missing ; python_version > '3' and extra == 'onnx'")
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution(*needs))
    monkeypatch.setattr(env, "_version", {"pytest": "9"}.get)
    assert env.extras() == [
        env.ExtraState("test", True, []),
        env.ExtraState("onnx", False, ["surely_missing"]),
    ]


@pytest.mark.parametrize("flag", ["--quiet", "-q"])
def test_quiet_leaves_the_tables(flag, capsys):
    assert main(["env", flag]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "torch" in captured.out
