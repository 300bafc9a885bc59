// storm::SelectiveScan for one of ONNX Runtime's providers.
#pragma once

#include <vector>

#include "onnxruntime/devices.h"
#include "selective_scan/schema.h"

namespace storm::onnxruntime {

template <typename Device>
struct SelectiveScanOn {
  static constexpr const char* kProvider = Device::kProvider;
  static const Schema& schema() { return selective_scan_schema(); }

  static void run(OrtKernelContext* context, Type type, const std::vector<Shape>& shapes, bool reverse,
                  const void* const* inputs, void* const* outputs) {
    const Shape &u = shapes[0], &A = shapes[2];  // [batch, length, channels], [channels, state]
    Device::run(context, make_selective_scan(type, u[0], u[1], u[2], A[1], reverse, inputs, outputs));
  }
};

}  // namespace storm::onnxruntime
