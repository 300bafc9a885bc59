// The CUDA kernels for callers without C++: libstorm_cuda.so, which storm_edge.plugins.cuda_kernels loads.
//
// `type` is 0 for float32, 1 for float16, 2 for bfloat16; arrays are those of SelectiveScan and CausalConv1d, contiguous,
// in the memory of the current device. Kernels are enqueued on `stream`, a cudaStream_t. The functions return null, or
// the name of a CUDA error.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// The bytes of workspace that storm_cuda_selective_scan needs for these sizes; asks no device.
size_t storm_cuda_selective_scan_workspace(int64_t batch, int64_t length, int64_t channels, int64_t state);

const char* storm_cuda_selective_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                      int reverse, const void* u, const void* delta, const void* A, const void* B,
                                      const void* C, const void* D, const void* z, const void* delta_bias,
                                      const void* initial_state, void* y, void* final_state, void* workspace,
                                      void* stream);

const char* storm_cuda_causal_conv1d(int type, int64_t batch, int64_t length, int64_t channels, int64_t width,
                                     int reverse, const void* x, const void* weight, const void* bias,
                                     const void* initial_state, void* y, void* final_state, void* stream);

}  // extern "C"
