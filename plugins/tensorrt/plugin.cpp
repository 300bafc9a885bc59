#include "tensorrt/plugin.h"

#include <memory>

#include "tensorrt/report.h"
#include "tensorrt/shapes.h"

namespace storm::tensorrt {

namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int32_t kSuccess = 0;
constexpr int32_t kFailure = 1;
constexpr int32_t kTypeInput = 0;  // both operators: the input whose type is T

// No exception may leave the library; each is told, and becomes what `failed` says.
template <class Result, class Body>
Result guarded(const char* name, Result failed, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    report("storm::" + std::string(name) + ": " + error.what());
  } catch (...) {
    report("storm: unknown error");
  }
  return failed;
}

bool is_floating(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

Type element_type(DataType type) {
  return type == DataType::kHALF ? Type::float16 : type == DataType::kBF16 ? Type::bfloat16 : Type::float32;
}

Sizes sizes_of(const nvinfer1::Dims& dims) { return Sizes(dims.d, dims.d + (dims.nbDims > 0 ? dims.nbDims : 0)); }

std::vector<Sizes> shapes_of(const PluginTensorDesc* values, int32_t count) {
  std::vector<Sizes> shapes;
  for (int32_t i = 0; i < count; ++i) shapes.push_back(sizes_of(values[i].dims));
  return shapes;
}

std::vector<Sizes> largest_shapes(const DynamicPluginTensorDesc* values, int32_t count) {
  std::vector<Sizes> shapes;
  for (int32_t i = 0; i < count; ++i) shapes.push_back(sizes_of(values[i].max));
  return shapes;
}

int32_t check(const Operator& op, const std::vector<Sizes>& shapes) {
  const std::string wrong = disagreement(op, shapes);
  if (wrong.empty()) return kSuccess;
  report("storm::" + std::string(op.name()) + ": " + wrong);
  return kFailure;
}

}  // namespace

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>(op_.name(), nullptr, [&] { return new Plugin(op_, attributes_); });
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

bool Plugin::has_all_values(int32_t inputs, int32_t outputs) const noexcept {
  if (inputs == static_cast<int32_t>(op_.inputs().size()) && outputs == getNbOutputs()) return true;
  return guarded(op_.name(), false, [&] {
    report("storm::" + std::string(op_.name()) + ": takes " + std::to_string(op_.inputs().size()) +
           " inputs and gives " + std::to_string(getNbOutputs()) + " outputs, the node has " + std::to_string(inputs) +
           " and " + std::to_string(outputs) + ": export the model again");
    return false;
  });
}

int32_t Plugin::getOutputDataTypes(DataType* types, int32_t outputs, const DataType* input_types,
                                   int32_t inputs) const noexcept {
  if (!has_all_values(inputs, outputs)) return kFailure;
  for (int32_t i = 0; i < outputs; ++i) {
    types[i] = op_.outputs()[i].is_float32 ? DataType::kFLOAT : input_types[kTypeInput];
  }
  return kSuccess;
}

int32_t Plugin::getOutputShapes(const DimsExprs* shapes, int32_t inputs, const DimsExprs*, int32_t,
                                DimsExprs* output_shapes, int32_t outputs, nvinfer1::IExprBuilder&) noexcept {
  if (!has_all_values(inputs, outputs)) return kFailure;
  for (int32_t i = 0; i < outputs; ++i) output_shapes[i] = shapes[op_.shaped_like(i)];
  return kSuccess;
}

bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* values, int32_t inputs,
                                       int32_t outputs) noexcept {
  if (!has_all_values(inputs, outputs)) return false;
  const PluginTensorDesc& value = values[position].desc;
  if (value.format != TensorFormat::kLINEAR) return false;
  const Value& expected = position < inputs ? op_.inputs()[position] : op_.outputs()[position - inputs];
  if (expected.is_float32) return value.type == DataType::kFLOAT;
  return position == kTypeInput ? is_floating(value.type) : value.type == values[kTypeInput].desc.type;
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc* input_values, int32_t inputs,
                                const DynamicPluginTensorDesc*, int32_t outputs) noexcept {
  if (!has_all_values(inputs, outputs)) return kFailure;
  return guarded(op_.name(), kFailure, [&] { return check(op_, largest_shapes(input_values, inputs)); });
}

size_t Plugin::getWorkspaceSize(const DynamicPluginTensorDesc* input_values, int32_t inputs,
                                const DynamicPluginTensorDesc*, int32_t) const noexcept {
  return guarded<size_t>(op_.name(), 0, [&] { return op_.workspace(largest_shapes(input_values, inputs)); });
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* input_values, int32_t inputs, const PluginTensorDesc*,
                              int32_t outputs) noexcept {
  if (!has_all_values(inputs, outputs)) return kFailure;
  return guarded(op_.name(), kFailure, [&] { return check(op_, shapes_of(input_values, inputs)); });
}

int32_t Plugin::enqueue(const PluginTensorDesc* input_values, const PluginTensorDesc*, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  return guarded(op_.name(), kFailure, [&] {
    const std::vector<Sizes> shapes = shapes_of(input_values, static_cast<int32_t>(op_.inputs().size()));
    if (check(op_, shapes) != kSuccess) return kFailure;
    const cudaError_t error = op_.enqueue(element_type(input_values[kTypeInput].type), attributes_.reverse != 0, shapes,
                                          inputs, outputs, workspace, stream);
    return succeeded(error, ("storm::" + std::string(op_.name())).c_str(), "launching the kernel") ? kSuccess
                                                                                                   : kFailure;
  });
}

nvinfer1::IPluginV3* Creator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  return guarded<nvinfer1::IPluginV3*>(op_.name(), nullptr, [&]() -> nvinfer1::IPluginV3* {
    Attributes attributes;
    if (!read_attributes(op_.name(), fields, phase, &attributes)) return nullptr;
    return new Plugin(op_, attributes);
  });
}

}  // namespace storm::tensorrt
