#!/bin/sh
# Say in one sentence what the build lacks, before it starts.  usage: check-machine.sh PYTHON [CXX]
python=$1 cxx=$2

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not installed; Python 3.10 to 3.13 is needed"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    fail "$("$python" --version) cannot run this; Python 3.10 to 3.13 is needed (make PYTHON=python3.12 ...)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module (Debian: apt install python3-venv)"
"$python" -c 'import os, sysconfig as s; os.stat(os.path.join(s.get_paths()["include"], "Python.h"))' 2>/dev/null ||
    fail "$python has no header files to compile against (Debian: apt install python3-dev)"
command -v "$cxx" >/dev/null || command -v c++ >/dev/null || command -v g++ >/dev/null ||
    command -v clang++ >/dev/null || fail "no C++ compiler is installed (Debian: apt install g++)"
if command -v nvcc >/dev/null; then
    echo "nvcc is here: csrc/cuda is built with it"
else
    echo "nvcc is not here: the CPU kernels are built, and no CUDA ones"
fi
