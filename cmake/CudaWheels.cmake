# Without a CUDA toolkit: use the compiler that PyPI carries as wheels, installed beside the Python that builds.
#
# nvidia-cuda-nvcc, -crt, -runtime, -cccl and nvidia-nvvm (13 and newer; the older ones hold no nvcc) unpack into one tree,
# <site-packages>/nvidia/cu13/{bin,include,lib,nvvm}. It lacks two things that CMake takes for granted, a folder named
# lib64 and a link libcudart.so, so that FindCUDAToolkit does not accept it: the linker is told the folder, and the one
# target that is needed, CUDA::cudart_static, is made here.
#
# Sets FASTLLM_CUDA_WHEELS and ENV{CUDACXX} and makes CUDA::cudart_static when there are such wheels; else does nothing.
if(NOT FASTLLM_CUDA_WHEELS)
  find_package(Python 3.10 COMPONENTS Interpreter QUIET)
  if(NOT Python_Interpreter_FOUND)
    return()
  endif()
  # sys.path for an isolated build's own packages, sysconfig for those of the environment that it builds for.
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "
import pathlib, site, sys, sysconfig
folders = [*sys.path, sysconfig.get_path('platlib'), sysconfig.get_path('purelib'), site.getusersitepackages()]
found = [p for f in folders for p in pathlib.Path(f or '.').glob('nvidia/cu[0-9]*/bin/nvcc')]
newest = max(found, key=lambda p: int(p.parents[1].name[2:]), default=None)
print(newest.parents[1] if newest else '')
"
    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT found)
    return()
  endif()
  set(FASTLLM_CUDA_WHEELS "${found}" CACHE PATH "" FORCE)
endif()
foreach(part bin/cudafe++ bin/ptxas nvvm/bin/cicc include/cuda_runtime.h include/crt/host_runtime.h lib/libcudart_static.a)
  if(NOT EXISTS "${FASTLLM_CUDA_WHEELS}/${part}")
    message(FATAL_ERROR "[build] ${FASTLLM_CUDA_WHEELS} holds nvcc, but not ${part}. Install the other wheels too: "
                        "nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl.")
  endif()
endforeach()
message(STATUS "[build] CUDA compiler of the wheels in ${FASTLLM_CUDA_WHEELS}")
set(ENV{CUDACXX} "${FASTLLM_CUDA_WHEELS}/bin/nvcc")
set(ENV{NVCC_APPEND_FLAGS} "$ENV{NVCC_APPEND_FLAGS} -L${FASTLLM_CUDA_WHEELS}/lib")
add_library(CUDA::cudart_static STATIC IMPORTED GLOBAL)
set_target_properties(CUDA::cudart_static PROPERTIES
  IMPORTED_LOCATION "${FASTLLM_CUDA_WHEELS}/lib/libcudart_static.a"
  INTERFACE_INCLUDE_DIRECTORIES "${FASTLLM_CUDA_WHEELS}/include"
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};$<$<PLATFORM_ID:Linux>:rt>")
