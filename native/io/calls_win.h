// The calls of Windows that move data or change names, as a table.
//
// Everything in io/*_win.cc goes through such a table, so that a test can stand a call in that does
// what a real machine does once a year: refuses a misaligned request (87), transfers less than it
// was asked for, completes late and out of order, is cancelled (995), finds the disk full (112).
// Calls that only read the state of the process or make handles (events, ports) are not in it.
#ifndef FIRN_IO_CALLS_WIN_H_
#define FIRN_IO_CALLS_WIN_H_

#include "io/system_win.h"

namespace firn {

struct WinCalls {
  decltype(&::CreateFileW) create_file;
  decltype(&::ReadFile) read_file;
  decltype(&::WriteFile) write_file;
  decltype(&::GetOverlappedResult) get_overlapped_result;
  decltype(&::GetQueuedCompletionStatusEx) get_completions;
  decltype(&::CancelIoEx) cancel_io;
  decltype(&::DeviceIoControl) device_io_control;
  decltype(&::FlushFileBuffers) flush;
  decltype(&::SetFileInformationByHandle) set_information;
  decltype(&::GetFileInformationByHandleEx) get_information;
  decltype(&::MoveFileExW) move_file;
};

// The system's own.
const WinCalls& SystemCalls();

}  // namespace firn

#endif  // FIRN_IO_CALLS_WIN_H_
