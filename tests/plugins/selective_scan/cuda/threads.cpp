// The CUDA kernel's blocks with a host thread for each of their 256 threads, for ThreadSanitizer: it sees every access to
// what stands in shared memory, and takes one that no barrier separates from another thread's for a data race. So a
// __syncthreads that is missing in scan_block.h is found here.
//
// `threads N` leaves the N-th barrier of every block out, which must be found; `threads 0` leaves none out. Two blocks run
// at a time, so that they look back at each other. `threads N 16` plays the kernel for 16 states, which moves vectors.
#include <pthread.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../../cuda/host_pairs.h"
#include "selective_scan/cuda/scan_block.h"

namespace {

using namespace storm::scan;

int64_t looked_back = 0;  // words of chunks that could not wait for their entry

struct HostMemory : HostPairs {
  static Words load(const uint64_t* from) {
    return {__atomic_load_n(from, __ATOMIC_RELAXED), __atomic_load_n(from + 1, __ATOMIC_RELAXED)};
  }
  static void store(uint64_t* to, Words words) {
    const uint32_t tag = static_cast<uint32_t>(words.first >> 32);
    if (tag % 2 == 0) __atomic_fetch_add(&looked_back, 1, __ATOMIC_RELAXED);
    if (tag % 4 == 3) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // every other chunk is late
    __atomic_store_n(to, words.first, __ATOMIC_RELAXED);
    __atomic_store_n(to + 1, words.second, __ATOMIC_RELAXED);
  }
  static uint32_t load_acquire(const uint32_t* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
  static void store_release(uint32_t* to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
  static uint32_t add(uint32_t* to, uint32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
  static void pause() { std::this_thread::yield(); }
  template <class P>
  static void fetch_if(bool exists, const P* from, P* to) {
    *to = exists ? *from : P{};
  }
  static void fetched() {}
};

// What the threads of a block share beside its shared memory.
struct Wires {
  pthread_barrier_t barrier;
  Wires() { pthread_barrier_init(&barrier, nullptr, kThreads); }
  ~Wires() { pthread_barrier_destroy(&barrier); }
};

class ThreadOfBlock {
 public:
  ThreadOfBlock(Wires& wires, int thread, int left_out) : wires_(wires), thread_(thread), left_out_(left_out) {}

  template <class Phase>
  void each(Phase phase) {
    phase(me_, thread_);
  }
  template <class Phase>
  void once(Phase phase) {
    if (thread_ == 0) phase();
  }
  void barrier() {
    if (++barrier_ != left_out_) pthread_barrier_wait(&wires_.barrier);
  }
  void begin() { barrier_ = 0; }
  void synchronise() { pthread_barrier_wait(&wires_.barrier); }

 private:
  Wires& wires_;
  const int thread_, left_out_;
  int barrier_ = 0;
  Thread me_;
};

std::vector<float> random_values(int64_t size, float scale, float shift) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = scale * normal(random) + shift;
  return values;
}

template <int kStates>
int play(int left_out, const Shape& shape) {
  const int64_t tokens = shape.batch * shape.length * shape.channels, matrix = shape.batch * shape.length * shape.state;
  const auto u = random_values(tokens, 1, 0), delta = random_values(tokens, 1, -3), z = random_values(tokens, 1, 0);
  const auto A = random_values(shape.channels * shape.state, 0.1f, -1), B = random_values(matrix, 1, 0);
  const auto C = random_values(matrix, 1, 0), D = random_values(shape.channels, 1, 0);
  const auto bias = random_values(shape.channels, 1, 0), h = random_values(shape.channels * shape.state, 1, 0);
  std::vector<float> y(static_cast<size_t>(tokens), NAN), final_state(h.size(), NAN);
  const Arguments<float> args = {shape,    true,     u.data(),    delta.data(), A.data(), B.data(),         C.data(),
                                 D.data(), z.data(), bias.data(), h.data(),     y.data(), final_state.data()};
  if (moves_vectors(args) != (kStates > 0)) return std::puts("this kernel does not take the size"), 1;
  Plan plan = make_plan(shape);
  plan.in_flight = 1;
  plan.slots = 2 * plan.in_flight + 2;
  const int32_t state = static_cast<int32_t>(shape.state);
  std::vector<uint64_t> memory((kHeaderBytes + retired_bytes(plan)) / 8 + slot_index(plan, state, plan.rows, 0));
  const Workspace workspace = lay_out(memory.data(), plan);

  Wires wires[2];
  pthread_barrier_t start;
  pthread_barrier_init(&start, nullptr, 2 * kThreads);
  std::vector<Shared<float>> shared(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2 * kThreads; ++i) {
    threads.emplace_back([&, worker = i / kThreads, thread = i % kThreads] {
      Shared<float>& own = shared[static_cast<size_t>(worker)];
      ThreadOfBlock block(wires[worker], thread, left_out);
      pthread_barrier_wait(&start);
      for (int32_t block_of_worker = 0; block_of_worker < plan.chunks * plan.rows / 2; ++block_of_worker) {
        block.synchronise();  // shared memory is the last block's until here
        if (thread == 0) take_ticket<HostMemory>(args, plan, workspace, own, 0);
        block.synchronise();
        block.begin();
        scan_block<float, kStates, HostMemory>(block, args, plan, workspace, own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  pthread_barrier_destroy(&start);
  for (const std::vector<float>* const values : {&y, &final_state}) {
    for (const float value : *values) {
      if (std::isnan(value)) return std::puts("something was not written"), 1;
    }
  }
  if (looked_back == 0) return std::puts("no block looked back"), 1;
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const int left_out = count > 1 ? std::atoi(arguments[1]) : 0;
  // One row of chunks in a ring that is used again; two groups of states, or the kernel's own number of them.
  const int64_t length = 8 * kChunkTokens - 5;
  if (count > 2) return play<kStateGroup>(left_out, {1, length, 6, kStateGroup});
  return play<0>(left_out, {1, length, 5, kStateGroup + 2});
}
