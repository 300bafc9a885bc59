// Drives libstorm_tensorrt.so through TensorRT's own plugin interface, without a TensorRT library: this program is the
// TensorRT. It finds the creators, makes plugins from fields, asks for types, formats, shapes and workspace,
// serializes, makes them again, and runs them on device memory where there is a GPU.
//
//   storm_tensorrt_harness LIBRARY     prints "ok NAME", "skipped NAME: why" or "failed NAME: what" for every check
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "plugin_library.h"

namespace {

using namespace storm::test;

const Case kCases[] = {scan_case(2, 300, 34, 16), conv_case(2, 300, 34, 4)};
constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF, DataType::kBF16};

void creators(const Library& library) {
  expect(library.count == 2, "not two creators");
  for (const Case& one : kCases) {
    IPluginCreatorV3One& creator = library.creator(one.name);
    expect(std::string(creator.getPluginNamespace()) == "storm", "namespace");
    expect(std::string(creator.getPluginVersion()) == "1", "version");
    expect(std::string(creator.getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE", "kind of creator");
    const PluginFieldCollection& fields = *creator.getFieldNames();
    expect(fields.nbFields == 1 && std::string(fields.fields[0].name) == "reverse", "fields");
    const Plugin plugin = library.build_plugin(one.name);
    expect(std::string(plugin.core->getPluginName()) == one.name, "the plugin's name");
    expect(std::string(plugin.core->getPluginNamespace()) == "storm", "the plugin's namespace");
    expect(plugin.build->getNbOutputs() == 2, "outputs");
  }
}

void attributes(const Library& library) {
  for (const Case& one : kCases) {
    const int64_t wide = 1;
    Plugin(library.make(one.name, {PluginField("reverse", &wide, PluginFieldType::kINT64, 1)}, TensorRTPhase::kBUILD));
    const int32_t wrong = 2;
    const PluginField field("reverse", &wrong, PluginFieldType::kINT32, 1);
    expect(library.make(one.name, {field}, TensorRTPhase::kBUILD) == nullptr, "reverse = 2 was taken");
    expect_told("needs the attribute reverse, 0 or 1: export the model again");
    expect(library.make(one.name, {}, TensorRTPhase::kBUILD) == nullptr, "no reverse was taken");
    expect_told(one.name);
    expect(library.creator(one.name).createPlugin("", nullptr, TensorRTPhase::kBUILD) == nullptr, "null was taken");
  }
}

void types(const Library& library) {
  for (const Case& one : kCases) {
    const Plugin plugin = library.build_plugin(one.name);
    const int32_t inputs = static_cast<int32_t>(one.inputs.size());
    for (const DataType type : kTypes) {
      std::vector<DataType> in, out(2);
      for (const auto& desc : describe_all(one, type, false)) in.push_back(desc.type);
      expect(plugin.build->getOutputDataTypes(out.data(), 2, in.data(), inputs) == 0, "types were refused");
      for (int i = 0; i < 2; ++i) expect(out[i] == (one.is_float32[inputs + i] ? DataType::kFLOAT : type), "type");
    }
    std::vector<DataType> in(inputs - 1, DataType::kFLOAT), out(2);
    expect(plugin.build->getOutputDataTypes(out.data(), 2, in.data(), inputs - 1) != 0, "a missing input was taken");
    expect_told("export the model again");
  }
}

void formats(const Library& library) {
  for (const Case& one : kCases) {
    const Plugin plugin = library.build_plugin(one.name);
    const int32_t inputs = static_cast<int32_t>(one.inputs.size());
    for (const DataType type :
         {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8, DataType::kINT32}) {
      auto values = dynamic(one, type);
      const bool known = type != DataType::kINT8 && type != DataType::kINT32;
      for (int32_t i = 0; i < inputs + 2; ++i) {
        const bool taken = plugin.build->supportsFormatCombination(i, values.data(), inputs, 2);
        if (known) expect(taken, "a right type was refused at " + std::to_string(i));
        if (!known && i == 0) expect(!taken, "an integer was taken");
        values[i].desc.format = TensorFormat::kCHW32;
        expect(!plugin.build->supportsFormatCombination(i, values.data(), inputs, 2), "a format that is not linear");
        values[i].desc.format = TensorFormat::kLINEAR;
        const DataType right = values[i].desc.type;
        values[i].desc.type = right == DataType::kFLOAT ? DataType::kHALF : DataType::kFLOAT;
        if (i > 0) expect(!plugin.build->supportsFormatCombination(i, values.data(), inputs, 2), "mixed types");
        values[i].desc.type = right;
      }
    }
  }
}

void shapes(const Library& library) {
  for (const Case& one : kCases) {
    const Plugin plugin = library.build_plugin(one.name);
    Builder builder;
    std::vector<DimsExprs> in(one.inputs.size()), out(2);
    for (size_t i = 0; i < in.size(); ++i) {
      in[i].nbDims = static_cast<int32_t>(one.inputs[i].size());
      for (int32_t axis = 0; axis < in[i].nbDims; ++axis) in[i].d[axis] = builder.symbol();
    }
    const int32_t inputs = static_cast<int32_t>(in.size());
    expect(plugin.build->getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), 2, builder) == 0, "refused");
    for (int i = 0; i < 2; ++i) {
      const DimsExprs& like = in[one.output_like[i]];
      expect(out[i].nbDims == like.nbDims, "number of axes");
      for (int32_t axis = 0; axis < like.nbDims; ++axis) expect(out[i].d[axis] == like.d[axis], "an axis");
    }
  }
}

