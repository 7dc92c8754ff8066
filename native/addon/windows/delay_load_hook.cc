// Resolves the addon's imports of node.exe to the program that loaded it, whatever its name is.
//
// The twin, for mingw-w64's linker, of the hook that cmake-js brings for Microsoft's. Node and
// Electron may run under other names, and a second node.exe must not be loaded for them.

#include <windows.h>

// After windows.h, whose types it uses.
#include <delayimp.h>

#include <cstring>

namespace {

FARPROC WINAPI FindProgram(unsigned event, PDelayLoadInfo info) {
  if (event != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;
  // The loader takes a module where it asks for a library, and a function elsewhere.
  return reinterpret_cast<FARPROC>(reinterpret_cast<void*>(GetModuleHandleW(nullptr)));
}

}  // namespace

extern "C" {
PfnDliHook __pfnDliNotifyHook2 = FindProgram;
}
