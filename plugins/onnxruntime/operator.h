// What both operators have in common: ONNX Runtime's custom operator around a schema. Everything is checked here before a
// kernel sees it, once when a session is made, as far as shapes are known by then, and again in every run.
//
// ONNX Runtime chooses a kernel by the first input, whose type is T; for the other inputs all types are declared, because
// it would refuse others without saying which. No exception leaves the library.
#pragma once

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "common/schema.h"
#include "onnxruntime/kernel_context.h"

namespace storm::onnxruntime {

inline OrtStatus* refusal(const std::string& message) noexcept {
  return Ort::GetApi().CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
}

// An exception and a message that is not empty become a status.
template <typename Body>
OrtStatus* guarded(Body body) noexcept {
  try {
    const std::string problem = body();
    return problem.empty() ? nullptr : refusal(problem);
  } catch (const std::exception& error) {
    return refusal(error.what());
  } catch (...) {
    return refusal("storm: unknown error");
  }
}

// Called: how an operator and a device are put together: schema(), and run(context, type, shapes, reverse, inputs,
// outputs) with everything checked.
template <typename Called>
class Kernel {
 public:
  explicit Kernel(bool reverse) : reverse_(reverse) {}

  OrtStatus* ComputeV2(OrtKernelContext* context) const noexcept {
    return guarded([&] { return compute(context); });
  }

 private:
  std::string compute(OrtKernelContext* given) const {
    const Schema& schema = Called::schema();
    Ort::KernelContext context(given);
    std::string problem = count_problem(schema, context.GetInputCount(), context.GetOutputCount());
    if (!problem.empty()) return problem;

    std::vector<Shape> shapes;
    std::vector<std::string> types;
    std::vector<const void*> inputs;
    Type type = Type::float32;
    for (size_t i = 0; i < schema.inputs.size(); ++i) {
      const Ort::ConstValue value = context.GetInput(i);
      if (static_cast<const OrtValue*>(value) == nullptr || !value.IsTensor()) {
        return schema.qualified_name() + ": " + schema.inputs[i].name + " must be a tensor";
      }
      const auto info = value.GetTensorTypeAndShapeInfo();
      if (i == 0) type = element_type(info.GetElementType());
      types.push_back(name_of(info.GetElementType()));
      shapes.push_back(info.GetShape());
      inputs.push_back(value.GetTensorRawData());
    }
    problem = type_problem(schema, types);
    if (problem.empty()) problem = shape_problem(schema, shapes);
    if (!problem.empty()) return problem;

    std::vector<void*> outputs;
    for (size_t i = 0; i < schema.outputs.size(); ++i) {
      const Shape& shape = shapes[shaped_like(schema, i)];
      Ort::UnownedValue value = context.GetOutput(i, shape.data(), shape.size());
      if (static_cast<OrtValue*>(value) == nullptr) {
        return schema.qualified_name() + ": the node must name its output " + schema.outputs[i].name;
      }
      outputs.push_back(value.GetTensorMutableRawData());
    }
    Called::run(given, type, shapes, reverse_, inputs.data(), outputs.data());
    return "";
  }

  bool reverse_;
};

template <typename Called>
class Operator : public Ort::CustomOpBase<Operator<Called>, Kernel<Called>, /*WithStatus=*/true> {
 public:
  explicit Operator(ONNXTensorElementDataType type) : type_(type) {}

  const char* GetName() const { return Called::schema().name; }
  const char* GetExecutionProviderType() const { return Called::kProvider; }
  size_t GetInputTypeCount() const { return Called::schema().inputs.size(); }
  size_t GetOutputTypeCount() const { return Called::schema().outputs.size(); }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    return index == 0 ? type_ : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  }
  ONNXTensorElementDataType GetOutputType(size_t index) const {
    return Called::schema().outputs[index].is_float32 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : type_;
  }

  OrtStatus* CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept {
    *kernel = nullptr;
    return guarded([&] { return create(Ort::ConstKernelInfo(info), kernel); });
  }

 private:
  std::string create(Ort::ConstKernelInfo info, void** kernel) const {
    const Schema& schema = Called::schema();
    std::string problem = count_problem(schema, info.GetInputCount(), info.GetOutputCount());
    if (!problem.empty()) return problem;

    const std::string needs = schema.qualified_name() + ": needs the attribute ";
    const int64_t reverse = reverse_of(info, kReverse);
    if (reverse < 0) return needs + kReverse + ", 0 or 1: export the model again";
    for (const auto& [name, value] : {std::pair{kPluginVersion, kVersion}, std::pair{kPluginNamespace, kDomain}}) {
      if (!has_attribute(info, name, value)) return needs + name + " = \"" + value + "\": export the model again";
    }

    std::vector<Shape> shapes;
    std::vector<std::string> types;
    for (size_t i = 0; i < schema.inputs.size(); ++i) {
      const Ort::TypeInfo type_info = info.GetInputTypeInfo(i);
      const auto tensor = type_info.GetTensorTypeAndShapeInfo();
      if (static_cast<const OrtTensorTypeAndShapeInfo*>(tensor) == nullptr) {
        return schema.qualified_name() + ": " + schema.inputs[i].name + " must be a tensor";
      }
      types.push_back(name_of(tensor.GetElementType()));
      shapes.push_back(tensor.GetShape());
      // Without axes it says nothing of a shape that is not known; a scalar is refused when it comes.
      if (shapes.back().empty()) shapes.back().assign(schema.inputs[i].axes.size(), kUnknown);
    }
    problem = type_problem(schema, types);
    if (problem.empty()) problem = shape_problem(schema, shapes);
    if (problem.empty()) *kernel = new Kernel<Called>(reverse != 0);
    return problem;
  }

  ONNXTensorElementDataType type_;
};

}  // namespace storm::onnxruntime
