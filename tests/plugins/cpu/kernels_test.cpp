// The CPU kernels against loops in double precision: every instruction set this machine has, every type, uneven sizes,
// forced chunks, several threads. All buffers have exactly the operator's size, so that AddressSanitizer sees a step
// outside; ThreadSanitizer watches the same runs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "common/chunking.h"
#include "cpu/kernels.h"
#include "selective_scan/cpu/selective_scan.h"

using namespace storm;
using namespace storm::cpu;
using Floats = std::vector<float>;
using Bytes = std::vector<char>;

namespace {

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

constexpr Type kTypes[] = {Type::float32, Type::float16, Type::bfloat16};
const char* name_of(Type type) {
  return type == Type::float32 ? "float32" : type == Type::float16 ? "float16" : "bfloat16";
}
double tolerance(Type type) { return type == Type::float32 ? 1e-4 : type == Type::float16 ? 4e-3 : 3e-2; }

Bytes narrowed(Type type, const Floats& values) {
  Bytes bytes(values.size() * size_of(type));
  all_kernels().back().narrow(type, values.data(), bytes.data(), static_cast<int64_t>(values.size()));
  return bytes;
}

Floats widened(Type type, const Bytes& bytes) {
  Floats values(bytes.size() / size_of(type));
  all_kernels().back().widen(type, bytes.data(), values.data(), static_cast<int64_t>(values.size()));
  return values;
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  Floats normal(int64_t count) {
    std::normal_distribution<float> draw;
    return fill(count, [&] { return draw(engine_); });
  }
  Floats uniform(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> draw(low, high);
    return fill(count, [&] { return draw(engine_); });
  }

 private:
  template <typename Draw>
  Floats fill(int64_t count, Draw draw) {
    Floats values(static_cast<size_t>(count));
    std::generate(values.begin(), values.end(), draw);
    return values;
  }
  std::mt19937 engine_;
};

// ---- the functions the kernels are made of ----

void test_functions(const Kernels& kernels) {
  const std::string name = std::string(kernels.name) + ": ";
  Floats x;
  for (float value = -130.0f; value < 129.0f; value += 0.00037f) x.push_back(value);
  for (float value : {-0.0f, 0.5f, -0.5f, 127.49f, 127.51f, 128.0f, 1e9f, -1e9f}) x.push_back(value);
  Floats y(x.size());
  const int64_t count = static_cast<int64_t>(x.size());

  kernels.exp2(x.data(), y.data(), count);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp2(static_cast<double>(x[i]));
    if (x[i] < -126.0f) {
      expect(y[i] >= 0 && y[i] <= 0x1.01p-126f, name + "2^" + std::to_string(x[i]) + " must vanish");
    } else if (x[i] >= 128.0f) {
      expect(y[i] == INFINITY, name + "2^" + std::to_string(x[i]) + " must be infinite");
    } else {
      worst = std::max(worst, std::abs(y[i] - expected) / expected);
    }
  }
  expect(worst <= 2e-7, name + "exp2 has a relative error of " + std::to_string(worst));
  std::printf("%sexp2 within %.1e", name.c_str(), worst);

