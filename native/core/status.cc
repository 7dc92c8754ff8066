#include "core/status.h"

#include <cstring>
#include <system_error>

#ifdef _WIN32
#include <windows.h>
#else
#include <cerrno>
#endif

namespace firn {

namespace {

const std::string& EmptyString() {
  static const std::string empty;
  return empty;
}

// Code and retryability for an OS error; `fallback` when the error says nothing more exact.
struct OsMeaning {
  Code code;
  bool retryable;
};

OsMeaning Classify(Code fallback, int os_code) {
#ifdef _WIN32
  switch (os_code) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE:
    case ERROR_DIRECTORY:
    case ERROR_BAD_NETPATH:
    case ERROR_BAD_NET_NAME:
      return {Code::kNotFound, false};
    case ERROR_ACCESS_DENIED:
    case ERROR_WRITE_PROTECT:
    case ERROR_PRIVILEGE_NOT_HELD:
    case ERROR_NETWORK_ACCESS_DENIED:
      return {Code::kAccessDenied, false};
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_DELETE_PENDING:
    case ERROR_USER_MAPPED_FILE:
      return {Code::kFileInUse, true};
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case 1295:  // ERROR_DISK_QUOTA_EXCEEDED, which not all headers have
      return {Code::kDiskFull, true};
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      return {Code::kExists, false};
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
    case ERROR_FILENAME_EXCED_RANGE:
      return {Code::kInvalidArgument, false};
    case ERROR_OPERATION_ABORTED:
    case ERROR_NOT_READY:
    case ERROR_SEM_TIMEOUT:
    case ERROR_NETNAME_DELETED:
    case ERROR_UNEXP_NET_ERR:
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
    case ERROR_WORKING_SET_QUOTA:
    case ERROR_NOT_ENOUGH_QUOTA:
      return {fallback, true};
    default:
      return {fallback, false};
  }
#else
  switch (os_code) {
    case ENOENT:
    case ENOTDIR:
      return {Code::kNotFound, false};
    case EACCES:
    case EPERM:
    case EROFS:
      return {Code::kAccessDenied, false};
    case EBUSY:
    case ETXTBSY:
      return {Code::kFileInUse, true};
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {Code::kDiskFull, true};
    case EEXIST:
      return {Code::kExists, false};
    case EINTR:
    case EAGAIN:
    case ENOMEM:
    case ETIMEDOUT:
      return {fallback, true};
    default:
      return {fallback, false};
  }
#endif
}

}  // namespace

const char* CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kInvalidArgument:
      return "ERR_INVALID_ARGUMENT";
    case Code::kUnsupported:
      return "ERR_UNSUPPORTED";
    case Code::kExists:
      return "ERR_EXISTS";
    case Code::kNotFound:
      return "ERR_NOT_FOUND";
    case Code::kAccessDenied:
      return "ERR_ACCESS_DENIED";
    case Code::kFileInUse:
      return "ERR_FILE_IN_USE";
    case Code::kRead:
      return "ERR_READ";
    case Code::kWrite:
      return "ERR_WRITE";
    case Code::kDiskFull:
      return "ERR_DISK_FULL";
    case Code::kDiskInvalid:
      return "ERR_DISK_INVALID";
    case Code::kDiskTruncated:
      return "ERR_DISK_TRUNCATED";
    case Code::kParentNotFound:
      return "ERR_PARENT_NOT_FOUND";
    case Code::kParentMismatch:
      return "ERR_PARENT_MISMATCH";
    case Code::kCorruptChunk:
      return "ERR_CORRUPT_CHUNK";
    case Code::kCorruptPack:
      return "ERR_CORRUPT_PACK";
    case Code::kCorruptIndex:
      return "ERR_CORRUPT_INDEX";
    case Code::kCorruptObject:
      return "ERR_CORRUPT_OBJECT";
    case Code::kPackMissing:
      return "ERR_PACK_MISSING";
    case Code::kChunkMissing:
      return "ERR_CHUNK_MISSING";
    case Code::kSourceChanged:
      return "ERR_SOURCE_CHANGED";
    case Code::kVerifyMismatch:
      return "ERR_VERIFY_MISMATCH";
    case Code::kCorruptStream:
      return "ERR_CORRUPT_STREAM";
    case Code::kStreamTruncated:
      return "ERR_STREAM_TRUNCATED";
    case Code::kKeyRequired:
      return "ERR_KEY_REQUIRED";
    case Code::kKeyWriteOnly:
      return "ERR_KEY_WRITE_ONLY";
    case Code::kTampered:
      return "ERR_TAMPERED";
    case Code::kSwapped:
      return "ERR_SWAPPED";
    case Code::kVersion:
      return "ERR_VERSION";
    case Code::kAborted:
      return "ERR_ABORTED";
    case Code::kInternal:
      return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

Status Status::Error(Code code, std::string message) {
  assert(code != Code::kOk);
  Status status;
  status.state_ = std::make_unique<State>();
  status.state_->code = code;
  status.state_->message = std::move(message);
  return status;
}

Status Status::FromOs(Code fallback, const char* op, const std::string& path, int os_code) {
  OsMeaning meaning = Classify(fallback, os_code);
  Status status = Error(meaning.code, std::system_category().message(os_code));
  status.state_->retryable = meaning.retryable;
  status.state_->os_code = os_code;
  status.state_->op = op;
  status.state_->path = path;
  return status;
}

Status::Status(const Status& other)
    : state_(other.state_ ? std::make_unique<State>(*other.state_) : nullptr) {}

Status& Status::operator=(const Status& other) {
  if (this != &other) state_ = other.state_ ? std::make_unique<State>(*other.state_) : nullptr;
  return *this;
}

const std::string& Status::message() const { return state_ ? state_->message : EmptyString(); }
const std::string& Status::op() const { return state_ ? state_->op : EmptyString(); }
const std::string& Status::path() const { return state_ ? state_->path : EmptyString(); }
std::optional<uint64_t> Status::offset() const {
  return state_ ? state_->offset : std::optional<uint64_t>();
}

Status&& Status::At(const std::string& path) && {
  if (state_ && state_->path.empty()) state_->path = path;
  return std::move(*this);
}

Status&& Status::At(const std::string& path, uint64_t offset) && {
  if (state_ && state_->path.empty()) state_->path = path;
  // An offset means nothing beside the path of another file.
  if (state_ && !state_->offset && state_->path == path) state_->offset = offset;
  return std::move(*this);
}

Status&& Status::During(const char* op) && {
  if (state_ && state_->op.empty()) state_->op = op;
  return std::move(*this);
}

Status&& Status::Retryable() && {
  if (state_) state_->retryable = true;
  return std::move(*this);
}

Status&& Status::DataLoss() && {
  if (state_) state_->data_loss = true;
  return std::move(*this);
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  std::string text = CodeName(state_->code);
  if (!state_->op.empty()) text += " " + state_->op;
  if (!state_->path.empty()) text += ": " + state_->path;
  if (state_->offset) text += " at " + std::to_string(*state_->offset);
  return text + ": " + state_->message;
}

}  // namespace firn
