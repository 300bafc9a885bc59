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

  std::vector<void*> upload_all(const void* const* from, const std::vector<size_t>& sizes) {
    std::vector<void*> all;
    for (const size_t size : sizes) all.push_back(upload(from[all.size()], size));
    return all;
  }

  std::vector<void*> poisoned_all(const std::vector<size_t>& sizes) {
    std::vector<void*> all;
    for (const size_t size : sizes) all.push_back(poisoned(size));
    return all;
  }

  const char* result() const { return error == cudaSuccess ? nullptr : cudaGetErrorName(error); }

  cudaError_t error = cudaSuccess;

 private:
  std::vector<void*> pointers_;
};

// The bytes of the scan's arrays, in the order of op.py.
struct ScanBytes {
  std::vector<size_t> inputs, outputs;
  size_t workspace;

  ScanBytes(Type type, int64_t batch, int64_t length, int64_t channels, int64_t state)
      : workspace(storm::cuda::selective_scan_workspace(batch, length, channels, state)) {
    const size_t tokens = static_cast<size_t>(batch * length * channels) * storm::size_of(type);
    const size_t matrix = static_cast<size_t>(batch * length * state) * storm::size_of(type);
    const size_t A = static_cast<size_t>(channels * state) * 4, channel = static_cast<size_t>(channels) * 4;
    const size_t states = static_cast<size_t>(batch) * A;
    inputs = {tokens, tokens, A, matrix, matrix, channel, tokens, channel, states};
    outputs = {tokens, states};
  }
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
  const auto in = device.upload_all(inputs, bytes.inputs);
  const auto out = device.poisoned_all(bytes.outputs);
  void* const workspace = device.poisoned(bytes.workspace);
  const auto scan = storm::make_selective_scan(element, batch, length, channels, state, reverse != 0, in.data(), out.data());
  if (device.error == cudaSuccess) device.error = storm::cuda::selective_scan(scan, workspace, nullptr);
  if (device.error == cudaSuccess) device.error = cudaDeviceSynchronize();
  device.download(y, out[0], bytes.outputs[0]);
  device.download(final_state, out[1], bytes.outputs[1]);
  return device.result();
}

EXPORT const char* storm_cuda_conv(int type, int64_t batch, int64_t length, int64_t channels, int64_t width,
                                   int reverse, const void* const* inputs, void* y, void* final_state) {
  const Type element = static_cast<Type>(type);
  const size_t size = storm::size_of(element), tokens = static_cast<size_t>(batch * length * channels) * size;
  const size_t states = static_cast<size_t>(batch * (width - 1) * channels) * size;
  const size_t weights = static_cast<size_t>(channels * width) * size, bias = static_cast<size_t>(channels) * size;
  Device device;
  const auto in = device.upload_all(inputs, {tokens, weights, bias, states});
  const auto out = device.poisoned_all({tokens, states});
  const auto conv = storm::make_causal_conv1d(element, batch, length, channels, width, reverse != 0, in.data(), out.data());
  if (device.error == cudaSuccess) device.error = storm::cuda::causal_conv1d(conv, nullptr);
  if (device.error == cudaSuccess) device.error = cudaDeviceSynchronize();
  device.download(y, out[0], tokens);
  device.download(final_state, out[1], states);
  return device.result();
}

EXPORT double storm_cuda_time_scan(int type, int64_t batch, int64_t length, int64_t channels, int64_t state,
                                   int reverse, int repeats) {
  const Type element = static_cast<Type>(type);
  const ScanBytes bytes(element, batch, length, channels, state);
  Device device;
  const auto zeros = [&](const std::vector<size_t>& sizes) {
    std::vector<void*> arrays;
    for (const size_t size : sizes) {
      arrays.push_back(device.allocate(size));
      if (device.error == cudaSuccess) device.error = cudaMemset(arrays.back(), 0, size);
    }
    return arrays;
  };
  const std::vector<void*> in = zeros(bytes.inputs), out = zeros(bytes.outputs), workspace = zeros({bytes.workspace});
  const auto scan = storm::make_selective_scan(element, batch, length, channels, state, reverse != 0, in.data(), out.data());
  cudaEvent_t begin = nullptr, end = nullptr;
  if (device.error == cudaSuccess) device.error = cudaEventCreate(&begin);
  if (device.error == cudaSuccess) device.error = cudaEventCreate(&end);
  for (int i = 0; i <= repeats && device.error == cudaSuccess; ++i) {
    if (i == 1) cudaEventRecord(begin);
    device.error = storm::cuda::selective_scan(scan, workspace[0], nullptr);
  }
  float milliseconds = -1.0f;
  if (device.error == cudaSuccess) device.error = cudaEventRecord(end);
  if (device.error == cudaSuccess) device.error = cudaEventSynchronize(end);
  if (device.error == cudaSuccess) device.error = cudaEventElapsedTime(&milliseconds, begin, end);
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  return device.error == cudaSuccess ? milliseconds * 1e-3 / repeats : -1.0;
}
