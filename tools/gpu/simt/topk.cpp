// csrc/cuda/topk.cu on the CPU, against a sort of each row. With an argument, that many rows and scores at most:
// ThreadSanitizer's share. Ends with the number of cases, or with the first that is wrong.
#include "cuda/topk.cu"

#include <cmath>
#include <limits>

namespace {

struct Case {
    int64_t R, m, k;
    std::vector<int64_t> tiles;  // their widths
    int levels;                  // scores are of so many, so that there are ties; 0: they ascend
};

const std::vector<Case> cases = {
    {1, 1, 1, {1}, 9},
    {3, 5, 7, {2, 3}, 3},
    {2, 33, 32, {33}, 9},
    {5, 257, 33, {256, 1}, 40},
    {2, 1024, 40, {1024}, 5},
    {2, 1025, 1, {1025}, 100000},
    {1, 1500, 1000, {700, 800}, 50},
    {1, 1300, 1024, {1, 1299}, 100000},
    {1, 5003, 3, {5003}, 0},
    {2, 9001, 64, {4000, 5001}, 100000},
    {1, 4100, 1000, {4100}, 0},
};

template <class Real>
Real score_at(std::mt19937& random, const Case& c, int64_t column, bool largest) {
    if (c.levels == 0) return Real(largest ? column : -column);
    const int drawn = int(random() % unsigned(c.levels + 3)) - c.levels / 2;
    if (drawn == c.levels / 2 + 1) return std::numeric_limits<Real>::quiet_NaN();
    if (drawn == c.levels / 2 + 2) return -std::numeric_limits<Real>::infinity();
    return drawn == 0 && random() % 2 ? -Real(0) : Real(drawn);
}

// What is asked for, by a stable sort: numbers before NaN, better ones first, empty places at the end.
template <class Real>
void expect(const Case& c, const Real* scores, bool largest, std::vector<Real>& values, std::vector<int64_t>& indices) {
    std::vector<int64_t> order(c.m);
    std::iota(order.begin(), order.end(), int64_t(0));
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const Real x = scores[a], y = scores[b];
        if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
        return largest ? x > y : x < y;
    });
    const Real worst = std::numeric_limits<Real>::infinity() * Real(largest ? -1 : 1);
    for (int64_t i = 0; i < c.k; ++i) {
        values.push_back(i < c.m ? scores[order[i]] : worst);
        indices.push_back(i < c.m ? order[i] : -1);
    }
}

template <class Real>
int run(const Case& c, bool largest, bool few_blocks) {
    std::mt19937 random(unsigned(c.m * 31 + c.k));
    std::vector<Real> scores, want_values;
    std::vector<int64_t> want_indices;
    for (int64_t r = 0; r < c.R; ++r) {
        for (int64_t column = 0; column < c.m; ++column) scores.push_back(score_at<Real>(random, c, column, largest));
        expect(c, scores.data() + r * c.m, largest, want_values, want_indices);
    }
    std::vector<Real> values(c.R * c.k, std::numeric_limits<Real>::quiet_NaN());
    std::vector<int64_t> indices(c.R * c.k, -1);
    int64_t first = 0;
    for (const int64_t width : c.tiles) {
        std::vector<Real> tile;
        for (int64_t r = 0; r < c.R; ++r) {
            const auto begin = scores.begin() + r * c.m + first;
            tile.insert(tile.end(), begin, begin + width);
        }
        if (few_blocks) {  // a block takes several rows
            int places = 32;
            while (places < c.k) places *= 2;
            const size_t bytes = size_t(places + tlx::kChunk) * (sizeof(int64_t) + sizeof(Real));
            TLX_LAUNCH(tlx::topk_rows<Real>, unsigned((c.R + 1) / 2), tlx::kThreads, bytes, nullptr, tile.data(),
                       values.data(), indices.data(), c.R, width, int(c.k), places, first, largest);
        } else {
            tlx::topk_cuda<Real>(tile.data(), values.data(), indices.data(), c.R, width, c.k, first, largest, nullptr);
        }
        first += width;
    }
    for (size_t i = 0; i < values.size(); ++i) {
        const bool same = values[i] == want_values[i] || (std::isnan(values[i]) && std::isnan(want_values[i]));
        if (same && indices[i] == want_indices[i] && !(values[i] == 0 && std::signbit(values[i]))) continue;
        std::printf("wrong: R %ld, m %ld, k %ld, %s, %zu bytes: place %zu holds %g at %ld, expected %g at %ld\n",
                    long(c.R), long(c.m), long(c.k), largest ? "largest" : "smallest", sizeof(Real), i, double(values[i]),
                    long(indices[i]), double(want_values[i]), long(want_indices[i]));
        return 1;
    }
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    const long most = count > 1 ? std::atol(arguments[1]) : std::numeric_limits<long>::max();
    int done = 0;
    for (const Case& c : cases) {
        if (c.R * c.m > most) continue;
        for (const bool largest : {true, false}) {
            if (run<float>(c, largest, false) || run<double>(c, largest, c.R > 1)) return 1;
            done += 2;
        }
    }
    std::printf("%d cases\n", done);
    return done == 0;
}
