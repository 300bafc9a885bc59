// What every native form of storm::CausalConv1d is given, in the memory of the host or of one CUDA device.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace storm {

// All arrays are contiguous, in the order of their shapes; T is `type`.
struct CausalConv1d {
  Type type;
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t width;  // 2 or more
  bool reverse;

  const void* x;              // T[batch, length, channels]
  const void* weight;         // T[channels, width]
  const void* bias;           // T[channels]
  const void* initial_state;  // T[batch, width-1, channels]
  void* y;                    // T[batch, length, channels]
  void* final_state;          // T[batch, width-1, channels]
};

// From the inputs and outputs as arrays, in the order of op.py.
inline CausalConv1d make_causal_conv1d(Type type, int64_t batch, int64_t length, int64_t channels, int64_t width,
                                       bool reverse, const void* const* inputs, void* const* outputs) {
  return {type,      batch,     length,    channels,  width,      reverse,
          inputs[0], inputs[1], inputs[2], inputs[3], outputs[0], outputs[1]};
}

}  // namespace storm
