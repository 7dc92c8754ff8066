#include "io/file.h"

namespace firn {

namespace {

#ifdef _WIN32
constexpr const char* kSeparators = "/\\";
#else
constexpr const char* kSeparators = "/";
#endif

}  // namespace

std::string DirectoryOf(const std::string& path) {
  size_t slash = path.find_last_of(kSeparators);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? path.substr(0, 1) : path.substr(0, slash);
}

std::string FileNameOf(const std::string& path) {
  size_t separator = path.find_last_of(kSeparators);
  return separator == std::string::npos ? path : path.substr(separator + 1);
}

std::string JoinPath(const std::string& directory, const std::string& name) {
  if (directory.empty()) return name;
  bool ends = std::string(kSeparators).find(directory.back()) != std::string::npos;
  return ends ? directory + name : directory + "/" + name;
}

}  // namespace firn
