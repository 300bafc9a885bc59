#include "causal_conv1d/tensorrt/operator.h"

#include "causal_conv1d/cuda/causal_conv1d.h"

namespace storm::tensorrt {

namespace {

// The binary interface of version 1; op.py says the same.
enum Input : int32_t {
  kX,             // T [batch, length, channels]
  kWeight,        // T [channels, width]
  kBias,          // T [channels]
  kInitialState,  // T [batch, width-1, channels]
};
enum Output : int32_t {
  kY,           // T [batch, length, channels]
  kFinalState,  // T [batch, width-1, channels]
};

class CausalConv1d final : public Operator {
 public:
  const char* name() const noexcept override { return "CausalConv1d"; }
  const std::vector<Value>& inputs() const noexcept override { return inputs_; }
  const std::vector<Value>& outputs() const noexcept override { return outputs_; }
  int32_t shaped_like(int32_t output) const noexcept override { return output == kY ? kX : kInitialState; }
  std::string refusal(const std::vector<Sizes>&) const override { return ""; }
  size_t workspace(const std::vector<Sizes>&) const override { return 0; }

  cudaError_t enqueue(Type type, bool reverse, const std::vector<Sizes>& shapes, const void* const* inputs,
                      void* const* outputs, void*, cudaStream_t stream) const override {
    return cuda::causal_conv1d(make_causal_conv1d(type, shapes[kX][0], shapes[kX][1], shapes[kX][2],
                                                  shapes[kWeight][1], reverse, inputs, outputs),
                               stream);
  }

 private:
  const std::vector<Value> inputs_ = {{"x", false, {"batch", "length", "channels"}},
                                      {"weight", false, {"channels", "width"}},
                                      {"bias", false, {"channels"}},
                                      {"initial_state", false, {"batch", "width-1", "channels"}}};
  const std::vector<Value> outputs_ = {{"y", false, {"batch", "length", "channels"}},
                                       {"final_state", false, {"batch", "width-1", "channels"}}};
};

}  // namespace

const Operator& causal_conv1d_operator() {
  static const CausalConv1d instance;
  return instance;
}

}  // namespace storm::tensorrt
