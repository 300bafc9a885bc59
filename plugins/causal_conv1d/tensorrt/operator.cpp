#include "causal_conv1d/tensorrt/operator.h"

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "causal_conv1d/schema.h"

namespace storm::tensorrt {

namespace {

// The binary interface of version 1; op.py says the same.
enum Input : int32_t {
  kX,             // T [batch, length, channels]
  kWeight,        // T [channels, width]
  kBias,          // T [channels]
  kInitialState,  // T [batch, width-1, channels]
};

class CausalConv1d final : public Operator {
 public:
  CausalConv1d() : Operator(causal_conv1d_schema()) {}

  std::string refusal(const std::vector<Shape>& shapes) const override {
    const Shape &x = shapes[kX], &weight = shapes[kWeight];
    return cuda::causal_conv1d_refusal(x[0], x[1], x[2], weight[1]);
  }

  size_t workspace(const std::vector<Shape>&) const override { return 0; }

  cudaError_t enqueue(Type type, bool reverse, const std::vector<Shape>& shapes, const void* const* inputs,
                      void* const* outputs, void*, cudaStream_t stream) const override {
    return cuda::causal_conv1d(make_causal_conv1d(type, shapes[kX][0], shapes[kX][1], shapes[kX][2],
                                                  shapes[kWeight][1], reverse, inputs, outputs),
                               stream);
  }
};

}  // namespace

const Operator& causal_conv1d_operator() {
  static const CausalConv1d instance;
  return instance;
}

}  // namespace storm::tensorrt
