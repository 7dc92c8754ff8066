// The two IoQueues of Linux, chosen here and nowhere else.
#ifndef FIRN_IO_IO_QUEUE_POSIX_H_
#define FIRN_IO_IO_QUEUE_POSIX_H_

#include <memory>

#include "io/io_queue_transfer.h"

namespace firn {

// options.backend kAuto: io_uring, or threads where the kernel refuses it. kUring fails with
// kUnsupported instead.
Result<std::unique_ptr<IoQueue>> NewPosixQueue(const IoQueueOptions& options);

Result<std::unique_ptr<IoQueue>> NewUringQueue(uint32_t depth);

}  // namespace firn

#endif  // FIRN_IO_IO_QUEUE_POSIX_H_
