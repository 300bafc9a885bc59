#include "tensorrt/attributes.h"

#include <cstring>
#include <string>

#include "common/schema.h"
#include "tensorrt/report.h"

namespace storm::tensorrt {

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

constexpr char kEngineVersionField[] = "engine_version";

const PluginField* find(const PluginFieldCollection& fields, const char* name) {
  if (fields.fields == nullptr) return nullptr;
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const char* const got = fields.fields[i].name;
    if (got != nullptr && std::strcmp(got, name) == 0) return &fields.fields[i];
  }
  return nullptr;
}

// Parsers hand an INT attribute over as 32 or 64 bits.
bool read_integer(const PluginField* field, int64_t* value) {
  if (field == nullptr || field->data == nullptr || field->length < 1) return false;
  if (field->type == PluginFieldType::kINT32) {
    int32_t narrow;
    std::memcpy(&narrow, field->data, sizeof narrow);
    *value = narrow;
    return true;
  }
  if (field->type == PluginFieldType::kINT64) {
    std::memcpy(value, field->data, sizeof *value);
    return true;
  }
  return false;
}

bool read(const char* name, const PluginFieldCollection* fields, nvinfer1::TensorRTPhase phase,
          Attributes* attributes) {
  const std::string prefix = std::string("storm::") + name + ": ";
  if (fields == nullptr) {
    report(prefix + "there are no fields to make it from");
    return false;
  }
  if (phase == nvinfer1::TensorRTPhase::kRUNTIME) {
    int64_t version = 0;
    read_integer(find(*fields, kEngineVersionField), &version);
    if (version != kEngineVersion) {
      report(prefix + "the engine was made with plugin version " + std::to_string(version) + ", this is " +
             std::to_string(kEngineVersion) + ": rebuild the engine");
      return false;
    }
  }
  int64_t reverse = -1;
  if (!read_integer(find(*fields, kReverse), &reverse) || (reverse != 0 && reverse != 1)) {
    report(prefix + "needs the attribute reverse, 0 or 1: export the model again");
    return false;
  }
  attributes->reverse = static_cast<int32_t>(reverse);
  return true;
}

}  // namespace

const PluginFieldCollection& fields_from_onnx() noexcept {
  static const PluginField field(kReverse, nullptr, PluginFieldType::kINT32, 1);
  static const PluginFieldCollection collection = {1, &field};
  return collection;
}

bool read_attributes(const char* name, const PluginFieldCollection* fields, nvinfer1::TensorRTPhase phase,
                     Attributes* attributes) noexcept {
  try {
    return read(name, fields, phase, attributes);
  } catch (...) {
    report("storm: out of memory");
    return false;
  }
}

EngineFields::EngineFields(const Attributes& attributes) noexcept
    : reverse_(attributes.reverse),
      fields_{PluginField(kReverse, &reverse_, PluginFieldType::kINT32, 1),
              PluginField(kEngineVersionField, &version_, PluginFieldType::kINT32, 1)},
      collection_{2, fields_} {}

}  // namespace storm::tensorrt
