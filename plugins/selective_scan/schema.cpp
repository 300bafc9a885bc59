#include "selective_scan/schema.h"

namespace storm {

const Schema& selective_scan_schema() {
  static const Schema schema = {"SelectiveScan",
                                {{"u", false, {"batch", "length", "channels"}},
                                 {"delta", false, {"batch", "length", "channels"}},
                                 {"A", true, {"channels", "state"}},
                                 {"B", false, {"batch", "length", "state"}},
                                 {"C", false, {"batch", "length", "state"}},
                                 {"D", true, {"channels"}},
                                 {"z", false, {"batch", "length", "channels"}},
                                 {"delta_bias", true, {"channels"}},
                                 {"initial_state", true, {"batch", "channels", "state"}}},
                                {{"y", false, {"batch", "length", "channels"}},
                                 {"final_state", true, {"batch", "channels", "state"}}},
                                {}};
  return schema;
}

}  // namespace storm
