// For the tests of the disk writers: a folder that goes away, a model of what a disk must read as,
// and readers to compare it with (Firn's own, and the referees qemu-img, 7-Zip and libvhdi, which
// know nothing of Firn).
#ifndef FIRN_DISK_DISK_WRITER_TESTING_H_
#define FIRN_DISK_DISK_WRITER_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "disk/disk.h"
#include "disk/disk_writer.h"
#include "disk/image_file.h"
#include "io/file.h"

namespace firn::testing {

inline void ExpectOk(const Status& status) { EXPECT_TRUE(status.ok()) << status.ToString(); }

class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() / ("firn-test-" + ToHex(RandomGuid()))) {
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
  }

 private:
  const std::filesystem::path path_;
};

// Some bytes of a disk: [offset, offset + length).
struct Window {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// What a disk must read as. Holds only the pages that were written to.
class DiskModel {
 public:
  explicit DiskModel(uint64_t size) : size_(size) {}
  uint64_t size() const { return size_; }

  void Write(uint64_t offset, std::span<const uint8_t> bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const uint64_t at = offset + done;
      std::vector<uint8_t>& page = pages_[at / kPage];
      page.resize(kPage);
      const size_t piece = std::min<size_t>(kPage - at % kPage, bytes.size() - done);
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(done), piece,
                  page.begin() + static_cast<ptrdiff_t>(at % kPage));
      done += piece;
    }
  }

  void Zero(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    for (auto it = pages_.lower_bound(offset / kPage);
         it != pages_.end() && it->first * kPage < end;) {
      const uint64_t page = it->first * kPage;
      const uint64_t from = std::max(offset, page) - page;
      const uint64_t to = std::min(end, page + kPage) - page;
      std::fill(it->second.begin() + static_cast<ptrdiff_t>(from),
                it->second.begin() + static_cast<ptrdiff_t>(to), uint8_t{0});
      it = from == 0 && to == kPage ? pages_.erase(it) : std::next(it);
    }
  }

  std::vector<uint8_t> Read(uint64_t offset, uint64_t length) const {
    std::vector<uint8_t> bytes(length);
    for (auto it = pages_.lower_bound(offset / kPage);
         it != pages_.end() && it->first * kPage < offset + length; ++it) {
      const uint64_t begin = std::max(offset, it->first * kPage);
      const uint64_t end = std::min(offset + length, (it->first + 1) * kPage);
      std::copy_n(it->second.begin() + static_cast<ptrdiff_t>(begin % kPage), end - begin,
                  bytes.begin() + static_cast<ptrdiff_t>(begin - offset));
    }
    return bytes;
  }

  // The written places with some room around them, and both ends of the disk: what is worth reading
  // of a huge disk.
  std::vector<Window> Windows() const {
    constexpr uint64_t kRoom = 128 * kKiB;
    std::vector<Window> windows = {{0, std::min(size_, kRoom)}};
    auto add = [&](uint64_t begin, uint64_t end) {
      Window& last = windows.back();
      if (begin <= last.offset + last.length) {
        last.length = std::max(last.length, end - last.offset);
      } else {
        windows.push_back({begin, end - begin});
      }
    };
    for (const auto& [index, page] : pages_) {
      const uint64_t at = index * kPage;
      add(at < kRoom ? 0 : at - kRoom, std::min(size_, at + kPage + kRoom));
    }
    add(size_ < kRoom ? 0 : size_ - kRoom, size_);
    return windows;
  }
  std::vector<Window> Whole() const { return {{0, size_}}; }

 private:
  static constexpr uint64_t kPage = 4096;
  const uint64_t size_;
  std::map<uint64_t, std::vector<uint8_t>> pages_;
};

// "" if `bytes` are what the model holds at `offset`, else where they differ first.
inline std::string Difference(const DiskModel& model, uint64_t offset,
                              std::span<const uint8_t> bytes) {
  const std::vector<uint8_t> expected = model.Read(offset, bytes.size());
  if (std::ranges::equal(expected, bytes)) return "";
  const auto [mine, theirs] = std::ranges::mismatch(expected, bytes);
  return "differs at " + std::to_string(offset + static_cast<uint64_t>(mine - expected.begin())) +
         ": expected " + std::to_string(*mine) + ", read " + std::to_string(*theirs);
}

