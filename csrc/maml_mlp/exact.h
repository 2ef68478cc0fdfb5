// What the exact Hessian adds: derivatives of a step's Hessian-vector product. Part of ../maml_mlp_lanes.h: included once a SIMD level.

template <class Real>
struct ExactPasses : Passes<Real> {
    using L = typename LanesOf<Real>::type;
    using Base = Passes<Real>;
    using Base::column_sum, Base::hvp, Base::job, Base::jvp, Base::layout, Base::net, Base::output_curve;

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
};
