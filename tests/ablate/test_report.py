"""The report says what was measured, no more: rows, intervals, failures, shards, files."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from ablation_runs import IMAGES, made_up
from terminal import terminal

from poolswap.ablate.report import summarise, write_report
from poolswap.ablate.report.chart import Theme
from poolswap.ablate.report.forest import forest
from poolswap.ablate.report.words import headlines, time_of
from poolswap.ablate.report.write import page
from poolswap.ablate.stats import Verdict
from poolswap.cli.app import main
from poolswap.errors import InputError


def row_of(summary, layers, adapt):
    (row,) = [row for row in summary.rows if (row.layers, row.adapt) == (layers, adapt)]
    return row


def test_rows_are_means_over_seeds_and_differences_seed_by_seed(make_run):
    folder, _ = make_run()
    row = row_of(summarise([folder]), 2, "finetune")
    assert row.seeds == 3
    assert row.top1 == pytest.approx(100 * (IMAGES - 15) / IMAGES)
    assert row.top1_std == pytest.approx(100 / IMAGES)
    top1 = row.compared["top1"]
    assert top1.delta == pytest.approx(-400 / IMAGES)  # the seeds' own differences cancel
    assert top1.joint_low < top1.low < top1.delta < top1.high < top1.joint_high
    assert row.compared["loss"].delta == pytest.approx(4 * 1.9 / IMAGES)
    assert row.compared["logit_margin"].delta == pytest.approx(-4 * 1.9 / IMAGES)
    assert row.compared["shift"].delta == pytest.approx(-200 / IMAGES)


def test_groups_widen_the_interval_and_leave_out_what_was_not_read(make_run):
    alone, blocks = make_run("alone", wrong=40), make_run("blocks", wrong=40, groups=[n // 7 for n in range(IMAGES)])
    one, other = (row_of(summarise([run[0]]), 2, "none").compared["top1"] for run in (alone, blocks))
    assert other.high - other.low > 1.3 * (one.high - one.low)
    assert summarise([blocks[0]]).blocks == 29
    folder, _ = make_run("cut", groups=["a", "b"])
    with pytest.raises(InputError, match="groups of 2 images, not 203"):
        summarise([folder])
    (folder.path / "groups.json").write_text("[3]")
    with pytest.raises(InputError, match="damaged"):
        summarise([folder])
    (folder.path / "groups.json").unlink()  # images that belong together must not pass for single ones
    with pytest.raises(InputError, match="missing"):
        summarise([folder])


def test_an_architecture_has_one_cost_whatever_its_adaptation(make_run):
    summary = summarise([make_run()[0]])
    rows = [row for row in summary.rows if row.layers == 2]
    assert len({row.adapt for row in rows}) == len(rows) > 1
    assert all(row.costs == rows[0].costs for row in rows)
    cost = rows[0].costs["forward"]
    assert (cost.ratio, cost.low, cost.high) == pytest.approx((1.21, 1.15, 1.29))  # seeds 0, 0, 1, 2
    assert cost.noise == pytest.approx(0.01)
    assert cost.memory_ratio == 2
    assert set(rows[0].costs) == {"forward", "forward_one", "training", "training_one"}


def test_a_time_says_its_range_and_whether_it_is_noise(make_run):
    summary = summarise([make_run()[0]])
    row = row_of(summary, 2, "finetune")
    assert time_of(row, "forward") == "1.21x [1.15, 1.29]"
    control = row_of(summary, 0, "none")
    still = control.costs["forward"].model_copy(update={"ratio": 1.005})
    assert time_of(control.model_copy(update={"costs": {"forward": still}}), "forward").endswith(", within noise")
    assert time_of(control.model_copy(update={"costs": {}}), "forward") == ""


def test_the_control_has_no_difference_to_itself(make_run):
    row = row_of(summarise([make_run()[0]]), 0, "finetune")
    assert row.name == "control"
    assert row.compared == {}


def test_failed_and_missing_trials_are_counted_and_not_averaged(make_run):
    folder, _ = make_run(
        fail=lambda trial: trial.adapt == "finetune" and trial.seed == 0 and len(trial.paths) == 1,
        leave_out=lambda trial: trial.adapt == "finetune" and trial.seed == 1 and len(trial.paths) == 1,
    )
    summary = summarise([folder])
    row = row_of(summary, 1, "finetune")
    assert (row.seeds, row.failed, row.missing) == (1, 1, 1)
    assert row.compared["top1"].verdict == "one seed: no verdict"
    assert [problem.error for problem in summary.problems] == ["RuntimeError: <bad> luck"]
    assert summary.finished == summary.trials - 2


def test_without_its_control_a_variant_gets_no_verdict(make_run):
    folder, _ = make_run(leave_out=lambda trial: not trial.paths)
    summary = summarise([folder])
    row = row_of(summary, 1, "finetune")
    assert row.top1 is not None
    assert row.compared == {}
    assert "control missing" in page(summary)
    assert {text.partition(": ")[2] for _, _, text in headlines(summary)} == {
        "the control is missing; poolswap report PART1 PART2 merges shards."
    }


def test_a_shard_without_its_control_is_drawn(make_run, capsys):
    folder, _ = make_run(adapt="scratch", weights="random", leave_out=lambda trial: not trial.paths)
    assert main(["report", str(folder.path)]) == 0
    assert "merges shards" in capsys.readouterr().err


def test_shards_in_several_folders_are_one_report(make_run):
    whole, grid = make_run("whole")
    halves = [make_run(f"half{n}", leave_out=lambda trial, n=n: trial.key not in grid.shard(n, 2))[0] for n in (1, 2)]
    assert all(summarise([half]).finished < len(grid.trials) for half in halves)
    assert summarise(halves) == summarise([whole])


def test_shards_of_different_studies_do_not_mix(make_run):
    with pytest.raises(InputError, match="different studies"):
        summarise([make_run("one")[0], make_run("other", seeds=2)[0]])


def test_single_layers_are_drawn_by_their_accuracy_and_others_by_their_drift(make_run):
    (strip, _) = summarise([make_run(order="single")[0]]).strips
    assert strip.kind == "delta"
    assert strip.values == (pytest.approx(-200 / IMAGES),) * 2
    (strip,) = summarise([make_run("forward")[0]]).strips
    assert (strip.kind, strip.values) == ("drift", (0.1, 0.1))


def test_headlines_say_the_interval_and_the_verdict(make_run):
    (as_is, tuned) = headlines(summarise([make_run()[0]]))
    assert as_is[2].startswith("all 2 layers to soft, as they are: top-1 -1.97 points against the control, from -")
    assert "beside 3 other rows" in as_is[2]
    assert (as_is[0], as_is[1]) == ("open", "open")
    assert "would have been seen" in as_is[2]
    assert tuned[1] == "open"


def test_the_main_picture_cuts_no_interval(make_run):
    """Neither a row's own, nor the wider one that holds for all rows."""
    summary = summarise([make_run(wrong=30)[0]])
    for axes in forest(summary, Theme("#000000", "#000000", "#ffffff")).figure.axes:
        low, high = axes.get_xlim()
        assert low < min(min(line.get_xdata()) for line in axes.lines)
        assert high > max(max(line.get_xdata()) for line in axes.lines)


