#include "tensorrt/shapes.h"

#include <map>

namespace storm::tensorrt {

namespace {

constexpr int64_t kUnknown = -1;

std::string joined(const std::vector<const char*>& axes) {
  std::string text;
  for (const char* axis : axes) text += (text.empty() ? "" : ", ") + std::string(axis);
  return "[" + text + "]";
}

std::string joined(const Sizes& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

std::string disagreement(const Operator& op, const std::vector<Sizes>& shapes) {
  std::map<std::string, int64_t> known;
  for (size_t i = 0; i < op.inputs().size(); ++i) {
    const Value& value = op.inputs()[i];
    const std::string must = std::string(value.name) + " " + joined(value.axes) + " must have ";
    if (shapes[i].size() != value.axes.size()) {
      return must + std::to_string(value.axes.size()) + " axes, got shape " + joined(shapes[i]);
    }
    for (size_t axis = 0; axis < value.axes.size(); ++axis) {
      if (shapes[i][axis] == kUnknown) continue;
      std::string name = value.axes[axis];
      int64_t size = shapes[i][axis];
      const size_t minus = name.find('-');
      if (minus != std::string::npos) {
        size += std::stoll(name.substr(minus + 1));
        name.resize(minus);
      }
      const auto [entry, is_new] = known.emplace(name, size);
      if (shapes[i][axis] < 1) return must + "no empty axis, got shape " + joined(shapes[i]);
      if (!is_new && entry->second != size) {
        return must + name + " = " + std::to_string(entry->second) + " like the inputs before it, got shape " +
               joined(shapes[i]);
      }
    }
  }
  return op.refusal(shapes);
}

}  // namespace storm::tensorrt
