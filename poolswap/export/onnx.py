"""ONNX in standard operators, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from poolswap.errors import InputError, first_line
from poolswap.export.job import Arguments, Job, Runner
from poolswap.export.naming import name_onnx
from poolswap.export.trace import program, quiet

DEFAULT_OPSET = 20


def write(job: Job, path: Path) -> None:
    """The model with its manifest in `metadata_props`; above 2 GB its weights lie beside it."""
    import onnx

    traced = program(job)
    inputs, outputs = len(job.arguments), len(traced.graph_signature.user_outputs)
    try:
        with quiet():
            made = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=job.opset or DEFAULT_OPSET,
                verbose=False,
                input_names=_numbered("input", inputs),
                output_names=_numbered("output", outputs),
            )
            assert made is not None
            name_onnx(made.model)
            made.model.metadata_props.update(job.metadata)
            made.save(path, external_data=None)
        onnx.checker.check_model(str(path), full_check=True)
    except OSError:
        raise
    except Exception as error:
        reason = error  # the exporter's own first line says which step failed, its cause why
        while isinstance(reason.__cause__, Exception):
            reason = reason.__cause__
        hint = "leave out branch=True" if job.branch else "try another opset, or the format pt2"
        raise InputError(f"the model has no ONNX form: {first_line(reason)}", hint) from error


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}_{n}" for n in range(count)]


def runner(job: Job, path: Path) -> Runner:
    """A session of onnxruntime on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(arguments: Arguments) -> list[Tensor]:
        feeds = {name: x.numpy() for name, x in zip(names, arguments, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feeds)]

    return run
