// MAML on a multilayer perceptron for a vector of lanes (lanes.h); the body of cpu/maml_mlp.cpp, once a SIMD level.
//
// The primal pass (trajectory and everything derivatives need of it, a `Frame`) runs over tasks in lanes. The tangents
// of one product then run either over the same tasks, or over vectors of one task, whose frame is taken out of the lanes:
// whichever fills them better. Both sum in the same order, so that a result has the same bits either way.

#include "lanes.h"

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

// ---- between memory and lanes -------------------------------------------------------------------------------------

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

// ---- elementwise --------------------------------------------------------------------------------------------------

// value, act' and, where they are not null, act'' and act''' of z, which `value` holds before.
template <class Real>
void activate(const MlpLayer& layer, int64_t size, Real* value, Real* slope, Real* curve, Real* third) {
    const Real leak = Real(layer.leak), half_root = Real(0.70710678118654752440L), root = Real(0.39894228040143267794L);
    const auto each = [=](auto derivatives) TLX_LAMBDA_INLINE {
        for (int64_t i = 0; i < size; ++i) {
            Real first, second, last;
            derivatives(value[i], first, second, last);
            slope[i] = first;
            if (curve) curve[i] = second;
            if (third) third[i] = last;
        }
    };
    switch (layer.activation) {
        case Activation::leak:
            return each([=](Real& z, Real& first, Real& second, Real& last) TLX_LAMBDA_INLINE {
                first = z > 0 ? Real(1) : leak, second = 0, last = 0;
                z *= first;
            });
        case Activation::tanh:
            return each([=](Real& z, Real& first, Real& second, Real& last) TLX_LAMBDA_INLINE {
                const Real t = std::tanh(z);
                z = t, first = 1 - t * t, second = -2 * t * first, last = (6 * t * t - 2) * first;
            });
        case Activation::sigmoid:
            return each([=](Real& z, Real& first, Real& second, Real& last) TLX_LAMBDA_INLINE {
                const Real s = 1 / (1 + exp_one(-z));
                z = s, first = s * (1 - s), second = first * (1 - 2 * s), last = first * (1 - 6 * first);
            });
        case Activation::gelu:
            return each([=](Real& z, Real& first, Real& second, Real& last) TLX_LAMBDA_INLINE {
                const Real below = Real(0.5) * (1 + std::erf(z * half_root)), square = z * z;
                const Real density = root * exp_one(Real(-0.5) * square);
                first = below + z * density, second = density * (2 - square), last = density * z * (square - 4);
                z = z * below;
            });
    }
}

template <class Real, class L>
void softmax(const L* f, int64_t row_pitch, int64_t rows, int64_t C, L* p) {
    for (int64_t m = 0; m < rows; ++m) {
        L largest = f[m * row_pitch];
        for (int64_t c = 1; c < C; ++c) largest = f[m * row_pitch + c] > largest ? f[m * row_pitch + c] : largest;
        for (int64_t c = 0; c < C; ++c) p[m * C + c] = f[m * row_pitch + c] - largest;
    }
    Real* number = reinterpret_cast<Real*>(p);
    for (int64_t i = 0; i < rows * C * LanesOf<Real>::count; ++i) number[i] = exp_one(number[i]);
    for (int64_t m = 0; m < rows; ++m) {
        L total = {};
        for (int64_t c = 0; c < C; ++c) total += p[m * C + c];
        for (int64_t c = 0; c < C; ++c) p[m * C + c] /= total;
    }
}

// ---- passes -------------------------------------------------------------------------------------------------------

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

template <class Real>
struct Passes {
    using L = typename LanesOf<Real>::type;
    const MamlMlp<Real>& job;
    const Mlp& net;
    const FrameLayout& layout;

