// storm::CausalConv1d on a CUDA device: raw pointers and a stream, nothing of TensorRT or ONNX Runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "causal_conv1d/arguments.h"

namespace storm::cuda {

// Why a launch of this size is refused, in one line; empty if it is not. Asks no device.
std::string causal_conv1d_refusal(int64_t batch, int64_t length, int64_t channels, int64_t width);

// Enqueues the convolution on `stream`; arrays are in device memory; needs no workspace; outputs may not overlap inputs.
// Returns cudaErrorInvalidValue for sizes it does not take, or what the launch returned.
cudaError_t causal_conv1d(const CausalConv1d& conv, cudaStream_t stream);

}  // namespace storm::cuda
