// What the operators of this library need of ONNX Runtime's kernels: its thread pool as a Parallel, element types,
// attributes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include "common/element.h"
#include "cpu/parallel.h"

namespace storm::onnxruntime {

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

inline Type element_type(ONNXTensorElementDataType type) {
  return type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16    ? Type::float16
         : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 ? Type::bfloat16
                                                          : Type::float32;
}

// As op.py calls it; what no operator takes need not have a name.
inline std::string name_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return "float32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return "float16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return "bfloat16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return "float64";
    default:
      return "ONNX type " + std::to_string(static_cast<int>(type));
  }
}

inline bool has_attribute(Ort::ConstKernelInfo info, const char* name, const std::string& value) {
  std::string got(value.size() + 1, '\0');  // anything longer is another value, and refused by ONNX Runtime
  size_t size = got.size();
  Ort::Status status(Ort::GetApi().KernelInfoGetAttribute_string(info, name, got.data(), &size));
  return status.IsOK() && got.c_str() == value;
}

// Of the attribute; -1 where it is missing, or neither 0 nor 1.
inline int64_t reverse_of(Ort::ConstKernelInfo info, const char* name) {
  int64_t reverse = -1;
  Ort::Status status(Ort::GetApi().KernelInfoGetAttribute_int64(info, name, &reverse));
  return status.IsOK() && (reverse == 0 || reverse == 1) ? reverse : -1;
}

}  // namespace storm::onnxruntime
