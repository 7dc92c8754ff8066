#include "codec/seal.h"

#include <algorithm>
#include <cstring>

#include "core/crc32c.h"

namespace firn {

namespace {

// All of the header but the two checksums: what is there before the stored bytes are.
constexpr size_t kAssociatedBytes = 56;

Aes256Gcm::Nonce NonceOf(uint64_t counter) {
  Aes256Gcm::Nonce nonce{};
  StoreLe(nonce.data() + 4, counter);
  return nonce;
}

}  // namespace

SealKeys::~SealKeys() {
  if (options_.run_key) WipeMemory(*options_.run_key);
  for (auto& [run, row] : options_.runs) WipeMemory(row.key);
}

std::optional<Key> SealKeys::WriterKey(const RecordWriter& writer) const {
  Key run_key;
  const auto own = options_.runs.find(writer.run);
  if (own != options_.runs.end()) {
    run_key = own->second.key;
  } else if (options_.run_key) {
    run_key = Blake3Keyed(*options_.run_key, writer.run);
  } else {
    return std::nullopt;
  }
  uint8_t attempt[4];
  StoreLe(attempt, writer.attempt);
  const Key key = Blake3Keyed(run_key, attempt);
  WipeMemory(run_key);
  return key;
}

std::array<uint8_t, 16> SealKeys::PublicTail(const RunId& run) const {
  const auto own = options_.runs.find(run);
  return own == options_.runs.end() ? std::array<uint8_t, 16>{} : own->second.public_tail;
}

Key SealedIndexKey(const Key& id_key) { return Blake3DeriveKey("firn 2026-11 index run", id_key); }

Result<std::unique_ptr<RecordSealer>> RecordSealer::Create(const SealKeys& keys,
                                                           const RecordWriter& writer,
                                                           NonceCounter* counter) {
  std::optional<Key> key = keys.WriterKey(writer);
  if (!key) {
    return Status::Error(Code::kKeyRequired, "there is no key that this run could seal with");
  }
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Aes256Gcm> cipher, Aes256Gcm::Create());
  const Status set = cipher->SetKey(*key);
  WipeMemory(*key);
  FIRN_RETURN_IF_ERROR(set);
  return std::unique_ptr<RecordSealer>(new RecordSealer(std::move(cipher), counter));
}

Status RecordSealer::Seal(RecordHeader* header, uint8_t* record) {
  const std::span<uint8_t> content(record + kRecordHeaderBytes, header->stored_length);
  header->flags = kRecordSealed;
  header->nonce = counter_->fetch_add(1, std::memory_order_relaxed);
  header->stored_length += Aes256Gcm::kTagBytes;
  header->Encode(record);
  Aes256Gcm::Tag tag;
  FIRN_RETURN_IF_ERROR(
      cipher_->Seal(NonceOf(header->nonce), {record, kAssociatedBytes}, content, &tag));
  std::copy(tag.begin(), tag.end(), content.data() + content.size());
  header->stored_crc = Crc32c({content.data(), header->stored_length});
  header->Encode(record);
  return Status::Ok();
}

Status RecordOpener::SetKey(const RecordWriter& writer) {
  if (cipher_ != nullptr && writer == writer_) return Status::Ok();
  std::optional<Key> key = keys_->WriterKey(writer);
  if (!key && keys_->is_locked()) {
    return Status::Error(Code::kKeyRequired, "a sealed record can't be read without a key");
  }
  if (!key) {
    return Status::Error(Code::kKeyWriteOnly, "this key can add to the repository, not read it");
  }
  if (cipher_ == nullptr) {
    FIRN_ASSIGN_OR_RETURN(cipher_, Aes256Gcm::Create());
  }
  const Status set = cipher_->SetKey(*key);
  WipeMemory(*key);
  if (!set.ok()) cipher_ = nullptr;
  writer_ = writer;
  return set;
}

Status RecordOpener::Open(const RecordHeader& header, std::span<const uint8_t> stored,
                          const RecordWriter& writer, std::vector<uint8_t>* plain) {
  if (!header.is_sealed() || stored.size() != header.stored_length ||
      stored.size() < Aes256Gcm::kTagBytes) {
    return Status::Error(Code::kTampered, "an unsealed record in a sealed repository").DataLoss();
  }
  FIRN_RETURN_IF_ERROR(SetKey(writer));
  uint8_t bytes[kRecordHeaderBytes];
  header.Encode(bytes);
  const auto content = stored.first(stored.size() - Aes256Gcm::kTagBytes);
  Aes256Gcm::Tag tag;
  std::memcpy(tag.data(), stored.data() + content.size(), tag.size());
  plain->resize(content.size());
  FIRN_ASSIGN_OR_RETURN(
      const bool is_authentic,
      cipher_->Open(NonceOf(header.nonce), {bytes, kAssociatedBytes}, content, tag, *plain));
  if (is_authentic) return Status::Ok();
  plain->clear();
  return Status::Error(Code::kTampered, "a sealed record is not what its run wrote").DataLoss();
}

Status UnsealRecord(RecordOpener* opener, std::span<const uint8_t> record,
                    const RecordWriter& writer, std::vector<uint8_t>* unsealed) {
  FIRN_ASSIGN_OR_RETURN(RecordHeader header, RecordHeader::Decode(record.data()));
  const auto stored = record.subspan(kRecordHeaderBytes);
  if (stored.size() != header.stored_length || Crc32c(stored) != header.stored_crc) {
    return Status::Error(Code::kCorruptChunk, "a record's bytes do not match their checksum")
        .DataLoss();
  }
  std::vector<uint8_t> plain;
  FIRN_RETURN_IF_ERROR(opener->Open(header, stored, writer, &plain));
  header.flags = 0;
  header.nonce = 0;
  header.stored_length = static_cast<uint32_t>(plain.size());
  header.stored_crc = Crc32c(plain);
  unsealed->resize(kRecordHeaderBytes + plain.size());
  header.Encode(unsealed->data());
  std::copy(plain.begin(), plain.end(), unsealed->begin() + kRecordHeaderBytes);
  return Status::Ok();
}

}  // namespace firn
