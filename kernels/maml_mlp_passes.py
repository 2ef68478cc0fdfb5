"""Passes over the layers of a small multilayer perceptron for one chunk of examples: csrc/maml_mlp/passes.h in Triton.

Layers are unrolled when a kernel is compiled: LAYERS is a tuple of a row a layer, whose fields are named below, L their
number. What a pass hands on it returns: hs, dhs, slopes, curves, gzs, bends and dzs of every layer, [E, outputs]. What
the first layer reads stays in memory and comes DEPTH inputs at a time, so that it may be wide. Chunks of a set add up,
for no layer couples examples.

Widths are padded, the first layer's inputs to a multiple of DEPTH, all others to powers of two, and parameters that
passes read or write are packed with this padding: whole rows, no masks. Padding of weights and rates is zero, that of
examples and outputs has no cotangent; so none reaches a parameter that is not padding itself.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.target_info import is_hip

from tlxml_fast.kernels import products

# Fields of a layer: as in ops.h's table; where W [WIDE, DEEP] and b [WIDE] begin among packed parameters.
INPUTS, OUTPUTS, WEIGHT, BIAS, ACTIVATION, LEAK = map(tl.constexpr, range(6))
DEEP, WIDE, PACKED_WEIGHT, PACKED_BIAS = map(tl.constexpr, range(6, 10))
LEAKY, TANH, SIGMOID, GELU = map(tl.constexpr, range(4))
CROSS_ENTROPY, MSE = map(tl.constexpr, range(2))
TF32 = tl.constexpr(-1 << 13)  # the bits of a number that tf32 keeps
HALF_ROOT = tl.constexpr(0.70710678118654752440)  # of 1/2, and 1/sqrt(2 pi)
DENSITY = tl.constexpr(0.39894228040143267794)


# ---- products -------------------------------------------------------------------------------------------------------


@triton.jit
def split(x):
    """x, cut off, as a number that tf32 holds, and the rest."""
    high = (x.to(tl.int32, bitcast=True) & TF32).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def add_product(acc, left, right):
    """acc + left . right, of float32 on tensor cores.

    tf32x3 is written out: Triton's own besides looks for infinities, with a fifth of the whole kernel's instructions.
    """
    if left.dtype == tl.float64 or is_hip():
        acc = products.add_product(acc, left, right, "ieee")
    else:
        a, a_rest = split(left)
        b, b_rest = split(right)
        acc = products.add_product(acc, a_rest, b, "tf32")
        acc = products.add_product(acc, a, b_rest, "tf32")
        acc = products.add_product(acc, a, b, "tf32")
    return acc


@triton.jit
def product(left, right):
    """left . right."""
    ROWS: tl.constexpr = left.shape[0]
    COLUMNS: tl.constexpr = right.shape[1]
    return add_product(tl.zeros((ROWS, COLUMNS), left.dtype), left, right)


# ---- parameters -----------------------------------------------------------------------------------------------------


@triton.jit
def weight_places(LAYERS: tl.constexpr, layer: tl.constexpr, begin, WIDTH: tl.constexpr):
    """Where W [outputs, inputs from `begin` on] of a layer lies among packed parameters."""
    o = tl.arange(0, LAYERS[layer][WIDE])[:, None]
    return LAYERS[layer][PACKED_WEIGHT] + o * LAYERS[layer][DEEP] + begin + tl.arange(0, WIDTH)[None, :]


@triton.jit
def weight(at, rates, LAYERS: tl.constexpr, layer: tl.constexpr, begin, WIDTH: tl.constexpr):
    """W of a layer of the packed parameters `at`, inputs from `begin` on, times their rates if there are any."""
    places = weight_places(LAYERS, layer, begin, WIDTH)
    W = tl.load(at + places)
    if rates is not None:
        W *= tl.load(rates + places)
    return W


@triton.jit
def whole(at, rates, LAYERS: tl.constexpr, layer: tl.constexpr):
    """`weight` with all inputs, of a layer that is not the first."""
    return weight(at, rates, LAYERS, layer, 0, LAYERS[layer][DEEP])


@triton.jit
def bias(at, rates, LAYERS: tl.constexpr, layer: tl.constexpr):
    """b of a layer, likewise."""
    places = LAYERS[layer][PACKED_BIAS] + tl.arange(0, LAYERS[layer][WIDE])
    b = tl.load(at + places)
    if rates is not None:
        b *= tl.load(rates + places)
    return b


@triton.jit
def held(base, into, fresh, places):
    """What `change` starts from at these places."""
    if fresh is not None:
        old = tl.load(into + places, mask=(places >= 0) & (fresh == 0), other=0.0)
    else:
        old = tl.load(base + places)
    return old


@triton.jit
def change(old, into, rates, fresh, places, by):
    """into = base - rates * by at these places; where `fresh` is not None into += by, from zero if fresh.

    `old` is loaded before the product that makes `by`, and arrives meanwhile.
    """
    if rates is not None:
        by *= tl.load(rates + places)
    if fresh is None:
        by = -by
    tl.store(into + places, old + by)


@triton.jit
def change_layer(
    base, into, rates, fresh, x, hs, gz, gzs, dhs,
    LAYERS: tl.constexpr, layer: tl.constexpr, SECOND: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """`change` W and b of a layer by gz^T h, with SECOND besides by gzs^T dhs, and by gz's sum over examples."""
    if layer == 0:
        for begin in tl.range(0, x[3], DEPTH):
            places = weight_places(LAYERS, 0, begin, DEPTH)
            old = held(base, into, fresh, places)
            by = product(tl.trans(gz), inputs(x, begin, LAYERS, E, DEPTH))
            change(old, into, rates, fresh, places, by)
    else:
        places = weight_places(LAYERS, layer, 0, LAYERS[layer][DEEP])
        old = held(base, into, fresh, places)
        by = product(tl.trans(gz), hs[layer - 1])
        if SECOND:
            by = add_product(by, tl.trans(gzs[layer]), dhs[layer - 1])
        change(old, into, rates, fresh, places, by)
    if LAYERS[layer][BIAS] >= 0:
        at = LAYERS[layer][PACKED_BIAS] + tl.arange(0, LAYERS[layer][WIDE])
        old = held(base, into, fresh, at)
        change(old, into, rates, fresh, at, tl.sum(gz, 0))


