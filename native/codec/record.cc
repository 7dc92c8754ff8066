#include "codec/record.h"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "codec/lz4_encoder.h"
#include "codec/seal.h"
#include "core/crc32c.h"

namespace firn {

namespace {

constexpr uint8_t kMagic[4] = {'F', 'I', 'R', 'R'};
constexpr uint8_t kVersion = 1;
constexpr uint32_t kLz4PrefixBytes = 4;

Status Corrupt(const char* what) { return Status::Error(Code::kCorruptChunk, what).DataLoss(); }

const Key& KeyOf(const RepositoryKeys& keys, RecordClass record_class) {
  switch (record_class) {
    case RecordClass::kChunk:
      return keys.chunk;
    case RecordClass::kMap:
      return keys.map;
    case RecordClass::kObject:
      return keys.object;
  }
  return keys.object;
}

// What compression must save to be kept: 3 %, because the reader then is spared decompressing.
uint32_t WorthwhileLength(uint32_t raw_length) {
  return raw_length - static_cast<uint32_t>(DivideUp(uint64_t{raw_length} * 3, 100));
}

// One frame that knows its content size, as the format has it, and nothing after it.
bool IsOneZstdFrame(std::span<const uint8_t> stored, uint32_t raw_length) {
  return ZSTD_getFrameContentSize(stored.data(), stored.size()) == raw_length &&
         ZSTD_findFrameCompressedSize(stored.data(), stored.size()) == stored.size();
}

}  // namespace

void RecordHeader::Encode(uint8_t* out) const {
  std::memset(out, 0, kRecordHeaderBytes);
  std::memcpy(out, kMagic, sizeof kMagic);
  out[4] = kVersion;
  out[5] = static_cast<uint8_t>(record_class);
  out[6] = static_cast<uint8_t>(codec);
  out[7] = flags;
  StoreLe(out + 8, raw_length);
  StoreLe(out + 12, stored_length);
  std::memcpy(out + 16, id.data(), id.size());
  StoreLe(out + 48, nonce);
  StoreLe(out + 56, stored_crc);
  StoreLe(out + 60, Crc32c({out, 60}));
}

Result<RecordHeader> RecordHeader::Decode(const uint8_t* bytes) {
  if (std::memcmp(bytes, kMagic, sizeof kMagic) != 0) return Corrupt("no record begins here");
  if (LoadLe<uint32_t>(bytes + 60) != Crc32c({bytes, 60})) {
    return Corrupt("a record's header does not match its checksum");
  }
  if (bytes[4] > kVersion) {
    return Status::Error(Code::kVersion, "a record of a newer format version");
  }
  RecordHeader header;
  header.record_class = static_cast<RecordClass>(bytes[5]);
  header.codec = static_cast<Codec>(bytes[6]);
  header.flags = bytes[7];
  header.raw_length = LoadLe<uint32_t>(bytes + 8);
  header.stored_length = LoadLe<uint32_t>(bytes + 12);
  std::memcpy(header.id.data(), bytes + 16, header.id.size());
  header.nonce = LoadLe<uint64_t>(bytes + 48);
  header.stored_crc = LoadLe<uint32_t>(bytes + 56);
  const bool known = bytes[4] == kVersion && bytes[5] >= 1 && bytes[5] <= 3 && bytes[6] <= 2;
  if (!known || header.raw_length > kRecordContentMax || header.stored_length > kRecordContentMax) {
    return Corrupt("a record's header holds values that no record has");
  }
  const bool fits = header.is_sealed() ? header.stored_length >= Aes256Gcm::kTagBytes
                                       : header.flags == 0 && header.nonce == 0;
  if (!fits) return Corrupt("a record's header holds values that no record has");
  return header;
}

uint32_t RecordBytesMax(uint32_t raw_length) {
  const auto lz4 = static_cast<uint32_t>(kLz4PrefixBytes + Lz4Encoder::BlockBytesMax(raw_length));
  const auto zstd = static_cast<uint32_t>(ZSTD_compressBound(raw_length));
  return kRecordHeaderBytes + std::max(lz4, zstd) + uint32_t{Aes256Gcm::kTagBytes};
}

struct RecordEncoder::Contexts {
  std::optional<Lz4Encoder> lz4;
  ZSTD_CCtx* zstd = nullptr;
  ~Contexts() { ZSTD_freeCCtx(zstd); }
};

RecordEncoder::RecordEncoder(const CompressionOptions& options, std::unique_ptr<Contexts> contexts)
    : options_(options), contexts_(std::move(contexts)) {}
RecordEncoder::~RecordEncoder() = default;

Result<std::unique_ptr<RecordEncoder>> RecordEncoder::Create(const CompressionOptions& options) {
  auto contexts = std::make_unique<Contexts>();
  if (options.codec == Codec::kLz4) contexts->lz4.emplace(options.level);
  if (options.codec == Codec::kZstd) {
    contexts->zstd = ZSTD_createCCtx();
    if (contexts->zstd == nullptr) return Status::Error(Code::kInternal, "no memory for zstd");
    const size_t set =
        ZSTD_CCtx_setParameter(contexts->zstd, ZSTD_c_compressionLevel, options.level);
    if (ZSTD_isError(set)) return Status::Error(Code::kInvalidArgument, "zstd level out of range");
  }
  return std::unique_ptr<RecordEncoder>(new RecordEncoder(options, std::move(contexts)));
}

// The stored length, or 0 when storing raw is better.
uint32_t RecordEncoder::Compress(std::span<const uint8_t> content, uint8_t* out) {
  const auto raw_length = static_cast<uint32_t>(content.size());
  const uint32_t limit = WorthwhileLength(raw_length);
  if (options_.codec == Codec::kLz4 && limit > kLz4PrefixBytes) {
    StoreLe(out, raw_length);
    const size_t length = contexts_->lz4->Encode(
        content, {out + kLz4PrefixBytes, Lz4Encoder::BlockBytesMax(raw_length)});
    const auto stored_length = static_cast<uint32_t>(kLz4PrefixBytes + length);
    return length == 0 || stored_length > limit ? 0 : stored_length;
  }
  if (options_.codec == Codec::kZstd) {
    const size_t length = ZSTD_compress2(contexts_->zstd, out, ZSTD_compressBound(raw_length),
                                         content.data(), raw_length);
    return ZSTD_isError(length) || length > limit ? 0 : static_cast<uint32_t>(length);
  }
  return 0;
}

RecordHeader RecordEncoder::Encode(RecordClass record_class, const Id& id,
                                   std::span<const uint8_t> content, uint8_t* out) {
  RecordHeader header;
  header.record_class = record_class;
  header.id = id;
  header.raw_length = static_cast<uint32_t>(content.size());
  uint8_t* stored = out + kRecordHeaderBytes;
  header.stored_length = Compress(content, stored);
  header.codec = header.stored_length > 0 ? options_.codec : Codec::kRaw;
  if (header.stored_length == 0) {
    std::copy(content.begin(), content.end(), stored);
    header.stored_length = header.raw_length;
  }
  header.stored_crc = Crc32c({stored, header.stored_length});
  header.Encode(out);
  return header;
}

struct RecordDecoder::Contexts {
  explicit Contexts(const RepositoryKeys& keys) : opener(keys.seal) {}
  ~Contexts() { ZSTD_freeDCtx(zstd); }

