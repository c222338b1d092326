"""What is called how in a file, and what is left out of it: names of the model, nothing of the machine."""

from __future__ import annotations

import re
from ast import literal_eval
from collections import Counter
from pathlib import PurePath, PureWindowsPath
from typing import Any

from torch.fx import GraphModule

# The spatial dimensions of an input, by how many there are.
SPATIAL = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def forget_source(program: GraphModule) -> None:
    """Remove the stack traces, which quote the exporting machine's paths and code."""
    for module in program.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def without_folders(document: Any) -> Any:
    """A JSON document with the last part alone of every absolute path."""
    if isinstance(document, dict):
        return {key: without_folders(value) for key, value in document.items()}
    if isinstance(document, list):
        return [without_folders(value) for value in document]
    if isinstance(document, str):
        for kind in (PurePath, PureWindowsPath):
            if kind(document).is_absolute():
                return kind(document).name
    return document


def name_onnx(model: Any) -> None:
    """Give an onnx_ir model's nodes their module's path and its free dimensions their meaning; forget all else.

    A node is `layer1.0.pool/MaxPool`, or `layer1.0.pool/Sub_2` where it is not the only one of its kind. Free
    dimensions are batch, and height and width or what else the input has.
    """
    free: dict[str, str] = {}
    for value in model.graph.inputs:
        spatial = SPATIAL.get(len(value.shape) - 2, ())
        for size, name in zip(value.shape, ("batch", "channels", *spatial), strict=False):
            if not isinstance(size, int):
                free.setdefault(str(size.value), name)
    seen: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        scopes = literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        name = "/".join(filter(None, (scopes[-2] if len(scopes) > 1 else "", node.op_type)))
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
        node.metadata_props.clear()
        for value in node.outputs:
            _rename_sizes(value, free)
    for value in (*model.graph.inputs, *model.graph.outputs):
        _rename_sizes(value, free)
    model.graph.metadata_props.clear()


def _rename_sizes(value: Any, free: dict[str, str]) -> None:
    value.metadata_props.clear()
    if value.shape is None:
        return
    for axis, size in enumerate(value.shape):
        if not isinstance(size, int) and size.value is not None:
            value.shape[axis] = re.sub(r"\w+", lambda word: free.get(word[0], word[0]), str(size.value))
