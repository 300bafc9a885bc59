// The entry point that ONNX Runtime calls when it loads libstorm_onnxruntime.so.
#include <memory>
#include <string>
#include <vector>

#include "causal_conv1d/onnxruntime/causal_conv1d_op.h"
#include "common/schemas.h"
#include "onnxruntime/devices.h"
#include "onnxruntime/operator.h"
#include "selective_scan/onnxruntime/selective_scan_op.h"

namespace storm::onnxruntime {
namespace {

// ONNX Runtime keeps pointers to the domain and its operators for as long as sessions live: for good, therefore.
struct Operators {
  std::vector<std::shared_ptr<OrtCustomOp>> ops;  // shared, because these remember how they are deleted
  Ort::CustomOpDomain domain{kDomain};

  Operators() {
    add_all_types<OnCpu>();
#ifdef STORM_WITH_CUDA
    add_all_types<OnCuda>();
#endif
    for (const auto& op : ops) domain.Add(op.get());
  }

  // Every T or none: for a type that is missing ONNX Runtime would not fall back to the model's function.
  template <typename Device>
  void add_all_types() {
    for (const ONNXTensorElementDataType type :
         {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
          ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16}) {
      ops.push_back(std::make_shared<Operator<SelectiveScanOn<Device>>>(type));
      ops.push_back(std::make_shared<Operator<CausalConv1dOn<Device>>>(type));
    }
  }
};

}  // namespace
}  // namespace storm::onnxruntime

extern "C" __attribute__((visibility("default"))) const char* storm_schemas() { return storm::schemas_text(); }

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    const std::string message = "libstorm_onnxruntime.so was built for ONNX Runtime 1." +
                                std::to_string(ORT_API_VERSION) + " or newer, this is " + base->GetVersionString() +
                                ": build it again with this version's headers";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  try {
    static const storm::onnxruntime::Operators operators;
    Ort::UnownedSessionOptions(options).Add(operators.domain);
    return nullptr;
  } catch (const std::exception& e) {
    return api->CreateStatus(ORT_FAIL, e.what());
  }
}
