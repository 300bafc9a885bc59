"""`storm::SelectiveScan` as an ONNX function of standard operators: what runs where no native form is loaded."""

from __future__ import annotations

import onnx

from storm_edge.plugins.onnx_common import parse_function
from storm_edge.plugins.selective_scan.op import SCHEMA

# One body for every T: all in float32, CastLike last.
# Softplus is capped at 20 and continued by max(), linear above 20 as in Mamba: evaluators that compute exp() overflow.
# Gather puts the tokens in the order of the scan and, being its own inverse, y back in theirs: unlike Scan's directions
# and Slice with a negative step, every consumer takes it (TensorRT for RTX, onnx's own evaluator).
# SiLU is a division, because ONNX Runtime approximates Sigmoid, which leaves nothing of it below -17. Where exp()
# overflows, below -88, the gate is 0.
# The sum over the states is Mul and ReduceSum, because GPUs may round a MatMul's inputs to TF32. The states are scanned
# as (batch, state, channels): long innermost rows make the broadcasts on a CPU 1.5 times as fast.
_BODY = """
  u32 = Cast<to = 1>(u)
  delta32 = Cast<to = 1>(delta)
  B32 = Cast<to = 1>(B)
  C32 = Cast<to = 1>(C)
  z32 = Cast<to = 1>(z)

  delta_biased = Add(delta32, delta_bias)
  cap = Constant<value_float = 20.0>()
  delta_capped = Min(delta_biased, cap)
  delta_soft = Softplus(delta_capped)
  step = Max(delta_biased, delta_soft)
  inflow = Mul(step, u32)

  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  sizes = Shape(u)
  length = Gather<axis = 0>(sizes, one)
  forwards = Range(zero, length, one)
  last = Sub(length, one)
  backwards = Sub(last, forwards)
  difference = Sub(backwards, forwards)
  reversed = Constant<value_int: int = @reverse>()
  shift = Mul(reversed, difference)
  order = Add(forwards, shift)

  step_by_token = Transpose<perm = [1, 0, 2]>(step)
  step_in_order = Gather<axis = 0>(step_by_token, order)
  inflow_by_token = Transpose<perm = [1, 0, 2]>(inflow)
  inflow_in_order = Gather<axis = 0>(inflow_by_token, order)
  B_by_token = Transpose<perm = [1, 0, 2]>(B32)
  B_in_order = Gather<axis = 0>(B_by_token, order)
  C_by_token = Transpose<perm = [1, 0, 2]>(C32)
  C_in_order = Gather<axis = 0>(C_by_token, order)

  A_rows = Transpose<perm = [1, 0]>(A)
  first_state = Transpose<perm = [0, 2, 1]>(initial_state)
  rows = Constant<value_ints = [1]>()
  columns = Constant<value_ints = [2]>()
  last_state, y_in_order = Scan<num_scan_inputs = 4, body = token (
    float[batch, state, channels] h_before, float[batch, channels] step_t, float[batch, channels] inflow_t,
    float[batch, state] B_t, float[batch, state] C_t
  ) => (float[batch, state, channels] h, float[batch, channels] y_t) {
    step_row = Unsqueeze(step_t, rows)
    exponent = Mul(step_row, A_rows)
    decay = Exp(exponent)
    h_kept = Mul(decay, h_before)
    inflow_row = Unsqueeze(inflow_t, rows)
    B_column = Unsqueeze(B_t, columns)
    h_added = Mul(B_column, inflow_row)
    h = Add(h_kept, h_added)
    C_column = Unsqueeze(C_t, columns)
    weighted = Mul(C_column, h)
    y_t = ReduceSum<keepdims = 0>(weighted, rows)
  }>(first_state, step_in_order, inflow_in_order, B_in_order, C_in_order)
  final_state = Transpose<perm = [0, 2, 1]>(last_state)

  y_by_token = Gather<axis = 0>(y_in_order, order)
  y_scanned = Transpose<perm = [1, 0, 2]>(y_by_token)
  skip = Mul(u32, D)
  y_whole = Add(y_scanned, skip)
  z_negative = Neg(z32)
  z_exp = Exp(z_negative)
  unit = Constant<value_float = 1.0>()
  z_divisor = Add(z_exp, unit)
  gate = Div(z32, z_divisor)
  y_gated = Mul(y_whole, gate)
  y = CastLike(y_gated, u)
"""


def selective_scan_function(opset: int = 20) -> onnx.FunctionProto:
    """The function for a model of this opset (20 or newer), for every T, shape and direction."""
    return parse_function(SCHEMA, _BODY, opset)
