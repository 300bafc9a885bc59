// storm::CausalConv1d on the CPU.
#pragma once

#include <cstdint>

#include "cpu/element.h"
#include "cpu/parallel.h"

namespace storm::cpu {

struct Kernels;

// All arrays are contiguous, in the order of their shapes; T is `type`.
struct CausalConv1d {
  Type type;
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t width;  // 2 to 256
  bool reverse;

  const void* x;              // T[batch, length, channels]
  const void* weight;         // T[channels, width]
  const void* bias;           // T[channels]
  const void* initial_state;  // T[batch, width-1, channels]
  void* y;                    // T[batch, length, channels]
  void* final_state;          // T[batch, width-1, channels]
};

constexpr int64_t kMaximumWidth = 256;

// Computes y and final_state. Throws std::invalid_argument for sizes it does not take.
// The result is the same bit for bit for any number of threads.
void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel);
void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel, const Kernels& kernels);

}  // namespace storm::cpu
