#include "disk/vhdx_log.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/crc32c.h"
#include "disk/vhdx_format.h"

namespace firn {
namespace {

// A ring that is honest is hashed about once; an entry that was overwritten in part may be hashed
// in vain.
constexpr uint64_t kHashedPerLogByteMax = 8;
// Of the overlay. A log of 1 MiB holds 32768 descriptors at most.
constexpr uint64_t kZeroRangesMax = uint64_t{1} << 20;

struct LogEntry {
  uint64_t position = 0;  // in the log
  uint64_t length = 0;
  uint64_t tail = 0;
  uint64_t sequence_number = 0;
  uint32_t descriptor_count = 0;
  uint64_t flushed_file_offset = 0;
  uint64_t last_file_offset = 0;
};

// Descriptors start in the entry's first sector, right after its header, and run on through further
// sectors.
uint64_t DescriptorSectorsBytes(uint32_t descriptor_count) {
  return RoundUp(
      vhdx::log::kEntryHeaderBytes + uint64_t{descriptor_count} * vhdx::log::kDescriptorBytes,
      vhdx::log::kSectorBytes);
}

// The log as a ring of sectors.
class LogRing {
 public:
  LogRing(File& file, uint64_t offset, uint64_t length)
      : file_(file), offset_(offset), length_(length) {}

  uint64_t length() const { return length_; }
  uint64_t Wrap(uint64_t position) const { return position % length_; }
  uint64_t FileOffset(uint64_t position) const { return offset_ + Wrap(position); }

  // Reads around the ring's end. REQUIRES: position < 2 * length().
  Status Read(uint64_t position, std::span<uint8_t> out) {
    position = Wrap(position);
    const size_t first = std::min<uint64_t>(out.size(), length_ - position);
    FIRN_RETURN_IF_ERROR(file_.ReadAt(offset_ + position, out.first(first)));
    if (first == out.size()) return Status::Ok();
    return file_.ReadAt(offset_, out.subspan(first));
  }

 private:
  File& file_;
  const uint64_t offset_;
  const uint64_t length_;
};

class LogSearch {
 public:
  LogSearch(LogRing& ring, const Guid& guid) : ring_(ring), guid_(guid) {}

  // The entries to replay, oldest first; empty if there is no active sequence.
  Result<std::vector<LogEntry>> FindActiveSequence() {
    for (uint64_t position = 0; position < ring_.length(); position += vhdx::log::kSectorBytes) {
      FIRN_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, ParseEntry(position));
      if (entry) entries_.emplace(position, *entry);
    }
    const LogEntry* head = FindHead();
    std::vector<LogEntry> sequence;
    if (head == nullptr) return sequence;
    for (const LogEntry* entry = Find(head->tail); entry != nullptr; entry = Successor(*entry)) {
      sequence.push_back(*entry);
    }
    return sequence;
  }

  bool gave_up() const { return gave_up_; }

 private:
  const LogEntry* Find(uint64_t position) const {
    auto found = entries_.find(position);
    return found == entries_.end() ? nullptr : &found->second;
  }

  const LogEntry* Successor(const LogEntry& entry) const {
    const LogEntry* next = Find(ring_.Wrap(entry.position + entry.length));
    return next != nullptr && next->sequence_number == entry.sequence_number + 1 ? next : nullptr;
  }

  // The last entry of a chain, with the greatest sequence number, that the entry at its own Tail
  // leads to.
  const LogEntry* FindHead() const {
    std::vector<const LogEntry*> newest_first;
    for (const auto& [position, entry] : entries_) newest_first.push_back(&entry);
    std::ranges::sort(newest_first, std::ranges::greater(), &LogEntry::sequence_number);
    // Sequence numbers grow along a chain, so every entry's successor has been seen before it.
    struct ChainEnd {
      const LogEntry* last;
      uint64_t bytes;  // from the entry to the end of the chain
    };
    std::unordered_map<uint64_t, ChainEnd> ends;
    for (const LogEntry* entry : newest_first) {
      const LogEntry* next = Successor(*entry);
      ChainEnd end{entry, entry->length};
      if (next != nullptr) {
        end = ends.at(next->position);
        end.bytes += entry->length;
      }
      ends.emplace(entry->position, end);
    }
    for (const LogEntry* entry : newest_first) {
      auto tail = ends.find(entry->tail);
      // A chain that is longer than the ring overlaps itself.
      if (tail != ends.end() && tail->second.last == entry &&
          tail->second.bytes <= ring_.length()) {
        return entry;
      }
    }
    return nullptr;
  }

