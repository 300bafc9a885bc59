#include "selective_scan/tensorrt/operator.h"

#include "selective_scan/cuda/selective_scan.h"
#include "selective_scan/schema.h"

namespace storm::tensorrt {

namespace {

// The binary interface of version 1; op.py says the same.
enum Input : int32_t {
  kU,             // T   [batch, length, channels]
  kDelta,         // T   [batch, length, channels]
  kA,             // f32 [channels, state]
  kB,             // T   [batch, length, state]
  kC,             // T   [batch, length, state]
  kD,             // f32 [channels]
  kZ,             // T   [batch, length, channels]
  kDeltaBias,     // f32 [channels]
  kInitialState,  // f32 [batch, channels, state]
};

class SelectiveScan final : public Operator {
 public:
  SelectiveScan() : Operator(selective_scan_schema()) {}

  std::string refusal(const std::vector<Shape>& shapes) const override {
    const Shape &u = shapes[kU], &A = shapes[kA];
    return cuda::selective_scan_refusal(u[0], u[1], u[2], A[1]);
  }

  size_t workspace(const std::vector<Shape>& shapes) const override {
    return cuda::selective_scan_workspace(shapes[kU][0], shapes[kU][1], shapes[kU][2], shapes[kA][1]);
  }

  cudaError_t enqueue(Type type, bool reverse, const std::vector<Shape>& shapes, const void* const* inputs,
                      void* const* outputs, void* workspace, cudaStream_t stream) const override {
    return cuda::selective_scan(make_selective_scan(type, shapes[kU][0], shapes[kU][1], shapes[kU][2], shapes[kA][1],
                                                    reverse, inputs, outputs),
                                workspace, stream);
  }
};

}  // namespace

const Operator& selective_scan_operator() {
  static const SelectiveScan instance;
  return instance;
}

}  // namespace storm::tensorrt
