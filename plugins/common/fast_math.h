// What the CUDA kernels share: softplus and SiLU in the few instructions that a GPU has for them, with relative errors
// of some 1e-7, like math.h's forms; and loops that are unrolled.
#pragma once

#include "common/math.h"

// Loops whose arrays must stay in registers.
#if defined(__CUDACC__)
#define STORM_PRAGMA(text) _Pragma(#text)
#define STORM_UNROLL _Pragma("unroll")
#define STORM_UNROLL_BY(count) STORM_PRAGMA(unroll(count))
#else
#define STORM_UNROLL
#define STORM_UNROLL_BY(count)
#endif

namespace storm {

// On the device within 2 ulp, and 0 for divisors above 2^126.
STORM_HD float fast_divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// softplus(x) = max(x, 0) + log1p(exp(-|x|)), the logarithm as 2 artanh(e / (2 + e)): e is at most 1, so that seven
// terms are exact to float32, where log1pf takes twice the instructions. Above 20 it is x, as Mamba defines it.
STORM_HD float fast_softplus(float x) {
  const float e = exp_approx(-::fabsf(x));
  const float s = fast_divide(e, 2.0f + e), q = s * s;
  float series = 1.0f / 13.0f;
  series = ::fmaf(series, q, 1.0f / 11.0f);
  series = ::fmaf(series, q, 1.0f / 9.0f);
  series = ::fmaf(series, q, 1.0f / 7.0f);
  series = ::fmaf(series, q, 1.0f / 5.0f);
  series = ::fmaf(series, q, 1.0f / 3.0f);
  series = ::fmaf(series, q, 1.0f);
  return ::fmaf(2.0f * s, series, ::fmaxf(x, 0.0f));
}

STORM_HD float fast_silu(float x) { return fast_divide(x, 1.0f + exp_approx(-x)); }

}  // namespace storm
