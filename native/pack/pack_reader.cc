#include "pack/pack_reader.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "core/bytes.h"
#include "core/crc32c.h"

namespace firn {

Result<std::shared_ptr<File>> PackFiles::Open(const PackName& name) {
  std::lock_guard lock(mutex_);
  auto place = std::find_if(recent_.begin(), recent_.end(),
                            [&](const auto& entry) { return entry.first == name; });
  if (place != recent_.end()) {
    recent_.splice(recent_.begin(), recent_, place);
    return recent_.front().second;
  }
  const std::string path = JoinPath(root_, name.RelativePath());
  Result<std::unique_ptr<File>> file = fs_.Open(path, {.direct = direct_});
  if (!file.ok()) {
    Status status = std::move(file).TakeStatus();
    if (status.code() != Code::kNotFound) return status;
    return Status::Error(Code::kPackMissing, "the pack is not in the repository")
        .At(path)
        .DataLoss();
  }
  recent_.emplace_front(name, std::shared_ptr<File>(std::move(*file)));
  if (recent_.size() > open_max_) recent_.pop_back();
  return recent_.front().second;
}

Result<PackTable> ReadPackTable(File* file) {
  FIRN_ASSIGN_OR_RETURN(uint64_t size, file->Size());
  if (size < kPackTrailerBytes) {
    return Status::Error(Code::kCorruptPack, "the file is shorter than any pack")
        .At(file->path())
        .DataLoss();
  }
  uint8_t bytes[kPackTrailerBytes];
  FIRN_RETURN_IF_ERROR(file->ReadAt(size - kPackTrailerBytes, bytes));
  Result<PackTrailer> trailer = DecodePackTrailer(bytes, size);
  if (!trailer.ok()) {
    return std::move(trailer).TakeStatus().At(file->path(), size - kPackTrailerBytes);
  }
  // Bounded: the footer lies inside a file of at most kPackBytesMax, and a row for each record.
  std::vector<uint8_t> footer(size - trailer->footer_offset);
  FIRN_RETURN_IF_ERROR(file->ReadAt(trailer->footer_offset, footer));
  Result<PackTable> table = DecodePackFooter(*trailer, footer);
  if (!table.ok()) {
    return std::move(table).TakeStatus().At(file->path(), trailer->footer_offset);
  }
  return table;
}

namespace {

// The next place at or after `from` where a record's magic stands, or where it may begin in bytes
// that come later.
size_t FindRecordMagic(std::span<const uint8_t> bytes, size_t from) {
  static constexpr uint8_t kMagic[] = {'F', 'I', 'R', 'R'};
  const auto found = std::search(bytes.begin() + static_cast<ptrdiff_t>(from), bytes.end(),
                                 std::boyer_moore_horspool_searcher(kMagic, kMagic + 4));
  return found == bytes.end() ? bytes.size() - 3 : static_cast<size_t>(found - bytes.begin());
}

// The header at `at`, if a whole record stands there. The stored bytes must match their checksum:
// content that looks like a header, in a record that has lost its own, must not hide the records
// behind it.
Result<std::optional<RecordHeader>> ReadRecordAt(File* file, uint64_t at, const uint8_t* bytes,
                                                 uint64_t file_bytes, uint64_t* budget,
                                                 std::vector<uint8_t>* stored) {
  Result<RecordHeader> header = RecordHeader::Decode(bytes);
  if (!header.ok()) return std::optional<RecordHeader>();
  const uint64_t stored_offset = at + kRecordHeaderBytes;
  if (!RangeInside(stored_offset, header->stored_length, file_bytes) ||
      header->stored_length > *budget) {
    return std::optional<RecordHeader>();
  }
  *budget -= header->stored_length;
  stored->resize(header->stored_length);
  FIRN_RETURN_IF_ERROR(file->ReadAt(stored_offset, *stored));
  if (Crc32c(*stored) != header->stored_crc) return std::optional<RecordHeader>();
  return std::optional<RecordHeader>(*header);
}

}  // namespace

Result<PackTable> ScanPackRecords(File* file) {
  PackTable table;
  FIRN_ASSIGN_OR_RETURN(table.file_bytes, file->Size());
  table.file_bytes = std::min(table.file_bytes, kPackBytesMax);
  table.footer_offset = table.file_bytes;
  // Each header that lies costs a checksum of what it claims; a pack made of lies must not cost the
  // square of its size.
  uint64_t budget = 16 * table.file_bytes;
  std::vector<uint8_t> window(4 * kMiB);
  std::vector<uint8_t> stored;
  uint64_t offset = 0;
  while (offset + kRecordHeaderBytes <= table.file_bytes) {
    const size_t length = std::min<uint64_t>(window.size(), table.file_bytes - offset);
    FIRN_RETURN_IF_ERROR(file->ReadAt(offset, {window.data(), length}));
    uint64_t next = offset + length - (kRecordHeaderBytes - 1);
    for (size_t position = 0; position + kRecordHeaderBytes <= length;) {
      position = FindRecordMagic({window.data(), length}, position);
      if (position + kRecordHeaderBytes > length) break;
      const uint64_t at = offset + position;
      FIRN_ASSIGN_OR_RETURN(
          std::optional<RecordHeader> header,
          ReadRecordAt(file, at, &window[position], table.file_bytes, &budget, &stored));
      if (!header) {
        ++position;
        continue;
      }
      table.records.push_back({header->id, static_cast<uint32_t>(at), header->stored_length,
                               header->raw_length, header->record_class, header->codec,
                               header->flags});
      next = std::max(next, at + kRecordHeaderBytes + header->stored_length);
      position += kRecordHeaderBytes + header->stored_length;
    }
    offset = next;
  }
  return table;
}

}  // namespace firn
