// MAML on a multilayer perceptron for a vector of lanes (lanes.h); the body of cpu/maml_mlp.cpp, once a SIMD level.
//
// The primal pass (trajectory and everything derivatives need of it, a `frame`) runs over tasks in lanes. The tangents
// of one product then run either over the same tasks, or over vectors of one task, whose frame is taken out of the lanes:
// whichever fills them better. Both sum in the same order, so that a result has the same bits either way.

#include "lanes.h"
#include "maml_mlp/frame.h"
#include "maml_mlp/elementwise.h"
#include "maml_mlp/passes.h"
#include "maml_mlp/exact.h"
#include "maml_mlp/chain.h"