// "" if Firn's own reader reads as the model says.
inline std::string FirnDifference(const std::string& path, const DiskModel& model,
                                  const std::vector<Window>& windows) {
  auto disk = Disk::Open(FileSystem::Default(), path, {});
  if (!disk.ok()) return disk.status().ToString();
  if ((*disk)->size() != model.size()) return "size " + std::to_string((*disk)->size());
  std::vector<uint8_t> buffer;
  for (const Window& window : windows) {
    for (uint64_t done = 0; done < window.length; done += buffer.size()) {
      buffer.resize(std::min(kMiB, window.length - done));
      Status status = (*disk)->Read(window.offset + done, buffer);
      if (!status.ok()) return status.ToString();
      std::string difference = Difference(model, window.offset + done, buffer);
      if (!difference.empty()) return difference;
    }
  }
  return "";
}

// A seeded source of offsets, sizes and payload.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t Below(uint64_t end) {
    return std::uniform_int_distribution<uint64_t>(0, end - 1)(engine_);
  }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  std::vector<uint8_t> Bytes(uint64_t length) {
    std::vector<uint8_t> bytes(length);
    for (size_t i = 0; i + 8 <= length; i += 8) StoreLe<uint64_t>(&bytes[i], engine_());
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

inline void WriteBoth(DiskWriter* writer, DiskModel* model, uint64_t offset,
                      std::span<const uint8_t> bytes) {
  ExpectOk(writer->Write(offset, bytes));
  model->Write(offset, bytes);
}

inline std::unique_ptr<DiskWriter> MustCreate(const std::string& path,
                                              const CreateDiskOptions& options) {
  auto writer = DiskWriter::Create(FileSystem::Default(), path, options);
  EXPECT_TRUE(writer.ok()) << writer.status().ToString();
  return writer.ok() ? std::move(*writer) : nullptr;
}

// A little-endian integer of the finished file, for looking at structures without the code that
// reads them.
inline uint64_t FileU64(const std::string& path, uint64_t offset) {
  std::array<uint8_t, 8> bytes{};
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(bytes.data()), bytes.size());
  EXPECT_TRUE(file.good()) << path << " at " << offset;
  return LoadLe<uint64_t>(bytes.data());
}

// --- Referees ---

#ifdef _WIN32
inline bool HaveCommand(const std::string&) { return false; }
#else
inline bool HaveCommand(const std::string& command) {
  return std::system(("command -v " + command + " >/dev/null 2>&1").c_str()) == 0;
}
#endif

