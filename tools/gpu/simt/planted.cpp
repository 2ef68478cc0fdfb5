// Bugs that tools/gpu/simt.py must see reported before it believes that there are none.
#include "cuda/tlx.cuh"

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

__global__ void divergence(int* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void mask(int* out) { out[threadIdx.x] = int(__shfl_xor_sync(0xffffu, threadIdx.x, 1)); }

__global__ void ended(int* out) {
    if (threadIdx.x % 32 == 5) return;
    out[threadIdx.x] = int(__ballot_sync(kAllLanes, true));
}

__global__ void unwritten(int* out) {
    TLX_SHARED(int, values, [64]);
    if (threadIdx.x < 63) values[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

__global__ void overrun(int* out) { out[threadIdx.x + 1] = 1; }

__global__ void shift(int* out) { out[threadIdx.x] = 1 << threadIdx.x; }

__global__ void race(int* out) {
    TLX_SHARED(int, values, [64]);
    values[threadIdx.x] = int(threadIdx.x);
    out[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void blocks(int* out) {
    if (threadIdx.x == 0) out[0] += 1;
    __syncthreads();
}

}  // namespace

int main(int, char** arguments) {
    const std::string bug = arguments[1];
    std::vector<int> out(64);
    const auto run = [&](const char* name, auto kernel, unsigned grid) {
        if (bug == name) TLX_LAUNCH(kernel, grid, 64, 0, nullptr, out.data());
    };
    run("divergence", divergence, 1);
    run("mask", mask, 1);
    run("ended", ended, 1);
    run("unwritten", unwritten, 1);
    run("overrun", overrun, 1);
    run("shift", shift, 1);
    run("race", race, 1);
    run("blocks", blocks, 2);
    if (bug == "unwritten" && out[63] != 0) {
        std::fprintf(stderr, "shared memory was read before it was written\n");
        return 1;
    }
    return 0;
}