  // The entry at `position` if it is valid in all its parts.
  Result<std::optional<LogEntry>> ParseEntry(uint64_t position) {
    std::array<uint8_t, vhdx::log::kEntryHeaderBytes> bytes;
    FIRN_RETURN_IF_ERROR(ring_.Read(position, bytes));
    const std::optional<LogEntry> none;
    if (!vhdx::HasSignature(bytes, vhdx::log::kEntrySignature) ||
        vhdx::LoadGuid(bytes.data() + vhdx::log::kLogGuid) != guid_) {
      return none;
    }
    LogEntry entry;
    entry.position = position;
    entry.length = LoadLe<uint32_t>(bytes.data() + vhdx::log::kEntryLength);
    entry.tail = LoadLe<uint32_t>(bytes.data() + vhdx::log::kTail);
    entry.sequence_number = LoadLe<uint64_t>(bytes.data() + vhdx::log::kSequenceNumber);
    entry.descriptor_count = LoadLe<uint32_t>(bytes.data() + vhdx::log::kDescriptorCount);
    entry.flushed_file_offset = LoadLe<uint64_t>(bytes.data() + vhdx::log::kFlushedFileOffset);
    entry.last_file_offset = LoadLe<uint64_t>(bytes.data() + vhdx::log::kLastFileOffset);
    if (entry.length < vhdx::log::kSectorBytes || entry.length > ring_.length() ||
        !IsAligned(entry.length, vhdx::log::kSectorBytes) || entry.tail >= ring_.length() ||
        !IsAligned(entry.tail, vhdx::log::kSectorBytes) || entry.sequence_number == 0 ||
        DescriptorSectorsBytes(entry.descriptor_count) > entry.length) {
      return none;
    }
    FIRN_ASSIGN_OR_RETURN(const bool intact, ChecksumMatches(entry));
    if (!intact) return none;
    FIRN_ASSIGN_OR_RETURN(const bool consistent, PartsMatch(entry));
    if (!consistent) return none;
    return std::optional<LogEntry>(entry);
  }

  Result<bool> ChecksumMatches(const LogEntry& entry) {
    hashed_ += entry.length;
    if (hashed_ > kHashedPerLogByteMax * ring_.length()) {
      gave_up_ = true;
      return false;
    }
    std::vector<uint8_t> buffer(std::min<uint64_t>(entry.length, 256 * kKiB));
    uint32_t expected = 0;
    uint32_t checksum = 0;
    for (uint64_t done = 0; done < entry.length;) {
      const std::span<uint8_t> piece(buffer.data(),
                                     std::min<uint64_t>(buffer.size(), entry.length - done));
      FIRN_RETURN_IF_ERROR(ring_.Read(entry.position + done, piece));
      if (done == 0) {
        expected = LoadLe<uint32_t>(piece.data() + vhdx::log::kChecksum);
        StoreLe<uint32_t>(piece.data() + vhdx::log::kChecksum, 0);
      }
      checksum = Crc32c(piece, checksum);
      done += piece.size();
    }
    return checksum == expected;
  }

