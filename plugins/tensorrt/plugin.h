// What the plugins of both operators have in common: TensorRT's V3 interface around an Operator.
//
// Nothing here knows CUDA kernels; an Operator knows no more of TensorRT than shapes and addresses.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/element.h"
#include "common/schema.h"
#include "tensorrt/attributes.h"

namespace storm::tensorrt {

// An operator without TensorRT: its schema, and what runs it. Shapes are those of the inputs, all checked.
class Operator {
 public:
  explicit Operator(const Schema& schema) : schema_(schema) {}
  virtual ~Operator() = default;
  const Schema& schema() const noexcept { return schema_; }
  // Why the kernel does not take shapes that agree with the schema; empty if it does. Sizes may be kUnknown.
  virtual std::string refusal(const std::vector<Shape>& shapes) const = 0;
  virtual size_t workspace(const std::vector<Shape>& shapes) const = 0;
  virtual cudaError_t enqueue(Type type, bool reverse, const std::vector<Shape>& shapes, const void* const* inputs,
                              void* const* outputs, void* workspace, cudaStream_t stream) const = 0;

 private:
  const Schema& schema_;
};

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  Plugin(const Operator& op, const Attributes& attributes) : op_(op), attributes_(attributes), fields_(attributes) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  const char* getPluginName() const noexcept override { return op_.schema().name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kDomain; }

  int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(op_.schema().outputs.size()); }
  int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs, const nvinfer1::DataType* input_types,
                             int32_t inputs) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* shapes, int32_t inputs, const nvinfer1::DimsExprs* shape_inputs,
                          int32_t number_of_shape_inputs, nvinfer1::DimsExprs* output_shapes, int32_t outputs,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* values, int32_t inputs,
                                 int32_t outputs) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* input_values, int32_t inputs,
                          const nvinfer1::DynamicPluginTensorDesc* output_values, int32_t outputs) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* input_values, int32_t inputs,
                          const nvinfer1::DynamicPluginTensorDesc* output_values,
                          int32_t outputs) const noexcept override;

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* input_values, int32_t inputs,
                        const nvinfer1::PluginTensorDesc* output_values, int32_t outputs) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_values, const nvinfer1::PluginTensorDesc* output_values,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return fields_.collection(); }

 private:
  const Operator& op_;
  const Attributes attributes_;
  const EngineFields fields_;
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const Operator& op) noexcept : op_(op) {}

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &fields_from_onnx(); }
  const char* getPluginName() const noexcept override { return op_.schema().name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kDomain; }

 private:
  const Operator& op_;
};

}  // namespace storm::tensorrt
