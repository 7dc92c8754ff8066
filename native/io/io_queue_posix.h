// The two IoQueues of Linux, chosen here and nowhere else.
#ifndef FIRN_IO_IO_QUEUE_POSIX_H_
#define FIRN_IO_IO_QUEUE_POSIX_H_

#include <memory>

#include "io/io_queue.h"

namespace firn {

// options.backend kAuto: io_uring, or threads where the kernel refuses it. kUring fails with
// kUnsupported instead.
Result<std::unique_ptr<IoQueue>> NewPosixQueue(const IoQueueOptions& options);

Result<std::unique_ptr<IoQueue>> NewUringQueue(uint32_t depth);
Result<std::unique_ptr<IoQueue>> NewThreadQueue(uint32_t depth);

// What both do with the result of one transfer: done, to be continued, or failed.
struct TransferState {
  IoRequest request;
  uint32_t done = 0;

  // `result` is bytes moved, or a negated errno. True when the request is complete, with its fate
  // in `status`.
  bool Advance(int64_t result, Status* status);
};

}  // namespace firn

#endif  // FIRN_IO_IO_QUEUE_POSIX_H_
