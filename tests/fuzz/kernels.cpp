// The CPU kernels and the checks of arguments under whatever bytes say: the C API of libstorm_cpu.so with sizes, types,
// directions, threads and addresses that may or may not be a call's, every instruction set with any cut of the work, and
// the schema's checks with any shapes and types. Arrays have exactly the operator's size and hold any bits.
//
// With libFuzzer (STORM_LIBFUZZER) it is a fuzz target. Else it is a program that makes the bytes itself:
//   storm_cpu_fuzz SEED CASES SECONDS     ends after as many cases or seconds, 0: no limit; prints how the cases ended
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "causal_conv1d/schema.h"
#include "cpu/kernels.h"
#include "selective_scan/cpu/selective_scan.h"
#include "selective_scan/schema.h"

extern "C" {
int storm_selective_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse,
                         const void* u, const void* delta, const void* A, const void* B, const void* C, const void* D,
                         const void* z, const void* delta_bias, const void* initial_state, void* y, void* final_state,
                         int threads, char* error, size_t error_size);
int storm_causal_conv1d(int type, int64_t batch, int64_t length, int64_t channels, int64_t width, int reverse,
                        const void* x, const void* weight, const void* bias, const void* initial_state, void* y,
                        void* final_state, int threads, char* error, size_t error_size);
}

namespace {

using namespace storm;

struct Counts {
  int64_t answers = 0, refusals = 0, checks = 0;
} counts;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::abort();
}

