// The CUDA kernel's blocks with a host thread for each of their 256 threads, for ThreadSanitizer: it sees every access to
// what stands in shared memory, and takes one that no barrier separates from another thread's for a data race. So a
// __syncthreads that is missing in scan_block.h is found here.
//
// Only barriers order anything: exchanges and votes of a warp go through relaxed words that carry a number, because
// __shfl_sync and __all_sync do not order memory either. `threads N` leaves the N-th barrier of every block out, which
// must be found; `threads 0` leaves none out. Two blocks run at a time, so that they look back at each other.
#include <pthread.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "selective_scan/cuda/scan_block.h"

namespace {

using namespace storm::scan;

int64_t looked_back = 0;  // words of chunks that could not wait for their entry

struct HostMemory {
  static uint64_t load(const uint64_t* from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
  static void store(uint64_t* to, uint64_t value) {
    const uint32_t tag = static_cast<uint32_t>(value >> 32);
    if (tag % 2 == 0) __atomic_fetch_add(&looked_back, 1, __ATOMIC_RELAXED);
    if (tag % 4 == 3) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // every other chunk is late
    __atomic_store_n(to, value, __ATOMIC_RELAXED);
  }
  static uint32_t load_acquire(const uint32_t* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
  static void store_release(uint32_t* to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
  static uint32_t add(uint32_t* to, uint32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
  static void pause() { std::this_thread::yield(); }
};

// What the threads of a block share beside its shared memory.
struct Wires {
  pthread_barrier_t barrier;
  uint64_t words[kThreads][4] = {};  // a value and, above it, the number of the exchange
  uint64_t votes[kWarpLanes] = {};

  Wires() { pthread_barrier_init(&barrier, nullptr, kThreads); }
  ~Wires() { pthread_barrier_destroy(&barrier); }
};

void send(uint64_t* word, uint32_t number, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  __atomic_store_n(word, static_cast<uint64_t>(number) << 32 | bits, __ATOMIC_RELAXED);
}

float receive(const uint64_t* word, uint32_t number) {
  for (;;) {
    const uint64_t seen = HostMemory::load(word);
    if (seen >> 32 == number) return value_of(seen);
    HostMemory::pause();
  }
}

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
  template <class Condition>
  void first_warp_agrees(bool& agreed, Condition condition) {
    if (thread_ >= kWarpLanes) return;
    ++vote_;
    send(&wires_.votes[thread_], vote_, condition(me_, thread_) ? 1.0f : 0.0f);
    bool all = true;
    // Nobody votes again before all have passed a barrier.
    for (const uint64_t& vote : wires_.votes) all = receive(&vote, vote_) != 0.0f && all;
    if (thread_ == 0) agreed = all;
  }
  void barrier() {
    if (++barrier_ != left_out_) pthread_barrier_wait(&wires_.barrier);
  }
  void exchange() {
    ++exchange_;
    const float mine[] = {me_.effect.decay.first, me_.effect.decay.second, me_.effect.state.first,
                          me_.effect.state.second};
    for (int i = 0; i < 4; ++i) send(&wires_.words[thread_][i], exchange_, mine[i]);
    float other[4];
    for (int i = 0; i < 4; ++i) other[i] = receive(&wires_.words[thread_ ^ kPairLanes][i], exchange_);
    me_.other = {{other[0], other[1]}, {other[2], other[3]}};
  }
  void begin() { barrier_ = 0; }
  void synchronise() { pthread_barrier_wait(&wires_.barrier); }

 private:
  Wires& wires_;
  const int thread_, left_out_;
  int barrier_ = 0;
  uint32_t exchange_ = 0, vote_ = 0;
  Thread me_;
};

std::vector<float> random_values(int64_t size, float scale, float shift) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = scale * normal(random) + shift;
  return values;
}

}  // namespace

int main(int, char** arguments) {
  const int left_out = arguments[1] != nullptr ? std::atoi(arguments[1]) : 0;
  // One row of chunks in a ring that is used again; two groups of states.
  const Shape shape = {1, 8 * kChunkTokens - 5, 5, kStateGroup + 2};
  const int64_t tokens = shape.batch * shape.length * shape.channels, matrix = shape.batch * shape.length * shape.state;
  const auto u = random_values(tokens, 1, 0), delta = random_values(tokens, 1, -3), z = random_values(tokens, 1, 0);
  const auto A = random_values(shape.channels * shape.state, 0.1f, -1), B = random_values(matrix, 1, 0);
  const auto C = random_values(matrix, 1, 0), D = random_values(shape.channels, 1, 0);
  const auto bias = random_values(shape.channels, 1, 0), h = random_values(shape.channels * shape.state, 1, 0);
  std::vector<float> y(static_cast<size_t>(tokens), NAN), final_state(h.size(), NAN);
  const Arguments<float> args = {shape,    true,     false,    u.data(),    delta.data(), A.data(), B.data(),
                                 C.data(), D.data(), z.data(), bias.data(), h.data(),     y.data(), final_state.data()};
  Plan plan = make_plan(shape);
  plan.in_flight = 1;
  plan.slots = 2 * plan.in_flight + 2;
  const int32_t state = static_cast<int32_t>(shape.state);
  std::vector<uint64_t> memory((kHeaderBytes + retired_bytes(plan)) / 8 + slot_index(plan, state, plan.rows, 0));
  const Workspace workspace = lay_out(memory.data(), plan);

  Wires wires[2];
  pthread_barrier_t start;
  pthread_barrier_init(&start, nullptr, 2 * kThreads);
  std::vector<Shared> shared(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2 * kThreads; ++i) {
    threads.emplace_back([&, worker = i / kThreads, thread = i % kThreads] {
      Shared& own = shared[static_cast<size_t>(worker)];
      ThreadOfBlock block(wires[worker], thread, left_out);
      pthread_barrier_wait(&start);
      for (int32_t block_of_worker = 0; block_of_worker < plan.chunks * plan.rows / 2; ++block_of_worker) {
        block.synchronise();  // shared memory is the last block's until here
        if (thread == 0) take_ticket<HostMemory>(plan, workspace, own, 0);
        block.synchronise();
        block.begin();
        scan_block<float, 0, HostMemory>(block, args, plan, workspace, own);
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
