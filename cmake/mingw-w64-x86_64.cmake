# Builds for 64-bit Windows on another system, with mingw-w64's GCC (Debian: g++-mingw-w64-x86-64-posix):
#
#   cmake -S . -B build-windows -G Ninja --toolchain cmake/mingw-w64-x86_64.cmake
#
# The "posix" variant of the compiler is the one whose library has std::thread and std::mutex. Where Wine is installed, tests run in it:
# CMAKE_CROSSCOMPILING_EMULATOR stands before each command that ctest starts. The prefix that they run in is WINEPREFIX, as scripts/windows.mjs
# sets it.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_VERSION 10.0)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(FIRN_TRIPLE x86_64-w64-mingw32)
set(CMAKE_C_COMPILER ${FIRN_TRIPLE}-gcc-posix)
set(CMAKE_CXX_COMPILER ${FIRN_TRIPLE}-g++-posix)
set(CMAKE_RC_COMPILER ${FIRN_TRIPLE}-windres)
set(CMAKE_DLLTOOL ${FIRN_TRIPLE}-dlltool)
set(CMAKE_FIND_ROOT_PATH /usr/${FIRN_TRIPLE})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(FIRN_WINE NAMES wine64 wine PATHS /usr/lib/wine)
if(FIRN_WINE)
  set(CMAKE_CROSSCOMPILING_EMULATOR sh ${CMAKE_CURRENT_LIST_DIR}/../scripts/run-in-wine.sh ${FIRN_WINE})
endif()
