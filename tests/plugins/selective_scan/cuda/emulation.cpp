// The blocks of the CUDA kernel played by host threads: the same headers, chunks, tickets, rings and look-back.
//
// One host thread plays the 256 threads of a block, phase after phase; several play several blocks at the same time.
// What this cannot show: a barrier that is missing between two lines of one phase, and the memory model of a GPU. The
// order in which the threads of a phase are played can be turned around, and must not matter; and copies into shared
// memory can come as late as they may, when they are waited for.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../../cuda/host_pairs.h"
#include "selective_scan/cuda/scan_block.h"

namespace {

using namespace storm::scan;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(120);
thread_local Clock::time_point deadline;
thread_local std::minstd_rand dice;
thread_local std::vector<std::function<void()>> late;  // a block's copies

struct HostMemory : HostPairs {
  static Words load(const uint64_t* from) {
    return {__atomic_load_n(from, __ATOMIC_RELAXED), __atomic_load_n(from + 1, __ATOMIC_RELAXED)};
  }
  static void store(uint64_t* to, Words words) {
    __atomic_store_n(to + 1, words.second, __ATOMIC_RELAXED);
    if (dice() % 64 == 0) std::this_thread::yield();  // so that blocks meet each other in more states
    __atomic_store_n(to, words.first, __ATOMIC_RELAXED);
  }
  static uint32_t load_acquire(const uint32_t* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
  static void store_release(uint32_t* to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
  static uint32_t add(uint32_t* to, uint32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
  static void pause() {
    if (Clock::now() > deadline) throw std::runtime_error("a block waits forever");
    std::this_thread::yield();
  }
  template <class P>
  static void fetch_if(bool exists, const P* from, P* to) {
    late.push_back([=] { *to = exists ? *from : P{}; });
  }
  static void fetched() {
    for (const auto& copy : late) copy();
    late.clear();
  }
};

class HostBlock {
 public:
  explicit HostBlock(int order) : threads_(kThreads), order_(kThreads) {
    std::iota(order_.begin(), order_.end(), 0);
    if (order == 1) std::reverse(order_.begin(), order_.end());
    if (order == 2) std::shuffle(order_.begin(), order_.end(), std::mt19937(7));
  }

  template <class Phase>
  void each(Phase phase) {
    for (const int thread : order_) phase(threads_[thread], thread);
  }
  template <class Phase>
  void once(Phase phase) {
    phase();
  }
  void barrier() {}

 private:
  std::vector<Thread> threads_;
  std::vector<int> order_;
};

template <int kStates>
void work(const Arguments<float>& args, const Plan& plan, const Workspace& workspace, std::atomic<uint32_t>& started,
          int order, unsigned seed, std::atomic<bool>& failed) {
  deadline = Clock::now() + kPatience;
  dice.seed(seed);
  HostBlock block(order);
  const auto shared = std::make_unique<Shared<float>>();
  const uint32_t blocks = static_cast<uint32_t>(plan.chunks) * static_cast<uint32_t>(plan.rows);
  try {
    for (uint32_t next = started++; next < blocks && !failed; next = started++) {
      take_ticket<HostMemory>(args, plan, workspace, *shared, next);
      scan_block<float, kStates, HostMemory>(block, args, plan, workspace, *shared);
    }
  } catch (const std::exception&) {
    failed = true;
  }
}

}  // namespace

// Scans with `workers` blocks at a time. `in_flight` replaces the plan's if it is not 0. Returns the number of chunks,
// or -1 if a block waited forever.
extern "C" int64_t emulate_scan(int64_t batch, int64_t length, int64_t channels, int64_t state, int reverse,
                                const float* u, const float* delta, const float* A, const float* B, const float* C,
                                const float* D, const float* z, const float* delta_bias, const float* initial_state,
                                float* y, float* final_state, int workers, int in_flight, int order) {
  const Shape shape = {batch, length, channels, state};
  const Arguments<float> args = {shape,
                                 reverse != 0,
                                 u,
                                 delta,
                                 A,
                                 B,
                                 C,
                                 D,
                                 z,
                                 delta_bias,
                                 initial_state,
                                 y,
                                 final_state};
  Plan plan = make_plan(shape);
  size_t bytes = workspace_bytes(shape);
  if (in_flight != 0 && 2 * in_flight + 2 < plan.chunks) {
    plan.in_flight = in_flight;
    plan.slots = 2 * in_flight + 2;
    bytes = kHeaderBytes + retired_bytes(plan) + slot_index(plan, static_cast<int32_t>(state), plan.rows, 0) * 8;
  }
  std::vector<uint64_t> memory(bytes / sizeof(uint64_t));
  const Workspace workspace = bytes > 0 ? lay_out(memory.data(), plan) : Workspace{};
  std::atomic<uint32_t> started{0};
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] {
      const auto run = moves_vectors(args) ? work<kStateGroup> : work<0>;
      run(args, plan, workspace, started, order, static_cast<unsigned>(worker + 1), failed);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failed ? -1 : plan.chunks;
}

// The largest error of the kernel's softplus against float64, relative to it, from `least` to 20.
extern "C" double softplus_error(float least) {
  double most = 0.0;
  for (float x = least; x <= 20.0f; x += 1e-4f) {
    const double exact = std::max(0.0, static_cast<double>(x)) + std::log1p(std::exp(-std::fabs(static_cast<double>(x))));
    most = std::max(most, std::fabs(storm::fast_softplus(x) / exact - 1.0));
  }
  return most;
}

// The plan of a scan of any size, without running it: chunks, rows, slots, bytes of workspace, and the chunk, the row and
// the first word of the slot that the last ticket stands for. Returns whether the kernel takes the size.
extern "C" int plan_scan(int64_t batch, int64_t length, int64_t channels, int64_t state, int64_t* numbers) {
  const Shape shape = {batch, length, channels, state};
  if (!fits(shape)) return 0;
  const Plan plan = make_plan(shape);
  const uint32_t blocks = static_cast<uint32_t>(plan.chunks) * static_cast<uint32_t>(plan.rows);
  const Task last = task_of(blocks - 1, plan);
  const int64_t words = slot_index(plan, static_cast<int32_t>(state), last.row, last.chunk % plan.slots);
  const int64_t all[] = {plan.chunks, plan.rows, plan.slots, static_cast<int64_t>(workspace_bytes(shape)),
                         last.chunk,  last.row,  words};
  std::copy(std::begin(all), std::end(all), numbers);
  return 1;
}

#if defined(EMULATION_MAIN)
// For ThreadSanitizer and AddressSanitizer: more workers than cores, rings that are used again and again.
#include <cstdio>

int main() {
  constexpr int64_t kBatch = 1, kLength = 20 * kChunkTokens - 5, kChannels = 35, kState = 3;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto made = [&](int64_t size, float scale, float shift) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) value = scale * normal(random) + shift;
    return values;
  };
  const int64_t tokens = kBatch * kLength * kChannels, matrix = kBatch * kLength * kState;
  const auto u = made(tokens, 1, 0), delta = made(tokens, 1, -3), z = made(tokens, 1, 0);
  const auto B = made(matrix, 1, 0), C = made(matrix, 1, 0), A = made(kChannels * kState, 0.1f, -1);
  const auto D = made(kChannels, 1, 0), bias = made(kChannels, 1, 0), h = made(kBatch * kChannels * kState, 1, 0);
  std::vector<float> first, y(static_cast<size_t>(tokens)), state(h.size());
  for (const int workers : {1, 2, 6}) {
    for (const int in_flight : {0, 1, 3}) {
      if (emulate_scan(kBatch, kLength, kChannels, kState, 1, u.data(), delta.data(), A.data(), B.data(), C.data(),
                       D.data(), z.data(), bias.data(), h.data(), y.data(), state.data(), workers, in_flight, 0) < 0) {
        std::puts("a block waits forever");
        return 1;
      }
      if (first.empty()) first = y;
      if (y != first) {
        std::printf("%d workers and %d in flight gave other bits\n", workers, in_flight);
        return 1;
      }
    }
  }
  return 0;
}
#endif
