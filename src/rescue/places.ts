/**
 * Where each id lies: the table that rescue makes from the packs, as it uses no index.
 *
 * An open-addressing table over flat arrays: 55 to 110 bytes a record, where a Map of objects takes several times that. Ten million records,
 * 640 GiB of chunks of the default size, take some 700 MB. An id may have several places (it was stored twice, or one place is
 * damaged): all are kept, in the order added.
 */

import { ID_BYTES } from '../repository/format/keys.js';

/** A record in a pack. `pack` is the caller's number for it. */
export interface Place {
  pack: number;
  /** Of the record's header, in the file. */
  offset: number;
  storedLength: number;
  rawLength: number;
}

const FIELDS = 4;
const EMPTY = 0xffffffff;
const SLOTS_MIN = 2048;

export class Places {
  #count = 0;
  // Numbers of entries by hash. Always at least a quarter empty, so that every probe ends.
  #slots = new Uint32Array(SLOTS_MIN).fill(EMPTY);
  #ids = Buffer.alloc(capacityOf(SLOTS_MIN) * ID_BYTES);
  #fields = new Uint32Array(capacityOf(SLOTS_MIN) * FIELDS);

  get count(): number {
    return this.#count;
  }

  add(id: Buffer, { pack, offset, storedLength, rawLength }: Place): void {
    if (this.#count === capacityOf(this.#slots.length)) this.#grow();
    const entry = this.#count++;
    id.copy(this.#ids, entry * ID_BYTES, 0, ID_BYTES);
    this.#fields.set([pack, offset, storedLength, rawLength], entry * FIELDS);
    this.#insert(entry);
  }

  /** All places of an id, first added first. */
  *find(id: Buffer): Generator<Place> {
    for (let slot = this.#home(id, 0); ; slot = (slot + 1) % this.#slots.length) {
      const entry = this.#slots[slot] as number;
      if (entry === EMPTY) return;
      const at = entry * ID_BYTES;
      if (this.#ids.compare(id, 0, ID_BYTES, at, at + ID_BYTES) !== 0) continue;
      const [pack, offset, storedLength, rawLength] = this.#fields.subarray(
        entry * FIELDS,
        (entry + 1) * FIELDS,
      ) as unknown as [number, number, number, number];
      yield { pack, offset, storedLength, rawLength };
    }
  }

  // Ids are hashes already. A hostile repository can make them collide, and slows down its own rescue alone.
  #home(ids: Buffer, at: number): number {
    return ids.readUInt32LE(at) % this.#slots.length;
  }

  #insert(entry: number): void {
    let slot = this.#home(this.#ids, entry * ID_BYTES);
    while (this.#slots[slot] !== EMPTY) slot = (slot + 1) % this.#slots.length;
    this.#slots[slot] = entry;
  }

  #grow(): void {
    const slotCount = this.#slots.length * 2;
    const capacity = capacityOf(slotCount);
    const ids = Buffer.alloc(capacity * ID_BYTES);
    this.#ids.copy(ids, 0, 0, this.#count * ID_BYTES);
    this.#ids = ids;
    const fields = new Uint32Array(capacity * FIELDS);
    fields.set(this.#fields.subarray(0, this.#count * FIELDS));
    this.#fields = fields;
    this.#slots = new Uint32Array(slotCount).fill(EMPTY);
    for (let entry = 0; entry < this.#count; entry++) this.#insert(entry);
  }
}

function capacityOf(slotCount: number): number {
  return (slotCount * 3) / 4;
}