// Reads what is left of a case; zeros after its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }
  int64_t below(int64_t limit) { return (byte() * 256 + byte()) % limit; }
  int64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return static_cast<int64_t>(value);
  }
  // Mostly a size that tests can afford, else one from the edges of what there is.
  int64_t size(int64_t usual) {
    constexpr int64_t kMost = INT64_MAX;
    const int64_t edges[] = {0, -1, 1, 256, 257, 65537, int64_t{1} << 31, int64_t{1} << 56, kMost, kMost - 1, INT64_MIN};
    const int64_t choice = byte();
    if (choice < 240) return 1 + below(usual);
    return choice < 254 ? edges[below(static_cast<int64_t>(std::size(edges)))] : word();
  }
  // Any bits, of which some are ordinary numbers; what the bytes do not reach repeats them.
  std::vector<char> fill(size_t count) {
    std::vector<char> filled(count);
    const size_t left = static_cast<size_t>(end_ - at_), taken = std::min(left, 1 + count / 2);
    for (size_t i = 0; i < count; ++i) filled[i] = taken == 0 ? 0 : static_cast<char>(at_[i % taken]);
    at_ += taken / 2;
    return filled;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

int64_t volume(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

// The shapes of inputs, then outputs, of sizes in the order of the C API.
std::vector<Shape> shapes_of(const Schema& schema, const std::vector<std::string>& names, const Shape& sizes) {
  std::vector<Shape> shapes;
  for (const auto* values : {&schema.inputs, &schema.outputs}) {
    for (const Value& value : *values) {
      Shape shape;
      for (const std::string axis : value.axes) {
        const std::string name = axis.substr(0, axis.find('-'));
        const auto at = std::find(names.begin(), names.end(), name) - names.begin();
        shape.push_back(sizes[static_cast<size_t>(at)] - (axis == name ? 0 : 1));
      }
      shapes.push_back(shape);
    }
  }
  return shapes;
}

constexpr double kAffordable = 1 << 17;  // batch * length * channels * state

void call_operator(Bytes& bytes, bool is_scan) {
  const Schema& schema = is_scan ? selective_scan_schema() : causal_conv1d_schema();
  const bool is_wide = bytes.byte() % 8 == 0;
  const Shape sizes = {bytes.size(3), bytes.size(is_wide ? 600 : 40), bytes.size(is_wide ? 4 : 80),
                       bytes.size(is_wide ? 256 : 20)};
  const int type = bytes.byte() < 250 ? static_cast<int>(bytes.below(3)) : static_cast<int>(bytes.word());
  const int reverse = bytes.byte() < 250 ? bytes.byte() % 2 : static_cast<int>(bytes.word());
  const int threads = bytes.byte() < 250 ? 1 + bytes.byte() % 4 : static_cast<int>(bytes.word() % 2000);
  const size_t arrays = schema.inputs.size() + schema.outputs.size();
  const size_t without = bytes.byte() < 250 ? arrays : bytes.byte() % arrays;

  bool is_call = type >= 0 && type < 3 && (reverse == 0 || reverse == 1) && threads >= 1 && threads <= 1024 &&
                 without == arrays && sizes[3] <= 256 && sizes[3] >= (is_scan ? 1 : 2);
  double most = 1;
  for (const int64_t size : sizes) {
    is_call = is_call && size >= 1;
    most *= static_cast<double>(size);
  }
  if (is_call && most > kAffordable) return;  // right, and too much for a test

  std::vector<std::vector<char>> buffers(arrays);
  std::vector<void*> at(arrays);
  const std::vector<Shape> shapes = shapes_of(schema, {"batch", "length", "channels", is_scan ? "state" : "width"},
                                              is_call ? sizes : Shape{1, 1, 1, 2});
  for (size_t i = 0; i < arrays; ++i) {
    const bool is_output = i >= schema.inputs.size();
    const Value& value = is_output ? schema.outputs[i - schema.inputs.size()] : schema.inputs[i];
    const size_t width = value.is_float32 || type == 0 ? 4 : 2;
    buffers[i] = bytes.fill(static_cast<size_t>(volume(shapes[i])) * width);
    at[i] = i == without ? nullptr : buffers[i].data();
  }
  std::vector<char> error(256, 1);
  const int result =
      is_scan ? storm_selective_scan(type, sizes[0], sizes[1], sizes[2], sizes[3], reverse, at[0], at[1], at[2], at[3],
                                     at[4], at[5], at[6], at[7], at[8], at[9], at[10], threads, error.data(), 256)
              : storm_causal_conv1d(type, sizes[0], sizes[1], sizes[2], sizes[3], reverse, at[0], at[1], at[2], at[3],
                                    at[4], at[5], threads, error.data(), 256);
  if (is_call != (result == 0)) fail("a call ended with " + std::to_string(result) + ": " + error.data());
  if (!is_call) {
    const std::string said(error.data(), strnlen(error.data(), error.size()));
    if (said.rfind(schema.qualified_name() + ": ", 0) != 0 || said.find('\n') != std::string::npos) {
      fail("a refusal says '" + said + "'");
    }
    ++counts.refusals;
    return;
  }
  ++counts.answers;

  // The same work with every instruction set, cut anyhow: the convolution's and one chunk's results are theirs to the bit.
  const Type element = static_cast<Type>(type);
  const cpu::Parallel parallel = cpu::own_threads(threads);
  const int64_t granules = 1 + bytes.below(16);
  const int64_t channels = std::min(granules * 32, std::max<int64_t>(8192 / sizes[3] / 32, 1) * 32);
  const cpu::ScanPlan plan = {channels, std::max<int64_t>(1 + bytes.below(sizes[1]), sizes[1] / 64)};
  const std::vector<const void*> inputs(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(schema.inputs.size()));
  void* const outputs[] = {at[arrays - 2], at[arrays - 1]};
  for (const cpu::Kernels& kernels : cpu::all_kernels()) {
    if (is_scan) {
      cpu::selective_scan(make_selective_scan(element, sizes[0], sizes[1], sizes[2], sizes[3], reverse != 0,
                                              inputs.data(), outputs),
                          parallel, plan, kernels);
    } else {
      cpu::causal_conv1d(make_causal_conv1d(element, sizes[0], sizes[1], sizes[2], sizes[3], reverse != 0,
                                            inputs.data(), outputs),
                         parallel, kernels);
    }
  }
}

void check_schema(Bytes& bytes) {
  const Schema& schema = bytes.byte() % 2 ? selective_scan_schema() : causal_conv1d_schema();
  std::vector<Shape> shapes;
  std::vector<std::string> types;
  const char* const names[] = {"float32", "float16", "bfloat16", "float64"};
  const Shape sizes = {2, 3, 4, 5};
  std::vector<std::string> axes;
  for (const Value& value : schema.inputs) {
    Shape shape;
    for (const std::string axis : value.axes) {
      const std::string name = axis.substr(0, axis.find('-'));
      if (std::find(axes.begin(), axes.end(), name) == axes.end()) axes.push_back(name);
      const size_t at = static_cast<size_t>(std::find(axes.begin(), axes.end(), name) - axes.begin());
      shape.push_back(bytes.byte() < 245 ? sizes[at % 4] - (axis == name ? 0 : 1) : bytes.size(5));
    }
    if (bytes.byte() > 250) shape.resize(static_cast<size_t>(bytes.below(9)), bytes.size(5));
    shapes.push_back(shape);
    types.push_back(bytes.byte() < 245 ? "float32" : names[bytes.below(4)]);
  }
  const std::string shape_said = shape_problem(schema, shapes), type_said = type_problem(schema, types);
  const std::string count_said =
      count_problem(schema, static_cast<size_t>(bytes.size(9)), static_cast<size_t>(bytes.size(2)));
  for (const std::string& said : {shape_said, type_said, count_said}) {
    if (!said.empty() && said.rfind(schema.qualified_name() + ": ", 0) != 0) fail("a check says '" + said + "'");
  }
  for (size_t i = 0; shape_said.empty() && i < shapes.size(); ++i) {
    if (shapes[i].size() != schema.inputs[i].axes.size()) fail("another number of axes was taken");
    for (const int64_t size : shapes[i]) {
      if (size < 1 && size != kUnknown) fail("an empty axis was taken");
    }
  }
  ++counts.checks;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const int kind = bytes.byte() % 3;
  kind == 2 ? check_schema(bytes) : call_operator(bytes, kind == 0);
  return 0;
}

#ifndef STORM_LIBFUZZER
int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s SEED CASES SECONDS\n", arguments[0]);
    return 2;
  }
  const uint64_t seed = std::strtoull(arguments[1], nullptr, 10);
  const int64_t cases = std::atoll(arguments[2]);
  const std::chrono::duration<double> limit(std::atof(arguments[3]));
  const auto begin = std::chrono::steady_clock::now();
  int64_t done = 0;
  for (; cases == 0 || done < cases; ++done) {
    if (limit.count() > 0 && std::chrono::steady_clock::now() - begin > limit) break;
    std::mt19937_64 dice(seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(done));
    std::vector<uint8_t> data(dice() % 2048);
    // Ordinary floats among the bits: the upper byte of every fourth one near that of 1.0.
    const bool is_tame = dice() % 2;
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<uint8_t>(dice());
      if (is_tame && i > 64 && i % 4 == 3) data[i] = static_cast<uint8_t>(0x3c + data[i] % 5) | (data[i] & 0x80);
    }
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::printf("%lld cases: %lld answers, %lld refusals, %lld checks of shapes and types\n",
              static_cast<long long>(done), static_cast<long long>(counts.answers),
              static_cast<long long>(counts.refusals), static_cast<long long>(counts.checks));
  return 0;
}
#endif
