"""Options that several commands take, so that all of them read alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import nn

    from poolswap.inputs import Example
    from poolswap.models.load import ModelSpec

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (timm's, then torchvision's), timm:NAME, torchvision:NAME, path/to/net.py:factory, "
        "or a poolswap checkpoint.",
        show_default=False,
    ),
]
NumClassesOption = Annotated[int | None, typer.Option("--num-classes", min=1, help="Classes of the classifier.")]
InChansOption = Annotated[int | None, typer.Option("--in-chans", min=1, help="Channels of the input.")]
InputSizeOption = Annotated[
    str | None,
    typer.Option("--input-size", metavar="C,H,W", help="Input size, or C,L or C,T,H,W. Default: the model's own."),
]
ModelArgOption = Annotated[
    list[str] | None,
    typer.Option("--model-arg", metavar="KEY=VALUE", help="Argument of the model's constructor, its value in JSON."),
]
ExampleOption = Annotated[
    str | None,
    typer.Option("--example", metavar="FILE.py:NAME", help="Inputs for the model, or a function that makes them."),
]
PretrainedOption = Annotated[bool, typer.Option("--pretrained", help="The library's pretrained weights.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", metavar="FILE", help="Weights from a state dict: .safetensors, .pt, ...")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of random weights.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
TrustCodeOption = Annotated[
    bool, typer.Option("--trust-code", help="Let a checkpoint of a file.py:factory model run that file.")
]


def load(
    model: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    input_size: str | None = None,
    model_args: list[str] | None = None,
    pretrained: bool = False,
    checkpoint: Path | None = None,
    seed: int = 0,
    trust_code: bool = False,
) -> tuple[nn.Module, ModelSpec]:
    """The model that the options of a command describe."""
    from poolswap.errors import InputError
    from poolswap.load import load_model
    from poolswap.models.load import parse_input_size, parse_model_args

    if pretrained and checkpoint:
        raise InputError("--pretrained and --checkpoint are two sources of weights", "give one of them")
    return load_model(
        model,
        weights="pretrained" if pretrained else checkpoint or "random",
        num_classes=num_classes,
        in_chans=in_chans,
        input_size=parse_input_size(input_size) if input_size else None,
        model_args=parse_model_args(model_args or []),
        seed=seed,
        trust_code=trust_code,
    )


def example_of(reference: str | None) -> Example | None:
    """The inputs that --example names."""
    if reference is None:
        return None
    from poolswap.models.userfile import load_object

    found = load_object(reference)
    example: Example = found() if callable(found) else found
    return example
