// What the IoQueues of all platforms share: a request under way, and the queue of threads.
#ifndef FIRN_IO_IO_QUEUE_TRANSFER_H_
#define FIRN_IO_IO_QUEUE_TRANSFER_H_

#include <memory>

#include "io/io_queue.h"

namespace firn {

// What becomes of the result of one transfer: done, to be continued, or failed.
struct TransferState {
  IoRequest request;
  uint32_t done = 0;

  // `result` is bytes moved, or the system's error negated. True when the request is complete, with
  // its fate in `status`.
  bool Advance(int64_t result, Status* status);
};

// One blocking transfer of what is left of a request; the result is one for Advance.
int64_t TransferOnce(const TransferState& state);

Result<std::unique_ptr<IoQueue>> NewThreadQueue(uint32_t depth);

}  // namespace firn

#endif  // FIRN_IO_IO_QUEUE_TRANSFER_H_
