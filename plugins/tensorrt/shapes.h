// Whether shapes agree with what an operator's values say of their axes.
#pragma once

#include <string>
#include <vector>

#include "tensorrt/plugin.h"

namespace storm::tensorrt {

// What is wrong with the shapes of the inputs, in the words of storm_edge's other forms; empty if they are right. A
// size of -1 is not known yet and agrees with any.
std::string disagreement(const Operator& op, const std::vector<Sizes>& shapes);

}  // namespace storm::tensorrt
