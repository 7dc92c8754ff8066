// Records: how content stands in a pack. docs/repository-format.md section 2.
//
// Sealed records are encrypted: codec/seal.h makes them of what is encoded here.
//
// A RecordEncoder and a RecordDecoder each hold one compression context; they belong to one thread.
// Decoding trusts nothing: header CRC, stored CRC, lengths and at last the id are checked before
// the content is handed out.
#ifndef FIRN_CODEC_RECORD_H_
#define FIRN_CODEC_RECORD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/hash.h"
#include "codec/seal_keys.h"
#include "core/bytes.h"
#include "core/status.h"

namespace firn {

enum class RecordClass : uint8_t { kChunk = 1, kMap = 2, kObject = 3 };
enum class Codec : uint8_t { kRaw = 0, kLz4 = 1, kZstd = 2 };

inline constexpr uint32_t kRecordHeaderBytes = 64;
// A flag: the stored bytes are encrypted, and 16 bytes longer for it.
inline constexpr uint8_t kRecordSealed = 1;
inline constexpr uint32_t kRecordContentMax = 8 * 1024 * 1024 + 64 * 1024;

struct RecordHeader {
  RecordClass record_class = RecordClass::kChunk;
  Codec codec = Codec::kRaw;
  uint8_t flags = 0;
  uint32_t raw_length = 0;
  uint32_t stored_length = 0;
  Id id{};
  uint64_t nonce = 0;  // 0 unless sealed
  uint32_t stored_crc = 0;

  bool is_sealed() const { return flags == kRecordSealed; }

  void Encode(uint8_t* out) const;  // kRecordHeaderBytes
  // kCorruptChunk unless all of the header is as the format demands. REQUIRES: kRecordHeaderBytes
  // readable.
  static Result<RecordHeader> Decode(const uint8_t* bytes);
};

struct CompressionOptions {
  Codec codec = Codec::kLz4;
  int level = 2;  // zstd level, or LZ4 acceleration
};

// Bytes that a record of `raw_length` may take at most, header and seal included.
uint32_t RecordBytesMax(uint32_t raw_length);

class RecordEncoder {
 public:
  static Result<std::unique_ptr<RecordEncoder>> Create(const CompressionOptions& options);
  ~RecordEncoder();

  // Writes the whole record to `out`, which has room for RecordBytesMax(content.size()), and
  // returns its header.
  RecordHeader Encode(RecordClass record_class, const Id& id, std::span<const uint8_t> content,
                      uint8_t* out);

 private:
  struct Contexts;
  RecordEncoder(const CompressionOptions& options, std::unique_ptr<Contexts> contexts);
  uint32_t Compress(std::span<const uint8_t> content, uint8_t* out);

  const CompressionOptions options_;
  const std::unique_ptr<Contexts> contexts_;
};

class RecordDecoder {
 public:
  explicit RecordDecoder(const RepositoryKeys& keys);
  ~RecordDecoder();

  // Opens and decompresses `stored` into `out` (raw_length bytes) and checks CRC and id. `writer`
  // is whose pack it is in; it means nothing for records that are not sealed. kCorruptChunk on any
  // doubt; in a sealed repository kTampered if it is not what the writer sealed, kKeyWriteOnly and
  // kKeyRequired if the keys can't tell.
  Status Decode(const RecordHeader& header, std::span<const uint8_t> stored, std::span<uint8_t> out,
                const RecordWriter& writer = {});

 private:
  struct Contexts;
  Status Decompress(const RecordHeader& header, std::span<const uint8_t> stored,
                    std::span<uint8_t> out);
  const RepositoryKeys keys_;
  const std::unique_ptr<Contexts> contexts_;
};

}  // namespace firn

#endif  // FIRN_CODEC_RECORD_H_
