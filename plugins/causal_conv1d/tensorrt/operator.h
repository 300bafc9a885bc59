// storm::CausalConv1d for TensorRT.
#pragma once

#include "tensorrt/plugin.h"

namespace storm::tensorrt {

const Operator& causal_conv1d_operator();

}  // namespace storm::tensorrt