    // Outputs, slopes and whatever else the tape has of activations, of all layers; then the softmax.
    void forward(const TapeLayout& at, const L* theta, const Tape<L>& tape) const {
        const L* h = tape.x;
        const auto numbers = [](L* x, int64_t place) { return x ? reinterpret_cast<Real*>(x + place) : nullptr; };
        for (int64_t l = 0; l < net.count; ++l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t width = pitch(layer.out), place = at.rows.at[l];
            L* z = tape.values + place;
            const Term<L, L> term{h, pitch(layer.in), 1, theta + layer.weight, layer.in, 1, layer.in, true};
            product(at.rows.examples, layer.out, &term, 1, layer.bias < 0 ? nullptr : theta + layer.bias,
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { z[r * width + c] = sum; });
            for (int64_t r = 0; width != layer.out && r < at.rows.examples; ++r) z[r * width + layer.out] = L{};
            activate(layer, at.rows.examples * width * LanesOf<Real>::count, numbers(z, 0), numbers(tape.slope, place),
                     numbers(tape.curve, place), numbers(tape.third, place));
            h = z;
        }
        const int64_t C = net.outputs();
        if (job.loss == Loss::cross_entropy) softmax<Real>(h, pitch(C), at.rows.examples, C, tape.chance);
    }

    // The gradient of the mean loss in the outputs, [E, C] into rows of pitch(C).
    void loss_gradient(int64_t examples, const L* f, const L* chance, const L* targets, L* g) const {
        const int64_t C = net.outputs();
        const Real share = job.loss == Loss::cross_entropy ? Real(1) / Real(examples) : Real(2) / Real(examples * C);
        for (int64_t m = 0; m < examples; ++m)
            for (int64_t c = 0; c < C; ++c) {
                const L at = job.loss == Loss::cross_entropy ? chance[m * C + c] : f[m * pitch(C) + c];
                g[m * pitch(C) + c] = share * (at - targets[m * C + c]);
            }
    }