  kernels.softplus(x.data(), y.data(), count);
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < -86.0f) continue;  // below, no normal float
    const double expected = x[i] > 20.0f ? x[i] : std::log1p(std::exp(static_cast<double>(x[i])));
    error = std::max(error, std::abs(y[i] - expected) / expected);
  }
  // Without fused multiply-add, half an ulp of the product x * log2(e) is an error of up to 4e-6 for x = -86.
  expect(error <= 5e-6, name + "softplus has a relative error of " + std::to_string(error));
  double near = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < -8.0f || x[i] > 30.0f) continue;
    const double expected = x[i] > 20.0f ? x[i] : std::log1p(std::exp(static_cast<double>(x[i])));
    near = std::max(near, std::abs(y[i] - expected) / expected);
  }
  expect(near <= 8e-7, name + "softplus has a relative error of " + std::to_string(near) + " between -8 and 30");
  std::printf(", softplus within %.1e (%.1e from -8 up)", error, near);

  kernels.silu(x.data(), y.data(), count);
  double silu_error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = x[i] / (1.0 + std::exp(-static_cast<double>(x[i])));
    silu_error = std::max(silu_error, std::abs(y[i] - expected) / std::max(1e-3, std::abs(expected)));
  }
  expect(silu_error <= 2e-6, name + "silu has a relative error of " + std::to_string(silu_error));
  std::printf(", silu within %.1e\n", silu_error);

  const float nan = NAN;
  for (auto function : {kernels.exp2, kernels.softplus, kernels.silu}) {
    function(&nan, y.data(), 1);
    expect(std::isnan(y[0]), name + "NaN must stay NaN");
  }
}

double half_value(unsigned bits) {
  const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25) : std::ldexp(fraction, -24));
}

void test_conversions(const Kernels& kernels) {
  const std::string name = std::string(kernels.name) + ": ";
  std::vector<uint16_t> all(65536), back(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  Floats wide(65536);
  for (Type type : {Type::float16, Type::bfloat16}) {
    kernels.widen(type, all.data(), wide.data(), 65536);
    kernels.narrow(type, wide.data(), back.data(), 65536);
    for (unsigned i = 0; i < 65536; ++i) {
      uint32_t upper = i << 16;
      float as_float;
      std::memcpy(&as_float, &upper, 4);
      const double expected = type == Type::float16 ? half_value(i) : as_float;
      const bool same = std::isnan(expected) ? std::isnan(wide[i]) : wide[i] == expected;
      const bool again = std::isnan(expected) ? true : back[i] == i;
      if (!same || !again) {
        expect(false, name + name_of(type) + " with bits " + std::to_string(i) + " is not converted exactly");
        break;
      }
    }
  }
  // Rounding: halfway cases go to the even neighbour, what is larger than the largest goes to infinity.
  const Floats x = {1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 65519.0f, 65520.0f, 0x1p-25f, 0x1.8p-24f, -1e30f};
  const std::vector<uint16_t> expected = {0x3c00, 0x3c02, 0x7bff, 0x7c00, 0x0000, 0x0002, 0xfc00};
  std::vector<uint16_t> got(x.size());
  kernels.narrow(Type::float16, x.data(), got.data(), static_cast<int64_t>(x.size()));
  expect(got == expected, name + "float16 must round to nearest, ties to even");
  const Floats b = {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, NAN, 3.4e38f};
  std::vector<uint16_t> brain(b.size());
  kernels.narrow(Type::bfloat16, b.data(), brain.data(), static_cast<int64_t>(b.size()));
  expect(brain[0] == 0x3f80 && brain[1] == 0x3f82 && (brain[2] & 0x7fff) > 0x7f80 && brain[3] == 0x7f80,
         name + "bfloat16 must round to nearest, ties to even, and keep NaN");
}

// ---- the scan ----

struct ScanData {
  Type type;
  int64_t batch, length, channels, state;
  Bytes u, delta, B, C, z;
  Floats A, D, delta_bias, initial_state;

  ScanData(Type type, int64_t batch, int64_t length, int64_t channels, int64_t state, unsigned seed = 0)
      : type(type), batch(batch), length(length), channels(channels), state(state) {
    Random random(seed);
    u = narrowed(type, random.normal(batch * length * channels));
    delta = narrowed(type, random.normal(batch * length * channels));
    z = narrowed(type, random.normal(batch * length * channels));
    B = narrowed(type, random.normal(batch * length * state));
    C = narrowed(type, random.normal(batch * length * state));
    A = random.uniform(channels * state, 0.5f, 1.5f);
    for (size_t i = 0; i < A.size(); ++i) A[i] *= -static_cast<float>(1 + i % static_cast<size_t>(state));
    D = random.normal(channels);
    delta_bias = random.uniform(channels, -7.0f, -2.0f);
    initial_state = random.normal(batch * channels * state);
  }

  std::string text() const {
    return std::string(name_of(type)) + " " + std::to_string(batch) + "x" + std::to_string(length) + "x" +
           std::to_string(channels) + "x" + std::to_string(state);
  }
};

struct ScanResult {
  Bytes y;
  Floats final_state;
};

SelectiveScan scan_of(const ScanData& d, bool reverse, ScanResult& result) {
  result.y.assign(d.u.size(), 0);
  result.final_state.assign(d.initial_state.size(), 0.0f);
  return {d.type,     d.batch,    d.length,   d.channels,  d.state,          reverse,
          d.u.data(), d.delta.data(), d.A.data(), d.B.data(), d.C.data(),    d.D.data(),
          d.z.data(), d.delta_bias.data(), d.initial_state.data(), result.y.data(), result.final_state.data()};
}

ScanResult run(const ScanData& data, bool reverse, ScanPlan plan, int threads, const Kernels& kernels) {
  ScanResult result;
  selective_scan(scan_of(data, reverse, result), own_threads(threads), plan, kernels);
  return result;
}

struct Expected {
  std::vector<double> y, final_state;
};

Expected reference(const ScanData& d, bool reverse) {
  const Floats u = widened(d.type, d.u), delta = widened(d.type, d.delta), z = widened(d.type, d.z);
  const Floats B = widened(d.type, d.B), C = widened(d.type, d.C);
  Expected e{std::vector<double>(u.size()), {d.initial_state.begin(), d.initial_state.end()}};
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t i = 0; i < d.length; ++i) {
      const int64_t t = b * d.length + (reverse ? d.length - 1 - i : i);
      for (int64_t c = 0; c < d.channels; ++c) {
        const int64_t at = t * d.channels + c;
        const double biased = static_cast<double>(delta[at]) + d.delta_bias[c];
        const double step = biased > 20 ? biased : std::log1p(std::exp(biased));
        double sum = 0;
        for (int64_t n = 0; n < d.state; ++n) {
          double& h = e.final_state[(b * d.channels + c) * d.state + n];
          h = std::exp(step * d.A[c * d.state + n]) * h + step * u[at] * B[t * d.state + n];
          sum += h * C[t * d.state + n];
        }
        e.y[at] = (sum + static_cast<double>(d.D[c]) * u[at]) * z[at] / (1 + std::exp(-static_cast<double>(z[at])));
      }
    }
  }
  return e;
}