def test_what_was_seen_comes_first_and_beyond_four_the_rest_is_folded(make_run, monkeypatch):
    """So that the picture is in sight of a reader of many operators."""
    monkeypatch.setattr("poolswap.ablate.report.write.draw", lambda summary, theme: [])
    to = ["soft", "avg", "lp", "lse", "mixed", "gated"]
    folder, grid = make_run(operators=to, counts="all", adapt="none")
    (worst,) = (cell.key for cell in grid.cells if cell.to == "gated")
    folder.write_result(worst, made_up(grid.trials[worst], 150))
    summary = summarise([folder])
    assert [verdict for verdict, _, _ in headlines(summary)] == ["worse", *["open"] * 5]
    before, after = page(summary).split("<summary>2 more</summary>")
    assert (before.count("all 2 layers to"), after.count("all 2 layers to")) == (4, 2)
    assert "all 2 layers to gated" in before


def test_a_headline_says_no_more_than_the_joint_interval(make_run):
    summary = summarise([make_run("far", wrong=60)[0]])
    row = row_of(summary, 2, "finetune")
    assert row.compared["top1"].joint_high < 0
    assert [row.compared[name].verdict for name in ("loss", "logit_margin", "ece", "shift")] == ["worse"] * 4
    assert "Its loss is worse, its margin is worse" in headlines(summary)[1][2]
    assert [(said, short) for said, short, _ in headlines(summary)][1] == ("worse", "worse, on 3 seeds only")
    only_alone = row.compared["top1"].model_copy(update={"joint_high": 0.1, "joint_verdict": Verdict.OPEN})
    row = row.model_copy(update={"compared": {"top1": only_alone}})
    assert headlines(summary.model_copy(update={"rows": (row,)}))[0][1] == "open"


