// The CPU kernels for callers without C++: libstorm_cpu.so, which storm_edge.plugins.cpu_kernels loads.
//
// `type` is 0 for float32, 1 for float16, 2 for bfloat16; arrays are those of SelectiveScan and CausalConv1d, contiguous.
// The kernels return 0, or 1 after writing why into `error`, which may be null where `error_size` is 0. They start
// `threads` threads for the time of the call. How long the arrays are is the caller's word.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "causal_conv1d/schema.h"
#include "common/schemas.h"
#include "cpu/kernels.h"
#include "selective_scan/cpu/selective_scan.h"
#include "selective_scan/schema.h"

#define STORM_EXPORT __attribute__((visibility("default")))

namespace {

using storm::Schema;

constexpr int kMaximumThreads = 1024;

// Whether what all kernels are given can be a call of this operator's; throws otherwise. `arrays`: inputs, then outputs.
void check_call(const Schema& schema, int type, int reverse, std::initializer_list<const void*> arrays, int threads) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(schema.qualified_name() + ": " + what);
  };
  require(type >= 0 && type <= 2, "type must be 0, 1 or 2, got " + std::to_string(type));
  require(reverse == 0 || reverse == 1, "reverse must be 0 or 1, got " + std::to_string(reverse));
  require(threads >= 1 && threads <= kMaximumThreads,
          "threads must be 1 to " + std::to_string(kMaximumThreads) + ", got " + std::to_string(threads));
  size_t index = 0;
  for (const void* array : arrays) {
    const size_t output = index - schema.inputs.size();
    const char* name = index < schema.inputs.size() ? schema.inputs[index].name : schema.outputs[output].name;
    require(array != nullptr, std::string(name) + " must have an address, got null");
    ++index;
  }
}

template <typename Call>
int guarded(char* error, size_t error_size, Call call) noexcept {
  const auto tell = [&](const char* why) {
    if (error != nullptr) std::snprintf(error, error_size, "%s", why);
    return 1;
  };
  try {
    call();
    return 0;
  } catch (const std::exception& e) {
    return tell(e.what());
  } catch (...) {
    return tell("storm: unknown error");
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
    check_call(storm::selective_scan_schema(), type, reverse,
               {u, delta, A, B, C, D, z, delta_bias, initial_state, y, final_state}, threads);
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
    check_call(storm::causal_conv1d_schema(), type, reverse, {x, weight, bias, initial_state, y, final_state}, threads);
    storm::cpu::causal_conv1d({static_cast<storm::Type>(type), batch, length, channels, width, reverse != 0, x, weight,
                               bias, initial_state, y, final_state},
                              storm::cpu::own_threads(threads));
  });
}

STORM_EXPORT const char* storm_schemas() { return storm::schemas_text(); }

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
