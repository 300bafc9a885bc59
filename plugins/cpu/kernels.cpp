// All kernels in the vectors of one instruction set. Compiled once for each, with that one's compiler flags.
#include "cpu/kernels.h"

#include "causal_conv1d/cpu/kernel.h"
#include "selective_scan/cpu/kernel.h"

namespace storm::cpu::STORM_ISA {

template <Vector function(Vector)>
static void elementwise(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) store_some(y + i, function(load_some(x + i, count - i)), count - i);
}

template <typename From, typename To>
static void convert(const From* x, To* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) store_some(y + i, load_some(x + i, count - i), count - i);
}

static void widen(Type type, const void* x, float* y, int64_t count) {
  if (type == Type::float16) return convert(static_cast<const Half*>(x), y, count);
  if (type == Type::bfloat16) return convert(static_cast<const BFloat16*>(x), y, count);
  convert(static_cast<const float*>(x), y, count);
}

static void narrow(Type type, const float* x, void* y, int64_t count) {
  if (type == Type::float16) return convert(x, static_cast<Half*>(y), count);
  if (type == Type::bfloat16) return convert(x, static_cast<BFloat16*>(y), count);
  convert(x, static_cast<float*>(y), count);
}

static Vector softplus_of(Vector x) { return softplus(x); }
static Vector silu_of(Vector x) { return silu(x); }
static Vector exp2_of(Vector x) { return exp2_approx(x); }

static float exp2_pace(const float* b, int64_t count, int64_t rounds) {
  Wide sum(0.0f);
  for (int64_t round = 0; round < rounds; ++round) {
    const Wide a(1.0f / static_cast<float>(1 + round % 64));
    for (int64_t i = 0; i < count; i += kWideWidth) sum = sum + exp2_product(a, load_wide(b + i, count - i));
  }
  float lanes[kWidth], total = 0.0f;
  store(lanes, sum.low + sum.high);
  for (int64_t lane = 0; lane < kWidth; ++lane) total += lanes[lane];
  return total;
}

#define STORM_TEXT_OF(x) #x
#define STORM_TEXT(x) STORM_TEXT_OF(x)

extern const Kernels kernels;
const Kernels kernels{STORM_TEXT(STORM_ISA), kWidth,
                      scan_piece_of_any_type, conv_piece_of_any_type,
                      widen,                  narrow,
                      elementwise<exp2_of>,   elementwise<softplus_of>,
                      elementwise<silu_of>,   exp2_pace};

}  // namespace storm::cpu::STORM_ISA
