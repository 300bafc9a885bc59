// storm::CausalConv1d for one of ONNX Runtime's providers.
#pragma once

#include <vector>

#include "causal_conv1d/schema.h"
#include "onnxruntime/devices.h"

namespace storm::onnxruntime {

template <typename Device>
struct CausalConv1dOn {
  static constexpr const char* kProvider = Device::kProvider;
  static const Schema& schema() { return causal_conv1d_schema(); }

  static void run(OrtKernelContext* context, Type type, const std::vector<Shape>& shapes, bool reverse,
                  const void* const* inputs, void* const* outputs) {
    const Shape &x = shapes[0], &weight = shapes[1];  // [batch, length, channels], [channels, width]
    Device::run(context, make_causal_conv1d(type, x[0], x[1], x[2], weight[1], reverse, inputs, outputs));
  }
};

}  // namespace storm::onnxruntime
