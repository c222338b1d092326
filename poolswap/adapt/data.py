"""A name -> training and validation images: the embedded digits, a folder, or any reader of timm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data import create_dataset, create_transform, resolve_data_config
from torch import nn
from torch.utils.data import IterableDataset

from poolswap.adapt import digits
from poolswap.errors import InputError, first_line

_DEFAULT_SIZE = (3, 224, 224)
_FOLDERS = {"train": ("train", "training"), "validation": ("val", "validation", "eval", "test")}
_LAYOUT = "put the images in train/CLASS/ and val/CLASS/"


@dataclass(frozen=True)
class Data:
    """Training and validation images, and the number of classes of their labels. `labels` are the classes' names."""

    train: Any
    val: Any
    num_classes: int
    name: str
    labels: tuple[str, ...] = ()


def load_data(
    name: str,
    *,
    input_size: Sequence[int] | None = None,
    model: nn.Module | None = None,
    num_classes: int | None = None,
    root: str | Path | None = None,
    splits: tuple[str, str] = ("train", "validation"),
    download: bool = False,
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """Images of `input_size` (C, H, W) from "digits", a folder with train/ and val/, or a timm reader.

    Readers: torch/NAME, hfds/NAME, hfids/NAME, tfds/NAME, wds/PATTERN, with `root` and `splits` as timm takes them.
    The transforms are resolved from the configuration of `model`; `augment` are further arguments of
    timm.data.create_transform for training images, such as {"hflip": 0.0}; the digits are never augmented.
    `num_classes` is for data that does not say how many it has. The network is touched only by readers that are remote,
    or for `download`. Raises InputError for data that cannot be used.
    """
    size = tuple(input_size or _DEFAULT_SIZE)
    if name == "digits":
        train, val = digits.load_digits(size)
        labels = tuple(map(str, range(digits.CLASSES)))
        return Data(train, val, digits.CLASSES, name, labels)
    if len(size) != 3:
        raise InputError(f"the model takes {size}, and the data is images (C, H, W)", "use a model of images")
    made = []
    for split, is_training in zip(splits, (True, False), strict=True):
        dataset = _dataset(name, root, split, is_training, num_classes=num_classes, download=download, channels=size[0])
        dataset.transform = _transform(size, model, is_training, augment or {})
        made.append(dataset)
    train, val = made
    train_classes, val_classes = _class_names(train), _class_names(val)
    if train_classes and val_classes and train_classes != val_classes:
        odd = sorted(set(train_classes) ^ set(val_classes))[:3]
        raise InputError(
            f"{name}: training and validation images have different classes: {', '.join(odd)}",
            "give both the same class folders",
        )
    count = len(train_classes) or num_classes
    if not count:
        raise InputError(f"{name} does not say how many classes it has", "tell with num_classes=N")
    if train_classes and len(train_classes) < 2:
        raise InputError(f"{name} has one class only: {train_classes[0]}", f"{_LAYOUT}, one folder per class")
    return Data(train, val, count, name, train_classes)


def is_iterable(dataset: Any) -> bool:
    """Whether the images can only be read one after the other."""
    return isinstance(dataset, IterableDataset)


def _dataset(
    name: str,
    root: str | Path | None,
    split: str,
    is_training: bool,
    *,
    num_classes: int | None,
    download: bool,
    channels: int,
) -> Any:
    reader = name.partition("/")[0].lower()
    mode = "L" if channels == 1 else "RGB"
    if reader in ("torch", "hfds", "hfids", "tfds", "wds") and "/" in name and not Path(name).is_dir():
        own: dict[str, Any] = {} if reader == "torch" else {"input_img_mode": mode}
        place, arguments = str(root) if root else None, {**own, "is_training": is_training, "download": download}
    else:
        folder = _folder(Path(name), split)
        name, place, arguments = "", str(folder), {"search_split": False, "input_img_mode": mode}
    try:
        return create_dataset(name, place, split=split, **arguments)
    except ImportError as error:
        package = error.name or reader
        raise InputError(f"{name} needs the package {package}", f"pip install {package}") from error
    except (Exception, SystemExit) as error:
        what = name or place
        if "Found 0 images" in str(error):
            raise InputError(f"there is no image in {what}", _LAYOUT) from None
        raise InputError(f"{what}, split {split!r}, cannot be read: {first_line(error)}", "check the name") from error


def _folder(path: Path, split: str) -> Path:
    """The folder of a split inside a folder of images."""
    if not path.is_dir():
        raise InputError(f"there is no data {str(path)!r}", "give digits, a folder, or a reader: hfds/NAME, torch/NAME")
    names = next((names for names in _FOLDERS.values() if split in names), (split,))
    for child in names:
        if (path / child).is_dir():
            return path / child
    if not any(entry.is_file() or entry.is_dir() for entry in path.iterdir()):
        raise InputError(f"the folder {path} is empty", _LAYOUT)
    raise InputError(f"{path} has no folder {' or '.join(names[:2])}", _LAYOUT)


def _transform(size: tuple[int, ...], model: nn.Module | None, is_training: bool, augment: Mapping[str, Any]) -> Any:
    given: dict[str, Any] = {"input_size": size}
    if model is None or not getattr(model, "pretrained_cfg", None):
        given["interpolation"] = "bilinear"  # torchvision's; timm's models say their own
    if size[0] not in (3,):
        given.update(mean=(0.5,) * size[0], std=(0.5,) * size[0])
    config = resolve_data_config(given, model=model)
    if is_training:
        config.pop("crop_pct")
        config.pop("crop_mode")
        return create_transform(**config, is_training=True, **augment)
    return create_transform(**config)


def _class_names(dataset: Any) -> tuple[str, ...]:
    owner = getattr(dataset, "reader", dataset)
    found = getattr(owner, "class_to_idx", None) or {}
    return tuple(map(str, sorted(found, key=found.__getitem__)))
