// For tests: records as they stand in packs, and packs made of them through PackWriter.
#ifndef FIRN_PACK_PACK_TEST_UTIL_H_
#define FIRN_PACK_PACK_TEST_UTIL_H_

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "codec/record.h"
#include "io/aligned_buffer.h"
#include "io/folder_test_util.h"
#include "pack/pack_reader.h"
#include "pack/pack_writer.h"

namespace firn::test {

// A repository's folder with a writer's products in it.
class PackFolder {
 public:
  PackFolder() { std::filesystem::create_directory(folder_ / "packs"); }

  std::string root() const { return folder_.path(); }
  std::string PathOf(const PackName& name) const { return folder_ / name.RelativePath(); }
  std::vector<std::string> Files() const { return FilesBelow(folder_.path()); }

  std::unique_ptr<PackWriter> Writer(const RunId& run, uint64_t pack_bytes, bool direct = false,
                                     uint32_t attempt = 0, FileSystem& fs = FileSystem::Default()) {
    return std::make_unique<PackWriter>(fs, root(), run, attempt, direct, pack_bytes,
                                        [this](const PackName& name, PackTable table) {
                                          tables_[name] = std::move(table);
                                          return Status::Ok();
                                        });
  }
  // The tables that writers handed out, by pack.
  const std::map<PackName, PackTable>& tables() const { return tables_; }

 private:
  TestFolder folder_;
  std::map<PackName, PackTable> tables_;
};

// One thread's stripe: encodes records and writes them when it is full.
class StripeFiller {
 public:
  StripeFiller(PackWriter* writer, PackClass pack_class, const CompressionOptions& compression,
               size_t stripe_bytes = 64 * kKiB)
      : writer_(writer),
        pack_class_(pack_class),
        encoder_(Must(RecordEncoder::Create(compression))),
        memory_(Must(AlignedBuffer::Allocate(stripe_bytes))),
        stripe_(memory_.span()) {}

  Status Add(const Id& id, std::span<const uint8_t> content) {
    if (!stripe_.HasRoomFor(RecordBytesMax(static_cast<uint32_t>(content.size())))) {
      FIRN_RETURN_IF_ERROR(Flush());
    }
    const auto record_class =
        pack_class_ == PackClass::kData ? RecordClass::kChunk : RecordClass::kMap;
    stripe_.Append(encoder_->Encode(record_class, id, content, stripe_.tail()));
    return Status::Ok();
  }
  Status Flush() {
    if (stripe_.empty()) return Status::Ok();
    FIRN_ASSIGN_OR_RETURN(PackWriter::Placement place, writer_->Place(pack_class_, &stripe_));
    FIRN_RETURN_IF_ERROR(place.file->WriteAt(place.offset, place.bytes));
    FIRN_RETURN_IF_ERROR(writer_->Written(place));
    stripe_.Clear();
    return Status::Ok();
  }
  Stripe* stripe() { return &stripe_; }

 private:
  PackWriter* const writer_;
  const PackClass pack_class_;
  std::unique_ptr<RecordEncoder> encoder_;
  AlignedBuffer memory_;
  Stripe stripe_;
};

inline std::unique_ptr<File> OpenToRead(const std::string& path) {
  return Must(FileSystem::Default().Open(path, {}));
}

inline RunId RandomRun(Random* random) {
  RunId run;
  random->Fill(run);
  return run;
}

}  // namespace firn::test

#endif  // FIRN_PACK_PACK_TEST_UTIL_H_
