// Every kernel of the core, with its shapes. This is the one declaration an op has: the bindings are derived from
// these signatures (bindings.cpp), and each op's formula and file carry the same name in csrc/cpu, ops/ and tests/ops.
//
// Arrays are contiguous and row-major. Outputs are allocated by the caller, never read, and overlap no input.
// Sizes are at least 1. Letters: T tasks, K tangents a task, S support examples (ways x shots), n queries,
// C classes (ways), D embedding width. Real is float or double.
#pragma once

#include <cstdint>

namespace tlx {

// out = exp(x), elementwise: the exponential that the other kernels use, open to tests and to `tlxml-fast doctor`.
template <class Real>
void exp(const Real* x,  // [size]
         Real* out,      // [size]
         int64_t size);

// out = tanh(x), elementwise, likewise.
template <class Real>
void tanh(const Real* x,  // [size]
          Real* out,      // [size]
          int64_t size);

// out = Lambda u, the Gauss-Newton factor of the mean cross-entropy of each task's logits.
template <class Real>
void softmax_gn(const Real* logits,  // [T, n, C]
                const Real* u,       // [T, K, n, C]
                Real* out,           // [T, K, n, C]
                int64_t T, int64_t K, int64_t n, int64_t C);

enum class Distance : int64_t { sqeuclidean = 0, euclidean = 1, cosine = 2 };

// J^T Lambda J applied to tangents of the embeddings, J the Jacobian of the ProtoNet head's logits.
template <class Real>
void proto_gn(const Real* support,     // [T, S, D]
              const Real* query,       // [T, n, D]
              const int64_t* labels,   // [T, S], in 0..C-1, every class at least once
              const Real* dsupport,    // [T, K, S, D]
              const Real* dquery,      // [T, K, n, D]
              Real* gsupport,          // [T, K, S, D]
              Real* gquery,            // [T, K, n, D]
              int64_t T, int64_t K, int64_t S, int64_t n, int64_t C, int64_t D, Distance distance, double scale);

// ---- layers. K tangents lie beside each other at every position: [N, H, W, K, C]; K = 1 is the primal itself --------

// A max pool: output (i, j) looks at rows i*stride-padding .. +kernel-1 and the same columns, inside the image.
// No pool is kernel = stride = 1. winner is the place within the window, row * kernel + column, that was chosen.

// mean[c], var[c] over the P positions of each task: var = mean of (x - mean)^2.
template <class Real>
void channel_moments(const Real* x,  // [T, P, C]
                     Real* mean,     // [T, C]
                     Real* var,      // [T, C]
                     int64_t T, int64_t P, int64_t C);

// y = pool(act(z)), z = gamma x_hat + beta, x_hat = (x - mean) rstd; act(z) = z where z > 0, else leak * z.
template <class Real>
void norm_act_pool(const Real* x,                        // [T, N, H, W, C]
                   const Real* mean, const Real* rstd,   // [T, C]
                   const Real* gamma, const Real* beta,  // [T, C]
                   Real* y,                              // [T, N, Ho, Wo, C]
                   Real* x_hat, Real* slope,             // [T, N, Ho, Wo, C]: x_hat and act'(z) at the winners
                   int32_t* winner,                      // [T, N, Ho, Wo, C]
                   int64_t T, int64_t N, int64_t H, int64_t W, int64_t C, int64_t Ho, int64_t Wo, int64_t kernel,
                   int64_t stride, int64_t padding, double leak);

// The first half of its tangents: dx at the winners, and the moments that tangents of batch statistics are made of.
template <class Real>
void norm_act_pool_gather(const Real* dx,  // [T, N, H, W, K, C]
                          const Real* x, const Real* mean, const Real* rstd, const int32_t* winner,
                          Real* chosen,    // [T, N, Ho, Wo, K, C]
                          Real* moments,   // [T, 2, K, C]: sums of dx and of x_hat dx, times inverse_count; or null
                          int64_t T, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo,
                          int64_t kernel, int64_t stride, int64_t padding, double inverse_count);

// The second half: dy along dx, dgamma and dbeta. dy may be `chosen`.
template <class Real>
void norm_act_pool_jvp(const Real* chosen,
                       const Real* moments,                    // [T, 2, K, C] of `gather`; 0 if constant
                       const Real* dgamma, const Real* dbeta,  // [T, K, C], or null: zero
                       const Real* rstd, const Real* gamma, const Real* x_hat, const Real* slope,
                       Real* dy,                               // [T, N, Ho, Wo, K, C]
                       int64_t T, int64_t N, int64_t K, int64_t C, int64_t Ho, int64_t Wo);

// The first half of its cotangents: those of beta and gamma.
template <class Real>
void norm_act_pool_affine(const Real* gy,  // [T, N, Ho, Wo, K, C]
                          const Real* x_hat, const Real* slope,
                          Real* gaffine,   // [T, 2, K, C]
                          int64_t T, int64_t N, int64_t K, int64_t C, int64_t Ho, int64_t Wo);

// The second half: gx. inverse_count is 1/M where mean and rstd are those of a batch of M positions, else 0.
template <class Real>
void norm_act_pool_vjp(const Real* gy, const Real* gaffine, const Real* x, const Real* mean, const Real* rstd,
                       const Real* gamma, const Real* slope, const int32_t* winner,
                       Real* gx,  // [T, N, H, W, K, C]
                       int64_t T, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo,
                       int64_t kernel, int64_t stride, int64_t padding, double inverse_count);

// The tangents of these cotangents, along dx, dgamma, dbeta and dgy, at one primal cotangent gy.
template <class Real>
void norm_act_pool_hvp(const Real* gy,                       // [T, N, Ho, Wo, C]
                       const Real* gx, const Real* gaffine,  // its cotangents, K = 1
                       const Real* dgy,                      // [T, N, Ho, Wo, K, C]
                       const Real* dx, const Real* chosen, const Real* dgamma, const Real* dbeta,
                       const Real* moments, const Real* x, const Real* mean, const Real* rstd, const Real* gamma,
                       const Real* x_hat, const Real* slope,
                       const Real* curve,                    // act''(z) at the winners, or null: zero
                       const int32_t* winner,
                       Real* dgx,                            // [T, N, H, W, K, C]
                       Real* dgaffine,                       // [T, 2, K, C]
                       int64_t T, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo,
                       int64_t kernel, int64_t stride, int64_t padding, double inverse_count);

// Rows of the matrix that makes a convolution a product, and its adjoint, which adds rows up. C is K x channels
// in `groups` = K runs: row (n, i, j, k) holds the kernel x kernel neighbourhood of one tangent's channels.
template <class Real>
void im2col(const Real* x,   // [N, H, W, K, C]
            Real* patches,   // [N, Ho, Wo, K, kernel_h, kernel_w, C]
            int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo, int64_t kernel_h,
            int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h, int64_t padding_w);
template <class Real>
void col2im(const Real* patches, Real* x, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho,
            int64_t Wo, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h,
            int64_t padding_w);

// Winograd's F(2x2, 3x3) around a product over channels: 16 products of tiles in place of 9 of positions, 2.25 times
// fewer flops. Tiles are th = ceil(Ho/2) by tw = ceil(Wo/2), Ho = H + 2 padding - 2.
template <class Real>
void winograd_data(const Real* x,  // [N, H, W, C]
                   Real* v,        // [16, N, th, tw, C] = B^T d B of each 4 x 4 window d
                   int64_t N, int64_t H, int64_t W, int64_t C, int64_t padding);
template <class Real>
void winograd_data_t(const Real* v, Real* x, int64_t N, int64_t H, int64_t W, int64_t C, int64_t padding);
template <class Real>
void winograd_output(const Real* m,  // [16, N, th, tw, C]
                     Real* y,        // [N, Ho, Wo, C]: A^T m A of each tile
                     int64_t N, int64_t Ho, int64_t Wo, int64_t C);
template <class Real>
void winograd_output_t(const Real* y, Real* m, int64_t N, int64_t Ho, int64_t Wo, int64_t C);

// out (+)= a b for each of B pairs of matrices, given by their strides; columns of out lie beside each other.
template <class Real>
void stacked_mm(const Real* a,  // [B, m, k]
                const Real* b,  // [B, k, n]
                Real* out,      // [B, m, n]
                int64_t B, int64_t m, int64_t k, int64_t n, int64_t a_batch, int64_t a_m, int64_t a_k, int64_t b_batch,
                int64_t b_k, int64_t b_n, int64_t out_batch, int64_t out_m, int64_t add);

// ---- MAML on a multilayer perceptron: whole tasks inside the cache --------------------------------------------------

// A network is a table of its layers, [layers, 6] rows (in, out, where W [out, in] and b [out] begin among the P
// parameters or -1, Activation, whether adapted), and the slopes below zero of those with Activation::leak. Inner steps
// are theta - rates * (gradient of the mean support loss). Targets are one-hot for Loss::cross_entropy.
enum class Activation : int64_t { leak = 0, tanh = 1, sigmoid = 2, gelu = 3 };
enum class Loss : int64_t { cross_entropy = 0, mse = 1 };

// What is asked for is not null: the query logits f and, with J = df/domega,
//   dlogits = J V, and dtheta = d(adapted parameters) V        (V given)
//   pulled  = J^T U, or J^T of the mean query loss's gradient  (U, or query_targets and K = 1, given)
//   sums    = sum over t of weights[t] J_t^T Lambda_t J_t V    (V and weights given), in the order of the tasks; with
//             query_targets of weights[t] H_t V, H_t the exact Hessian of the mean query loss through adaptation
template <class Real>
void maml_mlp(const Real* support,                   // [T, S, F]
              const Real* support_targets,           // [T, S, C]
              const Real* query,                     // [T, n, F]
              const Real* query_targets,             // [T, n, C]
              const Real* omega, const Real* rates,  // [P]
              const int64_t* table, const double* leaks,
              const Real* V,        // [K, P]
              const Real* U,        // [T, K, n, C]
              const Real* weights,  // [T]
              Real* logits,         // [T, n, C]
              Real* dlogits,        // [T, K, n, C]
              Real* dtheta,         // [T, K, P]
              Real* pulled,         // [T, K, P]
              Real* sums,           // [K, P]
              int64_t T, int64_t K, int64_t S, int64_t n, int64_t P, int64_t layers, int64_t steps, Loss loss);

// Merges a tile of each row's scores into its running top-k, best first: the largest, or the smallest. Equal scores are
// ordered by index; NaN comes behind every number, an empty place (index -1, the worst infinity) behind NaN. Against the
// rule above values and indices are read as well as written: all empty, or as an earlier tile left them. Every column
// is given once, in tiles of any width and order.
template <class Real>
void topk(const Real* scores,  // [R, m], columns first .. first + m - 1
          Real* values,        // [R, k], k <= 1024
          int64_t* indices,    // [R, k]
          int64_t R, int64_t m, int64_t k, int64_t first, int64_t largest);

// ---- compression: out = x P^T with a random d x q matrix P, E[P^T P] = I, whose entries are drawn from philox.h -------

// Sparse: each column of P has s entries +-1/sqrt(s), one in each of s blocks of rows, 1 <= s <= d < 2^31.
template <class Real>
void sjlt(const Real* x,  // [m, q]
          Real* out,      // [m, d]
          int64_t m, int64_t q, int64_t d, int64_t s, int64_t seed);

// Subsampled randomised Hadamard transform: P = S H D / sqrt(d), with H_ri = (-1)^popcount(r & i), signs D, and S the
// given rows of H, d <= q padded to a power of two.
template <class Real>
void srht(const Real* x,        // [m, q]
          const int64_t* rows,  // [d]
          Real* out,            // [m, d]
          int64_t m, int64_t q, int64_t d, int64_t seed);

// Dense: all entries of P are +-1/sqrt(d), d < 2^31.
template <class Real>
void rademacher(const Real* x,  // [m, q]
                Real* out,      // [m, d]
                int64_t m, int64_t q, int64_t d, int64_t seed);

// Ops with a kernel in csrc/cuda: the same arguments, addresses of a device, on a cudaStream_t of its context.
template <class Real>
void topk_cuda(const Real* scores, Real* values, int64_t* indices, int64_t R, int64_t m, int64_t k, int64_t first,
               int64_t largest, void* stream);

#define TLX_FOR_EACH_CUDA_OP(OP) OP(topk_cuda)

// One row an op: bindings.cpp binds NAME_f32 and NAME_f64 for each.
#define TLX_FOR_EACH_OP(OP) \
    OP(exp)                 \
    OP(tanh)                \
    OP(softmax_gn)          \
    OP(proto_gn)            \
    OP(channel_moments)     \
    OP(norm_act_pool)       \
    OP(norm_act_pool_gather) \
    OP(norm_act_pool_jvp)   \
    OP(norm_act_pool_affine) \
    OP(norm_act_pool_vjp)   \
    OP(norm_act_pool_hvp)   \
    OP(im2col)              \
    OP(col2im)              \
    OP(winograd_data)       \
    OP(winograd_data_t)     \
    OP(winograd_output)     \
    OP(winograd_output_t)   \
    OP(stacked_mm)          \
    OP(maml_mlp)            \
    OP(topk)                \
    OP(sjlt)                \
    OP(srht)                \
    OP(rademacher)

// The SIMD level that the dynamic linker chose for this processor: "x86-64-v4", "x86-64-v3" or "baseline".
const char* simd_level();
int64_t simd_bytes();  // of its vectors

}  // namespace tlx
