"""`poolswap report`: an ablation as HTML, Markdown, CSV and pictures, and its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolswap.cli.options import ForceOption
from poolswap.cli.output import Output

EXAMPLES = (
    "poolswap report ablation",
    "poolswap report ablation --check 'top1_low >= -0.5 for adapt=finetune'",
)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs folder; several are shards of one run.")],
    output: Output,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where to write.",
            show_default="the first RUN",
            rich_help_panel="Output",
        ),
    ] = None,
    force: ForceOption = False,
    margin: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="POINTS", help="Top-1 that does not matter.", show_default="the study's, 0.5"),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="Exit 1 unless every variant holds: 'top1_low >= -0.5 for adapt=finetune'."
        ),
    ] = None,
) -> None:
    """Write an ablation as HTML, Markdown, CSV; check conditions."""
    from poolswap.ablate.check import parse_check
    from poolswap.ablate.report import summarise, write_report
    from poolswap.ablate.report.words import headlines, interval, memory_of, power, said, spread, time_of
    from poolswap.ablate.runs import RunFolder
    from poolswap.errors import CheckError

    checks = [parse_check(text) for text in check or ()]
    summary = summarise([RunFolder(path) for path in runs], margin=margin)
    files = write_report(summary, folder or runs[0], force=force or folder is None)  # in its own folder it is renewed
    output.document({"files": files, "rows": [row.columns() for row in summary.rows], "problems": summary.problems})
    output.table(
        f"{summary.study.model} on {summary.study.data}: {summary.finished} of {summary.trials} trials",
        ["variant", "adapted", "seeds", "top-1", "to control [95%]", "verdict", "forward", "training", "memory"],
        [
            [
                row.name,
                row.adapt,
                row.seeds,
                spread(row),
                interval(row),
                said(row, summary.family.margin),
                time_of(row, "forward"),
                time_of(row, "training"),
                f"{memory:.2f}x" if (memory := memory_of(row)) else None,
            ]
            for row in summary.rows
        ],
        spare=["memory", "training", "forward", "seeds"],
    )
    for _, short, text in headlines(summary):
        output.note(f"{short}: {text}")
    for text in power(summary):
        output.note(f"smallest difference that could be seen: {text}")
    if summary.problems:
        output.warn(f"{len(summary.problems)} trials failed; the first: {summary.problems[0].error}")
    output.note(f"wrote {files[0]}, and Markdown, CSV and pictures beside it")
    for one in checks:
        failed = one.failures(summary.variants)
        if failed:
            row, why = failed[0]
            where = f"{row['to']}, {row['layers']} layers, {row['adapt']}"
            raise CheckError(
                f"check={one.text!r} does not hold for {len(failed)} of {len(summary.variants)} variants; "
                f"first for {where}: {why}",
                f"see {files[0]}",
            )
