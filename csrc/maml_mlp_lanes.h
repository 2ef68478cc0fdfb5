// MAML on a multilayer perceptron for a vector of lanes (lanes.h); the body of cpu/maml_mlp.cpp, once a SIMD level.
//
// The primal pass (trajectory and everything derivatives need of it, a `Frame`) runs over tasks in lanes. The tangents
// of one product then run either over the same tasks, or over vectors of one task, whose frame is taken out of the lanes:
// whichever fills them better. Both sum in the same order, so that a result has the same bits either way.

#include "lanes.h"

// What derivatives need of a support set at one theta, or of the query set at the last: values of every layer.
template <class P>
struct Tape {
    const P* x;       // [E, pitch(F)], the first layer's input
    const P* values;  // outputs of the layers: all arrays below are laid out by MlpRows
    const P* slope;   // act'(z)
    const P* gz;      // cotangent of z, and
    const P* bend;    // act''(z) times the cotangent of act(z); both of the support loss's gradient
    const P* chance;  // [E, C] softmax of the outputs
};

// Offsets of one task's arrays in the memory of a frame; in lanes for a group of tasks, in numbers for one.
struct FrameLayout {
    MlpRows support, query;
    int64_t support_x, query_x, theta, tapes, tape_size, query_tape, size;
    bool smooth;

    FrameLayout(const Mlp& net, int64_t S, int64_t n, int64_t steps)
        : support(net, S), query(net, n), smooth(net.smooth) {
        const int64_t C = net.outputs();
        support_x = 0;
        query_x = support_x + S * pitch(net.inputs());
        theta = query_x + n * pitch(net.inputs());
        tapes = theta + (steps + 1) * net.parameters;
        tape_size = arrays(true) * support.size + S * C;
        query_tape = tapes + steps * tape_size;
        size = query_tape + arrays(false) * query.size + n * C;
    }
    int64_t arrays(bool reverse) const { return !reverse ? 2 : smooth ? 4 : 3; }

