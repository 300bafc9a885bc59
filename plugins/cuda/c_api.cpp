// The CUDA kernels for callers without C++: libstorm_cuda.so, which storm_edge.plugins.cuda_kernels loads.
//
// `type` is 0 for float32, 1 for float16, 2 for bfloat16; arrays are those of SelectiveScan and CausalConv1d, contiguous,
// in the memory of the current device. Kernels are enqueued on `stream`, a cudaStream_t. The functions return null, or
// the name of a CUDA error: cudaErrorInvalidValue for a size, type, direction or address that is refused before anything
// is enqueued.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "common/schemas.h"
#include "selective_scan/cuda/selective_scan.h"

#define STORM_EXPORT __attribute__((visibility("default")))

namespace {

const char* name_of(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorName(error); }

bool is_call(int type, int reverse, std::initializer_list<const void*> arrays) {
  return type >= 0 && type <= 2 && (reverse == 0 || reverse == 1) &&
         std::find(arrays.begin(), arrays.end(), nullptr) == arrays.end();
}

}  // namespace

extern "C" {

STORM_EXPORT const char* storm_cuda_schemas() { return storm::schemas_text(); }

// The bytes of workspace that storm_cuda_selective_scan needs for these sizes; asks no device.
STORM_EXPORT size_t storm_cuda_selective_scan_workspace(int64_t batch, int64_t length, int64_t channels,
                                                        int64_t state) {
  return storm::cuda::selective_scan_workspace(batch, length, channels, state);
}

STORM_EXPORT const char* storm_cuda_selective_scan(int type, int64_t batch, int64_t length, int64_t channels,
                                                   int64_t state, int reverse, const void* u, const void* delta,
                                                   const void* A, const void* B, const void* C, const void* D,
                                                   const void* z, const void* delta_bias, const void* initial_state,
                                                   void* y, void* final_state, void* workspace, void* stream) {
  if (!is_call(type, reverse, {u, delta, A, B, C, D, z, delta_bias, initial_state, y, final_state})) {
    return name_of(cudaErrorInvalidValue);
  }
  return name_of(storm::cuda::selective_scan(
      {static_cast<storm::Type>(type), batch, length, channels, state, reverse != 0, u, delta,
       static_cast<const float*>(A), B, C, static_cast<const float*>(D), z, static_cast<const float*>(delta_bias),
       static_cast<const float*>(initial_state), y, static_cast<float*>(final_state)},
      workspace, static_cast<cudaStream_t>(stream)));
}

STORM_EXPORT const char* storm_cuda_causal_conv1d(int type, int64_t batch, int64_t length, int64_t channels,
                                                  int64_t width, int reverse, const void* x, const void* weight,
                                                  const void* bias, const void* initial_state, void* y,
                                                  void* final_state, void* stream) {
  if (!is_call(type, reverse, {x, weight, bias, initial_state, y, final_state})) {
    return name_of(cudaErrorInvalidValue);
  }
  return name_of(storm::cuda::causal_conv1d({static_cast<storm::Type>(type), batch, length, channels, width,
                                             reverse != 0, x, weight, bias, initial_state, y, final_state},
                                            static_cast<cudaStream_t>(stream)));
}

}  // extern "C"
