# Settings that every target shares: language level, visibility, warnings, optimisation, sanitizers, ccache.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo" FORCE)
endif()
# Kernels ask for -O3 themselves (CpuIsa.cmake); -O2 everywhere else compiles faster and is no slower.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# The CPU is chosen at run time, so what is built must run on any machine of the architecture.
if("${CMAKE_CXX_FLAGS} $ENV{CXXFLAGS}" MATCHES "-march=native|-ffast-math")
  message(FATAL_ERROR "[build] CXXFLAGS hold -march=native or -ffast-math. fastllm picks its instruction set at run "
                      "time and relies on IEEE arithmetic; take the flag out.")
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR "[build] g++ ${CMAKE_CXX_COMPILER_VERSION} is too old, 12 or newer is needed (C++20, AVX512-BF16).")
endif()

find_package(Threads REQUIRED)

# One interface target carries the warnings and sanitizers, so they reach our targets and nobody else's.
add_library(fastllm_settings INTERFACE)
target_compile_features(fastllm_settings INTERFACE cxx_std_20)
target_compile_options(fastllm_settings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -fno-math-errno)
target_link_libraries(fastllm_settings INTERFACE Threads::Threads)
if(FASTLLM_WERROR)
  target_compile_options(fastllm_settings INTERFACE -Werror)
endif()
if(FASTLLM_SANITIZE)
  target_compile_options(fastllm_settings INTERFACE
    -fsanitize=${FASTLLM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  target_link_options(fastllm_settings INTERFACE -fsanitize=${FASTLLM_SANITIZE})
  if(FASTLLM_PYTHON)
    message(STATUS "[build] the sanitizer's run-time library must be preloaded before Python loads _core")
  endif()
endif()

if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(FASTLLM_CCACHE ccache)
  if(FASTLLM_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${FASTLLM_CCACHE}")
  endif()
endif()