    template <class P>
    Tape<P> tape(P* frame, int64_t step) const {
        P* at = frame + tapes + step * tape_size;
        return {frame + support_x, at, at + support.size, at + 2 * support.size, at + 3 * support.size,
                at + arrays(true) * support.size};
    }
    template <class P>
    Tape<P> query_of(P* frame) const {
        P* at = frame + query_tape;
        return {frame + query_x, at, at + query.size, nullptr, nullptr, at + 2 * query.size};
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

// value, act' and, for smooth ones, act'' of z, which `value` holds before.
template <class Real>
void activate(const MlpLayer& layer, int64_t size, Real* value, Real* slope, Real* curve) {
    const Real leak = Real(layer.leak), half_root = Real(0.70710678118654752440L), root = Real(0.39894228040143267794L);
    switch (layer.activation) {
        case Activation::leak:
            for (int64_t i = 0; i < size; ++i) {
                slope[i] = value[i] > 0 ? Real(1) : leak;
                value[i] = value[i] > 0 ? value[i] : leak * value[i];
                if (curve) curve[i] = 0;
            }
            return;
        case Activation::tanh:
            for (int64_t i = 0; i < size; ++i) {
                const Real t = std::tanh(value[i]);
                value[i] = t, slope[i] = 1 - t * t, curve[i] = -2 * t * slope[i];
            }
            return;
        case Activation::sigmoid:
            for (int64_t i = 0; i < size; ++i) {
                const Real s = 1 / (1 + exp_one(-value[i]));
                value[i] = s, slope[i] = s * (1 - s), curve[i] = slope[i] * (1 - 2 * s);
            }
            return;
        case Activation::gelu:
            for (int64_t i = 0; i < size; ++i) {
                const Real z = value[i], below = Real(0.5) * (1 + std::erf(z * half_root));
                const Real density = root * exp_one(Real(-0.5) * z * z);
                value[i] = z * below, slope[i] = below + z * density, curve[i] = density * (2 - z * z);
            }
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

template <class Real>
struct Passes {
    using L = typename LanesOf<Real>::type;
    const MamlMlp<Real>& job;
    const Mlp& net;
    const FrameLayout& layout;

    // z of layer l, for all examples: W h + b.
    template <class P, class Keep>
    void affine(const MlpLayer& layer, const MlpRows& rows, const P* h, const L* theta, const Keep& keep) const {
        const Term<P, L> term{h, pitch(layer.in), 1, theta + layer.weight, layer.in, 1, layer.in, true};
        product(rows.examples, layer.out, &term, 1, layer.bias < 0 ? nullptr : theta + layer.bias, keep);
    }

    // Outputs and slopes of all layers, curves where there are any; then the softmax.
    void forward(const MlpRows& rows, const L* x, const L* theta, L* values, L* slope, L* curve, L* chance) const {
        const L* h = x;
        for (int64_t l = 0; l < net.count; ++l) {
            const MlpLayer& layer = net.layers[l];
            const int64_t width = pitch(layer.out);
            L* z = values + rows.at[l];
            affine(layer, rows, h, theta, [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE { z[r * width + c] = sum; });
            for (int64_t r = 0; width != layer.out && r < rows.examples; ++r) z[r * width + layer.out] = L{};
            activate(layer, rows.examples * width * LanesOf<Real>::count, reinterpret_cast<Real*>(z),
                     reinterpret_cast<Real*>(slope + rows.at[l]),
                     net.smooth ? reinterpret_cast<Real*>(curve + rows.at[l]) : nullptr);
            h = z;
        }
        const int64_t C = net.outputs();
        if (job.loss == Loss::cross_entropy) softmax<Real>(h, pitch(C), rows.examples, C, chance);
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

    // One inner step of a group of tasks: the tape at theta, and theta after it.
    void step(const L* x, const L* targets, const L* theta, L* tape, L* curve, L* after) const {
        const MlpRows& rows = layout.support;
        L *values = tape, *slope = tape + rows.size, *gz = tape + 2 * rows.size, *bend = tape + 3 * rows.size;
        L* chance = tape + layout.arrays(true) * rows.size;
        forward(rows, x, theta, values, slope, curve, chance);
        const int64_t last = net.count - 1, total = rows.examples * pitch(net.outputs());
        L *at_last = gz + rows.at[last], *bend_last = bend + rows.at[last];
        loss_gradient(rows.examples, values + rows.at[last], chance, targets, at_last);
        for (int64_t i = 0; i < total; ++i) {
            if (net.smooth) bend_last[i] = curve[rows.at[last] + i] * at_last[i];
            at_last[i] *= slope[rows.at[last] + i];
        }
        std::copy(theta, theta + net.parameters, after);
        for (int64_t l = last; l >= 0; --l) {
            const MlpLayer& layer = net.layers[l];
            const L *g = gz + rows.at[l], *h = l > 0 ? values + rows.at[l - 1] : x;
            if (layer.adapted) {
                const Term<L, L> term{h, 1, pitch(layer.in), g, 1, pitch(layer.out), rows.examples, false};
                const Real* rate = job.rates + layer.weight;
                const L* before = theta + layer.weight;
                L* next = after + layer.weight;
                product(layer.out, layer.in, &term, 1, static_cast<const L*>(nullptr),
                        [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                            const int64_t i = r * layer.in + c;
                            next[i] = before[i] - rate[i] * sum;
                        });
                for (int64_t o = 0; layer.bias >= 0 && o < layer.out; ++o)
                    after[layer.bias + o] =
                        theta[layer.bias + o] - job.rates[layer.bias + o] * column_sum(g + o, rows.examples, layer.out);
            }
            if (l == 0) break;
            const int64_t width = pitch(layer.in), place = rows.at[l - 1];
            const Term<L, L> term{theta + layer.weight, 1, layer.in, g, pitch(layer.out), 1, layer.out, false};
            L *into = gz + place, *bent = bend + place;
            const L *by = slope + place, *curved = curve + place;
            const bool smooth = net.smooth;
            product(rows.examples, layer.in, &term, 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * width + c;
                        into[i] = by[i] * sum;
                        if (smooth) bent[i] = curved[i] * sum;
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
        const Buffer<Real> memory((S * C + layout.support.size + layout.query.size) * LanesOf<Real>::count);
        L* targets = reinterpret_cast<L*>(static_cast<Real*>(memory));
        L *curve = targets + S * C, *query_curve = curve + layout.support.size;
        gather(job.support_targets + first * S * C, S * C, used, S * C, targets);
        L* theta = frame + layout.theta;
        gather(job.omega, 0, 1, p, theta);
        for (int64_t s = 0; s < job.steps; ++s, theta += p)
            step(frame + layout.support_x, targets, theta, frame + layout.tapes + s * layout.tape_size, curve, theta + p);
        L* at = frame + layout.query_tape;
        const int64_t size = layout.query.size;
        forward(layout.query, frame + layout.query_x, theta, at, at + size, query_curve, at + 2 * size);
    }

    // Tangents of all layers' outputs, into dh, along dtheta, whose layers before `from` are zero; dz where smooth.
    template <class P>
    void jvp(const MlpRows& rows, const Tape<P>& tape, const P* theta, const L* dtheta, int64_t from, L* dh,
             L* dz) const {
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
        const MlpRows& rows = layout.query;
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

    // H v of the support loss, layer by layer from the last, v's layers before `from` being zero: `keep(i, sum)` gets the
    // product at parameter i, of layers from `until` on. dh and dz are jvp's; dg is scratch.
    template <class P, class Keep>
    void hvp(const Tape<P>& tape, const P* theta, const L* v, int64_t from, int64_t until, const L* dh, const L* dz, L* dg,
             const Keep& keep) const {
        const MlpRows& rows = layout.support;
        const int64_t last = net.count - 1;
        output_curve(rows.examples, tape.chance, Real(1), dh + rows.at[last], dg + rows.at[last]);
        for (int64_t i = rows.at[last]; i < rows.size; ++i) {
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
            L* into = dg + place;
            const P *slope = tape.slope + place, *bend = tape.bend + place;
            const bool bent = net.smooth && l > from;
            const L* dzs = bent ? dz + place : nullptr;
            product(rows.examples, layer.in, input, l >= from ? 2 : 1, static_cast<const L*>(nullptr),
                    [=](int64_t r, int64_t c, L sum) TLX_LAMBDA_INLINE {
                        const int64_t i = r * in + c;
                        into[i] = slope[i] * sum;
                        if (bent) into[i] += bend[i] * dzs[i];
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

    // Scratch of one vector of tangents.
    struct Moving {
        Buffer<Real> memory;
        L *v, *next, *scaled, *dh, *dz, *dg, *rows;
        Moving(const Mlp& net, const FrameLayout& layout)
            : memory(size(net, layout) * LanesOf<Real>::count), v(reinterpret_cast<L*>(static_cast<Real*>(memory))) {
            const int64_t values = std::max(layout.support.size, layout.query.size);
            next = v + net.parameters, scaled = next + net.parameters, dh = scaled + net.parameters, dz = dh + values;
            dg = dz + values, rows = dg + values;
            std::fill(v, v + size(net, layout), L{});  // rows end in places that are read and never written
        }
        static int64_t size(const Mlp& net, const FrameLayout& layout) {
            return 3 * net.parameters + 3 * std::max(layout.support.size, layout.query.size) +
                   layout.query.examples * net.outputs();
        }
    };

    // v <- v - D(Hv) over all steps.
    template <class P>
    void push(P* frame, Moving& m) const {
        const int64_t p = net.parameters;
        L* dz = net.smooth ? m.dz : nullptr;
        for (int64_t s = 0; s < job.steps; ++s) {
            const P* theta = frame + layout.theta + s * p;
            const Tape<P> tape = layout.tape(frame, s);
            jvp(layout.support, tape, theta, m.v, 0, m.dh, dz);
            std::copy(m.v, m.v + p, m.next);
            const L* v = m.v;
            L* next = m.next;
            const Real* rates = job.rates;
            hvp(tape, theta, v, 0, net.first_adapted, m.dh, dz, m.dg,
                [=](int64_t i, L sum) TLX_LAMBDA_INLINE { next[i] = v[i] - rates[i] * sum; });
            std::swap(m.v, m.next);
        }
    }

    // lambda <- lambda - H(D lambda) over all steps, backwards; lambda in m.v.
    template <class P>
    void pull(P* frame, Moving& m) const {
        const int64_t p = net.parameters;
        L* dz = net.smooth ? m.dz : nullptr;
        for (int64_t i = 0; i < p; ++i) m.scaled[i] = job.rates[i] * m.v[i];
        for (int64_t s = job.steps - 1; s >= 0; --s) {
            const P* theta = frame + layout.theta + s * p;
            const Tape<P> tape = layout.tape(frame, s);
            jvp(layout.support, tape, theta, m.scaled, net.first_adapted, m.dh, dz);
            const L* before = m.v;
            L* after = m.next;
            hvp(tape, theta, m.scaled, net.first_adapted, 0, m.dh, dz, m.dg,
                [=](int64_t i, L sum) TLX_LAMBDA_INLINE { after[i] = before[i] - sum; });
            std::swap(m.v, m.next);
            for (int64_t i = 0; i < p; ++i) m.scaled[i] = job.rates[i] * m.v[i];
        }
    }

    // All that is asked of one vector of lanes: from V or U, or a loss gradient in m.dg, to the cotangents of omega in m.v,
    // or to whatever was asked for on the way. Lane j's V lies V_stride numbers after lane j - 1's, its items of U and
    // of the outputs `stride` items.
    template <class P, class W>
    void chain(P* frame, Moving& m, int64_t V_at, int64_t V_stride, W weight, int64_t item, int64_t stride,
               int64_t used) const {
        const int64_t p = net.parameters, n = job.n, C = net.outputs(), last = layout.query.at[net.count - 1];
        const Tape<P> tape = layout.query_of(frame);
        const P* theta = frame + layout.theta + job.steps * p;
        int64_t begin = 0, end = n;
        if (job.V) {
            gather(job.V + V_at, V_stride, used, p, m.v);
            push(frame, m);
            if (job.dtheta) scatter(m.v, p, used, job.dtheta + item * p, stride * p);
            if (!job.dlogits && !job.groups) return;
            jvp(layout.query, tape, theta, m.v, 0, m.dh, static_cast<L*>(nullptr));
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
        Moving m(net, layout);
        L weight = {};
        for (int64_t j = 0; job.groups && j < used; ++j) weight[j] = job.weights[first + j];
        if (job.query_targets) {
            const int64_t last = layout.query.at[net.count - 1];
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
        Moving m(net, layout);
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
    const FrameLayout layout(job.net, job.S, job.n, job.steps);
    const Passes<Real> passes{job, job.net, layout};
    const int64_t first = group * lanes, used = std::min(lanes, job.T - first);
    const Buffer<Real> memory(layout.size * lanes);
    L* frame = reinterpret_cast<L*>(static_cast<Real*>(memory));
    passes.primal(first, used, frame);
    if (job.logits) {
        const int64_t n = job.n, C = job.net.outputs();
        const L* f = frame + layout.query_tape + layout.query.at[job.net.count - 1];
        for (int64_t r = 0; r < n; ++r)
            scatter(f + r * pitch(C), C, used, job.logits + (first * n + r) * C, n * C);
    }
    // whichever fills the lanes better
    if (end - begin <= used * ((end - begin + lanes - 1) / lanes))
        passes.over_tasks(frame, first, used, begin, end);
    else if (begin < end)
        passes.over_vectors(frame, first, used, begin, end);
}
