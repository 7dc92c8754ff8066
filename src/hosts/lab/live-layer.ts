/**
 * One VHDX layer of a machine that may be running: read, and written in place.
 *
 * Dynamic and differencing images, whose log is empty and stays so. Input and output are synchronous and calls do not overlap: the process
 * that plays a machine does nothing else, and between two calls the layer is whole. Offsets and lengths are bytes of the virtual disk
 * and whole sectors.
 *
 * What stands in the file is a valid image at every moment, also after the process is killed or the power fails, without a log: space is
 * appended to the file, and `flush` makes the payload durable before any table points to it (block-table.ts has the rest of the order).
 * So until its flush a write is there or not there, which is what a disk with a cache promises. Windows logs these changes instead; a
 * log is needed for edits of several places at once, and there are none here: even a new parent locator goes to unused space, and one
 * entry of eight bytes switches to it.
 */

import { firnError } from '../../errors.js';
import { BlockTable } from './block-table.js';
import { ImageFile } from './image-file.js';
import {
  BITMAP_BYTES,
  BLOCK_FULL,
  BLOCK_NOT_PRESENT,
  BLOCK_PARTIAL,
  BLOCK_ZERO,
  batShape,
  checkShape,
  currentHeader,
  type DiskShape,
  encodeLocator,
  findItems,
  findRegions,
  HEADER_BYTES,
  HEADER_OFFSETS,
  type Header,
  invalid,
  type Locator,
  METADATA_TABLE_BYTES,
  type MetadataItems,
  MIB,
  newGuid,
  nextHeader,
  parseLocator,
  placeForLocator,
  REGION_TABLE_BYTES,
  REGION_TABLE_OFFSETS,
  type Region,
  readsAsZero,
  safeUint64,
} from './vhdx-tables.js';

/** A part of the virtual disk as a layer has it. */
export interface LayerRun {
  /** `absent`: the parent has it. */
  kind: 'data' | 'zero' | 'absent';
  offset: number;
  length: number;
  /** Of the data, in the file. */
  fileOffset: number;
}

export interface OpenLayerOptions {
  write: boolean;
  /** Called before the file grows; what it throws is thrown by the write that needed the room. */
  beforeGrowth?: (() => void) | undefined;
}

/** The part of a range that lies in one block. */
interface Piece {
  block: number;
  /** Of its first byte, in the block. */
  within: number;
  offset: number;
  length: number;
  /** All of the block that lies inside the disk. */
  whole: boolean;
}

export class LiveLayer {
  readonly path: string;
  readonly shape: DiskShape;
  readonly writable: boolean;
  readonly #file: ImageFile;
  readonly #beforeGrowth: () => void;
  readonly #metadata: Region;
  readonly #table: BlockTable;
  #items: MetadataItems;
  #locator: Locator | undefined;
  #header: Header;
  // Where the next block goes: the end of all that is in use.
  #end: number;
  #touched = false;
  #dataTouched = false;
  #payloadDirty = false;

