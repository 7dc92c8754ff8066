#include "io/file.h"
#include "io/windows_path.h"

namespace firn {

namespace {

#ifdef _WIN32
constexpr const char* kSeparators = "/\\";
constexpr char kSeparator = '\\';
size_t RootLength(const std::string& path) { return WindowsRootLength(path); }
#else
constexpr const char* kSeparators = "/";
constexpr char kSeparator = '/';
size_t RootLength(const std::string& path) { return path.starts_with('/') ? 1 : 0; }
#endif

}  // namespace

std::string DirectoryOf(const std::string& path) {
  const size_t root = RootLength(path);
  const size_t slash = path.find_last_of(kSeparators);
  if (slash != std::string::npos && slash >= root) return path.substr(0, slash);
  return root > 0 ? path.substr(0, root) : ".";
}

std::string FileNameOf(const std::string& path) {
  size_t separator = path.find_last_of(kSeparators);
  return separator == std::string::npos ? path : path.substr(separator + 1);
}

std::string JoinPath(const std::string& directory, const std::string& name) {
  if (directory.empty()) return name;
  bool ends = std::string(kSeparators).find(directory.back()) != std::string::npos;
  return ends ? directory + name : directory + kSeparator + name;
}

}  // namespace firn
