// What the operators of this library share: ONNX Runtime's thread pool as a Parallel, element types, and shape checks
// that say what was expected and what came.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_lite_custom_op.h>
#undef ORT_API_MANUAL_INIT

#include "common/element.h"
#include "cpu/parallel.h"

namespace storm::onnxruntime {

using Shape = std::vector<int64_t>;
template <typename T>
using Tensor = Ort::Custom::Tensor<T>;

template <typename T>
constexpr Type kType = Type::float32;
template <>
constexpr Type kType<Ort::Float16_t> = Type::float16;
template <>
constexpr Type kType<Ort::BFloat16_t> = Type::bfloat16;

// The session's own threads. How many they are it does not say: work is cut for all of the machine's.
inline cpu::Parallel session_threads(OrtKernelContext* context) {
  const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return {threads, context, [](void* pool, int64_t count, void (*task)(void*, int64_t), void* data) {
            std::pair<void (*)(void*, int64_t), void*> work{task, data};
            Ort::ThrowOnError(Ort::GetApi().KernelContext_ParallelFor(
                static_cast<const OrtKernelContext*>(pool),
                [](void* user, size_t index) {
                  const auto* work = static_cast<std::pair<void (*)(void*, int64_t), void*>*>(user);
                  work->first(work->second, static_cast<int64_t>(index));
                },
                static_cast<size_t>(count), 0, &work));
          }};
}

inline bool reverse_of(const OrtApi* api, const OrtKernelInfo* info) {
  int64_t reverse = 0;
  // A node without the attribute runs forwards.
  if (OrtStatus* status = api->KernelInfoGetAttribute_int64(info, "reverse", &reverse)) api->ReleaseStatus(status);
  return reverse != 0;
}

inline std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

inline Ort::Status refusal(const std::string& message) { return Ort::Status(message.c_str(), ORT_INVALID_ARGUMENT); }

// Null, or why the shape does not fit.
struct ShapeCheck {
  const char* op;
  std::string problem;

  void operator()(const char* name_and_axes, const Shape& got, const Shape& expected) {
    if (!problem.empty() || got == expected) return;
    problem = std::string(op) + ": " + name_and_axes + " must have shape " + text_of(expected) + ", got " + text_of(got);
  }
};

}  // namespace storm::onnxruntime
