// The element types T of the operators. Half precision is storage only: all arithmetic is float32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace storm {

enum class Type { float32, float16, bfloat16 };

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// Of an array, so that nothing that is computed of its sizes leaves 64 bits.
constexpr int64_t kMaximumElements = int64_t{1} << 56;

constexpr size_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

}  // namespace storm
