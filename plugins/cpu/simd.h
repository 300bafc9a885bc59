// One vector of floats, as wide as the instruction set this file is compiled for, with the operations the kernels need.
//
// Everything lies in a namespace named after the instruction set, so that the linker never mixes functions compiled for
// different processors. GCC's and Clang's vector types give the operators; intrinsics stand only where those types have
// no word for the operation.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/math.h"
#include "common/element.h"

#if defined(STORM_PORTABLE)
#define STORM_ISA portable
#define STORM_WIDTH 4
#elif defined(__AVX512F__)
#define STORM_ISA avx512
#define STORM_WIDTH 16
#define STORM_AVX512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define STORM_ISA avx2
#define STORM_WIDTH 8
#define STORM_AVX2
#elif defined(__aarch64__)
#define STORM_ISA neon
#define STORM_WIDTH 4
#define STORM_NEON
#else
#error "no instruction set is chosen: see CMakeLists.txt"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define STORM_INLINE inline __attribute__((always_inline))

namespace storm::cpu::STORM_ISA {

constexpr int64_t kWidth = STORM_WIDTH;

using RawFloat = float __attribute__((vector_size(4 * STORM_WIDTH)));
using RawInt = int32_t __attribute__((vector_size(4 * STORM_WIDTH)));
using RawBits = uint32_t __attribute__((vector_size(4 * STORM_WIDTH)));  // where sums and shifts may lose bits
using RawShort = uint16_t __attribute__((vector_size(2 * STORM_WIDTH)));

STORM_INLINE RawInt bits_of(RawFloat v) { return reinterpret_cast<RawInt>(v); }
STORM_INLINE RawFloat floats_of(RawInt v) { return reinterpret_cast<RawFloat>(v); }
STORM_INLINE RawFloat floats_of(RawBits v) { return reinterpret_cast<RawFloat>(v); }

struct Vector {
  RawFloat raw;