  /** Opens a layer. ERR_DISK_INVALID, ERR_UNSUPPORTED for one with a log to replay, ERR_NOT_FOUND. */
  static open(path: string, options: OpenLayerOptions): LiveLayer {
    const file = new ImageFile(path, options);
    try {
      return new LiveLayer(file, options);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  private constructor(file: ImageFile, options: OpenLayerOptions) {
    const { path } = file;
    this.path = path;
    this.#file = file;
    this.writable = options.write;
    this.#beforeGrowth = options.beforeGrowth ?? (() => {});
    const fileBytes = file.bytes;
    if (fileBytes < MIB || file.load(0, 8).toString('latin1') !== 'vhdxfile') {
      invalid(path, 'not a VHDX');
    }
    const pair = (offsets: readonly [number, number], length: number): [Buffer, Buffer] => [
      file.load(offsets[0], length),
      file.load(offsets[1], length),
    ];
    this.#header = currentHeader(pair(HEADER_OFFSETS, HEADER_BYTES), path);
    const regions = findRegions(pair(REGION_TABLE_OFFSETS, REGION_TABLE_BYTES), fileBytes, path);
    this.#metadata = regions.metadata;
    const items = file.load(regions.metadata.offset, METADATA_TABLE_BYTES);
    this.#items = findItems(items, regions.metadata, path);
    this.shape = this.#readShape();
    checkShape(this.shape, path);
    this.#locator = this.#readLocator();
    const bat = batShape(this.shape, regions.bat, path);
    this.#table = new BlockTable(file, this.shape, bat, regions.bat);
    this.#end = Math.max(
      regions.bat.offset + regions.bat.length,
      regions.metadata.offset + regions.metadata.length,
      this.#header.logEnd,
      this.#table.checkEntries(fileBytes),
    );
  }

  get dataWriteGuid(): string {
    return this.#header.dataWriteGuid;
  }

  /** What the layer says of its parent; undefined if it has none. */
  get locator(): ReadonlyMap<string, string> | undefined {
    return this.#locator;
  }

  /** The parts of a range, as this layer has them, in order. */
  runs(offset: number, length: number): LayerRun[] {
    const runs: LayerRun[] = [];
    for (const piece of this.#pieces(offset, length)) this.#mapPiece(piece, runs);
    return runs;
  }

  /** Fills `target` with the data of a run, from `within` bytes into it. */
  readRun(run: LayerRun, within: number, target: Uint8Array): void {
    this.#file.readAt(run.fileOffset + within, target);
  }

  /**
   * Writes whole sectors. When it fails (ERR_DISK_FULL, or what beforeGrowth throws) the content of the range is undefined, and nothing
   * else has changed.
   */
  write(offset: number, bytes: Uint8Array): void {
    this.#touchData();
    for (const piece of this.#pieces(offset, bytes.length)) {
      const place = this.#makePresent(piece);
      const from = piece.offset - offset;
      this.#file.writeAt(place + piece.within, bytes.subarray(from, from + piece.length));
      this.#payloadDirty = true;
    }
  }

  /** Makes whole sectors read as zeros, whatever the parent has. */
  writeZeros(offset: number, length: number): void {
    this.#touchData();
    for (const piece of this.#pieces(offset, length)) {
      const state = this.#table.stateOf(piece.block);
      if (readsAsZero(state)) continue;
      if (state === BLOCK_NOT_PRESENT && !this.shape.hasParent) continue;
      if (state === BLOCK_NOT_PRESENT && piece.whole) {
        this.#table.setBlock(piece.block, BLOCK_ZERO, 0);
        continue;
      }
      for (let done = 0; done < piece.length; done += MIB) {
        this.write(piece.offset + done, Buffer.alloc(Math.min(MIB, piece.length - done)));
      }
    }
  }

  /** Makes most of the payload durable without holding the process up, so that the next flush is short. */
  async syncPayload(): Promise<void> {
    await this.#file.syncLater();
  }

  /** Makes all that was written durable, and visible to who opens the file. */
  flush(): void {
    if (this.#payloadDirty) this.#file.sync();
    this.#payloadDirty = false;
    this.#table.flush();
  }

  /**
   * Gives the content a new identity. A child that is to stay valid must name the new one as its second linkage before
   * (parent_linkage2, MS-VHDX 2.6.2.6.3).
   */
  replaceDataWriteGuid(guid: string): void {
    this.#touch();
    this.#writeHeaders({ dataWriteGuid: guid });
    this.#dataTouched = true;
  }

  /** Changes what the layer says of its parent, all at once and durably. */
  replaceLocator(locator: Locator): void {
    const { locator: present } = this.#items;
    if (present === undefined) invalid(this.path, 'a layer without a parent has no locator');
    this.#touch();
    const bytes = encodeLocator(locator);
    const offset = placeForLocator(this.#items, bytes.length, this.#metadata, this.path);
    this.#file.writeAt(this.#metadata.offset + offset, bytes);
    this.#file.sync();
    const entry = Buffer.alloc(8);
    entry.writeUInt32LE(offset, 0);
    entry.writeUInt32LE(bytes.length, 4);
    this.#file.writeAt(this.#metadata.offset + present.entryOffset + 16, entry);
    this.#file.sync();
    this.#items = { ...this.#items, locator: { ...present, offset, length: bytes.length } };
    this.#locator = new Map(locator);
  }

  /** Closes the file; flush before. May be called again. */
  close(): void {
    this.#file.close();
  }

  #readShape(): DiskShape {
    const item = ({ offset, length }: { offset: number; length: number }) =>
      this.#file.load(this.#metadata.offset + offset, length);
    const parameters = item(this.#items.fileParameters);
    return {
      sizeBytes: safeUint64(item(this.#items.size), 0),
      blockBytes: parameters.readUInt32LE(0),
      sectorBytes: item(this.#items.sector).readUInt32LE(0),
      hasParent: (parameters.readUInt32LE(4) & 2) !== 0,
    };
  }

  #readLocator(): Locator | undefined {
    const { locator } = this.#items;
    if (!this.shape.hasParent) return undefined;
    if (locator === undefined) return invalid(this.path, 'there is no parent locator');
    const bytes = this.#file.load(this.#metadata.offset + locator.offset, locator.length);
    return parseLocator(bytes, this.path);
  }

  *#pieces(offset: number, length: number): Generator<Piece> {
    const { sizeBytes, blockBytes, sectorBytes } = this.shape;
    const end = offset + length;
    const whole = offset % sectorBytes === 0 && length % sectorBytes === 0;
    if (!whole || offset < 0 || length < 0 || end > sizeBytes) {
      throw firnError(
        'ERR_INVALID_ARGUMENT',
        `Expected whole sectors inside the disk but received ${length} bytes at ${offset}`,
      );
    }
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / blockBytes);
      const start = block * blockBytes;
      const blockEnd = Math.min(start + blockBytes, sizeBytes);
      const pieceEnd = Math.min(end, blockEnd);
      yield {
        block,
        within: at - start,
        offset: at,
        length: pieceEnd - at,
        whole: at === start && pieceEnd === blockEnd,
      };
      at = pieceEnd;
    }
  }

  #mapPiece(piece: Piece, runs: LayerRun[]): void {
    const { offset, length } = piece;
    const state = this.#table.stateOf(piece.block);
    const fileOffset = this.#table.placeOf(piece.block) + piece.within;
    if (state === BLOCK_FULL) {
      appendRun(runs, { kind: 'data', offset, length, fileOffset });
    } else if (state === BLOCK_PARTIAL) {
      this.#mapBySectors(piece, fileOffset, runs);
    } else {
      const absent = state === BLOCK_NOT_PRESENT && this.shape.hasParent;
      appendRun(runs, { kind: absent ? 'absent' : 'zero', offset, length, fileOffset: 0 });
    }
  }

  #mapBySectors(piece: Piece, fileOffset: number, runs: LayerRun[]): void {
    const { sectorBytes } = this.shape;
    const first = piece.within / sectorBytes;
    const count = piece.length / sectorBytes;
    for (let done = 0; done < count; ) {
      const { here, sectors } = this.#table.runOfSectors(piece.block, first + done, count - done);
      appendRun(runs, {
        kind: here ? 'data' : 'absent',
        offset: piece.offset + done * sectorBytes,
        length: sectors * sectorBytes,
        fileOffset: here ? fileOffset + done * sectorBytes : 0,
      });
      done += sectors;
    }
  }

  // Where the piece's block lies in the file, once it is there.
  #makePresent(piece: Piece): number {
    const { block, whole } = piece;
    const state = this.#table.stateOf(block);
    if (state === BLOCK_FULL) return this.#table.placeOf(block);
    if (state === BLOCK_PARTIAL) {
      if (whole) this.#table.setBlock(block, BLOCK_FULL, this.#table.placeOf(block));
      else this.#setSectors(piece);
      return this.#table.placeOf(block);
    }
    // Only a block that showed the parent may become partial: in any other, a clear bit would bring the parent's data back.
    const partial = state === BLOCK_NOT_PRESENT && this.shape.hasParent && !whole;
    if (partial && !this.#table.hasBitmapFor(block)) {
      this.#table.addBitmapFor(block, this.#allocate(BITMAP_BYTES));
    }
    const offset = this.#allocate(this.shape.blockBytes);
    this.#table.setBlock(block, partial ? BLOCK_PARTIAL : BLOCK_FULL, offset);
    if (partial) {
      // What an earlier life of the block left in the bitmap must not count.
      this.#table.setSectors(block, 0, this.shape.blockBytes / this.shape.sectorBytes, false);
      this.#setSectors(piece);
    }
    return offset;
  }

