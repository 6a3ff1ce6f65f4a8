#!/usr/bin/env bash
# Run by conda-build and rattler-build in the source folder, with the compilers' environment set up.
set -euxo pipefail

export CMAKE_GENERATOR=Ninja
export CMAKE_BUILD_PARALLEL_LEVEL="${CPU_COUNT:-2}"

if [[ "${cuda_compiler_version:-None}" != "None" ]]; then
  export FASTLLM_CUDA=ON
  # The list is the variant's (recipe/variants); without one, what the compiler package asks for.
  archs="${FASTLLM_CUDA_ARCHITECTURES:-${CUDAARCHS:-80-real;90a-real}}"
  CMAKE_ARGS="${CMAKE_ARGS:-} -DCMAKE_CUDA_ARCHITECTURES=$archs"
else
  export FASTLLM_CUDA=OFF
fi

if [[ "${target_platform:-}" == osx-* ]]; then
  # The C++ library comes from the channel, not from the system, so what the system lacks does not matter.
  export CXXFLAGS="${CXXFLAGS:-} -D_LIBCPP_DISABLE_AVAILABILITY"
fi
export CMAKE_ARGS

# Nothing is tuned to the building machine: kernels are compiled once per instruction set and chosen at run time.
if [[ " ${CXXFLAGS:-} " == *" -march=native "* ]]; then
  echo "CXXFLAGS hold -march=native, which makes a package for this machine alone." >&2
  exit 1
fi

# A compiler cache, where there is one, finds its entries again although every build has another prefix and another HOME.
if command -v ccache >/dev/null; then
  home="$(eval echo "~$(id -un)")"
  export CCACHE_DIR="${CCACHE_DIR:-$home/.cache/ccache}" CCACHE_BASEDIR="${CCACHE_BASEDIR:-$(dirname "$PREFIX")}"
  export CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK="%compiler% -v"
fi

"$PYTHON" -m pip install . -vv --no-deps --no-build-isolation