// Runs a command; its output goes into the message if it fails.
inline ::testing::AssertionResult Succeeds(const std::string& command) {
#ifdef _WIN32
  return ::testing::AssertionFailure() << "no referees here: " << command;
#else
  std::string output;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return ::testing::AssertionFailure() << "can't run " << command;
  char buffer[4096];
  for (size_t got = 0; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    output.append(buffer, got);
  }
  const int result = pclose(pipe);
  if (result == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << command << " -> " << result << "\n" << output;
#endif
}

// "" if the command writes exactly the windows of the model, one after the other.
inline std::string StreamDifference(const std::string& command, const DiskModel& model,
                                    const std::vector<Window>& windows) {
#ifdef _WIN32
  (void)model, (void)windows;
  return "no referees here: " + command;
#else
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "can't run " + command;
  std::string difference;
  std::vector<uint8_t> buffer;
  for (const Window& window : windows) {
    for (uint64_t done = 0; difference.empty() && done < window.length; done += buffer.size()) {
      buffer.resize(std::min(kMiB, window.length - done));
      if (fread(buffer.data(), 1, buffer.size(), pipe) != buffer.size()) {
        difference = "ends early, near " + std::to_string(window.offset + done);
        break;
      }
      difference = Difference(model, window.offset + done, buffer);
    }
  }
  if (difference.empty() && fgetc(pipe) != EOF) difference = "goes on past the end";
  const int result = pclose(pipe);
  if (difference.empty() && result != 0) difference = "exit " + std::to_string(result);
  return difference.empty() ? "" : command + ": " + difference;
#endif
}

inline bool HaveQemu() { return HaveCommand("qemu-img"); }
inline bool HaveSevenZip() { return HaveCommand("7zz"); }
inline bool HaveLibvhdi() {
  return HaveCommand("/usr/bin/python3") &&
         std::system("/usr/bin/python3 -c 'import pyvhdi' >/dev/null 2>&1") == 0;
}

inline std::string Quoted(const std::string& path) { return "'" + path + "'"; }

// 7-Zip 26.02 refuses every VHDX, whoever made it, with an odd number of sectors.
inline bool SevenZipTakes(const DiskIdentity& identity) {
  return identity.format != DiskFormat::kVhdx ||
         identity.size / identity.logical_sector_size % 2 == 0;
}

// 7-Zip reads whole disks only; it finds parents by itself. `type` is "vhdx" or "vhd".
inline std::string SevenZipDifference(const std::string& path, const std::string& type,
                                      const DiskModel& model) {
  return StreamDifference("7zz x -y -t" + type + " -so " + Quoted(path) + " 2>/dev/null", model,
                          model.Whole());
}

// libvhdi is told the chain, child first. Version 20210425 takes a block that a child marks as zero
// for one that shows the parent, and reads the parent wrongly through a chunk that has no sector
// bitmap; 7-Zip does neither.
inline std::string LibvhdiDifference(const std::vector<std::string>& chain, const DiskModel& model,
                                     const std::vector<Window>& windows) {
  static constexpr char kScript[] = R"(
import pyvhdi, sys
layers, windows = sys.argv[1].split("|"), sys.argv[2:]
opened = []
for path in layers:
    layer = pyvhdi.file()
    layer.open(path)
    if opened:
        opened[-1].set_parent(layer)
    opened.append(layer)
disk = opened[0]
for window in windows:
    offset, length = (int(part) for part in window.split(":"))
    while length > 0:
        data = disk.read_buffer_at_offset(min(length, 1 << 20), offset)
        if not data:
            sys.exit("nothing to read at %d of %d" % (offset, disk.get_media_size()))
        sys.stdout.buffer.write(data)
        offset, length = offset + len(data), length - len(data)
)";
  std::string layers;
  for (const std::string& path : chain) layers += (layers.empty() ? "" : "|") + path;
  const std::string script = chain.front() + ".read.py";
  std::ofstream(script) << kScript;
  std::string command = "/usr/bin/python3 " + Quoted(script) + " " + Quoted(layers);
  for (const Window& window : windows) {
    command += " " + std::to_string(window.offset) + ":" + std::to_string(window.length);
  }
  return StreamDifference(command, model, windows);
}

// `driver` is "vhdx" or "vpc". Each window is converted by itself, so that huge disks can be looked
// into.
inline std::string QemuDifference(const std::string& path, const std::string& driver,
                                  const DiskModel& model, const std::vector<Window>& windows) {
  const std::string out = path + ".qemu.raw";
  for (const Window& window : windows) {
    const ::testing::AssertionResult converted = Succeeds(
        "qemu-img convert -O raw --image-opts driver=raw,offset=" + std::to_string(window.offset) +
        ",size=" + std::to_string(window.length) + ",file.driver=" + driver +
        ",file.file.driver=file,file.file.filename=" + path + " " + Quoted(out));
    if (!converted) return converted.message();
    std::string difference = StreamDifference("cat " + Quoted(out), model, {window});
    if (!difference.empty()) return "qemu-img: " + difference;
  }
  std::filesystem::remove(out);
  return "";
}

}  // namespace firn::testing

#endif  // FIRN_DISK_DISK_WRITER_TESTING_H_
