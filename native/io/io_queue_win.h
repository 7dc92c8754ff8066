// IoQueue over a completion port.
//
// A file belongs to one completion port from the first time it is told to until it is closed, and
// Firn's workers share the files that they read. So there is one port for all, which every file
// joins when it is opened, and one thread that takes completions from it, up to 64 at a time, and
// hands each to its queue. The thread lives while there are queues: an addon may be unloaded, and
// no thread of its may be left then. A port of its own for every queue would save the hand-over but
// take a reopened handle for each pair of queue and file, and what holds a disk image open decides
// who else may open it.
//
// A packet comes for each request that the system took, whether it was done at once or later, and
// for one that it refused with a warning; a request that it refused with an error gets none. The
// mode in which a request that is done at once has no packet (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS)
// is left alone: unbuffered transfers are hardly ever done at once, buffered ones would then be
// finished on the submitter's thread in the middle of Submit, and handles that come from
// virtdisk.dll belong to a driver that makes no promise about it.
//
// An OVERLAPPED, and the buffer behind it, is the kernel's until its packet has been taken from the
// port; cancelling only brings that packet sooner (with ERROR_OPERATION_ABORTED, or with what the
// transfer had come to). So nothing is freed because CancelIoEx was called.
#ifndef FIRN_IO_IO_QUEUE_WIN_H_
#define FIRN_IO_IO_QUEUE_WIN_H_

#include <memory>
#include <mutex>
#include <thread>

#include "io/calls_win.h"
#include "io/handle_win.h"
#include "io/io_queue.h"

namespace firn {

// The port and its thread. Safe for use from several threads; must outlive its queues.
class CompletionServer {
 public:
  explicit CompletionServer(const WinCalls& calls);
  CompletionServer(const CompletionServer&) = delete;
  CompletionServer& operator=(const CompletionServer&) = delete;

  const WinCalls& calls() const { return calls_; }

  // kInternal if the system gave no port.
  Status Check() const;

  // Before the first request of a queue on the handle; once for each handle, which must have been
  // opened for overlapped I/O.
  Status Join(HANDLE file, const std::string& path);

  // The thread runs while some queue has called Enter and not Leave.
  void Enter();
  void Leave();

 private:
  void Serve();

  const WinCalls& calls_;
  const ScopedHandle port_;
  std::mutex mutex_;
  uint32_t users_ = 0;
  std::thread thread_;
};

Result<std::unique_ptr<IoQueue>> NewCompletionQueue(CompletionServer* server, uint32_t depth);

}  // namespace firn

#endif  // FIRN_IO_IO_QUEUE_WIN_H_
