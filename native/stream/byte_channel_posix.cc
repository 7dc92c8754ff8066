#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/bytes.h"
#include "stream/byte_channel.h"

namespace firn {

namespace {

constexpr int kWaitMs = 100;
constexpr size_t kTransferBytes = 256 * kKiB;
// What a pipe that is ready takes without waiting, whatever its mode.
constexpr size_t kSureBytes = 4096;

const char* const kName = "the stream";

Status WaitFor(int fd, short events, const ByteChannel::Stop& stop) {
  for (;;) {
    FIRN_RETURN_IF_ERROR(stop());
    pollfd wanted{fd, events, 0};
    const int ready = poll(&wanted, 1, kWaitMs);
    if (ready > 0) return Status::Ok();
    if (ready < 0 && errno != EINTR) {
      return Status::FromOs(Code::kRead, "poll", kName, errno);
    }
  }
}

bool IsTryAgain(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

ByteChannel::ByteChannel(StreamHandle handle) : handle_(handle) {
  struct stat info {};
  const auto fd = static_cast<int>(handle);
  waits_ = fstat(fd, &info) != 0 || !S_ISREG(info.st_mode);
  const int flags = fcntl(fd, F_GETFL);
  is_nonblocking_ = flags >= 0 && (flags & O_NONBLOCK) != 0;
}

Result<size_t> ByteChannel::Read(std::span<uint8_t> out, const Stop& stop) {
  const auto fd = static_cast<int>(handle_);
  size_t done = 0;
  while (done < out.size()) {
    // A read of what is ready does not wait, however much is asked for.
    FIRN_RETURN_IF_ERROR(waits_ ? WaitFor(fd, POLLIN, stop) : stop());
    const ssize_t got = read(fd, out.data() + done, std::min(out.size() - done, kTransferBytes));
    if (got == 0) break;
    if (got < 0 && !IsTryAgain(errno)) {
      return Status::FromOs(Code::kRead, "read", kName, errno);
    }
    if (got > 0) done += static_cast<size_t>(got);
  }
  return done;
}

Status ByteChannel::Write(std::span<const uint8_t> bytes, const Stop& stop) {
  const auto fd = static_cast<int>(handle_);
  while (!bytes.empty()) {
    FIRN_RETURN_IF_ERROR(waits_ ? WaitFor(fd, POLLOUT, stop) : stop());
    const size_t length = std::min(bytes.size(), kTransferBytes);
    ssize_t put = -1;
    if (waits_ && !is_nonblocking_) {
      // Somebody else's pipe, whose mode is not to be changed: a write of more than fits would wait
      // where it cannot be stopped.
      errno = ENOTSUP;
#ifdef RWF_NOWAIT
      iovec piece{const_cast<uint8_t*>(bytes.data()), length};
      if (has_nowait_) put = pwritev2(fd, &piece, 1, -1, RWF_NOWAIT);
#endif
      if (put < 0 && (errno == ENOTSUP || errno == EOPNOTSUPP || errno == EINVAL ||
                      errno == ENOSYS || errno == ESPIPE)) {
        has_nowait_ = false;
        put = write(fd, bytes.data(), std::min(length, kSureBytes));
      }
    } else {
      put = write(fd, bytes.data(), length);
    }
    if (put < 0 && errno == EPIPE) {
      return Status::FromOs(Code::kWrite, "write", "the stream, whose reader has gone away", EPIPE);
    }
    if (put < 0 && !IsTryAgain(errno)) {
      return Status::FromOs(Code::kWrite, "write", kName, errno);
    }
    if (put > 0) bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return Status::Ok();
}

Result<std::pair<StreamHandle, StreamHandle>> NewPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return Status::FromOs(Code::kInternal, "pipe", kName, errno);
  }
#ifdef F_SETPIPE_SZ
  (void)fcntl(ends[1], F_SETPIPE_SZ, 1024 * 1024);  // fewer wake-ups; what it is otherwise will do
#endif
  return std::pair<StreamHandle, StreamHandle>{ends[0], ends[1]};
}

}  // namespace firn
