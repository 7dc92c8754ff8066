// Handles that close themselves, and the text that Windows speaks.
#ifndef FIRN_IO_HANDLE_WIN_H_
#define FIRN_IO_HANDLE_WIN_H_

#include <string>
#include <string_view>
#include <utility>

#include "core/status.h"
#include "io/system_win.h"

namespace firn {

class ScopedHandle {
 public:
  ScopedHandle() = default;
  explicit ScopedHandle(HANDLE handle) : handle_(handle) {}
  ScopedHandle(ScopedHandle&& other) noexcept : handle_(other.Release()) {}
  ScopedHandle& operator=(ScopedHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ScopedHandle(const ScopedHandle&) = delete;
  ScopedHandle& operator=(const ScopedHandle&) = delete;
  ~ScopedHandle() {
    if (ok()) CloseHandle(handle_);
  }

  // Windows says "none" in two ways.
  bool ok() const { return handle_ != nullptr && handle_ != INVALID_HANDLE_VALUE; }
  HANDLE get() const { return handle_; }
  HANDLE Release() { return std::exchange(handle_, nullptr); }

 private:
  HANDLE handle_ = nullptr;
};

// The extended path (io/windows_path.h) in UTF-16, relative to the process's current folder.
// kInvalidArgument for what is no path of a file or no UTF-8.
Result<std::wstring> WidePath(const std::string& path);

// kInvalidArgument unless `text` is UTF-8.
Result<std::wstring> WideFromUtf8(std::string_view text);
// Half a surrogate pair, which a name on NTFS may hold, becomes U+FFFD.
std::string Utf8FromWide(std::wstring_view text);

// GetLastError as a Status.
Status LastError(Code fallback, const char* op, const std::string& path);

}  // namespace firn

#endif  // FIRN_IO_HANDLE_WIN_H_
