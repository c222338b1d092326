"""What the networks of a study learnt of beta, in docs/operators.md: over all seeds, and a picture of the first.

    poolswap ablate --study benchmarks/photographs-heads.yaml -o heads --jobs 2 --keep-weights --trust-code
    python benchmarks/betas.py heads

A position is where a layer's outputs lie on validation images: 0 is the mean of each window, 1 its maximum.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

from cpu_report import markdown, put_between_markers

from poolswap.ablate.runs import WEIGHTS, RunFolder
from poolswap.adapt import load_data, make_loader
from poolswap.adapt.betas import LayerBeta, draw_betas, layer_betas
from poolswap.checkpoint import load_checkpoint

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS = ["layer", "in the place of", "start", "beta, middle 90% of channels", "median", "position, each seed"]
IMAGES = 256


def learnt(run: RunFolder) -> dict[str, list[tuple[LayerBeta, ...]]]:
    """The learnt layers of each seed's network, by variant. Raises ValueError where no network was kept."""
    found: dict[str, list[tuple[LayerBeta, ...]]] = defaultdict(list)
    study = run.study()
    data = load_data(study.data, input_size=study.input_size or (3, 224, 224))
    images = next(iter(make_loader(data, "val", IMAGES)))[0]
    for cell in run.grid().cells:
        if not (run.trial(cell.key) / WEIGHTS).is_file():
            continue
        model, manifest = load_checkpoint(run.trial(cell.key) / WEIGHTS, trust_code=True)
        betas = tuple(beta for beta in layer_betas(model, manifest.plan, images) if beta.learnt)
        if betas:
            found[str(cell.to)].append(betas)
    if not found:
        raise ValueError(f"no network of {run.path} has a learnt beta: run the study with --keep-weights")
    return found


def row(seeds: list[LayerBeta]) -> list[str]:
    """One layer over the seeds."""
    first = seeds[0]
    values = sorted(value for layer in seeds for value in layer.beta)
    low, high = values[len(values) // 20], values[-1 - len(values) // 20]
    places = [mean(places) for layer in seeds if (places := [p for p in layer.position if p is not None])]
    where = ", ".join(f"{place:.2f}" for place in places) or "no window varied"
    spread = f"{low:.2f} to {high:.2f}"
    return [f"`{first.path}`", first.op, f"{first.start:g}", spread, f"{median(values):.2f}", where]


def main() -> None:
    """Write the page's table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = RunFolder(parser.parse_args().run)
    variants = list(learnt(run).values())
    rows = [row(list(layers)) for seeds in variants for layers in zip(*seeds, strict=True)]
    put_between_markers(DOCS / "operators.md", "betas", markdown(COLUMNS, sorted(rows)))
    study = run.study()
    title = f"{study.model.rpartition(':')[2]} on {study.data}, {study.recipe['epochs']} epochs from scratch"
    draw_betas(variants[0][0], DOCS / "operators-betas.png", title=title)


if __name__ == "__main__":
    main()
