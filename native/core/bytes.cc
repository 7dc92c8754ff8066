#include "core/bytes.h"

namespace firn {

namespace {

int HexDigit(char c, bool allow_upper) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (allow_upper && c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The order in which the bytes of a GUID stand in its text form.
constexpr std::array<uint8_t, 16> kGuidTextOrder = {3, 2, 1,  0,  5,  4,  7,  6,
                                                    8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace

std::string ToHex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

bool FromHex(std::string_view hex, std::span<uint8_t> out) {
  if (hex.size() != out.size() * 2) return false;
  for (size_t i = 0; i < out.size(); ++i) {
    int high = HexDigit(hex[2 * i], false);
    int low = HexDigit(hex[2 * i + 1], false);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

std::string GuidToString(const Guid& guid) {
  std::string text;
  for (size_t i = 0; i < guid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += ToHex(std::span(&guid[kGuidTextOrder[i]], 1));
  }
  return text;
}

bool GuidFromString(std::string_view text, Guid* guid) {
  if (text.size() == 38 && text.front() == '{' && text.back() == '}') text = text.substr(1, 36);
  if (text.size() != 36) return false;
  size_t position = 0;
  for (size_t i = 0; i < guid->size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      if (text[position++] != '-') return false;
    }
    int high = HexDigit(text[position], true);
    int low = HexDigit(text[position + 1], true);
    if (high < 0 || low < 0) return false;
    (*guid)[kGuidTextOrder[i]] = static_cast<uint8_t>(high * 16 + low);
    position += 2;
  }
  return true;
}

}  // namespace firn
