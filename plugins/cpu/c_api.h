// The CPU kernels for callers without C++: libstorm_cpu.so, which storm_edge.plugins.cpu_kernels loads.
//
// `type` is 0 for float32, 1 for float16, 2 for bfloat16; arrays are those of SelectiveScan and CausalConv1d, contiguous.
// They return 0, or 1 after writing why into `error`. They start `threads` threads for the time of the call.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

int storm_selective_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse,
                         const void* u, const void* delta, const void* A, const void* B, const void* C, const void* D,
                         const void* z, const void* delta_bias, const void* initial_state, void* y, void* final_state,
                         int threads, char* error, size_t error_size);

int storm_causal_conv1d(int type, int64_t batch, int64_t length, int64_t channels, int64_t width, int reverse,
                        const void* x, const void* weight, const void* bias, const void* initial_state, void* y,
                        void* final_state, int threads, char* error, size_t error_size);

// The name of the instruction set in use, and the exponentials a second that one thread computes with it when it does
// nothing else: what measurements are compared with.
const char* storm_instruction_set();
double storm_exponentials_per_second();

}  // extern "C"
