// Runs CUDA kernels on the CPU, for tests: blocks one after another, the threads of a block as fibers that switch at
// barriers and warp intrinsics. What it reports: barriers that not all threads reach, intrinsics whose mask names a
// lane that is elsewhere, and, under a sanitizer, accesses out of bounds and races within a block or between blocks.
// Shared memory is born full of ones, so that reading it before writing shows. The environment's SIMT_ORDER is the
// order in which blocks, warps and lanes run: fwd, rev, or a seed.
//
// Compiled with TLX_HOST_SIMT, csrc/cuda/tlx.cuh includes this; it has what those kernels use and no more.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#define SIMT_UNSEEN __attribute__((no_sanitize("thread"), noinline))  // the scheduler's own memory is no kernel's
#else
#define SIMT_UNSEEN
#define __tsan_release(address) ((void)(address))
#define __tsan_acquire(address) ((void)(address))
#define AnnotateIgnoreWritesBegin(file, line) ((void)0)
#define AnnotateIgnoreWritesEnd(file, line) ((void)0)
#endif

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define TLX_SHARED(T, name, dims) \
    typedef T name##_type dims;   \
    name##_type& name = *reinterpret_cast<name##_type*>(simt::shared_array(SIMT_SITE, sizeof(name##_type)))
#define TLX_DYNAMIC_SHARED(name) unsigned char* const name = simt::dynamic_shared
#define TLX_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ((void)(stream), simt::launch(#kernel, grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); }))

// An address that is this place in the source and no other.
#define SIMT_SITE              \
    [] {                       \
        static const char here = 0; \
        return static_cast<const void*>(&here); \
    }()

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tlx {
inline void check_launch(const char*) {}  // simt::launch ends the program if a launch cannot be made
}  // namespace tlx

namespace simt {

constexpr int kWarp = 32;
constexpr size_t kStack = 128 * 1024, kMostShared = 232448, kMostStaticShared = 48 * 1024;

inline const char* kernel_name = "";

[[noreturn]] inline void fault(const std::string& what) {
    std::fprintf(stderr, "SIMT fault in %s, block (%u, %u, %u), thread (%u, %u, %u): %s\n", kernel_name, blockIdx.x,
                 blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what.c_str());
    std::fflush(stderr);
    std::_Exit(86);
}

// ---- shared memory: new with every block, so that no block sees another's ------------------------------------------

SIMT_UNSEEN inline unsigned char* unseen_new(size_t bytes) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    auto* memory = static_cast<unsigned char*>(std::malloc(std::max<size_t>(bytes, 1)));
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    return memory;
}

SIMT_UNSEEN inline void unseen_delete(void* memory) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    std::free(memory);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}

SIMT_UNSEEN inline unsigned char* shared_new(size_t bytes) {
    unsigned char* memory = unseen_new(bytes);
    for (size_t i = 0; i < bytes; ++i) static_cast<volatile unsigned char*>(memory)[i] = 0xff;
    return memory;
}

struct SharedArray {
    const void* site;
    unsigned char* memory;
};
inline SharedArray shared_arrays[16];
inline int shared_count = 0;
inline unsigned char* dynamic_shared = nullptr;

SIMT_UNSEEN inline unsigned char* shared_array(const void* site, size_t bytes) {
    for (int i = 0; i < shared_count; ++i)
        if (shared_arrays[i].site == site) return shared_arrays[i].memory;
    if (shared_count == 16 || bytes > kMostStaticShared) fault("too much static shared memory");
    shared_arrays[shared_count] = {site, shared_new(bytes)};
    return shared_arrays[shared_count++].memory;
}

SIMT_UNSEEN inline void shared_delete() {
    while (shared_count) unseen_delete(shared_arrays[--shared_count].memory);
    unseen_delete(dynamic_shared);
    dynamic_shared = nullptr;
}

// ---- the threads of a block ---------------------------------------------------------------------------------------

enum class State { running, at_barrier, at_warp, done };

struct Fiber {
    ucontext_t context;
    void* stack;
    State state;
    const void* site;  // where it waits,
    uint32_t mask;     // for which lanes,
    uint64_t given;    // what it hands to them,
    uint64_t received[kWarp];
    bool odd_barrier;
    dim3 thread;
    int lane, warp;
    void* asan_stack;
    void* tsan_fiber;
};

inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline const void* scheduler_bottom;
inline size_t scheduler_size;
inline void *scheduler_asan, *scheduler_tsan;

