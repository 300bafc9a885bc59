// The entry point that ONNX Runtime calls when it loads libstorm_onnxruntime.so.
#include <memory>
#include <string>
#include <vector>

#include "causal_conv1d/onnxruntime/causal_conv1d_op.h"
#include "onnxruntime/devices.h"
#include "selective_scan/onnxruntime/selective_scan_op.h"

namespace storm::onnxruntime {
namespace {

constexpr char kDomain[] = "storm";

// ONNX Runtime keeps pointers to the domain and its operators for as long as sessions live: for good, therefore.
struct Operators {
  std::vector<std::unique_ptr<Ort::Custom::OrtLiteCustomOp>> ops;
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
    add<Device, float>();
    add<Device, Ort::Float16_t>();
    add<Device, Ort::BFloat16_t>();
  }

  template <typename Device, typename T>
  void add() {
    using Scan = SelectiveScanOp<Device, T>;
    using Conv = CausalConv1dOp<Device, T>;
    ops.emplace_back(Ort::Custom::CreateLiteCustomOp<Scan>("SelectiveScan", Device::kProvider));
    ops.emplace_back(Ort::Custom::CreateLiteCustomOp<Conv>("CausalConv1d", Device::kProvider));
  }
};

}  // namespace
}  // namespace storm::onnxruntime

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