@triton.jit
def copy_layer(x, into, LAYERS: tl.constexpr, layer: tl.constexpr, DEPTH: tl.constexpr):
    """into = x in a layer of packed parameters."""
    for begin in tl.range(0, LAYERS[layer][DEEP], DEPTH, disable_licm=True):
        places = weight_places(LAYERS, layer, begin, DEPTH)
        tl.store(into + places, tl.load(x + places))
    if LAYERS[layer][BIAS] >= 0:
        places = LAYERS[layer][PACKED_BIAS] + tl.arange(0, LAYERS[layer][WIDE])
        tl.store(into + places, tl.load(x + places))


@triton.jit
def repack(x, into, PACK: tl.constexpr, LAYERS: tl.constexpr, L: tl.constexpr, DEPTH: tl.constexpr):
    """into = x, from parameters as the caller has them to packed ones if PACK, else back."""
    for layer in tl.static_range(L):
        for begin in tl.range(0, LAYERS[layer][DEEP], DEPTH, disable_licm=True):
            repack_weight(x, into, PACK, LAYERS, layer, begin, DEPTH)
        if LAYERS[layer][BIAS] >= 0:
            o = tl.arange(0, LAYERS[layer][WIDE])
            inside = o < LAYERS[layer][OUTPUTS]
            repack_places(x, into, PACK, LAYERS[layer][BIAS] + o, LAYERS[layer][PACKED_BIAS] + o, inside)


@triton.jit
def repack_weight(
    x, into, PACK: tl.constexpr, LAYERS: tl.constexpr, layer: tl.constexpr, begin, DEPTH: tl.constexpr
):
    """`repack` of W of a layer, DEPTH inputs from `begin` on."""
    o = tl.arange(0, LAYERS[layer][WIDE])[:, None]
    i = begin + tl.arange(0, DEPTH)[None, :]
    inside = (o < LAYERS[layer][OUTPUTS]) & (i < LAYERS[layer][INPUTS])
    places = LAYERS[layer][WEIGHT] + o * LAYERS[layer][INPUTS] + i
    repack_places(x, into, PACK, places, weight_places(LAYERS, layer, begin, DEPTH), inside)


@triton.jit
def repack_places(x, into, PACK: tl.constexpr, places, packed, inside):
    """`repack` of these places."""
    if PACK:
        tl.store(into + packed, tl.load(x + places, mask=inside, other=0.0))
    else:
        tl.store(into + places, tl.load(x + packed), mask=inside)


# ---- examples -------------------------------------------------------------------------------------------------------


@triton.jit
def example_places(begin, count, width: tl.constexpr, at, WIDTH: tl.constexpr, E: tl.constexpr):
    """Where columns from `at` on of the examples from `begin` on lie in [count, width], and what is not padding."""
    e = begin + tl.arange(0, E)[:, None]
    i = at + tl.arange(0, WIDTH)[None, :]
    return e * width + i, (e < count) & (i < width)


@triton.jit
def inputs(x, begin, LAYERS: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr):
    """DEPTH inputs from `begin` on of E examples: x is the set, the first example, count and F."""
    places, inside = example_places(x[1], x[2], LAYERS[0][INPUTS], begin, DEPTH, E)
    return tl.load(x[0] + places, mask=inside, other=0.0)