void disagreeing_shapes(const Library& library) {
  const auto told = [&](Case one, int input, Sizes sizes, const char* words) {
    one.inputs[input] = std::move(sizes);
    const Plugin plugin = library.build_plugin(one.name);
    const auto in = describe_all(one, DataType::kHALF, false), out = describe_all(one, DataType::kHALF, true);
    const int32_t inputs = static_cast<int32_t>(in.size());
    expect(plugin.runtime->onShapeChange(in.data(), inputs, out.data(), 2) != 0, "wrong shapes were taken");
    expect_told(words);
    const auto both = dynamic(one, DataType::kHALF);
    expect(plugin.build->configurePlugin(both.data(), inputs, both.data() + inputs, 2) != 0, "wrong shapes were taken");
    expect_told(words);
  };
  told(kCases[0], 2, {35, 16}, "storm::SelectiveScan: A [channels, state] must have shape [34, state], got [35, 16]");
  told(kCases[0], 3, {2, 300}, "B [batch, length, state] must have 3 axes, got shape [2, 300]");
  told(kCases[0], 0, {2, 0, 34}, "u [batch, length, channels] must have length of at least 1, got shape [2, 0, 34]");
  told(kCases[1], 3, {2, 4, 34}, "storm::CausalConv1d: initial_state [batch, width-1, channels] must have shape [2, 3, 34], got [2, 4, 34]");
  told(scan_case(1, 3, 2, 257), 0, {1, 3, 2}, "storm::SelectiveScan: state must be 1 to 256, got 257");
  for (const Case& one : kCases) {
    const Plugin plugin = library.build_plugin(one.name);
    const auto in = describe_all(one, DataType::kBF16, false), out = describe_all(one, DataType::kBF16, true);
    expect(plugin.runtime->onShapeChange(in.data(), static_cast<int32_t>(in.size()), out.data(), 2) == 0, logger.last);
  }
}

