#include "causal_conv1d/schema.h"

namespace storm {

const Schema& causal_conv1d_schema() {
  static const Schema schema = {"CausalConv1d",
                                {{"x", false, {"batch", "length", "channels"}},
                                 {"weight", false, {"channels", "width"}},
                                 {"bias", false, {"channels"}},
                                 {"initial_state", false, {"batch", "width-1", "channels"}}},
                                {{"y", false, {"batch", "length", "channels"}},
                                 {"final_state", false, {"batch", "width-1", "channels"}}},
                                {{"width", 2}}};
  return schema;
}

}  // namespace storm
