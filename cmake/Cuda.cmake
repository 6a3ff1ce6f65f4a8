# The CUDA backend: src/device/cuda as fastllm_cuda. Not part of version 0.1; this is where it plugs in.
if(NOT EXISTS "${PROJECT_SOURCE_DIR}/src/device/cuda/backend.cpp")
  message(FATAL_ERROR "[build] FASTLLM_CUDA=ON, but this version has no src/device/cuda. Build with FASTLLM_CUDA=OFF.")
endif()
