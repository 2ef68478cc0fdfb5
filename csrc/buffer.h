// Scratch memory of a kernel: cache-line aligned, so that no vector load is split, and uninitialised.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace tlx {

template <class Real>
class Buffer {
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(Real* x) const { ::operator delete(x, alignment); }
    };
    std::unique_ptr<Real, Free> memory;

public:
    explicit Buffer(int64_t size) : memory(static_cast<Real*>(::operator new(size * sizeof(Real), alignment))) {}
    operator Real*() const { return memory.get(); }
};

}  // namespace tlx
