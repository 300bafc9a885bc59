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

// On the device the special function unit's own reciprocal (within 1 ulp; denormals become 0).
STORM_HD float reciprocal_approx(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// softplus(x) = max(x, 0) + log1p(exp(-|x|)), whose argument is at most 1: there log1p(e) is e times a polynomial, the
// best of degree 8 in the relative error (3e-8; 1.3e-7 rounded to float32). Above 20 it is x, as Mamba defines it.
STORM_HD float fast_softplus(float x) {
  const float e = exp_approx(-::fabsf(x));
  float series = 0.0052326931f;
  series = ::fmaf(series, e, -0.0295052398f);
  series = ::fmaf(series, e, 0.0782259554f);
  series = ::fmaf(series, e, -0.1366324574f);
  series = ::fmaf(series, e, 0.1910600662f);
  series = ::fmaf(series, e, -0.2484298199f);
  series = ::fmaf(series, e, 0.3331909776f);
  series = ::fmaf(series, e, -0.4999949336f);
  series = ::fmaf(series, e, 0.9999999404f);
  return ::fmaf(series, e, ::fmaxf(x, 0.0f));
}

STORM_HD float fast_silu(float x) { return x * reciprocal_approx(1.0f + exp_approx(-x)); }

}  // namespace storm