bool close(const Floats& got, const std::vector<double>& expected, double tolerance) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (!(std::abs(got[i] - expected[i]) <= tolerance + tolerance * std::abs(expected[i]))) return false;
  }
  return true;
}

void check_scan(const ScanData& data, bool reverse, ScanPlan plan, int threads, const Kernels& kernels,
                const Expected& expected) {
  const std::string what = std::string(kernels.name) + ": scan " + data.text() + (reverse ? " reverse" : "") +
                           ", chunks of " + std::to_string(plan.chunk_length) + ", " + std::to_string(threads) +
                           " threads: ";
  const ScanResult result = run(data, reverse, plan, threads, kernels);
  // The sum over many states is rounded like one product of their number's square root.
  const double many = std::sqrt(std::max<double>(1.0, static_cast<double>(data.state) / 16));
  expect(close(widened(data.type, result.y), expected.y, many * tolerance(data.type)), what + "y is wrong");
  expect(close(result.final_state, expected.final_state, 1e-4), what + "the final state is wrong");
}

void test_scan(const Kernels& kernels) {
  struct Size {
    int64_t batch, length, channels, state;
  };
  const Size sizes[] = {{1, 1, 1, 1},   {1, 2, 7, 16},   {2, 3, 33, 4},  {1, 63, 7, 16},   {2, 64, 33, 5},
                        {1, 97, 70, 3}, {1, 40, 18, 64}, {1, 33, 9, 256}, {1, 300, 81, 16}};
  for (Type type : kTypes) {
    for (const Size& s : sizes) {
      const ScanData data(type, s.batch, s.length, s.channels, s.state);
      for (bool reverse : {false, true}) {
        const Expected expected = reference(data, reverse);
        for (int64_t chunk : {s.length, int64_t{1}, int64_t{7}, int64_t{33}}) {
          if (chunk > s.length || s.length / chunk > 64) continue;
          for (int threads : {1, 3}) check_scan(data, reverse, {32, chunk}, threads, kernels, expected);
        }
        check_scan(data, reverse, {s.state > 128 ? 32 : 64, s.length}, 2, kernels, expected);
      }
    }
  }
}

