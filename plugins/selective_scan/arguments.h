// What every native form of storm::SelectiveScan is given, in the memory of the host or of one CUDA device.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace storm {

// All arrays are contiguous, in the order of their shapes; T is `type`.
struct SelectiveScan {
  Type type;
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t state;  // 1 to kMaximumState
  bool reverse;

  const void* u;               // T[batch, length, channels]
  const void* delta;           // T[batch, length, channels]
  const float* A;              // [channels, state]
  const void* B;               // T[batch, length, state]
  const void* C;               // T[batch, length, state]
  const float* D;              // [channels]
  const void* z;               // T[batch, length, channels]
  const float* delta_bias;     // [channels]
  const float* initial_state;  // [batch, channels, state]
  void* y;                     // T[batch, length, channels]
  float* final_state;          // [batch, channels, state]
};

constexpr int64_t kMaximumState = 256;

// From the inputs and outputs as arrays, in the order of op.py.
inline SelectiveScan make_selective_scan(Type type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                         bool reverse, const void* const* inputs, void* const* outputs) {
  const auto floats = [](const void* array) { return static_cast<const float*>(array); };
  return {type,
          batch,
          length,
          channels,
          state,
          reverse,
          inputs[0],
          inputs[1],
          floats(inputs[2]),
          inputs[3],
          inputs[4],
          floats(inputs[5]),
          inputs[6],
          floats(inputs[7]),
          floats(inputs[8]),
          outputs[0],
          static_cast<float*>(outputs[1])};
}

}  // namespace storm
