/** What the scripts answer, checked before it is believed: a host may be of another version, and a reply that lacks something must not become `undefined` somewhere deep. */

import { z } from 'zod';

const text = z.string();
const count = z.number().int().nonnegative();
// PowerShell has no difference between no value and an empty one.
const optionalText = z
  .string()
  .nullish()
  .transform((value) => value || undefined);

/** An error as the scripts give it. */
export const faultSchema = z.object({
  message: text,
  category: optionalText,
  fullyQualifiedErrorId: optionalText,
  hresult: optionalText,
  wmiErrorCode: optionalText,
  position: optionalText,
  kind: optionalText,
  data: z.record(text, z.unknown()).nullish(),
});
export type Fault = z.infer<typeof faultSchema>;

export const replySchema = z.union([
  z.object({ ok: z.literal(true), result: z.unknown(), warnings: z.array(text) }),
  z.object({ ok: z.literal(false), error: faultSchema, warnings: z.array(text) }),
]);

export const infoSchema = z.object({
  computer: text,
  caption: text,
  version: text,
  build: count,
});
export type Info = z.infer<typeof infoSchema>;

const consistency = z.enum(['application', 'filesystem', 'crash']);
const state = z.enum(['running', 'off', 'saved', 'paused', 'critical']);

export const vmsSchema = z.object({
  vms: z.array(
    z.object({
      id: text,
      name: text,
      state,
      reachable: consistency,
      reachableReason: optionalText,
      volumes: z.array(text),
      disks: z.array(
        z.object({
          name: text,
          path: text,
          layers: z.array(text),
          sizeBytes: count,
          fileBytes: count,
          volume: text,
          unsupported: optionalText,
        }),
      ),
    }),
  ),
});
export type VmReply = z.infer<typeof vmsSchema>['vms'][number];

export const volumesSchema = z.object({
  volumes: z.array(z.object({ name: text, sizeBytes: count, freeBytes: count })),
});

const frozenDisk = z.object({ name: text, layers: z.array(text).min(1) });

export const checkpointSchema = z.object({
  disks: z.array(frozenDisk),
  configuration: z.array(text),
  frozenAt: text,
  warning: optionalText,
  state,
});

export const setSchema = z.object({
  frozenAt: text,
  shadows: z.array(text),
  vms: z.array(
    z.object({
      vm: text,
      state,
      disks: z.array(frozenDisk.extend({ recovered: z.boolean(), stale: z.boolean() })),
      configuration: z.array(text),
    }),
  ),
});
export type SetReply = z.infer<typeof setSchema>;

export const endSchema = z.object({
  state: z.enum(['pending', 'done']),
  reason: optionalText,
  error: optionalText,
  events: z
    .array(text)
    .nullish()
    .transform((value) => value ?? []),
});
export type EndReply = z.infer<typeof endSchema>;

export const factsSchema = z.object({
  elevated: z.boolean().nullable(),
  module: z.boolean(),
  writer: z.object({ found: z.boolean(), state: count }).nullish(),
  vms: z.array(
    z.object({
      id: text,
      name: text,
      checkpointType: optionalText,
      replication: z.object({ state: text, health: text, mode: text }).nullish(),
      scsiControllers: count,
      snapshotLocation: optionalText,
      busy: optionalText,
      tracking: z.object({ version: text, foreign: z.number().int() }),
    }),
  ),
});
export type Facts = z.infer<typeof factsSchema>;

export const computerSchema = z.object({
  account: text,
  sid: text,
  groups: z.array(text),
  privileges: z.array(text),
  longPaths: z.boolean(),
  eventSource: z.boolean(),
  defender: z
    .object({ realTime: z.boolean(), paths: z.array(text), processes: z.array(text) })
    .nullable(),
});
export type Computer = z.infer<typeof computerSchema>;

export const writtenSchema = z.object({ written: z.literal(true) });

/** Numbers in one text: lists of them may be long. */
const numbers = text.transform((list) => (list === '' ? [] : list.split(',').map(Number)));

export const referenceSchema = z.object({
  version: text,
  name: text,
  disks: z.array(z.object({ name: text, tracking: text, sizeBytes: count })),
});
export type ReferenceReply = z.infer<typeof referenceSchema>;

export const changesSchema = z.object({ processed: count, offsets: numbers, lengths: numbers });

export const keptSchema = z.object({ state: z.enum(['kept', 'pending', 'gone']) });

export const droppedSchema = z.object({ found: z.boolean() });

export const referencesSchema = z.object({
  items: z.array(
    z.object({
      name: text,
      vm: z.object({ id: text, name: text }),
      made: optionalText,
      stands: z.boolean(),
    }),
  ),
});

export const leftoversSchema = z.object({
  items: z.array(
    z.object({
      kind: z.enum(['checkpoint', 'layer', 'shadow-copy']),
      name: text,
      mark: optionalText,
      created: optionalText,
      vm: z.object({ id: text, name: text }),
    }),
  ),
});
