"""Training: what it writes, what it refuses, and that the commands do the whole way."""

import dataclasses
import json

import pytest
import torch
from adapt.small import SIZE, digits, net
from torch import nn
from torch.utils.data import Subset

from poolswap.adapt import Recipe, evaluate, finetune, from_scratch, loaders
from poolswap.adapt.parts import freeze
from poolswap.checkpoint import load_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.errors import CheckError, InputError
from poolswap.files import PARTIAL, hold

FAST = {"epochs": 2, "batch_size": 32, "lr": 2e-3}


def train(tmp_path, recipe, swap=True, size=SIZE, to="soft", **options):
    model, spec, plan = net(swap, size, to)
    result = finetune(model, digits(size=size), recipe, tmp_path / "out", spec=spec, plan=plan, device="cpu", **options)
    return model, result


def test_checkpoints_verify_and_say_how_they_were_trained(tmp_path):
    model, result = train(tmp_path, Recipe(**FAST))
    for path in (result.best_path, result.last_path):
        assert verify_checkpoint(path).ok
    last, manifest = load_checkpoint(result.last_path)
    assert manifest.recipe["lr"] == 2e-3
    assert manifest.recipe["data"] == "digits"
    assert manifest.recipe["epoch"] == 2
    assert str(manifest.model.weights) == "random (seed 0), trained on digits"
    assert not manifest.model.weights.untrained
    val = loaders(digits(), 40)[1]
    assert evaluate(model, val).loss == pytest.approx(result.rows[-1].val_loss)
    assert evaluate(last, val).loss == pytest.approx(result.rows[-1].val_loss)
    assert result.best.top1 == max(row.top1 for row in result.rows)
    assert load_checkpoint(result.best_path)[1].recipe["epoch"] == result.best.epoch


def test_two_trainings_do_not_share_a_folder(tmp_path):
    """Both would report success, over one another's checkpoints."""
    (tmp_path / "out").mkdir()
    with hold(tmp_path / "out"), pytest.raises(InputError, match="another training is at work"):
        train(tmp_path, Recipe(**FAST))
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_training_left_is_swept(tmp_path):
    left = [tmp_path / "out" / name for name in (".state-partial", "state-000000000", f"{PARTIAL}x")]
    for path in left:
        path.mkdir(parents=True)
        (path / "progress.json").write_text("")
    train(tmp_path, Recipe(**FAST), force=True)
    assert not any(path.exists() for path in left)


def test_the_control_is_trained_and_saved_the_same_way(tmp_path):
    """No plan: the stock model, the same recipe, whatever it says of beta."""
    _, result = train(tmp_path, Recipe(**FAST, anneal=0.5, beta_decay=0.1), swap=False)
    assert verify_checkpoint(result.last_path).ok
    assert load_checkpoint(result.last_path)[1].plan.swaps == ()
    assert result.rows[-1].beta is None


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_everything_of_a_recipe_at_once(tmp_path, precision):
    # At 16x16 the last stage strides over a single element, where torch's bfloat16 convolution on the CPU leaves parts
    # of its weight gradient unset.
    size = SIZE if precision == "no" else (3, 32, 32)
    recipe = Recipe(
        **FAST,
        opt="sgd",
        sched="step",
        warmup=1,
        layer_decay=0.8,
        loss="bce",
        smoothing=0.1,
        mixup=0.2,
        cutmix=0.5,
        ema=0.9,
        freeze=("conv1.*",),
        beta_decay=0.1,
        grad_accumulation=2,
        clip_grad=1.0,
        mixed_precision=precision,
    )
    before = dict(net()[0].named_parameters())
    model, result = train(tmp_path, recipe, size=size, to="soft:beta=learn")
    assert verify_checkpoint(result.last_path).ok
    assert torch.equal(model.conv1[0].weight, before["conv1.0.weight"])
    assert not torch.equal(model.fc.weight, before["fc.weight"])
    assert all(layer.learnt for layer in result.betas)
    assert any(layer.beta != (layer.start,) for layer in result.betas)
    assert all(len(layer.position) > 1 for layer in result.betas)


def test_accumulating_gradients_changes_little(tmp_path):
    """Without BatchNorm two halves make the same update as the whole; with it, the losses stay near."""
    _, whole = train(tmp_path / "a", Recipe(**FAST, opt="sgd"))
    _, halves = train(tmp_path / "b", Recipe(**FAST, opt="sgd", grad_accumulation=2))
    assert halves.updates == whole.updates == 6
    assert halves.rows[0].train_loss == pytest.approx(whole.rows[0].train_loss, rel=0.1)


def test_a_loss_that_is_not_finite_ends_clearly_and_spares_the_last_checkpoint(tmp_path):
    model, spec, plan = net()
    folder = tmp_path / "out"
    recipe = Recipe(**{**FAST, "lr": 1e-4})

    def spoil(row):
        nn.init.constant_(model.fc.weight, float("nan"))

    with pytest.raises(CheckError, match="the loss is nan in epoch 2, after 3 updates") as caught:
        finetune(model, digits(), recipe, folder, spec=spec, plan=plan, device="cpu", on_epoch=spoil)
    assert "lower lr=" in caught.value.hint
    assert verify_checkpoint(folder / "last.safetensors").ok
    again, _, _ = net()
    assert len(finetune(again, digits(), recipe, folder, spec=spec, plan=plan, device="cpu").rows) == 2


