// The kernel around scan_block.h and its launch, for one T; each .cu file makes them for one type.
#pragma once

#include "selective_scan/cuda/scan_block.h"
#include "selective_scan/cuda/selective_scan.h"

namespace storm::scan {

// Words and counters in global memory, seen by all blocks.
struct DeviceMemory {
  static __device__ __forceinline__ uint64_t load(const uint64_t* from) {
    uint64_t value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
    return value;
  }
  static __device__ __forceinline__ void store(uint64_t* to, uint64_t value) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
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
};

// The phases of scan_block.h run by the threads of a real block.
struct DeviceBlock {
  static constexpr unsigned kAllLanes = 0xffffffffu;
  Thread me;

  template <class Phase>
  __device__ __forceinline__ void each(Phase phase) {
    phase(me, static_cast<int>(threadIdx.x));
  }
  template <class Phase>
  __device__ __forceinline__ void once(Phase phase) {
    if (threadIdx.x == 0) phase();
  }
  template <class Condition>
  __device__ __forceinline__ void first_warp_agrees(bool& agreed, Condition condition) {
    if (threadIdx.x < kWarpLanes) {
      const bool all = __all_sync(kAllLanes, condition(me, static_cast<int>(threadIdx.x)));
      if (threadIdx.x == 0) agreed = all;
    }
  }
  __device__ __forceinline__ void barrier() { __syncthreads(); }
  __device__ __forceinline__ void exchange() {
    me.other = {{across(me.effect.decay.first), across(me.effect.decay.second)},
                {across(me.effect.state.first), across(me.effect.state.second)}};
  }

 private:
  static __device__ __forceinline__ float across(float value) { return __shfl_xor_sync(kAllLanes, value, kPairLanes); }
};

// Two blocks an SM: while one waits for a barrier or the previous chunk, the other computes.
template <class T, int kStates>
__global__ void __launch_bounds__(kThreads, 2)
    selective_scan_kernel(const Arguments<T> args, const Plan plan, const Workspace workspace) {
  __shared__ Shared shared;
  if (threadIdx.x == 0) take_ticket<DeviceMemory>(plan, workspace, shared, blockIdx.x);
  __syncthreads();
  DeviceBlock block;
  scan_block<T, kStates, DeviceMemory>(block, args, plan, workspace, shared);
}

template <class T>
cudaError_t launch(const SelectiveScan& scan, void* memory, cudaStream_t stream) {
  const auto of = [](const void* pointer) { return static_cast<const T*>(pointer); };
  const Shape shape = {scan.batch, scan.length, scan.channels, scan.state};
  const void* const moved[] = {scan.u, scan.delta, scan.z, scan.y};
  const Arguments<T> args = {shape,
                             scan.reverse,
                             pairs_are_aligned<T>(scan.channels, moved, 4),
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
  if (scan.state == kStateGroup) {
    selective_scan_kernel<T, kStateGroup><<<blocks, kThreads, 0, stream>>>(args, plan, workspace);
  } else {
    selective_scan_kernel<T, 0><<<blocks, kThreads, 0, stream>>>(args, plan, workspace);
  }
  return cudaGetLastError();
}

}  // namespace storm::scan
