// Kernels own no threads: they hand ranges to whoever does. tlxml_fast.ops sets the hook to torch's C function
// torch_parallel_for (torch >= 2.10), so that torch.set_num_threads holds here too. Without a hook work is serial.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#ifdef TLX_STD_THREADS
#include <thread>
#include <vector>
#endif

namespace tlx {

// As declared in torch/csrc/stable/c/shim.h; 0 is success.
using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

inline std::atomic<ParallelFor> parallel_for_hook{nullptr};

#ifdef TLX_STD_THREADS  // sanitizer builds: ThreadSanitizer understands these, and not the OpenMP runtime's threads
inline int32_t std_parallel_for(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context) {
    const int64_t step = std::max(grain, (end - begin + 3) / 4);
    std::vector<std::thread> threads;
    for (; begin < end; begin += step) threads.emplace_back(function, begin, std::min(end, begin + step), context);
    for (auto& thread : threads) thread.join();
    return 0;
}
#endif

// Calls body(begin, end) on ranges that cover 0..size-1 once. Results must not depend on where ranges are cut.
template <class Body>
void parallel_for(int64_t size, int64_t grain, const Body& body) {
    const ParallelFor hook = parallel_for_hook.load();
    if (!hook || size <= grain) {
        if (size > 0) body(int64_t(0), size);
        return;
    }
    struct Context {  // an exception may not cross the hook, which is C: carry it to the caller's thread
        const Body& body;
        std::mutex mutex;
        std::exception_ptr error;
    } context{body, {}, nullptr};
    const int32_t status = hook(
        0, size, grain,
        [](int64_t begin, int64_t end, void* pointer) {
            auto& context = *static_cast<Context*>(pointer);
            try {
                context.body(begin, end);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(context.mutex);
                context.error = std::current_exception();
            }
        },
        &context);
    if (context.error) std::rethrow_exception(context.error);
    if (status != 0) throw std::runtime_error("torch_parallel_for failed");
}

#ifdef TLX_STD_THREADS  // tests are small, and every loop of theirs is to be cut
constexpr int64_t worth_a_thread = 1;
#else
constexpr int64_t worth_a_thread = 65536;
#endif

// How many items of `flops` each make a range worth a thread: about ten microseconds of work.
inline int64_t grain_for(int64_t flops) { return std::max<int64_t>(1, worth_a_thread / std::max<int64_t>(1, flops)); }

}  // namespace tlx
