#include "pipeline/pack_verifier.h"

#include <algorithm>

#include "core/crc32c.h"
#include "pack/pack_reader.h"

namespace firn {

namespace {

// Larger stripes are not written; a table that names one would make memory the attacker's.
constexpr uint32_t kStripeBytesMax = 16 * 1024 * 1024;

}  // namespace

Result<std::unique_ptr<PackVerifier>> PackVerifier::Create(const PackVerifierJob* job) {
  std::unique_ptr<PackVerifier> verifier(new PackVerifier(job));
  Tuning tuning = job->tuning;
  // What is to be checked is what the device has.
  if (tuning.io == IoMode::kAuto) tuning.io = IoMode::kDirect;
  FIRN_ASSIGN_OR_RETURN(
      verifier->io_, WorkerIo::Create(*job->fs, tuning, job->stats, &verifier->clock_, job->pace));
  return verifier;
}

void PackVerifier::Report(const PackName& name, Status status, const Id* id) {
  Problem problem;
  problem.status = std::move(status);
  problem.object = name.RelativePath();
  problem.pack = name;
  if (id != nullptr) problem.id = *id;
  job_->report(std::move(problem));
}

Status PackVerifier::Verify(const PackName& name) {
  const std::string path = JoinPath(job_->root, name.RelativePath());
  Result<std::unique_ptr<File>> buffered = job_->fs->Open(path, {});
  if (!buffered.ok()) {
    Report(name, std::move(buffered).TakeStatus());
    return Status::Ok();
  }
  std::unique_ptr<File> direct;
  if (job_->tuning.io != IoMode::kBuffered) {
    Result<std::unique_ptr<File>> opened = job_->fs->Open(path, {.direct = true});
    if (opened.ok()) direct = std::move(*opened);
  }
  Result<PackTable> table = ReadPackTable(buffered->get());
  if (!table.ok()) {
    Report(name, std::move(table).TakeStatus());
    return CheckByIndex(name, buffered->get());
  }
  if (job_->index != nullptr) job_->index->Check(name, *table, job_->report);
  Status status = VerifyStripes(name, *table, {buffered->get(), direct.get()});
  // What is still in flight, after a failure, uses the files that are about to be closed.
  for (Buffer& buffer : buffers_) (void)io_->Wait(&buffer.io, Stage::kStarved);
  job_->stats->done_bytes += table->file_bytes;
  clock_.Flush();
  return status;
}

Status PackVerifier::StartRead(const SourceFile& source, const PackStripe& stripe, Buffer* buffer) {
  if (buffer->memory.size() < stripe.length) {
    FIRN_ASSIGN_OR_RETURN(buffer->memory, AlignedBuffer::Allocate(stripe.length));
  }
  return io_->ReadSource(source, stripe.offset, buffer->memory.span().first(stripe.length),
                         &buffer->io);
}

Status PackVerifier::VerifyStripes(const PackName& name, const PackTable& table,
                                   const SourceFile& source) {
  for (const PackStripe& stripe : table.stripes) {
    if (stripe.length > kStripeBytesMax) {
      Report(name, Status::Error(Code::kCorruptPack, "a stripe over the maximum").DataLoss());
      return CheckSingly(name, table.records, source.buffered);
    }
  }
  size_t next_record = 0;
  for (size_t i = 0; i < table.stripes.size(); ++i) {
    clock_.Skip();
    if (i == 0) FIRN_RETURN_IF_ERROR(StartRead(source, table.stripes[0], &buffers_[0]));
    if (i + 1 < table.stripes.size()) {
      FIRN_RETURN_IF_ERROR(StartRead(source, table.stripes[i + 1], &buffers_[(i + 1) % 2]));
    }
    clock_.Charge(Stage::kStarved);
    Buffer& buffer = buffers_[i % 2];
    Status read = io_->Wait(&buffer.io, Stage::kStarved);
    if (!read.ok()) {
      Report(name, std::move(read));
      const size_t first = next_record;
      const uint64_t end = uint64_t{table.stripes[i].offset} + table.stripes[i].length;
      while (next_record < table.records.size() && table.records[next_record].offset < end) {
        ++next_record;
      }
      FIRN_RETURN_IF_ERROR(CheckSingly(
          name, std::span(table.records).subspan(first, next_record - first), source.buffered));
      continue;
    }
    const auto bytes = buffer.memory.span().first(table.stripes[i].length);
    CheckStripe(name, table, table.stripes[i], bytes, &next_record);
    clock_.Charge(Stage::kCompress);
  }
  if (next_record != table.records.size()) {
    Report(name,
           Status::Error(Code::kCorruptPack, "the record table names records that lie in no stripe")
               .DataLoss());
    return CheckSingly(name, std::span(table.records).subspan(next_record), source.buffered);
  }
  return Status::Ok();
}

Status PackVerifier::CheckSingly(const PackName& name, std::span<const PackRecord> records,
                                 File* file) {
  for (const PackRecord& record : records) {
    Status status;
    if (record.stored_length > kRecordContentMax || record.raw_length > kRecordContentMax) {
      status = Status::Error(Code::kCorruptPack, "a record of impossible size").DataLoss();
    } else {
      record_.resize(kRecordHeaderBytes + record.stored_length);
      FIRN_RETURN_IF_ERROR(io_->AwaitTurn(record_.size()));
      status = file->ReadAt(record.offset, record_);
      if (status.code() == Code::kDiskTruncated) {
        status = Status::Error(Code::kCorruptPack, "the pack ends inside a record").DataLoss();
      }
      if (status.ok()) status = CheckRecord(name, record, record_);
    }
    if (!status.ok()) {
      Report(name, std::move(status).At(name.RelativePath(), record.offset), &record.id);
    }
  }
  return Status::Ok();
}

Status PackVerifier::CheckByIndex(const PackName& name, File* file) {
  if (job_->index == nullptr) return Status::Ok();
  std::vector<PackRecord> records;
  for (const IndexEntry& entry : job_->index->EntriesOf(name)) {
    records.push_back({.id = entry.id,
                       .offset = entry.offset,
                       .stored_length = entry.stored_length,
                       .raw_length = entry.raw_length,
                       .record_class = entry.record_class});
  }
  by_index_ = true;
  Status status = CheckSingly(name, records, file);
  by_index_ = false;
  return status;
}

void PackVerifier::CheckStripe(const PackName& name, const PackTable& table,
                               const PackStripe& stripe, std::span<const uint8_t> bytes,
                               size_t* next) {
  const auto report = [&](const char* what, uint64_t position) {
    Report(name, Status::Error(Code::kCorruptPack, what)
                     .At(name.RelativePath(), stripe.offset + position)
                     .DataLoss());
  };
  Result<StripeHeader> header = StripeHeader::Decode(bytes);
  if (header.ok() && header->name != name && job_->keys.seal != nullptr) {
    Report(name, Status::Error(Code::kSwapped,
                               "the pack " + header->name.ToString() + " stands under this name")
                     .At(name.RelativePath(), stripe.offset)
                     .DataLoss());
  } else if (!header.ok() || header->name != name || header->offset != stripe.offset) {
    report("a stripe's header is damaged, or belongs to another pack or place", 0);
  }
  headers_.assign(bytes.begin(), bytes.begin() + kStripeHeaderBytes);
  uint64_t position = kStripeHeaderBytes;
  for (; *next < table.records.size(); ++*next) {
    const PackRecord& record = table.records[*next];
    const uint64_t length = uint64_t{kRecordHeaderBytes} + record.stored_length;
    if (record.offset != stripe.offset + position ||
        !RangeInside(position, length, stripe.length)) {
      break;
    }
    const auto record_bytes = bytes.subspan(position, length);
    headers_.insert(headers_.end(), record_bytes.begin(),
                    record_bytes.begin() + kRecordHeaderBytes);
    Status status = CheckRecord(name, record, record_bytes);
    if (!status.ok()) {
      Report(name, std::move(status).At(name.RelativePath(), record.offset), &record.id);
    }
    position += length;
  }
  const auto padding = bytes.subspan(position);
  if (std::any_of(padding.begin(), padding.end(), [](uint8_t byte) { return byte != 0; })) {
    report("a stripe holds bytes that belong to no record", position);
  }
  if (Blake3(headers_) != stripe.hash) report("a stripe does not match its hash", 0);
}

Status PackVerifier::CheckRecord(const PackName& name, const PackRecord& record,
                                 std::span<const uint8_t> bytes) {
  FIRN_ASSIGN_OR_RETURN(RecordHeader header, RecordHeader::Decode(bytes.data()));
  if (header.id != record.id || header.stored_length != record.stored_length ||
      header.raw_length != record.raw_length || header.record_class != record.record_class ||
      (!by_index_ && (header.codec != record.codec || header.flags != record.flags))) {
    return Status::Error(Code::kCorruptPack, "a record and the pack's table disagree").DataLoss();
  }
  const auto stored = bytes.subspan(kRecordHeaderBytes);
  if (job_->keys.seal != nullptr && job_->keys.seal->is_locked()) {
    if (Crc32c(stored) == header.stored_crc) return Status::Ok();
    return Status::Error(Code::kCorruptChunk, "a record's bytes do not match their checksum")
        .DataLoss();
  }
  content_.resize(record.raw_length);
  return decoder_.Decode(header, stored, content_, name.writer());
}

}  // namespace firn
