// Builds VHD images for tests, written out by hand from the specification (see
// vhdx_image_test_util.h for why).
#ifndef FIRN_DISK_VHD_IMAGE_TEST_UTIL_H_
#define FIRN_DISK_VHD_IMAGE_TEST_UTIL_H_

#include <string>
#include <vector>

#include "disk/image_test_util.h"
#include "disk/vhd_format.h"
#include "disk/vhdx_format.h"

namespace firn::image_test {

struct VhdOptions {
  vhd::Type type = vhd::Type::kDynamic;
  uint64_t virtual_size = 8 * kMiB;
  uint32_t block_size = 2 * kMiB;
  uint8_t uuid = 0x11;  // all of its bytes
  uint8_t parent_uuid = 0;
  std::string relative_path{};
  std::string absolute_path{};
  std::string parent_name{};
};

// A dynamic or differencing VHD: footer copy, header at 512, table at 1536, locators, blocks,
// footer.
class VhdImage {
 public:
  static constexpr uint64_t kTable = 1536;

  explicit VhdImage(VhdOptions options = {}) : options_(std::move(options)) {
    blocks_ = DivideUp(options_.virtual_size, options_.block_size);
    end_ = RoundUp(kTable + blocks_ * 4, 512);
    file_.Write(kTable, Bytes(end_ - kTable, 0xFF));
    PutHeader();
    // Space of Microsoft's kind, in bytes; and of the specification's, in sectors.
    if (!options_.relative_path.empty()) {
      PutLocator(0, vhd::kLocatorRelative, options_.relative_path, 4096);
    }
    if (!options_.absolute_path.empty()) {
      PutLocator(1, vhd::kLocatorAbsolute, options_.absolute_path, 8);
    }
    Seal();
  }

  uint64_t end() const { return end_; }
  SparseBytes& file() { return file_; }
  uint64_t BitmapBytes() const { return vhd::BitmapBytes(options_.block_size); }

  // Adds a block of the pattern `seed` with an empty bitmap and returns where its bitmap lies.
  uint64_t AddBlock(uint64_t block, uint64_t seed) {
    const uint64_t offset = end_;
    end_ += BitmapBytes() + options_.block_size;
    file_.Write(offset, Bytes(BitmapBytes()));
    file_.Write(offset + BitmapBytes(),
                Pattern(seed, block * options_.block_size, options_.block_size));
    SetEntry(block, static_cast<uint32_t>(offset / 512));
    return offset;
  }

  void SetEntry(uint64_t block, uint32_t sector) {
    Bytes entry(4);
    StoreBe<uint32_t>(entry.data(), sector);
    file_.Write(kTable + block * 4, entry);
  }

  // Sets the bits of `count` sectors of the disk. REQUIRES: their block is there.
  void SetPresent(uint64_t sector, uint64_t count) {
    const uint64_t per_block = options_.block_size / 512;
    for (uint64_t i = sector; i < sector + count; ++i) {
      const Bytes entry = file_.Read(kTable + i / per_block * 4, 4);
      const uint64_t at = uint64_t{LoadBe<uint32_t>(entry.data())} * 512 + i % per_block / 8;
      Bytes byte = file_.Read(at, 1);
      byte[0] = static_cast<uint8_t>(byte[0] | 0x80 >> i % 8);
      file_.Write(at, byte);
    }
  }

  template <typename Change>
  void ChangeHeader(Change change) {
    Bytes header = file_.Read(512, 1024);
    change(header);
    vhd::SealChecksum(header, vhd::dynamic_header::kChecksum);
    file_.Write(512, header);
  }

  static Bytes MakeFooter(const VhdOptions& options) {
    Bytes footer(512);
    std::copy_n("conectix", 8, footer.begin());
    StoreBe<uint32_t>(footer.data() + 8, 2);
    StoreBe<uint32_t>(footer.data() + 12, 0x00010000);
    const bool fixed = options.type == vhd::Type::kFixed;
    StoreBe<uint64_t>(footer.data() + 16, fixed ? ~uint64_t{0} : 512);
    std::copy_n("win ", 4, footer.begin() + 28);
    StoreBe<uint32_t>(footer.data() + 32, 0x00060003);
    std::copy_n("Wi2k", 4, footer.begin() + 36);
    StoreBe<uint64_t>(footer.data() + 40, options.virtual_size / 2);  // the original size
    StoreBe<uint64_t>(footer.data() + 48, options.virtual_size);
    StoreBe<uint32_t>(footer.data() + 60, static_cast<uint32_t>(options.type));
    std::fill_n(footer.begin() + 68, 16, options.uuid);
    vhd::SealChecksum(footer, 64);
    return footer;
  }

  // Writes both footers. Call after the last block.
  void Seal() {
    const Bytes footer = MakeFooter(options_);
    file_.Write(0, footer);
    file_.Resize(end_);
    file_.Write(end_, footer);
  }

  void WriteTo(const std::string& path) {
    Seal();
    file_.WriteTo(path);
  }

 private:
  void PutHeader() {
    Bytes header(1024);
    std::copy_n("cxsparse", 8, header.begin());
    StoreBe<uint64_t>(header.data() + 8, ~uint64_t{0});
    StoreBe<uint64_t>(header.data() + 16, kTable);
    StoreBe<uint32_t>(header.data() + 24, 0x00010000);
    StoreBe<uint32_t>(header.data() + 28, static_cast<uint32_t>(blocks_));
    StoreBe<uint32_t>(header.data() + 32, options_.block_size);
    std::fill_n(header.begin() + 40, 16, options_.parent_uuid);
    const std::string name = *vhdx::Utf8ToUtf16Le(options_.parent_name);
    for (size_t i = 0; i + 1 < name.size(); i += 2) {
      header[64 + i] = static_cast<uint8_t>(name[i + 1]);
      header[65 + i] = static_cast<uint8_t>(name[i]);
    }
    vhd::SealChecksum(header, vhd::dynamic_header::kChecksum);
    file_.Write(512, header);
  }

  void PutLocator(size_t index, uint32_t code, const std::string& path, uint32_t space) {
    const std::string text = *vhdx::Utf8ToUtf16Le(path);
    const uint64_t offset = end_;
    end_ += 4096;
    file_.Write(offset, Bytes(4096));
    file_.Write(offset, Bytes(text.begin(), text.end()));
    ChangeHeader([&](Bytes& header) {
      uint8_t* locator = header.data() + 576 + 24 * index;
      StoreBe<uint32_t>(locator, code);
      StoreBe<uint32_t>(locator + 4, space);
      StoreBe<uint32_t>(locator + 8, static_cast<uint32_t>(text.size()));
      StoreBe<uint64_t>(locator + 16, offset);
    });
  }

  const VhdOptions options_;
  uint64_t blocks_ = 0;
  uint64_t end_ = 0;
  SparseBytes file_;
};

}  // namespace firn::image_test

#endif  // FIRN_DISK_VHD_IMAGE_TEST_UTIL_H_
