#include "common/schema.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

namespace storm {

namespace {

// An axis is a name, or a name less a number.
struct Axis {
  std::string name;
  int64_t less = 0;

  explicit Axis(const char* text) : name(text) {
    const size_t minus = name.find('-');
    if (minus == std::string::npos) return;
    less = std::stoll(name.substr(minus + 1));
    name.resize(minus);
  }
};

using Sizes = std::map<std::string, int64_t>;

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string named(const Value& value) {
  return std::string(value.name) + " [" + listed({value.axes.begin(), value.axes.end()}) + "]";
}

// The shape that a value must have, as far as sizes are known.
std::string expected(const Value& value, const Sizes& sizes) {
  std::vector<std::string> words;
  for (const char* text : value.axes) {
    const Axis axis(text);
    const auto known = sizes.find(axis.name);
    words.push_back(known == sizes.end() ? text : std::to_string(known->second - axis.less));
  }
  return "[" + listed(words) + "]";
}

int64_t least(const Schema& schema, const std::string& axis) {
  for (const Minimum& minimum : schema.minimum) {
    if (axis == minimum.axis) return minimum.size;
  }
  return 1;
}

// Whether the elements, of up to 8 bytes each, can be counted.
bool is_countable(const Shape& shape) {
  int64_t left = std::numeric_limits<int64_t>::max() / 8;
  for (const int64_t size : shape) {
    if (size != kUnknown) left /= size;
  }
  return left > 0;
}

std::string value_problem(const Schema& schema, const Value& value, const Shape& shape, Sizes& sizes) {
  const std::string must = schema.qualified_name() + ": " + named(value) + " must have ";
  const std::string got = ", got shape " + text_of(shape);
  if (shape.size() != value.axes.size()) return must + std::to_string(value.axes.size()) + " axes" + got;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == kUnknown) continue;
    const Axis axis(value.axes[i]);
    // No size near the limit is ever added to.
    const int64_t most = std::numeric_limits<int64_t>::max() - axis.less;
    const int64_t full = std::min(shape[i], most) + axis.less;
    const auto [entry, is_new] = sizes.emplace(axis.name, full);
    if (entry->second != full) return must + "shape " + expected(value, sizes) + ", got " + text_of(shape);
    if (full < least(schema, axis.name)) {
      return must + axis.name + " of at least " + std::to_string(least(schema, axis.name)) + got;
    }
  }
  return is_countable(shape) ? "" : must + "fewer elements" + got;
}

}  // namespace

size_t shaped_like(const Schema& schema, size_t output) {
  const auto same = [&](const Value& input) {
    const std::vector<const char*>& axes = schema.outputs[output].axes;
    return std::equal(axes.begin(), axes.end(), input.axes.begin(), input.axes.end(),
                      [](const char* a, const char* b) { return std::strcmp(a, b) == 0; });
  };
  return static_cast<size_t>(std::find_if(schema.inputs.begin(), schema.inputs.end(), same) - schema.inputs.begin());
}

std::string shape_problem(const Schema& schema, const std::vector<Shape>& shapes) {
  Sizes sizes;
  for (size_t i = 0; i < schema.inputs.size(); ++i) {
    const std::string problem = value_problem(schema, schema.inputs[i], shapes[i], sizes);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string type_problem(const Schema& schema, const std::vector<std::string>& types) {
  const std::vector<std::string> floating = {"float32", "float16", "bfloat16"};
  for (size_t i = 0; i < schema.inputs.size(); ++i) {
    const Value& value = schema.inputs[i];
    const std::string must = schema.qualified_name() + ": " + value.name + " must be ", got = ", got " + types[i];
    if (i == 0 && std::find(floating.begin(), floating.end(), types[0]) == floating.end()) {
      return must + "one of " + listed(floating) + got;
    }
    if (value.is_float32 && types[i] != "float32") return must + "float32" + got;
    if (!value.is_float32 && types[i] != types[0]) return must + types[0] + " like " + schema.inputs[0].name + got;
  }
  return "";
}

std::string count_problem(const Schema& schema, size_t inputs, size_t outputs) {
  if (inputs == schema.inputs.size() && outputs == schema.outputs.size()) return "";
  return schema.qualified_name() + ": takes " + std::to_string(schema.inputs.size()) + " inputs and gives " +
         std::to_string(schema.outputs.size()) + " outputs, the node has " + std::to_string(inputs) + " and " +
         std::to_string(outputs) + ": export the model again";
}

std::string text_of(const Shape& shape) {
  std::vector<std::string> words;
  for (const int64_t size : shape) words.push_back(std::to_string(size));
  return "[" + listed(words) + "]";
}

std::string describe(const Schema& schema) {
  std::string text = "operator " + schema.qualified_name() + " " + kVersion + "\n";
  for (const auto& [kind, values] : {std::pair<const char*, const std::vector<Value>&>{"input", schema.inputs},
                                     {"output", schema.outputs}}) {
    for (const Value& value : values) {
      text += std::string(kind) + " " + value.name + (value.is_float32 ? " float32" : " T");
      for (const char* axis : value.axes) text += std::string(" ") + axis;
      text += "\n";
    }
  }
  for (const Minimum& minimum : schema.minimum) {
    text += std::string("minimum ") + minimum.axis + " " + std::to_string(minimum.size) + "\n";
  }
  return text + "attribute " + kReverse + " 0 1\nattribute " + kPluginVersion + " " + kVersion + "\nattribute " +
         kPluginNamespace + " " + kDomain + "\n";
}

}  // namespace storm
