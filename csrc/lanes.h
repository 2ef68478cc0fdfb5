// Included once a SIMD level by a TLX_BODY (each_level.h), hence without a guard and in that level's namespace.
//
// Lanes<Real>: a vector of independent problems, tasks or tangents, one a lane. What is computed for one is computed
// for all in the same order, so that no lane's bits depend on its neighbours. A product sums
//
//     out[r][c] = bias[c] + sum over terms, sum over k, of p * l
//
// of a primal factor p, which is one number for all lanes or lanes itself (template parameter P), and lanes l. In a term
// `p_by_row` p is indexed [r][k] and l [k][c], else p [k][c] and l [r][k].

template <class Real>
struct LanesOf {
    typedef Real type __attribute__((vector_size(TLX_LANE_BYTES)));
    static constexpr int64_t count = TLX_LANE_BYTES / sizeof(Real);
};

// Outputs held in registers at a time: all of AVX-512's 32 less what feeds them; half of AVX2's and SSE's 16.
#if TLX_LANE_BYTES == 64
constexpr int kTileRows = 5, kTileColumns = 5;
#else
constexpr int kTileRows = 2, kTileColumns = 5;
#endif

template <class P, class L>
struct Term {
    const P* p;
    int64_t p_outer, p_k;  // strides along its row or column, and along k
    const L* l;
    int64_t l_outer, l_k;
    int64_t depth;
    bool p_by_row;
};

template <int R, int C, class P, class L>
TLX_INLINE void add_term(const Term<P, L>& term, int64_t row, int64_t column, L (&acc)[R][C]) {
    const P* p = term.p + (term.p_by_row ? row : column) * term.p_outer;
    const L* l = term.l + (term.p_by_row ? column : row) * term.l_outer;
    if (term.p_by_row) {
        for (int64_t k = 0; k < term.depth; ++k, p += term.p_k, l += term.l_k) {
            L right[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) right[c] = l[c * term.l_outer];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const P left = p[r * term.p_outer];
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) acc[r][c] += left * right[c];
            }
        }
    } else {
        for (int64_t k = 0; k < term.depth; ++k, p += term.p_k, l += term.l_k) {
            L left[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) left[r] = l[r * term.l_outer];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                const P right = p[c * term.p_outer];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) acc[r][c] += right * left[r];
            }
        }
    }
}

template <int R, int C, class P, class L, class Keep>
TLX_INLINE void tile(const Term<P, L>* terms, int count, const L* bias, int64_t row, int64_t column, const Keep& keep) {
    L acc[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = bias ? bias[column + c] : L{};
    for (int t = 0; t < count; ++t) add_term(terms[t], row, column, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) keep(row + r, column + c, acc[r][c]);
}

// keep(row, column, sum) is called at least once for each place, and more than once at the edges, where a tile reaches
// back: it must only write, never add to what it wrote before.
template <int R, class P, class L, class Keep>
TLX_INLINE void tile_row(const Term<P, L>* terms, int count, const L* bias, int64_t row, int64_t column,
                         int64_t columns, const Keep& keep) {
    if (columns < kTileColumns)
        for (int64_t c = 0; c < columns; ++c) tile<R, 1>(terms, count, bias, row, c, keep);
    else
        tile<R, kTileColumns>(terms, count, bias, row, std::min(column, columns - kTileColumns), keep);
}

// The lanes of the first term stay in the cache while its primal factors pass by.
template <class P, class L, class Keep>
__attribute__((noinline)) void product(int64_t rows, int64_t columns, const Term<P, L>* terms, int count, const L* bias,
                                       const Keep& keep) {
    const int64_t R = rows < kTileRows ? 1 : kTileRows;
    const auto at = [&](int64_t row, int64_t column) TLX_LAMBDA_INLINE {
        if (R == 1)
            tile_row<1>(terms, count, bias, row, column, columns, keep);
        else
            tile_row<kTileRows>(terms, count, bias, std::min(row, rows - kTileRows), column, columns, keep);
    };
    if (terms[0].p_by_row)
        for (int64_t c = 0; c < columns; c += kTileColumns)
            for (int64_t r = 0; r < rows; r += R) at(r, c);
    else
        for (int64_t r = 0; r < rows; r += R)
            for (int64_t c = 0; c < columns; c += kTileColumns) at(r, c);
}
