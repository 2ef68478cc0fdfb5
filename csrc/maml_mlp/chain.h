// From what is given to what is asked: adaptation, the chain of steps in both directions, tasks or vectors in lanes.
// Part of ../maml_mlp_lanes.h: included once a SIMD level.

template <class Real>
struct Chain : ExactPasses<Real> {
    using L = typename LanesOf<Real>::type;
    using Base = ExactPasses<Real>;
    using Base::forward, Base::gradient, Base::hvp, Base::job, Base::jvp, Base::layout, Base::loss_gradient, Base::net;
    using Base::output_curve, Base::pull_exact, Base::query_vjp, Base::second;

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
        if (!job.exact()) return;
        gather(job.query_targets + first * n * C, n * C, used, n * C, targets);
        Moving<Real> m(net, layout);
        L* lambda = m.v;
        gradient(layout.query, theta, query, targets, true,
                 [=](int64_t i, L sum) TLX_LAMBDA_INLINE { lambda[i] = sum; });
        second(frame, m);
    }

    // v <- v - D(Hv) over all steps; for the exact Hessian m.trace keeps v before each.
    template <class P>
    void push(P* frame, Moving<Real>& m) const {
        const int64_t p = net.parameters;
        L* dz = net.smooth ? m.dz : nullptr;
        for (int64_t s = 0; s < job.steps; ++s) {
            const P* theta = frame + layout.theta + s * p;
            const Tape<P> tape = layout.tape(frame, s);
            if (job.exact()) std::copy(m.v, m.v + p, m.trace + s * p);
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
            jvp(layout.query, tape, theta, m.v, 0, m.dh, job.exact() && net.smooth ? m.dz : nullptr);
            if (job.exact()) {
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
        Moving<Real> m(net, layout, job.exact() ? job.steps : 0);
        L weight = {};
        for (int64_t j = 0; job.groups && j < used; ++j) weight[j] = job.weights[first + j];
        if (job.query_targets && !job.exact()) {
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
        Moving<Real> m(net, layout, job.exact() ? job.steps : 0);
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
    const FrameLayout layout(job.net, job.S, job.n, job.steps, job.exact());
    const Chain<Real> passes{{{job, job.net, layout}}};
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
