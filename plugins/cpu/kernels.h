// The kernels of one instruction set, and which of them this processor can run.
#pragma once

#include <cstdint>
#include <vector>

#include "common/element.h"

namespace storm::cpu {

struct ScanPiece;
struct ConvPiece;

struct Kernels {
  const char* name;  // of the instruction set: avx512, avx2, neon or portable
  int64_t width;     // lanes of a vector
  void (*scan_piece)(const ScanPiece&);
  void (*conv_piece)(const ConvPiece&);
  // Elementwise, for tests and measurements: what the kernels are made of.
  void (*widen)(Type type, const void* x, float* y, int64_t count);
  void (*narrow)(Type type, const float* x, void* y, int64_t count);
  void (*exp2)(const float* x, float* y, int64_t count);
  void (*softplus)(const float* x, float* y, int64_t count);
  void (*silu)(const float* x, float* y, int64_t count);
  // Sums 2^(a * b) for `rounds` different a, `count` b each: the processor's own pace of exponentials.
  float (*exp2_pace)(const float* b, int64_t count, int64_t rounds);
};

// Of every instruction set that this library was built with and this processor has, best first; never empty.
const std::vector<Kernels>& all_kernels();

inline const Kernels& best_kernels() { return all_kernels().front(); }

}  // namespace storm::cpu
