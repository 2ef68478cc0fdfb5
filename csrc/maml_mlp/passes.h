// Passes over the layers: forward, gradient, JVP, VJP and Hessian-vector products. Part of ../maml_mlp_lanes.h: included once a SIMD level.

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
};
