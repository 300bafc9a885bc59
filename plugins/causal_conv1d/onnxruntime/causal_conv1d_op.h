// storm::CausalConv1d for one of ONNX Runtime's providers.
#pragma once

#include "onnxruntime/devices.h"

namespace storm::onnxruntime {

template <typename Device, typename T>
class CausalConv1dOp {
 public:
  CausalConv1dOp(const OrtApi* api, const OrtKernelInfo* info) : reverse_(reverse_of(api, info)) {}

  Ort::Status Compute(OrtKernelContext* context, const Tensor<T>& x, const Tensor<T>& weight, const Tensor<T>& bias,
                      const Tensor<T>& initial_state, Tensor<T>& y, Tensor<T>& final_state) {
    try {
      ShapeCheck check{"storm::CausalConv1d", {}};
      if (x.Shape().size() != 3 || weight.Shape().size() != 2) {
        return refusal("storm::CausalConv1d: x [batch, length, channels] and weight [channels, width] must have 3 and 2 "
                       "axes, got shapes " + text_of(x.Shape()) + " and " + text_of(weight.Shape()));
      }
      const int64_t batch = x.Shape()[0], length = x.Shape()[1], channels = x.Shape()[2], width = weight.Shape()[1];
      check("weight [channels, width]", weight.Shape(), {channels, width});
      check("bias [channels]", bias.Shape(), {channels});
      check("initial_state [batch, width-1, channels]", initial_state.Shape(), {batch, width - 1, channels});
      if (!check.problem.empty()) return refusal(check.problem);

      Device::run(context, CausalConv1d{kType<T>, batch, length, channels, width, reverse_, x.Data(),
                                             weight.Data(), bias.Data(), initial_state.Data(),
                                             y.Allocate({batch, length, channels}),
                                             final_state.Allocate({batch, width - 1, channels})});
      return Ort::Status{};
    } catch (const std::exception& e) {
      return refusal(e.what());
    }
  }

 private:
  bool reverse_;
};

}  // namespace storm::onnxruntime
