// What the passes read and write, and where it lies. Part of ../maml_mlp_lanes.h: included once a SIMD level.

// What derivatives need of a support set at one theta, or of the query set at the last: arrays over all layers, laid out
// by MlpRows. Dotted is a derivative along b = D lambda of the exact Hessian, the same for all vectors.
template <class P>
struct Tape {
    P* x;          // [E, pitch(F)], the first layer's input
    P* values;     // h, the layers' outputs
    P* slope;      // act'(z)
    P* gz;         // cotangent of z of the set's own loss; h_bar is that of h
    P* curve;      // act''(z), and
    P* third;      // act'''(z), where layers are smooth
    P* bend;       // act''(z) h_bar
    P* chance;     // [E, C] softmax of the outputs
    P* b_h;        // h dotted
    P* b_gz;       // gz dotted
    P* b_slope;    // act'(z) dotted
    P* b_bend;     // act''(z) h_bar dotted; h_bar itself until `second` has run
};

struct TapeLayout {
    MlpRows rows;
    int64_t values, slope, gz, curve, third, bend, chance, b_h, b_gz, b_slope, b_bend, size;

    // reverse: with the gradient of its loss; second: with that gradient's derivative along b.
    TapeLayout(const Mlp& net, int64_t examples, bool reverse, bool second, bool exact) : rows(net, examples), size(0) {
        const auto take = [&](bool wanted, int64_t numbers) {
            size += wanted ? numbers : 0;
            return wanted ? size - numbers : -1;
        };
        values = take(true, rows.size), slope = take(true, rows.size);
        gz = take(reverse, rows.size);
        curve = take(reverse && net.smooth, rows.size), third = take(second && exact && net.smooth, rows.size);
        bend = take(reverse && net.smooth, rows.size);
        b_h = take(second && exact, rows.size), b_gz = take(second && exact, rows.size);
        b_slope = take(second && exact && net.smooth, rows.size);
        b_bend = take(second && exact && net.smooth, rows.size);
        chance = take(true, examples * net.outputs());
    }
    template <class P>
    Tape<P> of(P* x, P* at) const {
        const auto array = [=](int64_t place) { return place < 0 ? nullptr : at + place; };
        return {x,           array(values), array(slope), array(gz),      array(curve),  array(third), array(bend),
                array(chance), array(b_h),    array(b_gz),  array(b_slope), array(b_bend)};
    }
};

// Offsets of one task's arrays in the memory of a frame; in lanes for a group of tasks, in numbers for one.
struct FrameLayout {
    TapeLayout support, query;
    int64_t support_x, query_x, theta, along, tapes, query_tape, size;

    FrameLayout(const Mlp& net, int64_t S, int64_t n, int64_t steps, bool exact)
        : support(net, S, true, true, exact), query(net, n, exact, false, exact) {
        support_x = 0;
        query_x = support_x + S * pitch(net.inputs());
        theta = query_x + n * pitch(net.inputs());
        along = theta + (steps + 1) * net.parameters;  // b of every step
        tapes = along + (exact ? steps * net.parameters : 0);
        query_tape = tapes + steps * support.size;
        size = query_tape + query.size;
    }
    template <class P>
    Tape<P> tape(P* frame, int64_t step) const {
        return support.of(frame + support_x, frame + tapes + step * support.size);
    }
    template <class P>
    Tape<P> query_of(P* frame) const {
        return query.of(frame + query_x, frame + query_tape);
    }
};

// x[i], lane j: from[j * stride + i] for j < used; lanes beyond repeat the last, whose results nobody takes.
template <class Real, class L>
void gather(const Real* from, int64_t stride, int64_t used, int64_t size, L* x) {
    Real* numbers = reinterpret_cast<Real*>(x);
    constexpr int64_t lanes = LanesOf<Real>::count, block = 64;
    for (int64_t i = 0; i < size; i += block)
        for (int64_t j = 0; j < lanes; ++j) {
            const Real* source = from + std::min(j, used - 1) * stride;
            for (int64_t b = i; b < std::min(size, i + block); ++b) numbers[b * lanes + j] = source[b];
        }
}

template <class Real, class L>
void scatter(const L* x, int64_t size, int64_t used, Real* to, int64_t stride) {
    const Real* numbers = reinterpret_cast<const Real*>(x);
    constexpr int64_t lanes = LanesOf<Real>::count, block = 64;
    for (int64_t i = 0; i < size; i += block)
        for (int64_t j = 0; j < used; ++j)
            for (int64_t b = i; b < std::min(size, i + block); ++b) to[j * stride + b] = numbers[b * lanes + j];
}

// Rows of `width` in memory, of `pitch(width)` in lanes.
template <class Real, class L>
void gather_rows(const Real* from, int64_t stride, int64_t used, int64_t rows, int64_t width, L* x) {
    for (int64_t r = 0; r < rows; ++r) gather(from + r * width, stride, used, width, x + r * pitch(width));
}

// Scratch of one vector of tangents: parameters, then values of all layers. Along a (theta's own tangent) dh, dz, dg
// and raw; along ab, the mixed direction of the exact Hessian, ab_h, ab_z and ab_g.
template <class Real>
struct Moving {
    using L = typename LanesOf<Real>::type;
    Buffer<Real> memory;
    L *v, *next, *scaled, *dh, *dz, *dg, *raw, *ab_h, *ab_z, *ab_g, *rows, *trace;
    Moving(const Mlp& net, const FrameLayout& layout, int64_t traced = 0)
        : memory(size(net, layout, traced) * LanesOf<Real>::count) {
        L* at = reinterpret_cast<L*>(static_cast<Real*>(memory));
        std::fill(at, at + size(net, layout, traced), L{});  // rows end in places that are read and never written
        for (L** x : {&v, &next, &scaled}) *x = at, at += net.parameters;
        for (L** x : {&dh, &dz, &dg, &raw, &ab_h, &ab_z, &ab_g}) *x = at, at += values(layout);
        rows = at, trace = at + layout.query.rows.examples * net.outputs();
    }
    static int64_t values(const FrameLayout& layout) {
        return std::max(layout.support.rows.size, layout.query.rows.size);
    }
    static int64_t size(const Mlp& net, const FrameLayout& layout, int64_t traced) {
        return (3 + traced) * net.parameters + 7 * values(layout) + layout.query.rows.examples * net.outputs();
    }
};