  #setSectors(piece: Piece): void {
    const { sectorBytes } = this.shape;
    const count = piece.length / sectorBytes;
    this.#table.setSectors(piece.block, piece.within / sectorBytes, count, true);
  }

  #allocate(bytes: number): number {
    this.#beforeGrowth();
    const offset = this.#end;
    this.#file.setSize(offset + bytes);
    this.#end = offset + bytes;
    return offset;
  }

  // A new FileWriteGuid before anything else changes (MS-VHDX 2.2.2).
  #touch(): void {
    if (this.#touched) return;
    if (!this.writable) {
      throw firnError('ERR_INTERNAL', `${this.path} is open for reading only`, { path: this.path });
    }
    this.#writeHeaders({ fileWriteGuid: newGuid() });
    // What a killed process appended and never pointed to goes, so that fresh space is zero.
    this.#file.setSize(this.#end);
    this.#touched = true;
  }

  // A new DataWriteGuid before the first change that a guest could see, once in a session.
  #touchData(): void {
    if (this.#dataTouched) return;
    this.#touch();
    this.#writeHeaders({ dataWriteGuid: newGuid() });
    this.#dataTouched = true;
  }

  // One copy after the other, so that one is always whole; in the end both say the same.
  #writeHeaders(changes: { fileWriteGuid?: string; dataWriteGuid?: string }): void {
    for (let copy = 0; copy < 2; copy++) {
      const next = nextHeader(this.#header, changes);
      this.#file.writeAt(HEADER_OFFSETS[next.slot], next.bytes);
      this.#file.sync();
      this.#header = next;
    }
  }
}

function appendRun(runs: LayerRun[], run: LayerRun): void {
  const last = runs.at(-1);
  const follows =
    last?.kind === run.kind &&
    (run.kind !== 'data' || last.fileOffset + last.length === run.fileOffset);
  if (last !== undefined && follows) last.length += run.length;
  else runs.push(run);
}
