// storm::CausalConv1d on the CPU.
#pragma once

#include <cstdint>

#include "causal_conv1d/arguments.h"
#include "cpu/parallel.h"

namespace storm::cpu {

struct Kernels;

constexpr int64_t kMaximumWidth = 256;

// Computes y and final_state. Throws std::invalid_argument for sizes it does not take.
// The result is the same bit for bit for any number of threads.
void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel);
void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel, const Kernels& kernels);

}  // namespace storm::cpu