@triton.jit
def affine(
    x, hs, theta, rates,
    LAYERS: tl.constexpr, layer: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """W h + b for what a layer reads: the outputs hs of the one before, or x."""
    if layer == 0:
        OUT: tl.constexpr = LAYERS[0][WIDE]
        z = tl.zeros((E, OUT), theta.dtype.element_ty)
        for begin in tl.range(0, x[3], DEPTH, disable_licm=True):
            W = weight(theta, rates, LAYERS, 0, begin, DEPTH)
            z = add_product(z, inputs(x, begin, LAYERS, E, DEPTH), tl.trans(W))
    else:
        z = product(hs[layer - 1], tl.trans(whole(theta, rates, LAYERS, layer)))
    if LAYERS[layer][BIAS] >= 0:
        z += bias(theta, rates, LAYERS, layer)[None, :]
    return z


@triton.jit
def activate(z, LAYERS: tl.constexpr, layer: tl.constexpr):
    """act, act' and act'' of z; act'' of a leaky layer is zero, and nobody reads what stands for it.

    tanh comes of the exponential, with an absolute error of rounding.
    """
    if LAYERS[layer][ACTIVATION] == TANH:
        e = tl.exp(-2.0 * tl.abs(z))
        t = (1.0 - e) / (1.0 + e)
        h = tl.where(z < 0, -t, t)
        slope = 1.0 - h * h
        curve = -2.0 * h * slope
    elif LAYERS[layer][ACTIVATION] == SIGMOID:
        e = tl.exp(-tl.abs(z))
        h = tl.where(z < 0, e, 1.0) / (1.0 + e)
        slope = h * (1.0 - h)
        curve = slope * (1.0 - 2.0 * h)
    elif LAYERS[layer][ACTIVATION] == GELU:
        below = 0.5 * (1.0 + tl.erf(z * HALF_ROOT))
        density = DENSITY * tl.exp(-0.5 * z * z)
        h = z * below
        slope = below + z * density
        curve = density * (2.0 - z * z)
    else:
        leak = tl.full(z.shape, LAYERS[layer][LEAK], z.dtype)
        slope = tl.where(z > 0, 1.0, leak)
        h = z * slope
        curve = slope
    return h, slope, curve


@triton.jit
def softmax(f, LAYERS: tl.constexpr, layer: tl.constexpr):
    """The softmax of each example's outputs; padding has probability zero."""
    inside = (tl.arange(0, LAYERS[layer][WIDE]) < LAYERS[layer][OUTPUTS])[None, :]
    f = tl.where(inside, f, float("-inf"))
    e = tl.exp(f - tl.max(f, 1)[:, None])
    return e / tl.sum(e, 1)[:, None]


@triton.jit
def loss_gradient(f, y, share, LOSS: tl.constexpr, LAYERS: tl.constexpr, layer: tl.constexpr):
    """The gradient of the mean loss in the outputs f; share [E, 1] is 1/count, or 2/(count C), and 0 in padding."""
    g = share * ((softmax(f, LAYERS, layer) if LOSS == CROSS_ENTROPY else f) - y)
    return tl.where(tl.arange(0, LAYERS[layer][WIDE])[None, :] < LAYERS[layer][OUTPUTS], g, 0.0)


@triton.jit
def output_curve(f, d, share, LOSS: tl.constexpr, LAYERS: tl.constexpr, layer: tl.constexpr):
    """The Hessian of the mean loss in the outputs f, times d."""
    if LOSS == CROSS_ENTROPY:
        p = softmax(f, LAYERS, layer)
        r = share * p * (d - tl.sum(p * d, 1)[:, None])
    else:
        r = share * d
    return r


@triton.jit
def shares(begin, count, one, LOSS: tl.constexpr, C: tl.constexpr, E: tl.constexpr):
    """What each example of a chunk [E, 1] is weighted with in the mean loss of `count`: nothing in padding."""
    inside = (begin + tl.arange(0, E) < count)[:, None]
    share = one / count if LOSS == CROSS_ENTROPY else 2 * one / (count * C)
    return tl.where(inside, share, 0.0)


# ---- passes ---------------------------------------------------------------------------------------------------------


@triton.jit
def forward(x, theta, LAYERS: tl.constexpr, L: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr):
    """hs, slopes and curves at the parameters theta."""
    hs, slopes, curves = (), (), ()
    for layer in tl.static_range(L):
        h, slope, curve = activate(affine(x, hs, theta, None, LAYERS, layer, E, DEPTH), LAYERS, layer)
        hs += (h,)
        slopes += (slope,)
        curves += (curve,)
    return hs, slopes, curves


@triton.jit
def backward(g, theta, slopes, curves, LAYERS: tl.constexpr, L: tl.constexpr):
    """gzs = act' h_bar and bends = act'' h_bar, h_bar the cotangents of layers' outputs; g is that of the last."""
    gzs, bends = (), ()
    for layer in tl.static_range(L - 1, -1, -1):
        gz = slopes[layer] * g
        gzs = (gz,) + gzs  # noqa: RUF005 (Triton has no starred tuples)
        bends = (curves[layer] * g,) + bends  # noqa: RUF005
        if layer > 0:
            g = product(gz, whole(theta, None, LAYERS, layer))
    return gzs, bends


@triton.jit
def support_pass(
    x, y, one, theta,
    LOSS: tl.constexpr, LAYERS: tl.constexpr, L: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """share, hs, slopes, gzs and bends of a chunk of x, against its targets in y [count, C]."""
    C: tl.constexpr = LAYERS[L - 1][OUTPUTS]
    places, inside = example_places(x[1], x[2], C, 0, LAYERS[L - 1][WIDE], E)
    share = shares(x[1], x[2], one, LOSS, C, E)
    hs, slopes, curves = forward(x, theta, LAYERS, L, E, DEPTH)
    y = tl.load(y + places, mask=inside, other=0.0)
    g = loss_gradient(hs[L - 1], y, share, LOSS, LAYERS, L - 1)
    gzs, bends = backward(g, theta, slopes, curves, LAYERS, L)
    return share, hs, slopes, gzs, bends


@triton.jit
def descend(
    theta, base, into, rates, x, hs, gzs,
    LAYERS: tl.constexpr, L: tl.constexpr, FIRST: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """into = base - rates * gradient; layers before FIRST are theta's."""
    for layer in tl.static_range(L):
        if layer < FIRST:
            copy_layer(theta, into, LAYERS, layer, DEPTH)
        else:
            change_layer(
                base, into, rates, None, x, hs, gzs[layer], None, None, LAYERS, layer, False, E, DEPTH
            )


@triton.jit
def tangents(
    v, rates, theta, x, hs, slopes,
    LAYERS: tl.constexpr, L: tl.constexpr, FROM: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """dhs and dzs along v, or rates * v, whose layers before FROM are zero: what stands there is not read."""
    dhs, dzs = (), ()
    for layer in tl.static_range(L):
        if layer < FROM:
            dhs += (hs[layer],)
            dzs += (hs[layer],)
        else:
            dz = affine(x, hs, v, rates, LAYERS, layer, E, DEPTH)
            if layer > FROM:
                W = whole(theta, None, LAYERS, layer)
                dz = add_product(dz, dhs[layer - 1], tl.trans(W))
            dhs += (slopes[layer] * dz,)
            dzs += (dz,)
    return dhs, dzs


@triton.jit
def hessian(
    v, base, into, before, after, theta, share, x, hs, slopes, gzs, bends,
    LOSS: tl.constexpr, LAYERS: tl.constexpr, L: tl.constexpr, FROM: tl.constexpr, UNTIL: tl.constexpr,
    E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """into = base - after * H (before * v), H the chunk's part of the Hessian of the mean loss.

    Rates that are None are ones; `before` is zero in layers before FROM, `after` in those before UNTIL.
    """
    dhs, dzs = tangents(v, before, theta, x, hs, slopes, LAYERS, L, FROM, E, DEPTH)
    r = output_curve(hs[L - 1], dhs[L - 1], share, LOSS, LAYERS, L - 1)
    for layer in tl.static_range(L - 1, -1, -1):
        if layer < UNTIL:
            copy_layer(v, into, LAYERS, layer, DEPTH)
        else:
            dgz = slopes[layer] * r
            if LAYERS[layer][ACTIVATION] != LEAKY and layer >= FROM:
                dgz += bends[layer] * dzs[layer]
            change_layer(base, into, after, None, x, hs, dgz, gzs, dhs, LAYERS, layer, layer > FROM, E, DEPTH)
            if layer > UNTIL:
                r = product(dgz, whole(theta, None, LAYERS, layer))
                if layer >= FROM:
                    r = add_product(r, gzs[layer], whole(v, before, LAYERS, layer))


@triton.jit
def pull_back(
    g, into, fresh, theta, x, hs, slopes,
    LAYERS: tl.constexpr, L: tl.constexpr, E: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """into += (df/dtheta)^T g, from zero if fresh."""
    for layer in tl.static_range(L - 1, -1, -1):
        gz = slopes[layer] * g
        change_layer(None, into, None, fresh, x, hs, gz, None, None, LAYERS, layer, False, E, DEPTH)
        if layer > 0:
            g = product(gz, whole(theta, None, LAYERS, layer))