  // Whether every descriptor and every data sector carries its signature and the entry's sequence
  // number.
  Result<bool> PartsMatch(const LogEntry& entry) {
    uint64_t data_sectors = 0;
    std::array<uint8_t, vhdx::log::kSectorBytes> sector;
    for (uint32_t i = 0; i < entry.descriptor_count; ++i) {
      const uint64_t at = vhdx::log::kEntryHeaderBytes + uint64_t{i} * vhdx::log::kDescriptorBytes;
      if (i == 0 || at % vhdx::log::kSectorBytes == 0) {
        FIRN_RETURN_IF_ERROR(
            ring_.Read(entry.position + RoundDown(at, vhdx::log::kSectorBytes), sector));
      }
      const std::span<const uint8_t> descriptor(sector.data() + at % vhdx::log::kSectorBytes,
                                                vhdx::log::kDescriptorBytes);
      const bool is_data = vhdx::HasSignature(descriptor, vhdx::log::kDataSignature);
      const bool is_zero = vhdx::HasSignature(descriptor, vhdx::log::kZeroSignature);
      const auto sequence = LoadLe<uint64_t>(descriptor.data() + vhdx::log::kDescriptorSequence);
      if ((!is_data && !is_zero) || sequence != entry.sequence_number) return false;
      if (is_data) ++data_sectors;
    }
    const uint64_t sectors_begin = DescriptorSectorsBytes(entry.descriptor_count);
    if (data_sectors > (entry.length - sectors_begin) / vhdx::log::kSectorBytes) return false;
    for (uint64_t i = 0; i < data_sectors; ++i) {
      FIRN_RETURN_IF_ERROR(
          ring_.Read(entry.position + sectors_begin + i * vhdx::log::kSectorBytes, sector));
      const auto high = LoadLe<uint32_t>(sector.data() + vhdx::log::kSectorSequenceHigh);
      const auto low = LoadLe<uint32_t>(sector.data() + vhdx::log::kSectorSequenceLow);
      if (!vhdx::HasSignature(sector, vhdx::log::kSectorSignature) ||
          (uint64_t{high} << 32 | low) != entry.sequence_number) {
        return false;
      }
    }
    return true;
  }

  LogRing& ring_;
  const Guid guid_;
  std::unordered_map<uint64_t, LogEntry> entries_;  // by position
  uint64_t hashed_ = 0;
  bool gave_up_ = false;
};

// Applies entries to an overlay.
class LogReplayer {
 public:
  LogReplayer(LogRing& ring, const VhdxHeader& header, uint64_t file_bytes, LayerInfo* info)
      : ring_(ring), header_(header), file_bytes_(file_bytes), info_(info) {}

  Status Replay(const LogEntry& entry, LogOverlay* overlay) {
    std::array<uint8_t, vhdx::log::kDescriptorBytes> descriptor;
    uint64_t sector = entry.position + DescriptorSectorsBytes(entry.descriptor_count);
    for (uint32_t i = 0; i < entry.descriptor_count; ++i) {
      const uint64_t at =
          entry.position + vhdx::log::kEntryHeaderBytes + uint64_t{i} * vhdx::log::kDescriptorBytes;
      FIRN_RETURN_IF_ERROR(ring_.Read(at, descriptor));
      const auto target = LoadLe<uint64_t>(descriptor.data() + vhdx::log::kFileOffset);
      if (vhdx::HasSignature(descriptor, vhdx::log::kZeroSignature)) {
        const auto length = LoadLe<uint64_t>(descriptor.data() + vhdx::log::kZeroLength);
        FIRN_RETURN_IF_ERROR(CheckTarget(target, length, ring_.FileOffset(at)));
        overlay->SetZero(target, target + length);
        if (overlay->zero_range_count() > kZeroRangesMax) {
          return Refuse(info_, Code::kUnsupported, "log-too-many-ranges",
                        "the log zeroes more separate ranges than are held in memory",
                        ring_.FileOffset(at));
        }
        continue;
      }
      FIRN_RETURN_IF_ERROR(CheckTarget(target, vhdx::log::kSectorBytes, ring_.FileOffset(at)));
      LogOverlay::DataPage page;
      page.sector_offset = ring_.FileOffset(sector);
      std::copy_n(descriptor.data() + vhdx::log::kLeadingBytes, page.leading.size(),
                  page.leading.begin());
      std::copy_n(descriptor.data() + vhdx::log::kTrailingBytes, page.trailing.size(),
                  page.trailing.begin());
      overlay->SetPage(target, page);
      sector += vhdx::log::kSectorBytes;
    }
    return Status::Ok();
  }