void workspace(const Library& library) {
  const Plugin scan = library.build_plugin("SelectiveScan");
  const auto bytes = [&](int64_t batch, int64_t length) {
    return scan.workspace(scan_case(batch, length, 7168, 16), DataType::kBF16);
  };
  expect(bytes(1, 64) == 0, "a sequence of one chunk needs no workspace");
  expect(bytes(1, 65536) == bytes(1, 131072) && bytes(1, 65536) < 16u << 20, "the workspace grows with the length");
  for (int64_t batch = 2; batch < 6; ++batch)
    expect(bytes(batch - 1, 65536) <= bytes(batch, 65536), "shrinks with batch");
  for (int64_t length = 128; length < 4096; length += 128)
    expect(bytes(1, length) <= bytes(1, length + 128), "shrinks");
  expect(library.build_plugin("CausalConv1d").workspace(kCases[1], DataType::kHALF) == 0, "the convolution needs none");
}

void serialization(const Library& library) {
  for (const Case& one : kCases) {
    for (const int32_t reverse : {0, 1}) {
      const Plugin built = library.build_plugin(one.name, reverse);
      for (const Plugin& same : {Plugin(built.plugin->clone()), Plugin(built.runtime->attachToContext(nullptr)),
                                 library.reload(built, one.name)}) {
        const PluginFieldCollection& fields = *same.runtime->getFieldsToSerialize();
        bool found = false;
        for (int32_t i = 0; i < fields.nbFields; ++i) {
          if (std::strcmp(fields.fields[i].name, "reverse") != 0) continue;
          found = *static_cast<const int32_t*>(fields.fields[i].data) == reverse;
        }
        expect(found, "reverse was lost");
      }
    }
    bool refused = false;
    try {
      library.reload(library.build_plugin(one.name), one.name, 41);
    } catch (const std::exception&) {
      refused = true;
    }
    expect(refused, "an engine of another plugin version was taken");
    expect_told("the engine was made with plugin version 42, this is 1: rebuild the engine");
  }
}

bool has_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

// Without a driver every launch fails, with a GPU one without the workspace it needs.
void cuda_errors(const Library& library) {
  const Case& one = kCases[0];
  const Plugin plugin = library.build_plugin(one.name);
  const auto in = describe_all(one, DataType::kHALF, false), out = describe_all(one, DataType::kHALF, true);
  const std::vector<const void*> inputs(in.size(), nullptr);
  const std::vector<void*> outputs(2, nullptr);
  expect(plugin.runtime->enqueue(in.data(), out.data(), inputs.data(), outputs.data(), nullptr, nullptr) != 0,
         "a launch without memory succeeded");
  expect_told("storm::SelectiveScan: launching the kernel failed: cudaError");
}

// float16 and bfloat16 by hand: the harness links no more than the CUDA runtime.
float round_to(float value, DataType type, uint16_t* bits) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  if (type == DataType::kBF16) {
    wide += 0x7fff + (wide >> 16 & 1);
    *bits = static_cast<uint16_t>(wide >> 16);
    wide &= 0xffff0000;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const float limited = std::fabs(value) < 6.2e-5f ? 0.0f : value;  // no denormals
  std::memcpy(&wide, &limited, sizeof wide);
  const uint32_t sign = wide >> 16 & 0x8000;
  if ((wide & 0x7fffffff) == 0) {
    *bits = static_cast<uint16_t>(sign);
    return 0.0f;
  }
  wide += 0xfff + (wide >> 13 & 1);
  const int32_t exponent = static_cast<int32_t>(wide >> 23 & 0xff) - 127 + 15;
  *bits = static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (wide >> 13 & 0x3ff));
  wide &= 0xffffe000;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