void test_the_largest_pieces(const Kernels& kernels) {
  for (const auto& [channels, state] : {std::pair<int64_t, int64_t>{500, 16}, {60, 128}, {31, 256}}) {
    const ScanData data(Type::float32, 1, 37, channels, state);
    const ScanPlan plan{8192 / state, data.length};
    for (bool reverse : {false, true}) check_scan(data, reverse, plan, 1, kernels, reference(data, reverse));
  }
}

void test_same_result_for_any_threads_and_channels(const Kernels& kernels) {
  const ScanData data(Type::float32, 2, 300, 150, 16);
  for (int64_t chunk : {int64_t{300}, int64_t{64}}) {
    const ScanResult one = run(data, true, {32, chunk}, 1, kernels);
    for (int threads : {1, 2, 5, 16}) {
      for (int64_t channels : {32, 64, 160}) {
        const ScanResult other = run(data, true, {channels, chunk}, threads, kernels);
        expect(one.y == other.y && one.final_state == other.final_state,
               std::string(kernels.name) + ": threads or channels of a piece changed the result");
      }
    }
  }
}

void test_extremes(const Kernels& kernels) {
  const std::string name = std::string(kernels.name) + ": ";
  ScanData data(Type::float32, 1, 70, 9, 4);
  auto* delta = reinterpret_cast<float*>(data.delta.data());
  const float steps[] = {1000.0f, -1000.0f, 20.1f, 19.9f, 88.0f, 1e-30f, 100.0f};
  for (int64_t i = 0; i < 63 * 9; ++i) delta[i] = steps[i / 9 % 7];  // the last tokens stay ordinary
  for (bool reverse : {false, true}) check_scan(data, reverse, {32, 70}, 1, kernels, reference(data, reverse));
  for (float& a : data.A) a *= 1e-3f;
  for (bool reverse : {false, true}) check_scan(data, reverse, {32, 32}, 2, kernels, reference(data, reverse));

  ScanData poisoned(Type::float32, 1, 40, 20, 16);
  reinterpret_cast<float*>(poisoned.u.data())[10 * 20 + 3] = NAN;
  const ScanResult result = run(poisoned, false, {32, 40}, 1, kernels);
  const Floats y = widened(Type::float32, result.y);
  for (int64_t at = 0; at < 40 * 20; ++at) {
    const bool must = at % 20 == 3 && at / 20 >= 10;
    expect(std::isnan(y[at]) == must, name + "NaN must stay in its channel and last from its token on");
  }
}

void test_long_sequence(const Kernels& kernels) {
  const ScanData data(Type::bfloat16, 1, 131072, 8, 4);
  ScanResult result;
  const SelectiveScan scan = scan_of(data, false, result);
  const ScanPlan plan = plan_selective_scan(scan, 16);
  expect(plan.chunk_length < data.length, "16 threads and 8 channels must be given chunks");
  selective_scan(scan, own_threads(4), plan, kernels);
  const Expected expected = reference(data, false);
  expect(close(widened(data.type, result.y), expected.y, tolerance(data.type)), "131072 tokens: y is wrong");
  expect(close(result.final_state, expected.final_state, 1e-4), "131072 tokens: the final state is wrong");
}