  Vector() = default;
  STORM_INLINE Vector(RawFloat raw) : raw(raw) {}
  STORM_INLINE explicit Vector(float value) : raw(value - RawFloat{}) {}
};

STORM_INLINE Vector operator+(Vector a, Vector b) { return a.raw + b.raw; }
STORM_INLINE Vector operator-(Vector a, Vector b) { return a.raw - b.raw; }
STORM_INLINE Vector operator*(Vector a, Vector b) { return a.raw * b.raw; }
STORM_INLINE Vector operator/(Vector a, Vector b) { return a.raw / b.raw; }

// a * b + c; rounded once wherever the processor can.
STORM_INLINE Vector fused(Vector a, Vector b, Vector c) {
#if defined(STORM_AVX512)
  return RawFloat(_mm512_fmadd_ps(__m512(a.raw), __m512(b.raw), __m512(c.raw)));
#elif defined(STORM_AVX2)
  return RawFloat(_mm256_fmadd_ps(__m256(a.raw), __m256(b.raw), __m256(c.raw)));
#elif defined(STORM_NEON)
  return RawFloat(vfmaq_f32(float32x4_t(c.raw), float32x4_t(a.raw), float32x4_t(b.raw)));
#else
  return a.raw * b.raw + c.raw;
#endif
}

// Where an operand is NaN, the result is b.
#if defined(STORM_AVX512)
STORM_INLINE Vector max(Vector a, Vector b) { return RawFloat(_mm512_max_ps(__m512(a.raw), __m512(b.raw))); }
STORM_INLINE Vector min(Vector a, Vector b) { return RawFloat(_mm512_min_ps(__m512(a.raw), __m512(b.raw))); }
#elif defined(STORM_AVX2)
STORM_INLINE Vector max(Vector a, Vector b) { return RawFloat(_mm256_max_ps(__m256(a.raw), __m256(b.raw))); }
STORM_INLINE Vector min(Vector a, Vector b) { return RawFloat(_mm256_min_ps(__m256(a.raw), __m256(b.raw))); }
#else
STORM_INLINE Vector max(Vector a, Vector b) {
  const RawInt greater = a.raw > b.raw;
  return floats_of((greater & bits_of(a.raw)) | (~greater & bits_of(b.raw)));
}

STORM_INLINE Vector min(Vector a, Vector b) {
  const RawInt less = a.raw < b.raw;
  return floats_of((less & bits_of(a.raw)) | (~less & bits_of(b.raw)));
}
#endif

STORM_INLINE Vector abs(Vector a) { return floats_of(bits_of(a.raw) & 0x7fffffff); }
STORM_INLINE Vector minus_abs(Vector a) { return floats_of(bits_of(a.raw) | static_cast<int32_t>(0x80000000)); }

// v * 2^k, where k lies in the low bits of `shifted`.
STORM_INLINE Vector scaled(Vector v, Vector shifted) {
  return floats_of(RawBits(bits_of(v.raw)) + (RawBits(bits_of(shifted.raw)) << 23));
}

// Whether every lane of a is at most b's; false where a lane is NaN.
STORM_INLINE bool all_at_most(Vector a, Vector b) {
  const RawInt yes = a.raw <= b.raw;
  int32_t all = -1;
  for (int64_t lane = 0; lane < kWidth; ++lane) all &= yes[lane];
  return all != 0;
}

// ---- memory: whole vectors, and the first `count` lanes of one (the others are 0) ----

STORM_INLINE Vector load(const float* from) {
  RawFloat raw;
  std::memcpy(&raw, from, sizeof raw);
  return raw;
}

STORM_INLINE void store(float* to, Vector v) { std::memcpy(to, &v.raw, sizeof v.raw); }

STORM_INLINE Vector load(const BFloat16* from) {
  RawShort shorts;
  std::memcpy(&shorts, from, sizeof shorts);
  return floats_of(__builtin_convertvector(shorts, RawBits) << 16);
}

STORM_INLINE void store(BFloat16* to, Vector v) {
  const RawBits bits = RawBits(bits_of(v.raw));
  const RawBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const RawBits quiet = (bits >> 16) | 0x40;                           // rounding could turn a NaN into infinity
  const RawBits is_nan = RawBits(v.raw != v.raw);
  const RawShort shorts = __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), RawShort);
  std::memcpy(to, &shorts, sizeof shorts);
}

