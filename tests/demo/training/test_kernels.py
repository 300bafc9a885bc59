import pytest
import torch

from storm_edge.demo.training import kernels
from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d
from storm_edge.plugins.selective_scan.torch_op import selective_scan

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="needs a C++ compiler")


def _scan_inputs(batch: int, length: int, channels: int, state: int) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=make)

    rates = -torch.arange(1.0, state + 1) * (0.5 + torch.rand(channels, 1, generator=make))
    bias = -7 + 5 * torch.rand(channels, generator=make)
    tokens = (batch, length, channels)
    return [
        *(normal(*tokens), normal(*tokens), rates, normal(batch, length, state), normal(batch, length, state)),
        *(normal(channels), normal(*tokens), bias),
    ]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 3, 70])
def test_the_training_scan_equals_the_reference_operator(length: int, reverse: bool) -> None:
    inputs = _scan_inputs(3, length, 32, 5)
    inputs[1][0, 0, :4] = torch.tensor([25.0, 60.0, 300.0, -200.0])
    expected, _ = selective_scan(*inputs, torch.zeros(3, 32, 5), reverse)
    for form in (kernels.scan, kernels.scan_torch):
        torch.testing.assert_close(form(*inputs, reverse), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_its_gradients_are_those_of_the_definition_in_float64(reverse: bool) -> None:
    inputs = _scan_inputs(2, 40, 16, 4)
    weights = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(1))
    exact = [x.double().requires_grad_() for x in inputs]
    _definition(exact, reverse).mul(weights.double()).sum().backward()
    for form in (kernels.scan, kernels.scan_torch):
        leaves = [x.clone().requires_grad_() for x in inputs]
        form(*leaves, reverse).mul(weights).sum().backward()
        for ours, theirs in zip(leaves, exact, strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            scale = float(theirs.grad.abs().max())
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5 * scale)


def test_the_definition_is_the_reference_operator() -> None:
    inputs = _scan_inputs(2, 40, 16, 4)
    expected, _ = selective_scan(*inputs, torch.zeros(2, 16, 4), True)
    torch.testing.assert_close(_definition([x.double() for x in inputs], True).float(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 20])
def test_the_training_convolution_equals_the_reference_operator_gradients_included(length: int, reverse: bool) -> None:
    make = torch.Generator().manual_seed(length)
    shapes = ((3, length, 32), (32, 4), (32,))
    inputs = [torch.randn(*shape, generator=make) for shape in shapes]
    expected, _ = causal_conv1d(*inputs, torch.zeros(3, 3, 32), reverse)
    fast = [x.clone().requires_grad_() for x in inputs]
    y = kernels.conv(*fast, reverse)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    exact = [x.double().requires_grad_() for x in inputs]
    slow = kernels.conv(*exact, reverse)  # float64 takes the PyTorch form
    torch.testing.assert_close(slow.float(), expected, rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    slow.square().sum().backward()
    for ours, theirs in zip(fast, exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)


def _definition(inputs: list[torch.Tensor], reverse: bool) -> torch.Tensor:
    u, delta, A, B, C, D, z, bias = inputs
    step = torch.nn.functional.softplus(delta + bias, threshold=20.0)
    state = torch.zeros_like(A).expand(len(u), *A.shape)
    outputs = [u[:, 0]] * u.shape[1]
    for t in reversed(range(u.shape[1])) if reverse else range(u.shape[1]):
        state = torch.exp(step[:, t, :, None] * A) * state + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
        outputs[t] = (state * C[:, t, None]).sum(-1) + D * u[:, t]
    return torch.stack(outputs, 1) * torch.nn.functional.silu(z)