float to_float(const uint8_t* from, DataType type) {
  if (type == DataType::kFLOAT) {
    float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  if (type == DataType::kBF16) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float size = exponent == 0    ? std::ldexp(static_cast<float>(fraction), -24)
                     : exponent == 31 ? NAN
                                      : std::ldexp(1.0f + fraction / 1024.0f, exponent - 15);
  return bits & 0x8000 ? -size : size;
}

size_t size_of(DataType type) { return type == DataType::kFLOAT ? 4 : 2; }

int64_t volume(const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return count;
}

using Values = std::vector<std::vector<double>>;

double silu(double x) { return x / (1.0 + std::exp(-x)); }

// The definition in float64: y, then the final state.
Values scan_reference(const Case& one, const Values& in, bool reverse) {
  const int64_t batch = one.inputs[0][0], length = one.inputs[0][1], channels = one.inputs[0][2],
                state = one.inputs[2][1];
  Values out = {std::vector<double>(in[0].size()), in[8]};
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < length; ++i) {
      const int64_t token = b * length + (reverse ? length - 1 - i : i);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = token * channels + c;
        const double biased = in[1][at] + in[7][c], step = biased > 20 ? biased : std::log1p(std::exp(biased));
        double sum = in[5][c] * in[0][at];
        for (int64_t n = 0; n < state; ++n) {
          double& h = out[1][(b * channels + c) * state + n];
          h = std::exp(step * in[2][c * state + n]) * h + step * in[3][token * state + n] * in[0][at];
          sum += in[4][token * state + n] * h;
        }
        out[0][at] = sum * silu(in[6][at]);
      }
    }
  }
  return out;
}

Values conv_reference(const Case& one, const Values& in, bool reverse) {
  const int64_t batch = one.inputs[0][0], length = one.inputs[0][1], channels = one.inputs[0][2],
                width = one.inputs[1][1];
  const int64_t kept = width - 1;
  Values out = {std::vector<double>(in[0].size()), std::vector<double>(in[3].size())};
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t c = 0; c < channels; ++c) {
      const auto seen = [&](int64_t token) {  // in token order, the state before the first or after the last
        if (token < 0) return in[3][(b * kept + kept + token) * channels + c];
        if (token >= length) return in[3][(b * kept + token - length) * channels + c];
        return in[0][(b * length + token) * channels + c];
      };
      for (int64_t token = 0; token < length; ++token) {
        double sum = in[2][c];
        for (int64_t k = 0; k < width; ++k) sum += in[1][c * width + kept - k] * seen(reverse ? token + k : token - k);
        out[0][(b * length + token) * channels + c] = silu(sum);
      }
      for (int64_t i = 0; i < kept; ++i) out[1][(b * kept + i) * channels + c] = seen(reverse ? i : length - kept + i);
    }
  }
  return out;
}

void checked(cudaError_t error) { expect(error == cudaSuccess, cudaGetErrorName(error)); }

