// The system's headers, without the macros that rename functions of ours. Instead of <windows.h>
// wherever io/file.h or addon/convert.h is used too.
#ifndef FIRN_IO_SYSTEM_WIN_H_
#define FIRN_IO_SYSTEM_WIN_H_

#include <windows.h>
// After windows.h, whose types it uses.
#include <winioctl.h>

#undef CreateDirectory
#undef GetObject

#endif  // FIRN_IO_SYSTEM_WIN_H_
