// Every kernel once or twice on sizes that meet every edge, to be run under compute-sanitizer. Results are compared
// between two runs, bit for bit: they may not depend on which block came first.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "bridge.h"

namespace {

std::mt19937 dice(1);

// Normal values of T as bytes.
std::vector<uint8_t> random_values(int type, int64_t count, float scale, float shift) {
  std::normal_distribution<float> normal;
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * (type == 0 ? 4 : 2));
  for (int64_t i = 0; i < count; ++i) {
    const float value = scale * normal(dice) + shift;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (type == 0) {
      std::memcpy(&bytes[4 * i], &bits, 4);
    } else if (type == 2) {
      const uint16_t high = static_cast<uint16_t>(bits >> 16);
      std::memcpy(&bytes[2 * i], &high, 2);
    } else {  // float16, truncated; values are far from its limits, tiny ones become 0
      const int32_t exponent = static_cast<int32_t>(bits >> 23 & 0xff) - 127 + 15;
      const uint32_t sign = bits >> 16 & 0x8000;
      const uint16_t half = static_cast<uint16_t>(exponent <= 0 ? sign : sign | exponent << 10 | (bits >> 13 & 0x3ff));
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

bool scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse) {
  const int64_t tokens = batch * length * channels, matrix = batch * length * state;
  const std::vector<std::vector<uint8_t>> values = {random_values(type, tokens, 1, 0),
                                                    random_values(type, tokens, 1, 0),
                                                    random_values(0, channels * state, 0.2f, -1),
                                                    random_values(type, matrix, 1, 0),
                                                    random_values(type, matrix, 1, 0),
                                                    random_values(0, channels, 1, 0),
                                                    random_values(type, tokens, 1, 0),
                                                    random_values(0, channels, 1, -4),
                                                    random_values(0, batch * channels * state, 1, 0)};
  std::vector<const void*> inputs;
  for (const auto& value : values) inputs.push_back(value.data());
  std::vector<uint8_t> y[2], final_state[2];
  for (int run = 0; run < 2; ++run) {
    y[run].resize(values[0].size());
    final_state[run].resize(values[8].size());
    const char* error = storm_cuda_scan(type, batch, length, channels, state, reverse, inputs.data(), y[run].data(),
                                        final_state[run].data());
    if (error != nullptr) {
      std::printf("scan type %d %ldx%ldx%ldx%ld: %s\n", type, batch, length, channels, state, error);
      return false;
    }
  }
  if (y[0] == y[1] && final_state[0] == final_state[1]) return true;
  std::printf("scan type %d %ldx%ldx%ldx%ld: two runs differ\n", type, batch, length, channels, state);
  return false;
}

bool conv(int type, int64_t batch, int64_t length, int64_t channels, int64_t width, int reverse) {
  const std::vector<std::vector<uint8_t>> values = {
      random_values(type, batch * length * channels, 1, 0), random_values(type, channels * width, 1, 0),
      random_values(type, channels, 1, 0), random_values(type, batch * (width - 1) * channels, 1, 0)};
  std::vector<const void*> inputs;
  for (const auto& value : values) inputs.push_back(value.data());
  std::vector<uint8_t> y(values[0].size()), final_state(values[3].size());
  const char* error =
      storm_cuda_conv(type, batch, length, channels, width, reverse, inputs.data(), y.data(), final_state.data());
  if (error == nullptr) return true;
  std::printf("conv type %d %ldx%ldx%ldx%ld: %s\n", type, batch, length, channels, width, error);
  return false;
}

}  // namespace

int main() {
  bool good = storm_cuda_devices() > 0;
  if (!good) std::puts("no CUDA device");
  for (int type = 0; type < 3 && good; ++type) {
    for (int reverse = 0; reverse < 2; ++reverse) {
      for (const int64_t length : {1, 127, 128, 129, 700}) {
        good = good && scan(type, 1, length, 7, 16, reverse) && scan(type, 2, length, 66, 5, reverse);
        for (const int64_t width : {2, 3, 4, 6}) good = good && conv(type, 2, length, 67, width, reverse);
      }
      good = good && scan(type, 1, 300, 34, 40, reverse) && scan(type, 1, 130, 4, 256, reverse);
    }
  }
  // 512 rows of 9 chunks in rings of 6 slots, which are therefore used again.
  good = good && scan(2, 1, 9 * 128, 512 * 32, 1, 0);
  std::puts(good ? "good" : "failed");
  return good ? 0 : 1;
}
