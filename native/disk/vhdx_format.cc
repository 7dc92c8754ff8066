#include "disk/vhdx_format.h"

#include <array>
#include <cassert>
#include <cstring>

#include "core/crc32c.h"

namespace firn::vhdx {
namespace {

constexpr bool IsHighSurrogate(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
constexpr bool IsLowSurrogate(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

void AppendUtf8(uint32_t code, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// Takes one code point off the front of `text`; nothing if it is malformed.
std::optional<uint32_t> TakeUtf8(std::string_view* text) {
  const auto byte = [text](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>((*text)[i]));
  };
  const uint32_t first = byte(0);
  size_t length = 1;
  uint32_t code = first;
  uint32_t least = 0;
  if (first >= 0xF0 && first < 0xF8) {
    length = 4, code = first & 7, least = 0x10000;
  } else if (first >= 0xE0 && first < 0xF0) {
    length = 3, code = first & 0xF, least = 0x800;
  } else if (first >= 0xC0 && first < 0xE0) {
    length = 2, code = first & 0x1F, least = 0x80;
  } else if (first >= 0x80) {
    return std::nullopt;
  }
  if (text->size() < length) return std::nullopt;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return std::nullopt;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  if (code < least || code > 0x10FFFF || surrogate) return std::nullopt;
  text->remove_prefix(length);
  return code;
}

}  // namespace

uint32_t StructureChecksum(std::span<const uint8_t> structure, size_t checksum_offset) {
  assert(checksum_offset + 4 <= structure.size());
  constexpr std::array<uint8_t, 4> kZeroField{};
  const uint32_t before = Crc32c(structure.first(checksum_offset));
  const uint32_t with_field = Crc32c(kZeroField, before);
  return Crc32c(structure.subspan(checksum_offset + 4), with_field);
}

bool ChecksumMatches(std::span<const uint8_t> structure, size_t checksum_offset) {
  return LoadLe<uint32_t>(structure.data() + checksum_offset) ==
         StructureChecksum(structure, checksum_offset);
}

void SealChecksum(std::span<uint8_t> structure, size_t checksum_offset) {
  StoreLe<uint32_t>(structure.data() + checksum_offset,
                    StructureChecksum(structure, checksum_offset));
}

bool HasSignature(std::span<const uint8_t> bytes, std::string_view signature) {
  return bytes.size() >= signature.size() &&
         std::memcmp(bytes.data(), signature.data(), signature.size()) == 0;
}

Guid LoadGuid(const uint8_t* p) {
  Guid guid;
  std::memcpy(guid.data(), p, guid.size());
  return guid;
}

bool IsZeroGuid(const Guid& guid) { return guid == Guid{}; }

std::optional<std::string> Utf16LeToUtf8(std::span<const uint8_t> bytes) {
  if (bytes.size() % 2 != 0) return std::nullopt;
  std::string text;
  text.reserve(bytes.size() / 2);
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint32_t code = LoadLe<uint16_t>(bytes.data() + i);
    if (code == 0 || IsLowSurrogate(code)) return std::nullopt;
    if (IsHighSurrogate(code)) {
      if (i + 4 > bytes.size()) return std::nullopt;
      const uint32_t low = LoadLe<uint16_t>(bytes.data() + i + 2);
      if (!IsLowSurrogate(low)) return std::nullopt;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      i += 2;
    }
    AppendUtf8(code, &text);
  }
  return text;
}

std::optional<std::string> Utf8ToUtf16Le(std::string_view text) {
  std::string units;
  const auto put = [&units](uint32_t unit) {
    units.push_back(static_cast<char>(unit & 0xFF));
    units.push_back(static_cast<char>(unit >> 8));
  };
  while (!text.empty()) {
    const std::optional<uint32_t> code = TakeUtf8(&text);
    if (!code) return std::nullopt;
    if (*code < 0x10000) {
      put(*code);
    } else {
      put(0xD800 + ((*code - 0x10000) >> 10));
      put(0xDC00 + ((*code - 0x10000) & 0x3FF));
    }
  }
  return units;
}

}  // namespace firn::vhdx
