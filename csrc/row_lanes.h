// Included once a SIMD level by a TLX_BODY (each_level.h). Rows of a matrix as lanes: as many rows as a vector has lanes
// lie beside each other, [columns][lanes], so that whatever is done to a column is done to all rows in the same order,
// and no row's bits depend on its neighbours. Where there are fewer rows, the last stands in the lanes left over.

template <class Real>
struct LanesOf {
    typedef Real type __attribute__((vector_size(TLX_LANE_BYTES)));
    static constexpr int count = TLX_LANE_BYTES / sizeof(Real);
};

// The off-diagonal blocks of size H of two vectors, exchanged.
template <int H, class Real, size_t... J>
TLX_INLINE void exchange(typename LanesOf<Real>::type& a, typename LanesOf<Real>::type& b, std::index_sequence<J...>) {
    using L = typename LanesOf<Real>::type;
    constexpr int n = sizeof...(J);
#ifdef __clang__
    const L first = __builtin_shufflevector(a, b, (J & H ? J - H + n : J)...);
    b = __builtin_shufflevector(a, b, (J & H ? J + n : J + H)...);
#else
    using Index = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    typedef Index Mask __attribute__((vector_size(TLX_LANE_BYTES)));
    const L first = __builtin_shuffle(a, b, Mask{Index(J & H ? J - H + n : J)...});
    b = __builtin_shuffle(a, b, Mask{Index(J & H ? J + n : J + H)...});
#endif
    a = first;
}

template <class Real, int H = 1>
TLX_INLINE void transpose(typename LanesOf<Real>::type (&v)[LanesOf<Real>::count]) {
    constexpr int n = LanesOf<Real>::count;
    if constexpr (H < n) {
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r)
            if (!(r & H)) exchange<H, Real>(v[r], v[r + H], std::make_index_sequence<n>());
        transpose<Real, 2 * H>(v);
    }
}

// lanes[c] = column c of `rows` rows, `stride` apart.
template <class Real>
TLX_INLINE void rows_to_lanes(const Real* x, int64_t stride, int64_t rows, int64_t columns,
                              typename LanesOf<Real>::type* lanes) {
    using L = typename LanesOf<Real>::type;
    constexpr int n = LanesOf<Real>::count;
    const Real* row[n];
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) row[r] = x + std::min<int64_t>(r, rows - 1) * stride;
    int64_t c = 0;
    for (; c + n <= columns; c += n) {
        L v[n];
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r) std::memcpy(&v[r], row[r] + c, sizeof(L));
        transpose<Real>(v);
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r) lanes[c + r] = v[r];
    }
    for (; c < columns; ++c)
        for (int r = 0; r < n; ++r) lanes[c][r] = row[r][c];
}

// The way back, times `scale`.
template <class Real>
void lanes_to_rows(const typename LanesOf<Real>::type* lanes, Real scale, Real* out, int64_t stride, int64_t rows,
                   int64_t columns) {
    using L = typename LanesOf<Real>::type;
    constexpr int n = LanesOf<Real>::count;
    int64_t c = 0;
    for (; c + n <= columns; c += n) {
        L v[n];
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r) v[r] = lanes[c + r] * scale;
        transpose<Real>(v);
        for (int r = 0; r < std::min<int64_t>(n, rows); ++r) std::memcpy(out + r * stride + c, &v[r], sizeof(L));
    }
    for (; c < columns; ++c)
        for (int r = 0; r < std::min<int64_t>(n, rows); ++r) out[r * stride + c] = lanes[c][r] * scale;
}