  ZSTD_DCtx* zstd = nullptr;
  RecordOpener opener;
  std::vector<uint8_t> opened;
};

RecordDecoder::RecordDecoder(const RepositoryKeys& keys)
    : keys_(keys), contexts_(std::make_unique<Contexts>(keys)) {}
RecordDecoder::~RecordDecoder() = default;

Status RecordDecoder::Decode(const RecordHeader& header, std::span<const uint8_t> stored,
                             std::span<uint8_t> out, const RecordWriter& writer) {
  if (stored.size() != header.stored_length || out.size() != header.raw_length) {
    return Corrupt("a record's lengths do not agree");
  }
  if (Crc32c(stored) != header.stored_crc) {
    return Corrupt("a record's bytes do not match their checksum");
  }
  if (keys_.seal != nullptr) {
    FIRN_RETURN_IF_ERROR(contexts_->opener.Open(header, stored, writer, &contexts_->opened));
    stored = contexts_->opened;
  } else if (header.is_sealed()) {
    return Status::Error(Code::kKeyRequired, "a sealed record in a repository that is not sealed");
  }
  FIRN_RETURN_IF_ERROR(Decompress(header, stored, out));
  if (Blake3Keyed(KeyOf(keys_, header.record_class), out) != header.id) {
    return Corrupt("content does not match its id");
  }
  return Status::Ok();
}

Status RecordDecoder::Decompress(const RecordHeader& header, std::span<const uint8_t> stored,
                                 std::span<uint8_t> out) {
  switch (header.codec) {
    case Codec::kRaw:
      if (stored.size() != out.size()) return Corrupt("a record's lengths do not agree");
      std::copy(stored.begin(), stored.end(), out.begin());
      break;
    case Codec::kLz4: {
      if (stored.size() < kLz4PrefixBytes || LoadLe<uint32_t>(stored.data()) != header.raw_length) {
        return Corrupt("an LZ4 record's lengths do not agree");
      }
      const int length = LZ4_decompress_safe(
          reinterpret_cast<const char*>(stored.data() + kLz4PrefixBytes),
          reinterpret_cast<char*>(out.data()), static_cast<int>(stored.size() - kLz4PrefixBytes),
          static_cast<int>(out.size()));
      if (length < 0 || static_cast<size_t>(length) != out.size()) {
        return Corrupt("an LZ4 record does not decompress");
      }
      break;
    }
    case Codec::kZstd: {
      if (contexts_->zstd == nullptr) contexts_->zstd = ZSTD_createDCtx();
      if (contexts_->zstd == nullptr) return Status::Error(Code::kInternal, "no memory for zstd");
      if (!IsOneZstdFrame(stored, header.raw_length)) {
        return Corrupt("a zstd record is not one frame of its length");
      }
      const size_t length = ZSTD_decompressDCtx(contexts_->zstd, out.data(), out.size(),
                                                stored.data(), stored.size());
      if (ZSTD_isError(length) || length != out.size()) {
        return Corrupt("a zstd record does not decompress");
      }
      break;
    }
  }
  return Status::Ok();
}

}  // namespace firn
