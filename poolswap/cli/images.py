"""`poolswap images`: what each pooling operator does to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolswap.cli.options import ForceOption, OperatorsOption
from poolswap.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolswap.images.picture import Picture


EXAMPLES = ("poolswap images photo.jpg", "poolswap images --operators max,avg,soft:beta=10 --kernels 2,3")


def images(
    output: Output,
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO...", help="Pictures; without any, four of scikit-image's.")
    ] = None,
    operators: OperatorsOption = "max,avg,soft",
    kernels: Annotated[str, typer.Option(metavar="LIST", help="Window sizes, by comma.")] = "2,3,5",
    restore: Annotated[
        Literal["bilinear", "nearest"], typer.Option(help="Interpolation that restores the size.")
    ] = "bilinear",
    max_side: Annotated[int, typer.Option(min=32, help="Reduce larger pictures to this many pixels a side.")] = 1024,
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where sheets, pages and table go.", rich_help_panel="Output"
        ),
    ] = Path("pools"),
    force: ForceOption = False,
) -> None:
    """Show what each pooling does to a picture, in SSIM and PSNR."""
    from poolswap.files import check_writable
    from poolswap.images import average, compare, rows_of, write_csv, write_page, write_sheet
    from poolswap.operators import split_operators

    chosen, sizes = split_operators(operators or "all"), _sizes(kernels)
    pictures = _pictures(photos, max_side)
    _make_folder(folder)
    table = folder / "pools.csv"
    files = [(folder / f"{name}.png", folder / f"{name}.html") for name in _file_names(pictures)]
    for path in (table, *(path for pair in files for path in pair)):
        check_writable(path, force=force)
    rows = []
    with output.progress("pooling", len(pictures) * len(chosen) * len(sizes)) as advance:
        for picture, (sheet, page) in zip(pictures, files, strict=True):
            comparison = compare(picture, chosen, sizes, restore=restore, on_result=lambda result: advance(1))
            write_sheet(sheet, comparison, force=force)
            write_page(page, comparison, force=force)
            rows += rows_of(comparison)
    write_csv(table, rows, force=force)
    for picture in pictures:
        if picture.original_size:
            (height, width), (h, w) = picture.original_size, picture.size
            output.note(f"{picture.name}: reduced from {width}x{height} to {w}x{h}")
    means = average(rows)
    output.document(
        {"restore": restore, "rows": rows, "means": means, "files": [table, *(f for pair in files for f in pair)]}
    )
    shown = rows if len(pictures) == 1 else means
    title = pictures[0].name if len(pictures) == 1 else f"mean over {len(pictures)} pictures"
    output.table(
        title,
        ["kernel", "operator", "SSIM", "PSNR dB"],
        [[row.kernel, row.operator, f"{row.ssim:.4f}", f"{row.psnr:.2f}"] for row in shown],
    )
    output.note(f"sheets, pages and table: {folder}")


def _make_folder(path: Path) -> None:
    from poolswap.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {path} cannot be made: {error.strerror}", "name another with --output") from None


def _sizes(text: str) -> list[int]:
    from poolswap.errors import InputError

    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--kernels {text!r} is not a list of sizes", "write for example --kernels 2,3,5") from None
    return list(dict.fromkeys(sizes))


def _pictures(photos: Sequence[Path] | None, max_side: int) -> list[Picture]:
    from poolswap.images import bundled_pictures, read_picture

    if not photos:
        return bundled_pictures(max_side=max_side)
    return [read_picture(path, max_side=max_side) for path in photos]


def _file_names(pictures: Sequence[Picture]) -> list[str]:
    """A name for each picture's files: its own, numbered where it has come before."""
    names: list[str] = []
    for picture in pictures:
        same = sum(other.name == picture.name for other in pictures[: len(names)])
        names.append(f"{picture.name}-{same + 1}" if same else picture.name)
    return names
