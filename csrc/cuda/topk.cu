// Merges a tile of scores into the running top-k of each row: a block a row. Every thread compares its scores with the
// k-th best so far; those before it are gathered by ballots into shared memory, and when they no longer fit they are
// sorted by a bitonic network and merged into the list. Entries have a total order, so the order of work is not seen.
#include "topk.h"

#include "cuda/tlx.cuh"
#include "ops.h"

namespace tlx {
namespace {

constexpr int kWarp = 32, kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kScores = 4;                    // of a thread, loaded at once
constexpr int kChunk = kScores * kThreads;    // and of the block: so many gathered entries fit
constexpr int64_t kMostBlocks = int64_t(1) << 20;
constexpr unsigned kAllLanes = 0xffffffffu;

// An array of entries in shared memory.
template <class Real>
struct Entries {
    int64_t* index;
    Rank<Real>* rank;

    __device__ Entry<Real> get(int i) const { return {rank[i], index[i]}; }
    __device__ void put(int i, const Entry<Real>& entry) const {
        rank[i] = entry.rank;
        index[i] = entry.index;
    }
};

// Bitonic steps at `stride` and below in runs of `size`, lane i % 32 holding entry i; even runs are put best first.
template <class Real>
__device__ Entry<Real> steps_of_warp(Entry<Real> entry, int i, int size, int stride) {
    for (; stride > 0; stride /= 2) {
        const Entry<Real> other{__shfl_xor_sync(kAllLanes, entry.rank, stride),
                                __shfl_xor_sync(kAllLanes, entry.index, stride)};
        const bool keep_better = ((i & stride) == 0) == ((i & size) == 0);
        if (before(other, entry) == keep_better) entry = other;
    }
    return entry;
}

// The steps of runs of `size` among n entries, powers of two >= 32: from runs that rise and fall to sorted ones.
template <class Real>
__device__ void merge_runs(const Entries<Real>& entries, int n, int size) {
    const int thread = int(threadIdx.x);
    for (int stride = size / 2; stride >= kWarp; stride /= 2) {
        for (int pair = thread; pair < n / 2; pair += kThreads) {
            const int i = 2 * (pair & ~(stride - 1)) | (pair & (stride - 1)), j = i + stride;
            const Entry<Real> a = entries.get(i), b = entries.get(j);
            if (before(b, a) == ((i & size) == 0)) {
                entries.put(i, b);
                entries.put(j, a);
            }
        }
        __syncthreads();
    }
    for (int i = thread; i < n; i += kThreads) {  // whole warps: n and kThreads are multiples of 32
        entries.put(i, steps_of_warp(entries.get(i), i, size, size < kWarp ? size / 2 : kWarp / 2));
    }
    __syncthreads();
}

// Sorts the `held` entries gathered and merges them into the list of `places`, powers of two >= 32.
template <class Real>
__device__ void merge_gathered(const Entries<Real>& list, int places, const Entries<Real>& gathered, int held) {
    const int thread = int(threadIdx.x);
    int n = kWarp;
    while (n < held) n *= 2;
    for (int i = held + thread; i < n; i += kThreads) gathered.put(i, {kEmpty, -1});
    __syncthreads();
    for (int i = thread; i < n; i += kThreads) {
        Entry<Real> entry = gathered.get(i);
        for (int size = 2; size < kWarp; size *= 2) entry = steps_of_warp(entry, i, size, size / 2);
        gathered.put(i, entry);
    }
    __syncthreads();
    for (int size = kWarp; size <= n; size *= 2) merge_runs(gathered, n, size);

    // Of the i-th best and the i-th best from the end the better ones are the best of both lists, in a bitonic order.
    for (int i = thread; i < places; i += kThreads) {
        const int j = places - 1 - i;
        if (j < n && before(gathered.get(j), list.get(i))) list.put(i, gathered.get(j));
    }
    __syncthreads();
    merge_runs(list, places, places);
}

template <class Real>
__global__ void __launch_bounds__(kThreads, 4)
    topk_rows(const Real* __restrict__ scores, Real* values, int64_t* indices, int64_t R, int64_t m, int k, int places,
              int64_t first, bool largest) {
    TLX_DYNAMIC_SHARED(memory);
    TLX_SHARED(int, counts, [2][kWarps]);
    int64_t* const shared_indices = reinterpret_cast<int64_t*>(memory);
    Rank<Real>* const shared_ranks = reinterpret_cast<Rank<Real>*>(shared_indices + places + kChunk);
    const Entries<Real> list{shared_indices, shared_ranks};
    const Entries<Real> gathered{shared_indices + places, shared_ranks + places};
    const int thread = int(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const unsigned lanes_below = (1u << lane) - 1;

    for (int64_t row = blockIdx.x; row < R; row += gridDim.x) {
        for (int i = thread; i < places; i += kThreads) {
            list.put(i, i < k ? entry_of(values[row * k + i], indices[row * k + i], largest)
                              : Entry<Real>{kEmpty, -1});
        }
        __syncthreads();
        Entry<Real> last = list.get(k - 1);
        int held = 0, parity = 0;
        for (int64_t begin = 0; begin < m; begin += kChunk, parity ^= 1) {
            Real score[kScores];  // all are on their way before the first is used
            for (int v = 0; v < kScores; ++v) {
                const int64_t at = begin + (v * kThreads + thread);
                score[v] = at < m ? scores[row * m + at] : Real(0);
            }
            Entry<Real> entry[kScores];
            for (int v = 0; v < kScores; ++v) {
                const int64_t at = begin + (v * kThreads + thread);
                entry[v] = {at < m ? rank_of(score[v], largest) : kEmpty, first + at};
            }
            int place[kScores], found = 0;  // places among those of the warp; -1 is behind the k-th best
            for (int v = 0; v < kScores; ++v) {
                const bool chosen = before(entry[v], last);
                const unsigned votes = __ballot_sync(kAllLanes, chosen);
                place[v] = chosen ? found + __popc(votes & lanes_below) : -1;
                found += __popc(votes);
            }
            // Two sets of counts in turns: a warp may write the next while another still reads these.
            if (lane == 0) counts[parity][warp] = found;
            __syncthreads();
            int offset = 0, total = 0;
            for (int w = 0; w < kWarps; ++w) {
                offset += w < warp ? counts[parity][w] : 0;
                total += counts[parity][w];
            }
            if (held + total > kChunk) {
                merge_gathered(list, places, gathered, held);
                last = list.get(k - 1);
                held = 0;
            }
            for (int v = 0; v < kScores; ++v) {
                if (place[v] >= 0) gathered.put(held + offset + place[v], entry[v]);
            }
            held += total;
        }
        if (held > 0) merge_gathered(list, places, gathered, held);
        for (int i = thread; i < k; i += kThreads) {  // no barrier follows: the next row's loads are dealt out alike
            const Entry<Real> entry = list.get(i);
            values[row * k + i] = score_of<Real>(entry.rank, largest);
            indices[row * k + i] = entry.index;
        }
    }
}

}  // namespace

template <class Real>
void topk_cuda(const Real* scores, Real* values, int64_t* indices, int64_t R, int64_t m, int64_t k, int64_t first,
               int64_t largest, void* stream) {
    int places = kWarp;
    while (places < k) places *= 2;
    const size_t bytes = size_t(places + kChunk) * (sizeof(int64_t) + sizeof(Rank<Real>));
    const unsigned blocks = unsigned(R < kMostBlocks ? R : kMostBlocks);
    TLX_LAUNCH(topk_rows<Real>, blocks, kThreads, bytes, stream, scores, values, indices, R, m, int(k), places, first,
               largest != 0);
    check_launch("topk");
}

template void topk_cuda(const float*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, void*);
template void topk_cuda(const double*, double*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, void*);

}  // namespace tlx