def test_a_training_is_not_mixed_with_another(tmp_path):
    train(tmp_path, Recipe(**FAST))
    with pytest.raises(InputError, match="holds a training of another recipe \\(lr\\)"):
        train(tmp_path, Recipe(**{**FAST, "lr": 1e-3}))
    with pytest.raises(InputError, match="holds a training") as caught:
        train(tmp_path, Recipe(**FAST), resume=False)
    assert "resume=True" in caught.value.hint
    _, result = train(tmp_path, Recipe(**{**FAST, "epochs": 1}), force=True)
    assert len(result.rows) == 1


def test_a_training_is_not_resumed_on_other_images(tmp_path):
    model, spec, plan = net()
    data, options = digits(), {"spec": spec, "plan": plan, "device": "cpu"}
    recipe = Recipe(**{**FAST, "epochs": 1})
    finetune(model, data, recipe, tmp_path, **options)
    others = dataclasses.replace(data, train=Subset(data.train.dataset, range(1, 97)))  # as many, but others
    with pytest.raises(InputError, match="holds a training of another data"):
        finetune(model, others, recipe, tmp_path, **options)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not split into 3"):
        train(tmp_path, Recipe(**FAST, grad_accumulation=3))
    with pytest.raises(InputError, match="matches no parameter"):
        train(tmp_path, Recipe(**FAST, freeze=("nothing.*",)))
    with pytest.raises(InputError, match="every parameter is frozen"):
        freeze(net()[0], ["*"])
    with pytest.raises(InputError, match="opt='nonsense'"):
        train(tmp_path, Recipe(**FAST, opt="nonsense"))
    with pytest.raises(InputError, match="the recipe's lr"):
        Recipe.make({"lr": -1})
    with pytest.raises(InputError, match="the recipe's haste") as caught:
        Recipe.make({"haste": 1})
    assert "the fields are" in caught.value.hint
    with pytest.raises(InputError, match="the recipe's mixupp: there is no such field") as caught:
        Recipe.make({"mixupp": 1})
    assert caught.value.hint == "did you mean mixup?"


def test_from_scratch_draws_new_weights_and_keeps_the_swap():
    model, spec, plan = net()
    new, new_spec = from_scratch(spec, plan, seed=5)
    assert new_spec.weights.seed == 5
    assert set(new.state_dict()) == set(model.state_dict())
    assert not torch.equal(new.fc.weight, model.fc.weight)


def test_the_commands_go_the_whole_way(tmp_path, monkeypatch, capsys):
    """Stock, swap, recalibrate, finetune, evaluate: each says what it did, in JSON if asked."""
    monkeypatch.chdir(tmp_path)
    data = ["--data", "digits"]

    def run(*arguments):
        code = main(list(arguments))
        return code, capsys.readouterr()

    code, said = run("finetune", "test_resnet", *data, "--input-size", "3,16,16", "--epochs", "2", "--lr", "2e-3")
    assert code == 0
    assert "epoch 2/2" in said.err
    assert (tmp_path / "finetuned/epochs.json").exists()
    assert (
        run("convert", "finetuned/last.safetensors", "--to", "soft:beta=channel", "--output", "soft.safetensors")[0]
        == 0
    )
    code, said = run("recalibrate", "soft.safetensors", *data, "--batches", "5", "--json")
    assert code == 0
    found = json.loads(said.out)
    assert found["before"]["top1"] < found["after"]["top1"]
    assert found["stock_before"]["top1"] > found["before"]["top1"]
    assert found["stock_after"] is not None
    arguments = ["--output", "ft", "--epochs", "1", "--anneal", "0.5", "--set", "smoothing=0.1", "--json", "-q"]
    code, said = run("finetune", found["checkpoint"], *data, *arguments)
    assert code == 0
    result = json.loads(said.out)
    assert result["recipe"]["smoothing"] == 0.1
    assert all(len(layer["beta"]) == len(layer["position"]) for layer in result["betas"])
    assert (tmp_path / "ft/betas.png").read_bytes().startswith(b"\x89PNG")
    assert said.err == ""
    code, said = run("evaluate", result["last_path"], *data, "--json", "--min-top1", "101")
    assert code == 1
    assert json.loads(said.out)["top1"] == pytest.approx(result["rows"][-1]["top1"])
    assert "below 101%" in said.err


def test_convert_adapts_what_it_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("epochs: 1\nbatch_size: 128\n")
    model = ["convert", "test_resnet", "--num-classes", "10", "--input-size", "3,16,16", "--output", "a.safetensors"]
    assert main([*model, "--data", "digits", "--finetune", "--recalibrate", "--recipe", "recipe.yaml"]) == 0
    assert "top-1 after recalibrating 15 BatchNorm layers" in capsys.readouterr().err
    assert verify_checkpoint("a.safetensors").manifest.recipe["recalibrated"] is True
    assert main([*model, "--recalibrate"]) == 2