def test_the_margin_is_the_studys_unless_given(make_run):
    folder, _ = make_run(margin=0.25)
    assert summarise([folder]).family.margin == 0.25
    assert row_of(summarise([folder], margin=50), 2, "none").compared["top1"].verdict == "no worse"
    assert "no worse than 50" in page(summarise([folder], margin=50))


def test_every_file_is_written_and_agrees(make_run, tmp_path):
    folder, _ = make_run(fail=lambda trial: trial.seed == 1 and len(trial.paths) == 2)
    summary = summarise([folder])
    paths = write_report(summary, tmp_path / "out")
    assert [path.name for path in paths] == [
        *("report.html", "report.md", "report.csv"),
        *(f"report-{name}.{form}" for name in ("forest", "pareto", "curves", "network") for form in ("png", "svg")),
    ]
    with (tmp_path / "out/report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in rows] == [row.top1 for row in summary.rows]
    lines = (tmp_path / "out/report.md").read_text().splitlines()
    assert sum(line.startswith("| soft") for line in lines) == len(summary.variants)
    assert "- soft, forward 2, finetune, seed 1: RuntimeError: <bad> luck" in lines
    with pytest.raises(InputError, match="exists already"):
        write_report(summary, tmp_path / "out")


class Reader(HTMLParser):
    """Counts what matters of the page: ids, and whatever would be fetched."""

    def __init__(self):
        super().__init__()
        self.ids, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                self.fetched.append(value)


def test_the_page_fetches_nothing_repeats_no_id_and_escapes(make_run):
    folder, _ = make_run(fail=lambda trial: trial.seed == 1)
    text = page(summarise([folder]))
    reader = Reader()
    reader.feed(text)
    assert reader.fetched == []
    assert len(reader.ids) == len(set(reader.ids))
    assert "<bad>" not in text
    assert "<net>" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_the_page_of_a_run_without_results_still_reads(make_run):
    folder, _ = make_run(leave_out=lambda trial: True)
    assert "no result yet" in page(summarise([folder]))


def test_report_prints_writes_and_checks(make_run, capsys):
    folder, _ = make_run()
    assert main(["report", str(folder.path), "--json", "--check", "top1_low >= -6"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["rows"]) == 6
    assert main(["report", str(folder.path), "--check", "top1_low >= -1.5 for layers=2"]) == 1
    assert "does not hold for 2 of 4 variants" in capsys.readouterr().err
    assert main(["report", str(folder.path / "nothing")]) == 2


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal_and_folds_no_row(make_run, monkeypatch, width):
    folder, _ = make_run()
    screen = terminal(monkeypatch, width)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["report", str(folder.path), "--quiet"]) == 0
    head, *rows = screen.getvalue().splitlines()
    assert max(map(len, [head, *rows])) <= width
    assert {"variant", "top-1", "verdict"} <= set(head.split())
    assert len(rows) == len(summarise([folder]).rows)


def test_report_refuses_what_is_no_runs_folder(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "not a runs folder" in capsys.readouterr().err


def test_a_report_elsewhere_replaces_nothing_unless_told(make_run, tmp_path, capsys):
    folder, _ = make_run()
    (tmp_path / "report.md").write_text("mine")
    command = ["report", str(folder.path), "--output", str(tmp_path), "--quiet"]
    assert main(command) == 2
    assert (tmp_path / "report.md").read_text() == "mine"
    (folder.path / "report.md").write_text("old")  # in its own folder it is renewed
    assert main(["report", str(folder.path), "--quiet"]) == 0
    assert (folder.path / "report.md").read_text() != "old"
    capsys.readouterr()
