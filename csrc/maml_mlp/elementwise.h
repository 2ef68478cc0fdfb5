// Activations and softmax of all lanes. Part of ../maml_mlp_lanes.h: included once a SIMD level.

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
                const Real t = tanh_one(z);
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
