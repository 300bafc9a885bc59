// storm::SelectiveScan on the CPU.
#pragma once

#include <cstdint>

#include "cpu/element.h"
#include "cpu/parallel.h"

namespace storm::cpu {

struct Kernels;

// All arrays are contiguous, in the order of their shapes; T is `type`.
struct SelectiveScan {
  Type type;
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t state;  // 1 to 256
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

// How the work is cut. Channels never share arithmetic, so `channels` changes no result; `chunk_length` does (rounding).
struct ScanPlan {
  int64_t channels;      // channels of one piece
  int64_t chunk_length;  // tokens of one piece
};

// Cuts channels only as long as these keep all threads busy: chunks of the sequence cost every exponential twice.
ScanPlan plan_selective_scan(const SelectiveScan& scan, int threads);

// Computes y and final_state. Throws std::invalid_argument for sizes it does not take and std::bad_alloc.
// The result is the same bit for bit whatever the threads do, and for any number of them that leads to the same plan.
void selective_scan(const SelectiveScan& scan, const Parallel& parallel);
void selective_scan(const SelectiveScan& scan, const Parallel& parallel, const ScanPlan& plan, const Kernels& kernels);

}  // namespace storm::cpu
