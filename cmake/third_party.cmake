# BLAKE3, LZ4, zstd and xxHash, compiled from the C sources that these npm packages carry. They are development dependencies: nothing
# of them but their sources is used, and their own install scripts never run.
#
#   BLAKE3  @c4312/blake3-native   c/                      CC0-1.0 or Apache-2.0
#   LZ4     lmdb                   dependencies/lz4/lib    BSD-2-Clause
#   zstd    zstd-napi              deps/zstd/lib           BSD-3-Clause
#   xxHash  xxhash-addon           xxHash                  BSD-2-Clause
set(FIRN_NODE_MODULES ${CMAKE_CURRENT_SOURCE_DIR}/node_modules CACHE PATH "Where npm installed the packages")
set(BLAKE3_DIR ${FIRN_NODE_MODULES}/@c4312/blake3-native/c)
set(LZ4_DIR ${FIRN_NODE_MODULES}/lmdb/dependencies/lz4/lib)
set(ZSTD_DIR ${FIRN_NODE_MODULES}/zstd-napi/deps/zstd/lib)
set(XXHASH_DIR ${FIRN_NODE_MODULES}/xxhash-addon/xxHash)
foreach(file ${BLAKE3_DIR}/blake3.c ${LZ4_DIR}/lz4.c ${ZSTD_DIR}/zstd.h ${XXHASH_DIR}/xxhash.h)
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "${file} is missing: run 'npm ci' first")
  endif()
endforeach()

set(BLAKE3_SOURCES ${BLAKE3_DIR}/blake3.c ${BLAKE3_DIR}/blake3_dispatch.c ${BLAKE3_DIR}/blake3_portable.c)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  if(MSVC)
    enable_language(ASM_MASM)
    file(GLOB BLAKE3_ASM ${BLAKE3_DIR}/*_x86-64_windows_msvc.asm)
  elseif(WIN32)
    file(GLOB BLAKE3_ASM ${BLAKE3_DIR}/*_x86-64_windows_gnu.S)
  else()
    file(GLOB BLAKE3_ASM ${BLAKE3_DIR}/*_x86-64_unix.S)
  endif()
  list(APPEND BLAKE3_SOURCES ${BLAKE3_ASM})
  set(XXHASH_SOURCES ${XXHASH_DIR}/xxh_x86dispatch.c)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|ARM64")
  list(APPEND BLAKE3_SOURCES ${BLAKE3_DIR}/blake3_neon.c)
endif()

file(GLOB ZSTD_SOURCES ${ZSTD_DIR}/common/*.c ${ZSTD_DIR}/compress/*.c ${ZSTD_DIR}/decompress/*.c)
if(NOT MSVC AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND ZSTD_SOURCES ${ZSTD_DIR}/decompress/huf_decompress_amd64.S)
endif()

add_library(firn_third_party STATIC ${BLAKE3_SOURCES} ${XXHASH_SOURCES} ${LZ4_DIR}/lz4.c
  ${XXHASH_DIR}/xxhash.c ${ZSTD_SOURCES})
# SYSTEM: their warnings are theirs. xxHash stands before LZ4, which carries an xxhash.h too old for XXH3.
target_include_directories(firn_third_party SYSTEM PUBLIC ${BLAKE3_DIR} ${XXHASH_DIR} ${LZ4_DIR} ${ZSTD_DIR})
# zstd carries its own copy of xxHash under a prefix of its own; ours gets another, so that the two do not meet.
set_source_files_properties(${XXHASH_DIR}/xxhash.c ${XXHASH_SOURCES} PROPERTIES COMPILE_DEFINITIONS XXH_NAMESPACE=FIRN_)
# Its switch for instruction sets is made visible: measurements turn them off one by one (native/bench/kernel.cc).
set_source_files_properties(${BLAKE3_DIR}/blake3_dispatch.c PROPERTIES COMPILE_DEFINITIONS BLAKE3_TESTING)
target_compile_definitions(firn_third_party PRIVATE ZSTD_LEGACY_SUPPORT=0 $<$<BOOL:${MSVC}>:ZSTD_DISABLE_ASM>
  INTERFACE XXH_NAMESPACE=FIRN_)
if(NOT MSVC)
  target_compile_options(firn_third_party PRIVATE -w)
endif()
# These are compute kernels: debug builds would time nothing useful and take minutes in tests.
if(NOT MSVC AND NOT FIRN_SANITIZE)
  target_compile_options(firn_third_party PRIVATE -O3)
endif()
