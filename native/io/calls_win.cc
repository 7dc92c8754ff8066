#include "io/calls_win.h"

namespace firn {

const WinCalls& SystemCalls() {
  static constexpr WinCalls kCalls = {&::CreateFileW,
                                      &::ReadFile,
                                      &::WriteFile,
                                      &::GetOverlappedResult,
                                      &::GetQueuedCompletionStatusEx,
                                      &::CancelIoEx,
                                      &::DeviceIoControl,
                                      &::FlushFileBuffers,
                                      &::SetFileInformationByHandle,
                                      &::GetFileInformationByHandleEx,
                                      &::MoveFileExW};
  return kCalls;
}

}  // namespace firn
