#include "bridge.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "selective_scan/cuda/selective_scan.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using storm::Type;

// Device memory of one launch. After the first error nothing more is done, and `error` says which it was.
class Device {
 public:
  ~Device() {
    for (void* pointer : pointers_) cudaFree(pointer);
  }

  void* allocate(size_t bytes) {
    void* pointer = nullptr;
    if (error == cudaSuccess && bytes > 0) error = cudaMalloc(&pointer, bytes);
    pointers_.push_back(pointer);
    return pointer;
  }

  void* upload(const void* from, size_t bytes) {
    void* const to = allocate(bytes);
    if (error == cudaSuccess) error = cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);
    return to;
  }

  void download(void* to, const void* from, size_t bytes) {
    if (error == cudaSuccess) error = cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost);
  }

  // Memory that a kernel must write all of: what it forgets reads as NaN in every type.
  void* poisoned(size_t bytes) {
    void* const to = allocate(bytes);
    if (error == cudaSuccess) error = cudaMemset(to, 0xff, bytes);
    return to;
  }

  const char* result() const { return error == cudaSuccess ? nullptr : cudaGetErrorName(error); }

  cudaError_t error = cudaSuccess;

 private:
  std::vector<void*> pointers_;
};

struct ScanBytes {
  size_t tokens, matrix, states, A, channel;

  ScanBytes(Type type, int64_t batch, int64_t length, int64_t channels, int64_t state)
      : tokens(static_cast<size_t>(batch * length * channels) * storm::size_of(type)),
        matrix(static_cast<size_t>(batch * length * state) * storm::size_of(type)),
        states(static_cast<size_t>(batch * channels * state) * 4),
        A(static_cast<size_t>(channels * state) * 4),
        channel(static_cast<size_t>(channels) * 4) {}
};

}  // namespace

EXPORT int storm_cuda_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

EXPORT const char* storm_cuda_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                   int reverse, const void* const* inputs, void* y, void* final_state) {
  const Type element = static_cast<Type>(type);
  const ScanBytes bytes(element, batch, length, channels, state);
  Device device;
  storm::cuda::SelectiveScan scan = {};
  scan.type = element;
  scan.batch = batch;
  scan.length = length;
  scan.channels = channels;
  scan.state = state;
  scan.reverse = reverse != 0;
  scan.u = device.upload(inputs[0], bytes.tokens);
  scan.delta = device.upload(inputs[1], bytes.tokens);
  scan.A = static_cast<const float*>(device.upload(inputs[2], bytes.A));
  scan.B = device.upload(inputs[3], bytes.matrix);
  scan.C = device.upload(inputs[4], bytes.matrix);
  scan.D = static_cast<const float*>(device.upload(inputs[5], bytes.channel));
  scan.z = device.upload(inputs[6], bytes.tokens);
  scan.delta_bias = static_cast<const float*>(device.upload(inputs[7], bytes.channel));
  scan.initial_state = static_cast<const float*>(device.upload(inputs[8], bytes.states));
  scan.y = device.poisoned(bytes.tokens);
  scan.final_state = static_cast<float*>(device.poisoned(bytes.states));
  void* const workspace = device.poisoned(storm::cuda::selective_scan_workspace(batch, length, channels, state));
  if (device.error == cudaSuccess) device.error = storm::cuda::selective_scan(scan, workspace, nullptr);
  if (device.error == cudaSuccess) device.error = cudaDeviceSynchronize();
  device.download(y, scan.y, bytes.tokens);
  device.download(final_state, scan.final_state, bytes.states);
  return device.result();
}

EXPORT const char* storm_cuda_conv(int type, int64_t batch, int64_t length, int64_t channels, int64_t width,
                                   int reverse, const void* const* inputs, void* y, void* final_state) {
  const Type element = static_cast<Type>(type);
  const size_t size = storm::size_of(element);
  const size_t tokens = static_cast<size_t>(batch * length * channels) * size;
  const size_t states = static_cast<size_t>(batch * (width - 1) * channels) * size;
  Device device;
  storm::cuda::CausalConv1d conv = {};
  conv.type = element;
  conv.batch = batch;
  conv.length = length;
  conv.channels = channels;
  conv.width = width;
  conv.reverse = reverse != 0;
  conv.x = device.upload(inputs[0], tokens);
  conv.weight = device.upload(inputs[1], static_cast<size_t>(channels * width) * size);
  conv.bias = device.upload(inputs[2], static_cast<size_t>(channels) * size);
  conv.initial_state = device.upload(inputs[3], states);
  conv.y = device.poisoned(tokens);
  conv.final_state = device.poisoned(states);
  if (device.error == cudaSuccess) device.error = storm::cuda::causal_conv1d(conv, nullptr);
  if (device.error == cudaSuccess) device.error = cudaDeviceSynchronize();
  device.download(y, conv.y, tokens);
  device.download(final_state, conv.final_state, states);
  return device.result();
}

EXPORT double storm_cuda_time_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                   int reverse, int repeats) {
  const Type element = static_cast<Type>(type);
  const ScanBytes bytes(element, batch, length, channels, state);
  Device device;
  const auto zeros = [&](size_t size) {
    void* const pointer = device.allocate(size);
    if (device.error == cudaSuccess) device.error = cudaMemset(pointer, 0, size);
    return pointer;
  };
  storm::cuda::SelectiveScan scan = {};
  scan.type = element;
  scan.batch = batch;
  scan.length = length;
  scan.channels = channels;
  scan.state = state;
  scan.reverse = reverse != 0;
  scan.u = zeros(bytes.tokens);
  scan.delta = zeros(bytes.tokens);
  scan.A = static_cast<const float*>(zeros(bytes.A));
  scan.B = zeros(bytes.matrix);
  scan.C = zeros(bytes.matrix);
  scan.D = static_cast<const float*>(zeros(bytes.channel));
  scan.z = zeros(bytes.tokens);
  scan.delta_bias = static_cast<const float*>(zeros(bytes.channel));
  scan.initial_state = static_cast<const float*>(zeros(bytes.states));
  scan.y = zeros(bytes.tokens);
  scan.final_state = static_cast<float*>(zeros(bytes.states));
  void* const workspace = zeros(storm::cuda::selective_scan_workspace(batch, length, channels, state));
  cudaEvent_t begin = nullptr, end = nullptr;
  if (device.error == cudaSuccess) device.error = cudaEventCreate(&begin);
  if (device.error == cudaSuccess) device.error = cudaEventCreate(&end);
  for (int i = 0; i <= repeats && device.error == cudaSuccess; ++i) {
    if (i == 1) cudaEventRecord(begin);
    device.error = storm::cuda::selective_scan(scan, workspace, nullptr);
  }
  float milliseconds = -1.0f;
  if (device.error == cudaSuccess) device.error = cudaEventRecord(end);
  if (device.error == cudaSuccess) device.error = cudaEventSynchronize(end);
  if (device.error == cudaSuccess) device.error = cudaEventElapsedTime(&milliseconds, begin, end);
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  return device.error == cudaSuccess ? milliseconds * 1e-3 / repeats : -1.0;
}
