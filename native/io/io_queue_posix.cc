#include "io/io_queue_posix.h"

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
    *status =
        Status::Error(Code::kDiskTruncated, "the file ends before the data that should be here")
            .During("read")
            .At(request.file->path(), request.offset + done)
            .DataLoss();
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

Result<std::unique_ptr<IoQueue>> NewPosixQueue(const IoQueueOptions& options) {
  if (options.backend == IoBackend::kThreads) return NewThreadQueue(options.depth);
  Result<std::unique_ptr<IoQueue>> ring = NewUringQueue(options.depth);
  if (ring.ok() || options.backend == IoBackend::kUring) return ring;
  return NewThreadQueue(options.depth);
}

}  // namespace firn
