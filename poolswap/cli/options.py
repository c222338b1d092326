"""The option groups that several commands take: declared once, and handed over as one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from poolswap.cli.parsing import parse_input_size, parse_pairs

if TYPE_CHECKING:
    from torch import nn

    from poolswap.adapt import Data
    from poolswap.adapt.data import Split
    from poolswap.example import KeptExample
    from poolswap.inputs import Example
    from poolswap.models.load import ModelSpec
    from poolswap.surgery.plan import Plan

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (timm's, then torchvision's), timm:NAME, torchvision:NAME, path/to/net.py:factory, "
        "or a poolswap checkpoint.",
    ),
]
CheckpointArgument = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A poolswap checkpoint.")]
OperatorsOption = Annotated[
    str | None,
    typer.Option("--operators", metavar="LIST", help="Operators with their options, by comma, or all: soft,lp:p=3."),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.", rich_help_panel="Output")]
TrustCodeOption = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Let a checkpoint made from file.py:factory run that file.", rich_help_panel="Model"
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of all that is random.", show_default="0")
]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What decides the shapes of a model."""

    panel: ClassVar[str] = "Model"

    num_classes: Annotated[int | None, typer.Option("--num-classes", min=1, help="Classes of the classifier.")] = None
    in_chans: Annotated[int | None, typer.Option("--in-chans", min=1, help="Channels of the input.")] = None
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size", metavar="C,H,W", help="Input size, or C,L or C,T,H,W.", show_default="the model's"
        ),
    ] = None
    model_args: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="KEY=VALUE", help="Argument of the model's constructor, in JSON."),
    ] = None
    trust_code: TrustCodeOption = False

    @property
    def size(self) -> tuple[int, ...] | None:
        """The input size, parsed."""
        return parse_input_size(self.input_size) if self.input_size else None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, parsed."""
        return parse_pairs(self.model_args or [], "--model-arg")

    @property
    def typed(self) -> list[str]:
        """The options as they were typed, for a command that is to follow."""
        words: list[str] = []
        for field in fields(self):
            option, value = f"--{field.name.replace('_', '-')}", getattr(self, field.name)
            if isinstance(value, list):
                words += [word for one in value for word in (option.removesuffix("s"), one)]
            elif value:
                words += [option] if value is True else [option, str(value)]
        return words

    def load(self, model: str, **options: Any) -> tuple[nn.Module, ModelSpec]:
        """(model, its spec) of this name or checkpoint."""
        from poolswap.load import load_model

        shapes = {"num_classes": self.num_classes, "in_chans": self.in_chans, "input_size": self.size}
        return load_model(model, **{**shapes, "model_args": self.arguments, "trust_code": self.trust_code, **options})


@dataclass(frozen=True, kw_only=True)
class Model(Architecture):
    """A model with its weights."""

    pretrained: Annotated[bool, typer.Option("--pretrained", help="The library's pretrained weights.")] = False
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Weights of a state dict: .safetensors, .pt, ..."),
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether weights were asked for."""
        return self.pretrained or self.checkpoint is not None

    @property
    def weights(self) -> str:
        """Where they come from, as the library names it. Raises InputError for two sources."""
        from poolswap.errors import InputError

        if self.pretrained and self.checkpoint:
            raise InputError("--pretrained and --checkpoint are two sources of weights", "give one of them")
        return "pretrained" if self.pretrained else str(self.checkpoint or "random")

    def load(self, model: str, **options: Any) -> tuple[nn.Module, ModelSpec]:
        """(model, its spec) of this name or checkpoint."""
        return super().load(model, weights=self.weights, **options)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where images come from, and where a model looks at them."""

    panel: ClassVar[str] = "Data"

    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Where a reader keeps its data.")] = None
    download: Annotated[bool, typer.Option("--download", help="Let a reader fetch its data.")] = False
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that read images.", show_default="0")
    ] = None
    on_bad_image: Annotated[
        Literal["fatal", "skip", "count"] | None,
        typer.Option("--on-bad-image", help="What to do about an image that cannot be read.", show_default="fatal"),
    ] = None
    transform: Annotated[
        list[str] | None,
        typer.Option(
            "--transform",
            metavar="KEY=VALUE",
            help="Argument of timm's create_transform: hflip=0 for training images, crop_pct=1 for evaluated ones.",
        ),
    ] = None
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...", show_default="a GPU if any")] = None

    @property
    def reading(self) -> dict[str, Any]:
        """What `loaders` and recipes call `workers` and `on_bad_image`, where they are given."""
        given = {"workers": self.workers, "on_bad_image": self.on_bad_image}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def transforms(self) -> dict[str, Any]:
        """Arguments of the transforms, parsed."""
        return parse_pairs(self.transform or [], "--transform")

    @property
    def place(self) -> str:
        """The device. Raises InputError for one that torch does not know or have."""
        from poolswap.environment import find_device

        return find_device(self.device)

    def data(self, name: str, **options: Any) -> Data:
        """The images of this name."""
        from poolswap.adapt import load_data

        return load_data(name, root=self.root, download=self.download, transform=self.transforms, **options)

    def load(
        self,
        architecture: Architecture,
        model: str,
        data: str,
        *,
        splits: Sequence[Split] = ("train", "val"),
        fit_classes: bool = False,
        **options: Any,
    ) -> tuple[nn.Module, ModelSpec, Plan, KeptExample | None, Data]:
        """(model, its spec, the plan it was swapped by, the example that its checkpoint keeps, data of its size).

        `fit_classes` gives a new model as many classes as the data has, where its factory takes num_classes.
        """
        from poolswap.adapt import check_data
        from poolswap.load import checkpoint_of
        from poolswap.manifest import read_manifest
        from poolswap.models.userfile import split_reference, takes_argument
        from poolswap.surgery.plan import Plan
        from poolswap.surgery.sites import find_pools

        check_data(data, splits=splits)  # before the model is built
        own = checkpoint_of(model)
        fits = split_reference(model) is None or takes_argument(model, "num_classes")
        if fit_classes and fits and own is None and architecture.num_classes is None:
            options["num_classes"] = self.data(data, splits=splits).num_classes
        net, spec = architecture.load(model, **options)
        manifest = read_manifest(own) if own else None
        # Raises in words where the model does not take its input size.
        find_pools(net, spec.input_size, example=manifest.inputs if manifest else None)
        plan = manifest.plan if manifest else Plan(model=spec.reference, input_size=spec.input_size)
        plan.run_files()  # as loading it did
        images = self.data(data, input_size=spec.input_size, model=net, num_classes=spec.num_classes, splits=splits)
        return net, spec, plan, manifest.example if manifest else None, images


DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits, photographs, a folder with train/CLASS/ and val/CLASS/, or a reader of timm: hfds/NAME, ...",
        rich_help_panel="Data",
    ),
]
SplitOption = Annotated[
    Literal["val", "test"],
    typer.Option("--split", help="Images to judge on: val to choose by, test once at the end.", rich_help_panel="Data"),
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images in a batch.", rich_help_panel="Data")]
ExampleOption = Annotated[
    str | None,
    typer.Option(
        "--example",
        metavar="FILE.py:NAME",
        help="Inputs for the model, or a function that makes them.",
        rich_help_panel="Model",
    ),
]


IncludeOption = Annotated[
    Literal["convs"] | None,
    typer.Option("--include", help="Also give the stride of convolutions to the operator.", rich_help_panel="Sites"),
]


def example_of(reference: str | None) -> Example | None:
    """The inputs that --example names."""
    if reference is None:
        return None
    from poolswap.models.userfile import load_object

    found = load_object(reference)
    example: Example = found() if callable(found) else found
    return example
