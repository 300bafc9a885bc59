// storm::SelectiveScan for one of ONNX Runtime's providers.
#pragma once

#include "onnxruntime/devices.h"

namespace storm::onnxruntime {

template <typename Device, typename T>
class SelectiveScanOp {
 public:
  SelectiveScanOp(const OrtApi* api, const OrtKernelInfo* info) : reverse_(reverse_of(api, info)) {}

  Ort::Status Compute(OrtKernelContext* context, const Tensor<T>& u, const Tensor<T>& delta, const Tensor<float>& A,
                      const Tensor<T>& B, const Tensor<T>& C, const Tensor<float>& D, const Tensor<T>& z,
                      const Tensor<float>& delta_bias, const Tensor<float>& initial_state, Tensor<T>& y,
                      Tensor<float>& final_state) {
    try {
      ShapeCheck check{"storm::SelectiveScan", {}};
      if (u.Shape().size() != 3 || A.Shape().size() != 2) {
        return refusal("storm::SelectiveScan: u [batch, length, channels] and A [channels, state] must have 3 and 2 axes, "
                       "got shapes " + text_of(u.Shape()) + " and " + text_of(A.Shape()));
      }
      const int64_t batch = u.Shape()[0], length = u.Shape()[1], channels = u.Shape()[2], state = A.Shape()[1];
      check("delta [batch, length, channels]", delta.Shape(), {batch, length, channels});
      check("A [channels, state]", A.Shape(), {channels, state});
      check("B [batch, length, state]", B.Shape(), {batch, length, state});
      check("C [batch, length, state]", C.Shape(), {batch, length, state});
      check("D [channels]", D.Shape(), {channels});
      check("z [batch, length, channels]", z.Shape(), {batch, length, channels});
      check("delta_bias [channels]", delta_bias.Shape(), {channels});
      check("initial_state [batch, channels, state]", initial_state.Shape(), {batch, channels, state});
      if (!check.problem.empty()) return refusal(check.problem);

      Device::run(context, SelectiveScan{kType<T>, batch, length, channels, state, reverse_, u.Data(),
                                              delta.Data(), A.Data(), B.Data(), C.Data(), D.Data(), z.Data(),
                                              delta_bias.Data(), initial_state.Data(),
                                              y.Allocate({batch, length, channels}),
                                              final_state.Allocate({batch, channels, state})});
      return Ort::Status{};
    } catch (const std::exception& e) {
      return refusal(e.what());
    }
  }

 private:
  bool reverse_;
};

}  // namespace storm::onnxruntime
