// Merges a tile of scores into the running top-k of each row. Nearly all scores are behind the k-th best: blocks of
// them are passed over by one vectorised comparison. The few others are gathered, and merged when there are enough.
#include <algorithm>
#include <vector>

#include "ops.h"
#include "parallel.h"
#include "simd.h"
#include "topk.h"

namespace tlx {
namespace {

constexpr int64_t kBlock = 128, kWorthMerging = 32;

// The first block from `from` on where a score is not behind `limit`, a number. A last, partial block counts as one.
template <bool largest, class Real>
TLX_CLONES int64_t pass_over(const Real* scores, int64_t from, int64_t m, Real limit) {
    for (; from + kBlock <= m; from += kBlock) {
        Rank<Real> found = 0;
        for (int64_t i = from; i < from + kBlock; ++i) found |= largest ? scores[i] >= limit : scores[i] <= limit;
        if (found) break;
    }
    return from;
}

template <class Real>
class Row {
    std::vector<Entry<Real>> best, gathered, merged;
    const bool largest;
    const size_t enough;

public:
    Row(int64_t k, bool largest) : best(k), merged(k), largest(largest), enough(std::max(k, kWorthMerging)) {
        gathered.reserve(enough + kBlock);
    }

    void load(const Real* values, const int64_t* indices) {
        for (size_t i = 0; i < best.size(); ++i) best[i] = entry_of(values[i], indices[i], largest);
    }

    void store(Real* values, int64_t* indices) const {
        for (size_t i = 0; i < best.size(); ++i) {
            values[i] = score_of<Real>(best[i].rank, largest);
            indices[i] = best[i].index;
        }
    }

    void scan(const Real* scores, int64_t m, int64_t first) {
        for (int64_t from = 0; from < m;) {
            if (best.back().rank > kNan) {
                const Real limit = score_of<Real>(best.back().rank, largest);
                from = largest ? pass_over<true>(scores, from, m, limit) : pass_over<false>(scores, from, m, limit);
            }
            for (const int64_t end = std::min(m, from + kBlock); from < end; ++from) {
                const Entry<Real> entry{rank_of(scores[from], largest), first + from};
                if (before(entry, best.back())) gathered.push_back(entry);
            }
            if (gathered.size() >= enough) merge();
        }
        merge();
    }

private:
    void merge() {
        if (gathered.size() > best.size()) {
            std::nth_element(gathered.begin(), gathered.begin() + best.size(), gathered.end(), before<Real>);
            gathered.resize(best.size());
        }
        std::sort(gathered.begin(), gathered.end(), before<Real>);
        auto old = best.begin();
        auto found = gathered.begin();
        for (auto& entry : merged) entry = found != gathered.end() && before(*found, *old) ? *found++ : *old++;
        best.swap(merged);
        gathered.clear();
    }
};

}  // namespace

template <class Real>
void topk(const Real* scores, Real* values, int64_t* indices, int64_t R, int64_t m, int64_t k, int64_t first,
          int64_t largest) {
    parallel_for(R, grain_for(m + 8 * k), [&](int64_t begin, int64_t end) {
        Row<Real> row(k, largest != 0);
        for (int64_t r = begin; r < end; ++r) {
            row.load(values + r * k, indices + r * k);
            row.scan(scores + r * m, m, first);
            row.store(values + r * k, indices + r * k);
        }
    });
}

template void topk(const float*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t);
template void topk(const double*, double*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
