// MAML on a multilayer perceptron, whole tasks at a time: adaptation, the chain of Hessian-vector products in both
// directions, Lambda and the pull-back stay in the cache. With H of the support loss over all parameters and D the rates,
//
//     push   v <- v - D(H v)        pull   lambda <- lambda - H(D lambda)
//
// forward over reverse, layer by layer. One work item is a group of tasks, as many as a vector has lanes, with some of
// the vectors; no sum crosses groups but the last, which runs over them in order.
#include <cmath>

#include "buffer.h"
#include "mlp.h"
#include "parallel.h"
#include "simd.h"

#define TLX_BODY "maml_mlp_lanes.h"
#include "each_level.h"

namespace tlx {
namespace {

template <class Real>
void run(const MamlMlp<Real>& job, int64_t lanes) {
    const int64_t groups = (job.T + lanes - 1) / lanes;
    // Few groups share their vectors among threads, and make their frames more than once.
    const int64_t blocks = (job.K + lanes - 1) / lanes;
    const int64_t pieces = std::max<int64_t>(1, std::min(blocks, 4 / groups));
    const int64_t width = (blocks + pieces - 1) / pieces * lanes;
    parallel_for(groups * pieces, 1, [&](int64_t first, int64_t last) {
        for (int64_t item = first; item < last; ++item) {
            const int64_t begin = std::min(job.K, item % pieces * width), end = std::min(job.K, begin + width);
            TLX_AT_LEVEL(run(job, item / pieces, begin, end));
        }
    });
}

}  // namespace

template <class Real>
void maml_mlp(const Real* support, const Real* support_targets, const Real* query, const Real* query_targets,
              const Real* omega, const Real* rates, const int64_t* table, const double* leaks, const Real* V,
              const Real* U, const Real* weights, Real* logits, Real* dlogits, Real* dtheta, Real* pulled, Real* sums,
              int64_t T, int64_t K, int64_t S, int64_t n, int64_t P, int64_t layers, int64_t steps, Loss loss) {
    const int64_t lanes = simd_bytes() / int64_t(sizeof(Real)), groups = (T + lanes - 1) / lanes;
    const Buffer<Real> partial(sums ? groups * K * P : 1);
    const Mlp net(table, leaks, layers, P);
    if (net.first_adapted == net.count) steps = 0;  // nothing moves, and the chain has no layer to begin with
    run(MamlMlp<Real>{net, loss, T, K, S, n, steps, support, support_targets, query,
                      query_targets, omega, rates, V, U, weights, logits, dlogits, dtheta, pulled,
                      sums ? static_cast<Real*>(partial) : nullptr},
        lanes);
    for (int64_t i = 0; sums && i < K * P; ++i) {
        sums[i] = 0;
        for (int64_t g = 0; g < groups; ++g) sums[i] += partial[g * K * P + i];
    }
}

template void maml_mlp(const float*, const float*, const float*, const float*, const float*, const float*,
                       const int64_t*, const double*, const float*, const float*, const float*, float*, float*, float*,
                       float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Loss);
template void maml_mlp(const double*, const double*, const double*, const double*, const double*, const double*,
                       const int64_t*, const double*, const double*, const double*, const double*, double*, double*,
                       double*, double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Loss);

}  // namespace tlx
