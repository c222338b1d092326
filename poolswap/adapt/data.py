"""A name -> images to train on, to choose by and to judge on: bundled ones, a folder, or any reader of timm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from timm.data import create_dataset, create_transform, resolve_data_config
from torch import nn
from torch.utils.data import IterableDataset

from poolswap.adapt import digits, photographs
from poolswap.errors import InputError, first_line, nearest

Split = Literal["train", "val", "test"]
Part = Literal["train", "plain", "val", "test"]

_DEFAULT_SIZE = (3, 224, 224)
_BUNDLED = {
    "digits": (digits.load_digits, digits.CLASSES, digits.check_digits),
    "photographs": (photographs.load_photographs, photographs.CLASSES, photographs.check_photographs),
}
# timm's readers, and the package that each imports.
_READERS = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}
_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "eval"),
    "test": ("test", "testing"),
}
_TIMM = {"train": "train", "val": "validation", "test": "test"}
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")  # timm: the first 3
_LAYOUT = "put the images in train/CLASS/ and val/CLASS/"
_OWN = ("input_size", "is_training", "mean", "std", "use_prefetcher", "separate", "normalize")  # not the user's to set


@dataclass(frozen=True)
class Data:
    """Images to train on, to choose by (`val`) and to judge what was chosen, once (`test`); None for what is not there.

    `num_classes` is of their labels, `labels` are the classes' names. `plain` are the training images as they are
    evaluated, without augmentation: what BatchNorm's statistics are to be of. None: the training images are so.
    """

    train: Any
    val: Any
    num_classes: int
    name: str
    labels: tuple[str, ...] = ()
    test: Any = None
    plain: Any = None

    def images(self, part: Part) -> Any:
        """The images of one part. Raises InputError where they were not loaded."""
        found = self.train if part == "plain" and self.plain is None else getattr(self, part)
        if found is None:
            split = "train" if part == "plain" else part
            raise InputError(f"{self.name} has no {split} images here", f"load them with splits=['{split}']")
        return found


def load_data(
    name: str,
    *,
    input_size: Sequence[int] | None = None,
    model: nn.Module | None = None,
    num_classes: int | None = None,
    root: str | Path | None = None,
    splits: Sequence[Split] = ("train", "val"),
    download: bool = False,
    transform: Mapping[str, Any] | None = None,
) -> Data:
    """Images of `input_size` (C, H, W) from "digits", "photographs", a folder with train/, val/, test/, or a reader.

    Readers are timm's: torch/NAME, hfds/NAME, hfids/NAME, tfds/NAME, wds/PATTERN, with `root` as timm takes it. Only
    the `splits` that are asked for are read, and need to be there. The transforms are resolved from the configuration
    of `model`; `transform` are further arguments of timm.data.create_transform, such as {"hflip": 0.0} for training
    images and {"crop_pct": 1.0} for those that are evaluated. Bundled data is not transformed. `num_classes` is for
    data that does not say how many it has. The network is touched only by readers that are remote, or for `download`.
    Raises InputError for data that cannot be used.
    """
    size = tuple(input_size or _DEFAULT_SIZE)
    if name in _BUNDLED:
        if transform:
            raise InputError(f"{name} is not transformed", "leave out transform=, or use a folder of images")
        load, labels, _ = _BUNDLED[name]
        found = dict(zip(get_args(Split), load(size), strict=True))
        return Data(num_classes=len(labels), name=name, labels=labels, plain=found["train"], **found)
    if len(size) != 3:
        raise InputError(f"the model takes {size}, and the data is images (C, H, W)", "use a model of images")
    _check_transform(transform or {})
    made: dict[str, Any] = {}
    for split in splits:
        made[split] = _dataset(name, root, split, num_classes=num_classes, download=download, channels=size[0])
        made[split].transform = _transform(size, model, split == "train", transform or {})
    if "train" in made:
        made["plain"] = copy(made["train"])
        made["plain"].transform = _transform(size, model, False, transform or {})
    labels = _labels(name, {split: made[split] for split in splits})
    count = len(labels) or num_classes
    if not count:
        raise InputError(f"{name} does not say how many classes it has", "tell with num_classes=N")
    if labels and len(labels) < 2:
        raise InputError(f"{name} has one class only: {labels[0]}", f"{_LAYOUT}, one folder per class")
    return Data(**{"train": None, "val": None, **made}, num_classes=count, name=name, labels=labels)


def check_data(name: str, *, splits: Sequence[Split] = ("train", "val")) -> None:
    """Raise what `load_data` would for data that is not here, or needs a package that is not, before any work is done.

    No image is read, and no package imported.
    """
    if name in _BUNDLED:
        _BUNDLED[name][2]()
    elif (reader := _reader(name)) is not None:
        if find_spec(_READERS[reader]) is None:
            raise _needs(name, _READERS[reader])
    else:
        for split in splits:
            _folder(Path(name), split)


def _reader(name: str) -> str | None:
    """The reader of timm's that reads the data; None for a folder."""
    reader, slash, _ = name.partition("/")
    return reader.lower() if slash and reader.lower() in _READERS and not Path(name).is_dir() else None


