// storm::CausalConv1d on a CUDA device: raw pointers and a stream, nothing of TensorRT or ONNX Runtime.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cpu/element.h"

namespace storm::cuda {

// All arrays are contiguous, in device memory, in the order of their shapes; T is `type`.
struct CausalConv1d {
  Type type;
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t width;  // 2 or more; 2, 3 and 4 have kernels of their own
  bool reverse;

  const void* x;              // T[batch, length, channels]
  const void* weight;         // T[channels, width]
  const void* bias;           // T[channels]
  const void* initial_state;  // T[batch, width-1, channels]
  void* y;                    // T[batch, length, channels]
  void* final_state;          // T[batch, width-1, channels]
};

// Enqueues the convolution on `stream`; needs no workspace; outputs may not overlap inputs.
// Returns cudaErrorInvalidValue for sizes it does not take, or what the launch returned.
cudaError_t causal_conv1d(const CausalConv1d& conv, cudaStream_t stream);

}  // namespace storm::cuda
