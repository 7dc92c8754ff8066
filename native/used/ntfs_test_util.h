// For the tests of NTFS: volumes made by mkntfs and filled through ntfs-3g, and what its programs
// say of them.
#ifndef FIRN_USED_NTFS_TEST_UTIL_H_
#define FIRN_USED_NTFS_TEST_UTIL_H_

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "used/byte_range.h"
#include "used/used_test_util.h"

namespace firn::used_test {

// Runs commands in the root of a volume, mounted by ntfs-3g in the foreground so that its end can
// be waited for.
inline bool InNtfs(const image_test::TestFolder& folder, const std::string& image,
                   const std::string& commands, const std::string& options = "") {
  const std::string mount = folder.MakeFolder("mount");
  return Quietly(WithSystemPath(
      "ntfs-3g -o no_detach" + options + " '" + image + "' '" + mount + "' & pid=$!; " +
      // Until it is mounted, or the program that was to do it has given up.
      "while ! mountpoint -q '" + mount + "' && kill -0 $pid; do sleep 0.05; done; " +
      "mountpoint -q '" + mount + "' || exit 1; (cd '" + mount + "' && " + commands +
      "); result=$?; umount '" + mount + "' || exit 1; wait $pid; exit $result"));
}

inline bool MakeNtfs(const std::string& image, uint64_t size, const std::string& options = "") {
  std::filesystem::remove(image);
  std::ofstream(image).close();
  std::filesystem::resize_file(image, size);
  return Quietly(WithSystemPath("mkntfs -F -Q -q -p 2048 -H 255 -S 63 -s 512 " + options + " '" +
                                image + "'"));
}

// Whether this machine can make and mount NTFS.
inline bool CanMountNtfs() {
  static const bool can = [] {
    if (!HasProgram("mkntfs") || !HasProgram("ntfs-3g") || !HasProgram("ntfscat")) return false;
    image_test::TestFolder folder;
    const std::string image = folder / "probe.raw";
    return MakeNtfs(image, 8 * kMiB) && InNtfs(folder, image, "true");
  }();
  return can;
}

#define FIRN_NEED_NTFS_3G()                                                                     \
  if (!CanMountNtfs()) {                                                                        \
    GTEST_SKIP() << "mkntfs and a mount by ntfs-3g (package ntfs-3g, /dev/fuse) are not there"; \
  }

// Files of many sizes, fragments, a sparse and a compressed one, and a directory of many entries.
inline std::string FillCommands(uint64_t mib, uint64_t seed) {
  const std::string count = std::to_string(mib * 4);
  return "mkdir -p many sub && for i in $(seq 1500); do echo $i > many/a_rather_long_name_$i; "
         "done; "
         "for i in $(seq " +
         count + "); do head -c $(( (i * 7919 + " + std::to_string(seed) +
         ") % 524288 )) /dev/urandom > sub/f$i; done; "
         "for i in $(seq 3 3 200); do rm -f many/a_rather_long_name_$i sub/f$i; done; "
         "truncate -s 50M sparse; printf x | dd of=sparse bs=1 seek=30000000 conv=notrunc; "
         "head -c 3000000 /dev/urandom > last";
}

// What $Bitmap calls free, read by ntfscat.
inline std::vector<ByteRange> FreeByNtfscat(const std::string& image, uint64_t cluster_bytes,
                                            uint64_t clusters) {
  const std::string bits = Output(WithSystemPath("ntfscat -i 6 '" + image + "'")).value_or("");
  EXPECT_GE(bits.size() * 8, clusters);
  std::vector<ByteRange> free;
  for (uint64_t i = 0; i < std::min<uint64_t>(clusters, bits.size() * 8); ++i) {
    if ((static_cast<uint8_t>(bits[i / 8]) >> (i % 8) & 1) != 0) continue;
    if (!free.empty() && free.back().end == i * cluster_bytes) {
      free.back().end += cluster_bytes;
    } else {
      free.push_back({i * cluster_bytes, (i + 1) * cluster_bytes});
    }
  }
  return free;
}

// Names, sizes and digests of all files, read through a mount.
inline std::string ContentByNtfs3g(const image_test::TestFolder& folder, const std::string& image) {
  const std::string list = folder / "list";
  EXPECT_TRUE(InNtfs(
      folder, image,
      "find . -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum > '" + list + "'",
      ",ro"));
  std::ifstream file(list);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace firn::used_test

#endif  // FIRN_USED_NTFS_TEST_UTIL_H_