 private:
  Status CheckTarget(uint64_t target, uint64_t length, uint64_t at) const {
    const std::string what =
        "the log writes " + std::to_string(length) + " bytes at " + std::to_string(target);
    if (!IsAligned(target, vhdx::log::kSectorBytes) ||
        !IsAligned(length, vhdx::log::kSectorBytes)) {
      return Invalid(info_, "log-target", what + ", which are not whole 4 KiB pages", at);
    }
    if (target < vhdx::kRegionTableOffsets[0]) {
      return Invalid(info_, "log-target", what + ", over the headers", at);
    }
    if (!RangeInside(target, length, file_bytes_)) {
      return Invalid(info_, "log-target", what + ", past the end of the file", at);
    }
    if (target < header_.log_offset + header_.log_length && header_.log_offset < target + length) {
      return Invalid(info_, "log-target", what + ", over the log itself", at);
    }
    return Status::Ok();
  }

  LogRing& ring_;
  const VhdxHeader& header_;
  const uint64_t file_bytes_;  // after the replay
  LayerInfo* const info_;
};

Status CheckFileOffsets(const LogEntry& head, uint64_t file_bytes, uint64_t at, LayerInfo* info) {
  if (head.flushed_file_offset > file_bytes) {
    return Truncated(info, "log-file-truncated",
                     "the log says that " + std::to_string(head.flushed_file_offset) +
                         " bytes of the file were durable, but it has only " +
                         std::to_string(file_bytes),
                     at);
  }
  if (head.last_file_offset > vhdx::kFileOffsetEnd) {
    return Invalid(info, "log-file-size",
                   "the log says that the file ends at " + std::to_string(head.last_file_offset) +
                       ", which is more than any VHDX holds",
                   at);
  }
  return Status::Ok();
}

}  // namespace

Result<VhdxReplay> ReplayVhdxLog(File& file, uint64_t file_bytes, const VhdxHeader& header,
                                 LayerInfo* info) {
  VhdxReplay replay;
  replay.file_bytes = file_bytes;
  if (vhdx::IsZeroGuid(header.log_guid)) return replay;

  LogRing ring(file, header.log_offset, header.log_length);
  LogSearch search(ring, header.log_guid);
  FIRN_ASSIGN_OR_RETURN(const std::vector<LogEntry> entries, search.FindActiveSequence());
  if (search.gave_up()) {
    return Invalid(info, "log-crafted",
                   "the log's entries overlap each other so much that no program wrote them",
                   header.log_offset);
  }
  if (entries.empty()) {
    return Invalid(info, "log-no-sequence",
                   "the header asks for a replay of the log, which holds no valid sequence",
                   header.log_offset);
  }
  const LogEntry& head = entries.back();
  FIRN_RETURN_IF_ERROR(CheckFileOffsets(head, file_bytes, ring.FileOffset(head.position), info));
  replay.file_bytes = std::max(file_bytes, head.last_file_offset);

  LogReplayer replayer(ring, header, replay.file_bytes, info);
  for (const LogEntry& entry : entries) {
    FIRN_RETURN_IF_ERROR(replayer.Replay(entry, &replay.overlay));
  }
  info->log.state = LogInfo::State::kReplayed;
  info->log.entries = entries.size();
  info->log.pages = replay.overlay.page_count();
  AddFinding(info, DiskFinding::Severity::kInfo, "log-dirty",
             "the log was replayed in memory: " + std::to_string(entries.size()) + " entries, " +
                 std::to_string(replay.overlay.page_count()) + " pages",
             ring.FileOffset(head.position));
  return replay;
}

}  // namespace firn
