// storm::SelectiveScan on a CUDA device: raw pointers and a stream, nothing of TensorRT or ONNX Runtime.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/element.h"

namespace storm::cuda {

// All arrays are contiguous, in device memory, in the order of their shapes; T is `type`.
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

// The bytes of workspace that a launch of this size needs, or any with a smaller batch or length. Asks no device.
size_t selective_scan_workspace(int64_t batch, int64_t length, int64_t channels, int64_t state);

// Enqueues the scan on `stream`; y and final_state may not overlap the inputs, except that y may be u, delta or z.
// `workspace` has as many bytes as selective_scan_workspace says, aligned to 256, and is used by one launch at a time.
// Returns cudaErrorInvalidValue for sizes it does not take, or what the launch returned.
cudaError_t selective_scan(const SelectiveScan& scan, void* workspace, cudaStream_t stream);

}  // namespace storm::cuda
