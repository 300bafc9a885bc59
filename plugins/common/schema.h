// What an operator takes and gives, for the C++ forms that are handed tensors: the same as op.py, and the same words when
// something does not fit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace storm {

using Shape = std::vector<int64_t>;

constexpr char kDomain[] = "storm";
constexpr char kVersion[] = "1";  // of the interface
// The attributes of every node: 0 or 1, kVersion, kDomain.
constexpr char kReverse[] = "reverse";
constexpr char kPluginVersion[] = "plugin_version";
constexpr char kPluginNamespace[] = "plugin_namespace";

constexpr int64_t kUnknown = -1;  // a size that nobody knows yet

// One input or output. An axis is the name of a size; "width-1" is one less than it.
struct Value {
  const char* name;
  bool is_float32;  // whatever T is
  std::vector<const char*> axes;
};

struct Minimum {
  const char* axis;
  int64_t size;
};

struct Schema {
  const char* name;
  std::vector<Value> inputs;  // the first one's type is T
  std::vector<Value> outputs;
  std::vector<Minimum> minimum;  // of an axis that is not named here: 1

  // `storm::SelectiveScan`.
  std::string qualified_name() const { return std::string(kDomain) + "::" + name; }
};

// The input that has the shape of an output.
size_t shaped_like(const Schema& schema, size_t output);

// Why these shapes of the inputs do not fit, in one line that names the first that does not; empty if they do. Sizes may
// be kUnknown, which fits anything.
std::string shape_problem(const Schema& schema, const std::vector<Shape>& shapes);

// Likewise for the names of the inputs' element types.
std::string type_problem(const Schema& schema, const std::vector<std::string>& types);

// Likewise for how many there are.
std::string count_problem(const Schema& schema, size_t inputs, size_t outputs);

// `[2, 300, 34]`.
std::string text_of(const Shape& shape);

// The schema as text, a line for each thing that op.py says of it: what the libraries answer when they are asked.
std::string describe(const Schema& schema);

}  // namespace storm
