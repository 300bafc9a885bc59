"""The operators in a module that torch.onnx.export traces, run by ONNX Runtime with the functions attached."""

import numpy as np
import pytest
import torch

from storm_edge.plugins.causal_conv1d.onnx_function import causal_conv1d_function
from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d
from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.plugins.selective_scan.torch_op import selective_scan

CHANNELS, STATE, WIDTH = 6, 4, 4


class BothDirections(torch.nn.Module):
    """Convolution, scan and gate, forwards and backwards with weights of their own, summed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(2, CHANNELS, WIDTH))
        self.bias = torch.nn.Parameter(torch.randn(2, CHANNELS))
        self.matrices = torch.nn.Linear(CHANNELS, 2 * STATE)
        self.A_log = torch.nn.Parameter(torch.randn(2, CHANNELS, STATE))
        self.D = torch.nn.Parameter(torch.randn(2, CHANNELS))
        self.delta_bias = torch.nn.Parameter(torch.randn(2, CHANNELS) - 4)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = tokens.shape[0]
        results = []
        for direction in range(2):
            before = tokens.new_zeros(batch, WIDTH - 1, CHANNELS)
            x, _ = causal_conv1d(tokens, self.weight[direction], self.bias[direction], before, bool(direction))
            B, C = self.matrices(x).split(STATE, dim=-1)  # (batch, length, state)
            results.append(
                selective_scan(
                    x,
                    0.5 * x,
                    -self.A_log[direction].float().exp(),
                    B,
                    C,
                    self.D[direction].float(),
                    tokens,
                    self.delta_bias[direction].float(),
                    tokens.new_zeros((batch, CHANNELS, STATE), dtype=torch.float32),
                    reverse=bool(direction),
                )
            )
        (forwards, after_forwards), (backwards, after_backwards) = results
        return forwards + backwards, after_forwards, after_backwards


@pytest.mark.parametrize(("opset", "dtype"), [(20, torch.float32), (24, torch.float16)])
def test_an_exported_module_has_one_node_a_call_and_computes_the_same(opset, dtype, run_onnxruntime, assert_close):
    module = BothDirections().to(dtype).eval()
    program = torch.onnx.export(
        module,
        (torch.randn(1, 12, CHANNELS, dtype=dtype),),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes={"tokens": {1: torch.export.Dim("length")}},
        verbose=False,
    )
    model = program.model_proto
    nodes = [node for node in model.graph.node if node.domain == "storm"]
    assert [node.op_type for node in nodes] == ["CausalConv1d", "SelectiveScan"] * 2
    for node, reverse in zip(nodes, (0, 0, 1, 1), strict=True):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        assert attributes.keys() == {"reverse", "plugin_version", "plugin_namespace"}
        assert attributes["reverse"].i == reverse
        assert (attributes["plugin_version"].s, attributes["plugin_namespace"].s) == (b"1", b"storm")
    assert {i.domain: i.version for i in model.opset_import} == {"": opset, "storm": 1}
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_param == "length"

    model.functions.extend([selective_scan_function(opset), causal_conv1d_function(WIDTH, opset)])
    for length in (1, 37):
        tokens = torch.randn(1, length, CHANNELS, dtype=dtype)
        with torch.no_grad():
            expected = module(tokens)
        results = run_onnxruntime(model, {model.graph.input[0].name: tokens.numpy()})
        for got, reference in zip(results, expected, strict=True):
            assert_close(got, reference.numpy().astype(np.float64), str(dtype).removeprefix("torch."))
