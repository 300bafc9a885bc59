// The CUDA kernels on host arrays, for tests: copies to the device, launches, copies back.
#pragma once

#include <cstdint>

extern "C" {

// How many CUDA devices there are; 0 without a driver.
int storm_cuda_devices();

// Type as in common/element.h: 0 float32, 1 float16, 2 bfloat16. Pointers are host arrays in the order of the operator's
// inputs. Returns null, or the name of the CUDA error.
const char* storm_cuda_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse,
                            const void* const* inputs, void* y, void* final_state);
const char* storm_cuda_conv(int type, int64_t batch, int64_t length, int64_t channels, int64_t width, int reverse,
                            const void* const* inputs, void* y, void* final_state);

// Seconds of one launch on device arrays that hold zeros, the mean of `repeats` after one to warm up; below 0 on error.
double storm_cuda_time_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse,
                            int repeats);

// Measured: base-2 exponentials a second, and bytes a second read and written by a copy in device memory.
double storm_cuda_exponential_rate();
double storm_cuda_bandwidth();
}
