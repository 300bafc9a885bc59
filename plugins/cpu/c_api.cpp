// The CPU kernels for callers without C++: libstorm_cpu.so, which storm_edge.plugins.cpu_kernels loads.
//
// `type` is 0 for float32, 1 for float16, 2 for bfloat16; arrays are those of SelectiveScan and CausalConv1d, contiguous.
// The kernels return 0, or 1 after writing why into `error`. They start `threads` threads for the time of the call.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "cpu/kernels.h"
#include "selective_scan/cpu/selective_scan.h"

#define STORM_EXPORT __attribute__((visibility("default")))

namespace {

template <typename Call>
int guarded(char* error, size_t error_size, Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return 1;
  }
}

}  // namespace

extern "C" {

STORM_EXPORT int storm_selective_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                      int reverse, const void* u, const void* delta, const void* A, const void* B,
                                      const void* C, const void* D, const void* z, const void* delta_bias,
                                      const void* initial_state, void* y, void* final_state, int threads, char* error,
                                      size_t error_size) {
  return guarded(error, error_size, [&] {
    storm::cpu::selective_scan(
        {static_cast<storm::Type>(type), batch, length, channels, state, reverse != 0, u, delta,
         static_cast<const float*>(A), B, C, static_cast<const float*>(D), z, static_cast<const float*>(delta_bias),
         static_cast<const float*>(initial_state), y, static_cast<float*>(final_state)},
        storm::cpu::own_threads(threads));
  });
}

STORM_EXPORT int storm_causal_conv1d(int type, int64_t batch, int64_t length, int64_t channels, int64_t width,
                                     int reverse, const void* x, const void* weight, const void* bias,
                                     const void* initial_state, void* y, void* final_state, int threads, char* error,
                                     size_t error_size) {
  return guarded(error, error_size, [&] {
    storm::cpu::causal_conv1d({static_cast<storm::Type>(type), batch, length, channels, width, reverse != 0, x, weight,
                               bias, initial_state, y, final_state},
                              storm::cpu::own_threads(threads));
  });
}

// The name of the instruction set in use.
STORM_EXPORT const char* storm_instruction_set() { return storm::cpu::best_kernels().name; }

// The exponentials a second that one thread computes with it when it does nothing else: what measurements are compared
// with.
STORM_EXPORT double storm_exponentials_per_second() {
  std::vector<float> exponents(4096);  // fits the first-level cache
  for (size_t i = 0; i < exponents.size(); ++i) exponents[i] = -20.0f * static_cast<float>(i) / 4096.0f;
  constexpr int64_t rounds = 2000;
  double best = 0.0;
  volatile float sink = 0.0f;  // or the compiler drops the work
  for (int repetition = 0; repetition < 9; ++repetition) {
    const auto begin = std::chrono::steady_clock::now();
    sink = storm::cpu::best_kernels().exp2_pace(exponents.data(), 4096, rounds);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 4096.0 * rounds / seconds.count());
  }
  static_cast<void>(sink);
  return best;
}

}  // extern "C"
