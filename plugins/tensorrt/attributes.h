// What a node of either operator carries, and how it is written into an engine and read again.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

namespace storm::tensorrt {

// Of what an engine holds of a plugin; raised whenever an engine made before could not run or would compute otherwise.
constexpr int32_t kEngineVersion = 1;

struct Attributes {
  int32_t reverse;
};

// The fields that a creator asks the parser for.
const nvinfer1::PluginFieldCollection& fields_from_onnx() noexcept;

// Reads fields that came from an ONNX node or from an engine (`phase`); reports what is wrong with them, then false.
bool read_attributes(const char* name, const nvinfer1::PluginFieldCollection* fields, nvinfer1::TensorRTPhase phase,
                     Attributes* attributes) noexcept;

// The fields that go into the engine. They point into this object, which therefore stays where it is.
class EngineFields {
 public:
  explicit EngineFields(const Attributes& attributes) noexcept;
  EngineFields(const EngineFields&) = delete;
  EngineFields& operator=(const EngineFields&) = delete;

  const nvinfer1::PluginFieldCollection* collection() const noexcept { return &collection_; }

 private:
  int32_t reverse_;
  int32_t version_ = kEngineVersion;
  nvinfer1::PluginField fields_[2];
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace storm::tensorrt
