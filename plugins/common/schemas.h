// What a library answers when it is asked for the operators that are compiled into it.
#pragma once

#include <string>

#include "causal_conv1d/schema.h"
#include "selective_scan/schema.h"

namespace storm {

// Both operators, one after the other (schema.h's describe); for good.
inline const char* schemas_text() {
  static const std::string text = describe(selective_scan_schema()) + describe(causal_conv1d_schema());
  return text.c_str();
}

}  // namespace storm
