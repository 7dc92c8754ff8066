// Windows has no way to wait for an anonymous pipe with a time limit: what waits is looked at again
// and again. A write to a pipe that another program made blocks, and `stop` is asked between writes
// alone: to make it not block would change it for that program too.

#include <windows.h>

#include <algorithm>

#include "core/bytes.h"
#include "stream/byte_channel.h"

namespace firn {

namespace {

constexpr size_t kTransferBytes = 256 * kKiB;
const char* const kName = "the stream";

// Between two looks at a pipe that is not ready.
constexpr DWORD kNapMs = 10;

HANDLE HandleOf(StreamHandle handle) { return reinterpret_cast<HANDLE>(handle); }

// Until a read would not wait. What can't be asked (a terminal, a socket) is left to the read.
Status WaitForInput(HANDLE handle, const ByteChannel::Stop& stop) {
  while (true) {
    FIRN_RETURN_IF_ERROR(stop());
    DWORD available = 0;
    if (!PeekNamedPipe(handle, nullptr, 0, nullptr, &available, nullptr) || available > 0) {
      return Status::Ok();
    }
    Sleep(kNapMs);
  }
}

}  // namespace

ByteChannel::ByteChannel(StreamHandle handle) : handle_(handle) {
  waits_ = GetFileType(HandleOf(handle)) != FILE_TYPE_DISK;
}

Result<size_t> ByteChannel::Read(std::span<uint8_t> out, const Stop& stop) {
  size_t done = 0;
  while (done < out.size()) {
    FIRN_RETURN_IF_ERROR(waits_ ? WaitForInput(HandleOf(handle_), stop) : stop());
    const auto length = static_cast<DWORD>(std::min(out.size() - done, kTransferBytes));
    DWORD got = 0;
    if (!ReadFile(HandleOf(handle_), out.data() + done, length, &got, nullptr)) {
      const DWORD error = GetLastError();
      if (error == ERROR_BROKEN_PIPE || error == ERROR_HANDLE_EOF) break;
      return Status::FromOs(Code::kRead, "read", kName, static_cast<int>(error));
    }
    if (got == 0 && !waits_) break;
    done += got;
  }
  return done;
}

Status ByteChannel::Write(std::span<const uint8_t> bytes, const Stop& stop) {
  while (!bytes.empty()) {
    FIRN_RETURN_IF_ERROR(stop());
    const auto length = static_cast<DWORD>(std::min(bytes.size(), kTransferBytes));
    DWORD put = 0;
    if (!WriteFile(HandleOf(handle_), bytes.data(), length, &put, nullptr)) {
      return Status::FromOs(Code::kWrite, "write", kName, static_cast<int>(GetLastError()));
    }
    if (put == 0) Sleep(kNapMs);  // a pipe of ours that is full
    bytes = bytes.subspan(put);
  }
  return Status::Ok();
}

Result<std::pair<StreamHandle, StreamHandle>> NewPipe() {
  HANDLE ends[2];
  if (!CreatePipe(&ends[0], &ends[1], nullptr, 1024 * 1024)) {
    return Status::FromOs(Code::kInternal, "pipe", kName, static_cast<int>(GetLastError()));
  }
  DWORD mode = PIPE_READMODE_BYTE | PIPE_NOWAIT;
  if (!SetNamedPipeHandleState(ends[1], &mode, nullptr, nullptr)) {
    const Status status =
        Status::FromOs(Code::kInternal, "pipe", kName, static_cast<int>(GetLastError()));
    CloseHandle(ends[0]);
    CloseHandle(ends[1]);
    return status;
  }
  return std::pair<StreamHandle, StreamHandle>{reinterpret_cast<StreamHandle>(ends[0]),
                                               reinterpret_cast<StreamHandle>(ends[1])};
}

}  // namespace firn