// What ThreadSanitizer takes for locks: a launch orders the host's accesses and all threads', a barrier those of its
// block, which has a pair of its own (for even and odd barriers), so that blocks stay unordered.
inline uint64_t launch_begins, launch_ends;
inline uint64_t* barriers = nullptr;

SIMT_UNSEEN inline void to_scheduler(bool last) {
    Fiber& fiber = *current;
    (void)last;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(last ? nullptr : &fiber.asan_stack, scheduler_bottom, scheduler_size);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(scheduler_tsan, 1);  // 1: a switch orders nothing
#endif
    swapcontext(&fiber.context, &scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fiber.asan_stack, &scheduler_bottom, &scheduler_size);
#endif
}

SIMT_UNSEEN inline void resume(Fiber& fiber) {
    current = &fiber;
    threadIdx = fiber.thread;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_asan, fiber.stack, kStack);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(fiber.tsan_fiber, 1);
#endif
    swapcontext(&scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_asan, nullptr, nullptr);
#endif
}

SIMT_UNSEEN inline void wait(State state, const void* site, uint32_t mask, uint64_t given) {
    current->state = state;
    current->site = site;
    current->mask = mask;
    current->given = given;
    to_scheduler(state == State::done);
}

inline void run_thread() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    __tsan_acquire(&launch_begins);
    body();
    __tsan_release(&launch_ends);
    wait(State::done, nullptr, 0, 0);
    std::abort();
}

SIMT_UNSEEN inline uint64_t* next_barrier() { return barriers + (current->odd_barrier ^= true); }

inline void block_barrier(const void* site) {
    uint64_t* const barrier = next_barrier();
    __tsan_release(barrier);
    wait(State::at_barrier, site, 0, 0);
    __tsan_acquire(barrier);
}

// Every lane of the mask hands in 64 bits and gets those of all. It orders no accesses to memory, as shuffles do not.
SIMT_UNSEEN inline const uint64_t* exchange(uint32_t mask, uint64_t given, const void* site) {
    if (!(mask >> current->lane & 1)) fault("a lane calls a warp intrinsic whose mask leaves it out");
    wait(State::at_warp, site, mask, given);
    return current->received;
}

// Lets the lanes of a warp go on that have all arrived at one intrinsic.
SIMT_UNSEEN inline bool release_warp(int warp) {
    const int begin = warp * kWarp, end = std::min<int>(int(fibers.size()), begin + kWarp);
    bool released = false;
    for (int i = begin; i < end; ++i) {
        if (fibers[i].state != State::at_warp) continue;
        const uint32_t mask = fibers[i].mask;
        bool together = true;
        for (int lane = 0; lane < kWarp; ++lane) {
            if (!(mask >> lane & 1) || begin + lane >= end) continue;
            const Fiber& other = fibers[begin + lane];
            threadIdx = fibers[i].thread;
            if (other.state == State::done) fault("a warp intrinsic waits for a lane that has ended");
            together &= other.state == State::at_warp && other.mask == mask && other.site == fibers[i].site;
        }
        if (!together) continue;
        for (int a = begin; a < end; ++a) {
            if (!(mask >> (a - begin) & 1)) continue;
            for (int b = begin; b < end; ++b) fibers[a].received[b - begin] = fibers[b].given;
            fibers[a].state = State::running;
        }
        released = true;
    }
    return released;
}

SIMT_UNSEEN inline void release_block() {
    const auto waiting = [](const Fiber& fiber) { return fiber.state == State::at_barrier; };
    const auto at = std::count_if(fibers.begin(), fibers.end(), waiting);
    for (const Fiber& fiber : fibers) {
        threadIdx = fiber.thread;
        if (!waiting(fiber)) {
            if (fiber.state == State::at_warp || at > 0)
                fault("it never arrives where others wait: " + std::to_string(at) + " are at a barrier");
        } else if (fiber.site != fibers[0].site) {
            fault("threads of a block wait at different barriers");
        }
    }
    for (Fiber& fiber : fibers) fiber.state = State::running;
}

// ---- launches -----------------------------------------------------------------------------------------------------

class Order {
    const std::string text = std::getenv("SIMT_ORDER") ? std::getenv("SIMT_ORDER") : "fwd";
    std::mt19937_64 random{std::strtoull(text.c_str(), nullptr, 10)};

public:
    std::vector<int> of(int count) {
        std::vector<int> order(count);
        std::iota(order.begin(), order.end(), 0);
        if (text == "rev") std::reverse(order.begin(), order.end());
        else if (text != "fwd") std::shuffle(order.begin(), order.end(), random);
        return order;
    }
};

