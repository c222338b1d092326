"""Every operator against its paper's definition, window by window, and in the special cases that the papers name."""

from itertools import combinations

import pools
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import by_windows
from pools import STEM, distinct, geometries, stock
from torch import Tensor, nn

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.nn.windows import dense_pool


def make(text: str, geometry: Geometry = STEM, channels: int = 2, start: str | None = None) -> nn.Module:
    return pools.make(text, geometry, channels, start).double().eval()


def with_parameters(module: nn.Module, **values: float) -> nn.Module:
    for name, value in values.items():
        nn.init.constant_(getattr(module, name), value)
    return module


def edscw(window: Tensor) -> Tensor:
    mean = window.mean()
    return ((2 * (window * mean).abs() / (window**2 + mean**2)).softmax(0) * window).sum()


def on_the_simplex(power: float, beta: float):
    """sum w x with w = (beta x / power - tau)_+^power, tau so that they sum to 1: found by bisection."""

    def pool(w: Tensor) -> Tensor:
        z = beta * w / power
        low, high = z.max() - 1, z.max()
        for _ in range(80):
            tau = (low + high) / 2
            low, high = (tau, high) if ((z - tau).relu() ** power).sum() > 1 else (low, tau)
        return ((z - low).relu() ** power * w).sum()

    return pool


DEFINITIONS = {
    "sparsemax:beta=2": on_the_simplex(1, 2),
    "entmax15:beta=1.5": on_the_simplex(2, 1.5),
    "max": torch.amax,
    "avg": torch.mean,
    "soft:beta=2": lambda w: ((2 * w).softmax(0) * w).sum(),
    "lp:p=3": lambda w: (w.abs() ** 3).mean() ** (1 / 3),
    "lp:p=2.5,learn=true": lambda w: (w.abs() ** 2.5).mean() ** (1 / 2.5),
    "gem": lambda w: (w.clamp(min=1e-6) ** 3).mean() ** (1 / 3),
    "gem:p=-2": lambda w: (w.clamp(min=1e-6) ** -2).mean() ** (-1 / 2),
    "lse:r=2": lambda w: (2 * w).exp().mean().log() / 2,
    "lse:r=0.5,learn=true": lambda w: (w / 2).exp().mean().log() * 2,
    "mixed": lambda w: w.max() / 2 + w.mean() / 2,
    "mixed:random=true": lambda w: w.max() / 2 + w.mean() / 2,
    "stochastic": lambda w: (w.relu() ** 2).sum() / w.relu().sum() if w.max() > 0 else w.sum() * 0,
    "em": lambda w: (w.softmax(0) * w).sum(),
    "edscw": edscw,
    "ada": lambda w: edscw(w) / 2 + (w.softmax(0) * w).sum() / 2,
}


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=10)
@given(st.data())
def test_is_its_definition_in_every_window(name, data):
    geometry, size = data.draw(geometries(data.draw(st.integers(1, 2))))
    x = distinct(1, 2, *size, seed=data.draw(st.integers(0, 9)))
    torch.testing.assert_close(
        make(name, geometry)(x), by_windows(x, geometry, DEFINITIONS[name]), rtol=1e-6, atol=1e-7
    )


def test_lp_of_1_is_the_mean_of_magnitudes_and_of_a_large_p_their_maximum():
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(make("lp:p=1")(x), stock("avg", STEM)(x.abs()))
    torch.testing.assert_close(make("lp:p=2000")(x), stock("max", STEM)(x.abs()), rtol=2e-3, atol=0)


@pytest.mark.parametrize(("p", "learn"), [(0.5, False), (1, True), ("inf", False)])
def test_lp_refuses_what_is_no_norm(p, learn):
    with pytest.raises(InputError, match="p must be finite and"):
        make(f"lp:p={p},learn={learn}")


def test_lp_learns_p():
    module, x = make("lp:p=3,learn=true"), distinct(2, 2, 7, 7)
    assert module.exponent(torch.float64).item() == pytest.approx(3)
    module(x).sum().backward()
    assert module.raw_p.grad.abs() > 1e-3
    assert make("lp:p=500,learn=true").exponent(torch.float64).item() == pytest.approx(500)


def test_gem_of_1_is_the_average_of_clamped_values_and_of_a_large_p_their_maximum():
    x = distinct(2, 2, 7, 7)
    clamped = x.clamp(min=1e-6)
    torch.testing.assert_close(make("gem:p=1")(x), stock("avg", STEM)(clamped))
    torch.testing.assert_close(make("gem:p=3000")(x), stock("max", STEM)(clamped), rtol=1e-3, atol=0)
    torch.testing.assert_close(make("gem:p=1e-9")(x), make("gem:p=1e-4")(x))  # at 0 it would be the geometric mean