void run_and_compare(const Library& library, const Case& one, DataType type, bool reverse) {
  const Plugin plugin = library.reload(library.build_plugin(one.name, reverse), one.name);
  const auto in = describe_all(one, type, false), out = describe_all(one, type, true);
  std::mt19937 dice(3);
  std::normal_distribution<float> normal;
  Values values;
  std::vector<void*> device;
  for (size_t i = 0; i < in.size(); ++i) {
    const int64_t count = volume(one.inputs[i]);
    std::vector<uint8_t> bytes(static_cast<size_t>(count) * size_of(in[i].type));
    values.emplace_back(count);
    for (int64_t at = 0; at < count; ++at) {
      float value = normal(dice);
      if (one.is_float32[2] && i == 2) value = -1.0f - std::fabs(value);  // A of the scan
      if (one.is_float32[2] && i == 7) value -= 4.0f;                     // delta_bias
      uint16_t bits;
      if (in[i].type == DataType::kFLOAT) {
        std::memcpy(&bytes[4 * at], &value, 4);
      } else {
        value = round_to(value, in[i].type, &bits);
        std::memcpy(&bytes[2 * at], &bits, 2);
      }
      values[i][at] = value;
    }
    void* pointer = nullptr;
    checked(cudaMalloc(&pointer, bytes.size()));
    checked(cudaMemcpy(pointer, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    device.push_back(pointer);
  }
  const std::vector<const void*> inputs(device.begin(), device.end());
  std::vector<void*> outputs;
  for (int i = 0; i < 2; ++i) {
    void* pointer = nullptr;
    checked(cudaMalloc(&pointer, static_cast<size_t>(volume(one.inputs[one.output_like[i]])) * size_of(out[i].type)));
    outputs.push_back(pointer);
  }
  void* workspace = nullptr;
  checked(cudaMalloc(&workspace, std::max<size_t>(plugin.workspace(one, type), 256)));
  cudaStream_t stream;
  checked(cudaStreamCreate(&stream));
  expect(plugin.runtime->onShapeChange(in.data(), static_cast<int32_t>(in.size()), out.data(), 2) == 0, logger.last);
  expect(plugin.runtime->enqueue(in.data(), out.data(), inputs.data(), outputs.data(), workspace, stream) == 0,
         logger.last);
  checked(cudaStreamSynchronize(stream));
  const Values expected =
      one.is_float32[2] ? scan_reference(one, values, reverse) : conv_reference(one, values, reverse);
  const double tolerance[][2] = {{1e-4, 1e-4}, {3e-3, 5e-3}, {3e-2, 5e-2}};
  for (int i = 0; i < 2; ++i) {
    std::vector<uint8_t> bytes(expected[i].size() * size_of(out[i].type));
    checked(cudaMemcpy(bytes.data(), outputs[i], bytes.size(), cudaMemcpyDeviceToHost));
    const auto& [relative, absolute] = tolerance[out[i].type == DataType::kFLOAT  ? 0
                                                 : out[i].type == DataType::kHALF ? 1
                                                                                  : 2];
    for (size_t at = 0; at < expected[i].size(); ++at) {
      const double got = to_float(&bytes[at * size_of(out[i].type)], out[i].type), wanted = expected[i][at];
      if (!(std::fabs(got - wanted) <= absolute + relative * std::fabs(wanted))) {
        fail(std::string(one.name) + " type " + std::to_string(static_cast<int>(type)) + " reverse " +
             std::to_string(reverse) + " output " + std::to_string(i) + "[" + std::to_string(at) + "] is " +
             std::to_string(got) + ", expected " + std::to_string(wanted));
      }
    }
  }
  for (void* pointer : device) checked(cudaFree(pointer));
  for (void* pointer : outputs) checked(cudaFree(pointer));
  checked(cudaFree(workspace));
  checked(cudaStreamDestroy(stream));
}

void enqueue(const Library& library) {
  for (const DataType type : kTypes) {
    for (const bool reverse : {false, true}) {
      for (const Case& one : {kCases[0], kCases[1], scan_case(1, 1, 5, 3), conv_case(1, 2, 5, 4)}) {
        run_and_compare(library, one, type, reverse);
      }
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s libstorm_tensorrt.so\n", arguments[0]);
    return 2;
  }
  const struct {
    const char* name;
    std::function<void(const Library&)> run;
    bool needs_device;
  } checks[] = {{"creators", creators, false},
                {"attributes", attributes, false},
                {"types", types, false},
                {"formats", formats, false},
                {"shapes", shapes, false},
                {"disagreeing shapes", disagreeing_shapes, false},
                {"workspace", workspace, false},
                {"serialization", serialization, false},
                {"CUDA errors", cuda_errors, false},
                {"enqueue", enqueue, true}};
  int failures = 0;
  try {
    const Library library(arguments[1]);
    for (const auto& check : checks) {
      if (check.needs_device && !has_device()) {
        std::printf("skipped %s: no CUDA device\n", check.name);
        continue;
      }
      try {
        logger.last.clear();
        check.run(library);
        std::printf("ok %s\n", check.name);
      } catch (const std::exception& error) {
        std::printf("failed %s: %s\n", check.name, error.what());
        ++failures;
      }
    }
  } catch (const std::exception& error) {
    std::printf("failed library: %s\n", error.what());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}
