# Finds a folder with NvInferRuntime.h. Sets STORM_TENSORRT_INCLUDE and STORM_TENSORRT_VERSION, or STORM_TENSORRT_LACKS to
# what is missing and what to do. No library is needed: the plugin only implements TensorRT's interfaces.
#
# Looked for, in this order: TENSORRT_ROOT (variable or environment; the folder of a tar archive); where the packages of
# JetPack and Debian put it; the repository of NVIDIA, at the tag STORM_TENSORRT_TAG. The plugin belongs to one major
# version: the interface of the logger differs between 10 and 11. TensorRT for RTX 1.7 has that of 11.
set(TENSORRT_ROOT "" CACHE PATH "Folder of an unpacked TensorRT, with include/ in it")
if(NOT "$ENV{TENSORRT_ROOT}" STREQUAL "")  # kept, because building may configure again
  set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "" FORCE)
endif()
set(STORM_TENSORRT_TAG "v11.1" CACHE STRING "Tag of github.com/NVIDIA/TensorRT to fetch headers from if none are here")
set(STORM_TENSORRT_LACKS)
if(TENSORRT_ROOT)
  find_path(STORM_TENSORRT_INCLUDE NvInferRuntime.h HINTS ${TENSORRT_ROOT} PATH_SUFFIXES include NO_DEFAULT_PATH NO_CACHE)
  if(NOT STORM_TENSORRT_INCLUDE)
    set(STORM_TENSORRT_LACKS "there is no include/NvInferRuntime.h in TENSORRT_ROOT=${TENSORRT_ROOT}: name the folder \
that TensorRT's archive unpacks to")
    return()
  endif()
else()
  find_path(STORM_TENSORRT_INCLUDE NvInferRuntime.h
            HINTS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} /usr/local/tensorrt/include /opt/tensorrt/include
            NO_CACHE)
endif()

if(NOT STORM_TENSORRT_INCLUDE)
  set(fetched ${CMAKE_BINARY_DIR}/tensorrt-${STORM_TENSORRT_TAG})
  if(NOT EXISTS ${fetched}/include/NvInferRuntime.h)
    message(STATUS "fetching the headers of TensorRT ${STORM_TENSORRT_TAG}")
    file(REMOVE_RECURSE ${fetched})
    execute_process(
      COMMAND git clone --quiet --depth 1 --filter=blob:none --sparse --branch ${STORM_TENSORRT_TAG}
              https://github.com/NVIDIA/TensorRT.git ${fetched}
      RESULT_VARIABLE failed ERROR_VARIABLE said)
    if(NOT failed)
      execute_process(COMMAND git -C ${fetched} sparse-checkout set include RESULT_VARIABLE failed ERROR_VARIABLE said)
    endif()
    if(failed)
      file(REMOVE_RECURSE ${fetched})
      string(STRIP "${said}" said)
      set(STORM_TENSORRT_LACKS "TensorRT's headers are not installed, and tag ${STORM_TENSORRT_TAG} of its repository \
could not be fetched (${said}): install libnvinfer-headers-dev, or set TENSORRT_ROOT to an unpacked TensorRT, or choose \
the tag of the version that will run the engines with STORM_TENSORRT_TAG")
      return()
    endif()
  endif()
  find_path(STORM_TENSORRT_INCLUDE NvInferRuntime.h HINTS ${fetched}/include NO_DEFAULT_PATH NO_CACHE)
endif()

# Since 10.11 NV_TENSORRT_MAJOR is defined through TRT_MAJOR_ENTERPRISE.
file(STRINGS ${STORM_TENSORRT_INCLUDE}/NvInferVersion.h lines
     REGEX "#define (NV_TENSORRT|TRT)_(MAJOR|MINOR)[A-Z_]* +[0-9]+")
set(version)
foreach(part IN ITEMS MAJOR MINOR)
  if(NOT lines MATCHES "(NV_TENSORRT_${part}|TRT_${part}_ENTERPRISE) +([0-9]+)")
    set(STORM_TENSORRT_LACKS "cannot read TensorRT's version from ${STORM_TENSORRT_INCLUDE}/NvInferVersion.h: set \
TENSORRT_ROOT to another TensorRT")
    return()
  endif()
  list(APPEND version ${CMAKE_MATCH_2})
endforeach()
list(JOIN version "." STORM_TENSORRT_VERSION)
if(STORM_TENSORRT_VERSION VERSION_LESS 10.3)
  set(STORM_TENSORRT_LACKS "TensorRT ${STORM_TENSORRT_VERSION} is too old: 10.3 or newer is needed")
endif()
