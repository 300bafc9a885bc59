// storm::SelectiveScan for TensorRT.
#pragma once

#include "tensorrt/plugin.h"

namespace storm::tensorrt {

const Operator& selective_scan_operator();

}  // namespace storm::tensorrt
