// storm::SelectiveScan on a CUDA device: raw pointers and a stream, nothing of TensorRT or ONNX Runtime.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include <string>

#include "selective_scan/arguments.h"

namespace storm::cuda {

// Why a launch of this size is refused, in one line; empty if it is not. Asks no device.
std::string selective_scan_refusal(int64_t batch, int64_t length, int64_t channels, int64_t state);

// The bytes of workspace that a launch of this size needs, or any with a smaller batch or length; 0 for a size that is
// refused. Asks no device.
size_t selective_scan_workspace(int64_t batch, int64_t length, int64_t channels, int64_t state);

// Enqueues the scan on `stream`; y and final_state may not overlap the inputs, except that y may be u, delta or z.
// `workspace` has as many bytes as selective_scan_workspace says, aligned to 256, and is used by one launch at a time.
// Returns cudaErrorInvalidValue for sizes it does not take, or what the launch returned.
cudaError_t selective_scan(const SelectiveScan& scan, void* workspace, cudaStream_t stream);

}  // namespace storm::cuda
