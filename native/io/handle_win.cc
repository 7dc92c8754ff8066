#include "io/handle_win.h"

#include "io/windows_path.h"

namespace firn {

namespace {

std::string CurrentFolder() {
  std::wstring folder(GetCurrentDirectoryW(0, nullptr), L'\0');
  folder.resize(GetCurrentDirectoryW(static_cast<DWORD>(folder.size()), folder.data()));
  return Utf8FromWide(folder);
}

}  // namespace

Result<std::wstring> WidePath(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::string extended, ExtendedWindowsPath(path, CurrentFolder()));
  return WideFromUtf8(extended);
}

Result<std::wstring> WideFromUtf8(std::string_view text) {
  const auto length = static_cast<int>(text.size());
  std::wstring wide(text.size(), L'\0');  // never more units than bytes
  const int units = text.empty() ? 0
                                 : MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text.data(),
                                                       length, wide.data(), length);
  if (units == 0 && !text.empty()) {
    return Status::Error(Code::kInvalidArgument, "the path is no UTF-8").At(std::string(text));
  }
  wide.resize(static_cast<size_t>(units));
  return wide;
}

std::string Utf8FromWide(std::wstring_view text) {
  if (text.empty()) return "";
  const auto units = static_cast<int>(text.size());
  std::string utf8(text.size() * 3, '\0');
  const int bytes = WideCharToMultiByte(CP_UTF8, 0, text.data(), units, utf8.data(),
                                        static_cast<int>(utf8.size()), nullptr, nullptr);
  utf8.resize(static_cast<size_t>(bytes));
  return utf8;
}

Status LastError(Code fallback, const char* op, const std::string& path) {
  return Status::FromOs(fallback, op, path, static_cast<int>(GetLastError()));
}

}  // namespace firn
