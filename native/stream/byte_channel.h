// Bytes in one direction through whatever the operating system has open: a pipe, a socket, a file,
// a terminal, a tape.
//
// A ByteChannel belongs to one thread at a time and does not own its handle. Calls block, but ask
// `stop` several times a second and end with its failure: a job can be cancelled though the other
// side hangs. Interrupted and short transfers are resumed inside.
#ifndef FIRN_STREAM_BYTE_CHANNEL_H_
#define FIRN_STREAM_BYTE_CHANNEL_H_

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "core/status.h"

namespace firn {

// The descriptor (POSIX) or HANDLE (Windows).
using StreamHandle = intptr_t;

class ByteChannel {
 public:
  using Stop = std::function<Status()>;

  explicit ByteChannel(StreamHandle handle);

  // Until `out` is full; fewer bytes only at the end of the input. kRead.
  Result<size_t> Read(std::span<uint8_t> out, const Stop& stop);
  // All of it. kWrite, also when the reader has gone away; kDiskFull.
  Status Write(std::span<const uint8_t> bytes, const Stop& stop);

 private:
  const StreamHandle handle_;
  bool waits_ = false;  // a pipe or the like, which may make a call wait
  bool is_nonblocking_ = false;
  bool has_nowait_ = true;  // until the kernel says otherwise
};

// A pipe whose both ends do not block and are not inherited by other programs: {read, write}.
Result<std::pair<StreamHandle, StreamHandle>> NewPipe();

}  // namespace firn

#endif  // FIRN_STREAM_BYTE_CHANNEL_H_
