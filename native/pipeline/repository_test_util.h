// For tests: disks whose content is known page by page, and a repository to put them into.
#ifndef FIRN_PIPELINE_REPOSITORY_TEST_UTIL_H_
#define FIRN_PIPELINE_REPOSITORY_TEST_UTIL_H_

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "disk/disk.h"
#include "disk/disk_writer.h"
#include "io/folder_test_util.h"
#include "pipeline/backup_job.h"
#include "pipeline/copy_job.h"
#include "pipeline/restore_job.h"
#include "pipeline/verify_job.h"

namespace firn::test {

using Bytes = std::vector<uint8_t>;

// What a disk must read as. Holds the pages that are not zero.
class DiskContent {
 public:
  explicit DiskContent(uint64_t bytes) : bytes_(bytes) {}

  uint64_t bytes() const { return bytes_; }
  uint64_t page_count() const { return DivideUp(bytes_, kPageBytes); }
  const std::map<uint64_t, Bytes>& pages() const { return pages_; }

  // Bytes beyond the disk's end are dropped.
  void Set(uint64_t page, Bytes content) {
    content.resize(kPageBytes);
    const uint64_t inside = std::min<uint64_t>(kPageBytes, bytes_ - page * kPageBytes);
    std::fill(content.begin() + static_cast<ptrdiff_t>(inside), content.end(), uint8_t{0});
    const bool zero = std::ranges::all_of(content, [](uint8_t byte) { return byte == 0; });
    if (zero) {
      pages_.erase(page);
    } else {
      pages_[page] = std::move(content);
    }
  }

  // Runs of pages of several kinds, here and there until about `share` of 100 pages hold data.
  void Scatter(Random* random, unsigned share) {
    for (uint64_t page = random->Below(20); page < page_count();) {
      const uint64_t run = random->OneIn(6) ? random->Between(50, 300) : random->Between(1, 20);
      const uint64_t kind = random->Below(4);
      for (uint64_t i = 0; i < run && page < page_count(); ++i, ++page) {
        Bytes content(kPageBytes, static_cast<uint8_t>(kind + 1));
        if (kind == 0) random->Fill(content);                                // incompressible
        if (kind == 1) random->Fill(std::span(content).first(700));          // compressible
        if (kind == 2) StoreLe<uint64_t>(content.data(), random->Below(9));  // often seen before
        Set(page, std::move(content));
      }
      if (share < 100) page += random->Below(2 * run * (100 - share) / share + 2);
    }
  }

  Bytes Read(uint64_t offset, uint64_t length) const {
    Bytes out(length);
    auto it = pages_.lower_bound(offset / kPageBytes);
    for (; it != pages_.end() && it->first * kPageBytes < offset + length; ++it) {
      const uint64_t begin = std::max(offset, it->first * kPageBytes);
      const uint64_t end = std::min(offset + length, (it->first + 1) * kPageBytes);
      std::copy_n(it->second.begin() + static_cast<ptrdiff_t>(begin - it->first * kPageBytes),
                  end - begin, out.begin() + static_cast<ptrdiff_t>(begin - offset));
    }
    return out;
  }

  // A raw image. Of the pages that are zero, every `dense`-th (0: none) is written as zeros rather
  // than left a hole.
  void WriteRaw(const std::string& path, uint64_t dense = 0) const {
    auto file = Must(FileSystem::Default().Open(path, {.access = Access::kCreateAlways}));
    Must(file->Truncate(bytes_));
    for (uint64_t page = 0; dense > 0 && page < page_count(); page += dense) {
      const uint64_t offset = page * kPageBytes;
      if (!pages_.contains(page)) {
        Must(file->WriteAt(offset, Bytes(std::min<uint64_t>(kPageBytes, bytes_ - offset))));
      }
    }
    for (const auto& [page, content] : pages_) {
      const uint64_t offset = page * kPageBytes;
      Must(file->WriteAt(
          offset, std::span(content).first(std::min<uint64_t>(kPageBytes, bytes_ - offset))));
    }
  }