#if defined(STORM_AVX512)
STORM_INLINE Vector load(const Half* from) {
  return RawFloat(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
STORM_INLINE void store(Half* to, Vector v) {
  const __m256i halves = _mm512_cvtps_ph(__m512(v.raw), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}
#elif defined(STORM_AVX2)
STORM_INLINE Vector load(const Half* from) {
  return RawFloat(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
STORM_INLINE void store(Half* to, Vector v) {
  const __m128i halves = _mm256_cvtps_ph(__m256(v.raw), _MM_FROUND_TO_NEAREST_INT);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
}
#elif defined(STORM_NEON)
STORM_INLINE Vector load(const Half* from) {
  return RawFloat(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from)))));
}
STORM_INLINE void store(Half* to, Vector v) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(v.raw))));
}
#else
STORM_INLINE Vector load(const Half* from) {
  RawShort shorts;
  std::memcpy(&shorts, from, sizeof shorts);
  const RawInt bits = __builtin_convertvector(shorts, RawInt);
  const RawInt magnitude = (bits & 0x7fff) << 13;
  const RawInt special = magnitude >= (0x7c00 << 13);  // infinity and NaN keep an exponent of all ones
  const RawInt denormal = magnitude < (1 << 23);
  const RawInt moved = magnitude + (112 << 23);
  const RawInt normalised = bits_of(floats_of(moved + (1 << 23)) - 0x1p-14f);
  const RawInt widened = (special & (magnitude | 0x7f800000)) | (denormal & normalised) | (~special & ~denormal & moved);
  return floats_of(RawBits(widened) | (RawBits(bits & 0x8000) << 16));
}
STORM_INLINE void store(Half* to, Vector v) {
  const RawInt bits = bits_of(v.raw);
  const RawInt sign = (bits >> 16) & 0x8000;
  const RawInt magnitude = bits & 0x7fffffff;
  const RawInt is_nan = magnitude > 0x7f800000;
  const RawInt overflows = magnitude >= 0x477ff000;  // 65520: rounds to infinity
  const RawInt normal = ((magnitude - (112 << 23)) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Below 2^-14 a half is a multiple of 2^-24: adding 0.5 leaves that multiple in the last bits, rounded to even.
  const RawInt denormal = bits_of(floats_of(magnitude) + 0.5f) - 0x3f000000;
  const RawInt small = magnitude < 0x38800000;
  RawInt half = (small & denormal) | (~small & normal);
  half = (overflows & 0x7c00) | (~overflows & half);
  half = (is_nan & 0x7e00) | (~is_nan & half);
  const RawShort shorts = __builtin_convertvector(half | sign, RawShort);
  std::memcpy(to, &shorts, sizeof shorts);
}
#endif

template <typename T>
STORM_INLINE Vector load_some(const T* from, int64_t count) {
  if (count >= kWidth) return load(from);
  T lanes[kWidth] = {};
  std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
  return load(lanes);
}

template <typename T>
STORM_INLINE void store_some(T* to, Vector v, int64_t count) {
  if (count >= kWidth) return store(to, v);
  T lanes[kWidth];
  store(lanes, v);
  std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
}

// ---- vectors side by side ----

// What is done to one does not wait for what is done to the other, which keeps the multiply-add units busier: on Zen 3 the
// recurrence takes an eighth less time so. V is Vector.
template <typename V>
struct Twice {
  V low;
  V high;

  STORM_INLINE Twice(V low, V high) : low(low), high(high) {}
  STORM_INLINE explicit Twice(float value) : low(value), high(value) {}
};

template <typename V>
STORM_INLINE Twice<V> operator+(Twice<V> a, Twice<V> b) {
  return {a.low + b.low, a.high + b.high};
}
template <typename V>
STORM_INLINE Twice<V> operator-(Twice<V> a, Twice<V> b) {
  return {a.low - b.low, a.high - b.high};
}
template <typename V>
STORM_INLINE Twice<V> operator*(Twice<V> a, Twice<V> b) {
  return {a.low * b.low, a.high * b.high};
}
template <typename V>
STORM_INLINE Twice<V> operator/(Twice<V> a, Twice<V> b) {
  return {a.low / b.low, a.high / b.high};
}
template <typename V>
STORM_INLINE Twice<V> fused(Twice<V> a, Twice<V> b, Twice<V> c) {
  return {fused(a.low, b.low, c.low), fused(a.high, b.high, c.high)};
}
template <typename V>
STORM_INLINE Twice<V> max(Twice<V> a, Twice<V> b) {
  return {max(a.low, b.low), max(a.high, b.high)};
}
template <typename V>
STORM_INLINE Twice<V> min(Twice<V> a, Twice<V> b) {
  return {min(a.low, b.low), min(a.high, b.high)};
}
template <typename V>
STORM_INLINE Twice<V> abs(Twice<V> a) {
  return {abs(a.low), abs(a.high)};
}
template <typename V>
STORM_INLINE Twice<V> minus_abs(Twice<V> a) {
  return {minus_abs(a.low), minus_abs(a.high)};
}
template <typename V>
STORM_INLINE Twice<V> scaled(Twice<V> v, Twice<V> shifted) {
  return {scaled(v.low, shifted.low), scaled(v.high, shifted.high)};
}
template <typename V>
STORM_INLINE bool all_at_most(Twice<V> a, Twice<V> b) {
  return all_at_most(a.low, b.low) && all_at_most(a.high, b.high);
}

using Wide = Twice<Vector>;
constexpr int64_t kWideWidth = 2 * kWidth;

template <typename T>
STORM_INLINE Wide load_wide(const T* from) {
  return {load(from), load(from + kWidth)};
}

template <typename T>
STORM_INLINE void store_wide(T* to, Wide v) {
  store(to, v.low);
  store(to + kWidth, v.high);
}

// The first `count` lanes; the others are 0.
template <typename T>
STORM_INLINE Wide load_wide(const T* from, int64_t count) {
  if (count >= kWideWidth) return load_wide(from);
  T lanes[kWideWidth] = {};
  std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
  return load_wide(lanes);
}

template <typename T>
STORM_INLINE void store_wide(T* to, Wide v, int64_t count) {
  if (count >= kWideWidth) return store_wide(to, v);
  T lanes[kWideWidth];
  store_wide(lanes, v);
  std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
}

// ---- functions; V is Vector or Wide ----

// 2^fraction * 2^k for a fraction in [-0.5, 0.5], where k lies in the low bits of `rounded`.
template <typename V>
STORM_INLINE V scaled_exp2(V fraction, V rounded) {
  // Minimax for the relative error (9e-8) with the constant term fixed at 1, so that 2^0 is exact.
  V p = fused(V(0.00132647273f), fraction, V(0.00967151299f));
  p = fused(p, fraction, V(0.0555073358f));
  p = fused(p, fraction, V(0.240222424f));
  p = fused(p, fraction, V(0.693147004f));
  p = fused(p, fraction, V(1.0f));
  return scaled(p, rounded);
}

// Adding it rounds to an integer, which then lies in the low bits.
constexpr float kRoundingShift = 0x1.8p23f;

// 2^(a * b) for |a * b| <= 126, relative error below 2e-7; the product is not rounded. Without the limits that exp2_approx
// observes it is a third faster.
template <typename V>
STORM_INLINE V exp2_product(V a, V b) {
  const V rounded = fused(a, b, V(kRoundingShift));
  return scaled_exp2(fused(a, b, V(kRoundingShift) - rounded), rounded);
}

// 2^x, relative error below 2e-7; 2^-126 below -126, infinity from 128 on.
template <typename V>
STORM_INLINE V exp2_approx(V x) {
  x = min(V(128.0f), max(V(-126.0f), x));  // in this order a NaN stays one
  const V rounded = x + V(kRoundingShift);
  return scaled_exp2(x - (rounded - V(kRoundingShift)), rounded);
}

template <typename V>
STORM_INLINE V exp_approx(V x) {
  return exp2_approx(x * V(kLog2e));
}

// max(x, 0) + log(1 + e) with e = exp(-|x|); above 20 the logarithm is too small to matter, so that it is linear there.
template <typename V>
STORM_INLINE V softplus(V x) {
  const V e = exp2_product(max(V(-87.0f), minus_abs(x)), V(kLog2e));
  const V s = e / (V(2.0f) + e);  // log(1 + e) = 2 atanh(s), s in [0, 1/3]
  const V square = s * s;
  V p = fused(V(0.280119806f), square, V(0.280018062f));  // minimax for 2 atanh(s) / s: 4e-9
  p = fused(p, square, V(0.400215268f));
  p = fused(p, square, V(0.666664183f));
  p = fused(p, square, V(2.0f));
  return fused(s, p, max(V(0.0f), x));
}

// x / (1 + exp(-x)); what is below -88 counts as -88, of which nothing is left.
template <typename V>
STORM_INLINE V silu(V x) {
  x = max(V(-88.0f), x);
  return x / (V(1.0f) + exp2_product(min(V(87.0f), x), V(-kLog2e)));
}

// While it lives, this thread's denormal floats are 0: states that fade away would otherwise slow the processor down.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  STORM_INLINE FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  STORM_INLINE ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  STORM_INLINE FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t{1} << 24)));
  }
  STORM_INLINE ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  uint64_t before_;
#endif
};

}  // namespace storm::cpu::STORM_ISA