// The headers that CUDA shares, one element at a time: chunks whose effects are combined in a tree, as on a GPU.
void test_common_headers() {
  const int64_t length = 101, chunk = 8, chunks = ceil_div(length, chunk);
  Random random(1);
  const Floats x = random.uniform(length, -7.0f, 1.0f), u = random.normal(length), B = random.normal(length);
  const float A2 = -3.0f * kLog2e, first = 0.7f;
  for (bool reverse : {false, true}) {
    double h = first;
    for (int64_t i = 0; i < length; ++i) {
      const int64_t t = token_at(i, length, reverse);
      const double step = std::log1p(std::exp(static_cast<double>(x[t])));
      h = std::exp(-3.0 * step) * h + step * u[t] * B[t];
    }
    std::vector<Effect<float>> effects(static_cast<size_t>(chunks));
    for (int64_t c = 0; c < chunks; ++c) {
      Effect<float> effect{0.0f, 0.0f};
      const Span span = chunk_span(c, chunk, length);
      for (int64_t i = span.begin; i < span.end; ++i) {
        const int64_t t = token_at(i, length, reverse);
        const float step = softplus(x[t]);
        effect.state = advance(effect.state, decay(step, A2), step * u[t], B[t]);
        effect.step_sum += step;
      }
      effects[static_cast<size_t>(c)] = effect;
    }
    while (effects.size() > 1) {  // neighbours pair by pair
      std::vector<Effect<float>> halved;
      for (size_t i = 0; i + 1 < effects.size(); i += 2) halved.push_back(combine(effects[i], effects[i + 1], A2));
      if (effects.size() % 2) halved.push_back(effects.back());
      effects = halved;
    }
    const float got = state_after(first, effects[0], A2);
    expect(std::abs(got - h) <= 1e-5 * std::max(1.0, std::abs(h)), "chunks combined in a tree differ from the loop");
  }
  expect(std::abs(gate(0.5f, 2.0f, 3.0f, 1.0f) - 6.5f / (1.0f + std::exp(-1.0f))) < 1e-5f, "gate is wrong");
}

// ---- the convolution ----

void test_conv(const Kernels& kernels) {
  for (Type type : kTypes) {
    for (int64_t length : {1, 2, 3, 5, 63, 600}) {
      for (int64_t channels : {1, 7, 33, 300}) {
        for (int64_t width : {2, 4, 7, 256}) {
          if (width * channels * length > 400000) continue;
          for (bool reverse : {false, true}) {
            Random random(2);
            const int64_t batch = 2, kept = width - 1;
            const Bytes x = narrowed(type, random.normal(batch * length * channels));
            const Bytes weight = narrowed(type, random.normal(channels * width));
            const Bytes bias = narrowed(type, random.normal(channels));
            const Bytes state = narrowed(type, random.normal(batch * kept * channels));
            Bytes y(x.size()), final_state(state.size());
            causal_conv1d({type, batch, length, channels, width, reverse, x.data(), weight.data(), bias.data(),
                           state.data(), y.data(), final_state.data()},
                          own_threads(3), kernels);

            const Floats xs = widened(type, x), ws = widened(type, weight), bs = widened(type, bias);
            const Floats ss = widened(type, state), finals = widened(type, final_state);
            std::vector<double> expected(xs.size());
            bool copied = true;
            for (int64_t b = 0; b < batch; ++b) {
              // All tokens in token order, the state before or after them.
              const auto token = [&](int64_t t, int64_t c) {
                if (t < 0) return ss[(b * kept + t + kept) * channels + c];
                if (t >= length) return ss[(b * kept + t - length) * channels + c];
                return xs[(b * length + t) * channels + c];
              };
              for (int64_t c = 0; c < channels; ++c) {
                for (int64_t t = 0; t < length; ++t) {
                  double sum = bs[c];
                  for (int64_t k = 0; k < width; ++k) {
                    sum += static_cast<double>(ws[c * width + width - 1 - k]) * token(reverse ? t + k : t - k, c);
                  }
                  expected[(b * length + t) * channels + c] = sum / (1 + std::exp(-sum));
                }
                for (int64_t i = 0; i < kept; ++i) {
                  const float left = token(reverse ? i : length - kept + i, c);
                  copied = copied && finals[(b * kept + i) * channels + c] == left;
                }
              }
            }
            const std::string what = std::string(kernels.name) + ": conv " + name_of(type) + " " +
                                     std::to_string(length) + "x" + std::to_string(channels) + ", width " +
                                     std::to_string(width) + (reverse ? " reverse" : "");
            expect(close(widened(type, y), expected, tolerance(type)), what + ": y is wrong");
            expect(copied, what + ": the final state is no copy of the tokens");
          }
        }
      }
    }
  }
}

