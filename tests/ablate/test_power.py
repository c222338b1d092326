"""What a run needs is said before it, and when to stop is decided by intervals that stay valid."""

import csv
import json
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from ablation_runs import ABLATE

from poolswap.ablate.power import TYPICAL, need, noise_seen, say
from poolswap.ablate.report import summarise
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.sequential import begin, continued, level_at, level_of, looks, parse_until
from poolswap.ablate.stats import Difference, Noise
from poolswap.ablate.study import Study
from poolswap.cli.app import main
from poolswap.errors import InputError

ROOT = Path(__file__).parents[2]
STUDY = {"model": "resnet18", "data": "digits", "adapt": "scratch"}


def test_the_noise_of_a_table_is_found_again():
    rng = np.random.default_rng(0)
    table = rng.normal(0, 2, (200, 1)) + rng.normal(0, 5, (1, 300)) + rng.normal(0, 3, (200, 300))
    assert np.sqrt(Difference.of(table).noise) == pytest.approx([2, 5, 3], rel=0.1)


def test_more_seeds_and_images_show_less_and_the_need_shows_what_was_asked():
    noise = {"scratch": Noise(1.0, 100.0, 900.0)}
    few, many = need("scratch", 1.0, 1000, 3, noise), need("scratch", 1.0, 50_000, 10, noise)
    assert few.visible > many.visible
    assert (few.measured, few.seeds) == (True, None)
    assert many.seeds is not None
    for seeds, images in few.images.items():
        if images is not None:
            assert need("scratch", 1.0, images, seeds, noise).visible <= 1.0
            assert need("scratch", 1.0, images // 2, seeds, noise).visible > 1.0
    assert few.images[3] is None  # three seeds whose own noise is a point
    assert "points need" in say(few, 1.0, 1000)


def test_what_is_not_trained_needs_images_alone():
    found = need("none", 0.5, 360, 5, {})
    assert (found.seeds_planned, found.measured, list(found.images)) == (1, False, [1])
    assert "images show" in say(found, 0.5, 360)


def test_the_folders_own_noise_is_taken(make_run):
    summary = summarise([make_run()[0]])
    assert set(noise_seen(summary)) == {"none", "finetune"}


def test_detect_says_it_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["ablate", "test_resnet", "--data", "digits", "--from-scratch", "--detect", "0.5", "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    (found,) = json.loads(shown.out)["needs"]
    assert found["visible"] > 0.5
    assert "360 images show" in shown.err
    assert list(tmp_path.iterdir()) == []


def test_looks_double_and_spend_no_more_than_there_is():
    assert looks(5, 20) == (5, 10, 20)
    assert looks(3, 20) == (3, 6, 12, 20)
    assert looks(5, 5) == (5,)
    assert sum(1 - level_at(n, 3, 20) for n in looks(3, 20)) == pytest.approx(0.05)


def test_seeds_are_added_until_it_is_narrow_or_the_budget_ends():
    study = begin(Study.make({**STUDY, "seeds": 5}), "width < 1", 12)
    assert level_of(study) == pytest.approx(1 - 0.05 * 5 / 12)
    second = continued(study, [0.5, 1.2])
    assert second.seeds == tuple(range(10))
    third = continued(second, [1.0])
    assert third.seeds == tuple(range(12))
    assert continued(third, [1.0]) is None
    assert continued(study, [0.5, 0.9]) is None
    assert continued(Study.make(STUDY), [9.0]) is None
    assert Study.make(json.loads(third.model_dump_json())) == third


@pytest.mark.parametrize("text", ["", "width", "width < 0", "width > 1", "top1 < 1", "width < 1e9", "width < -1"])
def test_conditions_that_are_none(text):
    with pytest.raises(InputError, match="until="):
        parse_until(text)


@pytest.mark.parametrize("fields", [{"seeds": 1}, {"seeds": 20}, {"adapt": "none"}])
def test_studies_that_cannot_be_continued(fields):
    with pytest.raises(InputError, match="until="):
        begin(Study.make({**STUDY, **fields}), "width < 1", 20)


def test_the_hint_of_too_few_seeds_is_one_that_can_be_continued():
    with pytest.raises(InputError) as caught:
        begin(Study.make({**STUDY, "seeds": 1}), "width < 1", 20)
    assert caught.value.hint == "seeds=2, most_seeds=20"
    assert begin(Study.make({**STUDY, "seeds": 2}), "width < 1", 20).until


def test_the_command_adds_seeds_until_the_interval_is_narrow_or_there_are_so_many(made_up_engine, capsys):
    """Variants are three images better and worse in turns, which few seeds make wide, and more seeds narrow."""
    ran = made_up_engine(lambda trial: 40 + (3 * (-1) ** trial.seed if trial.to else 0))
    command = [*ABLATE, "--seeds", "2", "--most-seeds", "8"]
    for folder, until, seeds in (("narrow", "width < 12", 4), ("never", "width < 0.1", 8)):
        assert main([*command, "--until", until, "-o", folder]) == 0
        said = capsys.readouterr().err
        assert f"{seeds} seeds: the widest interval is" in said
        assert [f"{n} seeds: the widest" in said for n in (2, 4, 8)] == [True, True, seeds == 8]
        study = Study.read(Path(folder) / "study.yaml")
        assert len(study.seeds) == seeds
        assert summarise([RunFolder(folder)]).family.level == level_at(seeds, 2, 8)
    assert len(ran) == 2 * 4 + 2 * 8
    assert main([*command, "--until", "width < 12", "--shard", "1/2"]) == 2
    assert "run it without --shard" in capsys.readouterr().err


def test_the_noise_that_is_taken_without_a_run_is_that_of_the_studies_on_photographs():
    """By hand: `python benchmarks/typical_noise.py densenet operators`, whose table is committed."""
    rows = list(csv.DictReader((ROOT / "docs/typical-noise.csv").read_text().splitlines()))
    middle = [median(float(row[part]) for row in rows) for part in ("seeds", "images", "both")]
    assert np.sqrt(TYPICAL) == pytest.approx(middle, abs=0.051)
