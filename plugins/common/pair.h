// Two neighbouring channels of one token: what a lane of the CUDA kernels loads, computes with and stores.
//
// T is float, and for CUDA compilers also __half and __nv_bfloat16; the arithmetic is float32 whatever T is.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <initializer_list>
#include <type_traits>

#include "common/math.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace storm {

struct alignas(8) Pair {
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

// A pair as it lies in memory, moved at once. It is loaded apart from being unpacked, so that many loads are on their way
// before the first is waited for. Two halves are one word: in registers of their own they would be moved about.
struct alignas(8) FloatPair {
  float first, second;
};
template <class T>
struct HalfPair {
  uint32_t bits;
};
template <class T>
using Packed = std::conditional_t<sizeof(T) == 2, HalfPair<T>, FloatPair>;

STORM_HD Pair unpack(Pair pair) { return pair; }
STORM_HD Pair unpack(FloatPair pair) { return {pair.first, pair.second}; }
template <class T>
STORM_HD Packed<T> pack(Pair pair) {
  return {pair.first, pair.second};
}

#if defined(__CUDACC__)
STORM_HD float to_float(__half value) { return __half2float(value); }
STORM_HD float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
STORM_HD void from_float(float value, __half* to) { *to = __float2half_rn(value); }
STORM_HD void from_float(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

__device__ __forceinline__ Pair unpack(HalfPair<__half> pair) {
  const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&pair.bits));
  return {both.x, both.y};
}
__device__ __forceinline__ Pair unpack(HalfPair<__nv_bfloat16> pair) {
  return {__uint_as_float(pair.bits << 16), __uint_as_float(pair.bits & 0xffff0000u)};
}
template <>
__device__ __forceinline__ HalfPair<__half> pack<__half>(Pair pair) {
  const __half2 both = __floats2half2_rn(pair.first, pair.second);
  return {*reinterpret_cast<const uint32_t*>(&both)};
}
template <>
__device__ __forceinline__ HalfPair<__nv_bfloat16> pack<__nv_bfloat16>(Pair pair) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(pair.first, pair.second);
  return {*reinterpret_cast<const uint32_t*>(&both)};
}
#endif

template <class T>
STORM_HD const Packed<T>* packed_at(const T* pair) {
  return reinterpret_cast<const Packed<T>*>(pair);
}
template <class T>
STORM_HD Packed<T>* packed_at(T* pair) {
  return reinterpret_cast<Packed<T>*>(pair);
}

// How many of a lane's two channels exist.
STORM_HD int pair_count(int64_t channel, int64_t channels) {
  const int64_t left = channels - channel;
  return left >= 2 ? 2 : left > 0 ? static_cast<int>(left) : 0;
}

// One at a time; missing channels read as 0.
template <class T>
STORM_HD Pair load_pair(const T* from, int count) {
  return {count > 0 ? to_float(from[0]) : 0.0f, count > 1 ? to_float(from[1]) : 0.0f};
}

template <class T>
STORM_HD void store_pair(Pair value, T* to, int count) {
  if (count > 0) from_float(value.first, to);
  if (count > 1) from_float(value.second, to + 1);
}

// Whether all of these addresses are multiples of so many bytes.
inline bool are_aligned(size_t bytes, std::initializer_list<const void*> addresses) {
  for (const void* address : addresses) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) return false;
  }
  return true;
}

}  // namespace storm
