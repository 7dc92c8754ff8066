// For tests: a folder that goes away with its test, and whole files in it.
#ifndef FIRN_IO_FOLDER_TEST_UTIL_H_
#define FIRN_IO_FOLDER_TEST_UTIL_H_

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "core/core_test_util.h"
#include "io/file.h"

namespace firn::test {

class TestFolder {
 public:
  // In the system's temporary folder unless told otherwise.
  explicit TestFolder(
      const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::random_device device;
    std::array<uint8_t, 8> name;
    StoreLe(name.data(), uint64_t{device()} << 32 | device());
    path_ = parent / ("firn-engine-" + ToHex(name));
    std::filesystem::create_directory(path_);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// False where links can't be made, for want of a privilege or of the platform's library.
inline bool MakeLink(const std::filesystem::path& target, const std::filesystem::path& link) {
  std::error_code error;
  std::filesystem::create_symlink(target, link, error);
  return !error;
}

// Names of all files below `folder`, relative to it and sorted.
inline std::vector<std::string> FilesBelow(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_directory()) {
      names.push_back(std::filesystem::relative(entry.path(), folder).generic_string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<uint8_t> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void WriteWholeFile(const std::string& path, std::span<const uint8_t> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(file.good()) << path;
}

inline void FlipBit(const std::string& path, uint64_t bit) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto at = static_cast<std::streamoff>(bit / 8);
  char byte = 0;
  file.seekg(at);
  file.get(byte);
  file.seekp(at);
  file.put(static_cast<char>(static_cast<uint8_t>(byte) ^ 1u << (bit % 8)));
  EXPECT_TRUE(file.good()) << path << " bit " << bit;
}

}  // namespace firn::test

#endif  // FIRN_IO_FOLDER_TEST_UTIL_H_