def _needs(name: str, package: str) -> InputError:
    return InputError(f"{name} needs the package {package}", f"pip install {package}")


def is_iterable(dataset: Any) -> bool:
    """Whether the images can only be read one after the other."""
    return isinstance(dataset, IterableDataset)


def _dataset(
    name: str,
    root: str | Path | None,
    split: Split,
    *,
    num_classes: int | None,
    download: bool,
    channels: int,
) -> Any:
    reader = _reader(name)
    mode = "L" if channels == 1 else "RGB"
    named = _TIMM[split]
    if reader is not None:
        own: dict[str, Any] = {} if reader == "torch" else {"input_img_mode": mode}
        place, arguments = str(root) if root else None, {**own, "is_training": split == "train", "download": download}
    else:
        folder = _folder(Path(name), split)
        how = {"search_split": False, "input_img_mode": mode, "input_key": ";".join(_SUFFIXES)}
        name, place, arguments = "", str(folder), how
    try:
        dataset = create_dataset(name, place, split=named, **arguments)
    except ImportError as error:
        raise _needs(name, error.name or str(reader)) from error
    except (Exception, SystemExit) as error:
        what = name or place
        if "Found 0 images" in str(error):
            raise InputError(f"there is no image in {what}", f"{_LAYOUT}, as {' '.join(_SUFFIXES)}") from None
        raise InputError(f"{what}, split {named!r}, cannot be read: {first_line(error)}", "check the name") from error
    if not name:
        _check_folders(dataset, folder)
    return dataset


def _check_folders(dataset: Any, root: Path) -> None:
    """Raise InputError for images beside the classes' folders, and for a folder that links lead to twice."""
    seen: dict[Path, Path] = {}
    for folder in dict.fromkeys(Path(path).parent for path, _ in dataset.reader.samples):
        if folder == root:
            raise InputError(
                f"there are images in {root} itself, of no class", "move them into the folder of their class"
            )
        other = seen.setdefault(folder.resolve(), folder)
        if other != folder:
            raise InputError(f"{other} and {folder} are the same folder", "remove the link that leads there twice")


def _folder(path: Path, split: Split) -> Path:
    """The folder of a split inside a folder of images."""
    if not path.is_dir():
        known = f"give {', '.join(_BUNDLED)}, a folder, or a reader: hfds/NAME, torch/NAME"
        raise InputError(f"there is no data {str(path)!r}", nearest(str(path), _BUNDLED) or known)
    names = _FOLDERS[split]
    for child in names:
        if (path / child).is_dir():
            return path / child
    if not any(entry.is_file() or entry.is_dir() for entry in path.iterdir()):
        raise InputError(f"the folder {path} is empty", _LAYOUT)
    hint = _LAYOUT
    if split == "val" and any((path / child).is_dir() for child in _FOLDERS["test"]):
        hint = "keep test/ for the end: put a part of the training images in val/, or judge with split='test'"
    elif split == "test":
        hint = "put images that nothing was chosen by in test/CLASS/"
    raise InputError(f"{path} has no folder {' or '.join(names[:2])}", hint)


def _check_transform(given: Mapping[str, Any]) -> None:
    known = [name for name in signature(create_transform).parameters if name not in _OWN]
    for name in given:
        if name not in known:
            raise InputError(f"there is no transform {name!r}", nearest(name, known) or f"there are {', '.join(known)}")


def _transform(size: tuple[int, ...], model: nn.Module | None, is_training: bool, further: Mapping[str, Any]) -> Any:
    given: dict[str, Any] = {"input_size": size}
    if model is None or not getattr(model, "pretrained_cfg", None):
        given["interpolation"] = "bilinear"  # torchvision's; timm's models say their own
    if size[0] not in (3,):
        given.update(mean=(0.5,) * size[0], std=(0.5,) * size[0])
    config = resolve_data_config(given, model=model)
    if is_training:
        config.pop("crop_pct")
        config.pop("crop_mode")
    try:
        return create_transform(**{**config, **further}, is_training=is_training)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise InputError(f"the transforms {dict(further)} do not fit: {first_line(error)}", "see timm's") from error


def _labels(name: str, datasets: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of the data; none where it does not name them. Raises InputError where splits have different ones."""
    found = {split: names for split, dataset in datasets.items() if (names := _class_names(dataset))}
    labels: tuple[str, ...] = next(iter(found.values()), ())
    for split, names in found.items():
        if names != labels:
            odd = sorted(set(names) ^ set(labels))[:3]
            raise InputError(
                f"{name}: {next(iter(found))} and {split} images have different classes: {', '.join(odd)}",
                "give each the same class folders",
            )
    return labels


def _class_names(dataset: Any) -> tuple[str, ...]:
    owner = getattr(dataset, "reader", dataset)
    found = getattr(owner, "class_to_idx", None) or {}
    return tuple(map(str, sorted(found, key=found.__getitem__)))
