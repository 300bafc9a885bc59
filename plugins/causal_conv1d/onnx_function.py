"""`storm::CausalConv1d` as an ONNX function of standard operators: what runs where no native form is loaded."""

from __future__ import annotations

import onnx

from storm_edge.plugins.causal_conv1d.op import SCHEMA
from storm_edge.plugins.onnx_common import parse_function

# One body for every T: all in float32, CastLike last. The state stands on both sides of the tokens, and slices choose
# the side that the direction needs, for the taps as for the final state. SiLU is as in selective_scan's function.
_BEGIN = """
  x32 = Cast<to = 1>(x)
  weight32 = Cast<to = 1>(weight)
  state32 = Cast<to = 1>(initial_state)
  sum_0 = Cast<to = 1>(bias)

  tokens = Constant<value_ints = [1]>()
  kept = Constant<value_ints = [{kept}]>()
  reversed = Constant<value_int: int = @reverse>()
  surrounded = Concat<axis = 1>(state32, x32, state32)
  length = Shape<start = 1, end = 2>(x)
  first = Mul(kept, reversed)
"""
_TAP = """
  tap_{tap} = Constant<value_ints = [{tap}]>()
  begin_{tap} = Add(first, tap_{tap})
  end_{tap} = Add(begin_{tap}, length)
  x_{tap} = Slice(surrounded, begin_{tap}, end_{tap}, tokens)
  column_{tap} = Constant<value_int = {tap}>()
  to_mirror_{tap} = Constant<value_int = {to_mirror}>()
  shift_{tap} = Mul(to_mirror_{tap}, reversed)
  chosen_{tap} = Add(column_{tap}, shift_{tap})
  weight_{tap} = Gather<axis = 1>(weight32, chosen_{tap})
  product_{tap} = Mul(x_{tap}, weight_{tap})
  sum_{next} = Add(sum_{tap}, product_{tap})
"""
_END = """
  negative = Neg(sum_{width})
  exponential = Exp(negative)
  unit = Constant<value_float = 1.0>()
  divisor = Add(exponential, unit)
  activated = Div(sum_{width}, divisor)
  y = CastLike(activated, x)

  to_reversed = Sub(kept, length)
  state_shift = Mul(to_reversed, reversed)
  state_begin = Add(length, state_shift)
  state_end = Add(state_begin, kept)
  state_after = Slice(surrounded, state_begin, state_end, tokens)
  final_state = CastLike(state_after, x)
"""


def causal_conv1d_function(width: int, opset: int = 20) -> onnx.FunctionProto:
    """The function for convolutions of this width in a model of this opset (20 or newer).

    For every T, number of channels and direction: products of shifted tokens, because Conv would need the number of
    channels in its `group` attribute, and GPUs may round its inputs to TF32. Raises ValueError for a width below 2.
    """
    least = SCHEMA.minimum["width"]
    if width < least:
        raise ValueError(f"{SCHEMA.qualified_name}: width must be at least {least}, got {width}")
    taps = [_TAP.format(tap=tap, next=tap + 1, to_mirror=width - 1 - 2 * tap) for tap in range(width)]
    return parse_function(SCHEMA, _BEGIN.format(kept=width - 1) + "".join(taps) + _END.format(width=width), opset)
