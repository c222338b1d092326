"""SoftPool on a GPU as users run it: dispatch, autograd, compile, graphs, streams, devices, huge tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from poolswap.functional import global_soft_pool, soft_pool2d
from poolswap.nn import SoftPool2d
from poolswap.ops import soft_pool, use_backend
from poolswap.ops.backend import select
from poolswap.ops.windows import Windows

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA or ROCm device")
WINDOWS = Windows((3, 3), (2, 2), (1, 1), (1, 1), (4, 4))


def sample(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cuda") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*(shape or (2, 8, 8, 8)), generator=generator).to(device, dtype)


def pool(x: Tensor) -> Tensor:
    return soft_pool2d(x, 3, 2, 1)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).float().square().sum(), x)[0]


def test_compile_traces_a_gpu_model_without_one() -> None:
    """Neither the operator nor its backward needs a device to be traced; layouts are those of the kernels."""
    graphs = []

    def keep(module: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(module)
        return module

    torch._dynamo.reset()
    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(2, 3, 8, 8, device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
        y = torch.compile(lambda x: pool(x.relu()), fullgraph=True, backend=keep)(x)
        dx = torch.ops.poolswap.soft_pool_backward(y, x, torch.ones((), device="cuda"), *WINDOWS)
    assert "soft_pool" in str(graphs[0].graph)
    assert (y.device.type, y.shape, y.dtype) == ("cuda", (2, 3, 4, 4), torch.float16)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert dx.stride() == x.stride()


@gpu
@needs_gpu
def test_auto_takes_the_kernels_on_a_gpu() -> None:
    assert select("cuda").name == "cuda"
    x = sample()
    with use_backend("reference"):
        expected = pool(x)
    torch.testing.assert_close(pool(x), expected)


@gpu
@needs_gpu
def test_gradients_are_exact() -> None:
    x = sample(2, 2, 6, 6, dtype=torch.float64).requires_grad_()
    beta = torch.tensor(0.7, dtype=torch.float64, device="cuda", requires_grad=True)
    for options in ({"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2}, {"kernel_size": 6}):
        assert torch.autograd.gradcheck(lambda x, b, o=options: soft_pool2d(x, **o, beta=b), (x, beta))


@gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
def test_opcheck() -> None:
    x = sample(2, 3, 8, 8).requires_grad_()
    torch.library.opcheck(torch.ops.poolswap.soft_pool, (x, torch.ones((), device="cuda"), *WINDOWS))


@gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_and_trains_without_a_graph_break() -> None:
    torch._dynamo.reset()
    x = sample()
    network = torch.compile(lambda x: pool(x.relu()), fullgraph=True)
    torch.testing.assert_close(network(x), pool(x.relu()))
    torch.testing.assert_close(gradient(network, x), gradient(lambda x: pool(x.relu()), x))


@gpu
@needs_gpu
def test_nothing_waits_for_the_device() -> None:
    x = sample()
    gradient(pool, x)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradient(pool, x)
        gradient(lambda x: global_soft_pool(x, (2, 3)), x)
        soft_pool(x, torch.tensor(2.0), WINDOWS)
        SoftPool2d(3, 2, 1).cuda()(x)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@gpu
@needs_gpu
def test_a_cuda_graph_replays_forward_and_backward() -> None:
    static = sample()
    for _ in range(2):
        gradient(pool, static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradient(pool, static)
    static.copy_(sample() * 2)
    graph.replay()
    torch.testing.assert_close(captured, gradient(pool, static), rtol=0, atol=0)


@gpu
@needs_gpu
def test_runs_on_the_current_stream() -> None:
    x = sample(32, 64, 56, 56)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            x = x * 1.01
        y = pool(x)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, pool(x))


@gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_device_of_its_input() -> None:
    x = sample(device="cuda:1")
    y = soft_pool(x, torch.ones((), device="cuda:0"), WINDOWS)
    assert y.device == x.device
    torch.testing.assert_close(y.cpu(), pool(x.cpu()))


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_dtype_that_comes_in(dtype: torch.dtype) -> None:
    x = sample(dtype=dtype)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert pool(x).dtype == dtype


@gpu
@needs_gpu
@pytest.mark.parametrize("kernel", [2, 3, 64])
def test_more_than_2_to_the_31_elements(kernel: int) -> None:
    """The last planes of a tensor that 32-bit offsets cannot reach, forward and gradient."""
    planes, size = 2**19 + 3, 64
    needed = (2 + 2 + (8 if kernel == 3 else 0)) * 2 * planes * size * size
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x = torch.zeros(1, planes, size, size, dtype=torch.float16, device="cuda")
    x[:, -2:] = sample(1, 2, size, size, dtype=torch.float16)
    geometry = {2: (2,), 3: (3, 2, 1), 64: (64,)}[kernel]
    x.requires_grad_()
    y = soft_pool2d(x, *geometry)
    y.backward(torch.ones_like(y))
    last = x.detach()[:, -2:].clone().requires_grad_()
    expected = soft_pool2d(last, *geometry)
    expected.backward(torch.ones_like(expected))
    assert x.grad is not None
    torch.testing.assert_close(y[:, -2:], expected)
    torch.testing.assert_close(x.grad[:, -2:], last.grad)


@gpu
@needs_gpu
def test_a_large_beta_is_max_pooling() -> None:
    x = sample(4, 16, 32, 32)
    torch.testing.assert_close(soft_pool2d(x, 3, 2, 1, beta=1e6), F.max_pool2d(x, 3, 2, 1))
