"""Batches in an order that depends on the seed and the epoch alone, and images that cannot be read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from timm.data import ImageDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from poolswap.adapt.data import Data, Part, is_iterable
from poolswap.adapt.decode import decode
from poolswap.errors import InputError, first_line

OnBadImage = Literal["fatal", "skip", "count"]
Batch = tuple[Tensor, Tensor]

# An odd multiplier keeps the streams of neighbouring seeds, epochs and images apart.
SEED_STRIDE = 1_000_003


class Loader:
    """Batches (images (N, C, H, W), targets (N,)) of one data set.

    The order, and what random transforms draw, follow from (seed, epoch) and the image: not from the number of workers
    or processes. With `world` processes each of them gets its share of every batch. `bad` lists the images of the last
    pass that could not be read, `unread` their places in the data set: with on_bad_image "fatal" the first one is an
    InputError.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        num_classes: int | None = None,
        train: bool = False,
        workers: int = 0,
        seed: int = 0,
        on_bad_image: OnBadImage = "fatal",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset, self.batch_size, self.num_classes = dataset, batch_size, num_classes
        self.train, self.workers, self.seed, self.on_bad_image = train, workers, seed, on_bad_image
        self.rank, self.world = rank, world
        self.epoch = 0
        self.bad: list[str] = []
        self.unread: list[int] = []
        if train and len(dataset) < batch_size:
            raise InputError(
                f"a batch of {batch_size} is more than the {len(dataset)} training images",
                f"batch_size={max(len(dataset), 1)}",
            )
        if world > 1 and is_iterable(dataset):
            raise InputError("several processes cannot share a streaming data set", "use a folder, torch/ or hfds/")

    def shard(self, rank: int, world: int, batch_size: int | None = None) -> Loader:
        """The share of one process of `world`; `batch_size` is over all of them."""
        return Loader(
            self.dataset,
            batch_size or self.batch_size,
            num_classes=self.num_classes,
            train=self.train,
            workers=self.workers,
            seed=self.seed,
            on_bad_image=self.on_bad_image,
            rank=rank,
            world=world,
        )

    def __len__(self) -> int:
        """Batches of a pass. A training pass leaves the incomplete last one out."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.train)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.batches()

    def batches(self, epoch: int | None = None, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on. Without an epoch, every pass is a new one."""
        if epoch is None:
            epoch, self.epoch = self.epoch, self.epoch + self.train
        self.bad.clear()
        self.unread.clear()
        for images, targets, bad in self._raw(epoch, start):
            self.bad += [one.reason for one in bad]
            self.unread += [one.place for one in bad]
            if bad and self.on_bad_image == "fatal":
                reason = bad[0].reason
                raise InputError(f"an image cannot be read: {reason}", "remove it, or go on with on_bad_image='skip'")
            if images is None or targets is None:
                if self.train:
                    reason = bad[0].reason
                    raise InputError(f"no image of a whole batch can be read: {reason}", "check the training images")
                continue
            yield images, targets

    def _raw(self, epoch: int, start: int) -> Iterator[tuple[Tensor | None, Tensor | None, list[_Unread]]]:
        if is_iterable(self.dataset):
            self.dataset.set_epoch(epoch)
            stream: Any = DataLoader(self.dataset, self.batch_size, num_workers=self.workers, drop_last=self.train)
            try:
                yield from ((images, targets, []) for images, targets in islice(stream, start, None))
            except (OSError, RuntimeError) as error:
                raise InputError(f"the data cannot be read: {first_line(error)}", "check the shards") from error
            return
        try:
            yield from DataLoader(
                _Readable(self.dataset, self.seed * SEED_STRIDE + epoch),
                batch_sampler=_Order(self, epoch, start),
                num_workers=self.workers,
                collate_fn=_collate,
                pin_memory=torch.cuda.is_available(),
            )
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(f"a process that reads images was lost: {first_line(error)}", "workers=0") from error


def make_loader(
    data: Data,
    part: Part,
    batch_size: int = 64,
    workers: int = 0,
    seed: int = 0,
    on_bad_image: OnBadImage = "fatal",
) -> Loader:
    """Batches of one part of the data; "plain" are the training images as they are evaluated.

    Those of "train" and "plain" are shuffled, the others keep their order. Raises InputError for a part that the data
    does not have.
    """
    return Loader(
        data.images(part),
        batch_size,
        num_classes=data.num_classes,
        train=part in ("train", "plain"),
        workers=workers,
        seed=seed,
        on_bad_image=on_bad_image,
    )


def loaders(data: Data, *arguments: Any, **options: Any) -> tuple[Loader, Loader]:
    """(training, validation) loaders: `make_loader` of both."""
    return make_loader(data, "train", *arguments, **options), make_loader(data, "val", *arguments, **options)


class _Order(Sampler[list[int]]):
    """Indices of each batch from `start` on: this process's share."""

    def __init__(self, loader: Loader, epoch: int, start: int) -> None:
        self.loader, self.epoch, self.start = loader, epoch, start

    def __len__(self) -> int:
        return max(len(self.loader) - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        loader = self.loader
        order = torch.arange(len(loader.dataset))
        if loader.train:
            generator = torch.Generator().manual_seed(loader.seed * SEED_STRIDE + self.epoch)
            order = torch.randperm(len(loader.dataset), generator=generator)
        for number in range(self.start, len(loader)):
            batch = order[number * loader.batch_size : (number + 1) * loader.batch_size]
            share: list[int] = batch[loader.rank :: loader.world].tolist()
            if share:
                yield share


class _Unread(NamedTuple):
    """An image that cannot be read: its place in the data set, its name and why."""

    place: int
    reason: str


class _Readable(Dataset[Any]):
    """(image, target), or the reason why there is none. Each image's transforms draw from a seed of their own."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        state, own = random.getstate(), self.seed * SEED_STRIDE + index
        random.seed(own)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(own % 2**63)
                return self._read(index)
        except (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError) as error:
            return _Unread(index, f"{self._name(index)}: {first_line(error)}")
        finally:
            random.setstate(state)

    def _read(self, index: int) -> Any:
        dataset = self.dataset
        if not isinstance(dataset, ImageDataset):
            return dataset[index]
        name = Path(self._name(index))
        if name.exists() and not name.is_file():
            raise OSError("it is a pipe or a device")  # which may have no end
        # ImageDataset's own way puts another image in the place of one that it cannot read.
        file, target, *_ = dataset.reader[index]
        with file:
            image = decode(file, dataset.input_img_mode)
        return dataset.transform(image), target

    def _name(self, index: int) -> str:
        if not isinstance(self.dataset, ImageDataset):
            return f"number {index}"
        return str(self.dataset.filename(index, absolute=True))


def _collate(items: list[Any]) -> tuple[Tensor | None, Tensor | None, list[_Unread]]:
    bad = [item for item in items if isinstance(item, _Unread)]
    good = [item for item in items if not isinstance(item, _Unread)]
    if not good:
        return None, None, bad
    images, targets = default_collate(good)
    return images, targets, bad
