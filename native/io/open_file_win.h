// What opening a file on Windows finds out, on its way from the file system to the file.
#ifndef FIRN_IO_OPEN_FILE_WIN_H_
#define FIRN_IO_OPEN_FILE_WIN_H_

#include <memory>
#include <optional>
#include <string>

#include "io/calls_win.h"
#include "io/file.h"
#include "io/handle_win.h"

namespace firn {

struct OpenedFile {
  ScopedHandle handle;
  bool direct = false;
  IoAlignment alignment;
  // The size of what is a device rather than a file.
  std::optional<uint64_t> device_bytes;
};

std::unique_ptr<File> NewWinFile(std::string path, const WinCalls& calls, OpenedFile opened);

// DeviceIoControl on a handle that was opened for overlapped I/O; the system's error, or
// ERROR_SUCCESS.
DWORD ControlBlocking(const WinCalls& calls, HANDLE file, DWORD code, void* in, DWORD in_bytes,
                      void* out, DWORD out_bytes, DWORD* bytes);

}  // namespace firn

#endif  // FIRN_IO_OPEN_FILE_WIN_H_