  void WriteImage(const std::string& path, const DiskIdentity& identity) const {
    CreateDiskOptions options;
    options.identity = identity;
    options.identity.size = bytes_;
    auto writer = Must(DiskWriter::Create(FileSystem::Default(), path, options));
    for (const auto& [page, content] : pages_) {
      const uint64_t offset = page * kPageBytes;
      Must(writer->Write(
          offset, std::span(content).first(std::min<uint64_t>(kPageBytes, bytes_ - offset))));
    }
    Must(writer->Finish());
  }

 private:
  uint64_t bytes_;
  std::map<uint64_t, Bytes> pages_;
};

// "" if the image at `path` reads as `content`, from its first byte to its last.
inline std::string ImageDifference(const std::string& path, const DiskContent& content) {
  auto disk = Disk::Open(FileSystem::Default(), path, {});
  if (!disk.ok()) return disk.status().ToString();
  if ((*disk)->size() != content.bytes()) return "its size is " + std::to_string((*disk)->size());
  const auto compare = [&](uint64_t offset) -> std::string {
    Bytes bytes(std::min<uint64_t>(64 * kKiB, content.bytes() - offset));
    const Status status = (*disk)->Read(offset, bytes);
    if (!status.ok()) return status.ToString();
    if (bytes != content.Read(offset, bytes.size()))
      return "differs near " + std::to_string(offset);
    return "";
  };
  uint64_t checked = 0;  // data before this has been compared
  for (const auto& [page, bytes] : content.pages()) {
    const uint64_t offset = RoundDown(page * kPageBytes, 64 * kKiB);
    if (offset < checked) continue;
    if (std::string difference = compare(offset); !difference.empty()) return difference;
    checked = offset + 64 * kKiB;
  }
  // And nothing elsewhere.
  for (uint64_t offset = 0; offset < content.bytes(); offset += 64 * kKiB) {
    const auto next = (*disk)->NextPresent(offset);
    if (!next.ok()) return next.status().ToString();
    offset = RoundDown(*next, 64 * kKiB);
    if (offset >= content.bytes()) break;
    if (std::string difference = compare(offset); !difference.empty()) return difference;
  }
  return "";
}

inline DiskIdentity Identity(DiskFormat format, DiskKind kind = DiskKind::kDynamic) {
  DiskIdentity identity;
  identity.format = format;
  identity.kind = format == DiskFormat::kRaw ? DiskKind::kFixed : kind;
  return identity;
}

inline CopyOptions CopyOptionsFor(const std::string& source, const std::string& target,
                                  DiskIdentity identity, uint64_t bytes) {
  CopyOptions options;
  options.source_path = source;
  options.target_path = target;
  options.target.identity = identity;
  options.target.identity.size = bytes;
  return options;
}

inline Tuning SmallTuning(uint32_t workers = 2, IoBackend backend = IoBackend::kAuto,
                          IoMode io = IoMode::kAuto) {
  return {.workers = workers, .memory_bytes = 96 * kMiB, .io = io, .backend = backend};
}

class TestRepository {
 public:
  struct BackupOutcome {
    Status status;
    BackupResult result;
    StatsSnapshot stats;
    const Id& root(size_t disk = 0) const { return result.disks.at(disk).root; }
  };

  explicit TestRepository(uint64_t seed = 1, const ChunkingParameters& chunking = {})
      : random_(seed), chunking_(chunking), id_key_(random_.Id()) {
    std::filesystem::create_directory(folder_ / "packs");
    std::filesystem::create_directory(folder_ / "index");
  }

  std::string root() const { return folder_.path(); }
  const Key& id_key() const { return id_key_; }
  const ChunkingParameters& chunking() const { return chunking_; }
  std::vector<std::string> Files() const { return FilesBelow(root()); }
  // From now on the repository is opened with these keys.
  void SealWith(std::shared_ptr<const SealKeys> keys) { seal_ = std::move(keys); }
  void Condemn(const PackName& pack) { condemned_.push_back(pack); }

