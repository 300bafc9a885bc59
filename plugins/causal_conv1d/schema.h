// What storm::CausalConv1d takes and gives: op.py in C++.
#pragma once

#include "common/schema.h"

namespace storm {

const Schema& causal_conv1d_schema();

}  // namespace storm
