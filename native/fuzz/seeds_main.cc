// Writes the seeds that fuzzing starts from, a folder for each target: images by the tests' own
// builders, by the programs that make file systems and from real samples; packs, index runs, maps
// and streams as Firn itself writes them.
//
//   fuzz_seeds FOLDER [SAMPLE...]     samples are packed images (.gz, .bz2)
//
// What needs a program that is not here is left out; seeds/ has those that few machines can make.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "disk/vhd_image_test_util.h"
#include "disk/vhdx_image_test_util.h"
#include "fuzz/fuzz_input.h"
#include "pipeline/repository_test_util.h"
#include "stream/stream_test_util.h"
#include "used/ntfs_test_util.h"
#include "used/used_test_util.h"

namespace firn::fuzz {
namespace {

using image_test::LogDescriptor;
using image_test::LogEntrySpec;
using image_test::MakeGuid;
using image_test::VhdImage;
using image_test::VhdxImage;
using test::Must;
using vhdx::PayloadState;
using Bytes = std::vector<uint8_t>;

std::string seed_folder;

void WriteSeed(const std::string& target, const std::string& name, const Bytes& bytes) {
  const std::filesystem::path folder = std::filesystem::path(seed_folder) / target;
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

SparseImage Load(const std::string& path) {
  const std::unique_ptr<File> file = Must(FileSystem::Default().Open(path, {}));
  const uint64_t size = Must(file->Size());
  SparseImage image;
  Bytes buffer(4096);
  for (uint64_t at = 0; at < size;) {
    const std::optional<DataRange> range = Must(file->NextData(at));
    if (!range) break;
    for (at = RoundDown(range->begin, 4096); at < range->end; at += 4096) {
      const size_t count = Must(file->ReadSome(at, buffer));
      const auto bytes = std::span(buffer).first(count);
      if (std::ranges::any_of(bytes, [](uint8_t byte) { return byte != 0; })) {
        image.Write(at, bytes);
      }
    }
  }
  image.Resize(size);
  return image;
}

SparseImage Copy(const image_test::SparseBytes& bytes) {
  SparseImage image;
  for (uint64_t at = 0; at < bytes.size(); at += kMiB) {
    const uint64_t count = std::min(kMiB, bytes.size() - at);
    const Bytes piece = bytes.Read(at, count);
    for (size_t i = 0; i < piece.size(); i += 4096) {
      const auto page = std::span(piece).subspan(i, std::min<size_t>(4096, piece.size() - i));
      if (std::ranges::any_of(page, [](uint8_t byte) { return byte != 0; })) {
        image.Write(at + i, page);
      }
    }
  }
  image.Resize(bytes.size());
  return image;
}

void WriteImages(const std::string& target, const std::string& name,
                 const std::vector<SparseImage>& images, uint8_t flags = 0) {
  FuzzInput input;
  input.flags = flags;
  for (size_t i = 0; i < images.size(); ++i) input.Add(static_cast<uint8_t>(i), images[i]);
  WriteSeed(target, name, input.Encode());
}

// --- Images ---

constexpr uint64_t kDiskBytes = 12 * kMiB + 512;

// A block that only a replay of the log brings in, and a range that it zeroes.
void AddDirtyLog(VhdxImage* image) {
  const uint64_t late = image->AddBlock(2, 4);
  image->SetState(2, PayloadState::kNotPresent);
  LogEntrySpec spec;
  spec.sequence_number = 0x100000005;
  spec.tail = kMiB - 4096;
  spec.flushed_file_offset = image->end();
  spec.last_file_offset = image->end();
  spec.descriptors.push_back(
      image->BatPageWith(2, vhdx::MakeBatEntry(PayloadState::kFullyPresent, late)));
  LogDescriptor zero;
  zero.target = image->BatEntryOffset(0) + 512 * kKiB;
  zero.zero_length = 64 * kKiB;
  spec.descriptors.push_back(zero);
  image->PutLogEntry(kMiB - 4096, spec);
}

VhdxImage Child(const std::string& parent, uint8_t linkage, uint8_t id) {
  VhdxImage child({.virtual_size = kDiskBytes,
                   .locator = {{"parent_linkage", image_test::Braced(MakeGuid(linkage))},
                               {"relative_path", ".\\" + parent},
                               {"absolute_win32_path", "C:\\vm\\" + parent}},
                   .data_write_guid = MakeGuid(id),
                   .log_guid = MakeGuid(0x4C)});
  child.AddBitmap(0);
  child.AddBlock(0, 3, PayloadState::kPartiallyPresent);
  child.SetPresent(100, 500);
  return child;
}

void WriteVhdxSeeds() {
  VhdxImage parent({.virtual_size = kDiskBytes, .data_write_guid = MakeGuid(0xAA)});
  parent.AddBlock(0, 1);
  parent.AddBlock(4, 2);
  WriteImages("vhdx", "dynamic", {Copy(parent.file())});
  VhdxImage sectors({.virtual_size = kDiskBytes - 512, .logical_sector_size = 4096});
  sectors.AddBlock(1, 7);
  WriteImages("vhdx", "sectors-4096", {Copy(sectors.file())});
  VhdxImage huge({.virtual_size = 2 * kTiB, .block_size = 32 * static_cast<uint32_t>(kMiB)});
  huge.AddBlock(60000, 5);
  WriteImages("vhdx", "huge", {Copy(huge.file())});
  VhdxImage dirty({.virtual_size = kDiskBytes, .log_guid = MakeGuid(0x4C)});
  dirty.AddBlock(0, 1);
  AddDirtyLog(&dirty);
  WriteImages("vhdx", "dirty", {Copy(dirty.file())});

  VhdxImage child = Child("parent.vhdx", 0xAA, 0xBB);
  AddDirtyLog(&child);
  WriteImages("vhdx", "differencing", {Copy(child.file())});
  WriteImages("chain", "two", {Copy(child.file()), Copy(parent.file())});
  const VhdxImage middle = Child("grandparent.vhdx", 0xAA, 0xCC);
  const VhdxImage leaf = Child("parent.vhdx", 0xCC, 0xDD);
  WriteImages("chain", "three", {Copy(leaf.file()), Copy(middle.file()), Copy(parent.file())});
  WriteImages("chain", "missing", {Copy(leaf.file())});
}

void WriteVhdSeeds() {
  VhdImage parent({.virtual_size = kDiskBytes, .uuid = 0x77});
  parent.AddBlock(0, 1);
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .virtual_size = kDiskBytes,
                  .uuid = 0x11,
                  .parent_uuid = 0x77,
                  .relative_path = ".\\parent.vhd",
                  .absolute_path = "C:\\vm\\parent.vhd",
                  .parent_name = "C:\\vm\\parent.vhd"});
  child.AddBlock(0, 3);
  child.SetPresent(10, 100);
  const test::TestFolder folder;
  parent.WriteTo(folder / "parent.vhd");
  child.WriteTo(folder / "child.vhd");
  WriteImages("vhd", "dynamic", {Load(folder / "parent.vhd")});
  WriteImages("vhd", "differencing", {Load(folder / "child.vhd"), Load(folder / "parent.vhd")});
  SparseImage fixed;
  fixed.Write(kMiB, VhdImage::MakeFooter({.type = vhd::Type::kFixed, .virtual_size = kMiB}));
  WriteImages("vhd", "fixed", {fixed});
}

void WriteSamples(int count, char** paths) {
  const test::TestFolder folder;
  for (int i = 0; i < count; ++i) {
    const std::filesystem::path packed(paths[i]);
    const std::string name = packed.stem().string();
    const std::string program = packed.extension() == ".bz2" ? "bzip2 -dc" : "gzip -dc";
    const std::string image = folder / name;
    if (!image_test::RunCommand(program + " '" + packed.string() + "' | head -c 256M > '" + image +
                                "'")) {
      std::fprintf(stderr, "%s could not be unpacked\n", paths[i]);
      continue;
    }
    const SparseImage loaded = Load(image);
    WriteImages(name.ends_with(".vhd") ? "vhd" : "vhdx", name, {loaded});
    if (name.ends_with(".vhdx")) WriteImages("chain", name, {loaded});
  }
}

// --- What guests write ---

void WriteTableSeeds() {
  using used_test::SparseBytes;
  SparseBytes mbr;
  mbr.Resize(16 * kMiB);
  // Two primary ones, and an extended one with two logical ones.
  used_test::WriteBootRecord(&mbr, 0,
                             {{0x82, 2048, 4096}, {0x05, 8192, 16384}, {0x83, 26624, 2048}});
  used_test::WriteBootRecord(&mbr, 8192, {{0x82, 2048, 4096}, {0x05, 8192, 8192}});
  used_test::WriteBootRecord(&mbr, 16384, {{0x82, 64, 2048}});
  used_test::WriteSwap(&mbr, 2048 * 512, 4096 * 512);
  used_test::WriteSwap(&mbr, (8192 + 2048) * 512, 4096 * 512);
  used_test::WriteSwap(&mbr, (16384 + 64) * 512, 2048 * 512);
  WriteImages("mbr", "logical", {Copy(mbr)});
  SparseBytes gpt;
  gpt.Resize(16 * kMiB);
  used_test::WriteSwap(&gpt, 2048 * 512, 8192 * 512);
  used_test::WriteGpt(&gpt, {{used_test::kSwapType, 2048, 2048 + 8191},
                             {used_test::kLinuxType, 12288, 16383},
                             {used_test::kBasicType, 16384, 20479}});
  WriteImages("gpt", "three", {Copy(gpt)});
  WriteImages("mbr", "protective", {Copy(gpt)});
}

void WriteExt4Seeds() {
  if (!used_test::HasProgram("mke2fs")) return;
  const test::TestFolder folder;
  const std::pair<const char*, const char*> kinds[] = {
      {"ext2", "-t ext2 -O ^sparse_super,^resize_inode -g 1024"},
      {"ext3", "-t ext3 -J size=1"},
      {"ext4", "-t ext4 -J size=1 -O metadata_csum,64bit -g 2048"},
      {"ext4-old", "-t ext4 -J size=1 -O ^metadata_csum,uninit_bg,^64bit"},
      {"bigalloc", "-t ext4 -J size=1 -O bigalloc -C 4096"},
      {"meta-bg", "-t ext4 -J size=1 -O meta_bg,^resize_inode -g 1024"},
  };
  for (const auto& [name, options] : kinds) {
    const std::string image = folder / name;
    std::ofstream(image).close();
    std::filesystem::resize_file(image, 16 * kMiB);
    if (!used_test::Quietly(used_test::WithSystemPath(std::string("mke2fs -F -q -b 1024 ") +
                                                      options + " '" + image + "'"))) {
      continue;
    }
    WriteImages("ext4", name, {Load(image)});
  }
}

void WriteNtfsSeeds() {
  if (!used_test::HasProgram("mkntfs")) return;
  const image_test::TestFolder folder;
  for (const char* options : {"-c 4096", "-c 512 -I"}) {
    const std::string image = folder / "ntfs";
    if (!used_test::MakeNtfs(image, 4 * kMiB, options)) continue;
    const std::string name = std::string(options).ends_with("-I") ? "small" : "usual";
    WriteImages("ntfs", name, {Load(image)});
    // Where it can be mounted, with files, some of them taken apart by the driver.
    if (!used_test::InNtfs(folder, image,
                           "mkdir many; for i in $(seq 30); do echo $i > many/some_name_$i; done; "
                           "head -c 300000 /dev/urandom > pagefile.sys; "
                           "for i in $(seq 9); do head -c $((i * 7919)) /dev/zero > f$i; done; "
                           "rm f3 f5")) {
      continue;
    }
    WriteImages("ntfs", name + "-files", {Load(image)}, kOption1);
  }
}

// --- The repository's own ---

Bytes WithFlags(uint8_t flags, const Bytes& bytes) {
  Bytes input = {flags};
  input.insert(input.end(), bytes.begin(), bytes.end());
  return input;
}

Bytes ReadFile(const std::string& path) {
  const SparseImage image = Load(path);
  return image.Read(0, image.size());
}

void WriteRepositorySeeds() {
  const test::TestFolder folder;
  test::Random random(7);
  test::DiskContent content(2 * kMiB);
  for (uint64_t page = 0; page < 24; ++page) {
    Bytes bytes(kPageBytes, static_cast<uint8_t>(page / 3));
    if (page % 5 == 0) random.Fill(std::span(bytes).first(64));
    content.Set(page * 3, std::move(bytes));
  }
  content.WriteRaw(folder / "disk.raw");
  for (const Codec codec : {Codec::kLz4, Codec::kZstd, Codec::kRaw}) {
    test::TestRepository repository(7);
    const auto outcome = test::TestRepository::Run(
        repository.Options({folder / "disk.raw"}, {codec, 1}), test::SmallTuning(1));
    Must(outcome.status);
    const std::string name = std::to_string(static_cast<int>(codec));
    int number = 0;
    for (const std::string& file : repository.Files()) {
      const std::string target = file.ends_with(".pack") ? "pack" : "index";
      WriteSeed(target, name + "-" + std::to_string(number++),
                WithFlags(0, ReadFile(repository.root() + "/" + file)));
    }
    Must(test::SendToFile(repository, folder / "stream", {{outcome.root()}}).status);
    WriteSeed("stream", name, WithFlags(0, ReadFile(folder / "stream")));
  }
}

void WriteMapSeeds() {
  test::Random random(9);
  MapLeaf leaf;
  leaf.runs = {{16, false, random.Id()}, {100, true, {}}, {64, false, random.Id()}};
  leaf.runs.push_back({static_cast<uint16_t>(kSegmentPages - 180), true, {}});
  WriteSeed("map", "leaf", WithFlags(0, EncodeLeaf(leaf)));
  MapLeaf fixed;
  fixed.runs = {{64, false, random.Id()}, {static_cast<uint16_t>(kSegmentPages - 64), true, {}}};
  WriteSeed("map", "leaf-fixed", WithFlags(kOption1, EncodeLeaf(fixed)));
  const MapNode node{{{0, random.Id(), 80}, {3, random.Id(), 7}, {255, random.Id(), 2048}}};
  WriteSeed("map", "node", WithFlags(0, EncodeNode(node)));
  const MapRoot root{3 * kTiB, {{0, 3, random.Id(), 90}, {700, 256, random.Id(), 4000}}};
  WriteSeed("map", "root", WithFlags(0, EncodeRoot(root)));
}

}  // namespace

void WriteSeeds(const std::string& folder, int samples, char** paths) {
  seed_folder = folder;
  WriteVhdxSeeds();
  WriteVhdSeeds();
  WriteSamples(samples, paths);
  WriteTableSeeds();
  WriteExt4Seeds();
  WriteNtfsSeeds();
  WriteRepositorySeeds();
  WriteMapSeeds();
}

}  // namespace firn::fuzz

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER [SAMPLE...]\n");
    return 2;
  }
  firn::fuzz::WriteSeeds(argv[1], argc - 2, argv + 2);
  return 0;
}