  // What lies in the folders now, as the control plane lists it.
  RepositoryView View() const {
    RepositoryView view;
    view.listing.root = root();
    view.listing.condemned = condemned_;
    view.id_key = id_key_;
    view.chunking = chunking_;
    view.seal = seal_;
    if (seal_ != nullptr && !seal_->is_locked()) view.listing.index_key = SealedIndexKey(id_key_);
    for (const std::string& file : Files()) {
      if (file.starts_with("index/") && file.ends_with(".idx")) {
        view.listing.index_runs.push_back(file.substr(6));
      } else if (file.starts_with("packs/") && file.ends_with(".pack")) {
        view.listing.packs.push_back(Must(PackName::Parse(file.substr(6, file.size() - 11))));
      }
    }
    return view;
  }

  BackupOptions Options(const std::vector<std::string>& paths,
                        const CompressionOptions& compression = {}) {
    BackupOptions options;
    options.repository = View();
    for (const std::string& path : paths) options.disks.push_back({path, {}});
    random_.Fill(options.run);
    options.compression = compression;
    return options;
  }

  static BackupOutcome Run(BackupOptions options, const Tuning& tuning = SmallTuning(),
                           FileSystem& fs = FileSystem::Default()) {
    BackupJob job(fs, tuning, std::move(options));
    Status status = job.Run();
    return {std::move(status), job.result(), job.stats()};
  }
  BackupOutcome Backup(const std::vector<std::string>& paths,
                       const Tuning& tuning = SmallTuning()) {
    return Run(Options(paths), tuning);
  }

  Status Restore(const Id& root, const std::string& path, uint64_t bytes,
                 const DiskIdentity& identity = Identity(DiskFormat::kRaw),
                 const Tuning& tuning = SmallTuning(),
                 FileSystem& fs = FileSystem::Default()) const {
    return RestoreJob(fs, tuning, RestoreOptionsFor(root, path, bytes, identity)).Run();
  }
  RestoreOptions RestoreOptionsFor(const Id& root, const std::string& path, uint64_t bytes,
                                   const DiskIdentity& identity) const {
    RestoreOptions options;
    options.repository = View();
    options.disks.emplace_back();
    options.disks[0].root = root;
    options.disks[0].path = path;
    options.disks[0].create.identity = identity;
    options.disks[0].create.identity.size = bytes;
    return options;
  }

  // Restores, compares and removes; "" if all is well.
  std::string RestoreDifference(const Id& root, const DiskContent& content,
                                const Tuning& tuning = SmallTuning()) const {
    const std::string path = folder_ / "restored.raw";
    const Status status = Restore(root, path, content.bytes(), Identity(DiskFormat::kRaw), tuning);
    std::string difference = status.ok() ? ImageDifference(path, content) : status.ToString();
    std::filesystem::remove(path);
    return difference;
  }

  Result<VerifyResult> Verify(const std::vector<Id>& roots, bool read_data = true,
                              const Tuning& tuning = SmallTuning()) const {
    VerifyJob job(FileSystem::Default(), tuning, {View(), roots, read_data});
    FIRN_RETURN_IF_ERROR(job.Run());
    return job.result();
  }
  // "" if a verification that reads everything finds nothing.
  std::string Problems(const std::vector<Id>& roots) const {
    auto result = Verify(roots);
    if (!result.ok()) return result.status().ToString();
    std::string text;
    for (const Problem& problem : result->problems) text += problem.status.ToString() + "\n";
    return text;
  }

  // All files under a name that a reader would take for an object; with what is not one in
  // `strays`.
  bool HasPartialFiles() const {
    return std::ranges::any_of(Files(),
                               [](const std::string& file) { return file.ends_with(".partial"); });
  }

 private:
  TestFolder folder_;
  Random random_;
  const ChunkingParameters chunking_;
  const Key id_key_;
  std::shared_ptr<const SealKeys> seal_;
  std::vector<PackName> condemned_;
};

}  // namespace firn::test

#endif  // FIRN_PIPELINE_REPOSITORY_TEST_UTIL_H_
