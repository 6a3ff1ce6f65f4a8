# The pybind11 module fastllm._core from src/bind: the only C++ that knows of Python.
file(GLOB_RECURSE bind_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/bind/*.cpp")
if(NOT bind_sources)
  message(WARNING "[build] src/bind has no sources: _core is not built.")
  add_custom_target(_core)
  return()
endif()

set(PYBIND11_FINDPYTHON ON)
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
if(NOT pybind11_DIR AND NOT SKBUILD)
  # A plain `cmake` run: ask the interpreter where pip put pybind11.
  execute_process(COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(pybind11 3.0 CONFIG REQUIRED)

# NO_EXTRAS: no link-time optimisation; it would slow every incremental build for a layer that only converts arguments.
pybind11_add_module(_core MODULE NO_EXTRAS ${bind_sources})
# Nine tenths of the time of a file here goes into templates of pybind11 that all of them use: 170 s of CPU one by one, 45 s
# as two units. A precompiled header saves a fifth only, and 160 MB of it are more than a compiler cache wants.
if(FASTLLM_UNITY)
  set_target_properties(_core PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
endif()
target_link_libraries(_core PRIVATE fastllm_engine fastllm_settings)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT FASTLLM_SANITIZE AND NOT APPLE)
  target_link_options(_core PRIVATE -s)
endif()
install(TARGETS _core LIBRARY DESTINATION fastllm COMPONENT python)
