// The kernel around scan_block.h and its launch, for one T; each .cu file makes them for one type.
#pragma once

#include "common/device.cuh"
#include "selective_scan/cuda/scan_block.h"
#include "selective_scan/cuda/selective_scan.h"

namespace storm::scan {

// Words and counters in global memory, seen by all blocks; and copies into shared memory that go on meanwhile.
struct DeviceMemory : DevicePairs {
  static __device__ __forceinline__ Words load(const uint64_t* from) {
    Words words;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(words.first), "=l"(words.second)
                 : "l"(from)
                 : "memory");
    return words;
  }
  static __device__ __forceinline__ void store(uint64_t* to, Words words) {
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(words.first), "l"(words.second)
                 : "memory");
  }
  static __device__ __forceinline__ uint32_t load_acquire(const uint32_t* from) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
  }
  static __device__ __forceinline__ void store_release(uint32_t* to, uint32_t value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
  }
  static __device__ __forceinline__ uint32_t add(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }
  static __device__ __forceinline__ void pause() { __nanosleep(40); }
  // Copies that go on by themselves; zeros where there is nothing.
  template <class P>
  static __device__ __forceinline__ void fetch_if(bool exists, const P* from, P* to) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(sizeof(P)),
                 "r"(exists ? static_cast<int>(sizeof(P)) : 0)
                 : "memory");
  }
  static __device__ __forceinline__ void fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }
};

// The phases of scan_block.h run by the threads of a real block.
struct DeviceBlock {
  Thread me;

  template <class Phase>
  __device__ __forceinline__ void each(Phase phase) {
    phase(me, static_cast<int>(threadIdx.x));
  }
  template <class Phase>
  __device__ __forceinline__ void once(Phase phase) {
    if (threadIdx.x == 0) phase();
  }
  __device__ __forceinline__ void barrier() { __syncthreads(); }
};

// Two blocks an SM: while one waits for a barrier or the previous chunk, the other computes.
template <class T, int kStates>
__global__ void __launch_bounds__(kThreads, 2)
    selective_scan_kernel(const Arguments<T> args, const Plan plan, const Workspace workspace) {
  __shared__ Shared<T> storage;
  // Its address in a register, because the compiler would work it out again for every state.
  size_t address = __cvta_generic_to_shared(&storage);
  asm volatile("" : "+l"(address));
  Shared<T>& shared = *static_cast<Shared<T>*>(__cvta_shared_to_generic(address));
  if (threadIdx.x == 0) take_ticket<DeviceMemory>(args, plan, workspace, shared, blockIdx.x);
  __syncthreads();
  DeviceBlock block;
  scan_block<T, kStates, DeviceMemory>(block, args, plan, workspace, shared);
}

template <class T>
cudaError_t launch(const SelectiveScan& scan, void* memory, cudaStream_t stream) {
  const auto of = [](const void* pointer) { return static_cast<const T*>(pointer); };
  const Shape shape = {scan.batch, scan.length, scan.channels, scan.state};
  const Arguments<T> args = {shape,
                             scan.reverse,
                             of(scan.u),
                             of(scan.delta),
                             scan.A,
                             of(scan.B),
                             of(scan.C),
                             scan.D,
                             of(scan.z),
                             scan.delta_bias,
                             scan.initial_state,
                             static_cast<T*>(scan.y),
                             scan.final_state};
  const Plan plan = make_plan(shape);
  Workspace workspace = {};
  if (plan.chunks > 1) {
    const cudaError_t error = cudaMemsetAsync(memory, 0, workspace_bytes(shape), stream);
    if (error != cudaSuccess) return error;
    workspace = lay_out(memory, plan);
  }
  const unsigned blocks = static_cast<unsigned>(plan.chunks) * static_cast<unsigned>(plan.rows);
  return launched([&] {
    if (moves_vectors(args)) {
      selective_scan_kernel<T, kStateGroup><<<blocks, kThreads, 0, stream>>>(args, plan, workspace);
    } else {
      selective_scan_kernel<T, 0><<<blocks, kThreads, 0, stream>>>(args, plan, workspace);
    }
  });
}

}  // namespace storm::scan
