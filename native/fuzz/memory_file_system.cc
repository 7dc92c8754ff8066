#include "fuzz/memory_file_system.h"

#include <algorithm>
#include <set>

#include "io/io_queue.h"

namespace firn::fuzz {
namespace {

Status Missing(const std::string& path) {
  return Status::Error(Code::kNotFound, "there is no such file").At(path);
}

class MemoryFile final : public File {
 public:
  MemoryFile(const std::string& path, const SparseImage& image)
      : File(path, false, {}), image_(image) {}

  Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) override {
    const uint64_t left = offset < image_.size() ? image_.size() - offset : 0;
    const size_t count = std::min<uint64_t>(left, out.size());
    image_.Read(offset, out.first(count));
    return count;
  }
  Result<uint64_t> Size() override { return image_.size(); }
  Result<std::optional<DataRange>> NextData(uint64_t offset) override {
    const auto page = image_.NextPage(offset);
    if (!page) return std::optional<DataRange>();
    return std::optional<DataRange>(DataRange{page->first, page->second});
  }
  Result<FileIdentity> Identity() override {
    return FileIdentity{.device = 1, .file = reinterpret_cast<uintptr_t>(&image_)};
  }
  Status WriteAt(uint64_t, std::span<const uint8_t>) override { return ReadOnly(); }
  Status Truncate(uint64_t) override { return ReadOnly(); }
  Status Preallocate(uint64_t, uint64_t) override { return ReadOnly(); }
  Status Sync() override { return ReadOnly(); }
  bool IsCached(uint64_t, uint64_t) override { return true; }
  void DropCache() override {}
  intptr_t native_handle() const override { return -1; }

 private:
  static Status ReadOnly() { return Status::Error(Code::kUnsupported, "read-only"); }
  const SparseImage& image_;
};

class MemoryMapping final : public MappedFile {
 public:
  explicit MemoryMapping(const SparseImage& image) : bytes_(image.Read(0, image.size())) {}
  std::span<const uint8_t> bytes() const override { return bytes_; }
  void AdviseRandom() override {}

 private:
  const std::vector<uint8_t> bytes_;
};

class MemoryQueue final : public IoQueue {
 public:
  explicit MemoryQueue(uint32_t depth) : depth_(depth) {}
  void RegisterBuffer(std::span<uint8_t>) override {}
  Status Submit(const IoRequest& request) override {
    const std::span<uint8_t> bytes(request.data, request.length);
    done_.push_back({request.tag, request.op == IoRequest::Op::kRead
                                      ? request.file->ReadAt(request.offset, bytes)
                                      : request.file->WriteAt(request.offset, bytes)});
    return Status::Ok();
  }
  Status Wait(uint32_t, std::vector<IoCompletion>* completions) override {
    for (IoCompletion& completion : done_) completions->push_back(std::move(completion));
    done_.clear();
    return Status::Ok();
  }
  uint32_t in_flight() const override { return static_cast<uint32_t>(done_.size()); }
  uint32_t depth() const override { return depth_; }
  const char* name() const override { return "memory"; }

 private:
  const uint32_t depth_;
  std::vector<IoCompletion> done_;
};

// The name without "." and "..", as a file system without links resolves it.
std::string Resolve(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
    begin = end + 1;
  }
  std::string resolved;
  for (const std::string& part : parts) resolved += "/" + part;
  return resolved.empty() ? "/" : resolved;
}

}  // namespace

const SparseImage* MemoryFileSystem::Find(const std::string& path) {
  const auto file = files_.find(Resolve(path));
  return file == files_.end() ? nullptr : &file->second;
}

Result<std::unique_ptr<File>> MemoryFileSystem::Open(const std::string& path,
                                                     const OpenOptions& options) {
  if (options.access != Access::kRead) return ReadOnly();
  const SparseImage* image = Find(path);
  if (image == nullptr) return Missing(path);
  return std::unique_ptr<File>(new MemoryFile(path, *image));
}

Result<std::unique_ptr<MappedFile>> MemoryFileSystem::Map(const std::string& path) {
  const SparseImage* image = Find(path);
  if (image == nullptr) return Missing(path);
  return std::unique_ptr<MappedFile>(new MemoryMapping(*image));
}

Result<std::string> MemoryFileSystem::RealPath(const std::string& path) {
  const std::string resolved = Resolve(path);
  const std::string below = resolved == "/" ? "/" : resolved + "/";
  const bool exists = std::ranges::any_of(files_, [&](const auto& file) {
    return file.first == resolved || file.first.starts_with(below);
  });
  if (!exists) return Missing(path);
  return resolved;
}

Result<std::vector<std::string>> MemoryFileSystem::List(const std::string& path) {
  const std::string resolved = Resolve(path);
  const std::string below = resolved == "/" ? "/" : resolved + "/";
  std::set<std::string> names;
  for (const auto& [name, image] : files_) {
    if (!name.starts_with(below)) continue;
    names.insert(name.substr(below.size(), name.find('/', below.size()) - below.size()));
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<std::unique_ptr<IoQueue>> MemoryFileSystem::NewQueue(const IoQueueOptions& options) {
  return std::unique_ptr<IoQueue>(new MemoryQueue(options.depth));
}

}  // namespace firn::fuzz
