// What went wrong, carried as data from the system call to JavaScript.
//
// A Status is OK (one null pointer) or holds a code, the operating system's own code, the
// operation, the path and offset it concerned, and two flags: whether trying again may help, and
// whether data is known to be lost. Status and Result are values; they are safe to move between
// threads. Nothing in native/ outside native/addon throws.
//
// Codes stay data to the end because a message that has to be parsed again is where other addons
// lose the reason; the mapping to the JavaScript taxonomy is one table (CodeName) that
// src/errors.ts mirrors and a test compares.
#ifndef FIRN_CORE_STATUS_H_
#define FIRN_CORE_STATUS_H_

#include <cassert>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace firn {

enum class Code : uint8_t {
  kOk,
  kInvalidArgument,  // the caller's mistake
  kUnsupported,      // valid, but not something this build or platform does
  kExists,           // the target is there already
  kNotFound,         // a file or folder is not there
  kAccessDenied,
  kFileInUse,  // sharing violation; retryable
  kRead,
  kWrite,
  kDiskFull,
  kDiskInvalid,     // a disk image breaks its format
  kDiskTruncated,   // a disk image ends before its data does
  kParentNotFound,  // a differencing layer's parent is not there, or lies outside the allowed
                    // folders
  kParentMismatch,  // a parent was found and is not the one the child was made from
  kCorruptChunk,    // a record's bytes do not match its checksum or id
  kCorruptPack,
  kCorruptIndex,
  kCorruptObject,  // a config, point or map object
  kPackMissing,
  kChunkMissing,   // no index run knows the id
  kSourceChanged,  // the disk changed while it was read
  kVerifyMismatch,
  kCorruptStream,    // a stream of points is not what was sent
  kStreamTruncated,  // a stream of points ends before its end; retryable
  kKeyRequired,      // sealed, and there is no key
  kKeyWriteOnly,     // the key can add to a sealed repository, not read it
  kTampered,         // well-formed, and not what was sealed
  kSwapped,          // sealed, and under another name than its own
  kVersion,          // made by a newer version
  kAborted,
  kInternal,
};

// The stable name, "ERR_DISK_FULL"; "OK" for kOk.
const char* CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  static Status Ok() { return Status(); }
  static Status Error(Code code, std::string message);
  // From errno (POSIX) or GetLastError (Windows); the one place where OS codes become ours.
  static Status FromOs(Code fallback, const char* op, const std::string& path, int os_code);

  Status(const Status& other);
  Status& operator=(const Status& other);
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;

  bool ok() const { return state_ == nullptr; }
  Code code() const { return state_ ? state_->code : Code::kOk; }
  const std::string& message() const;
  const std::string& op() const;
  const std::string& path() const;
  std::optional<uint64_t> offset() const;
  int os_code() const { return state_ ? state_->os_code : 0; }
  bool retryable() const { return state_ && state_->retryable; }
  bool data_loss() const { return state_ && state_->data_loss; }

  // Builders, for use on a temporary: `return Status::Error(...).At(path, offset);` They keep what
  // is set already: the place nearest to the failure knows best.
  Status&& At(const std::string& path) &&;
  Status&& At(const std::string& path, uint64_t offset) &&;
  Status&& During(const char* op) &&;
  Status&& Retryable() &&;
  Status&& DataLoss() &&;

  // "read: disk.vhdx at 65536: Input/output error"; for logs and tests.
  std::string ToString() const;

 private:
  struct State {
    Code code;
    bool retryable = false;
    bool data_loss = false;
    int os_code = 0;
    std::optional<uint64_t> offset;
    std::string message, op, path;
  };
  std::unique_ptr<State> state_;
};

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(Status status)
      : value_(std::move(status)) {  // NOLINT: implicit, so that `return status` reads well
    assert(!std::get<Status>(value_).ok());
  }
  Result(T value) : value_(std::move(value)) {}  // NOLINT

  bool ok() const { return value_.index() == 1; }
  Status status() const { return ok() ? Status::Ok() : std::get<Status>(value_); }
  Status TakeStatus() && { return ok() ? Status::Ok() : std::move(std::get<Status>(value_)); }
  T& value() {
    assert(ok());
    return std::get<T>(value_);
  }
  const T& value() const {
    assert(ok());
    return std::get<T>(value_);
  }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<Status, T> value_;
};

#define FIRN_CONCAT_INNER(a, b) a##b
#define FIRN_CONCAT(a, b) FIRN_CONCAT_INNER(a, b)

#define FIRN_RETURN_IF_ERROR(expr)             \
  do {                                         \
    ::firn::Status firn_status = (expr);       \
    if (!firn_status.ok()) return firn_status; \
  } while (false)

#define FIRN_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr)   \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).TakeStatus(); \
  lhs = std::move(*tmp)
#define FIRN_ASSIGN_OR_RETURN(lhs, expr) \
  FIRN_ASSIGN_OR_RETURN_IMPL(FIRN_CONCAT(firn_result_, __LINE__), lhs, expr)

}  // namespace firn

#endif  // FIRN_CORE_STATUS_H_
