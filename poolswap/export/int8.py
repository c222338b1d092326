"""An ONNX file in 8 bits: static, calibrated on images, judged by its accuracy before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from poolswap.errors import CheckError, InputError, first_line
from poolswap.export.job import Runner
from poolswap.export.trace import quiet

Batches = Iterable[tuple[Tensor, Tensor]]
# Batches that calibration reads; more moves no range by much.
CALIBRATION = 16
# Severities of onnxruntime's log; it has no names for them.
_WARNING, _ERROR = 2, 3


@dataclass(frozen=True)
class Images:
    """Batches of (images (N, C, H, W), targets (N,)): some to read the ranges from, others to judge by."""

    calibration: Batches
    evaluation: Batches


class Int8(BaseModel):
    """What 8 bits cost: top-1 of the file in float32 and in int8, in percent, and how often both say the same."""

    model_config = ConfigDict(frozen=True)

    calibrated_on: int
    images: int
    top1_float: float
    top1: float
    agreement: float


def quantize(path: Path, images: Images, floating: Iterable[str] = ()) -> int:
    """Rewrite the ONNX file in onnxruntime's QDQ form, by MinMax ranges, with a scale for each channel of a weight.

    The modules at the paths `floating` stay in float32: a chain of cheap nodes takes longer with a conversion around
    each of them. Returns the number of images that it was calibrated on. Raises InputError where there is none,
    CheckError where onnxruntime cannot quantise the file.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import quantize_static

    given = onnx.load(path, load_external_data=False)
    said = {entry.key: entry.value for entry in given.metadata_props}
    reader = _Reader(_input_name(given.graph), images.calibration)
    prefixes = tuple(f"{path}/" for path in floating)
    excluded = [node.name for node in given.graph.node if node.name.startswith(prefixes)]
    draft = path.with_suffix(".int8.onnx")
    onnxruntime.set_default_logger_severity(_ERROR)  # its quantiser's sessions warn of their own insides
    try:
        with quiet():
            quantize_static(path, draft, reader, per_channel=True, nodes_to_exclude=excluded)
    except Exception as error:
        if not reader.count:
            raise InputError("there is no image to calibrate on", "check the training images") from error
        raise CheckError(f"onnxruntime cannot quantise the file: {first_line(error)}") from error
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    made = onnx.load(draft)
    _connect_branches(made.graph)
    onnx.helper.set_model_props(made, said)
    onnx.save(made, path)
    draft.unlink()
    return reader.count


def judge(before: Runner, after: Runner, images: Images, calibrated_on: int) -> Int8:
    """Both files on the images to judge by. Raises InputError where there is none, or no classifier."""
    count = right = right_after = same = 0
    for batch, targets in images.evaluation:
        (was, *_), (now, *_) = before((batch,)), after((batch,))
        if was.dim() != 2:
            raise InputError(f"the model gives outputs of shape {tuple(was.shape)}, not logits", "use a classifier")
        said, says = was.argmax(1), now.argmax(1)
        count += len(targets)
        right += int((said == targets).sum())
        right_after += int((says == targets).sum())
        same += int((said == says).sum())
    if not count:
        raise InputError("there is no image to judge by", "check the validation images")
    percent = 100 / count
    return Int8(
        calibrated_on=calibrated_on,
        images=count,
        top1_float=percent * right,
        top1=percent * right_after,
        agreement=percent * same,
    )


class _Reader:
    """The calibration images as onnxruntime asks for them."""

    def __init__(self, name: str, batches: Batches) -> None:
        self.name, self.count = name, 0
        self._batches: Iterator[tuple[Tensor, Tensor]] = islice(iter(batches), CALIBRATION)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.count += len(batch[0])
        return {self.name: batch[0].to(torch.float32).numpy()}


def _connect_branches(graph: Any) -> None:
    """Let the sides of a branch read what the nodes around it read.

    onnxruntime's quantiser knows no sides: they would read a tensor before its conversion, and so without the
    activation that it takes away where the range of the conversion does its work.
    """
    converted = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    back = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in converted]
    read = {converted[node.input[0]]: node.output[0] for node in back}
    for side in (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")):
        for node in side.node:
            node.input[:] = [read.get(name, name) for name in node.input]


def _input_name(graph: Any) -> str:
    inputs = graph.input
    if len(inputs) != 1:
        raise InputError(f"the model takes {len(inputs)} inputs, and calibration has images alone", "leave out int8=")
    return str(inputs[0].name)