template <typename Call>
void expect_refusal(Call call, const std::string& message) {
  try {
    call();
    expect(false, "must be refused: " + message);
  } catch (const std::invalid_argument& e) {
    expect(e.what() == message, std::string("refused with another message: ") + e.what());
  }
}

void test_refusals() {
  const ScanData data(Type::float32, 1, 4, 16, 4);
  ScanResult result;
  SelectiveScan scan = scan_of(data, false, result);
  scan.state = 257;
  expect_refusal([&] { selective_scan(scan, own_threads(1), {16, 4}, best_kernels()); },
                 "storm::SelectiveScan: state must be 1 to 256, got 257");
  const std::pair<int64_t SelectiveScan::*, const char*> sizes[] = {
      {&SelectiveScan::batch, "batch must be at least 1"},
      {&SelectiveScan::length, "length must be at least 1"},
      {&SelectiveScan::channels, "channels must be at least 1"},
      {&SelectiveScan::state, "state must be 1 to 256"}};
  for (const auto& [size, words] : sizes) {
    SelectiveScan empty = scan_of(data, false, result);
    empty.*size = 0;
    expect_refusal([&] { selective_scan(empty, own_threads(2)); },
                   "storm::SelectiveScan: " + std::string(words) + ", got 0");
  }
  scan.state = 4;
  expect_refusal([&] { selective_scan(scan, own_threads(1), {48, 4}, best_kernels()); },
                 "storm::SelectiveScan: a piece must have a multiple of 32 channels, at most 512, and at most 8192 "
                 "states, got 48");
  CausalConv1d conv{};
  conv.batch = conv.length = conv.channels = conv.width = 1;
  expect_refusal([&] { causal_conv1d(conv, own_threads(1)); },
                 "storm::CausalConv1d: width must be 2 to 256, got 1");
}

void test_plans() {
  SelectiveScan scan{};
  scan.batch = 1, scan.length = 65536, scan.channels = 7168, scan.state = 16;
  for (int threads : {1, 2, 8, 64, 128}) {
    const ScanPlan plan = plan_selective_scan(scan, threads);
    expect(plan.chunk_length == scan.length, "7168 channels must not be given chunks");
    expect(ceil_div(scan.channels, plan.channels) >= threads, "7168 channels must give every thread a piece");
  }
  for (int64_t state : {1, 3, 16, 255, 256}) {
    scan.state = state;
    const ScanPlan plan = plan_selective_scan(scan, 2);
    expect(plan.channels >= 32 && plan.channels * state <= 8192, "a plan must fit the kernel's arrays");
  }
}

}  // namespace

int main() {
  for (const Kernels& kernels : all_kernels()) {
    test_functions(kernels);
    test_conversions(kernels);
    test_scan(kernels);
    test_the_largest_pieces(kernels);
    test_same_result_for_any_threads_and_channels(kernels);
    test_extremes(kernels);
    test_conv(kernels);
  }
  test_common_headers();
  test_long_sequence(best_kernels());
  test_refusals();
  test_plans();
  std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
  return failures ? 1 : 0;
}
