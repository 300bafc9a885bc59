#include "selective_scan/tensorrt/operator.h"

#include "selective_scan/cuda/selective_scan.h"

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
enum Output : int32_t {
  kY,           // T   [batch, length, channels]
  kFinalState,  // f32 [batch, channels, state]
};

class SelectiveScan final : public Operator {
 public:
  const char* name() const noexcept override { return "SelectiveScan"; }
  const std::vector<Value>& inputs() const noexcept override { return inputs_; }
  const std::vector<Value>& outputs() const noexcept override { return outputs_; }
  int32_t shaped_like(int32_t output) const noexcept override { return output == kY ? kU : kInitialState; }

  std::string refusal(const std::vector<Sizes>& shapes) const override {
    if (shapes[kA][1] <= kMaximumState) return "";
    return "A [channels, state] must have at most " + std::to_string(kMaximumState) + " states, got " +
           std::to_string(shapes[kA][1]);
  }

  size_t workspace(const std::vector<Sizes>& shapes) const override {
    return cuda::selective_scan_workspace(shapes[kU][0], shapes[kU][1], shapes[kU][2], shapes[kA][1]);
  }

  cudaError_t enqueue(Type type, bool reverse, const std::vector<Sizes>& shapes, const void* const* inputs,
                      void* const* outputs, void* workspace, cudaStream_t stream) const override {
    return cuda::selective_scan(make_selective_scan(type, shapes[kU][0], shapes[kU][1], shapes[kU][2], shapes[kA][1],
                                                    reverse, inputs, outputs),
                                workspace, stream);
  }

 private:
  const std::vector<Value> inputs_ = {{"u", false, {"batch", "length", "channels"}},
                                      {"delta", false, {"batch", "length", "channels"}},
                                      {"A", true, {"channels", "state"}},
                                      {"B", false, {"batch", "length", "state"}},
                                      {"C", false, {"batch", "length", "state"}},
                                      {"D", true, {"channels"}},
                                      {"z", false, {"batch", "length", "channels"}},
                                      {"delta_bias", true, {"channels"}},
                                      {"initial_state", true, {"batch", "channels", "state"}}};
  const std::vector<Value> outputs_ = {{"y", false, {"batch", "length", "channels"}},
                                       {"final_state", true, {"batch", "channels", "state"}}};
};

}  // namespace

const Operator& selective_scan_operator() {
  static const SelectiveScan instance;
  return instance;
}

}  // namespace storm::tensorrt
