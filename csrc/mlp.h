// A multilayer perceptron, and what is asked of MAML on it: the arguments of the maml_mlp kernels as they travel to the
// level that runs them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "ops.h"

namespace tlx {

constexpr int64_t kMaxLayers = 8;

// h' = act(W h + b); W [out, in] and b [out] lie at `weight` and `bias` (-1: none) of the parameters.
struct MlpLayer {
    int64_t in, out, weight, bias;
    Activation activation;
    double leak;  // of Activation::leak: the slope below zero; 1 is the identity
    bool adapted;
    bool smooth() const { return activation != Activation::leak; }
    int64_t numbers() const { return out * in; }
};

struct Mlp {
    int64_t count, parameters, first_adapted;
    MlpLayer layers[kMaxLayers];
    bool smooth;  // whether any layer is

    // table [count, 6]: in, out, weight, bias, activation, adapted; leaks [count]
    Mlp(const int64_t* table, const double* leaks, int64_t count, int64_t parameters)
        : count(count), parameters(parameters), first_adapted(count), smooth(false) {
        if (count > kMaxLayers) throw std::invalid_argument("maml_mlp: too many layers");
        for (int64_t l = count - 1; l >= 0; --l) {
            const int64_t* row = table + 6 * l;
            layers[l] = {row[0], row[1], row[2], row[3], static_cast<Activation>(row[4]), leaks[l], row[5] != 0};
            if (layers[l].adapted) first_adapted = l;
            smooth = smooth || layers[l].smooth();
        }
    }
    int64_t inputs() const { return layers[0].in; }
    int64_t outputs() const { return layers[count - 1].out; }
};

// Rows of an array are this many numbers apart: an odd number, or strided sweeps would meet in few sets of the cache.
inline int64_t pitch(int64_t width) { return width | 1; }

// Where each layer's values lie in an array that holds those of all layers, [E, pitch(out)] each.
struct MlpRows {
    int64_t examples, at[kMaxLayers], size;
    MlpRows(const Mlp& net, int64_t examples) : examples(examples), size(0) {
        for (int64_t l = 0; l < net.count; ++l) {
            at[l] = size;
            size += examples * pitch(net.layers[l].out);
        }
    }
};

// The arguments of the op (ops.h), and `groups`, [groups, K, p]: its sums over each group of tasks.
template <class Real>
struct MamlMlp {
    Mlp net;
    Loss loss;
    int64_t T, K, S, n, steps;
    const Real *support, *support_targets, *query, *query_targets, *omega, *rates, *V, *U, *weights;
    Real *logits, *dlogits, *dtheta, *pulled, *groups;
    bool exact() const { return groups && query_targets; }  // the sums are products with the exact Hessian
};

}  // namespace tlx
