#include "io/io_queue_posix.h"

#include <unistd.h>

#include <cerrno>

namespace firn {

bool TransferState::Advance(int64_t result, Status* status) {
  const bool is_read = request.op == IoRequest::Op::kRead;
  if (result == -EINTR || result == -EAGAIN) return false;
  if (result < 0) {
    *status = Status::FromOs(is_read ? Code::kRead : Code::kWrite, is_read ? "read" : "write",
                             request.file->path(), static_cast<int>(-result))
                  .At(request.file->path(), request.offset + done);
    return true;
  }
  if (result == 0 && is_read) {
    *status = EndsBefore(request.file->path(), request.offset + done);
    return true;
  }
  if (result == 0) {
    *status = Status::FromOs(Code::kWrite, "write", request.file->path(), ENOSPC)
                  .At(request.file->path(), request.offset + done);
    return true;
  }
  done += static_cast<uint32_t>(result);
  if (done < request.length) return false;
  *status = Status::Ok();
  return true;
}

int64_t TransferOnce(const TransferState& state) {
  const IoRequest& request = state.request;
  const int fd = static_cast<int>(request.file->native_handle());
  uint8_t* data = request.data + state.done;
  const size_t length = request.length - state.done;
  const auto offset = static_cast<off_t>(request.offset + state.done);
  const ssize_t result = request.op == IoRequest::Op::kRead ? pread(fd, data, length, offset)
                                                            : pwrite(fd, data, length, offset);
  return result < 0 ? -errno : result;
}

Result<std::unique_ptr<IoQueue>> NewPosixQueue(const IoQueueOptions& options) {
  if (options.backend == IoBackend::kThreads) return NewThreadQueue(options.depth);
  Result<std::unique_ptr<IoQueue>> ring = NewUringQueue(options.depth);
  if (ring.ok() || options.backend == IoBackend::kUring) return ring;
  return NewThreadQueue(options.depth);
}

}  // namespace firn
