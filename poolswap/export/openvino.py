"""OpenVINO's intermediate representation, converted from the ONNX form.

Of a torch.export program OpenVINO keeps neither the sizes that are fixed nor the padding that repeats the edge.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from poolswap.errors import InputError, first_line
from poolswap.export import onnx
from poolswap.export.job import Arguments, Job, Runner
from poolswap.export.trace import quiet


def write(job: Job, path: Path) -> None:
    """`path` and, beside it, its weights in .bin, in the model's own precision."""
    import openvino

    with TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "model.onnx"
        onnx.write(job, source)
        try:
            with quiet():
                model = openvino.convert_model(source)
                for key, value in job.metadata.items():
                    model.set_rt_info(value, key)
                openvino.save_model(model, str(path), compress_to_fp16=False)
        except Exception as error:
            raise InputError(
                f"OpenVINO cannot convert the model: {first_line(error)}", "try the format onnx"
            ) from error


def runner(job: Job, path: Path) -> Runner:
    """The model compiled for the CPU in float32: OpenVINO would choose bfloat16 where the processor has it."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(arguments: Arguments) -> list[Tensor]:
        found = compiled([x.numpy() for x in arguments])
        return [torch.from_numpy(found[port].copy()) for port in compiled.outputs]

    return run