    // The gradient of the mean loss against `targets`: `keep(i, sum)` gets it at parameter i of adapted layers, or of all.
    template <class Keep>
    void gradient(const TapeLayout& at, const L* theta, const Tape<L>& tape, const L* targets, bool all,
                  const Keep& keep) const {
        const MlpRows& rows = at.rows;
        const int64_t last = net.count - 1;
        loss_gradient(rows.examples, tape.values + rows.at[last], tape.chance, targets, tape.gz + rows.at[last]);
        for (int64_t m = 0; m < rows.examples; ++m)
            for (int64_t c = 0; c < net.outputs(); ++c) {
                const int64_t i = rows.at[last] + m * pitch(net.outputs()) + c;
                if (tape.b_bend) tape.b_bend[i] = tape.gz[i];
                if (tape.bend) tape.bend[i] = tape.curve[i] * tape.gz[i];
                tape.gz[i] *= tape.slope[i];
            }
        for (int64_t l = last; l >= 0; --l) {
            const MlpLayer& layer = net.layers[l];
            const L *g = tape.gz + rows.at[l], *h = l > 0 ? tape.values + rows.at[l - 1] : tape.x;
            if (all || layer.adapted) {
                const Term<L, L> term{h, 1, pitch(layer.in), g, 1, pitch(layer.out), rows.examples, false};
                product(layer.out, layer.in, &term, 1, static_cast<const L*>(nullptr),
                        [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                            keep(layer.weight + r * layer.in + c, sum);
                        });
                for (int64_t o = 0; layer.bias >= 0 && o < layer.out; ++o)
                    keep(layer.bias + o, column_sum(g + o, rows.examples, layer.out));
            }
            if (l == 0) break;
            const int64_t width = pitch(layer.in), place = rows.at[l - 1];
            const Term<L, L> term{theta + layer.weight, 1, layer.in, g, pitch(layer.out), 1, layer.out, false};
            L *into = tape.gz + place, *bend = tape.bend ? tape.bend + place : nullptr;
            L* h_bar = tape.b_bend ? tape.b_bend + place : nullptr;
            const L *slope = tape.slope + place, *curve = tape.curve ? tape.curve + place : nullptr;
            product(rows.examples, layer.in, &term, 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * width + c;
                        into[i] = slope[i] * sum;
                        if (bend) bend[i] = curve[i] * sum;
                        if (h_bar) h_bar[i] = sum;
                    });
        }
    }

    static L column_sum(const L* g, int64_t rows, int64_t width) {
        L sum = {};
        for (int64_t r = 0; r < rows; ++r) sum += g[r * pitch(width)];
        return sum;
    }

    // The whole frame of `used` tasks from `first` on.
    void primal(int64_t first, int64_t used, L* frame) const {
        const int64_t F = net.inputs(), C = net.outputs(), S = job.S, n = job.n, p = net.parameters;
        gather_rows(job.support + first * S * F, S * F, used, S, F, frame + layout.support_x);
        gather_rows(job.query + first * n * F, n * F, used, n, F, frame + layout.query_x);
        const Buffer<Real> memory(std::max(S, n) * C * LanesOf<Real>::count);
        L* targets = reinterpret_cast<L*>(static_cast<Real*>(memory));
        gather(job.support_targets + first * S * C, S * C, used, S * C, targets);
        L* theta = frame + layout.theta;
        gather(job.omega, 0, 1, p, theta);
        const Real* rates = job.rates;
        for (int64_t s = 0; s < job.steps; ++s, theta += p) {
            const Tape<L> tape = layout.tape(frame, s);
            const L* before = theta;
            L* after = theta + p;
            std::copy(before, before + p, after);
            forward(layout.support, theta, tape);
            gradient(layout.support, theta, tape, targets, false,
                     [=](int64_t i, L sum) TLX_LAMBDA_INLINE { after[i] = before[i] - rates[i] * sum; });
        }
        const Tape<L> query = layout.query_of(frame);
        forward(layout.query, theta, query);
        if (!exact()) return;
        gather(job.query_targets + first * n * C, n * C, used, n * C, targets);
        Moving<Real> m(net, layout);
        L* lambda = m.v;
        gradient(layout.query, theta, query, targets, true,
                 [=](int64_t i, L sum) TLX_LAMBDA_INLINE { lambda[i] = sum; });
        second(frame, m);
    }

    bool exact() const { return job.groups && job.query_targets; }

    // The cotangents lambda of the gradient's own chain, from m.v backwards, with b = D lambda and all that is dotted.
    void second(L* frame, Moving<Real>& m) const {
        const int64_t p = net.parameters, size = layout.support.rows.size;
        for (int64_t s = job.steps - 1; s >= 0; --s) {
            const Tape<L> tape = layout.tape(frame, s);
            const L* theta = frame + layout.theta + s * p;
            L* b = frame + layout.along + s * p;
            for (int64_t i = 0; i < p; ++i) b[i] = job.rates[i] * m.v[i];
            std::fill(tape.b_h, tape.b_h + size, L{});
            std::fill(m.dz, m.dz + size, L{});
            jvp(layout.support, tape, theta, b, net.first_adapted, tape.b_h, net.smooth ? m.dz : nullptr);
            const L* before = m.v;
            L* after = m.next;
            hvp(layout.support, tape, theta, b, net.first_adapted, 0, tape.b_h, m.dz, tape.b_gz, m.raw,
                [=](int64_t i, L sum) TLX_LAMBDA_INLINE { after[i] = before[i] - sum; });
            for (int64_t l = 0; net.smooth && l < net.count; ++l)
                for (int64_t r = 0; r < layout.support.rows.examples; ++r)
                    for (int64_t o = 0; o < net.layers[l].out; ++o) {
                        const int64_t i = layout.support.rows.at[l] + r * pitch(net.layers[l].out) + o;
                        tape.b_slope[i] = tape.curve[i] * m.dz[i];
                        // act''' z-dot h_bar + act'' h_bar-dot, where act'' h_bar is `bend` and act'' may be zero
                        tape.b_bend[i] = tape.third[i] * m.dz[i] * tape.b_bend[i] + tape.curve[i] * m.raw[i];
                    }
            std::swap(m.v, m.next);
        }
    }

    // Tangents of all layers' outputs, into dh, along dtheta, whose layers before `from` are zero; dz where smooth.
    template <class P>
    void jvp(const TapeLayout& at, const Tape<P>& tape, const P* theta, const L* dtheta, int64_t from, L* dh,
             L* dz) const {
        const MlpRows& rows = at.rows;
        for (int64_t l = from; l < net.count; ++l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t width = pitch(layer.out), place = rows.at[l];
            const P* h = l > 0 ? tape.values + rows.at[l - 1] : tape.x;
            const L* moved = l > from ? dh + rows.at[l - 1] : nullptr;
            const Term<P, L> terms[] = {
                {h, pitch(layer.in), 1, dtheta + layer.weight, layer.in, 1, layer.in, true},
                {theta + layer.weight, layer.in, 1, moved, pitch(layer.in), 1, layer.in, false},
            };
            const bool smooth = dz != nullptr;
            L *into = dh + place, *kept = smooth ? dz + place : nullptr;
            const P* slope = tape.slope + place;
            product(rows.examples, layer.out, terms, moved ? 2 : 1, layer.bias < 0 ? nullptr : dtheta + layer.bias,
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * width + c;
                        into[i] = slope[i] * sum;
                        if (smooth) kept[i] = sum;
                    });
        }
    }

    // Cotangents g of the outputs (in g's last rows, to be changed) of the query rows [begin, end), pulled back to theta.
    template <class P>
    void query_vjp(const Tape<P>& tape, const P* theta, int64_t begin, int64_t end, L* g, L* pulled) const {
        const MlpRows& rows = layout.query.rows;
        const int64_t last = net.count - 1;
        for (int64_t i = begin * pitch(net.outputs()); i < end * pitch(net.outputs()); ++i)
            g[rows.at[last] + i] *= tape.slope[rows.at[last] + i];
        for (int64_t l = last; l >= 0; --l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t in = pitch(layer.in), out = pitch(layer.out);
            const P* h = (l > 0 ? tape.values + rows.at[l - 1] : tape.x) + begin * in;
            const L* gz = g + rows.at[l] + begin * out;
            const Term<P, L> weight{h, 1, in, gz, 1, out, end - begin, false};
            L* into = pulled + layer.weight;
            product(layer.out, layer.in, &weight, 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { into[r * layer.in + c] = sum; });
            for (int64_t o = 0; layer.bias >= 0 && o < layer.out; ++o)
                pulled[layer.bias + o] = column_sum(gz + o, end - begin, layer.out);
            if (l == 0) break;
            const Term<P, L> input{theta + layer.weight, 1, layer.in, gz, out, 1, layer.out, false};
            L* before = g + rows.at[l - 1] + begin * in;
            const P* slope = tape.slope + rows.at[l - 1] + begin * in;
            product(end - begin, layer.in, &input, 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        before[r * in + c] = slope[r * in + c] * sum;
                    });
        }
    }

    // H v of the set's loss, layer by layer from the last, v's layers before `from` being zero: `keep(i, sum)` gets the
    // product at parameter i, of layers from `until` on. dh and dz are jvp's; dg becomes the tangents of gz, and raw, if
    // it is not null, those of h_bar.
    template <class P, class Keep>
    void hvp(const TapeLayout& set, const Tape<P>& tape, const P* theta, const L* v, int64_t from, int64_t until,
             const L* dh, const L* dz, L* dg, L* raw, const Keep& keep) const {
        const MlpRows& rows = set.rows;
        const int64_t last = net.count - 1;
        output_curve(rows.examples, tape.chance, Real(1), dh + rows.at[last], dg + rows.at[last]);
        for (int64_t i = rows.at[last]; i < rows.size; ++i) {
            if (raw) raw[i] = dg[i];
            dg[i] *= tape.slope[i];
            if (net.smooth) dg[i] += tape.bend[i] * dz[i];
        }
        for (int64_t l = last; l >= until; --l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t in = pitch(layer.in), out = pitch(layer.out);
            const P* h = l > 0 ? tape.values + rows.at[l - 1] : tape.x;
            const P* gz = tape.gz + rows.at[l];
            const L* dgz = dg + rows.at[l];
            const L* moved = l > from ? dh + rows.at[l - 1] : nullptr;
            const Term<P, L> weight[] = {
                {h, 1, in, dgz, 1, out, rows.examples, false},
                {gz, 1, out, moved, 1, in, rows.examples, true},
            };
            const int64_t at = layer.weight;
            product(layer.out, layer.in, weight, moved ? 2 : 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { keep(at + r * layer.in + c, sum); });
            for (int64_t o = 0; layer.bias >= 0 && o < layer.out; ++o)
                keep(layer.bias + o, column_sum(dgz + o, rows.examples, layer.out));
            if (l == until) break;
            const Term<P, L> input[] = {
                {theta + layer.weight, 1, layer.in, dgz, out, 1, layer.out, false},
                {gz, out, 1, v + layer.weight, 1, layer.in, layer.out, true},
            };
            const int64_t place = rows.at[l - 1];
            L *into = dg + place, *whole = raw ? raw + place : nullptr;
            const bool bent = net.smooth && l > from;
            const P *slope = tape.slope + place, *bend = bent ? tape.bend + place : nullptr;
            const L* dzs = bent ? dz + place : nullptr;
            product(rows.examples, layer.in, input, l >= from ? 2 : 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * in + c;
                        into[i] = slope[i] * sum;
                        if (bent) into[i] += bend[i] * dzs[i];
                        if (whole) whole[i] = sum;
                    });
        }
    }

    // The Hessian of the mean loss in the outputs times `weight` d, rows of pitch(C).
    template <class P, class W>
    void output_curve(int64_t examples, const P* chance, W weight, const L* d, L* out) const {
        const int64_t C = net.outputs();
        if (job.loss == Loss::mse) {
            const W share = weight * (Real(2) / Real(examples * C));
            for (int64_t i = 0; i < examples * pitch(C); ++i) out[i] = share * d[i];
            return;
        }
        const W share = weight * (Real(1) / Real(examples));
        for (int64_t m = 0; m < examples; ++m, chance += C, d += pitch(C), out += pitch(C)) {
            L mean = {};
            for (int64_t c = 0; c < C; ++c) mean += chance[c] * d[c];
            for (int64_t c = 0; c < C; ++c) out[c] = share * chance[c] * (d[c] - mean);
        }
    }

    // d/df of Lambda u along v, u being f's own derivative along b, added to out; zero where the loss is quadratic.
    template <class P>
    void output_third(int64_t examples, const P* chance, const P* u, const L* v, L* out) const {
        const int64_t C = net.outputs();
        if (job.loss == Loss::mse) return;
        const Real share = Real(1) / Real(examples);
        for (int64_t m = 0; m < examples; ++m, chance += C, u += pitch(C), v += pitch(C), out += pitch(C)) {
            P mean_u = {};
            L mean_v = {}, moved_u = {};
            for (int64_t c = 0; c < C; ++c) mean_u += chance[c] * u[c], mean_v += chance[c] * v[c];
            for (int64_t c = 0; c < C; ++c) moved_u += chance[c] * (v[c] - mean_v) * u[c];
            for (int64_t c = 0; c < C; ++c)
                out[c] += share * chance[c] * ((v[c] - mean_v) * (u[c] - mean_u) - moved_u);
        }
    }

    // v <- v - D(Hv) over all steps; in the exact Hessian m.trace keeps v before each, and after the last.
    template <class P>
    void push(P* frame, Moving<Real>& m) const {
        const int64_t p = net.parameters;
        L* dz = net.smooth ? m.dz : nullptr;
        for (int64_t s = 0; s < job.steps; ++s) {
            const P* theta = frame + layout.theta + s * p;
            const Tape<P> tape = layout.tape(frame, s);
            if (exact()) std::copy(m.v, m.v + p, m.trace + s * p);
            jvp(layout.support, tape, theta, m.v, 0, m.dh, dz);
            std::copy(m.v, m.v + p, m.next);
            const L* v = m.v;
            L* next = m.next;
            const Real* rates = job.rates;
            hvp(layout.support, tape, theta, v, 0, net.first_adapted, m.dh, dz, m.dg, static_cast<L*>(nullptr),
                [=](int64_t i, L sum) TLX_LAMBDA_INLINE { next[i] = v[i] - rates[i] * sum; });
            std::swap(m.v, m.next);
        }
    }

    // lambda <- lambda - H(D lambda) over all steps, backwards; lambda in m.v.
    template <class P>
    void pull(P* frame, Moving<Real>& m) const {
        const int64_t p = net.parameters;
        L* dz = net.smooth ? m.dz : nullptr;
        for (int64_t s = job.steps - 1; s >= 0; --s) {
            const P* theta = frame + layout.theta + s * p;
            const Tape<P> tape = layout.tape(frame, s);
            for (int64_t i = 0; i < p; ++i) m.scaled[i] = job.rates[i] * m.v[i];
            jvp(layout.support, tape, theta, m.scaled, net.first_adapted, m.dh, dz);
            const L* before = m.v;
            L* after = m.next;
            hvp(layout.support, tape, theta, m.scaled, net.first_adapted, 0, m.dh, dz, m.dg, static_cast<L*>(nullptr),
                [=](int64_t i, L sum) TLX_LAMBDA_INLINE { after[i] = before[i] - sum; });
            std::swap(m.v, m.next);
        }
    }

    // The tangents of lambda along a: lambda' <- lambda' - H(D lambda') - (third derivative)[a, D lambda], backwards.
    template <class P>
    void pull_exact(P* frame, Moving<Real>& m) const {
        const int64_t p = net.parameters;
        for (int64_t s = job.steps - 1; s >= 0; --s) {
            for (int64_t i = 0; i < p; ++i) m.scaled[i] = job.rates[i] * m.v[i];
            mixed(layout.tape(frame, s), frame + layout.theta + s * p, frame + layout.along + s * p, m.trace + s * p, m);
            std::swap(m.v, m.next);
        }
    }

    // One step of it, m.v into m.next: the coefficient of both infinitesimals in the support gradient at hyper-dual
    // parameters theta, a, b, and ab in m.scaled (linearize/hyperdual.py). b and ab are zero before the first adapted layer.
    template <class P>
    void mixed(const Tape<P>& tape, const P* theta, const P* b, const L* a, Moving<Real>& m) const {
        const MlpRows& rows = layout.support.rows;
        const int64_t from = net.first_adapted, last = net.count - 1;
        const L* ab = m.scaled;
        jvp(layout.support, tape, theta, a, 0, m.dh, net.smooth ? m.dz : nullptr);
        for (int64_t l = from; l < net.count; ++l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t in = pitch(layer.in), width = pitch(layer.out), place = rows.at[l];
            Term<P, L> terms[4] = {{l > 0 ? tape.values + rows.at[l - 1] : tape.x, in, 1, ab + layer.weight, layer.in, 1,
                                    layer.in, true}};
            int count = 1;
            if (l > from) {
                terms[count++] = {tape.b_h + rows.at[l - 1], in, 1, a + layer.weight, layer.in, 1, layer.in, true};
                terms[count++] = {theta + layer.weight, layer.in, 1, m.ab_h + rows.at[l - 1], in, 1, layer.in, false};
            }
            if (l > 0) terms[count++] = {b + layer.weight, layer.in, 1, m.dh + rows.at[l - 1], in, 1, layer.in, false};
            L *h = m.ab_h + place, *z = m.ab_z + place;
            const L* dz = m.dz + place;
            const P *slope = tape.slope + place, *b_slope = net.smooth ? tape.b_slope + place : nullptr;
            product(rows.examples, layer.out, terms, count, layer.bias < 0 ? nullptr : ab + layer.bias,
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * width + c;
                        h[i] = slope[i] * sum;
                        if (!b_slope) return;
                        h[i] += b_slope[i] * dz[i];
                        z[i] = sum;
                    });
        }
        const int64_t end = rows.at[last];
        output_curve(rows.examples, tape.chance, Real(1), m.dh + end, m.dg + end);
        output_curve(rows.examples, tape.chance, Real(1), m.ab_h + end, m.ab_g + end);
        output_third(rows.examples, tape.chance, tape.b_h + end, m.dh + end, m.ab_g + end);
        for (int64_t i = end; i < rows.size; ++i) through(tape, i, m.dg[i], m.ab_g[i], m);
        for (int64_t l = last; l >= 0; --l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t in = pitch(layer.in), out = pitch(layer.out), at = layer.weight;
            const L *g = m.dg + rows.at[l], *ab_g = m.ab_g + rows.at[l];
            const P *gz = tape.gz + rows.at[l], *b_gz = tape.b_gz + rows.at[l];
            const P* h = l > 0 ? tape.values + rows.at[l - 1] : tape.x;
            Term<P, L> weight[4] = {{h, 1, in, ab_g, 1, out, rows.examples, false}};
            int count = 1;
            if (l > from) {
                weight[count++] = {tape.b_h + rows.at[l - 1], 1, in, g, 1, out, rows.examples, false};
                weight[count++] = {gz, 1, out, m.ab_h + rows.at[l - 1], 1, in, rows.examples, true};
            }
            if (l > 0) weight[count++] = {b_gz, 1, out, m.dh + rows.at[l - 1], 1, in, rows.examples, true};
            const L* before = m.v;
            L* after = m.next;
            product(layer.out, layer.in, weight, count, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = at + r * layer.in + c;
                        after[i] = before[i] - sum;
                    });
            for (int64_t o = 0; layer.bias >= 0 && o < layer.out; ++o)
                after[layer.bias + o] = before[layer.bias + o] - column_sum(ab_g + o, rows.examples, layer.out);
            if (l == 0) break;
            const Term<P, L> plain[] = {
                {theta + at, 1, layer.in, g, out, 1, layer.out, false},
                {gz, out, 1, a + at, 1, layer.in, layer.out, true},
            };
            const Term<P, L> both[] = {
                {theta + at, 1, layer.in, ab_g, out, 1, layer.out, false},
                {b_gz, out, 1, a + at, 1, layer.in, layer.out, true},
                {b + at, 1, layer.in, g, out, 1, layer.out, false},
                {gz, out, 1, ab + at, 1, layer.in, layer.out, true},
            };
            const int64_t place = rows.at[l - 1];
            L *next = m.dg + place, *next_ab = m.ab_g + place;
            product(rows.examples, layer.in, plain, 2, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { next[r * in + c] = sum; });
            product(rows.examples, layer.in, both, l >= from ? 4 : 2, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { next_ab[r * in + c] = sum; });
            for (int64_t i = place; i < rows.at[l]; ++i) through(tape, i, m.dg[i], m.ab_g[i], m);
        }
    }

    // From the tangents of h_bar to those of gz, at place i: along a, and mixed.
    template <class P>
    TLX_INLINE void through(const Tape<P>& tape, int64_t i, L& g, L& ab_g, const Moving<Real>& m) const {
        ab_g *= tape.slope[i];
        if (net.smooth) ab_g += tape.bend[i] * m.ab_z[i] + tape.b_bend[i] * m.dz[i] + tape.b_slope[i] * g;
        g *= tape.slope[i];
        if (net.smooth) g += tape.bend[i] * m.dz[i];
    }

    // All that is asked of one vector of lanes: from V or U, or a loss gradient in m.dg, to the cotangents of omega in m.v,
    // or to whatever was asked for on the way. Lane j's V lies V_stride numbers after lane j - 1's, its items of U and
    // of the outputs `stride` items.
    template <class P, class W>
    void chain(P* frame, Moving<Real>& m, int64_t V_at, int64_t V_stride, W weight, int64_t item, int64_t stride,
               int64_t used) const {
        const int64_t p = net.parameters, n = job.n, C = net.outputs(), last = layout.query.rows.at[net.count - 1];
        const Tape<P> tape = layout.query_of(frame);
        const P* theta = frame + layout.theta + job.steps * p;
        int64_t begin = 0, end = n;
        if (job.V) {
            gather(job.V + V_at, V_stride, used, p, m.v);
            push(frame, m);
            if (job.dtheta) scatter(m.v, p, used, job.dtheta + item * p, stride * p);
            if (!job.dlogits && !job.groups) return;
            jvp(layout.query, tape, theta, m.v, 0, m.dh, exact() && net.smooth ? m.dz : nullptr);
            if (exact()) {
                L* next = m.next;
                hvp(layout.query, tape, theta, m.v, 0, 0, m.dh, m.dz, m.dg, static_cast<L*>(nullptr),
                    [=](int64_t i, L sum) TLX_LAMBDA_INLINE { next[i] = sum; });
                std::swap(m.v, m.next);
                pull_exact(frame, m);
                for (int64_t i = 0; i < p; ++i) m.v[i] *= weight;
                return;
            }
            if (job.dlogits) {
                for (int64_t r = 0; r < n; ++r)
                    scatter(m.dh + last + r * pitch(C), C, used, job.dlogits + (item * n + r) * C, stride * n * C);
                return;
            }
            output_curve(n, tape.chance, weight, m.dh + last, m.dg + last);
        } else if (job.U) {
            gather(job.U + item * n * C, stride * n * C, used, n * C, m.rows);
            for (int64_t r = 0; r < n; ++r) std::copy(m.rows + r * C, m.rows + (r + 1) * C, m.dg + last + r * pitch(C));
            while (end > 1 && zero(m.rows + (end - 1) * C, C)) --end;
            while (begin < end - 1 && zero(m.rows + begin * C, C)) ++begin;
        }
        query_vjp(tape, theta, begin, end, m.dg, m.v);
        pull(frame, m);
    }

    static bool zero(const L* row, int64_t C) {
        const Real* x = reinterpret_cast<const Real*>(row);
        for (int64_t i = 0; i < C * LanesOf<Real>::count; ++i)
            if (x[i] != 0) return false;
        return true;
    }

    // Vectors [begin, end) one after another, tasks in lanes.
    void over_tasks(L* frame, int64_t first, int64_t used, int64_t begin, int64_t end) const {
        const int64_t p = net.parameters, n = job.n, C = net.outputs(), K = job.K;
        constexpr int64_t lanes = LanesOf<Real>::count;
        Moving<Real> m(net, layout, exact() ? job.steps : 0);
        L weight = {};
        for (int64_t j = 0; job.groups && j < used; ++j) weight[j] = job.weights[first + j];
        if (job.query_targets && !exact()) {
            const int64_t last = layout.query.rows.at[net.count - 1];
            const Tape<L> tape = layout.query_of(frame);
            gather(job.query_targets + first * n * C, n * C, used, n * C, m.rows);
            loss_gradient(n, tape.values + last, tape.chance, m.rows, m.dg + last);
        }
        for (int64_t k = begin; k < end; ++k) {
            const int64_t item = first * K + k;
            chain(frame, m, k * p, 0, weight, item, K, used);
            if (job.pulled) scatter(m.v, p, used, job.pulled + item * p, K * p);
            if (!job.groups) continue;
            Real* sum = job.groups + (first / lanes * K + k) * p;
            for (int64_t i = 0; i < p; ++i) {
                sum[i] = 0;
                for (int64_t j = 0; j < used; ++j) sum[i] += m.v[i][j];
            }
        }
    }

    // Tasks one after another, vectors [begin, end) in lanes.
    void over_vectors(L* frame, int64_t first, int64_t used, int64_t begin, int64_t end) const {
        const int64_t p = net.parameters, K = job.K, blocks = (end - begin + LanesOf<Real>::count - 1) / LanesOf<Real>::count;
        constexpr int64_t lanes = LanesOf<Real>::count;
        Moving<Real> m(net, layout, exact() ? job.steps : 0);
        const Buffer<Real> frames(used * layout.size), sums_memory(job.groups ? blocks * p * lanes : 1);
        scatter(frame, layout.size, used, static_cast<Real*>(frames), layout.size);
        L* sums = reinterpret_cast<L*>(static_cast<Real*>(sums_memory));
        if (job.groups) std::fill(sums, sums + blocks * p, L{});
        for (int64_t t = 0; t < used; ++t)
            for (int64_t b = 0; b < blocks; ++b) {
                const int64_t k = begin + b * lanes, item = (first + t) * K + k, some = std::min(lanes, end - k);
                chain(frames + t * layout.size, m, k * p, p, job.groups ? job.weights[first + t] : Real(1), item, 1, some);
                if (job.pulled) scatter(m.v, p, some, job.pulled + item * p, p);
                for (int64_t i = 0; job.groups && i < p; ++i) sums[b * p + i] += m.v[i];
            }
        for (int64_t b = 0; job.groups && b < blocks; ++b) {
            const int64_t k = begin + b * lanes;
            scatter(sums + b * p, p, std::min(lanes, end - k), job.groups + (first / lanes * K + k) * p, p);
        }
    }
};

// Vectors [begin, end) of one group of tasks.
template <class Real>
void run(const MamlMlp<Real>& job, int64_t group, int64_t begin, int64_t end) {
    using L = typename LanesOf<Real>::type;
    constexpr int64_t lanes = LanesOf<Real>::count;
    const FrameLayout layout(job.net, job.S, job.n, job.steps, job.groups && job.query_targets);
    const Passes<Real> passes{job, job.net, layout};
    const int64_t first = group * lanes, used = std::min(lanes, job.T - first);
    const Buffer<Real> memory(layout.size * lanes);
    L* frame = reinterpret_cast<L*>(static_cast<Real*>(memory));
    passes.primal(first, used, frame);
    if (job.logits) {
        const int64_t n = job.n, C = job.net.outputs();
        const L* f = layout.query_of(frame).values + layout.query.rows.at[job.net.count - 1];
        for (int64_t r = 0; r < n; ++r)
            scatter(f + r * pitch(C), C, used, job.logits + (first * n + r) * C, n * C);
    }
    // whichever fills the lanes better
    if (end - begin <= used * ((end - begin + lanes - 1) / lanes))
        passes.over_tasks(frame, first, used, begin, end);
    else if (begin < end)
        passes.over_vectors(frame, first, used, begin, end);
}
