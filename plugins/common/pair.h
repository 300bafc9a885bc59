// Two neighbouring channels of one token: what a lane of the CUDA kernels loads, computes with and stores.
//
// T is float, and for CUDA compilers also __half and __nv_bfloat16; the arithmetic is float32 whatever T is.
#pragma once

#include <stdint.h>

#include "common/math.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace storm {

struct Pair {
  float first;
  float second;
};

STORM_HD Pair operator*(Pair a, Pair b) { return {a.first * b.first, a.second * b.second}; }
STORM_HD Pair operator+(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }
STORM_HD Pair operator*(Pair a, float b) { return {a.first * b, a.second * b}; }
STORM_HD Pair multiply_add(Pair a, Pair b, Pair c) {
  return {::fmaf(a.first, b.first, c.first), ::fmaf(a.second, b.second, c.second)};
}
STORM_HD Pair multiply_add(Pair a, float b, Pair c) {
  return {::fmaf(a.first, b, c.first), ::fmaf(a.second, b, c.second)};
}

STORM_HD float to_float(float value) { return value; }
STORM_HD void from_float(float value, float* to) { *to = value; }

struct alignas(8) FloatPair {
  float first, second;
};
STORM_HD Pair load_aligned_pair(const float* from) {
  const FloatPair both = *reinterpret_cast<const FloatPair*>(from);
  return {both.first, both.second};
}
STORM_HD void store_aligned_pair(Pair value, float* to) {
  *reinterpret_cast<FloatPair*>(to) = {value.first, value.second};
}

#if defined(__CUDACC__)
STORM_HD float to_float(__half value) { return __half2float(value); }
STORM_HD float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
STORM_HD void from_float(float value, __half* to) { *to = __float2half_rn(value); }
STORM_HD void from_float(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

STORM_HD Pair load_aligned_pair(const __half* from) {
  const float2 both = __half22float2(*reinterpret_cast<const __half2*>(from));
  return {both.x, both.y};
}
STORM_HD Pair load_aligned_pair(const __nv_bfloat16* from) {
  const float2 both = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
  return {both.x, both.y};
}
STORM_HD void store_aligned_pair(Pair value, __half* to) {
  *reinterpret_cast<__half2*>(to) = __floats2half2_rn(value.first, value.second);
}
STORM_HD void store_aligned_pair(Pair value, __nv_bfloat16* to) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(value.first, value.second);
}
#endif

// How many of a lane's two channels exist, and whether both can be moved at once: an odd number of channels, or a
// pointer that stands in the middle of a pair, leaves only one at a time.
struct PairAccess {
  int count;     // 0, 1 or 2
  bool aligned;  // only ever with count 2
};

STORM_HD PairAccess pair_access(int64_t channel, int64_t channels, bool aligned) {
  const int64_t left = channels - channel;
  const int count = left >= 2 ? 2 : left > 0 ? static_cast<int>(left) : 0;
  return {count, aligned && count == 2};
}

// Missing channels read as 0.
template <class T>
STORM_HD Pair load_pair(const T* from, PairAccess access) {
  if (access.aligned) return load_aligned_pair(from);
  Pair value = {0.0f, 0.0f};
  if (access.count > 0) value.first = to_float(from[0]);
  if (access.count > 1) value.second = to_float(from[1]);
  return value;
}

template <class T>
STORM_HD void store_pair(Pair value, T* to, PairAccess access) {
  if (access.aligned) {
    store_aligned_pair(value, to);
    return;
  }
  if (access.count > 0) from_float(value.first, to);
  if (access.count > 1) from_float(value.second, to + 1);
}

// Whether tensors of T with this many channels at these addresses can be moved in aligned pairs.
template <class T>
inline bool pairs_are_aligned(int64_t channels, const void* const* tensors, int count) {
  if (channels % 2 != 0) return false;
  for (int i = 0; i < count; ++i) {
    if (reinterpret_cast<uintptr_t>(tensors[i]) % (2 * sizeof(T)) != 0) return false;
  }
  return true;
}

}  // namespace storm
