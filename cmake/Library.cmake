# fastllm_library(name folder [RECURSE] [DEPENDS lib...]): all .cpp files of a folder as one static library.
#
# * Includes are written from src/: #include "device/backend.h".
# * Files below a folder `reference/` or named *_reference.cpp are oracles: they are compiled with -ffp-contract=off, so
#   that a + b * c rounds twice on every machine.
# * A folder without sources gives a library with one empty object, so that the tree configures while it grows.

function(fastllm_library name folder)
  cmake_parse_arguments(arg "RECURSE" "" "DEPENDS;SOURCES" ${ARGN})
  set(glob GLOB)
  if(arg_RECURSE)
    set(glob GLOB_RECURSE)
  endif()
  set(sources "${arg_SOURCES}")
  if(NOT sources)
    file(${glob} sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  endif()
  if(NOT sources)
    set(sources "${PROJECT_BINARY_DIR}/${name}_empty.cpp")
    file(CONFIGURE OUTPUT "${sources}" CONTENT "namespace fastllm { extern const int @name@_is_empty = 0; }\n" @ONLY)
  endif()
  set(oracles ${sources})
  list(FILTER oracles INCLUDE REGEX "/reference/|_reference\\.cpp$")
  if(oracles)
    set_property(SOURCE ${oracles} APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
  endif()
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}/src")
  target_compile_definitions(${name} PUBLIC "FASTLLM_VERSION=\"${FASTLLM_VERSION}\"" ${FASTLLM_ISA_DEFINITIONS})
  target_link_libraries(${name} PUBLIC fastllm_settings ${arg_DEPENDS})
endfunction()
