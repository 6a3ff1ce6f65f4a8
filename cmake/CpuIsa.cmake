# Compile each CPU kernel file once per instruction set; the backend picks one at run time (src/core/isa.h).
#
# Every src/device/cpu/kernels/*.cpp and src/device/cpu/quant/*.cpp is compiled
#
#   x86-64    portable (baseline, SSE2)   avx2 (+FMA +F16C)   avx512 (F BW DQ VL VNNI BF16, and all of avx2)
#   aarch64   portable (NEON is the baseline there)
#   others    portable
#
# with these definitions:
#
#   FASTLLM_ISA        portable | avx2 | avx512                     a bare word, for pasting and stringizing
#   FASTLLM_ISA_NS     isa_portable | isa_avx2 | isa_avx512         kernel code lives in namespace fastllm::cpu::FASTLLM_ISA_NS
#   FASTLLM_ISA_LEVEL  0 | 1 | 2                                    for #if: 0 portable, 1 avx2, 2 avx512
#
# and everything that links the backend gets FASTLLM_HAVE_AVX2 / FASTLLM_HAVE_AVX512 as 0 or 1: which sets exist here.
#
# THE TRAP, and how it is closed. An inline function of a header (std::vector::push_back, std::min, a template of ours)
# is emitted as a weak symbol by every file that uses it, and the linker keeps any one copy. If it keeps the one compiled
# with AVX-512, the portable code dies of SIGILL on an older CPU. Therefore:
#   1. kernel files are compiled with -fno-weak where the compiler has it: such copies then stay private to their object;
#   2. helpers in headers for kernels are `static` or in an anonymous namespace or in FASTLLM_ISA_NS; constants at
#      namespace scope are plain `constexpr` (private already), not `inline constexpr` (g++ then warns "semantics of
#      inline variable ... are wrong", and -Werror builds stop);
#   3. kernels throw nothing, allocate nothing and hold no static state: what can fail is checked by the backend before;
#   4. the test `isa_symbols` (tools/check_isa_symbols.py) reads the objects with nm and fails for a weak or a global
#      symbol outside the namespace.

include(CheckCXXCompilerFlag)

set(FASTLLM_ISAS portable)
set(FASTLLM_ISA_FLAGS_portable "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(FASTLLM_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(FASTLLM_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16
                               -mfma -mf16c -mavx2 -mprefer-vector-width=512)
  foreach(isa avx2 avx512)
    string(REPLACE ";" " " flags "${FASTLLM_ISA_FLAGS_${isa}}")
    check_cxx_compiler_flag("${flags}" FASTLLM_COMPILER_HAS_${isa})
    if(FASTLLM_COMPILER_HAS_${isa})
      list(APPEND FASTLLM_ISAS ${isa})
    else()
      message(WARNING "[build] ${CMAKE_CXX_COMPILER} does not take '${flags}'; kernels for ${isa} are left out.")
    endif()
  endforeach()
endif()
set(FASTLLM_ISA_LEVEL_portable 0)
set(FASTLLM_ISA_LEVEL_avx2 1)
set(FASTLLM_ISA_LEVEL_avx512 2)

set(FASTLLM_ISA_DEFINITIONS "")
foreach(isa avx2 avx512)
  string(TOUPPER ${isa} upper)
  set(have 0)
  if(isa IN_LIST FASTLLM_ISAS)
    set(have 1)
  endif()
  list(APPEND FASTLLM_ISA_DEFINITIONS FASTLLM_HAVE_${upper}=${have})
endforeach()

check_cxx_compiler_flag(-fno-weak FASTLLM_COMPILER_HAS_NO_WEAK)

# fastllm_cpu_library(name folder DEPENDS lib...): <folder>/kernels and <folder>/quant once per instruction set, all other
# .cpp files below the folder once.
function(fastllm_cpu_library name folder)
  cmake_parse_arguments(arg "" "" "DEPENDS" ${ARGN})
  set(root "${PROJECT_SOURCE_DIR}/${folder}")
  file(GLOB kernels CONFIGURE_DEPENDS "${root}/kernels/*.cpp" "${root}/quant/*.cpp")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${root}/*.cpp")
  if(kernels)
    list(REMOVE_ITEM sources ${kernels})
  endif()
  fastllm_library(${name} ${folder} SOURCES ${sources} DEPENDS ${arg_DEPENDS})
  if(NOT kernels)
    return()
  endif()
  foreach(isa ${FASTLLM_ISAS})
    set(objects ${name}_${isa})
    add_library(${objects} OBJECT ${kernels})
    target_include_directories(${objects} PRIVATE "${PROJECT_SOURCE_DIR}/src")
    target_link_libraries(${objects} PRIVATE fastllm_settings)
    target_compile_definitions(${objects} PRIVATE
      FASTLLM_ISA=${isa} FASTLLM_ISA_NS=isa_${isa} FASTLLM_ISA_LEVEL=${FASTLLM_ISA_LEVEL_${isa}}
      ${FASTLLM_ISA_DEFINITIONS})
    target_compile_options(${objects} PRIVATE ${FASTLLM_ISA_FLAGS_${isa}} -fno-trapping-math)
    if(FASTLLM_COMPILER_HAS_NO_WEAK)
      target_compile_options(${objects} PRIVATE -fno-weak)
    endif()
    if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT FASTLLM_SANITIZE)
      target_compile_options(${objects} PRIVATE -O3)
    endif()
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()

# The guard, as a test: run over the objects of each instruction set.
function(fastllm_isa_symbol_test)
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(NOT Python3_Interpreter_FOUND OR NOT CMAKE_NM OR FASTLLM_SANITIZE)
    return()
  endif()
  foreach(isa ${FASTLLM_ISAS})
    if(TARGET fastllm_cpu_${isa})
      add_test(NAME isa_symbols_${isa}
        COMMAND Python3::Interpreter "${PROJECT_SOURCE_DIR}/tools/check_isa_symbols.py" --nm "${CMAKE_NM}"
                --namespace fastllm::cpu::isa_${isa} $<TARGET_OBJECTS:fastllm_cpu_${isa}>
        COMMAND_EXPAND_LISTS)
    endif()
  endforeach()
endfunction()
