// What storm::SelectiveScan takes and gives: op.py in C++.
#pragma once

#include "common/schema.h"

namespace storm {

const Schema& selective_scan_schema();

}  // namespace storm
