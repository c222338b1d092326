"""Architectures of other libraries, as `coverage.py` checks timm's and torchvision's.

    python benchmarks/coverage_libraries.py                   all that are installed, into docs/coverage.md
    python benchmarks/coverage_libraries.py --only 'monai*'   some of them, printed

The ground truth is `coverage_check.run`: the pooling kernels that the dispatcher ran. Every model has random weights
and runs on the CPU. A row says what ran, what was found, and what stock pooling is left after the swap of every site
that `all` takes; whether a training step and torch.export work after the swap, where they worked before it; and whether
restore gives back every output bit by bit, every key of the state dict and every class.
"""

from __future__ import annotations

import argparse
import copy
import csv
import fnmatch
import sys
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from coverage_check import _trains, run
from coverage_report import write_libraries
from libraries import Architecture, architectures
from torch import Tensor, nn

from poolswap.errors import NothingToReplaceError, first_line
from poolswap.inputs import evaluating, fitted, make_inputs, tensors_in
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Row:
    """Counts of one forward in eval mode, and answers: yes, no, or - where the stock model does not either."""

    library: str
    model: str
    ran: int = 0
    found: int = 0
    left: int = 0
    why_left: str = ""
    trains: str = "-"
    exports: str = "-"
    restores: str = "-"
    problem: str = ""
    seconds: float = 0.0


def main() -> int:
    """Exit status 0 where nothing is wrong with any architecture, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="'LIBRARY NAME' of the architectures")
    parser.add_argument("--no-export", action="store_true", help="leave out torch.export, which takes most of the time")
    options = parser.parse_args()
    rows = []
    for architecture in architectures():
        if fnmatch.fnmatch(f"{architecture.library} {architecture.name}", options.only):
            row = check(architecture, export=not options.no_export)
            print(*(str(value) for value in asdict(row).values() if value != ""), flush=True)
            rows.append(row)
    if options.only == "*" and not options.no_export:
        table = ROOT / "docs" / "coverage-libraries.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            names = [field.name for field in fields(Row) if field.name != "seconds"]
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(asdict, rows))
        write_libraries(ROOT / "docs" / "coverage.md", table)
    problems = sum(bool(row.problem) for row in rows)
    print(f"{len(rows)} architectures, {problems} with a problem; {sum(row.seconds for row in rows) / 60:.1f} minutes")
    return int(problems > 0)


def check(architecture: Architecture, *, export: bool = True) -> Row:
    """All checks of one architecture; what goes wrong is the row's problem."""
    started = time.monotonic()
    row = Row(architecture.library, architecture.name)
    torch.manual_seed(0)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        try:
            _check(architecture, row, export)
        except Exception as error:
            row.problem = f"{type(error).__name__}: {first_line(error)[:160]}"
    row.seconds = round(time.monotonic() - started, 1)
    return row


def _check(architecture: Architecture, row: Row, export: bool) -> None:
    model, example = architecture.make().eval(), architecture.example
    stock = copy.deepcopy(model)
    inputs = make_inputs(model, (), 2, example=example)
    ran, shapes = run(stock, inputs)
    row.ran = len(ran)
    sites = find_pools(model, (), example=example)
    windows = [s for s in sites if s.scope == "window" and s.only != "train" and s.kind != "written out"]
    row.found = len(windows)
    if len(ran) != row.found or sorted(op for op, _ in ran) != sorted(site.op for site in windows):
        row.problem = f"{len(ran)} window kernels ran, {row.found} window sites were found, or others"
        return
    try:
        plan = make_plan(sites)
    except NothingToReplaceError as error:
        row.left, row.why_left = row.ran, error.message if row.ran else ""
        return
    row.why_left = "; ".join(sorted({left.reason for left in plan.left}))
    before, keys, kinds = _outputs(model, inputs), list(model.state_dict()), [type(m) for m in model.modules()]
    swap_pools(model, plan, example=example)
    left, after = run(model, inputs)
    row.left = len(left)
    if row.left != sum(site.left_out is not None for site in windows):
        row.problem = f"{row.left} window kernels are left, others than those that are said"
    elif after != shapes:
        row.problem = f"output shapes {shapes} became {after}"
    row.trains = _answer(lambda m: _trains(copy.deepcopy(m), (), "cpu", example), model, stock)
    if export:
        row.exports = _answer(lambda m: _exports(m, inputs), model, stock)
    restore(model)
    same = all(map(torch.equal, before, _outputs(model, inputs)))
    kept = keys == list(model.state_dict()) and kinds == [type(m) for m in model.modules()]
    row.restores = "yes" if same and kept else "no"
    if "no" in (row.trains, row.exports, row.restores) and not row.problem:
        row.problem = f"trains {row.trains}, exports {row.exports}, restores {row.restores}"


def _answer(failure: Any, swapped: nn.Module, stock: nn.Module) -> str:
    if failure(swapped) is None:
        return "yes"
    return "no" if failure(stock) is None else "-"


def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    torch.manual_seed(1)
    args, kwargs = fitted(model, inputs)
    with torch.no_grad(), evaluating(model):
        return [torch.nan_to_num(tensor.detach().clone()) for tensor in tensors_in(model(*args, **kwargs))]


def _exports(model: nn.Module, inputs: Any) -> str | None:
    args, kwargs = fitted(model, inputs)
    try:
        torch.export.export(model.eval(), args, kwargs, strict=False)
    except Exception as error:
        return first_line(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
