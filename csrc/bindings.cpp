// The only file that knows Python. Each op of ops.h becomes NAME_f32 and NAME_f64, bound from its C++ signature:
// pointers arrive as integers (Tensor.data_ptr()), and the GIL is free while a kernel runs.
#include <pybind11/pybind11.h>

#include <type_traits>

#include "ops.h"
#include "parallel.h"

namespace py = pybind11;

namespace {

// What Python passes for a C++ argument: an address for a pointer, an integer for an enum, else the value itself.
template <class T, class = void>
struct Passed {
    using type = T;
    static T from(type x) { return x; }
};
template <class T>
struct Passed<T*> {
    using type = std::uintptr_t;
    static T* from(type x) { return reinterpret_cast<T*>(x); }
};
template <class T>
struct Passed<T, std::enable_if_t<std::is_enum_v<T>>> {
    using type = int64_t;
    static T from(type x) { return static_cast<T>(x); }
};

template <class... Args>
void bind(py::module_& module, const char* name, void (*kernel)(Args...)) {
    module.def(
        name, [kernel](typename Passed<Args>::type... args) { kernel(Passed<Args>::from(args)...); },
        py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "Compiled kernels of tlxml_fast: addresses and sizes in, nothing checked; call them through tlxml_fast.ops.";

#define TLX_BIND(NAME)                         \
    bind(module, #NAME "_f32", &tlx::NAME<float>); \
    bind(module, #NAME "_f64", &tlx::NAME<double>);
    TLX_FOR_EACH_OP(TLX_BIND)
#ifdef TLX_HAVE_CUDA
    TLX_FOR_EACH_CUDA_OP(TLX_BIND)
#endif
#undef TLX_BIND

    module.def("simd_level", &tlx::simd_level, "The SIMD level dispatched on this processor.");
    module.def("simd_bytes", &tlx::simd_bytes, "The width of its vectors.");
    module.def(
        "set_parallel_for",
        [](std::uintptr_t address) { tlx::parallel_for_hook = reinterpret_cast<tlx::ParallelFor>(address); },
        "Use the C function torch_parallel_for at this address; 0 makes the kernels serial.");

    py::dict build;
    build["compiler"] = TLX_COMPILER;
    build["flags"] = TLX_FLAGS;
    build["nvcc"] = TLX_NVCC;
    build["sanitizer"] = TLX_SANITIZER;
#ifdef TLX_HAVE_CLONES
    build["simd_levels"] = py::make_tuple("x86-64-v4", "x86-64-v3", "baseline");
#else
    build["simd_levels"] = py::make_tuple("baseline");
#endif
    module.attr("build") = build;

#ifdef TLX_STD_THREADS
    tlx::parallel_for_hook = &tlx::std_parallel_for;
#endif
}