def test_gem_refuses_0():
    with pytest.raises(InputError, match="p must not be 0"):
        make("gem:p=0")


@pytest.mark.parametrize("p", [1e-30, 1e-3, 1, 3, 1e3, 1e6, 1e30, -1e-3, -3, -1e3])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e30, 1e35])
def test_gem_is_finite_for_every_p_and_every_x(p, scale):
    module = make(f"gem:p={p}").float()
    x = (distinct(1, 2, 7, 7, dtype=torch.float32) / 2 * scale).requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert module.p.grad.isfinite().all()
    clamped = x.detach().clamp(min=1e-6)
    assert (y <= stock("max", STEM)(clamped) * 1.0001).all()


def test_gem_of_a_learnt_p_passes_through_0():
    module, x = make("gem"), distinct(2, 2, 7, 7).abs()
    with torch.no_grad():
        module.p.zero_()
    module(x).sum().backward()
    assert module.p.grad > 1e-3  # the geometric mean is no dead point


def test_lse_of_a_small_r_is_the_average_and_of_a_large_r_the_maximum():
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(make("lse:r=1e-6")(x), stock("avg", STEM)(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(make("lse:r=1e5")(x), stock("max", STEM)(x), rtol=0, atol=1e-4)
    assert make("lse:r=1e5").float()(x.float() * 1e38).isfinite().all()


@pytest.mark.parametrize("r", ["0", "-1", "inf"])
def test_lse_refuses_what_is_no_temperature(r):
    with pytest.raises(InputError, match="r must be positive"):
        make(f"lse:r={r}")


def test_lse_learns_its_temperature():
    module, x = make("lse:r=2,learn=true"), distinct(2, 2, 7, 7)
    module(x).sum().backward()
    assert module.log_r.grad.abs() > 1e-3


@pytest.mark.parametrize("name", ["gem", "lse:learn=true"])
def test_a_learnt_mean_starts_as_average_pooling_in_its_place(name):
    x = distinct(2, 2, 7, 7).abs()
    torch.testing.assert_close(make(name, start="avg")(x), stock("avg", STEM)(x), rtol=0.01, atol=0.01)
    assert (make(name, start="max")(x) - make(name)(x)).abs().max() == 0


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_sparse_weights_of_beta_0_are_equal_and_of_a_large_beta_one_element(name):
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(make(f"{name}:beta=0")(x), stock("avg", STEM)(x))
    y, largest = make(f"{name}:beta=1000")(x), stock("max", STEM)(x)
    torch.testing.assert_close(y, largest)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(make(f"{name}:beta=3")(x).sum(), x)
    assert (grad == 0).any()  # what has no weight has no gradient
    with torch.no_grad():
        x[0, 0, 0, 0], x[1, 1, 6, 6] = float("nan"), -float("inf")
    y = make(name)(x)
    assert y[0, 0, 0, 0].isnan()
    assert y.isnan().sum() == 1  # -inf has no weight
    (grad,) = torch.autograd.grad(y[1].sum(), x)
    assert grad[1].isfinite().all()


@pytest.mark.parametrize(("logit", "op"), [(1e4, "max"), (-1e4, "avg")])
def test_mixed_of_1_is_max_and_of_0_average(logit, op):
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(with_parameters(make("mixed"), logit=logit)(x), stock(op, STEM)(x))


def test_mixed_per_channel_mixes_each_channel_by_itself():
    module, x = make("mixed:per_channel=true"), distinct(2, 2, 7, 7)
    module.logit.data = torch.tensor([1e4, -1e4]).double()
    expected = torch.stack([stock("max", STEM)(x)[:, 0], stock("avg", STEM)(x)[:, 1]], dim=1)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("name", ["mixed:random=true", "mixed:random=true,per_channel=true"])
def test_mixed_draws_max_or_average_as_often(name):
    module, x = make(name, channels=4).train(), distinct(1, 4, 7, 7)
    maximum, mean = stock("max", STEM)(x), stock("avg", STEM)(x)
    torch.manual_seed(0)
    takes_max = torch.empty(400, 4)
    for row in takes_max:
        y = module(x)
        row[:] = torch.tensor([torch.equal(y[:, c], maximum[:, c]) for c in range(4)])
        torch.testing.assert_close(y, torch.where(row.bool().reshape(4, 1, 1), maximum, mean))
    assert 0.4 < takes_max[:, 0].mean() < 0.6
    assert bool((takes_max.amin(1) == takes_max.amax(1)).all()) == ("per_channel" not in name)


def test_the_gate_is_the_windows_inner_product_with_omega():
    geometry = Geometry.make(2, (2, 3), 1, (1, 1), ceil_mode=True)
    x = distinct(1, 2, 4, 5)
    module = make("gated:per_channel=true", geometry)
    module.omega.data = distinct(2, 2, 3, seed=1)
    framed = nn.functional.pad(x, (1, 1, 1, 1))
    inner = torch.stack(
        [(framed[..., i : i + 5, j : j + 5] * module.omega[:, i, j, None, None]) for i in range(2) for j in range(3)]
    ).sum(0)
    gate = inner.sigmoid()
    expected = gate * stock("max", geometry)(x) + (1 - gate) * stock("avg", geometry)(x)
    torch.testing.assert_close(module(x), expected)


def test_gated_with_a_large_omega_is_max_where_x_is_positive_and_average_where_not():
    module, x = with_parameters(make("gated"), omega=1e5), distinct(2, 2, 7, 7).abs()
    torch.testing.assert_close(module(x), stock("max", STEM)(x))
    torch.testing.assert_close(module(-x), stock("avg", STEM)(-x))


@pytest.mark.parametrize("window", [[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 5.0, 1.0]])
def test_stochastic_draws_in_proportion_chi_square(window):
    module = make("stochastic", Geometry.make(1, 4)).train()
    torch.manual_seed(0)
    y = module(torch.tensor(window).double().repeat(20000).reshape(1, 1, -1)).flatten()
    probability = torch.tensor(window).relu() / torch.tensor(window).relu().sum()
    seen = torch.stack([(y == v).sum() for v in window]).double()
    assert seen[probability == 0].sum() == 0
    possible = probability > 0
    expected = probability[possible] * len(y)
    statistic = float(((seen[possible] - expected) ** 2 / expected).sum())
    degrees = int(possible.sum()) - 1
    assert statistic < {1: 10.8, 2: 13.8, 3: 16.3}[degrees]  # exceeded once in a thousand


def test_stochastic_of_a_window_without_a_positive_element_is_0():
    for training in (True, False):
        assert make("stochastic").train(training)(-distinct(2, 2, 7, 7).abs()).abs().max() == 0


@pytest.mark.parametrize("grid", [2, 4])
@pytest.mark.parametrize("length", [8, 9, 11])
def test_s3_keeps_sorted_rows_of_every_cell(grid, length):
    """Of the dense maximum, here the input itself; each row's value is its number."""
    module = make(f"s3:grid={grid}", Geometry.make(2, 1, 2)).train()
    x = torch.arange(length).double().reshape(1, 1, length, 1).expand(1, 2, length, length)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        y = module(x)
        rows = y[0, 0, :, 0].int().tolist()
        assert torch.equal(y, y[:, :1, :, :1].expand_as(y))
        assert rows == sorted(set(rows))
        for first in range(0, length, grid):
            cell = range(first, min(first + grid, length))
            assert sum(row in cell for row in rows) == -(-len(cell) // 2)
        seen.add(tuple(rows[: grid // 2]))
    assert seen == set(combinations(range(grid), grid // 2))


def test_s3_in_eval_mode_is_the_mean_of_its_draws():
    module, x = make("s3", Geometry.make(1, 2, 2)), distinct(1, 2, 9)
    torch.manual_seed(0)
    mean = torch.stack([module.train()(x) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(module.eval()(x), mean, rtol=0, atol=0.08)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_dpp_is_its_definition(asymmetric):
    """Where the map is one window the blurred mean is the mean."""
    geometry, x = Geometry.make(2, 3), distinct(1, 2, 3, 3)
    module = with_parameters(make(f"dpp:asymmetric={asymmetric}", geometry), log_alpha=-0.5, log_lambda=0.3)
    window = x.flatten(2)
    distance = window - window.mean(-1, keepdim=True)
    distance = distance.clamp(min=0) if asymmetric else distance
    weight = torch.tensor(-0.5).exp() + (distance**2 + 1e-6).sqrt() ** torch.tensor(0.3).double().exp()
    expected = (weight * window).sum(-1) / weight.sum(-1)
    torch.testing.assert_close(module(x).flatten(), expected.flatten(), rtol=1e-6, atol=0)


def test_dpps_mean_is_blurred_over_the_neighbouring_windows():
    """With a large lambda the element farthest from the blurred mean wins, not the one farthest from its window's."""
    module = with_parameters(make("dpp", Geometry.make(1, 2)), log_alpha=-20, log_lambda=4)
    x = torch.tensor([0.0, 0.0, 1.0, 3.0, 8.0, 8.0]).double().expand(1, 2, 6)  # means 0 2 8, blurred in the middle: 3
    assert module(x)[0, 0, 1].item() == pytest.approx(1)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_dpp_without_lambda_is_average_pooling(asymmetric):
    module, x = with_parameters(make(f"dpp:asymmetric={asymmetric}"), log_lambda=-40), distinct(2, 2, 7, 7)
    torch.testing.assert_close(module(x), stock("avg", STEM)(x))


def test_lip_without_a_convolution_is_average_pooling():
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(make("lip")(x), stock("avg", STEM)(x))


def test_lip_is_its_definition():
    module, x = make("lip"), distinct(2, 2, 7, 7)
    nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    norm = nn.InstanceNorm2d(2, affine=True).double()
    gate = 12 * norm(nn.functional.conv2d(x, module.weight, padding=1)).sigmoid()
    pool = nn.AvgPool2d(3, 2, 1)
    torch.testing.assert_close(module(x), pool(x * gate.exp()) / pool(gate.exp()))


@pytest.mark.parametrize(("beta", "op"), [(0, "avg"), (1e4, "max")])
def test_soft_of_0_is_average_pooling_and_of_a_large_beta_max(beta, op):
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(make(f"soft:beta={beta}")(x), stock(op, STEM)(x))


@pytest.mark.parametrize(("logit", "name"), [(1e4, "edscw"), (-1e4, "em")])
def test_ada_of_1_is_edscw_and_of_0_em(logit, name):
    x = distinct(2, 2, 7, 7)
    torch.testing.assert_close(with_parameters(make("ada"), logit=logit)(x), make(name)(x))


def test_edscw_of_zeros_is_0_with_a_gradient():
    x = torch.zeros(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    y = make("edscw")(x)
    y.sum().backward()
    assert y.abs().max() == 0
    assert x.grad.isfinite().all()


def test_blur_is_the_dense_maximum_under_a_binomial_filter():
    x = distinct(1, 2, 9, 9)
    module = make("blur", Geometry.make(2, 3, 2, 1))
    row = torch.tensor([1.0, 2.0, 1.0]).double() / 4
    torch.testing.assert_close(module.kernel, row[:, None] * row)
    dense = nn.functional.max_pool2d(x, 3, 1, 1)
    weight = module.kernel.expand(2, 1, 3, 3)
    expected = nn.functional.conv2d(dense, weight, stride=2, padding=1, groups=2)
    torch.testing.assert_close(module(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    weighed = nn.functional.conv2d(torch.ones_like(dense), weight, stride=2, padding=1, groups=2)
    torch.testing.assert_close(module(x), expected / weighed)


@settings(max_examples=20)
@given(st.data())
def test_the_dense_map_holds_every_window_at_its_stride(data):
    """In every geometry: what blur filters, and s3 and aps choose from."""
    geometry, size = data.draw(geometries(data.draw(st.integers(1, 3))))
    x = distinct(1, 2, *size)
    every = (..., *(slice(None, None, s) for s in geometry.stride))
    expected = make("max", geometry)(x)
    assert torch.equal(dense_pool(x, geometry, "max")[every], expected)
    assert torch.equal(make("blur:taps=1", geometry)(x), expected)
    torch.testing.assert_close(dense_pool(x, geometry, "avg")[every], make("avg", geometry)(x))


@pytest.mark.parametrize(("taps", "row"), [(1, [1]), (5, [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16])])
def test_blurs_filter_is_binomial(taps, row):
    module = make(f"blur:taps={taps}")
    torch.testing.assert_close(module.kernel.sum(0), torch.tensor(row).double())


def test_blur_with_one_tap_is_max_pooling():
    x = distinct(2, 2, 7, 8)
    torch.testing.assert_close(make("blur:taps=1")(x), stock("max", STEM)(x))


def test_blur_for_an_average_pool_is_the_low_pass_alone():
    x = distinct(2, 2, 8, 8)
    for module in (
        make("blur", Geometry.make(2, 2), start="avg"),
        make("blur:of=avg", Geometry.make(2, 2), start="max"),
    ):
        torch.testing.assert_close(module(x), nn.functional.avg_pool2d(x, 2))


@pytest.mark.parametrize("name", ["blur", "aps"])
@pytest.mark.parametrize("taps", [-1, 4, 65, 100_001, 2**70 + 1])
def test_taps_that_no_filter_has_are_refused_before_it_is_made(name, taps):
    with pytest.raises(InputError, match=f"taps must be odd and at most 63, not {taps}"):
        make(f"{name}:taps={taps}")
