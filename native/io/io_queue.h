// Many reads and writes in flight from one thread.
//
// An IoQueue belongs to one thread: it is not thread-safe and its completions come only from Wait.
// Up to `depth` requests may be in flight; Submit beyond that is a programming error. Buffers
// and files belong to the caller and must live until their completion has been taken. A request
// completes once, whole: short transfers are resumed inside, and a read past the end of the file is
// kDiskTruncated. Destroying a queue waits for what is in flight.
//
// On Linux it is io_uring, or a few threads with pread and pwrite where the kernel refuses io_uring
// (old kernels, containers that filter it). One ring per worker, rather than one for all, because
// then no lock and no wake-up stands between a completion and the thread whose cache the data is
// meant for. On Windows it is a completion port, and one for all: a file belongs to one port for
// life (io/io_queue_win.h). All pass the same conformance tests.
#ifndef FIRN_IO_IO_QUEUE_H_
#define FIRN_IO_IO_QUEUE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"
#include "io/file.h"

namespace firn {

// kAuto is the best that the platform has; what it has not is refused with kUnsupported.
enum class IoBackend : uint8_t { kAuto, kUring, kThreads };

struct IoQueueOptions {
  uint32_t depth = 64;
  IoBackend backend = IoBackend::kAuto;
};

struct IoRequest {
  enum class Op : uint8_t { kRead, kWrite };
  Op op = Op::kRead;
  File* file = nullptr;
  uint64_t offset = 0;
  uint8_t* data = nullptr;
  uint32_t length = 0;
  uint64_t tag = 0;  // comes back in the completion
};

struct IoCompletion {
  uint64_t tag = 0;
  Status status;
};

class IoQueue {
 public:
  virtual ~IoQueue() = default;

  // Lets the kernel pin the memory once rather than at each request. Best effort: limits on locked
  // memory are common. REQUIRES: nothing in flight; called at most once.
  virtual void RegisterBuffer(std::span<uint8_t> memory) = 0;

  // REQUIRES: in_flight() < depth().
  virtual Status Submit(const IoRequest& request) = 0;

  // Appends at least `min_completions` completions, waiting for them if need be, and all others
  // that are there. REQUIRES: min_completions <= in_flight().
  virtual Status Wait(uint32_t min_completions, std::vector<IoCompletion>* completions) = 0;

  virtual uint32_t in_flight() const = 0;
  virtual uint32_t depth() const = 0;
  virtual const char* name() const = 0;  // "io_uring", "threads", "iocp"
};

}  // namespace firn

#endif  // FIRN_IO_IO_QUEUE_H_
