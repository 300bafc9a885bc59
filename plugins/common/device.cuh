// What the kernels of both operators have of a CUDA device: pairs that are moved if they exist, and launches.
#pragma once

#include <cuda_runtime_api.h>

#include "common/pair.h"

namespace storm {

// Pairs of 4 or 8 bytes. Written as instructions with a predicate, because the compiler would make branches of them, and
// wait for each load in its own. On the host the tests have the like of it.
struct DevicePairs {
  template <class T>
  static __device__ __forceinline__ HalfPair<T> load_if(bool exists, const HalfPair<T>* from, HalfPair<T> otherwise) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %1, 0; @p ld.global.b32 %0, [%2]; }"
        : "+r"(otherwise.bits)
        : "r"(static_cast<int>(exists)), "l"(from));
    return otherwise;
  }
  static __device__ __forceinline__ FloatPair load_if(bool exists, const FloatPair* from, FloatPair otherwise) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %2, 0; @p ld.global.v2.f32 {%0, %1}, [%3]; }"
        : "+f"(otherwise.first), "+f"(otherwise.second)
        : "r"(static_cast<int>(exists)), "l"(from));
    return otherwise;
  }
  template <class T>
  static __device__ __forceinline__ void store_if(bool exists, HalfPair<T> pair, HalfPair<T>* to) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.b32 [%1], %2; }" ::"r"(static_cast<int>(exists)),
                 "l"(to), "r"(pair.bits)
                 : "memory");
  }
  static __device__ __forceinline__ void store_if(bool exists, FloatPair pair, FloatPair* to) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.v2.f32 [%1], {%2, %3}; }" ::"r"(
                     static_cast<int>(exists)),
                 "l"(to), "f"(pair.first), "f"(pair.second)
                 : "memory");
  }
};

// What launching says of itself. An error that somebody left behind is not its own, so it is forgotten first.
template <class Launch>
cudaError_t launched(Launch launch) {
  static_cast<void>(cudaGetLastError());
  launch();
  return cudaGetLastError();
}

}  // namespace storm