SIMT_UNSEEN inline void begin_thread(Fiber& fiber, int i) {
    fiber.thread = dim3(unsigned(i) % blockDim.x, unsigned(i) / blockDim.x % blockDim.y,
                        unsigned(i) / (blockDim.x * blockDim.y));
    fiber.lane = i % kWarp;
    fiber.warp = i / kWarp;
    fiber.state = State::running;
    fiber.odd_barrier = false;
    fiber.stack = unseen_new(kStack);  // new with every block: the sanitizers remember who wrote the old one
#ifdef __SANITIZE_THREAD__
    fiber.tsan_fiber = __tsan_create_fiber(0);
#endif
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_thread, 0);
}

SIMT_UNSEEN inline void run_block(Order& order) {
    const int threads = int(fibers.size()), warps = (threads + kWarp - 1) / kWarp;
    for (int i = 0; i < threads; ++i) begin_thread(fibers[i], i);
    const auto done = [](const Fiber& fiber) { return fiber.state == State::done; };
    while (!std::all_of(fibers.begin(), fibers.end(), done)) {
        bool ran = false;
        for (const int warp : order.of(warps)) {
            do {  // a warp runs until all of its lanes wait for the whole block
                for (const int lane : order.of(std::min(kWarp, threads - warp * kWarp))) {
                    Fiber& fiber = fibers[warp * kWarp + lane];
                    if (fiber.state != State::running) continue;
                    resume(fiber);
                    ran = true;
                }
            } while (release_warp(warp));
        }
        if (!ran) release_block();
    }
    for (Fiber& fiber : fibers) unseen_delete(fiber.stack);
}

SIMT_UNSEEN inline void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes,
                               std::function<void()> kernel) {
    const size_t threads = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
    kernel_name = name;
    gridDim = grid;
    blockDim = block;
    if (!threads || threads > 1024 || !blocks || grid.y > 65535 || grid.z > 65535) fault("no such grid or block");
    if (shared_bytes > kMostShared) fault("more dynamic shared memory than a block has");
    body = std::move(kernel);
    fibers.assign(threads, {});
    Order order;
#ifdef __SANITIZE_THREAD__
    scheduler_tsan = __tsan_get_current_fiber();
    std::vector<void*> ended;
#endif
    __tsan_release(&launch_begins);
    uint64_t* const all_barriers = reinterpret_cast<uint64_t*>(unseen_new(2 * blocks * sizeof(uint64_t)));
    for (const int b : order.of(int(blocks))) {
        blockIdx = dim3(unsigned(b) % grid.x, unsigned(b) / grid.x % grid.y, unsigned(b) / (grid.x * grid.y));
        barriers = all_barriers + 2 * b;
        dynamic_shared = shared_new(shared_bytes);
        run_block(order);
        shared_delete();
#ifdef __SANITIZE_THREAD__
        // Identities of ended threads would be given to new ones, and equal ones never race.
        for (const Fiber& fiber : fibers) ended.push_back(fiber.tsan_fiber);
        if (ended.size() + threads > 6000) fault("too many threads in a launch for ThreadSanitizer");
#endif
    }
    __tsan_acquire(&launch_ends);
#ifdef __SANITIZE_THREAD__
    for (void* fiber : ended) __tsan_destroy_fiber(fiber);
#endif
    unseen_delete(all_barriers);
    fibers.clear();
}

// ---- warp intrinsics ----------------------------------------------------------------------------------------------

template <class T>
T shuffle_xor(uint32_t mask, T value, const void* site, int lanes) {
    static_assert(sizeof(T) <= 8, "at most 64 bits");
    uint64_t given = 0;
    std::memcpy(&given, &value, sizeof value);
    const uint64_t* received = exchange(mask, given, site);
    const int from = current->lane ^ lanes;
    if (from >= kWarp || !(mask >> from & 1)) fault("a shuffle reads a lane outside of its mask");
    std::memcpy(&value, &received[from], sizeof value);
    return value;
}

inline uint32_t ballot(uint32_t mask, bool vote, const void* site) {
    const uint64_t* received = exchange(mask, vote, site);
    uint32_t votes = 0;
    for (int lane = 0; lane < kWarp; ++lane)
        if (mask >> lane & 1 && received[lane]) votes |= 1u << lane;
    return votes;
}

}  // namespace simt

#define __syncthreads() simt::block_barrier(SIMT_SITE)
#define __shfl_xor_sync(mask, value, lanes) simt::shuffle_xor(mask, value, SIMT_SITE, lanes)
#define __ballot_sync(mask, vote) simt::ballot(mask, vote, SIMT_SITE)
#define __popc(bits) __builtin_popcount(bits)
