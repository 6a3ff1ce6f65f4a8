# The CUDA backend: src/device/cuda as fastllm_cuda, linked into fastllm_device. The CUDA run-time library is linked statically and the driver is
# reached through it, so what is built here imports and says why not on a machine without a GPU.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "[build] FASTLLM_CUDA=ON, but no nvcc was found. Install the CUDA toolkit, name it with CUDACXX=/path/to/nvcc, or build with "
                      "FASTLLM_CUDA=OFF.")
endif()
# CUDAARCHS or the cache may name architectures; otherwise the first that the kernels support and Hopper.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real CACHE STRING "CUDA architectures")
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# CMake before 3.31 does not know the C++20 flag of nvcc 13.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

file(GLOB_RECURSE fastllm_cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/device/cuda/*.cpp" "${PROJECT_SOURCE_DIR}/src/device/cuda/*.cu")
add_library(fastllm_cuda STATIC ${fastllm_cuda_sources})
set_target_properties(fastllm_cuda PROPERTIES CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
target_include_directories(fastllm_cuda PUBLIC "${PROJECT_SOURCE_DIR}/src")
target_compile_options(fastllm_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fPIC>)
target_link_libraries(fastllm_cuda PRIVATE Threads::Threads PUBLIC fastllm_core CUDA::cudart_static)
# Hopper's own kernels exist only in code for sm_90a.
set(fastllm_cuda_archs "${CMAKE_CUDA_ARCHITECTURES}" "$ENV{CUDAARCHS}")
if(fastllm_cuda_archs MATCHES "90a")
  target_compile_definitions(fastllm_cuda PRIVATE FASTLLM_CUDA_SM90A=1)
endif()
target_link_libraries(fastllm_device PUBLIC fastllm_cuda)
target_link_libraries(fastllm_cuda PUBLIC fastllm_device)
target_compile_definitions(fastllm_device PUBLIC FASTLLM_HAVE_CUDA=1)
