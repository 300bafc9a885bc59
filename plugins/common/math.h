// The arithmetic of the operators for host and device: what every kernel computes, however it is vectorised. F is float
// or a vector of floats that brings `fused` and `exp2_approx` along. All in float32.
#pragma once

#include <math.h>

// Not inline on the host: every file keeps its own copy, so that none compiled for a newer processor is shared.
#if defined(__CUDACC__)
#define STORM_HD __host__ __device__ __forceinline__
#else
#define STORM_HD [[maybe_unused]] static inline
#endif

namespace storm {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kSoftplusLinearAbove = 20.0f;

// a * b + c, rounded once.
STORM_HD float fused(float a, float b, float c) { return ::fmaf(a, b, c); }

// 2^x. On the device the special function unit's own exponential (relative error 2^-22, denormals become 0).
STORM_HD float exp2_approx(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return ::exp2f(x);
#endif
}

STORM_HD float exp_approx(float x) { return exp2_approx(x * kLog2e); }

// log(1 + exp(x)), linear above 20 as Mamba has it; relative precision is kept where the result is small.
STORM_HD float softplus(float x) { return x > kSoftplusLinearAbove ? x : ::log1pf(exp_approx(x)); }

STORM_HD float silu(float x) { return x / (1.0f + exp_approx(-x)); }

// What is left of a state after steps that add up to `step_sum`; A2 is A * log2(e). The product of the decays of many
// tokens is the decay of the sum of their steps: a chunk needs one exponential a state for it, not one a token.
template <typename F>
STORM_HD F decay(F step_sum, F A2) {
  return exp2_approx(step_sum * A2);
}

// The state after a token: decay * h + (step * u) * B.
template <typename F>
STORM_HD F advance(F h, F decay, F inflow, F B) {
  return fused(decay, h, inflow * B);
}

// y = (<C, h> + D * u) * silu(z)
template <typename F>
STORM_HD F gate(F Ch, F D, F u, F z) {
  return fused(D, u, Ch) * silu(z);
}

}  // namespace storm
