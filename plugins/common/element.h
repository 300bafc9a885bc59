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

constexpr size_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

}  // namespace storm
