// libstorm_tensorrt.so as TensorRT sees it, without a TensorRT library: its creators, plugins made from fields, and what
// the interface hands to them.
#pragma once

#include <NvInfer.h>
#include <dlfcn.h>

#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace storm::test {

using namespace nvinfer1;

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }
inline void expect(bool good, const std::string& what) {
  if (!good) fail(what);
}

class Logger final : public ILogger {
 public:
  void log(Severity, const char* message) noexcept override { last = message; }
  std::string last;
};

class LoggerFinder final : public ILoggerFinder {
 public:
  explicit LoggerFinder(ILogger& logger) : logger_(logger) {}
  ILogger* findLogger() override { return &logger_; }

 private:
  ILogger& logger_;
};

inline Logger logger;
inline LoggerFinder logger_finder(logger);

inline void expect_told(const std::string& words) {
  expect(logger.last.find(words) != std::string::npos, "the log has no '" + words + "' but '" + logger.last + "'");
  logger.last.clear();
}

// A dimension that is a name or a number.
class Expression final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  explicit Expression(int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const override { return value_ >= 0; }
  int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }

 private:
  int64_t value_;
};

class Builder final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Builder() { IExprBuilder::mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return &made_.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) override {
    return &made_.emplace_back(-1);
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* symbol() { return &made_.emplace_back(-1); }

 private:
  std::deque<Expression> made_;
};

using Sizes = std::vector<int64_t>;

struct Case {
  const char* name;
  std::vector<Sizes> inputs;
  std::vector<bool> is_float32;  // of inputs, then outputs
  std::vector<int> output_like;  // the input whose shape an output has
};

inline Case scan_case(int64_t batch, int64_t length, int64_t channels, int64_t state) {
  const Sizes tokens = {batch, length, channels}, matrix = {batch, length, state}, states = {batch, channels, state};
  return {"SelectiveScan",
          {tokens, tokens, {channels, state}, matrix, matrix, {channels}, tokens, {channels}, states},
          {false, false, true, false, false, true, false, true, true, false, true},
          {0, 8}};
}

inline Case conv_case(int64_t batch, int64_t length, int64_t channels, int64_t width) {
  return {"CausalConv1d",
          {{batch, length, channels}, {channels, width}, {channels}, {batch, width - 1, channels}},
          {false, false, false, false, false, false},
          {0, 3}};
}

inline Dims dims_of(const Sizes& sizes) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) dims.d[i] = sizes[i];
  return dims;
}

inline PluginTensorDesc describe(const Sizes& sizes, DataType type) {
  PluginTensorDesc desc{};
  desc.dims = dims_of(sizes);
  desc.type = type;
  desc.format = TensorFormat::kLINEAR;
  desc.scale = 1.0f;
  return desc;
}

inline std::vector<PluginTensorDesc> describe_all(const Case& of, DataType type, bool outputs) {
  std::vector<PluginTensorDesc> all;
  const size_t inputs = of.inputs.size();
  for (size_t i = 0; i < (outputs ? of.output_like.size() : inputs); ++i) {
    const Sizes& sizes = outputs ? of.inputs[of.output_like[i]] : of.inputs[i];
    all.push_back(describe(sizes, of.is_float32[outputs ? inputs + i : i] ? DataType::kFLOAT : type));
  }
  return all;
}

inline std::vector<DynamicPluginTensorDesc> dynamic(const Case& of, DataType type) {
  std::vector<DynamicPluginTensorDesc> all;
  for (const bool outputs : {false, true}) {
    for (const PluginTensorDesc& desc : describe_all(of, type, outputs)) {
      DynamicPluginTensorDesc value{};
      value.desc = desc;
      value.min = value.opt = value.max = desc.dims;
      all.push_back(value);
    }
  }
  return all;
}

struct Plugin {
  std::unique_ptr<IPluginV3> plugin;
  IPluginV3OneCore* core;
  IPluginV3OneBuild* build;
  IPluginV3OneRuntime* runtime;

  explicit Plugin(IPluginV3* made) : plugin(made) {
    expect(made != nullptr, "no plugin was made: " + logger.last);
    core = static_cast<IPluginV3OneCore*>(made->getCapabilityInterface(PluginCapabilityType::kCORE));
    build = static_cast<IPluginV3OneBuild*>(made->getCapabilityInterface(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(made->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    expect(core != nullptr && build != nullptr && runtime != nullptr, "a capability is missing");
  }

  size_t workspace(const Case& of, DataType type) const {
    const auto values = dynamic(of, type);
    const int32_t inputs = static_cast<int32_t>(of.inputs.size());
    return build->getWorkspaceSize(values.data(), inputs, values.data() + inputs, 2);
  }
};

class Library {
 public:
  explicit Library(const char* path) {
    void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) fail(std::string("cannot load ") + path + ": " + dlerror());
    const auto creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(handle, "getCreators"));
    const auto finder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(handle, "setLoggerFinder"));
    expect(creators != nullptr && finder != nullptr, "getCreators or setLoggerFinder is missing");
    finder(&logger_finder);
    all = creators(count);
  }

  IPluginCreatorV3One& creator(const std::string& name) const {
    for (int32_t i = 0; i < count; ++i) {
      auto* const one = static_cast<IPluginCreatorV3One*>(all[i]);
      if (name == one->getPluginName()) return *one;
    }
    fail("there is no creator " + name);
  }

  IPluginV3* make(const char* name, std::vector<PluginField> fields, TensorRTPhase phase) const {
    const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
    return creator(name).createPlugin(name, &collection, phase);
  }

  Plugin build_plugin(const char* name, int32_t reverse = 0) const {
    return Plugin(make(name, {PluginField("reverse", &reverse, PluginFieldType::kINT32, 1)}, TensorRTPhase::kBUILD));
  }

  // As an engine does: what the plugin gave to be kept, copied, and made into a plugin again.
  Plugin reload(const Plugin& built, const char* name, int32_t version_offset = 0) const {
    const PluginFieldCollection& kept = *built.runtime->getFieldsToSerialize();
    std::vector<int32_t> values(kept.nbFields);
    std::vector<PluginField> fields;
    for (int32_t i = 0; i < kept.nbFields; ++i) {
      expect(kept.fields[i].type == PluginFieldType::kINT32 && kept.fields[i].length == 1,
             "a field is no single INT32");
      std::memcpy(&values[i], kept.fields[i].data, sizeof values[i]);
      if (std::strcmp(kept.fields[i].name, "engine_version") == 0) values[i] += version_offset;
      fields.emplace_back(kept.fields[i].name, &values[i], PluginFieldType::kINT32, 1);
    }
    return Plugin(make(name, fields, TensorRTPhase::kRUNTIME));
  }

  IPluginCreatorInterface* const* all;
  int32_t count = 0;
};

}  // namespace storm::test
