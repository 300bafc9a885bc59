#include "tensorrt/plugin.h"

#include <algorithm>
#include <exception>
#include <stdexcept>

#include "tensorrt/report.h"

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

// No exception may leave the library; each is told, and becomes a status.
template <class Body>
int32_t guarded(Body body) noexcept {
  try {
    body();
    return kSuccess;
  } catch (const std::exception& error) {
    report(error.what());
  } catch (...) {
    report("storm: unknown error");
  }
  return kFailure;
}

bool is_floating(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

Type element_type(DataType type) {
  return type == DataType::kHALF ? Type::float16 : type == DataType::kBF16 ? Type::bfloat16 : Type::float32;
}

// As op.py calls it; what no operator takes need not have a name.
std::string name_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return "float32";
    case DataType::kHALF:
      return "float16";
    case DataType::kBF16:
      return "bfloat16";
    default:
      return "TensorRT type " + std::to_string(static_cast<int32_t>(type));
  }
}

// Without axes where their number is not one.
Shape shape_of(const nvinfer1::Dims& dims) {
  return dims.nbDims > 0 && dims.nbDims <= nvinfer1::Dims::MAX_DIMS ? Shape(dims.d, dims.d + dims.nbDims) : Shape();
}

std::vector<Shape> shapes_of(const PluginTensorDesc* values, size_t count) {
  std::vector<Shape> shapes;
  for (size_t i = 0; i < count; ++i) shapes.push_back(shape_of(values[i].dims));
  return shapes;
}

std::vector<Shape> largest_shapes(const DynamicPluginTensorDesc* values, size_t count) {
  std::vector<Shape> shapes;
  for (size_t i = 0; i < count; ++i) shapes.push_back(shape_of(values[i].max));
  return shapes;
}

std::vector<std::string> types_of(const DataType* types, size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) names.push_back(name_of(types[i]));
  return names;
}

// Throws what is wrong with shapes.
void require_shapes(const Operator& op, const std::vector<Shape>& shapes) {
  std::string problem = shape_problem(op.schema(), shapes);
  const auto has_unknown = [](const Shape& shape) { return std::count(shape.begin(), shape.end(), kUnknown) > 0; };
  if (problem.empty() && std::none_of(shapes.begin(), shapes.end(), has_unknown)) problem = op.refusal(shapes);
  if (!problem.empty()) throw std::invalid_argument(problem);
}

void require(const std::string& problem) {
  if (!problem.empty()) throw std::invalid_argument(problem);
}

void require_count(const Operator& op, int32_t inputs, int32_t outputs) {
  require(count_problem(op.schema(), static_cast<size_t>(inputs), static_cast<size_t>(outputs)));
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
  nvinfer1::IPluginV3* made = nullptr;
  guarded([&] { made = new Plugin(op_, attributes_); });
  return made;
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

int32_t Plugin::getOutputDataTypes(DataType* types, int32_t outputs, const DataType* input_types,
                                   int32_t inputs) const noexcept {
  return guarded([&] {
    require_count(op_, inputs, outputs);
    require(type_problem(op_.schema(), types_of(input_types, static_cast<size_t>(inputs))));
    for (int32_t i = 0; i < outputs; ++i) {
      types[i] = op_.schema().outputs[i].is_float32 ? DataType::kFLOAT : input_types[kTypeInput];
    }
  });
}

int32_t Plugin::getOutputShapes(const DimsExprs* shapes, int32_t inputs, const DimsExprs*, int32_t,
                                DimsExprs* output_shapes, int32_t outputs, nvinfer1::IExprBuilder&) noexcept {
  return guarded([&] {
    require_count(op_, inputs, outputs);
    for (int32_t i = 0; i < outputs; ++i) output_shapes[i] = shapes[shaped_like(op_.schema(), i)];
  });
}

bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* values, int32_t inputs,
                                       int32_t outputs) noexcept {
  bool supported = false;
  guarded([&] {
    require_count(op_, inputs, outputs);
    if (position < 0 || position >= inputs + outputs) return;
    const PluginTensorDesc& value = values[position].desc;
    const DataType first = values[kTypeInput].desc.type;
    const Schema& schema = op_.schema();
    const Value& expected = position < inputs ? schema.inputs[position] : schema.outputs[position - inputs];
    const bool right = expected.is_float32        ? value.type == DataType::kFLOAT
                       : position == kTypeInput ? is_floating(value.type)
                                                : value.type == first;
    supported = right && value.format == TensorFormat::kLINEAR;
  });
  return supported;
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc* input_values, int32_t inputs,
                                const DynamicPluginTensorDesc*, int32_t outputs) noexcept {
  return guarded([&] {
    require_count(op_, inputs, outputs);
    require_shapes(op_, largest_shapes(input_values, static_cast<size_t>(inputs)));
  });
}

size_t Plugin::getWorkspaceSize(const DynamicPluginTensorDesc* input_values, int32_t inputs,
                                const DynamicPluginTensorDesc*, int32_t outputs) const noexcept {
  size_t bytes = 0;
  guarded([&] {
    require_count(op_, inputs, outputs);
    const std::vector<Shape> shapes = largest_shapes(input_values, static_cast<size_t>(inputs));
    require_shapes(op_, shapes);
    bytes = op_.workspace(shapes);
  });
  return bytes;
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* input_values, int32_t inputs, const PluginTensorDesc*,
                              int32_t outputs) noexcept {
  return guarded([&] {
    require_count(op_, inputs, outputs);
    require_shapes(op_, shapes_of(input_values, static_cast<size_t>(inputs)));
  });
}

int32_t Plugin::enqueue(const PluginTensorDesc* input_values, const PluginTensorDesc*, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  return guarded([&] {
    const Schema& schema = op_.schema();
    const size_t count = schema.inputs.size();
    std::vector<DataType> types;
    for (size_t i = 0; i < count; ++i) types.push_back(input_values[i].type);
    require(type_problem(schema, types_of(types.data(), count)));
    const std::vector<Shape> shapes = shapes_of(input_values, count);
    require_shapes(op_, shapes);
    const cudaError_t error = op_.enqueue(element_type(types[kTypeInput]), attributes_.reverse != 0, shapes, inputs,
                                          outputs, workspace, stream);
    if (error == cudaSuccess) return;
    throw std::runtime_error(schema.qualified_name() + ": launching the kernel failed: " + cudaGetErrorName(error) +
                             " (" + cudaGetErrorString(error) + ")");
  });
}

nvinfer1::IPluginV3* Creator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  nvinfer1::IPluginV3* made = nullptr;
  guarded([&] {
    Attributes attributes;
    if (read_attributes(op_.schema().name, fields, phase, &attributes)) made = new Plugin(op_, attributes);
  });
  return made;
}

}  // namespace storm::tensorrt
